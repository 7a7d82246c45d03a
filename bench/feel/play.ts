/**
 * Plays a workload through a whole client and relay in the deterministic world, both ways over modelled paths. Invariant: the same
 * run gives the same outcome, and runs that differ in their scheme alone meet paths of the same seed. Judges nothing.
 */
import { loadNative } from "../../ffi/native.ts";
import { suiteOf } from "../../src/codec/suite.ts";
import { CLASS_BULK } from "../../src/control/traffic_class.ts";
import { DROP } from "../../src/metrics.ts";
import type { RepairOptions } from "../../src/repair/options.ts";
import { CHANNELS, type PathModel, Walk } from "../../tests/kit/channels.ts";
import { type Host, World } from "../../tests/kit/world.ts";
import { Random } from "../../tests/kit/random.ts";
import { udpPacket } from "../../tests/kit/packets.ts";
import { Bulk } from "./bulk.ts";
import { packetsOf, type Workload, WORKLOADS } from "../../tests/kit/workloads.ts";

/** How an end repairs. */
export interface Scheme {
  label: string;
  /** RepairOptions.scheme; "none" is an end without repair. */
  code: "none" | "auto" | "copy" | "spaced" | "window" | "block";
  /** The most bytes of repair for each byte protected, 0 to 1; without adaptation all that is sent. */
  budget: number;
  /** Sends the whole budget at all times. */
  isFixed?: boolean;
  isTrafficAware?: boolean;
  isProactive?: boolean;
  /** Asks for lost packets. */
  isAsking?: boolean;
  /** Leaves out headers that both ends know. */
  hasShortPackets?: boolean;
}

export const NONE: Scheme = { label: "none", code: "none", budget: 0 };

export interface Run {
  workload: Workload;
  /** Makes one direction of the path. */
  makePath: (random: Random) => PathModel;
  scheme: Scheme;
  seconds: number;
  seed: number;
  hasBulk?: boolean;
}

/** One direction of an outcome; times in microseconds. */
export interface Flow {
  sentUs: Float64Array;
  /** Infinity where it never came. */
  arrivedUs: Float64Array;
  /** All bytes of datagrams that left, UDP and IP counted, in each second. */
  bytesPerSecond: number[];
  /** Of these, what the bulk packets are by themselves. */
  bulkBytes: number;
}

export interface Outcome {
  up: Flow;
  down: Flow;
  /** What of the transfer arrived, Mbit/s. */
  bulkMbitPerS: number;
}

const CLIENT = "10.66.0.2", REMOTE = "8.8.8.8";
const RELAY_ENDPOINT = "192.0.2.1:4433", CLIENT_ENDPOINT = "198.51.100.7:5555";
const UDP_AND_IP_BYTES = 28, CONTEXTS = 64;
/** Until the handshake is done and the size of the path is known; what is under way at the end still arrives. */
const READY_US = 4_000_000, LINGER_US = 2_000_000;
const BULK_TURN_US = 1000;
/** When a run's packets begin: the world's clock starts at a second. */
export const START_US = 1_000_000 + READY_US;
/** The port that `marked` packets come from, without their class. */
const MARKED_PORT = 41_000;

/** Each leg of a walk, seconds; it goes through all channels in the order of their table. */
export const LEG_SECONDS = 20;

/** A path that goes through all channels, one after the other, round and round. */
export function walk(
  random: Random,
  channels: Record<string, (random: Random) => PathModel> = CHANNELS,
): PathModel {
  const legs = Object.values(channels).map((make) => ({
    path: make(random.fork()),
    forUs: LEG_SECONDS * 1e6,
  }));
  return new Walk(legs);
}

/** The native kernels where they run here: what they compute is the same, in half of the time. */
const native = loadNative();
const suite = suiteOf(native, { forged: DROP.forged });
const KERNELS = typeof native === "string" ? {} : { makeDatagramAead: suite.crypto.makeDatagramAead };
const shards = suite.makeShards();

function repairOf(
  { code, budget, isFixed, isTrafficAware, isProactive, isAsking }: Scheme,
): RepairOptions | undefined {
  if (code === "none") return undefined;
  const options = {
    kernel: shards,
    gameDeadlineUs: WORKLOADS.game64.deadlineUs,
    voiceDeadlineUs: WORKLOADS.opus.deadlineUs,
    budget,
    scheme: code,
    share: isFixed ? budget : undefined,
    isTrafficAware: isTrafficAware ?? true,
    isProactive: isProactive ?? true,
    predictor: "default",
    isAsking: isAsking ?? false,
    target: 0.001,
  };
  return options as RepairOptions;
}

/** The randomness of a run's parts: the paths' do not depend on the workload or the scheme. */
function randomOf(seed: number) {
  const random = new Random(seed);
  return { up: random.fork(), down: random.fork(), packets: random.fork() };
}

