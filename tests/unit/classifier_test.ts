/**
 * What class a flow gets, packet by packet, through the node that decides it, and the table of flows: by marks, ports and
 * behaviour, with hysteresis, and what a crowd of flows does to one. Behaviour comes as traces of real shapes.
 * Long because all of it plays flows by one sender to one classifier.
 */
import { assert, assertEquals, assertGreater, assertLess, assertThrows } from "@std/assert";
import fc from "fast-check";
import { BEGUN, classOfMarks, FIRM } from "../../src/control/classifier.ts";
import { classOfFlow, observe } from "../../src/control/direction.ts";
import {
  FLOW_KEYS,
  FLOW_WORDS_MAX,
  FlowTable,
  INWARD,
  OUTWARD,
  STATE_BYTES,
  STATE_CLASS,
  STATE_MARKS,
} from "../../src/control/flows.ts";
import {
  CLASS_BULK,
  CLASS_DEFAULT,
  CLASS_GAME,
  CLASS_INTERACTIVE,
  CLASS_VOICE,
} from "../../src/control/traffic_class.ts";
import { classify } from "../../src/egress/classify.ts";
import { classify as classifyAnswers } from "../../src/ingress/classify.ts";
import type { IngressContext } from "../../src/ingress/mod.ts";
import type { EgressContext } from "../../src/egress/mod.ts";
import { Metrics } from "../../src/metrics.ts";
import { Hints } from "../../src/session/oxtunnel/hints.ts";
import { OXTUNNEL, WIREGUARD } from "../../src/session/table.ts";
import { Arena, NONE } from "../../src/vector/arena.ts";
import { Burst, TO_EXIT, TO_SEAL } from "../../src/vector/burst.ts";
import { FlowReader } from "../../src/wire/flow.ts";
import { PROTOCOL_TCP, PROTOCOL_UDP, writeIpv4Header, writeIpv6Header } from "../../src/wire/inner.ts";
import { Random } from "../kit/random.ts";

const MS = 1000, SECOND = 1_000_000;
const UDP = PROTOCOL_UDP, TCP = PROTOCOL_TCP, ICMP = 1;

function keys(seed = 1): Uint32Array {
  const random = new Random(seed);
  return Uint32Array.from({ length: FLOW_KEYS }, () => random.u32());
}

/** Sends packets through the node and says the class of each. */
class Sender {
  nowUs = 5_000_000_000; // beyond 2^32, as after an hour and more
  readonly flows = new FlowTable(1 << 10, keys());
  readonly burst = new Burst(new Arena(4));
  readonly hints = new Hints(2);
  readonly metrics = new Metrics();
  protocol = OXTUNNEL;
  readonly #protocols = [OXTUNNEL];
  readonly #context = {
    table: { protocol: this.#protocols },
    associations: { oxtunnel: { sessions: { hints: this.hints } } },
    flows: this.flows,
    metrics: this.metrics,
    words: new Uint32Array(FLOW_WORDS_MAX),
    ends: new Uint32Array(8),
  } as unknown as EgressContext;

