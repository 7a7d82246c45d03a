// Hot path.
/**
 * What both ends know of a flow's headers (PROTOCOL §13, short packets): the octets that stay the same, and which of the
 * others travel. A template is read from one whole packet, the definition. Invariant: `rebuild` makes of a short packet
 * that `shorten` made exactly the packet that went in, but for the identification of an IPv4 packet with DF; a packet that
 * could not come back so is not shortened. There is no state that a packet changes, so loss and reordering damage nothing.
 * Keeps PROTOCOL R106.
 */
import {
  IPV4_HEADER_BYTES,
  IPV6_HEADER_BYTES,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  UDP_HEADER_BYTES,
} from "../../wire/inner.ts";
import { ANCHOR, ANCHOR_BEFORE, ANCHOR_WINDOW, SEVEN, TWELVE } from "./anchors.ts";
import { isSameFlow } from "./flows.ts";

/** Kinds of templates: two bits of a definition. */
export const PROFILE_UDP = 0, PROFILE_RTP = 1, PROFILE_TCP = 2;
const PROFILES = 3;
/** Set in a definition whose short packets carry UDP's checksum, because it is not worth computing twice. */
export const CHECKSUM_TRAVELS = 4;

export const RTP_BYTES = 12;
const TCP_BYTES = 20;
const TIMESTAMP_OPTION_BYTES = 12;
/** No-operation twice, then the time stamps option of 10 octets (RFC 7323 3.2). */
const TIMESTAMP_OPTION = 0x0101080a;
/** Longest headers that a template has: IPv6, TCP, time stamps. */
export const HEADERS_BYTES_MAX = IPV6_HEADER_BYTES + TCP_BYTES + TIMESTAMP_OPTION_BYTES;
/** Longest fields of a short packet: TCP's flags, numbers, window, checksum and time stamps, behind an identification. */
export const FIELDS_BYTES_MAX = 2 + 1 + 4 + 4 + 2 + 2 + 8;

/** Sequence numbers of RTP that 12 bits tell apart from the definition's: these many before it, the rest behind. */
const RTP_BEFORE = 64;
const RTP_WINDOW = 1 << 12;
/** Bits of RTP's field of two octets; the field of one octet has the first of them clear, and seven bits of the number. */
const RTP_LONG = 0x8000, RTP_MARKER = 0x4000, RTP_HAS_TIMESTAMP = 0x2000, RTP_ANCHOR = 0x1000;

/** Octets of an RTP flow's line in a definition. */
export const LINE_BYTES = 10;

/** The packet cannot be rebuilt from the template and any fields. */
export const CHANGED = -1;

export class Template {
  profile = PROFILE_UDP;
  checksumTravels = false;
  /** Octets of the headers, IP's and all. */
  headerBytes = 0;
  readonly bytes = new Uint8Array(HEADERS_BYTES_MAX);
  readonly #view = new DataView(this.bytes.buffer);
  #ipBytes = IPV4_HEADER_BYTES;
  /** An IPv4 packet without DF needs its identification. */
  #idTravels = false;
  /** UDP without a checksum. */
  #isUnchecked = false;
  /** Sums (RFC 1071) of what is the same in each packet: IPv4's header without length, identification and checksum; and of UDP, ports and pseudo-header without the length. */
  #ipSum = 0;
  #udpSum = 0;
  /** RTP: time stamp units from one sequence number to the next. */
  stride = 0;
  /** RTP: how `shorten` writes the next packet's sequence number (SEVEN, TWELVE, ANCHOR), unless that needs more. */
  form = TWELVE;
  /** RTP: the number by which `rebuild` reads the next packet's seven bits. */
  anchor = 0;

