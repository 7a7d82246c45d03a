/**
 * The Port Control Protocol (RFC 6887, version 2: MAP and ANNOUNCE) and NAT-PMP (RFC 6886, version 0), which share UDP port 5351:
 * requests and answers as bytes and as fields, for both ends. Invariant: no length but the datagram's own is believed, and
 * whatever arrives gets at most one answer, of at most PCP_BYTES_MAX bytes. Knows no mapping.
 */
import { isIpv4, mappedBytes } from "./address.ts";
import { transportAt, UDP_HEADER_BYTES } from "./inner.ts";

/** Where servers listen. */
export const PORT_CONTROL_PORT = 5351;
/** RFC 6887 §7: the longest message. */
export const PCP_BYTES_MAX = 1100;
const PCP_VERSION = 2, PMP_VERSION = 0, ANSWER = 0x80;
const PCP_HEADER_BYTES = 24, MAP_BYTES = 36, NONCE_BYTES = 12;
const ANNOUNCE = 0, MAP = 1;
const PMP_ADDRESS = 0, PMP_UDP = 1, PMP_TCP = 2, PMP_BYTES = 12;
const TCP = 6, UDP = 17;
const PREFER_FAILURE = 2;

/** Results of PCP; `pmpResult` has NAT-PMP's. */
export const PCP = {
  success: 0,
  unsupportedVersion: 1,
  notAuthorized: 2,
  malformed: 3,
  unsupportedOpcode: 4,
  unsupportedOption: 5,
  networkFailure: 7,
  noResources: 8,
  unsupportedProtocol: 9,
  userExceeded: 10,
  cannotProvide: 11,
  addressMismatch: 12,
} as const;

/** A wish for a mapping, or for its end when the lifetime is 0. */
export interface MapRequest {
  kind: "map";
  version: 0 | 2;
  protocol: "udp" | "tcp";
  /** The asker's port; 0 in NAT-PMP alone, with a lifetime of 0, for all of the protocol (RFC 6886 §3.4). */
  port: number;
  /** The port outside that it would like; 0 for any. */
  wanted: number;
  lifetimeS: number;
  /** 12 bytes that prove who made the mapping (§11.2); empty for NAT-PMP. */
  nonce: Uint8Array;
  /** Rather an error than another port than `wanted` (option PREFER_FAILURE). */
  isStrict: boolean;
}

/** What a datagram asks for. */
export type PortRequest =
  | MapRequest
  /** NAT-PMP: the address outside. */
  | { kind: "address" }
  /** PCP: the server's epoch. */
  | { kind: "announce" }
  /** An error to answer with; nothing to answer where it is undefined. */
  | { kind: "refused"; answer: Uint8Array | undefined };

/**
 * Reads a request that came from `source` (four words). `epochS` are the seconds since the server last lost its mappings, for
 * answers to what cannot be read.
 */
