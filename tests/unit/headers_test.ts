/**
 * Short packets by themselves (PROTOCOL §13): which packets a template takes, the octets of the examples in PROTOCOL §21,
 * how contexts are given out and kept apart, and what hostile definitions and short packets do.
 */
import { assert, assertEquals, assertGreater, assertLess } from "@std/assert";
import { ContextBudget, Expander } from "../../src/codec/headers/expander.ts";
import { BARE, DEFINED, SHORT, Shrinker } from "../../src/codec/headers/shrinker.ts";
import { expandInPlace } from "../../src/ingress/packets.ts";
import { Arena, packetStart } from "../../src/vector/arena.ts";
import { Burst, OPENED } from "../../src/vector/burst.ts";
import { foldSum, sumWords, transportChecksum } from "../../src/wire/inner.ts";
import fc from "../kit/fast_check.ts";
import { Random } from "../kit/random.ts";

const AT = 64;
const MS = 1000;

interface Made {
  port?: number;
  tos?: number;
  ttl?: number;
  id?: number;
  flags?: number;
  badHeader?: boolean;
  badChecksum?: boolean;
}

function udp(payload: Uint8Array, made: Made = {}): Uint8Array {
  const { port = 4000, tos = 0, ttl = 64, id = 0, flags = 0x4000, badHeader = false, badChecksum = false } =
    made;
  const packet = new Uint8Array(28 + payload.length);
  const view = new DataView(packet.buffer);
  view.setUint32(0, (0x4500 | tos) << 16 | packet.length);
  view.setUint32(4, (id << 16 | flags) >>> 0);
  view.setUint16(8, ttl << 8 | 17);
  packet.set([10, 0, 0, 2, 192, 0, 2, 9], 12);
  view.setUint16(10, foldSum(sumWords(view, 0, 20, 0)) + (badHeader ? 1 : 0));
  view.setUint16(20, port);
  view.setUint16(22, 27015);
  view.setUint16(24, 8 + payload.length);
  packet.set(payload, 28);
  view.setUint16(26, transportChecksum(view, 0, 20, 8 + payload.length, 17) + (badChecksum ? 1 : 0));
  return packet;
}

function tcp(
  payload: Uint8Array,
  { flags = 0x10, sequence = 1, hasTimestamps = true, urgent = 0 } = {},
): Uint8Array {
  const options = hasTimestamps ? 12 : 0;
  const packet = new Uint8Array(40 + options + payload.length);
  const view = new DataView(packet.buffer);
  view.setUint32(0, 0x45000000 | packet.length);
  view.setUint32(4, 0x12344000);
  view.setUint16(8, 64 << 8 | 6);
  packet.set([10, 0, 0, 2, 192, 0, 2, 9], 12);
  view.setUint16(10, foldSum(sumWords(view, 0, 20, 0)));
  view.setUint32(20, 5000 << 16 | 443);
  view.setUint32(24, sequence);
  view.setUint32(28, 0x90ab);
  view.setUint16(32, (hasTimestamps ? 0x8000 : 0x5000) | flags);
  view.setUint16(34, 501);
  view.setUint16(36, 0xbeef);
  view.setUint16(38, urgent);
  if (hasTimestamps) {
    view.setUint32(40, 0x0101080a);
    view.setUint32(44, sequence * 3);
    view.setUint32(48, 77);
  }
  packet.set(payload, 40 + options);
  return packet;
}

/** Both halves of one session, without a network between them. */
class Line {
  readonly shrinker = new Shrinker();
  readonly expander: Expander;
  counter = 0;
  #nowUs = 0;
  /** Whether acknowledgments come, and those of anchors; and whether what is carried is lost. */
  answers = true;
  anchors = true;
  isLost = false;
  result = BARE;
  /** What the last packet became, without a frame's head. */
  sent = new Uint8Array(0);

  constructor(contexts = 64) {
    this.expander = new Expander(new ContextBudget(contexts), () => {});
  }

