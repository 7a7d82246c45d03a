// Hot path.
/**
 * How a flow gets its class (traffic_class.ts): by the application that its bytes are recognised as, its DSCP, its ports, and,
 * where these say little, its packets' sizes and pace in both directions. Invariant: pure; a class that behaviour gave is
 * left at a much lower score than it was taken at, and taking it again needs a higher one. Keeps nothing: scores are in the
 * flow table, patterns in applications.ts.
 */
import { KIND_CALL, KIND_GAME, KIND_REQUEST, KIND_TRANSFER, KIND_TUNNEL, KIND_WEB } from "./applications.ts";
import {
  STATE_ACKS,
  STATE_BULK,
  STATE_CLASS,
  STATE_FLIPS,
  STATE_HEAVY,
  STATE_MARKS,
  STATE_MEDIA,
  STATE_STEADY,
} from "./flows.ts";
import { CLASS_BULK, CLASS_DEFAULT, CLASS_GAME, CLASS_INTERACTIVE, CLASS_VOICE } from "./traffic_class.ts";

/** Bit of `classOfMarks`' result: behaviour does not change this class. */
export const FIRM = 8;
export const CLASS_MASK = 7;
/** Bit that is set where the result is kept, so that 0 means that there is none yet. */
export const BEGUN = 16;

const TCP = 6, UDP = 17, ICMP = 1, ICMPV6 = 58;
const QUIC_PORT = 443;

// Kinds of packets, for the scores.
/** Data of less than full size. */
export const SIGN_SMALL = 0;
/** Full size, or nearly so. */
export const SIGN_FULL = 1;
/** A packet that only acknowledges. */
export const SIGN_ACK = 2;

/** Bytes of a packet that is full, or nearly so. */
export const FULL_BYTES = 1000;
/** The longest packet of a game, or of a call without video, bytes. */
const STEADY_BYTES_MAX = 700;
/** The longest packet with nothing but QUIC acknowledgements, IP header included, bytes. */
const QUIC_ACK_BYTES_MAX = 110;
/** After this pause a transfer is judged anew: it is another page, or the next track. */
const IDLE_US = 1_000_000;
// Gaps below which packets are of one run.
const TCP_RUN_US = 20_000, UDP_RUN_US = 4000, ACK_RUN_US = 10_000;
/** Packets closer than this belong to one tick. A game sends a few in a tick; more are a flood. */
const TICK_US = 2000;
/**
 * Games tick at most 128 times a second, and calls send a packet each 10 ms: a flow that stays ahead of one packet in 6.5 ms is
 * limited by answers alone. Eighths of a packet in 2^13 microseconds.
 */
const PACE = 10, PACE_SHIFT = 13;
/** Longer than any crowd of packets lasts. */
const CROWD_GAP_US = 131_072;
/** Parts of a packet that crowding is counted in. */
const CROWD_UNIT = 8;
/** Most packets of one tick, and most packets ahead of the pace. */
const CROWD_TICK = 4 * CROWD_UNIT, CROWD_RUN = 6 * CROWD_UNIT, CROWD_MAX = 16 * CROWD_UNIT;
// Longest gaps between packets that are sent at a pace, and between the tries of a handshake.
const PACE_US_MAX = 250_000, TRY_US_MAX = 1_500_000;

// Scores at which behaviour takes a class, at which it leaves the class, and the highest score.
const BULK_TAKEN = 32, BULK_LEFT = 8, BULK_MAX = 64;
const STEADY_TAKEN = 8, STEADY_LEFT = 4, STEADY_MAX = 96;
/** The same where port or bytes mean a request, whose sender waits for the answer, or a tunnel. */
const STEADY_TAKEN_LATE = 48, STEADY_LEFT_LATE = 12;
/** For calls over QUIC: score of the less steady direction. */
const QUIC_CALL_TAKEN = 24, QUIC_CALL_LEFT = 6;
const MEDIA_TAKEN = 8, MEDIA_LEFT = 0, MEDIA_MAX = 32;
const HEAVY_TAKEN = 12, HEAVY_MAX = 48, HEAVY_GAP_US = 15_000;
const ACKS_TAKEN = 9, ACKS_MAX = 24;
/** Longest payload that acknowledges (a header and little else), and shortest payload of data (TFTP's 512, RFC 1350 §2). */
const ACK_PAYLOAD_MAX = 32, DATA_PAYLOAD_MIN = 512;
/** Each return to a class that behaviour gave needs twice the score of the one before, up to eight times. */
export const FLIPS_MAX = 3;