export function readPortRequest(bytes: Uint8Array, source: Uint32Array, epochS: number): PortRequest {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (bytes.length < 2 || (bytes[1] & ANSWER) !== 0) return { kind: "refused", answer: undefined };
  if (bytes[0] === PMP_VERSION) return readPmp(view, epochS);
  const refuse = (result: number): PortRequest => ({
    kind: "refused",
    answer: pcpError(bytes, result, epochS),
  });
  if (bytes[0] !== PCP_VERSION) return refuse(PCP.unsupportedVersion);
  if (bytes.length < PCP_HEADER_BYTES || bytes.length > PCP_BYTES_MAX || bytes.length % 4 !== 0) {
    return refuse(PCP.malformed);
  }
  if (!mappedBytes(source).every((byte, i) => byte === bytes[8 + i])) return refuse(PCP.addressMismatch);
  if (bytes[1] === ANNOUNCE) return { kind: "announce" };
  if (bytes[1] !== MAP) return refuse(PCP.unsupportedOpcode);
  if (bytes.length < PCP_HEADER_BYTES + MAP_BYTES) return refuse(PCP.malformed);
  const protocol = bytes[36], port = view.getUint16(40), lifetimeS = view.getUint32(4);
  // All protocols, or all ports: only to be ended at once, which nobody here has begun.
  if (protocol !== TCP && protocol !== UDP) return refuse(PCP.unsupportedProtocol);
  if (port === 0) return refuse(lifetimeS === 0 ? PCP.malformed : PCP.unsupportedProtocol);
  let isStrict = false;
  for (let at = PCP_HEADER_BYTES + MAP_BYTES; at < bytes.length;) {
    const code = bytes[at], length = view.getUint16(at + 2);
    const end = at + 4 + Math.ceil(length / 4) * 4;
    if (end > bytes.length) return refuse(PCP.malformed);
    if (code === PREFER_FAILURE) isStrict = true;
    // §7.3: options below 128 must be understood.
    else if (code < 128) return refuse(PCP.unsupportedOption);
    at = end;
  }
  return {
    kind: "map",
    version: 2,
    protocol: protocol === TCP ? "tcp" : "udp",
    port,
    wanted: view.getUint16(42),
    lifetimeS,
    nonce: bytes.slice(24, 24 + NONCE_BYTES),
    isStrict,
  };
}

function readPmp(view: DataView, epochS: number): PortRequest {
  const opcode = view.getUint8(1);
  if (opcode === PMP_ADDRESS && view.byteLength === 2) return { kind: "address" };
  if ((opcode === PMP_UDP || opcode === PMP_TCP) && view.byteLength === PMP_BYTES) {
    const port = view.getUint16(4);
    const request: MapRequest = {
      kind: "map",
      version: 0,
      protocol: opcode === PMP_TCP ? "tcp" : "udp",
      port,
      wanted: view.getUint16(6),
      lifetimeS: view.getUint32(8),
      nonce: new Uint8Array(0),
      isStrict: false,
    };
    if (port !== 0 || request.lifetimeS === 0) return request;
    const refused = { result: PCP.notAuthorized, outer: 0, lifetimeS: 0, address: new Uint32Array(4) };
    return { kind: "refused", answer: writeMapAnswer(request, refused, epochS) };
  }
  const answer = new Uint8Array(8);
  const out = new DataView(answer.buffer);
  answer[1] = ANSWER | opcode;
  out.setUint16(2, 5); // unsupported opcode
  out.setUint32(4, epochS);
  return { kind: "refused", answer };
}

/** RFC 6886 §3.5 for a result of PCP. */
function pmpResult(result: number): number {
  if (result === PCP.success) return 0;
  if (result === PCP.notAuthorized) return 2;
  if (result === PCP.networkFailure) return 3;
  return 4;
}

/** The request turned around (RFC 6887 §8.2), with zeros where it was too short. */
function pcpError(request: Uint8Array, result: number, epochS: number): Uint8Array {
  const length = Math.min(PCP_BYTES_MAX, Math.max(PCP_HEADER_BYTES, request.length - request.length % 4));
  const answer = new Uint8Array(length);
  answer.set(request.subarray(0, length));
  finishHeader(answer, result, epochS, 30);
  return answer;
}

function finishHeader(answer: Uint8Array, result: number, epochS: number, lifetimeS: number): void {
  const view = new DataView(answer.buffer);
  answer[0] = PCP_VERSION;
  answer[1] |= ANSWER;
  answer[2] = 0;
  answer[3] = result;
  view.setUint32(4, lifetimeS);
  view.setUint32(8, epochS);
  answer.fill(0, 12, PCP_HEADER_BYTES);
}

/** What became of a wish: `result` of PCP, and of a mapping its port and address outside and how long it lasts. */
export interface MapOutcome {
  result: number;
  outer: number;
  lifetimeS: number;
  /** The address outside, four words. */
  address: Uint32Array;
}

