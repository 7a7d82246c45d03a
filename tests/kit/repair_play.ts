/**
 * One stream of a game's or a call's packets from a client to a relay, through a path that is modelled, with whatever repairs
 * it. Invariant: each packet is known again by its number and its bytes, and one that comes twice or changed throws.
 */
import { assert, assertEquals } from "@std/assert";
import type { Client } from "../../src/client.ts";
import { CLASS_GAME } from "../../src/control/traffic_class.ts";
import type { Relay } from "../../src/relay.ts";
import type { RepairOptions } from "../../src/repair/options.ts";
import type { PathModel } from "./channels.ts";
import { type Host, World } from "./world.ts";
import { Random } from "./random.ts";
import { udpPacket } from "./packets.ts";

const SECOND_US = 1_000_000;
/** UDP and IPv4. */
const OUTER_BYTES = 28;

export interface Stream {
  seconds?: number;
  seed?: number;
  trafficClass?: number;
  /** Microseconds from packet to packet, and how late one is still of use. */
  gapUs?: number;
  deadlineUs?: number;
  /** Of a UDP payload, evenly distributed. */
  bytesMin?: number;
  bytesMax?: number;
  /** From relay to client; as from client to relay but for its dice when absent. */
  back?: (random: Random) => PathModel;
}

export interface Outcome {
  sent: number;
  /** When each packet was sent, and when it came; undefined when it did not. */
  sentUs: number[];
  cameUs: (number | undefined)[];
  /** Share of packets that did not come within the deadline after what the path alone takes. */
  residual: number;
  /** Bytes of datagrams from client to relay, UDP and IP counted; and all of them as they were sent. */
  bytes: number;
  datagrams: { atUs: number; bytes: number }[];
  /** Bytes of repairs that had been sent before each packet. */
  repairBytes: number[];
  client: Host<Client>;
  server: Host<Relay>;
}

/** @param make the path from client to relay, 20 ms long without what happens on it. */
export function play(
  repair: RepairOptions | undefined,
  make: (random: Random) => PathModel,
  {
    seconds = 60,
    seed = 1,
    trafficClass = CLASS_GAME,
    gapUs = 15_625,
    deadlineUs = 60_000,
    bytesMin = 60,
    bytesMax = 200,
    back = make,
  }: Stream = {},
): Outcome {
  const world = new World(seed);
  world.protocol = "oxtunnel";
  const server = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1", repair });
  const client = world.client("198.51.100.7:5555", server, { ipv4: "10.66.0.2", repair });
  // Of its class, too: unmarked it goes to the port of a game.
  client.sendBurst([udpPacket("10.66.0.2", "8.8.8.8", new Uint8Array(4))], trafficClass);
  world.runFor(SECOND_US);
  const up = make(new Random(seed + 1000)), down = back(new Random(seed + 2000));
  world.pathOf = (from) => from === client.endpoint ? up : down;
  const datagrams: Outcome["datagrams"] = [];
  world.tap = (from, _to, datagram) => {
    if (from === client.endpoint) datagrams.push({ atUs: world.nowUs, bytes: datagram.length + OUTER_BYTES });
    return datagram;
  };
  const sentUs: number[] = [], sizes: number[] = [], cameUs: (number | undefined)[] = [];
  const repairBytes: number[] = [];
  server.delivered.push = (packet) => {
    const n = new DataView(packet.buffer).getUint32(28);
    assertEquals(cameUs[n], undefined, `seed ${seed}: packet ${n} came twice`);
    assertEquals(packet.length, 28 + sizes[n], `seed ${seed}: packet ${n}`);
    assert(packet.subarray(32).every((byte) => byte === (n & 0xff)), `seed ${seed}: packet ${n} is changed`);
    return cameUs[n] = world.nowUs;
  };
  const startUs = world.nowUs, dice = new Random(seed + 3000);
  for (let n = 0; n * gapUs < seconds * SECOND_US; n++) {
    world.run(startUs + Math.round(n * gapUs));
    sizes[n] = bytesMin + dice.u32() % (bytesMax - bytesMin + 1);
    const payload = new Uint8Array(sizes[n]).fill(n);
    new DataView(payload.buffer).setUint32(0, n);
    sentUs.push(world.nowUs);
    repairBytes.push(client.metrics.get("repair_bytes_sent"));
    client.sendBurst([udpPacket("10.66.0.2", "8.8.8.8", payload)], trafficClass);
  }
  world.runFor(SECOND_US);
  const sent = sentUs.length, limitUs = deadlineUs + 20_000;
  const inTime = sentUs.filter((us, n) => (cameUs[n] ?? Infinity) - us <= limitUs).length;
  const bytes = datagrams.reduce((sum, datagram) => sum + datagram.bytes, 0);
  return { sent, sentUs, cameUs, residual: 1 - inTime / sent, bytes, datagrams, repairBytes, client, server };
}
