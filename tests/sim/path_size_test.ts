/**
 * Sessions over paths of limited size: the size that both ends find, what becomes of packets that do not fit, paths that
 * shrink and grow under traffic, and a peer that lies. Paths here drop what is too long and say nothing.
 */
import { assert, assertEquals, assertGreater } from "@std/assert";
import { Client, type Upstream } from "../../src/client.ts";
import { PortableLz4 } from "../../src/codec/lz4.ts";
import { BURST_CAPACITY } from "../../src/vector/burst.ts";
import { CONTROL_PROBE, CONTROL_PROBE_REPLY, writeShort } from "../../src/wire/control.ts";
import { FRAME_HEAD_BYTES, FRAME_PACKET, writeFrameHead } from "../../src/wire/frame.ts";
import { Reassembly } from "../../src/exit/userspace/reassembly.ts";
import { foldSum, PROTOCOL_TCP, sumWords, transportChecksum } from "../../src/wire/inner.ts";
import { sealed, sessionOf } from "../kit/inside.ts";
import { CLOSED, dial, Host, World } from "../kit/world.ts";
import { ipv6Packet, udpPacket } from "../kit/packets.ts";

const MS = 1000, SECOND = 1_000_000;
const OUTER_HEADERS = 28, OVERHEAD = 25;
const CLIENT = "10.66.0.2", SERVER = "8.8.8.8";

const sizeOf = (host: Host): number => sessionOf(host).size.bytes;

/**
 * A client behind a link of `path.mtu` bytes, with a session that is open and has had time to search. As on real machines
 * times have fractions of microseconds, and what one end sends at one moment goes as the messages that UDP_SEGMENT makes of
 * it, of equal sizes but for a shorter last, of which all is lost with the first.
 */
function start(mtu: number, { innerMtu = 1420, searchUs = 20 * SECOND } = {}) {
  const world = new World(1);
  world.protocol = "oxtunnel";
  const path = { mtu };
  world.channel = { ...world.channel, delayUs: 20_000.3 };
  let tooLong = 0, sender = "", atUs = 0, size = 0, isLost = false, isOpen = false;
  world.tap = (from, _to, bytes) => {
    const isOfMessage = isOpen && sender === from && atUs === world.nowUs && bytes.length <= size;
    isOpen = !isOfMessage || bytes.length === size;
    if (!isOfMessage) {
      [sender, atUs, size] = [from, world.nowUs, bytes.length];
      isLost = bytes.length + OUTER_HEADERS > path.mtu;
    }
    if (bytes.length + OUTER_HEADERS > path.mtu) tooLong++;
    return isLost ? undefined : bytes;
  };
  const relay = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1", mtu: innerMtu });
  const client = world.client("198.51.100.7:5555", relay, { ipv4: CLIENT, mtu: innerMtu });
  client.send(up(100));
  world.runFor(searchUs);
  return { world, relay, client, path, tooLong: () => tooLong };
}

const OPEN = { ...CLOSED, allow: ["2001:db8::/32"] };
const up = (bytes: number) => udpPacket(CLIENT, SERVER, new Uint8Array(bytes - 28));
const down = (bytes: number) => udpPacket(SERVER, CLIENT, new Uint8Array(bytes - 28));

function withDf(packet: Uint8Array): Uint8Array {
  const view = new DataView(packet.buffer);
  view.setUint16(6, 0x4000);
  view.setUint16(10, 0);
  view.setUint16(10, foldSum(sumWords(view, 0, 20, 0)));
  return packet;
}

/** A SYN with an MSS of 1460 behind a NOP, so that it straddles words of the checksum. */
function syn(source: Uint8Array): Uint8Array {
  const packet = new Uint8Array(48);
  packet.set(source.subarray(0, 20));
  const view = new DataView(packet.buffer);
  view.setUint16(2, packet.length);
  view.setUint8(9, PROTOCOL_TCP);
  view.setUint16(10, 0);
  view.setUint16(10, foldSum(sumWords(view, 0, 20, 0)));
  view.setUint8(20 + 12, 7 << 4);
  view.setUint8(20 + 13, 2);
  packet.set([1, 2, 4, 1460 >> 8, 1460 & 255, 0], 40);
  view.setUint16(20 + 16, transportChecksum(view, 0, 20, 28, PROTOCOL_TCP));
  return packet;
}
const mssOf = (packet: Uint8Array) => new DataView(packet.buffer, packet.byteOffset).getUint16(43);
function hasSoundChecksum(packet: Uint8Array): boolean {
  return transportChecksum(new DataView(packet.buffer, packet.byteOffset), 0, 20, 28, PROTOCOL_TCP) === 0;
}