  /** Sends a packet, and gives what comes out; undefined if nothing does. */
  carry(packet: Uint8Array, afterUs = 20 * MS): Uint8Array | undefined {
    this.#nowUs += afterUs;
    this.counter++;
    const memory = new Uint8Array(4096);
    memory.set(packet, AT);
    const view = new DataView(memory.buffer);
    this.result = this.shrinker.shrink(view, AT, packet.length, true, this.#nowUs);
    if (this.result === BARE) return packet;
    const { at, bytes } = this.shrinker;
    this.sent = memory.slice(at, at + bytes);
    return this.isLost ? undefined : this.take(this.sent, this.counter);
  }

  take(sent: Uint8Array, counter: number): Uint8Array | undefined {
    const memory = new Uint8Array(4096);
    memory.set(sent, 256);
    const view = new DataView(memory.buffer), { expander } = this;
    if (sent[0] >= 0xf0) {
      const front = Expander.definitionBytes(view, 256, sent.length);
      if (front === 0) return undefined;
      expander.define(view, 256, 256 + front, sent.length - front, counter);
      this.#answer();
      return sent.slice(front);
    }
    if (!expander.find(view, 256, sent.length, counter)) return undefined;
    this.#answer();
    const { template, fieldsAt, payloadAt } = expander;
    const payloadBytes = 256 + sent.length - payloadAt;
    template.rebuild(view, fieldsAt, view, payloadAt - template.headerBytes, payloadBytes);
    return memory.slice(payloadAt - template.headerBytes, payloadAt + payloadBytes);
  }

  #answer(): void {
    const { acknowledgments, acknowledgmentBytes } = this.expander;
    if (!this.answers) return;
    for (let i = 0; i < acknowledgmentBytes; i += 2) {
      this.shrinker.acknowledged(acknowledgments[i], acknowledgments[i + 1]);
    }
    this.expander.acknowledged(acknowledgmentBytes);
    const anchors = new Uint8Array(192), bytes = this.expander.writeAnchors(anchors, 0, anchors.length);
    for (let i = 0; i < bytes && this.anchors; i += 3) {
      this.shrinker.anchored(anchors[i] & 0x7f, anchors[i + 1], anchors[i + 2]);
    }
  }
}

/** A packet without an atomic one's identification and the checksum that covers it. */
function atomic(packet: Uint8Array): Uint8Array {
  const copy = packet.slice();
  if (copy[6] & 0x40) copy.fill(0, 4, 6).fill(0, 10, 12);
  return copy;
}

/** Carries packets until the flow's are short. */
function settle(line: Line, make: () => Uint8Array): void {
  for (let i = 0; i < 10 && line.result !== SHORT; i++) line.carry(make());
  assertEquals(line.result, SHORT);
}

const payload = (n: number, bytes = 20) => new Uint8Array(bytes).fill(n);

Deno.test("headers: a UDP packet becomes one octet and its payload, after three packets and a definition", () => {
  const line = new Line();
  const results = Array.from({ length: 6 }, (_, n) => {
    assertEquals(atomic(line.carry(udp(payload(n)))!), atomic(udp(payload(n))));
    return line.result;
  });
  assertEquals(results, [BARE, BARE, BARE, DEFINED, SHORT, SHORT]);
  assertEquals(line.sent, Uint8Array.from([0x50, ...payload(5)]));
});

Deno.test("headers: packets that could not come back keep their headers", () => {
  const line = new Line();
  settle(line, () => udp(payload(1)));
  const cases: [string, Made][] = [
    ["another TTL", { ttl: 63 }],
    ["a CE mark", { tos: 3 }],
    ["a wrong checksum", { badChecksum: true }],
    ["a wrong header checksum", { badHeader: true }],
    ["a fragment", { flags: 0x2000 }],
    ["a packet that may be fragmented", { flags: 0 }],
  ];
  for (const [name, made] of cases) {
    const packet = udp(payload(2), made);
    assertEquals(line.carry(packet), packet, name);
    assert(line.result !== SHORT, name);
    line.carry(udp(payload(1)));
    assertEquals(line.result, SHORT);
  }
});

Deno.test("headers: without DF the identification travels", () => {
  const line = new Line();
  let id = 7;
  settle(line, () => udp(payload(1), { flags: 0, id: id++ }));
  const packet = udp(payload(9), { flags: 0, id: 0xabcd });
  assertEquals(line.carry(packet), packet);
  assertEquals(line.sent.subarray(0, 3), Uint8Array.from([0x50, 0xab, 0xcd]));
});

