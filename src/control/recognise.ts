// Hot path.
/**
 * Recognises the application of a flow: by points of the patterns that match its first payloads, and RTP by sources whose packets
 * follow one another. Invariant: no more than eight payloads of a direction are matched, and no more than the first 64 bytes
 * of a payload are read. Knows no classes (classifier.ts).
 */
import { APPLICATIONS, COMBINED, type Signature, SIGNATURES } from "./applications.ts";
import { MEDIA_MAYBE, MEDIA_NONE, MEDIA_SURE } from "./classifier.ts";
import { type FlowTable, SOURCE_WORDS } from "./flows.ts";
import { type Pattern, Signatures } from "./signatures.ts";

/** Most payloads of a direction that are matched. */
export const LOOKS_MAX = 8;
/** Points at which a flow is recognised. */
export const POINTS_TAKEN = 4;

const KIND = Uint8Array.from(APPLICATIONS, kindOfEntry);
const RANK = Uint8Array.from(APPLICATIONS, rankOfEntry);
const signatures = new Signatures(SIGNATURES.map(patternOf));
/** The application that two together mean, at 256 times one's number plus the other's; 0 for none. */
const combined = combine();

function kindOfEntry(entry: readonly [string, number, number]): number {
  return entry[1];
}

function rankOfEntry(entry: readonly [string, number, number]): number {
  return entry[2];
}

/** The number of a name in APPLICATIONS. Throws RangeError for an unknown name: an error in the tables. */
export function applicationOf(name: string): number {
  for (let i = 0; i < APPLICATIONS.length; i++) if (APPLICATIONS[i][0] === name) return i;
  throw new RangeError(`"${name}" is not in the table of applications`);
}

/** A row of SIGNATURES in the form that `Signatures` compiles. */
export function patternOf(signature: Signature): Pattern {
  const { points, bytes, at, min, max, ports, length } = signature;
  return { app: applicationOf(signature.app), points, bytes, at, min, max, ports, length };
}

function combine(): Uint8Array {
  const both = new Uint8Array(1 << 16);
  for (let i = 0; i < COMBINED.length; i++) {
    const one = applicationOf(COMBINED[i][0]), other = applicationOf(COMBINED[i][1]);
    both[one << 8 | other] = both[other << 8 | one] = applicationOf(COMBINED[i][2]);
  }
  return both;
}

/** KIND_* of what the flow is recognised as, KIND_UNKNOWN while that is not sure. */
export function kindOf(flows: FlowTable, row: number): number {
  return flows.points[row] >= POINTS_TAKEN ? KIND[flows.application[row]] : 0;
}

/** Looks at one more payload, of `bytes` (1 or more) at `at`. @param ports two of 16 bits. */
export function recognise(
  flows: FlowTable,
  row: number,
  view: DataView,
  at: number,
  bytes: number,
  ports: number,
): void {
  const patterns = flows.patterns ?? signatures;
  const found = patterns.find(view, at, bytes, ports >>> 16, ports & 0xffff);
  if (found < 0) return;
  let app = patterns.app[found];
  const points = patterns.points[found], { application } = flows;
  const was = application[row], had = flows.points[row];
  if (had >= POINTS_TAKEN) {
    if (points < POINTS_TAKEN || app === was) return;
    if (combined[was << 8 | app] !== 0) app = combined[was << 8 | app];
    if (RANK[app] > RANK[was]) application[row] = app;
  } else if (app === was) flows.points[row] = Math.min(POINTS_TAKEN, had + points);
  else if (points >= had) {
    application[row] = app;
    flows.points[row] = points;
  }
}

/** Steps of a sequence number that a source may make between two packets of which others were lost or overtaken. */
const STEP_MAX = 256, STEP_BACK_MAX = 16;
/** Steps of a timestamp: some minutes of silence at 48 or 90 kHz. */
const TIMESTAMP_STEP_MAX = 1 << 24;
/** RTCP's packet types (RFC 3550 §12.1, RFC 4585), and more for what programs make of their own. */
const RTCP_FROM = 200, RTCP_TO = 211;
/** In place of a sequence number, of a source that RTCP alone has named. */
const NO_SEQUENCE = 0x10000;

/**
 * What the payload of `bytes` (1 or more) at `at` shows of RTP and RTCP (RFC 3550 §5.1 and §6.1, SRTP alike); keeps source,
 * sequence number and timestamp.
 */
export function lookForMedia(
  flows: FlowTable,
  place: number,
  view: DataView,
  at: number,
  bytes: number,
): number {
  let here = at, left = bytes;
  // Behind TURN's channel number and length (RFC 8656 §12.4).
  if (bytes > 16 && view.getUint8(at) >> 4 === 4 && view.getUint16(at + 2) === bytes - 4) {
    here += 4;
    left -= 4;
  }
  if (view.getUint8(here) >> 6 !== 2 || left < 8) return MEDIA_NONE;
  const type = view.getUint8(here + 1);
  if (type >= RTCP_FROM && type <= RTCP_TO) {
    if (4 * view.getUint16(here + 2) + 4 > left) return MEDIA_NONE;
    const source = view.getUint32(here + 4);
    if (slotOf(flows, place, source) >= 0) return MEDIA_SURE;
    keepSource(flows, place, source, NO_SEQUENCE, 0);
    return MEDIA_MAYBE;
  }
  if (left < 12) return MEDIA_NONE;
  const source = view.getUint32(here + 8), sequence = view.getUint16(here + 2);
  const timestamp = view.getUint32(here + 4), slot = slotOf(flows, place, source);
  if (slot < 0) {
    keepSource(flows, place, source, sequence, timestamp);
    return MEDIA_MAYBE;
  }
  const { sources } = flows, last = sources[slot + 1];
  const step = sequence - last & 0xffff, later = Math.abs(timestamp - sources[slot + 2] | 0);
  sources[slot + 1] = sequence;
  sources[slot + 2] = timestamp;
  // A copy of the last packet shows nothing.
  if (last === NO_SEQUENCE || step === 0 || later >= TIMESTAMP_STEP_MAX) return MEDIA_MAYBE;
  return step <= STEP_MAX || step >= 0x10000 - STEP_BACK_MAX ? MEDIA_SURE : MEDIA_MAYBE;
}

/** Where the source is kept, or -1; 0, which is what mostly zeros show, is none. */
function slotOf({ sources }: FlowTable, place: number, source: number): number {
  const first = SOURCE_WORDS * place;
  if (source === 0) return -1;
  return sources[first] === source ? first : sources[first + 3] === source ? first + 3 : -1;
}

/** Keeps a source in place of the older one of the two. */
function keepSource(
  { sources }: FlowTable,
  place: number,
  source: number,
  sequence: number,
  timestamp: number,
): void {
  const first = SOURCE_WORDS * place;
  for (let i = 0; i < 3; i++) sources[first + 3 + i] = sources[first + i];
  sources[first] = source;
  sources[first + 1] = sequence;
  sources[first + 2] = timestamp;
}

/** DTLS's application data (RFC 6347 §4.1): what a call's connection carries beside its media. */
const DTLS_DATA = 23;

/** Whether a full packet of a call is part of a transfer: data of DTLS, also behind TURN's channels, and no media. */
export function isCallData(view: DataView, at: number, bytes: number): boolean {
  const first = view.getUint8(at);
  return first === DTLS_DATA || (first >> 4 === 4 && bytes > 4 && view.getUint8(at + 4) === DTLS_DATA);
}