// Signs of media in a payload.
export const MEDIA_NONE = 0;
/** RTP's version, and nothing more. */
export const MEDIA_MAYBE = 1;
/** The next packet of a source that was seen before, or RTCP. */
export const MEDIA_SURE = 2;

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

/** By IANA's assignments, and by the usual ports of games. */
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
export function signOfUdp(length: number, isQuic: boolean): number {
  if (length >= FULL_BYTES) return SIGN_FULL;
  return isQuic ? SIGN_ACK : SIGN_SMALL;
}

/** Whether a port says QUIC, where the bytes have not. */
export function isQuicPort(portA: number, portB: number): boolean {
  return portA === QUIC_PORT || portB === QUIC_PORT;
}

/** The score of a transfer, 0 to 64, after one more packet, `gapUs` behind the last one. */
export function bulkScore(score: number, protocol: number, sign: number, gapUs: number): number {
  if (gapUs > IDLE_US) return 0;
  if (sign === SIGN_SMALL) return Math.max(0, score - 2);
  const runUs = protocol === UDP ? UDP_RUN_US : sign === SIGN_ACK ? ACK_RUN_US : TCP_RUN_US;
  return gapUs < runUs ? Math.min(BULK_MAX, score + 1) : Math.max(0, score - 1);
}

/** How far packets are ahead of one in 6.5 ms, 8 to 128 eighths of a packet, after one more, `gapUs` behind the last one. */
export function crowding(crowd: number, gapUs: number): number {
  if (gapUs >= CROWD_GAP_US) return CROWD_UNIT;
  return Math.min(CROWD_MAX, Math.max(0, crowd - (PACE * gapUs >>> PACE_SHIFT)) + CROWD_UNIT);
}

/**
 * The score of small packets at a pace, 0 to 96, after one more of `bytes`, `gapUs` behind the last one of its direction and
 * with the `crowd` that it makes. @param isFirst of its direction. @param isQuic small packets may be acknowledgements.
 */
export function steadyScore(
  score: number,
  bytes: number,
  gapUs: number,
  crowd: number,
  isFirst: boolean,
  isQuic: boolean,
): number {
  if (bytes >= FULL_BYTES) return Math.max(0, score - 4);
  if (bytes > STEADY_BYTES_MAX) return Math.max(0, score - 2);
  if (isQuic && bytes <= QUIC_ACK_BYTES_MAX) return score;
  if (isFirst) return score + 2;
  if (crowd > CROWD_RUN) return score >> 1;
  if (gapUs < TICK_US) return crowd <= CROWD_TICK ? score : Math.max(0, score - 1);
  if (gapUs <= PACE_US_MAX) return Math.min(STEADY_MAX, score + 3);
  return gapUs <= TRY_US_MAX ? Math.min(STEADY_MAX, score + 1) : score >> 1;
}

/**
 * The score of a direction that only acknowledges a transfer, 0 to 24, after one more payload of `bytes`.
 * @param theirs bytes of the other direction's last payload.
 */
export function acksScore(score: number, bytes: number, theirs: number): number {
  if (bytes > ACK_PAYLOAD_MAX) return Math.max(0, score - 4);
  return theirs >= DATA_PAYLOAD_MIN ? Math.min(ACKS_MAX, score + 3) : score;
}

/** The score of full packets in quick succession, 0 to 48: a transfer's, or a video's. */
export function heavyScore(score: number, bytes: number, gapUs: number): number {
  return bytes >= FULL_BYTES && gapUs < HEAVY_GAP_US
    ? Math.min(HEAVY_MAX, score + 3)
    : Math.max(0, score - 1);
}

