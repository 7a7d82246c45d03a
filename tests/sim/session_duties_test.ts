/**
 * What a session or a relay does that shows only after long or under load: who is held to rate_limit_per_ip and what a reload
 * changes of it, ECN marks that are reported, reports that have a path's size doubted, and the client that only receives
 * and renews its key in time. Each failure names its seed.
 */
import { assert, assertEquals, assertGreaterOrEqual, assertLess } from "@std/assert";
import { CookieJar } from "../../src/session/cookie.ts";
import { Burst, TO_PARSE } from "../../src/vector/burst.ts";
import { parseAddress } from "../../src/wire/address.ts";
import { Report } from "../../src/wire/report.ts";
import { INITIATION_MAC1_AT } from "../../src/wire/wireguard.ts";
import { sessionOf } from "../kit/inside.ts";
import { RawPeer } from "../kit/raw_peer.ts";
import { CLOSED, World } from "../kit/world.ts";
import { udpPacket } from "../kit/packets.ts";

const SECOND = 1_000_000, MS = 1000;
const SEED = Number(Deno.env.get("SIM_SEED") ?? 1);
const RELAY = "192.0.2.1:4433", HOME = "198.51.100.7:5555", IP = "10.66.0.2";
const up = (bytes = 40) => udpPacket(IP, "8.8.8.8", new Uint8Array(bytes - 28));
const down = (bytes = 40) => udpPacket("8.8.8.8", IP, new Uint8Array(bytes - 28));

Deno.test(`duties: a source that a cookie has proven starts rate_limit_per_ip handshakes a second, also after a reload (seed ${SEED})`, () => {
  const world = new World(SEED);
  const relay = world.relay(RELAY, { ipv4: "10.66.0.1", rateLimitPerIp: 3 });
  let initiation: Uint8Array | undefined, reply: Uint8Array | undefined;
  world.tap = (_from, to, bytes) => {
    if (bytes[0] === 1) initiation ??= bytes.slice();
    if (bytes[0] === 3 && to === "203.0.113.66:6666") reply = bytes.slice();
    return bytes;
  };
  world.client(HOME, relay, { ipv4: IP });
  world.runFor(SECOND);
  const jar = new CookieJar(relay.core.publicKey, 120 * SECOND);
  /** Handshake messages of the source beyond the limit, of ten while the relay is under load. */
  const refused = (): number => {
    for (let i = 0; i < 201; i++) relay.receive(initiation!, `203.0.113.1:${1000 + i}`);
    jar.sign(initiation!, INITIATION_MAC1_AT, world.nowUs);
    if (reply === undefined) {
      relay.receive(initiation!, "203.0.113.66:6666");
      assert(jar.accept(reply!, world.nowUs));
      jar.sign(initiation!, INITIATION_MAC1_AT, world.nowUs);
    }
    const before = relay.metrics.dropped("rate_limited");
    for (let i = 0; i < 10; i++) relay.receive(initiation!, "203.0.113.66:6666");
    return relay.metrics.dropped("rate_limited") - before;
  };
  assertEquals(refused(), 7);
  world.runFor(5 * SECOND);
  assertEquals(refused(), 7, "it has earned no more than its burst");
  const rules = { classes: { rules: [] }, destinations: CLOSED, compression: undefined };
  relay.core.tune({ ...rules, rateLimitPerIp: 5, maxConnections: 1100 });
  world.runFor(5 * SECOND);
  assertEquals(refused(), 5);
});

Deno.test(`duties: a reload's max_connections keeps new clients out and known ones in (seed ${SEED})`, () => {
  const world = new World(SEED);
  const relay = world.relay(RELAY, { ipv4: "10.66.0.1" });
  const known = world.client(HOME, relay, { ipv4: IP });
  known.send(up());
  world.runFor(SECOND);
  const rules = { classes: { rules: [] }, destinations: CLOSED, compression: undefined, rateLimitPerIp: 20 };
  relay.core.tune({ ...rules, maxConnections: 1 });
  const late = world.client("198.51.100.8:5555", relay, { ipv4: "10.66.0.3" });
  late.send(udpPacket("10.66.0.3", "8.8.8.8", new Uint8Array(12)));
  known.send(up());
  world.runFor(SECOND);
  assertEquals(relay.delivered.length, 2);
  assertGreaterOrEqual(relay.metrics.dropped("max_connections"), 1);
  relay.core.tune({ ...rules, maxConnections: 2 });
  world.runFor(30 * SECOND);
  assertEquals(relay.delivered.length, 3);
});