  /**
   * Reads a definition's packet: `length` octets at `at` that `innerLength` has vouched for. `kind` is a profile, with
   * CHECKSUM_TRAVELS or without. False if the packet is none of the kind, or no template at all.
   */
  define(view: DataView, at: number, length: number, kind: number): boolean {
    this.profile = kind & 3;
    this.checksumTravels = (kind & CHECKSUM_TRAVELS) !== 0;
    if (this.profile >= PROFILES || (kind & ~7) !== 0) return false;
    const isFour = view.getUint8(at) >> 4 === 4;
    this.#ipBytes = isFour ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES;
    if (isFour && (view.getUint8(at) !== 0x45 || (view.getUint16(at + 6) & 0xbfff) !== 0)) return false;
    const protocol = view.getUint8(at + (isFour ? 9 : 6));
    if (protocol !== (this.profile === PROFILE_TCP ? PROTOCOL_TCP : PROTOCOL_UDP)) return false;
    this.#idTravels = isFour && (view.getUint8(at + 6) & 0x40) === 0;
    const upper = at + this.#ipBytes;
    const least = this.profile === PROFILE_TCP
      ? TCP_BYTES
      : UDP_HEADER_BYTES + (this.profile === PROFILE_RTP ? RTP_BYTES : 0);
    if (length < this.#ipBytes + least) return false;
    this.headerBytes = this.#ipBytes + least;
    if (this.profile === PROFILE_TCP) {
      const words = view.getUint8(upper + 12);
      if (words === 0x80 && length >= this.headerBytes + TIMESTAMP_OPTION_BYTES) {
        this.headerBytes += TIMESTAMP_OPTION_BYTES;
        if (view.getUint32(upper + TCP_BYTES) !== TIMESTAMP_OPTION) return false;
      } else if (words !== 0x50) return false;
    } else this.#isUnchecked = isFour && view.getUint16(upper + 6) === 0;
    for (let i = 0; i < this.headerBytes; i++) this.bytes[i] = view.getUint8(at + i);
    this.#sumConstants();
    return true;
  }

  #sumConstants(): void {
    const own = this.#view, ip = this.#ipBytes;
    const addresses = sum16(own, ip === IPV4_HEADER_BYTES ? 12 : 8, ip === IPV4_HEADER_BYTES ? 8 : 32);
    this.#ipSum = own.getUint16(0) + own.getUint16(6) + own.getUint16(8) + addresses;
    this.#udpSum = addresses + PROTOCOL_UDP + sum16(own, ip, 4);
  }

  /** The checksum of the UDP datagram of `bytes` octets at `at`, as it is written: never 0. */
  #udpChecksum(view: DataView, at: number, bytes: number): number {
    const payload = sum16(view, at + UDP_HEADER_BYTES, bytes - UDP_HEADER_BYTES);
    const sum = fold(this.#udpSum + 2 * bytes + payload);
    return sum === 0xffff ? 0xffff : ~sum & 0xffff;
  }

  /** The checksum of the IPv4 header of a packet of `length` octets. */
  #ipChecksum(length: number, id: number): number {
    return ~fold(this.#ipSum + length + id) & 0xffff;
  }

