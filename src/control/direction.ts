// Hot path.
/**
 * Follows each direction of a flow, packet by packet, and decides the class of its packets. Invariant: a direction's own
 * behaviour has precedence, and what it has learned of the other direction is never passed back, so that no guess confirms
 * itself. Scores and thresholds are classifier.ts's, memory flows.ts's.
 */
import { KIND_CALL, KIND_WEB } from "./applications.ts";
import {
  acksScore,
  BEGUN,
  bulkScore,
  CLASS_MASK,
  classOfMarks,
  crowding,
  decideClass,
  FIRM,
  FLIPS_MAX,
  FULL_BYTES,
  heavyScore,
  isQuicPort,
  mediaScore,
  SIGN_ACK,
  SIGN_FULL,
  signOfTcp,
  signOfUdp,
  steadyScore,
} from "./classifier.ts";
import {
  type FlowTable,
  STATE_ACKS,
  STATE_BULK,
  STATE_BYTES,
  STATE_CLASS,
  STATE_CROWD,
  STATE_FLIPS,
  STATE_HEAVY,
  STATE_LOOKS,
  STATE_MARKS,
  STATE_MEDIA,
  STATE_SIZE,
  STATE_STEADY,
  STATE_TOS,
} from "./flows.ts";
import { isCallData, kindOf, lookForMedia, LOOKS_MAX, recognise } from "./recognise.ts";
import {
  CLASS_BULK,
  CLASS_DEFAULT,
  CLASS_GAME,
  CLASS_INTERACTIVE,
  CLASS_VOICE,
  isRealTime,
} from "./traffic_class.ts";

const TCP = 6, UDP = 17;
/** Time after its last packet for which the other direction's class counts. */
const OTHER_US = 2_000_000;

/** Fields of a packet that classes depend on; wire/flow.ts reads them. */
export interface FlowPacket {
  protocol: number;
  /** Two of 16 bits. */
  ports: number;
  /** TOS or traffic class byte. */
  tos: number;
  /** Of TCP: carries nothing but an acknowledgement. */
  isAck: boolean;
  /** Where its IP header begins. */
  packetAt: number;
  /** Where UDP's payload begins, and its bytes; 0 without one. */
  payloadAt: number;
  payloadBytes: number;
}

/**
 * Whether a packet of `bytes` may change what is known of its direction: of packets of one moment, only first payloads may,
 * and full packets until the flow is known as a transfer.
 */
export function isNews({ seenUs, state }: FlowTable, place: number, bytes: number, nowUs: number): boolean {
  if (seenUs[place] !== nowUs) return true;
  const at = STATE_BYTES * place;
  if (state[at + STATE_CLASS] === CLASS_BULK) return false;
  return bytes >= FULL_BYTES || state[at + STATE_LOOKS] < LOOKS_MAX;
}

/** Takes one more packet of `bytes` of the flow's direction at `place`, which is in `view`. @param nowUs modulo 2^32. */
export function observe(
  flows: FlowTable,
  place: number,
  packet: FlowPacket,
  view: DataView,
  bytes: number,
  nowUs: number,
): void {
  const { seenUs, state } = flows, { protocol, ports, tos } = packet;
  const at = STATE_BYTES * place;
  let marks = state[at + STATE_MARKS];
  const isFirst = marks === 0;
  const gapUs = isFirst ? 0 : nowUs - seenUs[place] >>> 0;
  seenUs[place] = nowUs;
  if (isFirst || state[at + STATE_TOS] !== tos) {
    state[at + STATE_TOS] = tos;
    state[at + STATE_MARKS] = marks = classOfMarks(tos >> 2, protocol, ports >>> 16, ports & 0xffff) | BEGUN;
    if (isFirst) state[at + STATE_CLASS] = marks & CLASS_MASK;
  }
  if (flows.rules !== undefined && state[at + STATE_LOOKS] < LOOKS_MAX) askRules(flows, place, packet, view);
  if (protocol === UDP) observeUdp(flows, place, packet, view, bytes, gapUs, isFirst, nowUs);
  else {
    const sign = protocol === TCP ? signOfTcp(bytes, packet.isAck) : SIGN_ACK;
    state[at + STATE_BULK] = bulkScore(state[at + STATE_BULK], protocol, sign, gapUs);
    decide(flows, place, 0, nowUs);
  }
}