/** The packets of both directions, and when they are sent: the relay's half a gap after the client's. */
export function packetsOfRun({ workload, seconds, seed }: Run) {
  const { packets } = randomOf(seed);
  const up = packetsOf(workload.up, seconds, packets), down = packetsOf(workload.down, seconds, packets);
  const lateUs = 0.5e6 / workload.down.packetsPerSecond;
  for (const stream of [up, down]) {
    for (let n = 0; n < stream.sentUs.length; n++) {
      stream.sentUs[n] += START_US + (stream === up ? 0 : lateUs);
    }
  }
  return { up, down };
}

/** Both directions of the path, from `START_US` on. */
export function pathsOfRun({ makePath, seed }: Run): { up: PathModel; down: PathModel } {
  const { up, down } = randomOf(seed);
  return { up: begun(makePath(up)), down: begun(makePath(down)) };
}

/** Asks a path for the first time, so that its processes begin then, whatever is sent first. */
function begun(path: PathModel): PathModel {
  const paths = path instanceof Walk ? path.legs.map((leg) => leg.path) : [path];
  for (const one of paths) one.arrivalUs(START_US, 0);
  return path;
}

/** Runs it; throws when the tunnel does not come up. */
export function play(run: Run): Outcome {
  const { workload, scheme, seconds, seed } = run;
  const world = new World(seed);
  world.protocol = "oxtunnel";
  const headerContexts = scheme.hasShortPackets ? CONTEXTS : undefined;
  const repair = repairOf(scheme);
  const server = world.relay(RELAY_ENDPOINT, { ipv4: "10.66.0.1", repair, headerContexts, ...KERNELS });
  const client = world.client(CLIENT_ENDPOINT, server, {
    ipv4: CLIENT,
    repair: repairOf(scheme),
    headerContexts,
    ...KERNELS,
  });
  client.send(udpPacket(CLIENT, REMOTE, new Uint8Array(4)));
  world.run(START_US);
  if (server.delivered.length !== 1) throw new Error("the tunnel did not come up");

  const packets = packetsOfRun(run), paths = pathsOfRun(run);
  const bulk = run.hasBulk ? new Bulk(client, server, CLIENT, REMOTE) : undefined;
  const up = flowOf(packets.up.sentUs, seconds), down = flowOf(packets.down.sentUs, seconds);
  listen(server, up, (number) => bulk?.ackCame(number));
  listen(client, down, (number) => bulk?.dataCame(number));
  world.pathOf = (from) => from === CLIENT_ENDPOINT ? paths.up : paths.down;
  world.tap = (from, _to, datagram) => {
    const { bytesPerSecond } = from === CLIENT_ENDPOINT ? up : down;
    const second = Math.floor((world.nowUs - START_US) / 1e6);
    if (second < seconds) bytesPerSecond[second] += datagram.length + UDP_AND_IP_BYTES;
    return datagram;
  };
  const runTo = (untilUs: number) => {
    if (bulk) {
      for (; lastTurnUs + BULK_TURN_US <= untilUs; bulk.turn(world.nowUs)) {
        world.run(lastTurnUs += BULK_TURN_US);
      }
    }
    world.run(untilUs);
  };
  let lastTurnUs = START_US;
  for (let u = 0, d = 0; u < up.sentUs.length || d < down.sentUs.length;) {
    const isUp = (up.sentUs[u] ?? Infinity) <= (down.sentUs[d] ?? Infinity);
    runTo(isUp ? up.sentUs[u] : down.sentUs[d]);
    if (isUp) {
      client.sendBurst([packetOf(CLIENT, REMOTE, u, packets.up.bytes[u])], workload.trafficClass);
      u++;
    } else {
      server.sendBurst([packetOf(REMOTE, CLIENT, d, packets.down.bytes[d])], workload.trafficClass);
      d++;
    }
  }
  runTo(START_US + 1e6 * seconds);
  const bulkBits = (bulk?.packetsDelivered ?? 0) * 8 * 1400;
  world.run(world.nowUs + LINGER_US);
  up.bulkBytes = bulk?.bytesUp ?? 0;
  down.bulkBytes = bulk?.bytesDown ?? 0;
  return { up, down, bulkMbitPerS: bulkBits / seconds / 1e6 };
}

function flowOf(sentUs: Float64Array, seconds: number): Flow {
  return {
    sentUs,
    arrivedUs: new Float64Array(sentUs.length).fill(Infinity),
    bytesPerSecond: new Array(seconds).fill(0),
    bulkBytes: 0,
  };
}

/** Notes when the flow's packets reach the host's exit, at the moment that they do. */
function listen(host: Host, { arrivedUs }: Flow, bulkCame: (number: number) => void): void {
  host.delivered.push = (...packets: Uint8Array[]) => {
    for (const packet of packets) {
      const view = new DataView(packet.buffer);
      const number = view.getUint32(28);
      if (view.getUint16(20) === MARKED_PORT + CLASS_BULK) bulkCame(number);
      else if (arrivedUs[number] === Infinity) arrivedUs[number] = host.world.nowUs;
    }
    return 0;
  };
}

function packetOf(source: string, destination: string, number: number, payloadBytes: number): Uint8Array {
  const payload = new Uint8Array(payloadBytes);
  new DataView(payload.buffer).setUint32(0, number);
  return udpPacket(source, destination, payload);
}
