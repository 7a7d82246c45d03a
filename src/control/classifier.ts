// Hot path.
/**
 * How a flow gets its class (traffic_class.ts): by its DSCP, else by its ports until its packets' sizes and gaps say
 * more. Invariant: pure, numbers in and numbers out; a class that was taken by behaviour is left only well below where
 * it was taken. Looks into no payload but for the first byte of media, and keeps nothing: scores are the flow table's.
 */
import { CLASS_BULK, CLASS_DEFAULT, CLASS_GAME, CLASS_INTERACTIVE, CLASS_VOICE } from "./traffic_class.ts";

/** In what `classOfMarks` returns: behaviour changes nothing about it. */
export const FIRM = 8;
export const CLASS_MASK = 7;
/** Beside it where it is kept, so that 0 is nothing yet. */
export const BEGUN = 16;

const TCP = 6, UDP = 17, ICMP = 1, ICMPV6 = 58;
const QUIC_PORT = 443;

// What a packet is to the scores.
/** Data of less than full size. */
export const SIGN_SMALL = 0;
/** Full size, or nearly so. */
export const SIGN_FULL = 1;
/** It only acknowledges. */
export const SIGN_ACK = 2;

const FULL_BYTES = 1000;
/** A game's or a call's packet is no longer. */
const STEADY_BYTES_MAX = 700;
/** After such a pause a flow is judged anew: a page, a next track. */
const IDLE_US = 1_000_000;
// Gaps below which packets are of one run.
const TCP_RUN_US = 20_000, UDP_RUN_US = 4000, ACK_RUN_US = 10_000;
/** Packets that are sent at a pace: 8 to 500 in a second. */
const PACE_US_MIN = 2000, PACE_US_MAX = 120_000;

// Where behaviour takes a class, where it leaves it, and how far a score can rise.
const BULK_TAKEN = 32, BULK_LEFT = 8, BULK_MAX = 64;
const STEADY_TAKEN = 48, STEADY_LEFT = 12, STEADY_MAX = 96;
const MEDIA_TAKEN = 16, MEDIA_LEFT = 4, MEDIA_MAX = 32;

/**
 * The class that the sender's marks and the ports suggest, with FIRM where the DSCP says it.
 * @param dscp 0 to 63. Others' ports are 0.
 */
export function classOfMarks(dscp: number, protocol: number, portA: number, portB: number): number {
  const marked = classOfDscp(dscp);
  if (marked !== CLASS_DEFAULT) return marked | FIRM;
  if (protocol === ICMP || protocol === ICMPV6) return CLASS_INTERACTIVE | FIRM;
  if (protocol !== UDP && protocol !== TCP) return CLASS_DEFAULT;
  // The service's port is mostly the lower one.
  const low = classOfPort(protocol, Math.min(portA, portB));
  return low !== CLASS_DEFAULT ? low : classOfPort(protocol, Math.max(portA, portB));
}

/** RFC 4594 §2.3 and its successors: EF, VA (RFC 5865), CS and AF classes, LE (RFC 8622). */
function classOfDscp(dscp: number): number {
  switch (dscp) {
    case 46: // EF
    case 44: // VA
    case 40: // CS5
    case 34: // AF41
    case 36:
    case 38:
      return CLASS_VOICE;
    case 32: // CS4, "real-time interactive"
      return CLASS_GAME;
    case 16: // CS2
    case 18: // AF21, "low-latency data"
    case 20:
    case 22:
    case 48: // CS6
    case 56: // CS7
      return CLASS_INTERACTIVE;
    case 1: // LE
    case 8: // CS1
    case 10: // AF11, "high-throughput data"
    case 12:
    case 14:
      return CLASS_BULK;
    default:
      return CLASS_DEFAULT;
  }
}

