/**
 * Datagrams on connections, over TCP on loopback: whole and in order however they are cut, an end to who sends anything
 * else, and bounded memory and no waiting for who floods or does not read; and what lies between connections and Workers.
 */
import { assert, assertEquals, assertLess } from "@std/assert";
import fc from "fast-check";
import { closeMailboxes, Mailbox, openMailboxes } from "../../src/io/mailbox.ts";
import type { Port } from "../../src/io/port.ts";
import { StreamPort, type StreamPortOptions } from "../../src/io/stream_port.ts";
import { pumpStreams } from "../../src/io/stream_pump.ts";
import { StreamSide } from "../../src/io/stream_side.ts";
import { DROP } from "../../src/metrics.ts";
import { Arena } from "../../src/vector/arena.ts";
import { Burst, BURST_CAPACITY, DONE, TO_PARSE, TO_TRANSMIT } from "../../src/vector/burst.ts";
import { formatEndpoint, parseAddress } from "../../src/wire/address.ts";
import {
  isStreamAddress,
  STREAM_HEAD_BYTES,
  STREAM_PORT_NUMBER,
  streamNumber,
  streamNumberOf,
  writeStreamAddress,
} from "../../src/wire/stream.ts";
import { IDLE_PORT } from "../kit/fakes.ts";

const SEED = Number(Deno.env.get("FUZZ_SEED") ?? 20260101);
const DATA = 0x40, INITIATION = 0xc1, RESPONSE = 0xc2, COOKIE = 0xc3;

/** A datagram of `length` bytes that begins with `first` and carries `number`. */
function datagram(length: number, number: number, first = DATA): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length).fill(number & 255);
  bytes[0] = first;
  return bytes;
}

function framed(datagrams: Uint8Array[]): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(datagrams.flatMap((one) => [one.length & 255, one.length >> 8, ...one]));
}

async function writeAll(conn: Deno.Conn, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await conn.write(bytes.subarray(at));
}

/** Runs `test` with a port that has `connections`, their far ends, and the rows that the port lost. */
async function withPort(
  connections: number,
  options: Partial<StreamPortOptions>,
  test: (
    s: {
      port: StreamPort;
      burst: Burst;
      numbers: number[];
      far: Deno.Conn[];
      lost: number[];
      closed: number[];
    },
  ) => Promise<void>,
): Promise<void> {
  const lost: number[] = [], closed: number[] = [], numbers: number[] = [], far: Deno.Conn[] = [];
  const port = new StreamPort({
    description: "test",
    localPort: 443,
    onDrop: (code) => lost.push(code),
    onClosed: (number) => closed.push(number),
    ...options,
  });
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  try {
    for (let i = 0; i < connections; i++) {
      const [near, other] = await Promise.all([
        listener.accept(),
        Deno.connect({ hostname: "127.0.0.1", port: (listener.addr as Deno.NetAddr).port }),
      ]);
      far.push(other);
      numbers.push(port.add(near));
    }
    await test({ port, burst: new Burst(new Arena(BURST_CAPACITY)), numbers, far, lost, closed });
  } finally {
    port.close();
    listener.close();
    for (const one of far) one.close();
    await pause(5); // reads that the closing ends
  }
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; !condition(); i++) {
    assert(i < 500, "it did not happen in time");
    await pause(5);
  }
}

/** The rows' bytes, once there are `count` of them; the burst is empty then. */
async function receive(port: StreamPort, burst: Burst, count: number): Promise<Uint8Array[]> {
  const found: Uint8Array[] = [];
  await until(() => {
    port.receive(burst);
    for (let row = 0; row < burst.count; row++) {
      found.push(burst.bytes.slice(burst.offset[row], burst.offset[row] + burst.length[row]));
    }
    burst.release();
    return found.length >= count;
  });
  return found;
}

/** Sends datagrams to a connection in bursts. */
function transmit(port: StreamPort, burst: Burst, number: number, datagrams: Uint8Array[]): void {
  for (const bytes of datagrams) {
    const row = burst.grow(bytes.length, TO_TRANSMIT);
    burst.bytes.set(bytes, burst.offset[row]);
    writeStreamAddress(burst.address, 4 * row, number);
    burst.port[row] = STREAM_PORT_NUMBER;
    if (burst.count < BURST_CAPACITY) continue;
    port.transmit(burst);
    burst.release();
  }
  port.transmit(burst);
  assert(burst.next.subarray(0, burst.count).every((next) => next === DONE));
  burst.release();
}

