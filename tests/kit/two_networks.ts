/**
 * A game in both directions between a client with two networks and a relay, over a modelled path for each network. Invariant:
 * each packet is known again by its number, and one that comes twice throws.
 */
import { assertEquals } from "@std/assert";
import type { Client } from "../../src/client.ts";
import { CLASS_GAME } from "../../src/control/traffic_class.ts";
import type { Relay } from "../../src/relay.ts";
import type { TunnelOptions } from "../../src/tunnel_options.ts";
import type { PathModel } from "./channels.ts";
import { udpPacket } from "./packets.ts";
import { Random } from "./random.ts";
import { type Host, World } from "./world.ts";

const SECOND_US = 1_000_000;
/** Where the client is: on its first network, and on its second. */
export const FIRST = "198.51.100.7:5555", SECOND = "203.0.113.9:7777", RELAY = "192.0.2.1:4433";

/** A client of OxTunnel and its relay; SECOND is behind the client's door 1, which is not open yet. */
export function inTwoNetworks(
  seed: number,
  ofClient: Partial<TunnelOptions> = {},
  ofRelay: Partial<TunnelOptions> = {},
) {
  const world = new World(seed);
  world.protocol = "oxtunnel";
  const server = world.relay(RELAY, { ...ofRelay, ipv4: "10.66.0.1" });
  const client = world.client(FIRST, server, { ...ofClient, ipv4: "10.66.0.2" });
  client.doors.set(1, SECOND);
  return { world, client, server };
}

export interface PathsGame {
  seconds?: number;
  seed?: number;
  gapUs?: number;
  trafficClass?: number;
  /** What both ends are made with besides. */
  options?: Partial<TunnelOptions>;
  /** Whether the client uses its second network; true when absent. */
  hasSecond?: boolean;
  /** Classes whose packets are copied, by bit; the default when absent. */
  copied?: number;
  /** Called before packets go, and before each packet. */
  begin?: (world: World, client: Host<Client>, server: Host<Relay>) => void;
  onTick?: (nowUs: number, n: number) => void;
}

/** What came of one direction. */
export interface Way {
  sentUs: number[];
  cameUs: (number | undefined)[];
}

export interface PathsOutcome {
  up: Way;
  down: Way;
  world: World;
  client: Host<Client>;
  server: Host<Relay>;
}

/** @param first the paths of the first network, to the relay and back; @param second those of the other. */
export function playPaths(
  first: (random: Random) => PathModel,
  second: (random: Random) => PathModel,
  {
    seconds = 60,
    seed = 1,
    gapUs = 15_625,
    trafficClass = CLASS_GAME,
    options = {},
    hasSecond = true,
    copied,
    ...on
  }: PathsGame = {},
): PathsOutcome {
  const { world, client, server } = inTwoNetworks(seed, options, options);
  if (copied !== undefined) client.core.setCopied(copied);
  if (hasSecond) client.core.addDoor(1, false, world.nowUs);
  client.sendBurst([udpPacket("10.66.0.2", "8.8.8.8", new Uint8Array(4))], trafficClass);
  world.runFor(2 * SECOND_US);
  const ways = [first, first, second, second].map((make, i) => make(new Random(seed + 1000 * (i + 1))));
  world.pathOf = (from, to) => ways[from === FIRST ? 0 : to === FIRST ? 1 : from === SECOND ? 2 : 3];
  on.begin?.(world, client, server);
  const up = follow(server, world), down = follow(client, world);
  const startUs = world.nowUs;
  for (let n = 0; n * gapUs < seconds * SECOND_US; n++) {
    world.run(startUs + Math.round(n * gapUs));
    on.onTick?.(world.nowUs, n);
    const payload = new Uint8Array(100);
    new DataView(payload.buffer).setUint32(0, n);
    up.sentUs.push(world.nowUs);
    client.sendBurst([udpPacket("10.66.0.2", "8.8.8.8", payload)], trafficClass);
    down.sentUs.push(world.nowUs);
    server.sendBurst([udpPacket("8.8.8.8", "10.66.0.2", payload)], trafficClass);
  }
  world.runFor(2 * SECOND_US);
  return { up, down, world, client, server };
}

function follow(host: Host, world: World): Way {
  const way: Way = { sentUs: [], cameUs: [] };
  host.delivered.push = (packet) => {
    const n = new DataView(packet.buffer).getUint32(28);
    assertEquals(way.cameUs[n], undefined, `packet ${n} came twice`);
    return way.cameUs[n] = world.nowUs;
  };
  return way;
}

/** Share of packets that did not come within `limitUs` after they were sent. */
export function residual({ sentUs, cameUs }: Way, limitUs: number): number {
  return sentUs.filter((us, n) => !((cameUs[n] ?? Infinity) - us <= limitUs)).length / sentUs.length;
}

/** Packets that never came, and the longest time between two that did. */
export function gaps({ sentUs, cameUs }: Way): { lost: number; longestUs: number; p99Us: number } {
  const came = cameUs.filter((us) => us !== undefined).toSorted((a, b) => a - b);
  const all = came.slice(1).map((us, i) => us - came[i]).toSorted((a, b) => a - b);
  return {
    lost: sentUs.length - came.length,
    longestUs: all.at(-1) ?? Infinity,
    p99Us: all[Math.floor(0.99 * all.length)] ?? Infinity,
  };
}