/** IANA's assignments, and the ports that games are known by. */
function classOfPort(protocol: number, port: number): number {
  switch (port) {
    case 22: // SSH
    case 23:
    case 53: // DNS
    case 67: // DHCP
    case 68:
    case 80:
    case 123: // NTP
    case 443:
    case 853: // DNS over TLS, QUIC
    case 3389: // RDP
    case 5353:
    case 5900: // VNC
    case 8080:
      return CLASS_INTERACTIVE;
    case 5060: // SIP
    case 5061:
      return CLASS_VOICE;
    case 20: // FTP's data
    case 25: // mail
    case 873: // rsync
    case 51413: // BitTorrent
      return CLASS_BULK;
    case 1119: // Battle.net
    case 3074: // Xbox
    case 3659:
    case 3724:
    case 6672:
    case 25565: // Minecraft
      return CLASS_GAME;
  }
  if (port >= 6881 && port <= 6889) return CLASS_BULK; // BitTorrent
  if (protocol === TCP) return CLASS_DEFAULT;
  if (port >= 3478 && port <= 3481) return CLASS_VOICE; // STUN, and what TURN relays
  if (port >= 19302 && port <= 19309) return CLASS_VOICE;
  if (port >= 27000 && port <= 27100) return CLASS_GAME; // Steam
  if (port >= 7777 && port <= 7788) return CLASS_GAME; // Unreal
  if (port === 19132 || port === 19133) return CLASS_GAME; // Minecraft
  return CLASS_DEFAULT;
}

/** What a TCP packet of `length` bytes is; `isAck` when it carries no data and no flag but ACK. */
export function signOfTcp(length: number, isAck: boolean): number {
  return isAck ? SIGN_ACK : length >= FULL_BYTES ? SIGN_FULL : SIGN_SMALL;
}

/** What a UDP packet is. QUIC hides what it acknowledges, so its small packets in a run pass for acknowledgements. */
export function signOfUdp(length: number, portA: number, portB: number): number {
  if (length >= FULL_BYTES) return SIGN_FULL;
  return portA === QUIC_PORT || portB === QUIC_PORT ? SIGN_ACK : SIGN_SMALL;
}

/** The score of a transfer, 0 to 64, after one more packet, `gapUs` behind the last one. */
export function bulkScore(score: number, protocol: number, sign: number, gapUs: number): number {
  if (gapUs > IDLE_US) return 0;
  if (sign === SIGN_SMALL) return Math.max(0, score - 2);
  const runUs = protocol === UDP ? UDP_RUN_US : sign === SIGN_ACK ? ACK_RUN_US : TCP_RUN_US;
  return gapUs < runUs ? Math.min(BULK_MAX, score + 1) : Math.max(0, score - 1);
}

/** The score of small packets at a steady pace, 0 to 96. A tick may take up to three packets at once. */
export function steadyScore(score: number, sign: number, length: number, gapUs: number): number {
  if (gapUs > IDLE_US || sign === SIGN_ACK) return 0;
  if (length > STEADY_BYTES_MAX) return Math.max(0, score - 2);
  if (gapUs < PACE_US_MIN) return Math.max(0, score - 1);
  return gapUs <= PACE_US_MAX ? Math.min(STEADY_MAX, score + 3) : score;
}

/** The score of RTP, 0 to 32: whether the payload's first byte has version 2 (RFC 3550 §5.1), packet after packet. */
export function mediaScore(score: number, firstByte: number): number {
  return firstByte >> 6 === 2 ? Math.min(MEDIA_MAX, score + 1) : Math.max(0, score - 4);
}

/**
 * The class that a flow has now. @param marks of `classOfMarks`. @param was its class before this packet.
 */
export function decideClass(
  marks: number,
  was: number,
  bulk: number,
  steady: number,
  media: number,
): number {
  const base = marks & CLASS_MASK;
  if ((marks & FIRM) !== 0) return base;
  if (media >= MEDIA_TAKEN || (was === CLASS_VOICE && media > MEDIA_LEFT)) return CLASS_VOICE;
  if (bulk >= BULK_TAKEN || (was === CLASS_BULK && bulk > BULK_LEFT)) return CLASS_BULK;
  if (steady >= STEADY_TAKEN || (was === CLASS_GAME && steady > STEADY_LEFT)) {
    return base === CLASS_VOICE ? CLASS_VOICE : CLASS_GAME;
  }
  return base;
}