/** What the far end gets, until it has been quiet for a while, as datagrams; a cut one fails. */
async function read(conn: Deno.Conn, bytesMin: number): Promise<Uint8Array[]> {
  const all = new Uint8Array(4 << 20);
  let to = 0;
  while (to < bytesMin) to += await conn.read(all.subarray(to)) ?? 0;
  const found: Uint8Array[] = [];
  for (let at = 0; at < to;) {
    const length = all[at] | all[at + 1] << 8;
    if (at + STREAM_HEAD_BYTES + length > to) to += await conn.read(all.subarray(to)) ?? 0;
    found.push(all.slice(at + STREAM_HEAD_BYTES, at + STREAM_HEAD_BYTES + length));
    at += STREAM_HEAD_BYTES + length;
  }
  return found;
}

Deno.test("stream: datagrams arrive whole and in order, however they are cut", async () => {
  await withPort(1, {}, async ({ port, burst, numbers, far: [far] }) => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 22, max: 1936 }), { minLength: 1, maxLength: 40 }),
        fc.array(fc.integer({ min: 1, max: 5000 }), { minLength: 1, maxLength: 8 }),
        async (lengths, cuts) => {
          const sent = lengths.map((length, i) => datagram(length, i));
          const bytes = framed(sent);
          const receiving = receive(port, burst, sent.length);
          for (let at = 0, i = 0; at < bytes.length; i++) {
            const end = Math.min(bytes.length, at + cuts[i % cuts.length]);
            await writeAll(far, bytes.subarray(at, end));
            if (i < 4) await pause(0);
            at = end;
          }
          assertEquals(await receiving, sent);
        },
      ),
      { numRuns: 25, seed: SEED },
    );
    await writeAll(far, framed([datagram(22, 7)]));
    await until(() => port.receive(burst) === 1);
    assertEquals(burst.next[0], TO_PARSE);
    assert(isStreamAddress(burst.address, 0));
    assertEquals([streamNumber(burst.address, 0), burst.port[0]], [numbers[0], STREAM_PORT_NUMBER]);
    burst.release();
  });
});

Deno.test("stream: a length that no datagram has, or another protocol, ends the connection", async () => {
  const bad: [length: number, first: number][] = [
    [0, DATA],
    [21, DATA],
    [1937, DATA],
    [65535, DATA],
    [148, 1], // WireGuard
    [0x4547, 0x54], // "GET"
  ];
  for (const [length, first] of bad) {
    await withPort(1, {}, async ({ port, burst, numbers, far: [far], closed }) => {
      // What came before stands.
      await writeAll(far, framed([datagram(30, 1)]));
      await writeAll(far, Uint8Array.of(length & 255, length >> 8, first));
      assertEquals(await receive(port, burst, 1), [datagram(30, 1)]);
      await until(() => (port.receive(burst), closed.length > 0));
      assertEquals(closed, numbers);
      assertEquals(await far.read(new Uint8Array(1)), null);
    });
  }
});

Deno.test("stream: who floods waits, and others are served", async () => {
  await withPort(2, {}, async ({ port, burst, numbers, far: [flooding, other] }) => {
    let isFlooding = true;
    const flood = framed(Array.from({ length: 500 }, (_, i) => datagram(1400, i)));
    let written = 0;
    const writing = (async () => {
      while (isFlooding) {
        await writeAll(flooding, flood);
        written += flood.length;
      }
    })();
    // Nobody takes anything, so there comes a time from which on nothing more can be written.
    for (let before = -1, rounds = 0; before < written; rounds++) {
      assert(rounds < 300, `${written} bytes, and no end`);
      before = written;
      await pause(100);
    }
    await writeAll(other, framed([datagram(60, 9)]));
    let turns = 0;
    for (let isServed = false; !isServed; turns++) {
      await pause(1);
      assert(port.receive(burst, 8) <= 8);
      for (let row = 0; row < burst.count; row++) {
        if (streamNumber(burst.address, 4 * row) === numbers[1]) isServed = true;
      }
      burst.release();
    }
    assertLess(turns, 20);
    isFlooding = false;
    port.remove(numbers[0]);
    await writing.catch(() => {});
  });
});

Deno.test("stream: who does not read costs bounded memory, loses the newest, and gets the rest whole", async () => {
  await withPort(2, {}, async ({ port, burst, numbers, far, lost }) => {
    const many = Array.from({ length: 20_000 }, (_, i) => datagram(1400, i));
    transmit(port, burst, numbers[0], many);
    assert(lost.length > 15_000 && lost.every((code) => code === DROP.stream_full));
    // The other connection has its own queue.
    const before = lost.length;
    transmit(port, burst, numbers[1], [datagram(100, 5)]);
    assertEquals(await read(far[1], 102), [datagram(100, 5)]);
    assertEquals(lost.length, before);
    const kept = await read(far[0], (many.length - before) * 1402);
    assert(kept.length * 1402 <= 2 * 262_144, "one queue on its way and one behind it");
    assert(kept.every((one) => one.length === 1400 && one.subarray(1).every((byte) => byte === one[1])));
  });
});

