/**
 * Puts inner fragments together (RFC 791 §3.2, RFC 8200 §4.5) for an exit that can send only whole datagrams.
 * Invariant: at most 1024 datagrams of at most 16 KB wait, 128 of them from one source, 15 s each, oldest out
 * first; fragments that overlap or contradict each other about the end discard their datagram (RFC 5722).
 */
import { MAX_PACKET_BYTES } from "../vector/arena.ts";
import { type Burst, BURST_CAPACITY } from "../vector/burst.ts";
import { foldSum, fragmentHeader, IPV4_HEADER_BYTES, IPV6_HEADER_BYTES, sumWords } from "../wire/inner.ts";

const DATAGRAMS_MAX = 1024;
/** A burst may hold so many that were cut in two, all first pieces before all second ones. */
const DATAGRAMS_PER_SOURCE = BURST_CAPACITY / 2;
const BYTES_MAX = 16384;
const PIECES_MAX = 64;
const TIMEOUT_US = 15_000_000;

interface Partial {
  /** The first fragment's header, rewritten for the whole. */
  header: Uint8Array | undefined;
  pieces: { at: number; bytes: Uint8Array }[];
  total: number;
  startedUs: number;
  source: string;
}

export class Reassembly {
  readonly #partials = new Map<string, Partial>();
  /** How many of them each source has. */
  readonly #counts = new Map<string, number>();

  /** Adds a fragment (copied); returns the whole packet when it is complete. */
  add(packet: Uint8Array, nowUs: number): Uint8Array<ArrayBuffer> | undefined {
    const view = new DataView(packet.buffer, packet.byteOffset, packet.length);
    const v4 = packet[0] >> 4 === 4;
    const found = v4 ? 0 : fragmentHeader(view, 0, packet.length);
    const field = v4 ? view.getUint16(6) : view.getUint16(found + 2);
    const at = v4 ? (field & 0x1fff) * 8 : field & 0xfff8;
    const more = v4 ? (field & 0x2000) !== 0 : (field & 1) !== 0;
    const bodyAt = v4 ? (packet[0] & 15) * 4 : found + 8;
    const body = packet.slice(bodyAt);
    if (at + body.length > BYTES_MAX || (more && body.length % 8 !== 0) || body.length === 0) {
      return undefined;
    }
    const source = v4 ? `${view.getUint32(12)}` : packet.slice(8, 24).join();
    const key = v4
      ? `${source} ${view.getUint32(16)} ${view.getUint16(4)} ${packet[9]}`
      : `${source} ${packet.slice(24, 40).join()} ${view.getUint32(found + 4)}`;
    let partial = this.#partials.get(key);
    if (!partial) {
      this.#makeRoom(source);
      partial = { header: undefined, pieces: [], total: -1, startedUs: nowUs, source };
      this.#partials.set(key, partial);
      this.#counts.set(source, 1 + (this.#counts.get(source) ?? 0));
    }
    const end = at + body.length;
    const overlaps = partial.pieces.some((piece) => at < piece.at + piece.bytes.length && piece.at < end);
    // Without this the sizes could add up to the total with a hole inside and a piece beyond the end.
    const contradicts = partial.total >= 0
      ? !more || end > partial.total
      : !more && partial.pieces.some((piece) => piece.at + piece.bytes.length > end);
    if (overlaps || contradicts || partial.pieces.length >= PIECES_MAX) {
      this.#delete(key, partial);
      return undefined;
    }
    partial.pieces.push({ at, bytes: body });
    if (!more) partial.total = end;
    if (at === 0) {
      partial.header = v4 ? packet.slice(0, IPV4_HEADER_BYTES) : packet.slice(0, IPV6_HEADER_BYTES);
    }
    if (at === 0 && !v4) partial.header![6] = packet[found];
    const have = partial.pieces.reduce((sum, piece) => sum + piece.bytes.length, 0);
    if (!partial.header || have !== partial.total) return undefined;
    this.#delete(key, partial);
    return join(partial.header, partial, v4);
  }

  /**
   * The same for the fragment in a row of a burst: the whole packet takes its place once it is complete, if a slot takes
   * it. Returns whether it has.
   */
  addRow({ bytes, offset, length }: Burst, row: number, nowUs: number): boolean {
    const at = offset[row];
    const whole = this.add(bytes.subarray(at, at + length[row]), nowUs);
    if (whole === undefined || whole.length > MAX_PACKET_BYTES) return false;
    bytes.set(whole, at);
    length[row] = whole.length;
    return true;
  }

  /** A source that has its share loses its own oldest, so that no client can push out another's. */
  #makeRoom(source: string): void {
    const isGreedy = (this.#counts.get(source) ?? 0) >= DATAGRAMS_PER_SOURCE;
    if (!isGreedy && this.#partials.size < DATAGRAMS_MAX) return;
    for (const [key, partial] of this.#partials) {
      if (isGreedy && partial.source !== source) continue;
      this.#delete(key, partial);
      return;
    }
  }

  #delete(key: string, { source }: Partial): void {
    this.#partials.delete(key);
    const left = this.#counts.get(source)! - 1;
    if (left > 0) this.#counts.set(source, left);
    else this.#counts.delete(source);
  }

  expire(nowUs: number): void {
    for (const [key, partial] of this.#partials) {
      if (nowUs - partial.startedUs >= TIMEOUT_US) this.#delete(key, partial);
    }
  }
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
