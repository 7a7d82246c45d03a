/**
 * Mailboxes between Workers: rows arrive once, in order and whole, whatever bursts they came in; a full ring costs rows and
 * says how many; a reader is woken once per burst; and the places may wrap around.
 */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { loadNative } from "../../ffi/native.ts";
import { closeMailboxes, Mailbox, type Mailboxes, openMailboxes } from "../../src/io/mailbox.ts";
import { DROP } from "../../src/metrics.ts";
import { Arena, MAX_PACKET_BYTES } from "../../src/vector/arena.ts";
import { Burst, BURST_CAPACITY, DONE, TO_PARSE_ADMITTED, TO_TUNNEL } from "../../src/vector/burst.ts";

const WORKERS = 3;
const RING = 256;
const SEED = Number(Deno.env.get("FUZZ_SEED") ?? 20260101);

/** Burst, mailbox and what was dropped, of one Worker. */
function side(worker: number, mailboxes: Mailboxes) {
  const dropped: number[] = [];
  const burst = new Burst(new Arena(2 * BURST_CAPACITY));
  return { burst, dropped, mailbox: new Mailbox(worker, mailboxes, (code) => dropped.push(code)) };
}

/** Adds a row for another Worker whose bytes, address and port tell its number. */
function add(burst: Burst, to: number, step: number, number: number, length: number) {
  const row = burst.grow(length, DONE);
  const at = burst.offset[row];
  burst.bytes.fill(number & 255, at, at + length);
  burst.address.set([number, 1, 2, 3], 4 * row);
  burst.local.set([4, 5, 6, number], 4 * row);
  burst.port[row] = number & 0xffff;
  burst.ecn[row] = number & 3;
  burst.handOver(row, to, step);
}

/** The numbers of the rows, each checked to be whole. */
function numbers(burst: Burst): number[] {
  return Array.from({ length: burst.count }, (_, row) => {
    const number = burst.address[4 * row];
    const at = burst.offset[row];
    assertEquals([...burst.address.subarray(4 * row + 1, 4 * row + 4)], [1, 2, 3]);
    assertEquals([...burst.local.subarray(4 * row, 4 * row + 4)], [4, 5, 6, number]);
    assertEquals([burst.port[row], burst.ecn[row]], [number & 0xffff, number & 3]);
    assert(burst.bytes.subarray(at, at + burst.length[row]).every((byte) => byte === (number & 255)));
    return number;
  });
}

function withMailboxes(test: (mailboxes: Mailboxes) => void) {
  const mailboxes = openMailboxes(WORKERS);
  try {
    test(mailboxes);
  } finally {
    closeMailboxes(mailboxes);
  }
}

const ignore = typeof loadNative() === "string";

Deno.test(
  { name: "mailbox: what is handed over arrives once, in order, and where it belongs", ignore },
  () =>
    withMailboxes((mailboxes) => {
      // Close to where 32 bits run out.
      for (const ring of mailboxes.rings.flat()) new Int32Array(ring).fill(0x7fffff00, 0, 32);
      const sides = Array.from({ length: WORKERS }, (_, worker) => side(worker, mailboxes));
      let number = 0;
      const bursts = fc.array(fc.tuple(fc.integer({ min: 1, max: 2 }), fc.nat({ max: MAX_PACKET_BYTES })), {
        maxLength: 100,
      });
      fc.assert(
        fc.property(bursts, (rows) => {
          const { burst, mailbox, dropped } = sides[0];
          const sent: number[][] = [[], [], []];
          for (const [to, length] of rows) {
            sent[to].push(number);
            add(burst, to, number % 2 ? TO_TUNNEL : TO_PARSE_ADMITTED, number++, length);
          }
          mailbox.send(burst);
          assert(burst.next.subarray(0, burst.count).every((next) => next === DONE));
          burst.release();
          for (const to of [1, 2]) {
            const { burst, mailbox } = sides[to];
            assertEquals(mailbox.receive(burst), sent[to].length);
            assertEquals(numbers(burst), sent[to]);
            sent[to].forEach((number, row) =>
              assertEquals(burst.next[row], number % 2 ? TO_TUNNEL : TO_PARSE_ADMITTED)
            );
            burst.release();
            assertEquals(burst.arena.free, burst.arena.slotCount);
          }
          assertEquals(dropped, []);
        }),
        { seed: SEED, numRuns: 200 },
      );
      assert(number > RING, "the ring went round");
    }),
);

Deno.test(
  { name: "mailbox: a full ring costs what does not fit, and other rings nothing", ignore },
  () =>
    withMailboxes((mailboxes) => {
      const from = side(0, mailboxes), to = side(1, mailboxes), other = side(2, mailboxes);
      for (let half = 0; half < 2; half++) {
        for (let i = 0; i < 150; i++) add(from.burst, 1, TO_TUNNEL, 150 * half + i, 100);
        add(from.burst, 2, TO_TUNNEL, 1000 + half, 100);
        from.mailbox.send(from.burst);
        from.burst.release();
      }
      assertEquals(from.dropped, new Array(300 - RING).fill(DROP.worker_full));
      to.mailbox.receive(to.burst);
      assertEquals(numbers(to.burst), Array.from({ length: RING }, (_, i) => i));
      other.mailbox.receive(other.burst);
      assertEquals(numbers(other.burst), [1000, 1001]);
    }),
);

Deno.test(
  { name: "mailbox: a reader without slots takes what it can, and the rest later", ignore },
  () =>
    withMailboxes((mailboxes) => {
      const from = side(0, mailboxes);
      for (let i = 0; i < 20; i++) add(from.burst, 1, TO_TUNNEL, i, 1500);
      from.mailbox.send(from.burst);
      const burst = new Burst(new Arena(8));
      const mailbox = new Mailbox(1, mailboxes, () => {});
      const taken: number[] = [];
      for (const expected of [8, 8, 4, 0]) {
        assertEquals(mailbox.receive(burst), expected);
        taken.push(...numbers(burst));
        burst.release();
      }
      assertEquals(taken, Array.from({ length: 20 }, (_, i) => i));
    }),
);

Deno.test(
  { name: "mailbox: whoever waits is woken, and not again for what was cleared", ignore },
  async () => {
    const mailboxes = openMailboxes(WORKERS);
    const from = side(0, mailboxes), to = side(1, mailboxes);
    let wakes = 0;
    to.mailbox.onReadable(() => wakes++);
    const pause = () => new Promise((resolve) => setTimeout(resolve, 30));
    for (const expected of [1, 2]) {
      for (let i = 0; i < 3; i++) add(from.burst, 1, TO_TUNNEL, i, 100);
      from.mailbox.send(from.burst);
      from.burst.release();
      for (let waits = 0; wakes < expected && waits < 1000; waits++) await pause();
      assertEquals(wakes, expected);
      assertEquals(to.mailbox.receive(to.burst), 3);
      to.burst.release();
      await pause();
      assertEquals(wakes, expected);
    }
    // A burst with nothing for others wakes nobody.
    from.burst.grow(10, DONE);
    from.mailbox.send(from.burst);
    await pause();
    assertEquals(wakes, 2);
    await to.mailbox.close();
    closeMailboxes(mailboxes);
  },
);