Deno.test("stream: a connection that has not taken the last bytes for a while has a short queue", async () => {
  const lost: number[] = [];
  const port = new StreamPort({ description: "test", localPort: 443, onDrop: (code) => lost.push(code) });
  const burst = new Burst(new Arena(BURST_CAPACITY));
  const never = () => new Promise<number>(() => {});
  const number = port.add({ read: never, write: never, close: () => {} });
  transmit(port, burst, number, [datagram(100, 1)]); // on its way from here on
  const many = Array.from({ length: 100 }, (_, i) => datagram(1400, i));
  await pause(50);
  transmit(port, burst, number, many);
  assertEquals(many.length - lost.length, Math.floor(32_768 / 1402));
  port.close();
});

Deno.test("stream: what is sent together is one write", async () => {
  const writes: number[] = [];
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const [near, far] = await Promise.all([
    listener.accept(),
    Deno.connect({ hostname: "127.0.0.1", port: (listener.addr as Deno.NetAddr).port }),
  ]);
  const port = new StreamPort({ description: "test", localPort: 443, onDrop: () => {} });
  const number = port.add({
    read: (into) => near.read(into),
    write: (bytes) => (writes.push(bytes.length), near.write(bytes)),
    close: () => near.close(),
  });
  const sent = Array.from({ length: 20 }, (_, i) => datagram(60 + i, i));
  transmit(port, new Burst(new Arena(BURST_CAPACITY)), number, sent);
  const total = framed(sent).length;
  assertEquals(await read(far, total), sent);
  assertEquals(writes, [total]);
  port.close();
  listener.close();
  far.close();
  await pause(5);
});

Deno.test("stream: a connection from which nothing authentic comes is closed, and an idle one later", async () => {
  const realNow = performance.now.bind(performance);
  let laterMs = 0;
  performance.now = () => realNow() + laterMs;
  const proven: number[] = [];
  const onProven = (number: number) => proven.push(number);
  const options = { provenMs: 1e6, idleMs: 2e6, onProven };
  try {
    await withPort(3, options, async ({ port, burst, numbers, closed, lost }) => {
      const [honest, deceiving] = numbers;
      transmit(port, burst, honest, [datagram(92, 1, RESPONSE)]);
      transmit(port, burst, deceiving, [datagram(64, 1, COOKIE)]); // which anybody gets
      transmit(port, burst, honest, [datagram(92, 1)]);
      await until(() => proven.length > 0);
      await pause(50);
      port.sweep();
      assertEquals([port.count, proven], [3, [honest]]);
      laterMs = 1.1e6;
      port.sweep();
      assertEquals([...closed].sort(), numbers.slice(1));
      laterMs = 2.1e6;
      port.sweep();
      assertEquals([port.count, closed.length], [0, 3]);
      transmit(port, burst, honest, [datagram(92, 1)]);
      assertEquals(lost, [DROP.stream_gone]);
    });
  } finally {
    performance.now = realNow;
  }
});

Deno.test("stream: what waits for many who do not read is bounded in all, and quiet ones keep no room", async () => {
  const lost: number[] = [];
  const port = new StreamPort({ description: "test", localPort: 443, onDrop: (code) => lost.push(code) });
  const burst = new Burst(new Arena(BURST_CAPACITY));
  const never = () => new Promise<number>(() => {});
  const all = 64 << 20, wanted = 186 * 1402;
  const many = Array.from({ length: 186 }, (_, i) => datagram(1400, i));
  const fill = (write: () => Promise<number>, count: number) => {
    const before = lost.length;
    const numbers = Array.from({ length: count }, () => port.add({ read: never, write, close: () => {} }));
    for (const number of numbers) transmit(port, burst, number, many);
    return { numbers, kept: count * wanted - (lost.length - before) * 1402 };
  };
  const readers = fill(() => Promise.resolve(wanted), 200);
  assertEquals(readers.kept, 200 * wanted);
  await pause(50);
  port.sweep();
  const stuck = fill(never, 400);
  assert(stuck.kept > all / 2 && stuck.kept <= all, `${stuck.kept} bytes`);
  assertEquals(fill(never, 1).kept, 0);
  for (const number of stuck.numbers) port.remove(number);
  assertEquals(fill(never, 1).kept, wanted);
  port.close();
});

Deno.test("stream: handshakes beyond a source's share are lost, data is not", async () => {
  let left = 2;
  await withPort(1, { admits: () => left-- > 0 }, async ({ port, burst, far: [far], lost }) => {
    const sent = [INITIATION, INITIATION, INITIATION, DATA].map((first, i) => datagram(600, i, first));
    await writeAll(far, framed(sent));
    await until(() => (port.receive(burst), burst.count === 4));
    assertEquals([...burst.next.subarray(0, 4)], [TO_PARSE, TO_PARSE, DROP.rate_limited, TO_PARSE]);
    assertEquals(lost, [DROP.rate_limited]);
    burst.release();
  });
});

