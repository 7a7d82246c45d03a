/**
 * The userspace exit's TCP, packet by packet, on a clock that can be moved: what time, crowds, reborn clients and readers
 * that stop do to connections. Invariant under test: the rules of RFC 5382, RFC 5961 and RFC 9293 that each test names.
 */
import { assert, assertEquals, assertGreater, assertLessOrEqual } from "@std/assert";
import { loadNative, type Native } from "../../ffi/native.ts";
import { Dialler } from "../../src/exit/userspace/dialler.ts";
import { TcpSplice } from "../../src/exit/userspace/tcp_splice.ts";
import { Arena } from "../../src/vector/arena.ts";
import { Burst, TO_EXIT } from "../../src/vector/burst.ts";
import { PROTOCOL_TCP, transportChecksum, writeIpv4Header, writeIpv6Header } from "../../src/wire/inner.ts";

const FIN = 1, SYN = 2, RST = 4, ACK = 16;
const CLIENT = 0x0a420002, LOOPBACK = 0x7f000001;
const loaded = loadNative();
if (typeof loaded === "string") console.error(`SKIPPED tests/unit/tcp_splice_test.ts: ${loaded}`);
const needs = { ignore: typeof loaded === "string", sanitizeOps: false, sanitizeResources: false };
const native = loaded as Native;

interface Answer {
  flags: number;
  port: number;
  sequence: number;
  acknowledged: number;
  body: Uint8Array;
}

/** A splice with one burst, and servers on loopback that answer as told. */
class Bench {
  readonly splice: TcpSplice;
  readonly burst = new Burst(new Arena(2048));
  readonly answers: Answer[] = [];
  readonly crowded: number[] = [];
  readonly accepted: Deno.Conn[] = [];
  readonly listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly listener6 = Deno.listen({ hostname: "::1", port: 0 });

  constructor(maxFlows: number, readonly serve: (connection: Deno.Conn) => void = () => {}) {
    this.splice = new TcpSplice({
      native,
      mtu: 1420,
      maxFlows,
      onCrowded: (count) => this.crowded.push(count),
    });
    for (const listener of [this.listener, this.listener6]) this.#accept(listener);
  }