  /** Writes RTP's line at `at`, LINE_BYTES octets: stride, sequence number, time stamp. */
  writeLine(view: DataView, at: number): void {
    const rtp = this.headerBytes - RTP_BYTES;
    view.setUint32(at, this.stride);
    view.setUint16(at + 4, this.#view.getUint16(rtp + 2));
    view.setUint32(at + 6, this.#view.getUint32(rtp + 4));
  }

  /** Takes RTP's line over from `at`; call after `define`, whose packet may be any of the flow. */
  readLine(view: DataView, at: number): void {
    const rtp = this.headerBytes - RTP_BYTES;
    this.stride = view.getUint32(at);
    this.#view.setUint16(rtp + 2, view.getUint16(at + 4));
    this.#view.setUint32(rtp + 4, view.getUint32(at + 6));
  }

  /** Whether addresses, ports and protocol are those of the packet at `at`. */
  isFlowOf(view: DataView, at: number): boolean {
    return isSameFlow(view, at, this.#view);
  }

  /**
   * Writes what a short packet carries in place of its headers at `to`, at most FIELDS_BYTES_MAX octets, and gives their
   * number; CHANGED if the packet (of this flow) cannot be rebuilt from them. `view` holds the packet, `length` octets at
   * `at`; the headers themselves are not touched, if `to` does not lie in them.
   */
  shorten(view: DataView, at: number, length: number, out: DataView, to: number): number {
    if (!this.#isIpSame(view, at, length)) return CHANGED;
    let here = to;
    if (this.#idTravels) {
      out.setUint16(here, view.getUint16(at + 4));
      here += 2;
    }
    const upper = at + this.#ipBytes;
    if (this.profile === PROFILE_TCP) return this.#shortenTcp(view, upper, length, out, here, to);
    const udpBytes = length - this.#ipBytes;
    if (udpBytes < this.headerBytes - this.#ipBytes || view.getUint16(upper + 4) !== udpBytes) return CHANGED;
    const checksum = view.getUint16(upper + 6);
    if (this.checksumTravels) {
      out.setUint16(here, checksum);
      here += 2;
    } else if (checksum !== (this.#isUnchecked ? 0 : this.#udpChecksum(view, upper, udpBytes))) {
      return CHANGED;
    }
    return this.profile === PROFILE_RTP
      ? this.#shortenRtp(view, upper + UDP_HEADER_BYTES, out, here, to)
      : here - to;
  }

  /** Whether all that `rebuild` takes from the template, or computes, is in the packet. */
  #isIpSame(view: DataView, at: number, length: number): boolean {
    const own = this.#view;
    if (this.#ipBytes === IPV4_HEADER_BYTES) {
      return view.getUint16(at) === own.getUint16(0) && view.getUint16(at + 6) === own.getUint16(6) &&
        view.getUint8(at + 8) === this.bytes[8] && view.getUint16(at + 2) === length &&
        view.getUint16(at + 10) === this.#ipChecksum(length, view.getUint16(at + 4));
    }
    return view.getUint32(at) === own.getUint32(0) && view.getUint8(at + 7) === this.bytes[7] &&
      view.getUint16(at + 4) === length - IPV6_HEADER_BYTES;
  }

  #shortenRtp(view: DataView, at: number, out: DataView, to: number, from: number): number {
    const own = this.#view, rtp = this.headerBytes - RTP_BYTES;
    if (view.getUint8(at) !== this.bytes[rtp] || view.getUint32(at + 8) !== own.getUint32(rtp + 8)) {
      return CHANGED;
    }
    if (((view.getUint8(at + 1) ^ this.bytes[rtp + 1]) & 0x7f) !== 0) return CHANGED;
    const steps = (view.getUint16(at + 2) - own.getUint16(rtp + 2)) << 16 >> 16;
    if (steps < -RTP_BEFORE || steps >= RTP_WINDOW - RTP_BEFORE) return CHANGED;
    const timestamp = view.getUint32(at + 4);
    const isOnLine = timestamp === (own.getUint32(rtp + 4) + Math.imul(steps, this.stride)) >>> 0;
    const marker = view.getUint8(at + 1) >= 0x80 ? RTP_MARKER : 0, number = view.getUint16(at + 2);
    if (this.form === SEVEN && isOnLine && marker === 0) {
      out.setUint8(to, number & (ANCHOR_WINDOW - 1));
      return to + 1 - from;
    }
    const flags = RTP_LONG | marker | (isOnLine ? 0 : RTP_HAS_TIMESTAMP) |
      (this.form === ANCHOR ? RTP_ANCHOR : 0);
    out.setUint16(to, flags | (number & (RTP_WINDOW - 1)));
    if (isOnLine) return to + 2 - from;
    out.setUint32(to + 2, timestamp);
    return to + 6 - from;
  }

  /** Whether the next packets of an RTP flow want a new definition: the last one's numbers end, or its line. */
  isWorn(view: DataView, at: number): boolean {
    if (this.profile !== PROFILE_RTP) return false;
    const rtp = this.headerBytes - RTP_BYTES;
    const steps = (view.getUint16(at + rtp + 2) - this.#view.getUint16(rtp + 2)) & 0xffff;
    return steps >= RTP_WINDOW / 2 && steps < 0x8000;
  }

  #shortenTcp(view: DataView, at: number, length: number, out: DataView, to: number, from: number): number {
    const tcp = this.#ipBytes;
    const own = this.#view;
    // Data offset and reserved bits as defined; no urgent pointer; ACK, as all segments but the first have.
    if (view.getUint8(at + 12) !== this.bytes[tcp + 12] || view.getUint16(at + 18) !== 0) return CHANGED;
    const flags = view.getUint8(at + 13);
    if ((flags & 0x10) === 0 || length < this.headerBytes) return CHANGED;
    out.setUint8(to, flags);
    out.setUint32(to + 1, view.getUint32(at + 4));
    out.setUint32(to + 5, view.getUint32(at + 8));
    out.setUint32(to + 9, view.getUint32(at + 14));
    if (this.headerBytes === tcp + TCP_BYTES) return to + 13 - from;
    if (view.getUint32(at + TCP_BYTES) !== own.getUint32(tcp + TCP_BYTES)) return CHANGED;
    out.setUint32(to + 13, view.getUint32(at + TCP_BYTES + 4));
    out.setUint32(to + 17, view.getUint32(at + TCP_BYTES + 8));
    return to + 21 - from;
  }

  /** Octets of the fields of the short packet at `at`; of `left` that are there. -1 if they do not fit. */
  fieldBytes(view: DataView, at: number, left: number): number {
    let bytes = this.#idTravels ? 2 : 0;
    if (this.profile === PROFILE_TCP) bytes += this.headerBytes === this.#ipBytes + TCP_BYTES ? 13 : 21;
    else {
      if (this.checksumTravels) bytes += 2;
      if (this.profile === PROFILE_RTP) {
        if (left < bytes + 1) return -1;
        const first = view.getUint8(at + bytes);
        bytes += first < RTP_LONG >> 8 ? 1 : (first & (RTP_HAS_TIMESTAMP >> 8)) !== 0 ? 6 : 2;
      }
    }
    return bytes <= left ? bytes : -1;
  }

  /**
   * Writes the packet's headers at `to`, for the payload of `payloadBytes` that lies behind them, by the fields at `at` of
   * `from`; `view` is where the packet is. Fields and headers may overlap: all fields are read first.
   */
  rebuild(from: DataView, at: number, view: DataView, to: number, payloadBytes: number): void {
    const length = this.headerBytes + payloadBytes, ip = this.#ipBytes, upper = to + ip;
    let here = at, id = 0;
    if (this.#idTravels) {
      id = from.getUint16(here);
      here += 2;
    }
    if (this.profile === PROFILE_TCP) this.#rebuildTcp(from, here, view, to);
    else {
      const checksum = this.checksumTravels ? from.getUint16(here) : 0;
      if (this.checksumTravels) here += 2;
      const word = this.profile === PROFILE_RTP ? rtpWord(from, here) : 0;
      const timestamp = word & RTP_HAS_TIMESTAMP ? from.getUint32(here + 2) : 0;
      this.#copy(view, to);
      if (this.profile === PROFILE_RTP) this.#rebuildRtp(view, upper + UDP_HEADER_BYTES, word, timestamp);
      view.setUint16(upper + 4, length - ip);
      const isComputed = !this.checksumTravels && !this.#isUnchecked;
      view.setUint16(upper + 6, isComputed ? this.#udpChecksum(view, upper, length - ip) : checksum);
    }
    if (ip !== IPV4_HEADER_BYTES) {
      view.setUint16(to + 4, length - IPV6_HEADER_BYTES);
      return;
    }
    view.setUint16(to + 2, length);
    view.setUint16(to + 4, id);
    view.setUint16(to + 10, this.#ipChecksum(length, id));
  }

  #rebuildRtp(view: DataView, at: number, word: number, timestamp: number): void {
    const own = this.#view, rtp = this.headerBytes - RTP_BYTES;
    const sequence = this.#numberOf(word), line = own.getUint16(rtp + 2);
    const steps = ((sequence - line + RTP_BEFORE) & 0xffff) - RTP_BEFORE;
    view.setUint8(at + 1, (this.bytes[rtp + 1] & 0x7f) | (word & RTP_MARKER ? 0x80 : 0));
    view.setUint16(at + 2, sequence);
    const onLine = (own.getUint32(rtp + 4) + Math.imul(steps, this.stride)) >>> 0;
    view.setUint32(at + 4, word & RTP_HAS_TIMESTAMP ? timestamp : onLine);
  }

  /** The sequence number that RTP's field means, modulo 2^16. */
  #numberOf(word: number): number {
    if (word < RTP_LONG) {
      const first = this.anchor - ANCHOR_BEFORE;
      return (first + ((word - first) & (ANCHOR_WINDOW - 1))) & 0xffff;
    }
    const first = this.#view.getUint16(this.headerBytes - RTP_BYTES + 2) - RTP_BEFORE;
    return (first + ((word - first) & (RTP_WINDOW - 1))) & 0xffff;
  }

  /** Sequence number of an RTP template's line. */
  get lineNumber(): number {
    return this.#view.getUint16(this.headerBytes - RTP_BYTES + 2);
  }

  /** Whether the short packet with fields at `at` has seven bits of RTP's sequence number. */
  isSeven(view: DataView, at: number): boolean {
    return view.getUint8(at + this.#rtpFieldAt) < RTP_LONG >> 8;
  }

  /** The number of the short packet with fields at `at`, whose field has two octets, if it is an anchor; else -1. */
  anchorIn(view: DataView, at: number): number {
    const word = view.getUint16(at + this.#rtpFieldAt);
    return (word & RTP_ANCHOR) === 0 ? -1 : this.#numberOf(word);
  }

  /** Octets of the fields in front of RTP's. */
  get #rtpFieldAt(): number {
    return (this.#idTravels ? 2 : 0) + (this.checksumTravels ? 2 : 0);
  }

  #rebuildTcp(from: DataView, at: number, view: DataView, to: number): void {
    const tcp = to + this.#ipBytes, hasTimestamps = this.headerBytes > this.#ipBytes + TCP_BYTES;
    const flags = from.getUint8(at),
      sequence = from.getUint32(at + 1),
      acknowledgment = from.getUint32(at + 5);
    const windowAndSum = from.getUint32(at + 9);
    const value = hasTimestamps ? from.getUint32(at + 13) : 0,
      echo = hasTimestamps ? from.getUint32(at + 17) : 0;
    this.#copy(view, to);
    view.setUint32(tcp + 4, sequence);
    view.setUint32(tcp + 8, acknowledgment);
    view.setUint8(tcp + 13, flags);
    view.setUint32(tcp + 14, windowAndSum);
    view.setUint16(tcp + 18, 0);
    if (!hasTimestamps) return;
    view.setUint32(tcp + TCP_BYTES + 4, value);
    view.setUint32(tcp + TCP_BYTES + 8, echo);
  }

  #copy(view: DataView, to: number): void {
    const own = this.#view, { headerBytes } = this;
    for (let i = 0; i < headerBytes; i += 4) view.setInt32(to + i, own.getInt32(i, true), true);
  }
}

/** RTP's field: one octet, or two. */
function rtpWord(from: DataView, at: number): number {
  return from.getUint8(at) < RTP_LONG >> 8 ? from.getUint8(at) : from.getUint16(at);
}

/**
 * The sum of the 16-bit words of `length` octets at `at`, in 16 bits (RFC 1071); below 2^31 on the way for any packet of a tunnel.
 * Read in the processor's order, in which the sum is the same but for the order of its octets (RFC 1071 2 B).
 */
function sum16(view: DataView, at: number, length: number): number {
  let sum = 0;
  const whole = at + (length & ~3);
  for (let i = at; i < whole; i += 4) {
    const word = view.getInt32(i, true);
    sum = (sum + (word & 0xffff) + (word >>> 16)) | 0;
  }
  if (length & 2) sum += view.getUint16(whole, true);
  if (length & 1) sum += view.getUint8(at + length - 1);
  sum = fold(sum);
  return (sum & 0xff) << 8 | sum >>> 8;
}

/** A sum in 16 bits; 0xffff where it is 0 modulo 0xffff and not 0. */
function fold(sum: number): number {
  sum = (sum & 0xffff) + (sum >>> 16);
  return (sum & 0xffff) + (sum >>> 16);
}