/** What the ICMP error "fragmentation needed" says. */
function toldMtu(packet: Uint8Array | undefined): number | undefined {
  if (packet === undefined || packet[9] !== 1 || packet[20] !== 3 || packet[21] !== 4) return undefined;
  return new DataView(packet.buffer, packet.byteOffset).getUint16(26);
}

for (const mtu of [1500, 1492, 1420, 1400, 1333, 1280, 1240]) {
  Deno.test(`path size: both ends of a link of ${mtu} bytes find what it takes`, () => {
    const { relay, client } = start(mtu, { innerMtu: 1447 });
    for (const host of [relay, client]) {
      const size = sizeOf(host), most = Math.min(1472, mtu - OUTER_HEADERS);
      assert(size <= most && size > most - 4, `${size} of ${most}`);
      assert(host.metrics.get("size_probes_sent") <= 30, `${host.metrics.get("size_probes_sent")}`);
    }
    if (mtu === 1500) assertEquals([sizeOf(client), sizeOf(relay)], [1472, 1472]);
  });
}

for (const use of ["idle", "client", "relay", "both"]) {
  Deno.test(`path size: a narrow link is found in as many probes as its sizes need, whoever sends: ${use}`, () => {
    const { world, relay, client } = start(1400, { searchUs: 100 * MS });
    const beganUs = world.nowUs;
    const isFound = (host: Host) => sessionOf(host).size.isSettled;
    while (!(isFound(client) && isFound(relay)) && world.nowUs - beganUs < 20 * SECOND) {
      if (use === "client" || use === "both") client.send(up(100));
      if (use === "relay" || use === "both") relay.send(down(100));
      world.runFor(20 * MS);
    }
    for (const host of [relay, client]) {
      assert(sizeOf(host) > 1368 && sizeOf(host) <= 1372, `${sizeOf(host)}`);
    }
    // Three that are too big, thrice each, with a timer of 200 ms; 1200 and four between are answered.
    assertEquals([client, relay].map((host) => host.metrics.get("size_probes_sent")), [14, 14]);
    assert(world.nowUs - beganUs <= 2100 * MS, `${world.nowUs - beganUs}`);
  });
}

Deno.test("path size: the usual path takes one probe, and an idle session sends no more", () => {
  const { world, relay, client } = start(1500, { searchUs: 200 * MS });
  assertEquals([sizeOf(client), sizeOf(relay)], [1445, 1445]);
  const sent = [client, relay].map((host) => host.metrics.get("size_probes_sent"));
  assertEquals(sent, [1, 1]);
  world.runFor(60 * SECOND);
  assertEquals([client, relay].map((host) => host.metrics.get("size_probes_sent")), sent);
});

Deno.test("path size: packets that fit arrive whole, larger ones are cut or their sender is told, at both ends", () => {
  const { world, relay, client, tooLong } = start(1400);
  const mtu = sizeOf(client) - OVERHEAD;
  const before = tooLong();
  for (const [from, to, packet] of [[client, relay, up], [relay, client, down]] as const) {
    from.delivered.length = to.delivered.length = 0;
    from.send(withDf(packet(mtu)));
    world.runFor(100 * MS);
    assertEquals(to.delivered.map((one) => one.length), [mtu]);
    from.send(withDf(packet(mtu + 1)));
    assertEquals(toldMtu(from.delivered[0]), mtu, "the error goes out where the packet came from");
    from.send(packet(mtu + 1));
    world.runFor(100 * MS);
    const pieces = to.delivered.slice(1).map((one) => [one.length, one[6] << 8 | one[7]]);
    const step = mtu - 20 & ~7;
    assertEquals(pieces, [[20 + step, 0x2000], [mtu + 1 - step, step >> 3]]);
    for (const piece of to.delivered) {
      assertEquals(sumWords(new DataView(piece.buffer), 0, 20, 0) % 0xffff, 0);
    }
  }
  assertEquals(tooLong(), before, "nothing that the path does not take was sent");
});

