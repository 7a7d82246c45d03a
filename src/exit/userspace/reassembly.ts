/**
 * Puts inner fragments together (RFC 791 §3.2, RFC 8200 §4.5) for an exit that can send only whole datagrams.
 * Invariant: at most 1024 datagrams and 16 MB wait, 128 of them and 2 MB from one peer, 15 s each, and the oldest
 * is dropped first; fragments that overlap or disagree about the end discard their datagram (RFC 5722). Each dropped datagram
 * is reported once.
 */
import { MAX_PACKET_BYTES, NONE } from "../../vector/arena.ts";
import { type Burst, BURST_CAPACITY } from "../../vector/burst.ts";
import { type Prefix, prefixContains } from "../../wire/address.ts";
import {
  foldSum,
  fragmentHeader,
  IPV4_HEADER_BYTES,
  IPV6_HEADER_BYTES,
  readSource,
  sumWords,
} from "../../wire/inner.ts";
import { ownerOf } from "./owner.ts";

const DATAGRAMS_MAX = 1024;
/** The datagrams in two fragments that a burst can hold, if all first fragments come before all second ones. */
const DATAGRAMS_PER_OWNER = BURST_CAPACITY / 2;
const WAITING_BYTES_MAX = 16 << 20, WAITING_BYTES_PER_OWNER = 2 << 20;
/** The largest body that an IPv4 packet has room for, and an IPv6 packet. */
const BODY_BYTES_IPV4 = 65535 - IPV4_HEADER_BYTES, BODY_BYTES_IPV6 = 65535;
/** The fragments of the largest datagram in the smallest packets of a tunnel. */
const PIECES_MAX = 128;
const TIMEOUT_US = 15_000_000;

interface Partial {
  /** The datagram's first fragment, whole. */
  first: Uint8Array | undefined;
  /** Its header, rewritten for the whole. */
  header: Uint8Array | undefined;
  pieces: { at: number; bytes: Uint8Array }[];
  total: number;
  startedUs: number;
  owner: string;
  /** The inner source address. */
  from: Uint32Array<ArrayBuffer>;
  bytes: number;
}

/** Count and bytes of one owner's datagrams. */
interface Held {
  datagrams: number;
  bytes: number;
}

export class Reassembly {
  readonly #partials = new Map<string, Partial>();
  readonly #owners = new Map<string, Held>();
  #bytes = 0;
  readonly #onLost: (expired: Uint8Array | undefined) => void;

  /**
   * @param onLost called for each dropped datagram; on a timeout with the first fragment, if that has arrived, because the
   * sender may be told (RFC 792, RFC 4443 §3.3).
   */
  constructor(onLost: (expired: Uint8Array | undefined) => void = () => {}) {
    this.#onLost = onLost;
  }

  /** Adds a fragment (copied) of a peer's row; returns the whole packet when it is complete. */
  add(packet: Uint8Array, nowUs: number, peer: number = NONE): Uint8Array<ArrayBuffer> | undefined {
    const view = new DataView(packet.buffer, packet.byteOffset, packet.length);
    const v4 = packet[0] >> 4 === 4;
    const found = v4 ? 0 : fragmentHeader(view, 0, packet.length);
    const field = v4 ? view.getUint16(6) : view.getUint16(found + 2);
    const at = v4 ? (field & 0x1fff) * 8 : field & 0xfff8;
    const more = v4 ? (field & 0x2000) !== 0 : (field & 1) !== 0;
    const bodyAt = v4 ? (packet[0] & 15) * 4 : found + 8;
    const body = packet.slice(bodyAt);
    const source = v4 ? `${view.getUint32(12)}` : packet.slice(8, 24).join();
    const key = v4
      ? `${source} ${view.getUint32(16)} ${view.getUint16(4)} ${packet[9]}`
      : `${source} ${packet.slice(24, 40).join()} ${view.getUint32(found + 4)}`;
    const owner = ownerOf(peer, source);
    let partial = this.#partials.get(key);
    const end = at + body.length;
    const isMalformed = end > (v4 ? BODY_BYTES_IPV4 : BODY_BYTES_IPV6) || (more && body.length % 8 !== 0) ||
      body.length === 0;
    if (isMalformed || (partial !== undefined && spoils(partial, at, end, more))) {
      if (partial !== undefined) this.#delete(key, partial);
      this.#onLost(undefined);
      return undefined;
    }
    const bytes = body.length + (at === 0 ? packet.length : 0);
    this.#makeRoom(owner, key, partial === undefined, bytes);
    partial ??= this.#begin(key, owner, sourceOf(view), nowUs);
    partial.pieces.push({ at, bytes: body });
    partial.bytes += bytes;
    this.#bytes += bytes;
    this.#owners.get(owner)!.bytes += bytes;
    if (!more) partial.total = end;
    if (at === 0) {
      partial.first = packet.slice();
      partial.header = packet.slice(0, v4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES);
      if (!v4) partial.header[6] = packet[found];
    }
    const have = partial.pieces.reduce((sum, piece) => sum + piece.bytes.length, 0);
    if (!partial.header || have !== partial.total) return undefined;
    this.#delete(key, partial);
    return join(partial.header, partial, v4);
  }

