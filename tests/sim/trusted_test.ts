/**
 * Trusted links in the deterministic world (PROTOCOL §18): a session goes without encryption where both ends' settings list
 * the address, and nowhere else. Held: what is readable is authenticated still, one end alone cannot bring it about, and
 * a session that is readable is never continued to or from an address that is not listed. Failures name their seed.
 */
import { assert, assertEquals, assertGreater } from "@std/assert";
import { RawPeer } from "../kit/raw_peer.ts";
import { dial, World } from "../kit/world.ts";
import { udpPacket } from "../kit/packets.ts";

const SECOND = 1_000_000;
const SEED = Number(Deno.env.get("SIM_SEED") ?? 1);
const RELAY = "192.0.2.1:4433", HOME = "198.51.100.7:5555", AWAY = "203.0.113.9:7777";
/** Where both hosts are. */
const NEAR = ["192.0.2.0/24", "198.51.100.0/24"];
const MARK = "what anyone on the way may read";

const up = (n: number) =>
  udpPacket("10.66.0.2", "8.8.8.8", Uint8Array.of(n, ...new TextEncoder().encode(MARK)));
const down = (n: number) =>
  udpPacket("8.8.8.8", "10.66.0.2", Uint8Array.of(n, ...new TextEncoder().encode(MARK)));
const isReadable = (bytes: Uint8Array) => new TextDecoder("latin1").decode(bytes).includes(MARK);

function setting(ofRelay: string[] | undefined, ofClient: string[] | undefined) {
  const world = new World(SEED);
  world.protocol = "oxtunnel";
  /** Datagrams whose packet can be read, with where they came from and went to. */
  const readable: { from: string; to: string }[] = [];
  world.tap = (from, to, bytes) => {
    if (isReadable(bytes)) readable.push({ from, to });
    return bytes;
  };
  const relay = world.relay(RELAY, { ipv4: "10.66.0.1", trusted: ofRelay });
  const client = world.client(HOME, relay, { ipv4: "10.66.0.2", trusted: ofClient });
  client.send(up(1));
  world.runFor(2 * SECOND);
  relay.send(down(2));
  world.runFor(SECOND);
  assertEquals([relay.delivered.length, client.delivered.length], [1, 1]);
  const aead = () => {
    const ends = [relay, client].map(({ core }) => core.peerSnapshots(world.nowUs)[0]);
    assertEquals(ends[0].aead, ends[1].aead);
    assertEquals(ends.map(({ protocol }) => protocol), ["oxtunnel", "oxtunnel"]);
    return ends[0].aead;
  };
  return { world, relay, client, readable, aead };
}

Deno.test(`trusted: packets go readable where both ends list the other's address, and only there (seed ${SEED})`, () => {
  for (
    const [ofRelay, ofClient, isPlain] of [
      [NEAR, NEAR, true],
      [["198.51.100.7/32"], ["192.0.2.1/32"], true],
      [undefined, undefined, false],
      [NEAR, undefined, false],
      [undefined, NEAR, false],
      // Each names an address that is not the other's.
      [["192.0.2.0/24"], NEAR, false],
      [NEAR, ["198.51.100.0/24"], false],
    ] as const
  ) {
    const { readable, aead } = setting(ofRelay && [...ofRelay], ofClient && [...ofClient]);
    assertEquals(aead(), isPlain ? "AES-256-GMAC" : "ChaCha20-Poly1305");
    assertEquals(readable.length, isPlain ? 2 : 0, `${ofRelay} ${ofClient}`);
  }
});

Deno.test(`trusted: what is readable is authenticated all the same, and no ticket is said (seed ${SEED})`, () => {
  const { world, relay, client, readable } = setting(NEAR, NEAR);
  assertEquals(client.core.ticket, undefined);
  const tap = world.tap!;
  world.tap = (from, to, bytes) => {
    if (isReadable(bytes)) bytes[bytes.length - 20] ^= 1;
    return tap(from, to, bytes);
  };
  client.send(up(3));
  world.runFor(100_000);
  assertEquals([relay.metrics.dropped("forged"), relay.delivered.length], [1, 1]);
  world.tap = tap;
  // Through epochs too.
  for (let i = 0; i < 30; i++) {
    client.send(up(4));
    world.runFor(10 * SECOND);
  }
  assertGreater(relay.metrics.get("epochs_made"), 2);
  assertEquals([relay.delivered.length, client.core.ticket], [31, undefined]);
  assertEquals(readable.length, 2 + 30);
});