Deno.test(`duties: datagrams are counted by their ECN mark, and the other end is told (seed ${SEED})`, () => {
  const world = new World(SEED);
  world.protocol = "oxtunnel";
  const relay = world.relay(RELAY, { ipv4: "10.66.0.1" });
  const peer = new RawPeer(world, relay, HOME, IP);
  peer.connect();
  const marks = [0, 1, 2, 2, 3, 3, 3, 0];
  const burst = new Burst(relay.arena);
  for (const mark of marks) {
    const bytes = peer.seal(up());
    const row = burst.grow(bytes.length, TO_PARSE);
    burst.bytes.set(bytes, burst.offset[row]);
    burst.address.set(parseAddress("198.51.100.7")!, 4 * row);
    burst.port[row] = 5555;
    burst.ecn[row] = mark;
  }
  relay.core.ingest(burst, world.nowUs);
  burst.release();
  world.runFor(SECOND);
  const report = new Report();
  let counts: number[] | undefined;
  for (const { bytes } of peer.heard) {
    const plaintext = peer.open(bytes);
    if (plaintext === undefined || plaintext[2] !== 3) continue;
    report.read(new DataView(plaintext.buffer, plaintext.byteOffset), 2);
    if (report.hasEcn) counts = [report.ect1, report.ect0, report.congestionExperienced];
  }
  assertEquals(counts, [1, 2, 3]);
});

Deno.test(`duties: large datagrams that are reported lost have the path's size asked sooner than silence would (seed ${SEED})`, () => {
  const world = new World(SEED);
  world.protocol = "oxtunnel";
  let bytesMax = Infinity;
  world.tap = (_from, _to, bytes) => bytes.length <= bytesMax ? bytes : undefined;
  const relay = world.relay(RELAY, { ipv4: "10.66.0.1", mtu: 1420 });
  const client = world.client(HOME, relay, { ipv4: IP, mtu: 1420 });
  client.send(up());
  world.runFor(20 * SECOND);
  const probes = () => client.metrics.get("size_probes_sent"), before = probes();
  assertEquals(sessionOf(client).size.bytes, 1445);
  bytesMax = 1300;
  // One large packet each 300 ms among small ones, for less than the second after which silence is a doubt too.
  for (let i = 0; i < 18; i++) {
    client.send(up(i % 6 === 0 ? 1400 : 60));
    world.runFor(50 * MS);
  }
  assert(probes() > before, "two were reported lost");
});

Deno.test(`duties: a WireGuard client that has long been silent renews its key when something comes near its end (seed ${SEED})`, () => {
  const world = new World(SEED);
  const sent: number[] = [];
  const relay = world.relay(RELAY, { ipv4: "10.66.0.1" });
  const client = world.client(HOME, relay, { ipv4: IP });
  client.send(up());
  world.runFor(SECOND);
  world.tap = (from, _to, bytes) => {
    if (from === HOME && bytes[0] === 1) sent.push(world.nowUs);
    return bytes;
  };
  const bornUs = world.nowUs;
  world.runFor(160 * SECOND);
  assertEquals(sent, []);
  relay.send(down());
  world.runFor(SECOND);
  assertEquals(sent, [], "not yet: it is 161 s old");
  // Before its keepalive would go, which renews too.
  world.runFor(bornUs + 167 * SECOND - world.nowUs);
  relay.send(down());
  world.runFor(SECOND);
  assertEquals(sent.length, 1);
  assertLess(sent[0], bornUs + 168 * SECOND);
});
