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
import type { FlowDirection } from "./flows.ts";
import { CLASS_DEFAULT, CLASS_GAME, CLASS_INTERACTIVE, CLASS_VOICE } from "./traffic_class.ts";

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

/** Takes one more packet of `bytes` of the flow in `row`. @param nowUs modulo 2^32. */
export function observe(
  direction: FlowDirection,
  row: number,
  packet: FlowPacket,
  bytes: number,
  nowUs: number,
): void {
  const { seenUs, tos, marks, bulk, steady, media, trafficClass } = direction;
  const { protocol, ports } = packet;
  const isFirst = marks[row] === 0;
  const gapUs = isFirst ? 0 : nowUs - seenUs[row] >>> 0;
  seenUs[row] = nowUs;
  if (isFirst || tos[row] !== packet.tos) {
    tos[row] = packet.tos;
    marks[row] = classOfMarks(packet.tos >> 2, protocol, ports >>> 16, ports & 0xffff) | BEGUN;
    if (isFirst) trafficClass[row] = marks[row] & CLASS_MASK;
  }
  let sign = SIGN_ACK;
  if (protocol === TCP) sign = signOfTcp(bytes, packet.isAck);
  else if (protocol === UDP) {
    sign = signOfUdp(bytes, ports >>> 16, ports & 0xffff);
    if (packet.firstByte >= 0) media[row] = mediaScore(media[row], packet.firstByte);
    steady[row] = steadyScore(steady[row], sign, bytes, gapUs);
  }
  bulk[row] = bulkScore(bulk[row], protocol, sign, gapUs);
  trafficClass[row] = decideClass(marks[row], trafficClass[row], bulk[row], steady[row], media[row]);
}

/**
 * The class of a direction's packets, whose last one was just observed: by its own DSCP, else by the other's; else by its own
 * behaviour and ports, or, where these say little, as the other direction's game or call. That the other one is a
 * transfer says nothing: what answers it may be a request.
 */
export function classOfFlow(
  direction: FlowDirection,
  other: FlowDirection,
  row: number,
  nowUs: number,
): number {
  const own = direction.trafficClass[row], theirs = other.trafficClass[row], marks = other.marks[row];
  if ((direction.marks[row] & FIRM) !== 0 || marks === 0 || nowUs - other.seenUs[row] >>> 0 > OTHER_US) {
    return own;
  }
  if ((marks & FIRM) !== 0) return theirs;
  const isVague = own === CLASS_DEFAULT || own === CLASS_INTERACTIVE;
  return isVague && (theirs === CLASS_GAME || theirs === CLASS_VOICE) ? theirs : own;
}
