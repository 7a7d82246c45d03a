/**
 * ROHC of one session without a network between its halves, under a peer that lies: octets in place of packets, feedback and
 * reports that were never due, contexts beyond what there is room for. What a liar gets is what it asked for; memory is
 * bounded, honest packets go on, and a context that was lost comes back.
 */
import { assert, assertEquals, assertGreater, assertLess } from "@std/assert";
import { ContextBudget } from "../../src/codec/headers/expander.ts";
import { ROHC_COST, RohcReceiver } from "../../src/codec/headers/rohc_receiver.ts";
import { ROHC_PACKET, RohcSender } from "../../src/codec/headers/rohc_sender.ts";
import { BARE } from "../../src/codec/headers/shrinker.ts";
import { Compressor } from "../../src/codec/rohc/compressor.ts";
import fc from "../kit/fast_check.ts";
import { essence, packetOf, type Shape, tcpPacket } from "../kit/header_play.ts";
import { Random } from "../kit/random.ts";

const AT = 128, MS = 1000;

class Line {
  readonly budget: ContextBudget;
  readonly sender = new RohcSender();
  receiver: RohcReceiver;
  counter = 0;
  nowUs = 0;
  /** What the last packet became. */
  sent: Uint8Array = new Uint8Array(0);
  isReporting = true;

  constructor(contexts = 4) {
    this.budget = new ContextBudget(contexts * ROHC_COST);
    this.receiver = this.fresh();
  }

  fresh(): RohcReceiver {
    return new RohcReceiver(this.budget, () => {});
  }

  /** Sends a packet; gives what comes out, undefined if nothing does. */
  carry(packet: Uint8Array): Uint8Array | undefined {
    const memory = new Uint8Array(2048), view = new DataView(memory.buffer);
    memory.set(packet, AT);
    this.nowUs += 20 * MS;
    this.counter++;
    const result = this.sender.shrink(memory, view, AT, packet.length, true, this.nowUs);
    const { at, bytes } = this.sender;
    this.sent = result === BARE ? packet : memory.slice(at, at + bytes);
    if (result !== BARE) this.sender.sealed(view, at, bytes, this.counter);
    const came = result === BARE ? packet : this.take(this.sent, this.counter);
    const { counter } = this;
    if (this.isReporting && came) this.sender.reported((one) => one === counter, this.nowUs);
    return came;
  }

  take(sent: Uint8Array, counter: number): Uint8Array | undefined {
    const memory = new Uint8Array(2048);
    memory.set(sent, 64);
    const isRead = this.receiver.decompress(memory, 64, sent.length, counter);
    return isRead ? this.receiver.output.slice(0, this.receiver.length) : undefined;
  }

  /** Carries the receiver's feedback to the sender; gives its octets. */
  complain(): number {
    const memory = new Uint8Array(256);
    const bytes = this.receiver.writeFeedback(memory, 10, 99);
    this.sender.takeFeedback(memory, 10, bytes, this.nowUs);
    return bytes;
  }
}

const flow = (n: number, shape: Partial<Shape> = {}) =>
  packetOf({ port: 5000, id: n & 0xffff, df: false, ...shape }, new Uint8Array(24).fill(n));

Deno.test("ROHC: a receiver that lost its contexts asks, and gets them", () => {
  const line = new Line();
  for (let n = 0; n < 50; n++) assertEquals(line.carry(flow(n)), flow(n));
  assertLess(line.sent.length, 30);
  line.receiver = line.fresh();
  assertEquals(line.carry(flow(50)), undefined);
  assertGreater(line.complain(), 3);
  assertEquals([line.receiver.hasComplaints, line.complain()], [false, 0]);
  for (let n = 51; n < 80; n++) assertEquals(line.carry(flow(n)), flow(n));
  assertLess(line.sent.length, 30);
});

Deno.test("ROHC: of a TCP flow too, although a receiver without the context cannot know that it is one", () => {
  const line = new Line(), random = new Random(1);
  const carries = (n: number) => {
    const packet = tcpPacket(n, random), came = line.carry(packet);
    return came !== undefined && essence(came, true) === essence(packet, true);
  };
  for (let n = 0; n < 50; n++) assert(carries(n));
  line.receiver = line.fresh();
  assert(!carries(50));
  assertGreater(line.complain(), 3);
  for (let n = 51; n < 80; n++) assert(carries(n), `packet ${n}`);
});

Deno.test("ROHC: a TCP flow without room for its context goes whole", () => {
  const line = new Line(0), random = new Random(1);
  for (let n = 0; n < 50; n++) {
    assert(line.carry(tcpPacket(n, random)) !== undefined, `packet ${n}`);
    line.complain();
  }
  assertEquals(line.sent[0], 0x45);
});

Deno.test("ROHC: a flow that was refused a context loses nothing when it asks again", () => {
  const line = new Line(0);
  for (let n = 0; n < 2000; n++) {
    line.nowUs += 20 * MS;
    assert(line.carry(flow(n)) !== undefined, `packet ${n}`);
    line.complain();
  }
  // Room has come meanwhile.
  line.budget.left = ROHC_COST;
  for (let n = 2000; n < 4000; n++) {
    line.nowUs += 20 * MS;
    assert(line.carry(flow(n)) !== undefined, `packet ${n}`);
    line.complain();
  }
  assertLess(line.sent.length, 30);
});

