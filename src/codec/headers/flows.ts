// Hot path.
/**
 * How the headers' compressors tell flows apart: a number for a flow's addresses and ports, whether two packets are of one
 * flow, and which flows look like RTP. Invariant: `isSameFlow` compares every octet that makes a flow, so that two flows
 * with one number are never taken for each other. Keeps no packets.
 */
import { IPV4_HEADER_BYTES, IPV6_HEADER_BYTES, PROTOCOL_TCP, PROTOCOL_UDP } from "../../wire/inner.ts";

/** Packets of a flow after which it gets a context. */
export const CANDIDATE_PACKETS = 3;
/** Definitions without an acknowledgment, after which the flow rests for a while, microseconds. */
export const ATTEMPTS_MAX = 30, REST_US = 30_000_000;
const DEFINE_US = 10_000, DEFINE_LATER_US = 100_000, SOON = 10;
/** A context whose flow was silent for this long may go to another flow, microseconds. */
export const IDLE_US = 2_000_000;

const RTP_BYTES = 12, RTCP_FIRST = 72, RTCP_LAST = 76;

/** A number for addresses, ports and protocol, which is rarely another flow's; 0 for packets without ports, and fragments. */
export function tagOf(view: DataView, at: number, length: number): number {
  const isFour = view.getUint8(at) >> 4 === 4;
  const ipBytes = isFour ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES;
  if (length < ipBytes + 8) return 0;
  const protocol = view.getUint8(at + (isFour ? 9 : 6));
  if (protocol !== PROTOCOL_UDP && protocol !== PROTOCOL_TCP) return 0;
  if (isFour && (view.getUint8(at) !== 0x45 || (view.getUint16(at + 6) & 0xbfff) !== 0)) return 0;
  // Three products that wait for nothing of each other.
  const hash = Math.imul(view.getInt32(at + ipBytes, true) ^ protocol, 0x9e3779b1) ^
    Math.imul(view.getInt32(at + ipBytes - 4, true), 0x85ebca77) ^
    Math.imul(view.getInt32(at + ipBytes - (isFour ? 8 : 20), true), 0xc2b2ae3d);
  return ((hash ^ (hash >>> 15)) | 1) >>> 0;
}

/** How long the next definition waits, after so many: all of them take two seconds, longer than any round trip. */
export function definePauseUs(attempts: number): number {
  return attempts < SOON ? DEFINE_US : DEFINE_LATER_US;
}

/** Octets of headers that `isSameFlow` reads. */
export const FLOW_BYTES = IPV6_HEADER_BYTES + 4;

/** Whether the packets at `at` of `view` and at 0 of `own`, both with ports, agree in version, addresses, ports and protocol. */
export function isSameFlow(view: DataView, at: number, own: DataView): boolean {
  if (view.getUint8(at) >> 4 !== own.getUint8(0) >> 4) return false;
  if (own.getUint8(0) >> 4 === 4) {
    return view.getInt32(at + 20, true) === own.getInt32(20, true) &&
      view.getInt32(at + 12, true) === own.getInt32(12, true) &&
      view.getInt32(at + 16, true) === own.getInt32(16, true) && view.getUint8(at + 9) === own.getUint8(9);
  }
  if (view.getInt32(at + IPV6_HEADER_BYTES, true) !== own.getInt32(IPV6_HEADER_BYTES, true)) return false;
  for (let i = 8; i < IPV6_HEADER_BYTES; i += 4) {
    if (view.getInt32(at + i, true) !== own.getInt32(i, true)) return false;
  }
  return view.getUint8(at + 6) === own.getUint8(6);
}

/** Where the payload of the UDP packet at `at` begins. */
export function udpPayloadAt(view: DataView, at: number): number {
  return at + (view.getUint8(at) >> 4 === 4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES) + 8;
}

/** Whether the octets at `at`, `left` of them, may be an RTP packet: version 2, and no type of RTCP's (RFC 5761 4). */
export function mayBeRtp(view: DataView, at: number, left: number): boolean {
  if (left < RTP_BYTES || view.getUint8(at) >> 6 !== 2) return false;
  const type = view.getUint8(at + 1) & 0x7f;
  return type < RTCP_FIRST || type > RTCP_LAST;
}

/** What may be RTP's last sequence number and time stamp, by flow; a stride that is not 0 makes it RTP. */
export class RtpLines {
  readonly #number: Uint16Array;
  readonly #timestamp: Uint32Array;
  /** Time stamp units from one sequence number to the next, as the last two packets show; 0 for none. */
  readonly stride: Uint32Array;

  constructor(flows: number) {
    this.#number = new Uint16Array(flows);
    this.#timestamp = new Uint32Array(flows);
    this.stride = new Uint32Array(flows);
  }

  /** Follows the numbers of the flow's packet, whose payload lies from `at` to `end`. */
  note(view: DataView, at: number, end: number, flow: number): void {
    if (end - at < RTP_BYTES) return;
    const number = view.getUint16(at + 2), timestamp = view.getUint32(at + 4);
    const steps = (number - this.#number[flow]) & 0xffff, units = timestamp - this.#timestamp[flow] >>> 0;
    this.#number[flow] = number;
    this.#timestamp[flow] = timestamp;
    this.stride[flow] = steps > 0 && steps < 16 && units % steps === 0 && units < 1 << 24 ? units / steps : 0;
  }
}
