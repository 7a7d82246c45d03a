/**
 * Captures: the IP packets of a pcap or pcapng file in order, whatever link they were taken on. Invariant: every length of the
 * file is bounded by the file before use, and a record that is no IP packet is passed over. Reads only; keeps nothing.
 * Formats: draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng; link types as tcpdump.org/linktypes.html numbers them.
 */

export interface CapturedPacket {
  /** Since the file's first packet. */
  timeUs: number;
  /** The IP packet as far as it was captured. */
  bytes: Uint8Array;
  /** Its length when it was sent, by its own header; at least `bytes.length`, at most 65575. */
  length: number;
}

/** The file is no capture. */
export class CaptureError extends Error {
  override readonly name = "CaptureError";
}

const PCAP_US = 0xa1b2c3d4, PCAP_NS = 0xa1b23c4d, PCAPNG = 0x0a0d0d0a;
const PCAP_HEADER_BYTES = 24, RECORD_HEADER_BYTES = 16, BLOCK_BYTES_MIN = 12;
const BYTE_ORDER = 0x1a2b3c4d;
const SECTION_BLOCK = PCAPNG, INTERFACE_BLOCK = 1, SIMPLE_BLOCK = 3, ENHANCED_BLOCK = 6;
const OPTION_RESOLUTION = 9;

const LINK_NULL = 0, LINK_ETHERNET = 1, LINK_LOOP = 108, LINK_COOKED = 113, LINK_COOKED_2 = 276;
const LINKS_RAW = new Set([12, 14, 101, 228, 229]);
const VLAN_TYPES = new Set([0x8100, 0x88a8, 0x9100]);
const IPV4_TYPE = 0x0800, IPV6_TYPE = 0x86dd;

/** Yields the IP packets of a whole file. Throws CaptureError when the file is no capture or ends in its header. */
export function* readCapture(file: Uint8Array): Generator<CapturedPacket> {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  let startUs: number | undefined;
  for (const { timeUs, at, bytes, link } of readFrames(file)) {
    const skip = headerBytes(view, at, bytes, link);
    if (skip < 0) continue;
    const packet = file.subarray(at + skip, at + bytes);
    const length = lengthOf(packet);
    if (length === 0) continue;
    startUs ??= timeUs;
    yield { timeUs: timeUs - startUs, bytes: packet.subarray(0, Math.min(packet.length, length)), length };
  }
}

/** Yields the frames of a whole file, whatever they hold. Throws as `readCapture` does. */
export function readFrames(file: Uint8Array): Generator<Frame> {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  if (file.length < PCAP_HEADER_BYTES) throw new CaptureError("the file is too short for a capture");
  return view.getUint32(0) === PCAPNG ? blocksOf(view) : recordsOf(view);
}

export interface Frame {
  timeUs: number;
  /** Where the frame begins in the file, and how many of its bytes are there. */
  at: number;
  bytes: number;
  link: number;
}

function* recordsOf(view: DataView): Generator<Frame> {
  const isLittle = [PCAP_US, PCAP_NS].includes(view.getUint32(0, true));
  const magic = view.getUint32(0, isLittle);
  if (magic !== PCAP_US && magic !== PCAP_NS) throw new CaptureError("the file is neither pcap nor pcapng");
  const link = view.getUint32(20, isLittle) & 0xffff;
  for (let at = PCAP_HEADER_BYTES; at + RECORD_HEADER_BYTES <= view.byteLength;) {
    const fraction = view.getUint32(at + 4, isLittle);
    const timeUs = view.getUint32(at, isLittle) * 1e6 + (magic === PCAP_NS ? fraction / 1000 : fraction);
    const bytes = view.getUint32(at + 8, isLittle);
    at += RECORD_HEADER_BYTES;
    if (bytes > view.byteLength - at) return;
    yield { timeUs, at, bytes, link };
    at += bytes;
  }
}

function* blocksOf(view: DataView): Generator<Frame> {
  let isLittle = false;
  let links: { link: number; unitUs: number }[] = [];
  for (let at = 0; at + BLOCK_BYTES_MIN <= view.byteLength;) {
    if (view.getUint32(at) === SECTION_BLOCK) {
      isLittle = view.getUint32(at + 8, true) === BYTE_ORDER;
      links = [];
    }
    const type = view.getUint32(at, isLittle), length = view.getUint32(at + 4, isLittle);
    if (length < BLOCK_BYTES_MIN || length > view.byteLength - at) return;
    const body = at + 8, room = length - BLOCK_BYTES_MIN;
    if (type === INTERFACE_BLOCK && room >= 8) {
      links.push({
        link: view.getUint16(body, isLittle),
        unitUs: unitOf(view, body + 8, room - 8, isLittle),
      });
    } else if (type === ENHANCED_BLOCK && room >= 20) {
      const from = links[view.getUint32(body, isLittle)];
      const units = view.getUint32(body + 4, isLittle) * 2 ** 32 + view.getUint32(body + 8, isLittle);
      const bytes = view.getUint32(body + 12, isLittle);
      if (from && bytes <= room - 20) {
        yield { timeUs: units * from.unitUs, at: body + 20, bytes, link: from.link };
      }
    } else if (type === SIMPLE_BLOCK && room >= 4 && links.length > 0) {
      const bytes = Math.min(view.getUint32(body, isLittle), room - 4);
      yield { timeUs: 0, at: body + 4, bytes, link: links[0].link };
    }
    at += length + 3 & ~3;
  }
}

/** Microseconds of a unit of the interface's clock, by its options. */
function unitOf(view: DataView, at: number, room: number, isLittle: boolean): number {
  const end = at + room;
  while (at + 4 <= end) {
    const code = view.getUint16(at, isLittle), bytes = view.getUint16(at + 2, isLittle);
    if (code === 0 || bytes > end - at - 4) break;
    if (code === OPTION_RESOLUTION && bytes >= 1) {
      const value = view.getUint8(at + 4);
      return 1e6 * (value & 0x80 ? 2 ** -(value & 0x7f) : 10 ** -value);
    }
    at += 4 + (bytes + 3 & ~3);
  }
  return 1;
}

/** Bytes in front of the IP packet; -1 when there is none. */
function headerBytes(view: DataView, at: number, bytes: number, link: number): number {
  if (LINKS_RAW.has(link)) return 0;
  if (link === LINK_NULL || link === LINK_LOOP) return bytes >= 4 ? 4 : -1;
  if (link === LINK_COOKED) return bytes >= 16 && isIp(view.getUint16(at + 14)) ? 16 : -1;
  if (link === LINK_COOKED_2) return bytes >= 20 && isIp(view.getUint16(at)) ? 20 : -1;
  if (link !== LINK_ETHERNET) return -1;
  let type = 12;
  while (type + 6 <= bytes && VLAN_TYPES.has(view.getUint16(at + type))) type += 4;
  return type + 2 <= bytes && isIp(view.getUint16(at + type)) ? type + 2 : -1;
}

function isIp(type: number): boolean {
  return type === IPV4_TYPE || type === IPV6_TYPE;
}

/** What the IP header says of the packet's length, or 0 when it is none. */
function lengthOf(packet: Uint8Array): number {
  if (packet.length < 20) return 0;
  const version = packet[0] >> 4;
  if (version === 4) {
    const total = packet[2] << 8 | packet[3];
    // 0 is what a card leaves that cuts segments itself.
    return total === 0 ? packet.length : total >= 20 ? total : 0;
  }
  return version === 6 && packet.length >= 40 ? 40 + (packet[4] << 8 | packet[5]) : 0;
}