Deno.test(`trusted: a peer alone cannot choose it (seed ${SEED})`, () => {
  const world = new World(SEED);
  const relay = world.relay(RELAY, { ipv4: "10.66.0.1", aeads: [2, 1] });
  const peer = new RawPeer(world, relay, HOME, "10.66.0.2");
  peer.connect({ features: 0, aeads: [3, 1] });
  assertEquals(peer.told.aeads, [1]);
  world.runFor(SECOND);
  peer.connect({ features: 0, aeads: [3] });
  assertEquals(peer.told.refused?.reason, 3);
});

Deno.test(`trusted: from another address it is not continued, and the next session is encrypted (seed ${SEED})`, () => {
  const { world, relay, client, readable, aead } = setting(NEAR, NEAR);
  const before = client.delivered.length;
  world.runFor(10 * SECOND);
  readable.length = 0;
  // A NAT on the way has changed its mind; the client does not know.
  client.endpoint = AWAY;
  for (let i = 0; i < 40; i++) {
    client.send(up(5));
    relay.send(down(6));
    world.runFor(50_000);
  }
  assertGreater(relay.metrics.dropped("untrusted"), 0);
  assertEquals(readable.filter(({ to }) => to === AWAY), [], "nothing goes there readable");
  assertEquals(aead(), "ChaCha20-Poly1305");
  assert(client.delivered.length > before && relay.delivered.length > 1, "and data goes on");
  // The old session lives for a while, and is silent there.
  // deno-lint-ignore no-explicit-any
  const { peers, associations } = relay.core as any;
  const carried = world.carried;
  associations.oxtunnel.sessions.ping(peers.previous[0]);
  relay.tick();
  assertEquals(world.carried, carried);
  readable.length = 0;
  client.send(up(7));
  world.runFor(SECOND);
  assertEquals(readable, []);
});

Deno.test(`trusted: a client that knows of its move says nothing more under those keys (seed ${SEED})`, () => {
  for (const how of ["moved", "connect"] as const) {
    const { world, relay, client, readable, aead } = setting(NEAR, NEAR);
    world.runFor(10 * SECOND);
    readable.length = 0;
    client.endpoint = AWAY;
    if (how === "moved") client.core.moved();
    else dial(client, relay);
    client.send(up(5));
    client.tick();
    world.runFor(2 * SECOND);
    assertEquals(readable, [], how);
    assertEquals([relay.delivered.length, aead()], [2, "ChaCha20-Poly1305"]);
    // Home again, and by its own wish.
    client.endpoint = HOME;
    world.runFor(10 * SECOND);
    client.core.connect("192.0.2.1", 4433, world.nowUs);
    client.send(up(6));
    world.runFor(2 * SECOND);
    assertEquals([relay.delivered.length, aead()], [3, "AES-256-GMAC"]);
  }
});

Deno.test(`trusted: another way to the relay that is not listed is not asked under those keys (seed ${SEED})`, () => {
  const { world, relay, client, aead } = setting(NEAR, NEAR);
  const kinds: number[] = [];
  world.tap = (_from, to, bytes) => {
    if (to === AWAY) kinds.push(bytes[0] & 0xc0);
    return bytes;
  };
  relay.endpoint = AWAY;
  client.core.reach("203.0.113.9", 7777, world.nowUs);
  client.send(up(5));
  client.tick();
  assertEquals(kinds, [0xc0], "a handshake and no data");
  world.runFor(2 * SECOND);
  assertEquals([relay.delivered.length, aead()], [2, "ChaCha20-Poly1305"]);
});

Deno.test(`trusted: the session before does not lead it away when its challenge is answered late (seed ${SEED})`, () => {
  const ELSEWHERE = "203.0.113.9:8888";
  const world = new World(SEED);
  world.protocol = "oxtunnel";
  const relay = world.relay(RELAY, { ipv4: "10.66.0.1", trusted: NEAR });
  const client = world.client(AWAY, relay, { ipv4: "10.66.0.2", trusted: NEAR });
  client.send(up(1));
  world.runFor(10 * SECOND);
  // It moves, unknowing, and its answer to the relay's challenge is on its way for long.
  const late: Uint8Array[] = [], readable: string[] = [];
  world.tap = (from, to, bytes) => {
    if (isReadable(bytes)) readable.push(to);
    if (from !== ELSEWHERE || world.nowUs === movedUs) return bytes;
    late.push(bytes.slice());
    return undefined;
  };
  const movedUs = world.nowUs;
  client.endpoint = ELSEWHERE;
  client.send(up(2));
  world.runFor(50_000);
  assertGreater(late.length, 0);
  client.endpoint = HOME;
  dial(client, relay);
  world.runFor(200_000);
  client.send(up(3));
  world.runFor(200_000);
  assertEquals(readable, [RELAY]);
  for (const bytes of late) relay.receive(bytes, ELSEWHERE);
  relay.send(down(4));
  world.runFor(SECOND);
  assertEquals(readable, [RELAY, HOME]);
});
