/**
 * What an attacker or a lying peer tries against a whole relay in the deterministic world, one attempt a test.
 * Invariant under test: nothing unauthenticated changes state, and no peer takes what belongs to others.
 */
import { assert, assertEquals, assertGreater, assertLessOrEqual } from "@std/assert";
import { hash, mac } from "../../src/codec/hash.ts";
import { nodeCrypto } from "../../src/codec/node_crypto.ts";
import { parseAddress } from "../../src/wire/address.ts";
import { Burst, TO_EXIT, TO_PARSE } from "../../src/vector/burst.ts";
import { writeDataHeader } from "../../src/wire/wireguard.ts";
import { CLOSED, World } from "../kit/world.ts";
import { udpPacket } from "../kit/packets.ts";

const SECOND = 1_000_000;
const SEED = Number(Deno.env.get("SIM_SEED") ?? 1);
const PHONE = { ipv4: "10.66.0.2" };

/** One datagram of a burst and where it claims to come from. */
interface Arrival {
  bytes: Uint8Array;
  address: string;
  port: number;
}

function burstOf(host: { arena: ConstructorParameters<typeof Burst>[0] }, arrivals: Arrival[]): Burst {
  const burst = new Burst(host.arena);
  for (const { bytes, address, port } of arrivals) {
    const row = burst.grow(bytes.length, TO_PARSE);
    burst.bytes.set(bytes, burst.offset[row]);
    burst.address.set(parseAddress(address)!, 4 * row);
    burst.port[row] = port;
  }
  return burst;
}

Deno.test(`adversary: data under the zero key, beside the handshake that wipes its session, is forged (seed ${SEED})`, () => {
  const world = new World(SEED);
  const server = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1" });
  const initiations: Uint8Array[] = [];
  let receiverIndex = 0;
  world.tap = (_from, _to, bytes) => {
    if (bytes[0] === 1) {
      initiations.push(bytes.slice());
      return initiations.length === 1 ? bytes : undefined;
    }
    if (bytes[0] !== 2) return bytes;
    receiverIndex = new DataView(bytes.buffer, bytes.byteOffset).getUint32(4, true);
    return undefined;
  };
  world.client("198.51.100.7:5555", server, PHONE);
  world.runFor(6 * SECOND);
  assertEquals(initiations.length, 2);
  const packet = udpPacket("10.66.0.2", "8.8.8.8", new Uint8Array(20));
  const forged = new Uint8Array(16 + packet.length + 16);
  writeDataHeader(new DataView(forged.buffer), 0, receiverIndex, 0);
  forged.set(nodeCrypto.seal(new Uint8Array(32), 0, packet, new Uint8Array(0)), 16);
  const burst = burstOf(server, [
    { bytes: initiations[1], address: "198.51.100.7", port: 5555 },
    { bytes: forged, address: "203.0.113.66", port: 6666 },
  ]);
  server.core.ingest(burst, world.nowUs);
  assert(burst.next[1] !== TO_EXIT);
  assertEquals(server.metrics.dropped("forged"), 1);
  assertEquals(server.core.peerSnapshots(world.nowUs)[0].endpoint, "198.51.100.7:5555");
});

Deno.test(`adversary: a changed record does not make an old initiation new, nor does a rename (seed ${SEED})`, () => {
  const world = new World(SEED);
  const server = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1" });
  let initiation: Uint8Array | undefined;
  world.tap = (_from, _to, bytes) => {
    if (bytes[0] === 1) initiation ??= bytes.slice();
    return bytes;
  };
  const client = world.client("198.51.100.7:5555", server, PHONE);
  client.send(udpPacket("10.66.0.2", "8.8.8.8", new Uint8Array(4)));
  world.runFor(SECOND);
  const record = { name: "renamed", publicKey: client.publicKey, allowedIps: ["10.66.0.2/32"], created: "" };
  assertEquals(server.core.replacePeers([record]), { added: [], removed: [], failed: [] });
  server.receive(initiation!, "203.0.113.66:6666");
  assertEquals(server.metrics.dropped("handshake_replay"), 1);
  const [renamed] = server.core.peerSnapshots(world.nowUs);
  assertEquals([renamed.name, renamed.connected, renamed.endpoint], ["renamed", true, "198.51.100.7:5555"]);

  const changed = { ...record, allowedIps: ["10.66.0.2/32", "10.66.0.3/32"] };
  assertEquals(server.core.replacePeers([changed]).added, ["renamed"]);
  server.receive(initiation!, "203.0.113.66:6666");
  assertEquals(server.metrics.dropped("handshake_replay"), 2);
  assertEquals(server.core.peerSnapshots(world.nowUs)[0].connected, false);
});