Deno.test("ROHC: a definition that comes late leaves a later flow's context alone", () => {
  const line = new Line(), random = new Random(1);
  let definition = line.sent, counter = 0;
  for (let n = 0; definition.length === 0 || n < 10; n++) {
    line.carry(flow(n));
    if (definition.length > 0 || line.sent[0] === 0x45) continue;
    definition = line.sent;
    counter = line.counter;
  }
  // The flow has ended, and another one has its number.
  line.nowUs += 10_000 * MS;
  for (let n = 0; n < 15 * 4; n++) line.carry(flow(n, { port: 6000 + n % 15 }));
  for (let n = 0; n < 20; n++) assert(line.carry(tcpPacket(n, random)) !== undefined);
  assertEquals(line.sent[0], definition[0]);
  line.take(definition, counter);
  for (let n = 20; n < 40; n++) assert(line.carry(tcpPacket(n, random)) !== undefined, `packet ${n}`);
});

Deno.test("ROHC: packets that cannot be read are complained of once in a few datagrams", () => {
  const line = new Line();
  for (let n = 0; n < 50; n++) line.carry(flow(n));
  const { sent } = line;
  line.receiver = line.fresh();
  let octets = 0;
  for (let counter = 100; counter < 180; counter++) {
    assertEquals(line.take(sent, counter), undefined);
    octets += line.receiver.writeFeedback(new Uint8Array(100), 0, 100);
  }
  assertGreater(octets, 30);
  assertLess(octets, 80);
});

Deno.test("ROHC: a late packet that its context's states have left behind is no reason to complain", () => {
  const line = new Line();
  const kept: Uint8Array[] = [];
  for (let n = 0; n < 60; n++) {
    line.carry(flow(n));
    kept.push(line.sent);
  }
  assertEquals(line.take(kept[30], 31), undefined);
  assertEquals(line.receiver.hasComplaints, false);
  assertEquals(line.take(kept[55], 56), flow(55));
});

Deno.test("ROHC: lists of extension headers make no context", () => {
  const compressor = new Compressor({ largeCids: false });
  const inner = flow(1, { version: 6 });
  // Hop-by-hop options of eight octets between IPv6 and UDP.
  const packet = new Uint8Array([...inner.subarray(0, 40), 17, 0, 1, 4, 0, 0, 0, 0, ...inner.subarray(40)]);
  packet[6] = 0;
  packet[5] += 8;
  const buffer = new Uint8Array(512), length = compressor.compress(packet, buffer);
  const line = new Line();
  const sent = Uint8Array.from([ROHC_PACKET, ...buffer.subarray(0, length)]);
  assertEquals([line.take(sent, 1), line.budget.left], [undefined, 4 * ROHC_COST]);
  // The same without them is read.
  const plain = new Compressor({ largeCids: false }).compress(inner, buffer);
  const good = Uint8Array.from([ROHC_PACKET, ...buffer.subarray(0, plain)]);
  assertEquals(line.take(good, 2), inner);
});

Deno.test("ROHC: hostile packets, feedback and reports take no more than their room, and harm no other flow", () => {
  fc.assert(
    fc.property(
      fc.integer(),
      fc.array(fc.uint8Array({ minLength: 1, maxLength: 90 }), { maxLength: 60 }),
      (seed, many) => {
        const random = new Random(seed), line = new Line(3);
        for (let n = 0; n < 30; n++) assertEquals(line.carry(flow(n)), flow(n));
        const own = line.sent[0] & 0x0f;
        for (const [i, octets] of many.entries()) {
          // Half of them begin as a packet of this flow does, under another context's id.
          if (random.u32() & 1) {
            octets.set(line.sent.subarray(0, Math.min(octets.length, 1 + random.u32() % 6)));
          }
          octets[0] = ROHC_PACKET | ((own + 1 + random.u32() % 15) & 0x0f);
          line.take(octets, 1000 + i);
          assert(line.budget.left >= 0 && line.receiver.length <= line.receiver.output.length);
          const room = random.u32() % 40;
          assert(line.receiver.writeFeedback(new Uint8Array(200), 7, room) <= room);
          line.sender.takeFeedback(octets, 0, octets.length, line.nowUs);
        }
        // Whatever the feedback said, and with reports that lie never, the flow goes on.
        line.counter = 2000;
        for (let n = 30; n < 60; n++) assertEquals(line.carry(flow(n)), flow(n));
        const lies = new Random(seed + 1);
        line.isReporting = false;
        for (let n = 60; n < 160; n++) {
          line.carry(flow(n));
          line.sender.reported(() => (lies.u32() & 3) === 0, line.nowUs);
        }
        line.receiver.end();
        assertEquals(line.budget.left, 3 * ROHC_COST);
      },
    ),
    { numRuns: 200 },
  );
});