/** The answer to a wish for a mapping. */
export function writeMapAnswer(request: MapRequest, outcome: MapOutcome, epochS: number): Uint8Array {
  const { result, outer, lifetimeS, address } = outcome;
  if (request.version === PMP_VERSION) {
    const answer = new Uint8Array(16);
    const view = new DataView(answer.buffer);
    answer[1] = ANSWER | (request.protocol === "tcp" ? PMP_TCP : PMP_UDP);
    view.setUint16(2, pmpResult(result));
    view.setUint32(4, epochS);
    view.setUint16(8, request.port);
    view.setUint16(10, result === PCP.success ? outer : 0);
    view.setUint32(12, result === PCP.success ? lifetimeS : 0);
    return answer;
  }
  const answer = writeMapRequest(request, address, new Uint32Array(4));
  finishHeader(answer, result, epochS, lifetimeS);
  if (result === PCP.success) {
    new DataView(answer.buffer).setUint16(42, outer);
    answer.set(mappedBytes(address), 44);
  }
  return answer;
}

/** The answer to NAT-PMP's question for the address outside, four words. */
export function writeAddressAnswer(address: Uint32Array, epochS: number): Uint8Array {
  const answer = new Uint8Array(12);
  const view = new DataView(answer.buffer);
  answer[1] = ANSWER;
  view.setUint16(2, isIpv4(address) ? 0 : 3);
  view.setUint32(4, epochS);
  view.setUint32(8, isIpv4(address) ? address[3] : 0);
  return answer;
}

/** The answer to PCP's ANNOUNCE (§14.1). */
export function writeAnnounceAnswer(epochS: number): Uint8Array {
  const answer = new Uint8Array(PCP_HEADER_BYTES);
  finishHeader(answer, PCP.success, epochS, 0);
  return answer;
}

/** PCP's request for a mapping from an own address; `suggested` is the address outside, or zeros. Both four words. */
export function writeMapRequest(
  { protocol, port, wanted, lifetimeS, nonce }: MapRequest,
  own: Uint32Array,
  suggested: Uint32Array,
): Uint8Array {
  const request = new Uint8Array(PCP_HEADER_BYTES + MAP_BYTES);
  const view = new DataView(request.buffer);
  request[0] = PCP_VERSION;
  request[1] = MAP;
  view.setUint32(4, lifetimeS);
  request.set(mappedBytes(own), 8);
  request.set(nonce.subarray(0, NONCE_BYTES), 24);
  request[36] = protocol === "tcp" ? TCP : UDP;
  view.setUint16(40, port);
  view.setUint16(42, wanted);
  request.set(mappedBytes(suggested), 44);
  return request;
}

/** Reads PCP's answer to a request for a mapping; undefined for anything else. */
export function readMapAnswer(
  bytes: Uint8Array,
  request: MapRequest,
): MapOutcome & { epochS: number } | undefined {
  if (bytes.length < PCP_HEADER_BYTES + MAP_BYTES || bytes.length > PCP_BYTES_MAX) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const isIts = bytes[0] === PCP_VERSION && bytes[1] === (ANSWER | MAP) &&
    request.nonce.every((byte, i) => byte === bytes[24 + i]) &&
    bytes[36] === (request.protocol === "tcp" ? TCP : UDP) && view.getUint16(40) === request.port;
  if (!isIts) return undefined;
  const address = Uint32Array.from([44, 48, 52, 56], (at) => view.getUint32(at));
  return {
    result: bytes[3],
    lifetimeS: view.getUint32(4),
    epochS: view.getUint32(8),
    outer: view.getUint16(42),
    address,
  };
}

/** Whether a whole inner UDP packet of `length` bytes at `at` goes to a port. */
export function isToPort(view: DataView, at: number, length: number, port: number): boolean {
  const segment = transportAt(view, at, length);
  return segment > 0 && segment + UDP_HEADER_BYTES <= at + length && view.getUint16(segment + 2) === port;
}