Deno.test(`adversary: an initiation that is older than the last one is no new one (seed ${SEED})`, () => {
  const world = new World(SEED);
  const server = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1" });
  const initiations: Uint8Array[] = [];
  world.tap = (_from, _to, bytes) => {
    if (bytes[0] !== 1) return bytes;
    initiations.push(bytes.slice());
    return undefined;
  };
  world.client("198.51.100.7:5555", server, PHONE);
  world.runFor(12 * SECOND);
  assertGreater(initiations.length, 1);
  const [old, ...newer] = initiations;
  server.receive(newer.at(-1)!, "198.51.100.7:5555");
  world.runFor(SECOND);
  server.receive(old, "203.0.113.66:6666");
  assertEquals(server.metrics.dropped("handshake_replay"), 1);
});

Deno.test(`adversary: packets for absent peers leave the arena to the living (seed ${SEED})`, () => {
  const world = new World(SEED);
  const server = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1" });
  const absent = Array.from({ length: 40 }, (_, i) =>
    world.client(`198.51.100.${i + 10}:5000`, server, {
      ipv4: `10.66.1.${i + 1}`,
    }));
  for (const [i, host] of absent.entries()) {
    host.send(udpPacket(`10.66.1.${i + 1}`, "8.8.8.8", new Uint8Array(4)));
  }
  world.runFor(SECOND);
  world.tap = (_from, to, bytes) => absent.some((host) => host.endpoint === to) ? undefined : bytes;
  world.runFor(200 * SECOND);
  for (let n = 0; n < 64; n++) {
    for (let i = 0; i < absent.length; i++) {
      server.send(udpPacket("8.8.8.8", `10.66.1.${i + 1}`, new Uint8Array(50)));
    }
  }
  assertLessOrEqual(1024 - server.arena.free, 256);
  const lost = () => server.metrics.dropped("queue_full") + server.metrics.dropped("unanswered");
  assertEquals(lost() + (1024 - server.arena.free), 64 * absent.length);
  world.runFor(200 * SECOND);
  assertEquals(lost(), 64 * absent.length, "what is given up is counted");
  assertEquals(server.arena.free, 1024);
});

Deno.test(`adversary: forged responses are load like forged initiations (seed ${SEED})`, () => {
  const world = new World(SEED);
  world.limits = { ...world.limits, initiationsPerSecond: 50 };
  const server = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1" });
  let response: Uint8Array | undefined;
  world.tap = (from, _to, bytes) => {
    if (bytes[0] !== 2 || from !== server.endpoint) return bytes;
    response = bytes.slice();
    return undefined;
  };
  const client = world.client("198.51.100.7:5555", server, PHONE);
  world.runFor(SECOND);
  assert(response);
  const label = new TextEncoder().encode("mac1----");
  const key = hash(label, Uint8Array.from(atob(client.publicKey), (character) => character.charCodeAt(0)));
  for (let i = 0; i < 200; i++) {
    const forged = response.slice();
    forged[20] ^= i + 1; // another ephemeral key, under a sound MAC1
    forged.set(mac(key, forged.subarray(0, 60)), 60);
    client.receive(forged, "192.0.2.1:4433");
  }
  assertEquals(client.metrics.dropped("handshake_failed"), 50);
  assertEquals(client.metrics.get("cookie_replies_sent"), 150);
});

Deno.test(`adversary: a flood of handshakes holds data up for a bounded number of them only (seed ${SEED})`, () => {
  const world = new World(SEED);
  const server = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1" });
  let initiation: Uint8Array | undefined;
  world.tap = (_from, _to, bytes) => {
    if (bytes[0] === 1) initiation ??= bytes.slice();
    return bytes;
  };
  world.client("198.51.100.7:5555", server, PHONE);
  world.runFor(SECOND);
  const flood = Array.from(
    { length: 256 },
    () => ({ bytes: initiation!, address: "203.0.113.66", port: 6666 }),
  );
  const burst = burstOf(server, flood);
  server.core.ingest(burst, world.nowUs);
  burst.release();
  assertEquals(server.metrics.dropped("handshake_flood"), 192);
});