  /** Classifies whatever is in the burst. */
  classify(): void {
    this.#protocols[0] = this.protocol;
    classify(this.burst, this.#context, this.nowUs);
  }

  packet(
    protocol: number,
    bytes: number,
    {
      ports = [40000, 40001],
      dscp = 0,
      payload = [] as number[],
      flags = 0x18,
      isIpv6 = false,
      source = 0x08080808,
    } = {},
  ): number {
    const { burst } = this;
    burst.release();
    const row = burst.grow(bytes, TO_SEAL), at = burst.offset[row];
    burst.session[row] = 0;
    burst.bytes.fill(0, at, at + bytes);
    if (isIpv6) {
      const from = Uint32Array.of(0x20010db8, 0, 0, 1), to = Uint32Array.of(0xfd000000, 0, 0, 2);
      writeIpv6Header(burst.view, at, bytes - 40, protocol, from, 0, to, 0);
      burst.view.setUint16(at, 0x6000 | dscp << 6);
    } else {
      writeIpv4Header(burst.view, at, bytes, 1, 0, protocol, source, 0x0a420002);
      burst.view.setUint8(at + 1, dscp << 2);
    }
    const transport = at + (isIpv6 ? 40 : 20);
    burst.view.setUint16(transport, ports[0]);
    burst.view.setUint16(transport + 2, ports[1]);
    if (protocol === TCP) burst.view.setUint16(transport + 12, 0x5000 | flags);
    else burst.bytes.set(payload, transport + 8);
    this.classify();
    return burst.trafficClass[row];
  }

  /** `count` packets, `gapUs` apart; the class after the last. */
  run(count: number, gapUs: number, ...packet: Parameters<Sender["packet"]>): number {
    let last = 0;
    for (let i = 0; i < count; i++) {
      this.nowUs += gapUs;
      last = this.packet(...packet);
    }
    return last;
  }
}

Deno.test("classifier: DSCP decides, and behaviour does not change it", () => {
  const expected: [number, number][] = [
    [46, CLASS_VOICE],
    [44, CLASS_VOICE],
    [40, CLASS_VOICE],
    [34, CLASS_VOICE],
    [32, CLASS_GAME],
    [18, CLASS_INTERACTIVE],
    [48, CLASS_INTERACTIVE],
    [8, CLASS_BULK],
    [1, CLASS_BULK],
    [10, CLASS_BULK],
  ];
  for (const [dscp, trafficClass] of expected) {
    assertEquals(classOfMarks(dscp, UDP, 1, 2), trafficClass | FIRM, `DSCP ${dscp}`);
    for (const isIpv6 of [false, true]) {
      const sender = new Sender();
      assertEquals(sender.run(100, MS, TCP, 1400, { dscp, isIpv6 }), trafficClass, `DSCP ${dscp}`);
    }
  }
  assertEquals(new Sender().packet(UDP, 100, { dscp: 0 }), CLASS_DEFAULT);
  // An SSH session marks its packets only once it knows what it is for.
  const ssh = new Sender();
  assertEquals(ssh.packet(TCP, 100, { ports: [22, 50000] }), CLASS_INTERACTIVE);
  assertEquals(ssh.run(1, MS, TCP, 100, { ports: [22, 50000], dscp: 8 }), CLASS_BULK);
  assertEquals(ssh.run(1, MS, TCP, 100, { ports: [22, 50000], dscp: 18 }), CLASS_INTERACTIVE);
});

Deno.test("classifier: DSCP goes before a game's port, from the first packet on, small as it may be", () => {
  for (const isIpv6 of [false, true]) {
    const sender = new Sender();
    assertEquals(sender.packet(UDP, 64, { ports: [40000, 7777], dscp: 8, isIpv6 }), CLASS_BULK);
    assertEquals(sender.run(100, 16 * MS, UDP, 64, { ports: [40000, 7777], dscp: 8, isIpv6 }), CLASS_BULK);
  }
});

Deno.test("classifier: of many flows that come from the tunnel at one moment each is looked at", () => {
  const arena = new Arena(64), burst = new Burst(arena), metrics = new Metrics();
  const context = {
    table: { protocol: [OXTUNNEL], peer: [0] },
    associations: { oxtunnel: { sessions: { hints: new Hints(1) } } },
    // Fewer rows than flows, so that some take others' before the moment is over.
    flows: new FlowTable(8, keys()),
    metrics,
    words: new Uint32Array(FLOW_WORDS_MAX),
    ends: new Uint32Array(8),
  } as unknown as IngressContext;
  for (let i = 0; i < 32; i++) {
    const row = burst.grow(100, TO_EXIT), at = burst.offset[row];
    burst.session[row] = 0;
    writeIpv4Header(burst.view, at, 100, 1, 0, UDP, 0x0a420002, 0x08080800 + i);
    burst.view.setUint8(at + 1, 46 << 2);
    burst.view.setUint32(at + 20, 40000 << 16 | 40001);
  }
  classifyAnswers(burst, context, 5 * SECOND);
  assertEquals(metrics.ofClass("from_tunnel", "voice"), { packets: 32, bytes: 3200 });
});

Deno.test("classifier: well-known ports at either end", () => {
  const expected: [number, number, number][] = [
    [UDP, 53, CLASS_INTERACTIVE],
    [TCP, 22, CLASS_INTERACTIVE],
    [TCP, 443, CLASS_INTERACTIVE],
    [UDP, 443, CLASS_INTERACTIVE],
    [UDP, 3478, CLASS_VOICE],
    [UDP, 5060, CLASS_VOICE],
    [UDP, 27015, CLASS_GAME],
    [TCP, 27015, CLASS_DEFAULT],
    [UDP, 3074, CLASS_GAME],
    [TCP, 25565, CLASS_GAME],
    [TCP, 873, CLASS_BULK],
    [UDP, 6881, CLASS_BULK],
    [UDP, 40000, CLASS_DEFAULT],
    [ICMP, 0, CLASS_INTERACTIVE],
    [50, 0, CLASS_DEFAULT],
  ];
  for (const [protocol, port, trafficClass] of expected) {
    for (const ports of [[port, 51000], [51000, port]]) {
      assertEquals(new Sender().packet(protocol, 100, { ports }), trafficClass, `${protocol} ${ports}`);
    }
  }
});

Deno.test("classifier: a download is bulk after its first packets, its acknowledgements too, and a pause forgives it", () => {
  for (const isIpv6 of [false, true]) {
    const web = { ports: [443, 51000], isIpv6 };
    const down = new Sender(), up = new Sender();
    // What a page begins with is interactive.
    assertEquals(down.run(20, MS, TCP, 1420, web), CLASS_INTERACTIVE);
    assertEquals(down.run(30, MS, TCP, 1420, web), CLASS_BULK);
    assertEquals(up.run(20, 2 * MS, TCP, isIpv6 ? 60 : 40, { ...web, flags: 0x10 }), CLASS_INTERACTIVE);
    assertEquals(up.run(30, 2 * MS, TCP, isIpv6 ? 60 : 40, { ...web, flags: 0x10 }), CLASS_BULK);
    down.nowUs += 2 * SECOND;
    assertEquals(down.packet(TCP, 1420, web), CLASS_INTERACTIVE);
    const quic = new Sender(), acks = new Sender();
    assertEquals(quic.run(20, MS, UDP, 1300, web), CLASS_INTERACTIVE);
    assertEquals(quic.run(30, MS, UDP, 1300, web), CLASS_BULK);
    assertEquals(acks.run(50, 2 * MS, UDP, 70, web), CLASS_BULK);
  }
});

Deno.test("classifier: keystrokes and requests stay interactive for ever", () => {
  const keys = new Sender(), requests = new Sender();
  for (let i = 0; i < 500; i++) {
    keys.nowUs += 60 * MS;
    assertEquals(keys.packet(TCP, 88, { ports: [51000, 22] }), CLASS_INTERACTIVE);
    keys.nowUs += 20 * MS;
    assertEquals(keys.packet(TCP, 40, { ports: [51000, 22], flags: 0x10 }), CLASS_INTERACTIVE);
    requests.nowUs += 300 * MS;
    assertEquals(requests.run(4, MS, TCP, 1420, { ports: [443, 51000] }), CLASS_INTERACTIVE);
    assertEquals(requests.packet(TCP, 300, { ports: [443, 51000] }), CLASS_INTERACTIVE);
  }
});

Deno.test("classifier: a game on no known port is found by its pace, also at three packets a tick", () => {
  for (const perTick of [1, 2, 3]) {
    const sender = new Sender(), random = new Random(perTick);
    assertEquals(sender.packet(UDP, 90), CLASS_DEFAULT);
    let foundMs = 0, tick = 0;
    for (; tick < 300; tick++) {
      sender.nowUs += 12 * MS + random.u32() % (8 * MS);
      let last = 0;
      for (let i = 0; i < perTick; i++) last = sender.packet(UDP, 60 + random.u32() % 300);
      if (foundMs === 0 && last === CLASS_GAME) foundMs = 16 * tick;
      if (foundMs > 0) assertEquals(last, CLASS_GAME, `tick ${tick}`);
    }
    assertGreater(foundMs, 0);
    assertLess(foundMs, 100, `${perTick} a tick`);
  }
  // Neither a flood of small packets nor a lookup now and then is a game.
  assertEquals(new Sender().run(2000, 20, UDP, 64), CLASS_DEFAULT);
  assertEquals(new Sender().run(200, 2 * SECOND, UDP, 64), CLASS_DEFAULT);
});

/** The first bytes of RTP: version 2, payload type, sequence number, timestamp, source. */
function rtp(sequence: number, timestamp: number, source = 0x1badcafe, first = 0x80): number[] {
  const view = new DataView(new ArrayBuffer(12));
  view.setUint16(0, first << 8 | 96);
  view.setUint16(2, sequence);
  view.setUint32(4, timestamp);
  view.setUint32(8, source);
  return [...new Uint8Array(view.buffer)];
}

/** Payloads of both directions, each at a time: [microseconds after the one before, direction, bytes] in turn, `rounds` times. */
function converse(
  rounds: number,
  turn: readonly (readonly [gapUs: number, direction: number, bytes: number])[],
): number[] {
  const flows = new FlowTable(8, keys()), view = new DataView(new ArrayBuffer(2048)), classes: number[] = [];
  let nowUs = 1_000_000;
  for (let i = 0; i < rounds * turn.length; i++) {
    const [gapUs, direction, bytes] = turn[i % turn.length];
    nowUs += gapUs;
    const packet = {
      protocol: UDP,
      ports: 40000 << 16 | 40001,
      tos: 0,
      isAck: false,
      packetAt: 0,
      payloadAt: 28,
      payloadBytes: bytes,
    };
    observe(flows, direction, packet, view, bytes + 28, nowUs);
    classes.push(classOfFlow(flows, direction, nowUs));
  }
  return classes;
}

Deno.test("classifier: a slow transfer and what acknowledges it are no game, nor is who asks as fast as answers come", () => {
  // uTP at 50 packets a second; TFTP, which waits for each answer; remote files.
  const transfers = {
    utp: converse(100, [[20_000, INWARD, 1400], [1100, OUTWARD, 20]]),
    tftp: converse(100, [[200, INWARD, 516], [2600, OUTWARD, 4]]),
    files: converse(100, [[300, OUTWARD, 130], [4000, INWARD, 100]]),
  };
  for (const [name, classes] of Object.entries(transfers)) {
    assert(classes.slice(40).every((one) => one === CLASS_DEFAULT), name);
  }
  // As fast as games tick, with one small packet in four, and answers of full size now and then.
  const games = {
    quick: converse(100, [[3900, OUTWARD, 60], [3900, INWARD, 300]]),
    snapshots: converse(100, [[8000, OUTWARD, 60], [8000, INWARD, 640], [8000, OUTWARD, 20]]),
  };
  for (const [name, classes] of Object.entries(games)) {
    assert(classes.slice(8).every((one) => one === CLASS_GAME), name);
  }
});

Deno.test("classifier: RTP is a call from its second packet on, with sound, with full-size pictures, and with two sources", () => {
  const sound = new Sender(), picture = new Sender(), both = new Sender();
  assertEquals(sound.run(1, 20 * MS, UDP, 100, { payload: rtp(65_534, 0) }), CLASS_DEFAULT);
  for (let i = 1; i < 100; i++) {
    assertEquals(sound.run(1, 20 * MS, UDP, 100, { payload: rtp(65_534 + i, 960 * i) }), CLASS_VOICE);
  }
  for (let i = 0; i < 100; i++) {
    const payload = rtp(i, 3000 * (i >> 3), 7, 0x90);
    assertEquals(picture.run(1, 200, UDP, 1200, { payload }), i === 0 ? CLASS_DEFAULT : CLASS_VOICE);
  }
  // Between its packets come others: STUN checks, DTLS.
  assertEquals(picture.packet(UDP, 100, { payload: [1, 1] }), CLASS_VOICE);
  for (let i = 0; i < 20; i++) {
    both.run(1, 10 * MS, UDP, 100, { payload: rtp(500 + i, 960 * i, 1) });
    const last = both.run(1, 10 * MS, UDP, 1100, { payload: rtp(9000 + i, 3000 * i, 2) });
    if (i > 0) assertEquals(last, CLASS_VOICE);
  }
});

Deno.test("classifier: what looks like RTP and does not go on from packet to packet is no call", () => {
  const random = new Random(9), bytes = new Uint8Array(40);
  const noise = new Sender(), still = new Sender(), leaps = new Sender();
  for (let i = 0; i < 500; i++) {
    random.fill(bytes);
    bytes[0] = 0x80;
    assertEquals(noise.run(1, MS, UDP, 1200, { payload: [...bytes] }) === CLASS_VOICE, false);
    assertEquals(still.run(1, MS, UDP, 1200, { payload: rtp(7, 0) }) === CLASS_VOICE, false);
    assertEquals(leaps.run(1, MS, UDP, 1200, { payload: rtp(1000 * i, 0) }) === CLASS_VOICE, false);
  }
});

Deno.test("classifier: a class that behaviour gave is left well below where it was taken", () => {
  const sender = new Sender();
  sender.run(33, MS, TCP, 1420);
  assertEquals(sender.packet(TCP, 1420), CLASS_BULK);
  // One short segment in ten, as at the ends of records, changes nothing.
  for (let i = 0; i < 50; i++) {
    assertEquals(sender.packet(TCP, 400), CLASS_BULK);
    assertEquals(sender.run(9, MS, TCP, 1420), CLASS_BULK);
  }
  // Nor does a lull that would not have made it a transfer.
  const lull = new Sender();
  lull.run(34, MS, TCP, 1420);
  assertEquals(lull.run(8, MS, TCP, 200), CLASS_BULK);
  assertEquals(lull.run(8, MS, TCP, 200), CLASS_DEFAULT);
  // A conversation does, soon.
  assertEquals(sender.run(40, 30 * MS, TCP, 200), CLASS_DEFAULT);
  // And one packet more does not make it a transfer again.
  assertEquals(sender.run(10, MS, TCP, 1420), CLASS_DEFAULT);
});

Deno.test("classifier: no sequence of sizes and gaps makes a flow's class flap", () => {
  const sizes = fc.constantFrom(60, 150, 400, 690, 710, 999, 1000, 1400);
  const gapsUs = fc.constantFrom(
    0,
    100,
    1999,
    2000,
    5000,
    20_000,
    100_000,
    249_999,
    260_000,
    900_000,
    2_000_000,
  );
  const packet = fc.record({
    size: sizes,
    gapUs: gapsUs,
    isUp: fc.boolean(),
    repeat: fc.integer({ min: 1, max: 40 }),
  });
  fc.assert(
    fc.property(fc.array(packet, { minLength: 20, maxLength: 60 }), (runs) => {
      const flows = new FlowTable(8, keys()), view = new DataView(new ArrayBuffer(64));
      const row = flows.find(Uint32Array.of(1, 2, 3, UDP), 4, 0);
      const seen = {
        protocol: UDP,
        ports: 40_000 << 16 | 40_001,
        tos: 0,
        isAck: false,
        packetAt: 0,
        payloadAt: 0,
        payloadBytes: 32,
      };
      const changes = [0, 0], last = [-1, -1], packets = [0, 0];
      let nowUs = 0;
      for (const { size, gapUs, isUp, repeat } of runs) {
        for (let i = 0; i < repeat; i++) {
          nowUs += gapUs;
          const side = isUp ? 1 : 0, place = 2 * row + side;
          observe(flows, place, seen, view, size, nowUs);
          const now = flows.state[STATE_BYTES * place + STATE_CLASS];
          packets[side]++;
          if (last[side] >= 0 && now !== last[side]) changes[side]++;
          last[side] = now;
        }
      }
      // Each return to what behaviour gave and took back needs more than the one before.
      for (const side of [0, 1]) {
        assert(changes[side] <= 4 + packets[side] / 12, `${changes[side]} of ${packets[side]}`);
      }
    }),
    { numRuns: 300 },
  );
});

Deno.test("classifier: a flow that is small and full by turns is taken for a game ever more slowly", () => {
  const sender = new Sender(), needed: number[] = [];
  for (let round = 0; round < 4; round++) {
    let packets = 0;
    while (sender.run(1, 20 * MS, UDP, 100) !== CLASS_GAME) packets++;
    needed.push(packets);
    while (sender.run(1, 20 * MS, UDP, 1400) === CLASS_GAME);
  }
  for (let i = 1; i < needed.length; i++) assertGreater(needed[i], needed[i - 1], needed.join());
});

Deno.test("classifier: of a call's flow data of its connection is a transfer, and its media never", () => {
  const stun = [
    0,
    1,
    0,
    8,
    0x21,
    0x12,
    0xa4,
    0x42,
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
    9,
    10,
    11,
    12,
    0x80,
    0x22,
    0,
    4,
    1,
    2,
    3,
    4,
  ];
  const dtls = [23, 0xfe, 0xfd, 0, 1];
  const media = new Sender(), file = new Sender();
  for (const sender of [media, file]) {
    assertEquals(sender.run(1, MS, UDP, 56, { payload: stun }), CLASS_VOICE);
  }
  // Pictures that nobody can read, as some programs send them.
  assertEquals(media.run(500, 300, UDP, 1200, { payload: [0x63, 1, 2] }), CLASS_VOICE);
  assertEquals(file.run(10, 300, UDP, 1200, { payload: dtls }), CLASS_VOICE);
  assertEquals(file.run(60, 300, UDP, 1200, { payload: dtls }), CLASS_BULK);
});

Deno.test("classifier: what is surely a call stays one under another's mark, and a mark on what is unknown decides", () => {
  const marked = new Sender(), unknown = new Sender();
  for (let i = 0; i < 10; i++) {
    const last = marked.run(1, 20 * MS, UDP, 100, { payload: rtp(i, 960 * i), dscp: 8 });
    if (i > 0) assertEquals(last, CLASS_VOICE);
  }
  assertEquals(unknown.run(10, 20 * MS, UDP, 100, { dscp: 8 }), CLASS_BULK);
});

Deno.test("classifier: one direction's pace informs the other, and full packets there take it back", () => {
  const flows = new FlowTable(8, keys()), view = new DataView(new ArrayBuffer(64));
  const row = flows.find(Uint32Array.of(1, 2, 3, UDP), 4, 0);
  const seen = {
    protocol: UDP,
    ports: 40_000 << 16 | 40_001,
    tos: 0,
    isAck: false,
    packetAt: 0,
    payloadAt: 0,
    payloadBytes: 32,
  };
  let nowUs = 0;
  const send = (side: number, bytes: number, gapUs: number) => {
    observe(flows, 2 * row + side, seen, view, bytes, nowUs += gapUs);
    return classOfFlow(flows, 2 * row + side, nowUs);
  };
  send(0, 100, 0);
  assertEquals([send(1, 100, 10 * MS), send(0, 100, 10 * MS), send(1, 100, 10 * MS)], [
    CLASS_DEFAULT,
    CLASS_DEFAULT,
    CLASS_GAME,
  ]);
  // What acknowledges a transfer is small and paced as well.
  for (let i = 0; i < 30; i++) {
    send(1, 1400, 5 * MS);
    send(0, 60, 5 * MS);
  }
  assertEquals([send(1, 1400, 5 * MS), send(0, 60, 5 * MS) === CLASS_VOICE], [CLASS_DEFAULT, false]);
});

Deno.test("classifier: WireGuard's rows, empty ones and those that go elsewhere are passed over", () => {
  const sender = new Sender();
  sender.protocol = WIREGUARD;
  sender.packet(UDP, 100, { dscp: 46 });
  assertEquals([sender.burst.flow[0], sender.burst.trafficClass[0]], [NONE, CLASS_DEFAULT]);
  sender.protocol = OXTUNNEL;
  sender.packet(UDP, 100, { dscp: 46 });
  assertEquals(sender.burst.trafficClass[0], CLASS_VOICE);
  const { burst } = sender;
  burst.release();
  burst.grow(0, TO_SEAL);
  burst.session[0] = 0;
  burst.grow(100, TO_EXIT);
  burst.session[1] = 0;
  sender.classify();
  assertEquals([...burst.flow.subarray(0, 2)], [NONE, NONE]);
});

Deno.test("classifier: fragments and headers that are cut short are of their addresses' flow", () => {
  const sender = new Sender();
  const random = new Random(7);
  for (let round = 0; round < 3000; round++) {
    const isIpv6 = (round & 1) === 1, protocol = [UDP, TCP, ICMP, 0, 44, 60][random.u32() % 6];
    const { burst } = sender;
    burst.release();
    const bytes = (isIpv6 ? 40 : 20) + random.u32() % 60;
    const row = burst.grow(bytes, TO_SEAL), at = burst.offset[row];
    burst.session[row] = 0;
    for (let i = 0; i < bytes; i++) burst.bytes[at + i] = random.u32();
    burst.bytes[at] = isIpv6 ? 0x60 : 0x40 | 5 + random.u32() % 11;
    burst.bytes[at + (isIpv6 ? 6 : 9)] = protocol;
    sender.nowUs += MS;
    sender.classify();
    assert(burst.flow[row] < 1024, `round ${round}`);
    assert(burst.trafficClass[row] <= CLASS_BULK);
  }
});

Deno.test("flows: both directions have one name, whatever the packet is", () => {
  const random = new Random(3);
  const reader = new FlowReader(), ofAnswers = new FlowReader();
  const there = new Uint32Array(FLOW_WORDS_MAX), back = new Uint32Array(FLOW_WORDS_MAX);
  for (let round = 0; round < 3000; round++) {
    const isIpv6 = (round & 1) === 1, address = isIpv6 ? 16 : 4, addressesAt = isIpv6 ? 8 : 12;
    const packet = new Uint8Array((isIpv6 ? 40 : 20) + random.u32() % 60);
    random.fill(packet);
    packet[0] = isIpv6 ? 0x60 : 0x45;
    packet[isIpv6 ? 6 : 9] = [UDP, TCP, ICMP, 0, 44, 60][random.u32() % 6];
    const answer = packet.slice();
    answer.copyWithin(addressesAt, addressesAt + address, addressesAt + 2 * address);
    answer.set(packet.subarray(addressesAt, addressesAt + address), addressesAt + address);
    reader.begin();
    ofAnswers.begin();
    assert(reader.read(new DataView(packet.buffer), 0, packet.length, there, false));
    const { ports, wordCount } = reader;
    // The ports are where the reader found them, behind whatever headers.
    if (ports !== 0) {
      const at = packet.findIndex((_, i) =>
        i >= addressesAt + 2 * address && i + 4 <= packet.length &&
        new DataView(packet.buffer).getInt32(i) === ports
      );
      answer.copyWithin(at, at + 2, at + 4);
      answer.set(packet.subarray(at, at + 2), at + 2);
    }
    assert(ofAnswers.read(new DataView(answer.buffer), 0, answer.length, back, true));
    assertEquals([ofAnswers.wordCount, ...back], [wordCount, ...there], `round ${round}`);
    // Twice in a row it is told by the reader, of IPv4.
    assert(reader.read(new DataView(answer.buffer), 0, answer.length, back, true));
    assertEquals(reader.isSame, !isIpv6);
  }
});

/** A packet of the flow in the row, into the tunnel. */
function see(table: FlowTable, row: number, nowUs: number): void {
  table.seenUs[2 * row + INWARD] = nowUs;
  table.state[STATE_BYTES * (2 * row + INWARD) + STATE_MARKS] = BEGUN;
}

Deno.test("flows: each keeps its row, new ones take the oldest of a bucket, and the key decides which", () => {
  const table = new FlowTable(4096, keys(1)), other = new FlowTable(4096, keys(2));
  const words = new Uint32Array(FLOW_WORDS_MAX);
  const flow = (i: number) => {
    words.set([0x08080808, 0x0a420002 + (i >> 12), 443 << 16 | i & 0xfff, 6]);
    return words;
  };
  const rows = new Map<number, number>();
  let elsewhere = 0;
  for (let i = 0; i < 1000; i++) {
    const row = table.find(flow(i), 4, i);
    assert(table.isNew);
    see(table, row, i);
    rows.set(i, row);
    if (other.find(flow(i), 4, i) !== row) elsewhere++;
  }
  assertEquals(new Set(rows.values()).size, 1000, "no two of them share a row");
  assertGreater(elsewhere, 990);
  for (const [i, row] of rows) {
    assertEquals(table.find(flow(i), 4, 1000), row);
    assert(!table.isNew);
  }
  // Ten times more flows than rows: what was seen lately is still there.
  let kept = 0;
  for (let i = 0; i < 40_000; i++) {
    see(table, table.find(flow(1000 + i), 4, 2000 + i), 2000 + i);
    if (i >= 100) {
      table.find(flow(1000 + i - 100), 4, 2000 + i);
      if (!table.isNew) kept++;
    }
  }
  assertGreater(kept, 39_000);
  const row = table.find(flow(999_999), 4, 50_000);
  const places = table.state.subarray(2 * STATE_BYTES * row, 2 * STATE_BYTES * (row + 1));
  assertEquals([table.pause[row], ...places], new Array(1 + 2 * STATE_BYTES).fill(0));
  assertThrows(() => new FlowTable(100, keys()), RangeError);
});
