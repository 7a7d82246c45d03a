/**
 * Hints between whole relays and clients (PROTOCOL §14): what a client wishes holds at the relay for its own packets, for
 * as long as it says, and for nobody else's; a peer that floods the relay with hints gets 64 of them.
 */
import { assert, assertEquals } from "@std/assert";
import type { Client } from "../../src/client.ts";
import {
  CLASS_BULK,
  CLASS_DEFAULT,
  CLASS_GAME,
  CLASS_INTERACTIVE,
  CLASS_VOICE,
} from "../../src/control/traffic_class.ts";
import type { Relay } from "../../src/relay.ts";
import { type HintedFlows, HINTS_MAX } from "../../src/session/oxtunnel/hints.ts";
import type { Tunnel } from "../../src/tunnel.ts";
import { Burst, TO_TRANSMIT, TO_TUNNEL } from "../../src/vector/burst.ts";
import { parseAddress } from "../../src/wire/address.ts";
import { Hint } from "../../src/wire/control.ts";
import { RawPeer } from "../kit/raw_peer.ts";
import { CLEAN, type Host, World } from "../kit/world.ts";
import { udpPacket } from "../kit/packets.ts";

const SECOND = 1_000_000;
const SEED = Number(Deno.env.get("SIM_SEED") ?? 1);
const ANY = new Uint32Array(4);

/** What the tests reach into: the class that a core gave a packet stands in its burst only. */
// deno-lint-ignore no-explicit-any
const inside = (host: Host<Tunnel>): any => host.core;

/** The class that the core gives to packets between these ends now. */
function classOf(
  host: Host<Tunnel>,
  from: string,
  to: string,
  ports: [number, number],
  protocol = 17,
): number {
  const { hints } = inside(host).associations.oxtunnel.sessions;
  const { peers } = inside(host);
  const id = peers.routes.lookup(parseAddress(to)!, 0);
  const ends = Uint32Array.of(...parseAddress(from)!, ...parseAddress(to)!);
  return hints.classOf(peers.current[id], protocol, (ports[0] << 16 | ports[1]) >>> 0, ends);
}

const NOTHING = 255;

interface Setup {
  world: World;
  server: Host<Relay>;
  client: Host<Client>;
  other: Host<Client>;
}

function setup(): Setup {
  const world = new World(SEED);
  world.protocol = "oxtunnel";
  const server = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1" });
  const client = world.client("198.51.100.7:5555", server, { ipv4: "10.66.0.2" });
  const other = world.client("198.51.100.8:5555", server, { ipv4: "10.66.0.3" });
  return { world, server, client, other };
}

function connect({ world, client, other }: Setup): void {
  client.send(udpPacket("10.66.0.2", "8.8.8.8", new Uint8Array(10)));
  other.send(udpPacket("10.66.0.3", "8.8.8.8", new Uint8Array(10)));
  world.runFor(2 * SECOND);
}

/** Wishes, and lets the core say so. */
function wish(client: Host<Client>, flows: HintedFlows, trafficClass: number | undefined): boolean {
  const isTaken = client.core.hint(flows, trafficClass);
  client.tick();
  return isTaken;
}

/** The class that a packet gets on its way out of the host's core. */
function classNow(host: Host<Tunnel>, from: string, to: string): number {
  const burst = new Burst(host.arena), packet = udpPacket(from, to, new Uint8Array(50));
  const row = burst.grow(packet.length, TO_TUNNEL);
  burst.bytes.set(packet, burst.offset[row]);
  host.core.ingestInner(burst, host.world.nowUs);
  assertEquals(burst.next[row], TO_TRANSMIT);
  const trafficClass = burst.trafficClass[row];
  burst.release();
  return trafficClass;
}

const game: HintedFlows = { protocol: 17, clientPort: 0, remotePort: 40123, client: ANY, remote: ANY };

Deno.test(`hints: a client's wish holds at both ends for its own packets alone (seed ${SEED})`, () => {
  const all = setup();
  const { world, server, client, other } = all;
  // Before there is a session, and while there is one.
  assert(wish(client, game, CLASS_GAME));
  connect(all);
  assert(wish(client, { ...game, remotePort: 0, remote: parseAddress("1.2.3.4")! }, CLASS_BULK));
  world.runFor(SECOND);
  assertEquals(classOf(client, "10.66.0.2", "8.8.8.8", [999, 40123]), CLASS_GAME);
  assertEquals(classOf(server, "8.8.8.8", "10.66.0.2", [40123, 999]), CLASS_GAME);
  assertEquals(classOf(server, "1.2.3.4", "10.66.0.2", [5, 6]), CLASS_BULK);
  assertEquals(classOf(server, "8.8.8.8", "10.66.0.2", [40124, 999]), NOTHING, "another port");
  assertEquals(classOf(server, "8.8.8.8", "10.66.0.2", [40123, 999], 6), NOTHING, "another protocol");
  assertEquals(classOf(server, "8.8.8.8", "10.66.0.3", [40123, 999]), NOTHING, "another client");
  assertEquals(classOf(other, "10.66.0.3", "8.8.8.8", [999, 40123]), NOTHING, "at another client");
  // A wish is changed and taken back.
  wish(client, game, CLASS_VOICE);
  world.runFor(SECOND);
  assertEquals(classOf(server, "8.8.8.8", "10.66.0.2", [40123, 999]), CLASS_VOICE);
  wish(client, game, undefined);
  world.runFor(SECOND);
  assertEquals(classOf(server, "8.8.8.8", "10.66.0.2", [40123, 999]), NOTHING);
  assertEquals(classOf(client, "10.66.0.2", "8.8.8.8", [999, 40123]), NOTHING);
});