Deno.test("headers: TCP's segments and acknowledgments lose 30 octets, and SYN, FIN with urgent data and odd options none", () => {
  const line = new Line();
  let sequence = 1;
  settle(line, () => tcp(payload(1, 500), { sequence: sequence += 500 }));
  for (const made of [{ flags: 0x18 }, { flags: 0x11 }, { sequence: 0xfffffff0 }]) {
    const packet = tcp(payload(3, 700), made);
    assertEquals(atomic(line.carry(packet)!), atomic(packet));
    assertEquals(line.result, SHORT);
    assertEquals(packet.length - line.sent.length, 30);
  }
  for (const made of [{ flags: 0x02 }, { flags: 0x30, urgent: 5 }, { hasTimestamps: false }]) {
    const packet = tcp(payload(3), made);
    assertEquals(line.carry(packet), packet);
    assert(line.result !== SHORT);
  }
});

Deno.test("headers: a flow whose headers changed for good gets a new context, and needs no packet of the old one", () => {
  const line = new Line();
  settle(line, () => udp(payload(1)));
  const results = Array.from({ length: 8 }, (_, n) => {
    const packet = udp(payload(n), { ttl: 50 });
    assertEquals(atomic(line.carry(packet)!), atomic(packet));
    return line.result;
  });
  assertEquals(results.slice(-3), [SHORT, SHORT, SHORT]);
  assertEquals(line.sent[0], 0x51);
});

Deno.test("headers: without an acknowledgment no packet is short, and definitions end", () => {
  const line = new Line();
  line.answers = false;
  const results = Array.from({ length: 200 }, (_, n) => {
    line.carry(udp(payload(n)));
    // Nor by the acknowledgment of another definition.
    line.shrinker.acknowledged(0, 99);
    return line.result;
  });
  assert(!results.includes(SHORT));
  assertEquals(results.filter((result) => result === DEFINED).length, 30);
  assertEquals(results.at(-1), BARE);
});

Deno.test("headers: 64 flows are short at a time; the next one waits for one that is silent", () => {
  const line = new Line();
  const flow = (n: number) => udp(payload(n), { port: 10_000 + 7 * n });
  // Flows share buckets by chance, so more are offered than there is room for.
  for (let round = 0; round < 6; round++) for (let n = 0; n < 120; n++) line.carry(flow(n), MS);
  const short = Array.from(
    { length: 120 },
    (_, n) => (line.carry(flow(n), MS), line.result === SHORT ? 1 : 0),
  );
  const count = short.reduce<number>((sum, one) => sum + one, 0);
  assert(count > 45 && count <= 64, String(count));
  assertEquals(line.expander.known, 64);
  // After three seconds only one new flow speaks.
  line.carry(udp(payload(1), { port: 60_000 }), 3000 * MS);
  settle(line, () => udp(payload(1), { port: 60_000 }));
});

Deno.test("headers: a short packet belongs to the definition before it, whatever came since", () => {
  const line = new Line(), other = new Line();
  settle(line, () => udp(payload(1)));
  const old = line.sent;
  settle(other, () => udp(payload(1), { port: 9 }));
  // The same number, redefined by a later datagram.
  const memory = new Uint8Array(256);
  const definition = Uint8Array.from([0xf0, 0, 200, ...udp(payload(1), { port: 9 })]);
  memory.set(definition);
  line.expander.define(new DataView(memory.buffer), 0, 3, definition.length - 3, 100);
  assertEquals(atomic(line.take(old, 50)!), atomic(udp(old.subarray(1))));
  assertEquals(atomic(line.take(old, 101)!), atomic(udp(old.subarray(1), { port: 9 })));
  assertEquals(line.take(old, 1), undefined, "before any definition");
});

Deno.test("headers: generations go on from the number that a session begins with, modulo 256", () => {
  for (const [first, sent] of [[0, 1], [41, 42], [255, 0]]) {
    const shrinker = new Shrinker(first), memory = new Uint8Array(256);
    let result = BARE;
    for (let i = 0; i < 10 && result === BARE; i++) {
      memory.set(udp(payload(i)), AT);
      result = shrinker.shrink(new DataView(memory.buffer), AT, 28 + payload(i).length, true, i * 20 * MS);
    }
    assertEquals([result, memory[shrinker.at + 2]], [DEFINED, sent]);
  }
});