Deno.test("path size: while it is searched for, full packets get through in pieces, and nobody is told a size", () => {
  const { world, relay, client, tooLong } = start(1400, { searchUs: 90 * MS });
  assert(!sessionOf(client).size.isSettled && sizeOf(client) === 1200);
  client.delivered.length = relay.delivered.length = 0;
  client.send(withDf(up(1420)));
  relay.send(withDf(down(1420)));
  world.runFor(60 * MS);
  for (const { delivered } of [relay, client]) {
    const pieces = delivered.filter((one) => one.length !== 100);
    assertEquals(pieces.map((one) => [one.length, one[6] << 8 | one[7]]), [[1172, 0x2000], [268, 144]]);
  }
  const probes = [client, relay].map(({ metrics }) => metrics.get("size_probes_sent"));
  assertEquals(tooLong(), probes[0] + probes[1]);
});

Deno.test("path size: while it is searched for, a full burst is not lost for want of rows", () => {
  const { world, relay, client } = start(1500, { searchUs: 45 * MS });
  assert(!sessionOf(client).size.isSettled);
  relay.delivered.length = 0;
  const { free } = client.arena;
  client.sendBurst(Array.from({ length: BURST_CAPACITY }, () => withDf(up(1420))));
  world.runFor(25 * MS);
  const arrived = relay.delivered.filter((packet) => packet.length !== 100);
  const bytes = arrived.reduce((sum, packet) => sum + packet.length - 20, 0);
  assertEquals(bytes, BURST_CAPACITY * 1400);
  assertEquals(client.arena.free, free);
});

Deno.test("path size: SYNs in both directions say what fits, from the first on", () => {
  for (const searchUs of [45 * MS, 20 * SECOND]) {
    const { world, relay, client } = start(1400, { searchUs });
    const mss = sizeOf(client) - OVERHEAD - 40;
    assertEquals(mss === 1135, searchUs < SECOND);
    for (const [from, to, packet] of [[client, relay, up], [relay, client, down]] as const) {
      to.delivered.length = 0;
      from.send(syn(packet(48)));
      world.runFor(25 * MS);
      const [arrived] = to.delivered.filter((one) => one[9] === PROTOCOL_TCP);
      assert(mssOf(arrived) <= mss, `${mssOf(arrived)} > ${mss}`);
      assertGreater(mssOf(arrived), mss - 8);
      assert(hasSoundChecksum(arrived));
    }
  }
});

Deno.test("path size: so do SYNs that come compressed or in an initiation", () => {
  const world = new World(1);
  world.protocol = "oxtunnel";
  const privateKey = new Uint8Array(32).fill(7), lz4 = new PortableLz4();
  const relay = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1", lz4 });
  const client = world.client("198.51.100.7:5555", relay, { ipv4: CLIENT, privateKey, lz4 });
  client.send(up(100));
  world.runFor(20 * SECOND);
  // With data, as TCP Fast Open has it.
  const long = new Uint8Array(200);
  long.set(syn(up(48)));
  new DataView(long.buffer).setUint16(2, long.length);
  const before = client.metrics.get("packets_compressed");
  relay.delivered.length = 0;
  client.send(long);
  world.runFor(SECOND);
  assertEquals(client.metrics.get("packets_compressed"), before + 1);
  assertEquals(relay.delivered.map(mssOf), [sizeOf(client) - OVERHEAD - 40]);

  const upstream: Upstream = { publicKey: relay.publicKey, ticket: client.core.ticket };
  const again = new Host(
    world,
    "198.51.100.8:1234",
    { ipv4: CLIENT, privateKey },
    (all) => new Client(all, upstream),
  );
  again.core.connect("192.0.2.1", 4433, world.nowUs, true);
  relay.delivered.length = 0;
  again.send(syn(up(48)));
  again.tick();
  world.runFor(25 * MS);
  assertEquals(relay.delivered.map(mssOf), [1135], "in the initiation");
});