Deno.test(`hints: the class of a flow that is under way follows, at both ends (seed ${SEED})`, () => {
  const all = setup();
  const { world, server, client } = all;
  connect(all);
  // Packets of udpPacket go from port 40000 to port 7777, which is known for games.
  const down = () => classNow(server, "8.8.8.8", "10.66.0.2");
  const up = () => classNow(client, "10.66.0.2", "8.8.8.8");
  assertEquals([up(), down()], [CLASS_GAME, CLASS_GAME]);
  const flows = { ...game, clientPort: 40000, remotePort: 7777 };
  const back = { ...game, clientPort: 7777, remotePort: 40000 };
  for (const one of [flows, back]) wish(client, one, CLASS_BULK);
  world.runFor(SECOND);
  assertEquals([up(), down()], [CLASS_BULK, CLASS_BULK]);
  assertEquals(classNow(server, "8.8.8.8", "10.66.0.3"), CLASS_GAME, "another client's");
  for (const one of [flows, back]) wish(client, one, undefined);
  world.runFor(SECOND);
  assertEquals([up(), down()], [CLASS_GAME, CLASS_GAME]);
});

Deno.test(`hints: a new session is told them again, and through loss (seed ${SEED})`, () => {
  const all = setup();
  const { world, server, client } = all;
  connect(all);
  world.channel = { ...CLEAN, loss: 0.3 };
  for (let i = 0; i < HINTS_MAX; i++) assert(wish(client, { ...game, remotePort: 1 + i }, CLASS_GAME));
  assert(!wish(client, { ...game, remotePort: 99 }, CLASS_GAME), "one too many");
  world.runFor(60 * SECOND);
  for (let i = 0; i < HINTS_MAX; i++) {
    assertEquals(classOf(server, "8.8.8.8", "10.66.0.2", [1 + i, 9]), CLASS_GAME, `${i}`);
  }
  world.channel = CLEAN;
  inside(client).associations.outbox.initiate(0);
  client.tick();
  world.runFor(SECOND);
  client.send(udpPacket("10.66.0.2", "8.8.8.8", new Uint8Array(10)));
  world.runFor(20 * SECOND);
  assertEquals(client.metrics.get("handshakes_completed"), 2);
  assertEquals(classOf(server, "8.8.8.8", "10.66.0.2", [HINTS_MAX, 9]), CLASS_GAME);
});

Deno.test(`hints: what a peer says is bounded, ends in time and names nobody else's packets (PROTOCOL R56, seed ${SEED})`, () => {
  const all = setup();
  const { world, server } = all;
  connect(all);
  const peer = new RawPeer(world, server, "198.51.100.9:9", "10.66.0.9");
  peer.connect();
  peer.send(udpPacket("10.66.0.9", "8.8.8.8", new Uint8Array(10)));
  const hint = new Hint();
  const say = (change: Partial<Hint>) => {
    Object.assign(hint, change);
    const bytes = new Uint8Array(60);
    const length = hint.write(new DataView(bytes.buffer), 0);
    peer.send(bytes.slice(0, length));
    hint.sequence++;
  };
  hint.client.set(parseAddress("10.66.0.2")!);
  hint.remote.set(parseAddress("0.0.0.0")!);
  say({ trafficClass: CLASS_BULK, protocol: 0, lifetimeS: 5, clientPort: 0, remotePort: 0 });
  assertEquals(classOf(server, "8.8.8.8", "10.66.0.2", [1, 2]), NOTHING, "another client's address");
  hint.client.set(parseAddress("0.0.0.0")!);
  say({ trafficClass: CLASS_BULK });
  assertEquals(classOf(server, "8.8.8.8", "10.66.0.2", [1, 2]), NOTHING);
  assertEquals(classOf(server, "8.8.8.8", "10.66.0.9", [1, 2]), CLASS_BULK, "its own");
  world.runFor(7 * SECOND);
  server.send(udpPacket("8.8.8.8", "10.66.0.9", new Uint8Array(10)));
  assertEquals(classOf(server, "8.8.8.8", "10.66.0.9", [1, 2]), NOTHING, "its time is over");
  for (let port = 1; port <= 200; port++) {
    say({ trafficClass: port === 1 ? 77 : CLASS_INTERACTIVE, remotePort: port, lifetimeS: 65535 });
  }
  const answered = (port: number) => classOf(server, "8.8.8.8", "10.66.0.9", [port, 2]);
  assertEquals(answered(1), CLASS_DEFAULT, "a class that nobody knows");
  assertEquals(answered(HINTS_MAX), CLASS_INTERACTIVE);
  assertEquals(answered(HINTS_MAX + 1), NOTHING, "no more are kept");
  // With one taken back there is room for another.
  say({ remotePort: 5, lifetimeS: 0 });
  say({ remotePort: 150, lifetimeS: 60 });
  assertEquals([answered(5), answered(150)], [NOTHING, CLASS_INTERACTIVE]);
  // Its session ends, and with it what it said.
  server.core.removePeer(peer.publicKey);
  assertEquals([...inside(server).associations.oxtunnel.sessions.hints.version].filter((one) => one > 0), []);
});
