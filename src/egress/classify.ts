// Hot path.
/**
 * Third node of egress, OxTunnel's alone: finds each packet's flow and what it is owed, a class by hint, marks, ports or
 * behaviour. Invariant: it changes no packet and drops none; a row that it skips keeps NONE and CLASS_DEFAULT. Decides
 * nothing itself: control/classifier.ts does, from what is read here.
 */
import {
  bulkScore,
  classOfMarks,
  decideClass,
  mediaScore,
  SIGN_ACK,
  signOfTcp,
  signOfUdp,
  steadyScore,
} from "../control/classifier.ts";
import { NO_HINT } from "../session/hints.ts";
import { OXTUNNEL } from "../session/table.ts";
import { NONE } from "../vector/arena.ts";
import { type Burst, TO_SEAL } from "../vector/burst.ts";
import {
  IPV4_HEADER_BYTES,
  IPV6_HEADER_BYTES,
  isFragment,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  protocolOf,
  readDestination,
  readSource,
  transportAt,
  UDP_HEADER_BYTES,
} from "../wire/inner.ts";
import type { EgressContext } from "./context.ts";

/** Of the TCP flags, all but ACK and what ECN needs: FIN, SYN, RST, PSH, URG. */
const TCP_FLAGS_BUT_ACK = 0x2f;
const TCP_HEADER_BYTES = 20;

export function classify(burst: Burst, context: EgressContext, nowUs: number): void {
  const { count, next, session, length, view, offset, flow, trafficClass } = burst;
  const { table, flows, words, associations } = context;
  if (associations.oxtunnel === undefined) return;
  const { hints } = associations.oxtunnel.sessions;
  if (nowUs >= hints.dueUs) hints.expire(nowUs);
  const us = nowUs >>> 0;
  const { seenUs, tos, marks, bulk, steady, media, hint, hintVersion } = flows;
  // Packets come in runs.
  let lastSource = 0, lastDestination = 0, lastPorts = 0, lastProtocol = 0, lastId = NONE;
  for (let row = 0; row < count; row++) {
    if (next[row] !== TO_SEAL || table.protocol[session[row]] !== OXTUNNEL) continue;
    const at = offset[row], bytes = length[row];
    if (bytes < IPV4_HEADER_BYTES) continue;
    const first = view.getUint32(at);
    let protocol: number, transport: number, ports = 0, byte: number, wordCount: number;
    if (first >>> 28 === 4) {
      byte = first >> 16 & 255;
      protocol = view.getUint8(at + 9);
      // A fragment is of its addresses' flow: only the first one has ports.
      transport = (view.getUint16(at + 6) & 0x3fff) !== 0 ? 0 : at + (first >> 24 & 15) * 4;
      words[0] = view.getUint32(at + 12);
      words[1] = view.getUint32(at + 16);
      wordCount = 4;
    } else {
      if (bytes < IPV6_HEADER_BYTES) continue;
      byte = first >> 20 & 255;
      protocol = view.getUint8(at + 6);
      transport = at + IPV6_HEADER_BYTES;
      if (protocol !== PROTOCOL_TCP && protocol !== PROTOCOL_UDP) {
        transport = isFragment(view, at, bytes) ? 0 : transportAt(view, at, bytes);
        protocol = protocolOf(view, at, bytes);
      }
      for (let i = 0; i < 8; i++) words[i] = view.getUint32(at + 8 + 4 * i);
      wordCount = 10;
    }
    const room = transport === 0 ? 0 : at + bytes - transport;
    if (room >= 4 && (protocol === PROTOCOL_TCP || protocol === PROTOCOL_UDP)) {
      ports = view.getUint32(transport);
    }
    const source = words[wordCount - 4], destination = words[wordCount - 3];
    let id = lastId, isNew = false;
    if (
      wordCount !== 4 || source !== lastSource || destination !== lastDestination || ports !== lastPorts ||
      protocol !== lastProtocol || id === NONE
    ) {
      words[wordCount - 2] = ports;
      words[wordCount - 1] = protocol;
      id = flows.find(words, wordCount, us);
      isNew = flows.isNew;
      lastSource = source;
      lastDestination = destination;
      lastPorts = ports;
      lastProtocol = protocol;
      lastId = wordCount === 4 ? id : NONE;
    }
    const gapUs = isNew ? 0 : us - seenUs[id] >>> 0;
    seenUs[id] = us;
    if (isNew || tos[id] !== byte) {
      tos[id] = byte;
      marks[id] = classOfMarks(byte >> 2, protocol, ports >>> 16, ports & 0xffff);
      if (isNew) flows.trafficClass[id] = marks[id] & 7;
    }
    let sign = SIGN_ACK;
    if (protocol === PROTOCOL_TCP) {
      sign = signOfTcp(bytes, room < TCP_HEADER_BYTES || acknowledgesOnly(view, transport, room));
    } else if (protocol === PROTOCOL_UDP) {
      sign = signOfUdp(bytes, ports >>> 16, ports & 0xffff);
      if (room > UDP_HEADER_BYTES) {
        media[id] = mediaScore(media[id], view.getUint8(transport + UDP_HEADER_BYTES));
      }
      steady[id] = steadyScore(steady[id], sign, bytes, gapUs);
    }
    bulk[id] = bulkScore(bulk[id], protocol, sign, gapUs);
    const version = hints.version[session[row]];
    if (isNew ? version !== 0 : hintVersion[id] !== version) {
      hintVersion[id] = version;
      hint[id] = hintFor(context, burst, row, protocol, ports);
    }
    const decided = version !== 0 && hint[id] !== NO_HINT
      ? hint[id]
      : decideClass(marks[id], flows.trafficClass[id], bulk[id], steady[id], media[id]);
    flows.trafficClass[id] = decided;
    flow[row] = id;
    trafficClass[row] = decided;
  }
}

/** Whether the TCP segment of `room` bytes has no data and no flag but ACK and ECN's (RFC 9293 §3.1, RFC 3168 §6.1). */
function acknowledgesOnly(view: DataView, transport: number, room: number): boolean {
  const offsetAndFlags = view.getUint16(transport + 12);
  return (offsetAndFlags >> 12) * 4 === room && (offsetAndFlags & TCP_FLAGS_BUT_ACK) === 0;
}

/** The class that was wished for the packet; rare: for new flows, and when what was wished has changed. */
function hintFor(
  { associations, ends }: EgressContext,
  { view, offset, session }: Burst,
  row: number,
  protocol: number,
  ports: number,
): number {
  readSource(view, offset[row], ends, 0);
  readDestination(view, offset[row], ends, 4);
  return associations.oxtunnel!.sessions.hints.classOf(session[row], protocol, ports, ends);
}