Deno.test("path size: a path that is narrow one way lowers the MSS that makes packets of that way", () => {
  for (const narrow of ["up", "down"]) {
    const { world, relay, client } = start(1500, { searchUs: 0 });
    world.tap = (from, _to, bytes) =>
      (from === client.endpoint) === (narrow === "up") && bytes.length + OUTER_HEADERS > 1400
        ? undefined
        : bytes;
    world.runFor(20 * SECOND);
    assertEquals(sizeOf(narrow === "up" ? relay : client), 1445);
    const mss = sizeOf(narrow === "up" ? client : relay) - OVERHEAD - 40;
    assert(mss < 1372 - OVERHEAD);
    // What one end says of itself is how large the other's packets are.
    const [from, to, packet] = narrow === "up" ? [relay, client, down] : [client, relay, up];
    to.delivered.length = 0;
    from.send(syn(packet(48)));
    world.runFor(100 * MS);
    assertEquals(to.delivered.map(mssOf), [mss]);
  }
});

Deno.test("path size: a path that shrinks under a transfer carries full packets again in a second, and one that grows is used", () => {
  const { world, relay, client, path } = start(1500);
  assertEquals(sizeOf(client), 1445);
  const sizes = { up: 1420, down: 1420 };
  const arrived = () =>
    [relay, client].map((host) => host.delivered.filter((one) => one.length > 1200).length);
  /** A transfer each way whose senders heed what they are told. */
  const transfer = (us: number) => {
    for (const untilUs = world.nowUs + us; world.nowUs < untilUs;) {
      for (const [host, key, packet] of [[client, "up", up], [relay, "down", down]] as const) {
        const from = host.delivered.length;
        host.send(withDf(packet(sizes[key])));
        host.send(packet(60));
        sizes[key] = toldMtu(host.delivered[from]) ?? sizes[key];
      }
      world.runFor(5 * MS);
    }
  };
  transfer(SECOND);
  path.mtu = 1400;
  transfer(1500 * MS);
  for (const host of [client, relay]) assert(sizeOf(host) <= 1372, `${sizeOf(host)}`);
  transfer(8 * SECOND);
  for (const host of [client, relay]) assert(sizeOf(host) > 1368, `${sizeOf(host)}`);
  const before = arrived();
  [sizes.up, sizes.down] = [client, relay].map((host) => sizeOf(host) - OVERHEAD);
  transfer(SECOND);
  assert(arrived().every((count, i) => count >= before[i] + 190), "full packets flow");
  path.mtu = 1500;
  for (let second = 0; second < 11 * 60; second++) {
    client.send(up(60));
    relay.send(down(60));
    world.runFor(SECOND);
  }
  assertEquals([sizeOf(client), sizeOf(relay)], [1445, 1445]);
});

Deno.test("path size: a black hole is noticed though nothing small is sent and nobody reports", () => {
  const { world, client, path } = start(1500);
  path.mtu = 1400;
  for (let i = 0; i < 60; i++) {
    client.send(withDf(up(1420)));
    world.runFor(50 * MS);
  }
  assert(sizeOf(client) < 1400 - 28, `${sizeOf(client)}`);
});

Deno.test("path size: random loss does not shrink it", () => {
  const { world, relay, client } = start(1500);
  world.channel = { ...world.channel, loss: 0.1 };
  for (let i = 0; i < 1000; i++) {
    client.send(withDf(up(1420)));
    relay.send(withDf(down(1420)));
    world.runFor(10 * MS);
    assertEquals([sizeOf(client), sizeOf(relay)], [1445, 1445]);
  }
});