  /**
   * The same for the fragment in a row of a burst: once complete, the whole packet replaces the fragment, if it fits a
   * slot. Returns whether it did.
   */
  addRow({ bytes, offset, length, peer }: Burst, row: number, nowUs: number): boolean {
    const at = offset[row];
    const whole = this.add(bytes.subarray(at, at + length[row]), nowUs, peer[row]);
    if (whole === undefined || whole.length > MAX_PACKET_BYTES) return false;
    bytes.set(whole, at);
    length[row] = whole.length;
    return true;
  }

  #begin(key: string, owner: string, from: Uint32Array<ArrayBuffer>, startedUs: number): Partial {
    const partial: Partial = {
      first: undefined,
      header: undefined,
      pieces: [],
      total: -1,
      startedUs,
      owner,
      from,
      bytes: 0,
    };
    this.#partials.set(key, partial);
    const held = this.#owners.get(owner) ?? { datagrams: 0, bytes: 0 };
    held.datagrams++;
    this.#owners.set(owner, held);
    return partial;
  }

  /** Drops the oldest datagrams of an owner at its share, so that no client displaces another's; never the one at `kept`. */
  #makeRoom(owner: string, kept: string, isNew: boolean, bytes: number): void {
    for (const [key, partial] of this.#partials) {
      const held = this.#owners.get(owner) ?? { datagrams: 0, bytes: 0 };
      const isGreedy = (isNew && held.datagrams >= DATAGRAMS_PER_OWNER) ||
        held.bytes + bytes > WAITING_BYTES_PER_OWNER;
      const isFull = (isNew && this.#partials.size >= DATAGRAMS_MAX) ||
        this.#bytes + bytes > WAITING_BYTES_MAX;
      if (!isGreedy && !isFull) return;
      if (key === kept || (isGreedy && partial.owner !== owner)) continue;
      this.#delete(key, partial);
      this.#onLost(undefined);
    }
  }

  #delete(key: string, { owner, bytes }: Partial): void {
    this.#partials.delete(key);
    this.#bytes -= bytes;
    const held = this.#owners.get(owner)!;
    held.datagrams--;
    held.bytes -= bytes;
    if (held.datagrams === 0) this.#owners.delete(owner);
  }

  /** Drops the waiting datagrams of these sources. */
  forget(prefix: Prefix): void {
    for (const [key, partial] of this.#partials) {
      if (!prefixContains(prefix, partial.from)) continue;
      this.#delete(key, partial);
      this.#onLost(undefined);
    }
  }

  expire(nowUs: number): void {
    for (const [key, partial] of this.#partials) {
      if (nowUs - partial.startedUs < TIMEOUT_US) continue;
      this.#delete(key, partial);
      this.#onLost(partial.first);
    }
  }
}

function sourceOf(view: DataView<ArrayBufferLike>): Uint32Array<ArrayBuffer> {
  const words = new Uint32Array(4);
  readSource(view, 0, words, 0);
  return words;
}

/** Whether a fragment overlaps others of its datagram, disagrees about the end, or exceeds the number allowed. */
function spoils({ pieces, total }: Partial, at: number, end: number, more: boolean): boolean {
  const overlaps = pieces.some((piece) => at < piece.at + piece.bytes.length && piece.at < end);
  // Without this check the sizes could add up to the total with a hole inside and a fragment beyond the end.
  const contradicts = total >= 0
    ? !more || end > total
    : !more && pieces.some((piece) => piece.at + piece.bytes.length > end);
  return overlaps || contradicts || pieces.length >= PIECES_MAX;
}

function join(header: Uint8Array, partial: Partial, v4: boolean): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(header.length + partial.total);
  whole.set(header);
  for (const { at, bytes } of partial.pieces) whole.set(bytes, header.length + at);
  const view = new DataView(whole.buffer);
  if (v4) {
    view.setUint8(0, 0x45);
    view.setUint16(2, whole.length);
    view.setUint16(6, 0);
    view.setUint16(10, 0);
    view.setUint16(10, foldSum(sumWords(view, 0, IPV4_HEADER_BYTES, 0)));
  } else {
    view.setUint16(4, partial.total);
  }
  return whole;
}