Deno.test("headers: reserved definitions are ignored, repeated ones keep the template and the lowest counter, late ones come too late", () => {
  const expander = new Expander(new ContextBudget(64), () => {});
  /** Whether a definition of number 0 is acknowledged. */
  const define = (first: number, generation: number, counter: number, port: number) => {
    const view = new DataView(Uint8Array.from([first, 0, generation, ...udp(payload(1), { port })]).buffer);
    expander.acknowledged(expander.acknowledgmentBytes);
    expander.define(view, 0, 3, view.byteLength - 3, counter);
    return expander.acknowledgmentBytes > 0;
  };
  /** The port in the header of number 0's short packet in the datagram with `counter`. */
  const portOf = (counter: number) => {
    const view = new DataView(Uint8Array.of(0x50, 1).buffer);
    const { template } = expander.find(view, 0, 2, counter) ? expander : { template: undefined };
    return template && new DataView(template.bytes.buffer).getUint16(20);
  };
  assertEquals([define(0xf8, 1, 1, 4000), define(0xf3, 1, 1, 4000)], [false, false]);
  assertEquals(portOf(50), undefined);
  assertEquals(define(0xf0, 1, 20, 4000), true);
  assertEquals(define(0xf0, 1, 10, 5000), true, "repeated, and overtaken");
  assertEquals([portOf(10), portOf(11), portOf(21)], [undefined, 4000, 4000]);
  assertEquals([define(0xf0, 2, 9, 6000), define(0xf0, 2, 10, 6000)], [false, false], "too late");
  assertEquals([portOf(11), define(0xf0, 2, 30, 6000)], [4000, true]);
  assertEquals([portOf(30), portOf(31)], [4000, 6000]);
});

Deno.test("headers: contexts come out of one budget, and go back with the session", () => {
  const budget = new ContextBudget(3);
  const view = new DataView(Uint8Array.from([0xf0, 0, 1, ...udp(payload(1))]).buffer);
  const [one, two] = [new Expander(budget, () => {}), new Expander(budget, () => {})];
  for (const [expander, number] of [[one, 0], [one, 1], [two, 0], [two, 1]] as const) {
    view.setUint8(1, number);
    expander.define(view, 0, 3, view.byteLength - 3, 1);
  }
  assertEquals([one.known, two.known, two.acknowledgmentBytes, budget.left], [2, 1, 2, 0]);
  one.end();
  assertEquals(budget.left, 2);
});

Deno.test("headers: hostile definitions and short packets are refused or rebuilt within their room", () => {
  fc.assert(
    fc.property(
      fc.integer(),
      fc.array(fc.uint8Array({ minLength: 1, maxLength: 80 }), { maxLength: 40 }),
      (seed, many) => {
        const random = new Random(seed);
        const line = new Line(8);
        settle(line, () => udp(payload(1)));
        const good = line.sent;
        for (const [i, octets] of many.entries()) {
          octets[0] = random.u32() & 1 ? 0x50 | (octets[0] & 0x0f) : 0xf0 | (octets[0] & 0x0f);
          if (octets[0] >= 0xf0 && random.u32() & 1) {
            const packet = udp(octets.subarray(1));
            const whole = Uint8Array.from([
              octets[0],
              1 + (random.u32() & 0x7f),
              random.u32() & 3,
              ...packet,
            ]);
            line.take(whole, 1000 + i);
          } else line.take(octets, 1000 + i);
          assert(line.expander.known <= 8);
        }
        // What was defined before goes on.
        if (!many.some((octets) => octets[0] >= 0xf0)) {
          assertEquals(
            line.take(good, 5000)?.subarray(28),
            good.subarray(1),
          );
        }
      },
    ),
    { numRuns: 300 },
  );
});

Deno.test("headers: a packet that is rebuilt in its slot has the whole headroom in front, in the first slot too", () => {
  // IPv6, UDP, RTP: headers of 60 octets, behind the 13 octets of their definition.
  const definition = new Uint8Array(13 + 64), of = new DataView(definition.buffer);
  definition.set([0xf1, 0, 1]);
  definition.set([0x60, 0, 0, 0, 0, 24, 17, 64], 13);
  of.setUint16(13 + 44, 24);
  definition[13 + 48] = 0x80;
  const expander = new Expander(new ContextBudget(1), () => {});
  expander.define(of, 0, 13, 64, 1);
  // The payload lies behind a datagram's header, number and RTP's field; or further back, behind other frames.
  for (const [front, octets] of [[6, 4], [6, 5], [6, 79], [6, 700], [55, 5], [56, 6], [58, 4], [300, 4]]) {
    const arena = new Arena(2), burst = new Burst(arena);
    const row = burst.grow(0, 0), start = packetStart(burst.slot[row]), at = start + front;
    assertEquals(burst.slot[row], 0);
    const data = Uint8Array.from({ length: octets }, (_, i) => i * 7);
    arena.bytes.set([0x50, 0xc0, 5, ...data], at);
    expandInPlace(burst, row, at, 3 + octets, 2, expander);
    assertEquals([burst.next[row], burst.length[row]], [OPENED, 60 + octets]);
    assert(burst.offset[row] >= start, `${burst.offset[row]}`);
    const packet = arena.bytes.slice(burst.offset[row], burst.offset[row] + 60 + octets);
    assertEquals([...packet.subarray(0, 8)], [
      0x60,
      0,
      0,
      0,
      (20 + octets) >> 8,
      (20 + octets) & 0xff,
      17,
      64,
    ]);
    assertEquals([...packet.subarray(48, 52)], [0x80, 0x80, 0, 5]);
    assertEquals(packet.subarray(60), data);
  }
});