Deno.test("path size: a path that does not take 1200 bytes is reported, and used again once it does", () => {
  const { world, relay, client, path } = start(1100);
  assert(sessionOf(client).size.isNarrow && sessionOf(relay).size.isNarrow);
  const kinds = [];
  for (let event = relay.core.pollEvent(); event; event = relay.core.pollEvent()) kinds.push(event.kind);
  assert(kinds.includes("narrow"), `${kinds}`);
  path.mtu = 1500;
  for (let i = 0; i < 400; i++) {
    client.send(up(100));
    relay.send(down(100));
    world.runFor(100 * MS);
  }
  assertEquals([sizeOf(client), sizeOf(relay)], [1445, 1445]);
  assert(!sessionOf(client).size.isNarrow);
});

Deno.test("path size: a pause of the network makes no path narrow and no datagram shorter, in the search and after it", () => {
  for (const beforeUs of [65 * MS, 20 * SECOND]) {
    const { world, relay, client } = start(1500, { searchUs: beforeUs });
    const { tap } = world;
    for (const lastsUs of [600 * MS, 1500 * MS, 4 * SECOND]) {
      world.tap = () => undefined;
      for (const untilUs = world.nowUs + lastsUs; world.nowUs < untilUs; world.runFor(20 * MS)) {
        for (let i = 0; i < 3; i++) client.send(up(1420));
        relay.send(down(1420));
      }
      world.tap = tap;
      for (let i = 0; i < 300; i++) {
        // What lasts longer ends the session, and another one searches.
        if (beforeUs > SECOND && lastsUs < 675 * MS) assertEquals(sizeOf(client), 1445);
        client.send(up(1420));
        relay.send(down(1420));
        world.runFor(20 * MS);
      }
      assertEquals([sizeOf(client), sizeOf(relay)], [1445, 1445]);
    }
    for (const host of [relay, client]) {
      for (let event = host.core.pollEvent(); event; event = host.core.pollEvent()) {
        assert(event.kind !== "narrow");
      }
    }
  }
});

Deno.test("path size: nor does it on an idle session, which searches on when it is used", () => {
  for (const lastsUs of [300 * MS, 500 * MS, 700 * MS, 2 * SECOND]) {
    const { world, relay, client } = start(1500, { searchUs: 45 * MS });
    const { tap } = world;
    world.tap = () => undefined;
    world.runFor(lastsUs);
    world.tap = tap;
    world.runFor(2 * SECOND);
    for (const host of [client, relay]) {
      const { bytes, isSettled, isNarrow } = sessionOf(host).size;
      assert(!isNarrow && (isSettled ? bytes === 1445 : bytes === 1200), `${bytes}`);
    }
    client.send(up(100));
    relay.send(down(100));
    world.runFor(SECOND);
    assertEquals([sizeOf(client), sizeOf(relay)], [1445, 1445]);
  }
});

Deno.test("path size: another network is another path, and is searched anew", () => {
  const { world, relay, client, path } = start(1500);
  path.mtu = 1400;
  client.endpoint = "203.0.113.9:9";
  client.core.moved();
  client.tick();
  assertEquals(sizeOf(client), 1200);
  for (let i = 0; i < 100; i++) {
    client.send(up(100));
    world.runFor(100 * MS);
  }
  for (const host of [client, relay]) assert(sizeOf(host) > 1368 && sizeOf(host) <= 1372, `${sizeOf(host)}`);
  dial(client, relay);
});

/** Sends the other end a datagram whose plaintext is written by `write`. */
function craft(from: Host, to: Host, write: (view: DataView, at: number) => number): void {
  to.receive(sealed(from, write), from.endpoint);
}

Deno.test("path size: a peer that lies in its replies changes nothing", () => {
  const { world, relay, client } = start(1400);
  const before = sizeOf(relay);
  for (const bytes of [0, 1, 1199, 1200, before, before + 1, 1373, 1445, 1446, 1936, 65535]) {
    craft(client, relay, (view, at) => writeShort(view, at, CONTROL_PROBE_REPLY, bytes));
    world.runFor(100 * MS);
    assertEquals(sizeOf(relay), before, `${bytes}`);
  }
});