/** A Worker's socket, which brings a forged source and notes the lengths of what it sends. */
function socketOf(sent: number[]): Port {
  return {
    ...IDLE_PORT,
    receive: (burst) => {
      const row = burst.grow(40, TO_PARSE);
      burst.address.set(parseAddress("100::5")!, 4 * row); // a source that somebody has forged
      return 1;
    },
    transmit: ({ count, next, length }) => {
      for (let row = 0; row < count; row++) if (next[row] === TO_TRANSMIT) sent.push(length[row]);
    },
    wait: { by: "descriptor", descriptor: 7 },
  };
}

/** The datagrams of a burst as "kind of connection", sorted. */
function namesOf(burst: Burst): string[] {
  return Array.from({ length: burst.count }, (_, row) => {
    assertEquals(burst.next[row], TO_PARSE);
    return `${burst.view.getUint8(burst.offset[row]).toString(16)} of ${
      streamNumber(burst.address, 4 * row)
    }`;
  }).sort();
}

Deno.test("stream: each datagram goes to the Worker that its id names, and answers find their connection", async () => {
  const workers = 2;
  const mailboxes = openMailboxes(workers + 1);
  const inner = Array.from({ length: workers }, (_, i) => new Mailbox(i, mailboxes, () => {}));
  try {
    await withPort(2, {}, async ({ port, numbers, far }) => {
      const end = pumpStreams(port, new Mailbox(workers, mailboxes, () => {}), workers);
      const named = (worker: number) => {
        const bytes = datagram(40, 1);
        bytes[4] = worker << 4; // bits 4 to 7 of the id's last byte, PROTOCOL R45
        return bytes;
      };
      const response = datagram(92, 1, RESPONSE);
      response[11] = 1 << 4;
      const cookie = datagram(64, 0, COOKIE);
      cookie[7] = 1 << 4;
      await writeAll(
        far[0],
        framed([named(0), named(1), response, cookie, named(9), datagram(600, 1, INITIATION)]),
      );
      await writeAll(far[1], framed([datagram(600, 1, INITIATION)]));
      const bursts = inner.map(() => new Burst(new Arena(BURST_CAPACITY)));
      await until(() => {
        inner.forEach((mailbox, i) => mailbox.receive(bursts[i]));
        return bursts[0].count + bursts[1].count === 7;
      });
      const got = bursts.map(namesOf);
      const [a, b] = numbers;
      const initiations = [[`c1 of ${b}`], [`c1 of ${a}`]];
      assertEquals(a % workers, 1);
      assertEquals(got[0], [`40 of ${a}`, `40 of ${a}`, ...initiations[0]].sort());
      assertEquals(got[1], [`40 of ${a}`, `c2 of ${a}`, `c3 of ${a}`, ...initiations[1]].sort());

      // And back: a Worker's rows for a connection leave by the mailbox, the others by its socket.
      const sent: number[] = [];
      const socket = socketOf(sent);
      const side = new StreamSide(socket, inner[1], workers);
      assertEquals(side.wait, socket.wait, "it is waited for as its port is");
      const { wait: _wait, ...plain } = socket;
      assertEquals(new StreamSide(plain, inner[1], workers).wait, undefined);
      const [, burst] = bursts;
      for (const row of bursts.keys()) bursts[row].release();
      side.receive(burst);
      assertEquals([burst.count, burst.next[0]], [1, DROP.port_error]);
      burst.release();
      for (const [to, length] of [[b, 77], [0, 55]]) {
        const row = burst.grow(length, TO_TRANSMIT);
        burst.bytes.set(datagram(length, 3), burst.offset[row]);
        if (to === 0) burst.address.set(parseAddress("192.0.2.1")!, 4 * row);
        else writeStreamAddress(burst.address, 4 * row, to);
      }
      side.transmit(burst);
      assertEquals(sent, [55]);
      assertEquals(await read(far[1], 79), [datagram(77, 3)]);
      burst.release();
      await end();
    });
  } finally {
    for (const mailbox of inner) await mailbox.close();
    closeMailboxes(mailboxes);
  }
});

Deno.test("stream: a connection's address has a text that is known again, and no host's is", () => {
  for (const number of [1, 9, 65_535, 65_536, 0xffffffff]) {
    const words = new Uint32Array(4);
    writeStreamAddress(words, 0, number);
    assertEquals(streamNumberOf(formatEndpoint(words, 0, STREAM_PORT_NUMBER)), number);
  }
  for (const text of ["192.0.2.1:443", "[100:0:0:1::1]:443", "[2001:db8::1]:443", "[::1]:443", ""]) {
    assertEquals(streamNumberOf(text), undefined, text);
  }
});