/** The UDP packet of an RTP flow with this sequence number, 960 units of time from one to the next. */
function rtp(number: number, { marker = false, late = 0 } = {}): Uint8Array {
  const octets = new Uint8Array(32).fill(number), view = new DataView(octets.buffer);
  view.setUint16(0, 0x806f | (marker ? 0x80 : 0));
  view.setUint16(2, number);
  view.setUint32(4, 960 * number + late);
  view.setUint32(8, 7);
  return udp(octets);
}

Deno.test("headers: a call's packet is two octets and its payload, in the long run too, and by seven bits reads no other", () => {
  for (const loss of [0, 0.3]) {
    const line = new Line(), random = new Random(5);
    let octets = 0, packets = 0;
    // Past the turn of sixteen bits, and of the twelve that a definition tells apart.
    for (let n = 63_000; n < 69_000; n++) {
      line.isLost = random.real() < loss;
      const packet = rtp(n & 0xffff), came = line.carry(packet);
      if (!line.isLost) assertEquals(came && atomic(came), atomic(packet), String(n));
      if (line.result !== SHORT) continue;
      octets += line.sent.length - 20;
      packets++;
    }
    assertGreater(packets, 5500);
    assertLess(octets / packets, loss === 0 ? 2.1 : 2.2);
  }
});

Deno.test("headers: a marker takes an octet more, and a time stamp off the line four more", () => {
  const line = new Line();
  let n = 0;
  settle(line, () => rtp(n++));
  for (
    const [made, sent] of [
      [{}, [0x50, n & 0x7f]],
      [{ marker: true }, [0x50, 0xc0, n + 1]],
      [{ late: 5 }, [0x50, 0xa0, n + 2, 0, 0, 960 * (n + 2) >> 8, (960 * (n + 2) + 5) & 0xff]],
    ] as const
  ) {
    const packet = rtp(n++, made);
    assertEquals(atomic(line.carry(packet)!), atomic(packet));
    assertEquals([...line.sent.subarray(0, sent.length)], [...sent]);
    assertEquals(line.sent.length, sent.length + 20);
  }
});

Deno.test("headers: anchors that nobody acknowledges leave the long form, which needs none", () => {
  const line = new Line();
  let n = 0;
  settle(line, () => rtp(n++));
  line.anchors = false;
  const sizes = Array.from({ length: 300 }, () => {
    const packet = rtp(n++);
    assertEquals(atomic(line.carry(packet)!), atomic(packet));
    return line.sent.length - 20;
  });
  assertEquals([Math.min(...sizes), sizes.at(-1)], [2, 3]);
  // Nor does the acknowledgment of another generation, or of no anchor.
  for (let low = 0; low < 256; low++) line.shrinker.anchored(0, 77, low);
  line.carry(rtp(n++));
  assertEquals(line.sent.length, 23);
});

Deno.test("headers: a late packet is read by the anchor before it, or not at all", () => {
  const line = new Line();
  let n = 0;
  settle(line, () => rtp(n++));
  const kept: { sent: Uint8Array; counter: number; packet: Uint8Array }[] = [];
  for (let i = 0; i < 900; i++) {
    const packet = rtp(n++);
    line.isLost = true;
    line.carry(packet);
    if (line.sent.length === 22) kept.push({ sent: line.sent, counter: line.counter, packet });
    else line.take(line.sent, line.counter);
  }
  assertGreater(kept.length, 700);
  let read = 0;
  for (const { sent, counter, packet } of kept) {
    const came = line.take(sent, counter);
    if (came === undefined) continue;
    assertEquals(atomic(came), atomic(packet));
    read++;
  }
  assertGreater(read, 200);
  assertLess(read, kept.length);
});