/** Asks the rules about a direction's first packets: rules that look into a payload may need more than one. */
function askRules(
  { rules, ruled, state }: FlowTable,
  place: number,
  packet: FlowPacket,
  view: DataView,
): void {
  // UDP's payloads are counted where patterns are looked for.
  if (packet.payloadBytes === 0) state[STATE_BYTES * place + STATE_LOOKS]++;
  if (ruled[place >> 1] === 0) ruled[place >> 1] = rules!.find(view, packet) + 1;
}

function observeUdp(
  flows: FlowTable,
  place: number,
  packet: FlowPacket,
  view: DataView,
  bytes: number,
  gapUs: number,
  isFirst: boolean,
  nowUs: number,
): void {
  const { state } = flows, { ports, payloadAt, payloadBytes } = packet;
  const at = STATE_BYTES * place, row = place >> 1;
  let media = state[at + STATE_MEDIA];
  if (payloadBytes > 0) {
    if (state[at + STATE_LOOKS] < LOOKS_MAX) {
      state[at + STATE_LOOKS]++;
      recognise(flows, row, view, payloadAt, payloadBytes, ports);
    }
    const theirs = state[STATE_BYTES * (place ^ 1) + STATE_SIZE] << 3;
    state[at + STATE_ACKS] = acksScore(state[at + STATE_ACKS], payloadBytes, theirs);
    state[at + STATE_SIZE] = Math.min(255, payloadBytes >> 3);
    media = mediaScore(media, lookForMedia(flows, place, view, payloadAt, payloadBytes));
    state[at + STATE_MEDIA] = media;
  }
  const kind = kindOf(flows, row);
  const isQuic = kind === KIND_WEB || (kind === 0 && isQuicPort(ports >>> 16, ports & 0xffff));
  const crowd = crowding(state[at + STATE_CROWD], gapUs);
  state[at + STATE_CROWD] = crowd;
  state[at + STATE_STEADY] = steadyScore(
    state[at + STATE_STEADY],
    bytes,
    gapUs,
    crowd,
    isFirst,
    isQuic,
  );
  state[at + STATE_HEAVY] = heavyScore(state[at + STATE_HEAVY], bytes, gapUs);
  const sign = signOfUdp(bytes, isQuic);
  // A call's pictures are full packets in runs, too.
  if (kind !== KIND_CALL || sign !== SIGN_FULL || isCallData(view, payloadAt, payloadBytes)) {
    state[at + STATE_BULK] = bulkScore(state[at + STATE_BULK], UDP, sign, gapUs);
  }
  decide(flows, place, kind, nowUs);
}

function decide({ seenUs, state }: FlowTable, place: number, kind: number, nowUs: number): void {
  const at = STATE_BYTES * place, was = state[at + STATE_CLASS];
  const isHeard = nowUs - seenUs[place ^ 1] >>> 0 <= OTHER_US;
  const now = decideClass(state, at, isHeard ? STATE_BYTES * (place ^ 1) : -1, kind);
  if (now === was) return;
  state[at + STATE_CLASS] = now;
  if ((was === CLASS_GAME || was === CLASS_VOICE) && state[at + STATE_FLIPS] < FLIPS_MAX) {
    state[at + STATE_FLIPS]++;
  }
}

/**
 * The class of a direction's packets, whose last one was just observed: by a rule, else by its own DSCP, else by the other's; else by its own
 * behaviour and ports, or, where these say little, as the other direction's game or call. That the other one is a
 * transfer says nothing: what answers it may be a request.
 */
export function classOfFlow({ ruled, seenUs, state }: FlowTable, place: number, nowUs: number): number {
  if (ruled[place >> 1] !== 0) return ruled[place >> 1] - 1;
  const at = STATE_BYTES * place, other = STATE_BYTES * (place ^ 1);
  const own = state[at + STATE_CLASS], marks = state[other + STATE_MARKS];
  if ((state[at + STATE_MARKS] & FIRM) !== 0 || marks === 0) return own;
  const theirs = state[other + STATE_CLASS];
  const isVague = own === CLASS_DEFAULT || own === CLASS_INTERACTIVE;
  const isHeard = (marks & FIRM) !== 0 || (isVague && isRealTime(theirs));
  return isHeard && nowUs - seenUs[place ^ 1] >>> 0 <= OTHER_US ? theirs : own;
}