/** The score of RTP and RTCP, 0 to 32. @param shown MEDIA_* of the packet. */
export function mediaScore(score: number, shown: number): number {
  if (shown === MEDIA_SURE) return Math.min(MEDIA_MAX, score + MEDIA_TAKEN);
  return Math.max(0, score - 1);
}

/**
 * The class that a direction has by its own packets and what the flow is recognised as.
 * @param state STATE_* of the flow table, of the direction at `at` and the other at `other`, or -1 where that one is silent.
 * @param kind KIND_* of what the flow is recognised as.
 */
export function decideClass(state: Uint8Array, at: number, other: number, kind: number): number {
  const marks = state[at + STATE_MARKS], base = marks & CLASS_MASK, was = state[at + STATE_CLASS];
  const bulk = state[at + STATE_BULK], media = state[at + STATE_MEDIA];
  const isBulk = bulk >= BULK_TAKEN || (was === CLASS_BULK && bulk > BULK_LEFT);
  // In a recognised game, likeness to media is chance.
  const isCall = kind !== KIND_GAME && (media >= MEDIA_TAKEN || (was === CLASS_VOICE && media > MEDIA_LEFT));
  if ((marks & FIRM) !== 0) {
    // A mark that contradicts a sure recognition as call or game is wrong.
    if (isCall || (kind === KIND_CALL && !isBulk)) return CLASS_VOICE;
    return kind === KIND_GAME && !isBulk ? CLASS_GAME : base;
  }
  if (isCall) return CLASS_VOICE;
  if (isBulk) return CLASS_BULK;
  switch (kind) {
    case KIND_CALL:
      return CLASS_VOICE;
    case KIND_GAME:
      return CLASS_GAME;
    case KIND_REQUEST:
      return CLASS_INTERACTIVE;
    case KIND_TRANSFER:
      return CLASS_BULK;
    case KIND_WEB:
      return isQuicCall(state, at, other) ? CLASS_VOICE : CLASS_INTERACTIVE;
  }
  // In a recognised tunnel, the port says nothing.
  const isTunnel = kind === KIND_TUNNEL;
  if (!isTunnel && (base === CLASS_GAME || base === CLASS_VOICE)) return base;
  if (isGame(state, at, other, isTunnel || base !== CLASS_DEFAULT)) return CLASS_GAME;
  return isTunnel ? CLASS_DEFAULT : base;
}

/** Whether both directions are as steady as a call. */
function isQuicCall(state: Uint8Array, at: number, other: number): boolean {
  if (other < 0) return false;
  const both = Math.min(state[at + STATE_STEADY], state[other + STATE_STEADY]);
  return state[at + STATE_CLASS] === CLASS_VOICE
    ? both > QUIC_CALL_LEFT
    : both >= QUIC_CALL_TAKEN << Math.min(1, state[at + STATE_FLIPS]);
}

/** Whether the directions' pace is a game's. @param isLate something else is more likely, so that it takes longer. */
function isGame(state: Uint8Array, at: number, other: number, isLate: boolean): boolean {
  const steady = state[at + STATE_STEADY], wasGame = state[at + STATE_CLASS] === CLASS_GAME;
  const isHeavy = isTransfer(state, at) || (other >= 0 && isTransfer(state, other));
  // Acknowledgements of a transfer are small and at a pace, too.
  if (isHeavy) return false;
  if (isLate) {
    return steady > STEADY_LEFT_LATE && (wasGame || steady >= STEADY_TAKEN_LATE);
  }
  const sum = other < 0 ? steady : steady + state[other + STATE_STEADY];
  return wasGame ? sum > STEADY_LEFT : sum >= STEADY_TAKEN << state[at + STATE_FLIPS];
}

/** Whether a direction carries a transfer, or acknowledges one. */
function isTransfer(state: Uint8Array, at: number): boolean {
  return state[at + STATE_HEAVY] >= HEAVY_TAKEN || state[at + STATE_ACKS] >= ACKS_TAKEN;
}