  async #accept(listener: Deno.Listener): Promise<void> {
    for (;;) {
      try {
        const connection = await listener.accept();
        this.accepted.push(connection);
        this.serve(connection);
      } catch (error) {
        if (error instanceof Deno.errors.BadResource) return;
      }
    }
  }

  get port(): number {
    return (this.listener.addr as Deno.NetAddr).port;
  }

  send(
    port: number,
    flags: number,
    sequence: number,
    acknowledged = 0,
    body = new Uint8Array(0),
    window = 65535,
  ) {
    const row = this.burst.grow(40 + body.length, TO_EXIT);
    const at = this.burst.offset[row];
    writeIpv4Header(this.burst.view, at, 40 + body.length, 0, 0, PROTOCOL_TCP, CLIENT, LOOPBACK);
    this.burst.peer[row] = 7;
    this.#finish(at, 20, port, this.port, flags, sequence, acknowledged, body, window);
    return row;
  }

  sendSyn6(port: number) {
    const row = this.burst.grow(60, TO_EXIT);
    const at = this.burst.offset[row];
    const client = Uint32Array.of(0xfd420000, 0, 0, 2), server = Uint32Array.of(0, 0, 0, 1);
    writeIpv6Header(this.burst.view, at, 20, PROTOCOL_TCP, client, 0, server, 0);
    this.burst.peer[row] = 7;
    const to = (this.listener6.addr as Deno.NetAddr).port;
    return this.#finish(at, 40, port, to, SYN, 1000, 0, new Uint8Array(0), 65535);
  }

  #finish(
    at: number,
    header: number,
    port: number,
    to: number,
    flags: number,
    sequence: number,
    acknowledged: number,
    body: Uint8Array,
    window: number,
  ) {
    const { view, bytes } = this.burst;
    const tcp = at + header;
    bytes.fill(0, tcp, tcp + 20);
    view.setUint16(tcp, port);
    view.setUint16(tcp + 2, to);
    view.setUint32(tcp + 4, sequence);
    view.setUint32(tcp + 8, acknowledged);
    view.setUint8(tcp + 12, 5 << 4);
    view.setUint8(tcp + 13, flags);
    view.setUint16(tcp + 14, window);
    bytes.set(body, tcp + 20);
    view.setUint16(tcp + 16, transportChecksum(view, at, tcp, 20 + body.length, PROTOCOL_TCP));
    this.splice.send(this.burst);
    this.burst.release();
    this.drain();
  }

  drain(): void {
    while (this.splice.receive(this.burst) > 0) {
      for (let row = 0; row < this.burst.count; row++) {
        const { view, bytes, offset, length } = this.burst;
        const tcp = offset[row] + (view.getUint8(offset[row]) >> 4 === 4 ? 20 : 40);
        this.answers.push({
          flags: view.getUint8(tcp + 13),
          port: view.getUint16(tcp + 2),
          sequence: view.getUint32(tcp + 4),
          acknowledged: view.getUint32(tcp + 8),
          body: bytes.slice(tcp + (view.getUint8(tcp + 12) >> 4) * 4, offset[row] + length[row]),
        });
      }
      this.burst.release();
    }
  }

  /** The next answer to a port that `is` says, which is taken out. */
  async answer(port: number, is: (answer: Answer) => boolean = () => true): Promise<Answer> {
    for (let i = 0; i < 1000; i++) {
      this.drain();
      const place = this.answers.findIndex((answer) => answer.port === port && is(answer));
      if (place >= 0) return this.answers.splice(place, 1)[0];
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    throw new Error(`no such answer to ${port}: ${JSON.stringify(this.answers)}`);
  }

  /** Opens a connection; returns the number that its server's side begins with. */
  async open(port: number, sequence = 1000): Promise<number> {
    this.send(port, SYN, sequence);
    const answer = await this.answer(port);
    assertEquals([answer.flags, answer.acknowledged], [SYN | ACK, sequence + 1]);
    this.send(port, ACK, sequence + 1, answer.sequence + 1);
    return answer.sequence + 1;
  }

  /** Waits until the servers have accepted this many connections. */
  async accept(count: number): Promise<void> {
    for (let i = 0; i < 1000 && this.accepted.length < count; i++) {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    assertEquals(this.accepted.length, count);
  }

  close(): void {
    this.splice.close();
    for (const connection of [...this.accepted, this.listener, this.listener6]) {
      try {
        connection.close();
      } catch { /* it is closed */ }
    }
  }
}

async function withBench(
  maxFlows: number,
  run: (bench: Bench) => Promise<void>,
  serve?: (connection: Deno.Conn) => void,
): Promise<void> {
  const bench = new Bench(maxFlows, serve);
  try {
    await run(bench);
  } finally {
    bench.close();
  }
}

const echo = (connection: Deno.Conn) => void connection.readable.pipeTo(connection.writable).catch(() => {});
const shift = (seconds: number) => native.ox_tcp_shift_clock(seconds);
const text = (answer: Answer) => new TextDecoder().decode(answer.body);
const bytes = (words: string) => new TextEncoder().encode(words);

Deno.test(
  "splice: an idle connection is kept for 2 h 4 min, then probed, and ends only when nobody answers",
  needs,
  () =>
    withBench(8, async (bench) => {
      const far = await bench.open(5001);
      for (let i = 0; i < 120; i++) {
        shift(61);
        bench.drain();
      }
      assertEquals(bench.answers, [], "nothing is sent on a connection that is idle for two hours");
      bench.send(5001, ACK | 8, 1001, far, bytes("still here"));
      const answer = await bench.answer(5001, ({ body }) => body.length > 0);
      assertEquals(text(answer), "still here");
      const next = answer.sequence + 10;
      bench.send(5001, ACK, 1011, next);
      await new Promise((resolve) => setTimeout(resolve, 100));
      bench.drain();
      bench.answers.length = 0;
      shift(7441);
      const probe = await bench.answer(5001);
      assertEquals([probe.flags, probe.sequence], [ACK, next - 1]);
      bench.send(5001, ACK, 1011, next);
      shift(7300);
      bench.drain();
      assertEquals([bench.answers.length, bench.splice.size], [0, 1], "who answers is kept");
      shift(141);
      bench.drain();
      shift(121);
      assertEquals((await bench.answer(5001, ({ flags }) => (flags & RST) !== 0)).flags & RST, RST);
      assertEquals(bench.splice.size, 0);
    }, echo),
);

Deno.test(
  "splice: data that nobody acknowledges ends the connection after two minutes",
  needs,
  () =>
    withBench(8, async (bench) => {
      await bench.open(5002);
      await bench.accept(1);
      await bench.accepted[0].write(bytes("hello"));
      await bench.answer(5002, ({ body }) => body.length > 0);
      shift(100);
      bench.drain();
      assertEquals(bench.splice.size, 1);
      shift(21);
      await bench.answer(5002, ({ flags }) => (flags & RST) !== 0);
      assertEquals(bench.splice.size, 0);
    }),
);

Deno.test(
  "splice: a source that has its share is answered with a reset, or its idlest connection gives way",
  needs,
  () =>
    withBench(12, async (bench) => {
      for (const port of [5101, 5102, 5103]) await bench.open(port);
      bench.send(5104, SYN, 1000);
      assertEquals((await bench.answer(5104)).flags, RST | ACK);
      bench.splice.handleTimeout(1e6);
      bench.splice.handleTimeout(3e6);
      shift(11);
      bench.send(5101, ACK | 8, 1001, 0, bytes("x")); // a wrong number: it counts as use all the same
      bench.send(5103, ACK | 8, 1001, 0, bytes("x"));
      bench.answers.length = 0;
      bench.send(5104, SYN, 1000);
      assertEquals((await bench.answer(5102)).flags & RST, RST, "the idlest one ends");
      assertEquals((await bench.answer(5104)).flags, SYN | ACK);
      bench.splice.handleTimeout(30e6);
      assertEquals(bench.crowded, [1]);
      bench.splice.handleTimeout(62e6);
      assertEquals(bench.crowded, [1, 1]);
    }),
);

Deno.test(
  "splice: a half-closed connection gives way before an idle one",
  needs,
  () =>
    withBench(8, async (bench) => {
      await bench.open(5111);
      const far = await bench.open(5112);
      shift(20);
      bench.send(5112, FIN | ACK, 1001, far);
      await bench.answer(5112);
      shift(11);
      bench.send(5113, SYN, 1000);
      assertEquals((await bench.answer(5112, ({ flags }) => (flags & RST) !== 0)).flags & RST, RST);
      assertEquals((await bench.answer(5113)).flags, SYN | ACK);
      assert(!bench.answers.some(({ port }) => port === 5111));
    }),
);

Deno.test("splice: both addresses of a peer are one source", needs, () =>
  withBench(8, async (bench) => {
    await bench.open(5121);
    bench.sendSyn6(5122);
    assertEquals((await bench.answer(5122)).flags, SYN | ACK);
    bench.sendSyn6(5123);
    assertEquals((await bench.answer(5123)).flags, RST | ACK);
  }));

Deno.test(
  "splice: a SYN on an open connection is challenged, and its sender's reset makes way for the next",
  needs,
  () =>
    withBench(8, async (bench) => {
      const far = await bench.open(5201);
      bench.send(5201, SYN, 700_000);
      const challenge = await bench.answer(5201);
      assertEquals([challenge.flags, challenge.sequence, challenge.acknowledged], [ACK, far, 1001]);
      assertEquals(bench.splice.size, 1);
      bench.send(5201, RST, 1002); // within the window, and not what is due: challenged too
      assertEquals((await bench.answer(5201)).flags, ACK);
      bench.send(5201, RST, 1001);
      assertEquals(bench.splice.size, 0);
      await bench.open(5201, 700_000);
    }),
);

Deno.test(
  "splice: TIME-WAIT takes a new SYN with a greater number at once, and an older one not",
  needs,
  () =>
    withBench(8, async (bench) => {
      const far = await bench.open(5202);
      await bench.accept(1);
      bench.accepted[0].close();
      assertEquals((await bench.answer(5202, ({ flags }) => (flags & FIN) !== 0)).sequence, far);
      bench.send(5202, FIN | ACK, 1001, far + 1);
      assertEquals((await bench.answer(5202)).acknowledged, 1002);
      bench.send(5202, SYN, 900);
      assertEquals((await bench.answer(5202)).flags, ACK);
      await bench.open(5202, 1002);
      assertEquals(bench.splice.size, 1);
    }),
);

Deno.test(
  "splice: connections whose ends do not read stay within their source's memory, and an idle one gives it back",
  needs,
  () =>
    withBench(2048, async (bench) => {
      const zeros = new Uint8Array(1 << 20);
      for (let port = 6000; port < 6200; port++) {
        bench.send(port, SYN, 1000);
      }
      const far = new Map<number, number>();
      for (let port = 6000; port < 6200; port++) {
        const answer = await bench.answer(port, ({ flags }) => flags === (SYN | ACK));
        far.set(port, answer.sequence + 1);
        bench.send(port, ACK, 1001, answer.sequence + 1);
      }
      await bench.accept(200);
      for (const connection of bench.accepted) connection.write(zeros).catch(() => {});
      for (let port = 6000; port < 6200; port++) {
        for (let i = 0; i < 8; i++) {
          bench.send(port, ACK, 1001 + 1200 * i, far.get(port)!, zeros.subarray(0, 1200));
        }
      }
      for (let i = 0; i < 50; i++) {
        bench.drain();
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
      const handle = bench.splice.handle;
      assertLessOrEqual(native.ox_tcp_kilobytes(handle, 0), 24 * 1024, "a quarter of all buffers");
      assertGreater(native.ox_tcp_kilobytes(handle, 1), 0, "what the system keeps is counted");
      assertLessOrEqual(native.ox_tcp_kilobytes(handle, 1), 48 * 1024);
      for (let port = 6000; port < 6200; port++) {
        bench.send(port, RST, 1001 + 9600);
      }
      assertEquals([native.ox_tcp_kilobytes(handle, 0), native.ox_tcp_kilobytes(handle, 1)], [0, 0]);
    }),
);

Deno.test("dialler: an idle call through the tunnel is kept for hours, on both sides", needs, async () => {
  await withBench(8, async (bench) => {
    const dialler = new Dialler({ native, addresses: ["10.66.0.2"], mtu: 1420 });
    const burst = bench.burst;
    let over = false;
    /** The tunnel: what the dialler sends arrives at the splice, and the answers back. */
    const carry = (async () => {
      while (!over) {
        while (dialler.receive(burst) > 0) {
          burst.next.fill(TO_EXIT, 0, burst.count);
          bench.splice.send(burst);
          burst.release();
        }
        while (bench.splice.receive(burst) > 0) {
          burst.next.fill(TO_EXIT, 0, burst.count);
          dialler.send(burst, performance.now() * 1000);
          burst.release();
        }
        await new Promise((resolve) => setTimeout(resolve, 2));
      }
    })();
    try {
      const call = await dialler.connect("127.0.0.1", bench.port);
      const into = new Uint8Array(1 << 16);
      for (const hours of [0, 1, 2, 30]) {
        for (let i = 0; i < 4 * hours; i++) {
          shift(900);
          await new Promise((resolve) => setTimeout(resolve, 10));
        }
        await call.write(bytes(`after ${hours} h`) as Uint8Array<ArrayBuffer>);
        const count = await call.read(into);
        assertEquals(new TextDecoder().decode(into.subarray(0, count!)), `after ${hours} h`);
      }
      call.close();
    } finally {
      over = true;
      await carry;
      await dialler.close();
    }
  }, echo);
});
