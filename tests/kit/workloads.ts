/**
 * What the measure of repair sends: games and calls, as streams of packets at a steady pace in both directions. Invariant:
 * the same seed gives the same packets. Sends nothing and knows no tunnel.
 */
import { CLASS_GAME, CLASS_VOICE } from "../../src/control/traffic_class.ts";
import type { Random } from "./random.ts";
import { G711, OPUS, type SpeechCodec } from "./speech.ts";

/** One direction: packets a second, and the least and the most bytes of a UDP payload, evenly distributed. */
export interface Stream {
  packetsPerSecond: number;
  bytesMin: number;
  bytesMax: number;
}

export interface Workload {
  label: string;
  /** CLASS_* that its packets are marked as. */
  trafficClass: number;
  /** How much later than without any loss a packet is still of use, microseconds. */
  deadlineUs: number;
  up: Stream;
  down: Stream;
  /** What the E-model needs to know, for calls. */
  codec?: SpeechCodec;
}

/** RTP's header without extensions, bytes (RFC 3550 §5.1). */
const RTP_BYTES = 12;

function game(packetsPerSecond: number): Workload {
  return {
    label: `game, ${packetsPerSecond} Hz`,
    trafficClass: CLASS_GAME,
    deadlineUs: 60_000,
    up: { packetsPerSecond, bytesMin: 60, bytesMax: 200 },
    down: { packetsPerSecond, bytesMin: 200, bytesMax: 600 },
  };
}

/** @param bytesMin of a frame of 20 ms, as is `bytesMax`. */
function call(codec: SpeechCodec, bytesMin: number, bytesMax: number): Workload {
  const stream = { packetsPerSecond: 50, bytesMin: RTP_BYTES + bytesMin, bytesMax: RTP_BYTES + bytesMax };
  return {
    label: codec.name,
    trafficClass: CLASS_VOICE,
    deadlineUs: 100_000,
    up: stream,
    down: stream,
    codec,
  };
}

export const WORKLOADS = {
  game64: game(64),
  game128: game(128),
  opus: call(OPUS, 60, 160),
  g711: call(G711, 160, 160),
} as const satisfies Record<string, Workload>;

export type WorkloadName = keyof typeof WORKLOADS;

/** The packets of a stream: when each is sent, microseconds from its start, and the bytes of its UDP payload. */
export interface Packets {
  sentUs: Float64Array;
  bytes: Uint16Array;
}

/** The packets that the stream sends in `seconds`. */
export function packetsOf(stream: Stream, seconds: number, random: Random): Packets {
  const { packetsPerSecond, bytesMin, bytesMax } = stream;
  const count = Math.floor(packetsPerSecond * seconds);
  const sentUs = new Float64Array(count), bytes = new Uint16Array(count);
  for (let n = 0; n < count; n++) {
    sentUs[n] = Math.round(n * 1e6 / packetsPerSecond);
    bytes[n] = bytesMin + random.u32() % (bytesMax - bytesMin + 1);
  }
  return { sentUs, bytes };
}