Deno.test("path size: a probe is answered with the size that arrived, whatever it says", () => {
  const { world, relay, client } = start(1500);
  const { size } = sessionOf(client);
  const told: number[] = [];
  size.onReply = (bytes: number) => told.push(bytes);
  craft(client, relay, (view, at) => writeShort(view, at, CONTROL_PROBE, 1900));
  world.runFor(SECOND);
  assertEquals(told.length, 1);
  assert(told[0] < 40, `${told}`);
});

Deno.test("path size: so is one that comes behind a batch, in the same burst", () => {
  const { world, relay, client } = start(1500);
  const { size } = sessionOf(client);
  const told: number[] = [];
  size.onReply = (bytes: number) => told.push(bytes);
  const batch = sealed(client, (view, at) => {
    const packet = up(100), bytes = new Uint8Array(view.buffer);
    bytes.set(packet, writeFrameHead(view, at, FRAME_PACKET, packet.length));
    bytes.set(packet, at + FRAME_HEAD_BYTES + packet.length);
    return FRAME_HEAD_BYTES + 2 * packet.length;
  });
  const probe = sealed(client, (view, at) => {
    new Uint8Array(view.buffer).fill(0, at, at + 300);
    writeShort(view, at, CONTROL_PROBE, 300);
    return 300;
  });
  relay.receiveBurst([batch, probe], client.endpoint);
  world.runFor(SECOND);
  assertEquals(relay.delivered.length, 3);
  assertEquals(told, [probe.length]);
});

/** An IPv6 packet of `bytes` bytes, header included, with UDP. */
function upIpv6(bytes: number): Uint8Array {
  const segment = new Uint8Array(bytes - 40);
  for (let i = 8; i < segment.length; i++) segment[i] = 40 + i;
  return ipv6Packet("fd00::2", "2001:db8::1", segment);
}

for (const exitIsSource of [true, false]) {
  Deno.test(`path size: IPv6 packets of ${exitIsSource ? "this host" : "another host"} that do not fit`, () => {
    const world = new World(1);
    world.protocol = "oxtunnel";
    const path = { mtu: 1500 };
    world.tap = (_from, _to, bytes) => bytes.length + OUTER_HEADERS <= path.mtu ? bytes : undefined;
    const relay = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1", ipv6: "fd00::1", destinations: OPEN });
    const client = world.client("198.51.100.7:5555", relay, { ipv4: CLIENT, exitIsSource });
    relay.core.removePeer(client.publicKey);
    const allowedIps = [`${CLIENT}/32`, "fd00::2/128"];
    relay.core.addPeer({ name: "both", publicKey: client.publicKey, allowedIps });
    dial(client, relay);
    client.send(up(100));
    // While nothing is known, it goes in pieces that every path takes, or whole.
    world.runFor(45 * MS);
    assert(!sessionOf(client).size.isSettled);
    const arrived = (packet: Uint8Array) => {
      relay.delivered.length = client.delivered.length = 0;
      client.send(packet);
      world.runFor(100 * MS);
      const reassembly = new Reassembly();
      const pieces = relay.delivered.filter((one) => one[0] >> 4 === 6);
      const whole = pieces.length === 1 ? pieces[0] : pieces.map((one) => reassembly.add(one, 0)).at(-1);
      if (whole) assertEquals(whole, packet);
      return pieces.length;
    };
    assertEquals(arrived(upIpv6(1420)), exitIsSource ? 2 : 1);
    world.runFor(20 * SECOND);
    assertEquals(arrived(upIpv6(1420)), 1);
    path.mtu = 1340;
    client.core.moved();
    client.tick();
    world.runFor(20 * SECOND);
    assert(sizeOf(client) > 1300 && sizeOf(client) <= 1312, `${sizeOf(client)}`);
    assertEquals(arrived(upIpv6(1420)), exitIsSource ? 2 : 0);
    const [error] = client.delivered;
    // ICMPv6 2/0 names the size; who makes its own packets needs no such word.
    if (exitIsSource) assertEquals(error, undefined);
    else {
      const told = new DataView(error.buffer).getUint32(44);
      assertEquals([error[6], error[40], told], [58, 2, sizeOf(client) - OVERHEAD]);
    }
  });
}
