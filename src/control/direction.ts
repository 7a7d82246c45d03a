// Hot path.
/**
 * Follows each direction of a flow, packet by packet, and says what class its packets have. Invariant: what a direction
 * shows by itself goes first, and what it has learned of the other one is never told back, so that no guess confirms
 * itself. The numbers are classifier.ts's, the memory flows.ts's.
 */
import {
  BEGUN,
  bulkScore,
  CLASS_MASK,
  classOfMarks,
  decideClass,
  FIRM,
  mediaScore,
  SIGN_ACK,
  signOfTcp,
  signOfUdp,
  steadyScore,
} from "./classifier.ts";
import {
  type FlowTable,
  STATE_BULK,
  STATE_BYTES,
  STATE_CLASS,
  STATE_MARKS,
  STATE_MEDIA,
  STATE_STEADY,
  STATE_TOS,
} from "./flows.ts";
import { CLASS_DEFAULT, CLASS_INTERACTIVE, isRealTime } from "./traffic_class.ts";

const TCP = 6, UDP = 17;
/** What the other direction says counts for so long after its last packet. */
const OTHER_US = 2_000_000;

/** What a packet shows; wire/flow.ts reads it. */
export interface FlowPacket {
  protocol: number;
  /** Two of 16 bits. */
  ports: number;
  /** TOS or traffic class byte. */
  tos: number;
  /** Of TCP: carries nothing but an acknowledgement. */
  isAck: boolean;
  /** The first byte of UDP's payload, or -1. */
  firstByte: number;
}

/** Takes one more packet of `bytes` of the flow's direction at `place`. @param nowUs modulo 2^32. */
export function observe(
  { seenUs, state }: FlowTable,
  place: number,
  packet: FlowPacket,
  bytes: number,
  nowUs: number,
): void {
  const { protocol, ports, tos } = packet;
  const at = STATE_BYTES * place;
  let marks = state[at + STATE_MARKS], was = state[at + STATE_CLASS];
  const isFirst = marks === 0;
  const gapUs = isFirst ? 0 : nowUs - seenUs[place] >>> 0;
  seenUs[place] = nowUs;
  if (isFirst || state[at + STATE_TOS] !== tos) {
    state[at + STATE_TOS] = tos;
    state[at + STATE_MARKS] = marks = classOfMarks(tos >> 2, protocol, ports >>> 16, ports & 0xffff) | BEGUN;
    if (isFirst) was = marks & CLASS_MASK;
  }
  let sign = SIGN_ACK, steady = 0, media = 0;
  if (protocol === TCP) sign = signOfTcp(bytes, packet.isAck);
  else if (protocol === UDP) {
    sign = signOfUdp(bytes, ports >>> 16, ports & 0xffff);
    media = state[at + STATE_MEDIA];
    if (packet.firstByte >= 0) state[at + STATE_MEDIA] = media = mediaScore(media, packet.firstByte);
    state[at + STATE_STEADY] = steady = steadyScore(state[at + STATE_STEADY], sign, bytes, gapUs);
  }
  const bulk = bulkScore(state[at + STATE_BULK], protocol, sign, gapUs);
  state[at + STATE_BULK] = bulk;
  state[at + STATE_CLASS] = decideClass(marks, was, bulk, steady, media);
}

/**
 * The class of a direction's packets, whose last one was just observed: by its own DSCP, else by the other's; else by its own
 * behaviour and ports, or, where these say little, as the other direction's game or call. That the other one is a
 * transfer says nothing: what answers it may be a request.
 */
export function classOfFlow({ seenUs, state }: FlowTable, place: number, nowUs: number): number {
  const at = STATE_BYTES * place, other = STATE_BYTES * (place ^ 1);
  const own = state[at + STATE_CLASS], marks = state[other + STATE_MARKS];
  if ((state[at + STATE_MARKS] & FIRM) !== 0 || marks === 0) return own;
  const theirs = state[other + STATE_CLASS];
  const isVague = own === CLASS_DEFAULT || own === CLASS_INTERACTIVE;
  const isHeard = (marks & FIRM) !== 0 || (isVague && isRealTime(theirs));
  return isHeard && nowUs - seenUs[place ^ 1] >>> 0 <= OTHER_US ? theirs : own;
}