Deno.test(`adversary: handshake messages made for another key take no place of a client's (seed ${SEED}, PROTOCOL R21)`, () => {
  for (const protocol of ["wireguard", "oxtunnel"] as const) {
    const world = new World(SEED);
    world.protocol = protocol;
    const server = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1" });
    let initiation: Uint8Array | undefined;
    world.tap = (_from, _to, bytes) => void (initiation ??= bytes.slice());
    world.client("198.51.100.7:5555", server, PHONE).send(
      udpPacket("10.66.0.2", "8.8.8.8", new Uint8Array(4)),
    );
    world.runFor(SECOND);
    const junk = initiation!.with(-20, initiation!.at(-20)! ^ 1); // in its MAC1
    const flood = Array.from({ length: 255 }, () => ({ bytes: junk, address: "203.0.113.66", port: 6666 }));
    const burst = burstOf(server, [...flood, { bytes: initiation!, address: "198.51.100.7", port: 5555 }]);
    server.core.ingest(burst, world.nowUs);
    burst.release();
    assertEquals(server.metrics.dropped("bad_mac1"), 255);
    assertEquals(server.metrics.get("handshake_responses"), 1);
  }
});

Deno.test(`adversary: IPv6 packets from a mapped address, and packets out of hops, go nowhere (seed ${SEED})`, () => {
  const world = new World(SEED);
  const server = world.relay("192.0.2.1:4433", {
    ipv4: "10.66.0.1",
    destinations: { ...CLOSED, allowPeers: true },
  });
  const first = world.client("198.51.100.7:5555", server, PHONE);
  const second = world.client("198.51.100.8:5555", server, { ipv4: "10.66.0.3" });
  for (const [host, ip] of [[first, "10.66.0.2"], [second, "10.66.0.3"]] as const) {
    host.send(udpPacket(ip, "8.8.8.8", new Uint8Array(4)));
  }
  world.runFor(SECOND);
  server.delivered.length = 0;
  const disguised = new Uint8Array(48);
  disguised.set([0x60, 0, 0, 0, 0, 8, 17, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 66, 0, 2]);
  disguised.set([0x20, 1, 0x48, 0x60], 24);
  first.send(disguised);
  world.runFor(SECOND);
  assertEquals([server.delivered.length, server.metrics.dropped("spoofed_inner")], [0, 1]);

  for (const hops of [1, 2]) {
    const packet = udpPacket("10.66.0.2", "10.66.0.3", new Uint8Array(4));
    const sum = (packet[10] << 8 | packet[11]) + ((packet[8] - hops) << 8);
    packet[8] = hops;
    const folded = (sum & 0xffff) + (sum >> 16);
    packet.set([folded >> 8, folded & 255], 10);
    first.send(packet);
  }
  world.runFor(SECOND);
  assertEquals(second.delivered.map((packet) => packet[8]), [1]);
  const [told] = first.delivered;
  assertEquals([told[9], told[20], told[21]], [1, 11, 0]);
  assertEquals(server.metrics.dropped("hop_limit"), 1);
});

Deno.test(`adversary: what is denied is counted once, whether or not an error may be sent (seed ${SEED})`, () => {
  const world = new World(SEED);
  const server = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1" });
  const client = world.client("198.51.100.7:5555", server, PHONE);
  for (const target of ["224.0.0.251", "192.168.1.1"]) {
    client.send(udpPacket("10.66.0.2", target, new Uint8Array(4)));
  }
  world.runFor(SECOND);
  assertEquals(server.metrics.dropped("denied"), 2);
});

Deno.test(`events and round trips: nobody inherits another's, and a lost confirmation is no distance (seed ${SEED})`, () => {
  const world = new World(SEED);
  const server = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1" });
  let confirmations = 0;
  world.tap = (_from, _to, bytes) => bytes[0] === 4 && confirmations++ === 0 ? undefined : bytes;
  const client = world.client("198.51.100.7:5555", server, PHONE);
  world.runFor(SECOND);
  client.send(udpPacket("10.66.0.2", "8.8.8.8", new Uint8Array(4)));
  world.runFor(SECOND);
  assertGreater(confirmations, 1);
  assertEquals(server.core.peerSnapshots(world.nowUs)[0].rttMs, undefined);
  const newcomer = world.client("198.51.100.9:5555", server, { ipv4: "10.66.0.9" });
  const keep = { name: "newcomer", publicKey: newcomer.publicKey, allowedIps: ["10.66.0.9/32"], created: "" };
  server.core.replacePeers([]);
  server.core.replacePeers([keep]);
  assertEquals(server.core.pollEvent(), undefined);
});
