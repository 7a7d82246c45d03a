// Hot path.
/**
 * What an OxTunnel plaintext holds (PROTOCOL §13): frames with a two-byte head, and at the end one bare IP packet
 * without a head. Invariant: a frame that the reader hands out lies within the plaintext. Checks no body but
 * LZ4's lengths and decompresses nothing; control frames are in control.ts.
 * Keeps PROTOCOL R47 and R49.
 */

// Kinds of frames: four bits of the head.
/** One IP packet, bare or with a head. */
export const FRAME_PACKET = 0;
/** One compressed IP packet: original length, LZ4 block. */
export const FRAME_LZ4 = 1;
export const FRAME_CONTROL = 2;
/** A short packet, bare or with a head; or, with a head, a definition and the packet behind it. */
export const FRAME_HEADER_COMPRESSED = 3;
/** Reserved for a packet that an erasure code protects. */
export const FRAME_SOURCE = 4;
/** A repair symbol of an erasure code, with the counters of its sources. */
export const FRAME_REPAIR = 5;
/** Reserved for a copy of an earlier packet. */
export const FRAME_COPY = 6;
/** A packet whose headers ROHC has compressed, bare or with a head. */
export const FRAME_ROHC = 7;

/** The plaintext has ended. */
export const FRAMES_END = -1;
/** The next bytes are no frame; earlier frames stay valid (PROTOCOL R47). */
export const FRAMES_MALFORMED = -2;

export const FRAME_HEAD_BYTES = 2;
export const FRAME_BODY_MAX_BYTES = 2047;
/** Frames in one plaintext, the bare packet included (PROTOCOL R47). */
export const FRAMES_MAX = 64;
export const LZ4_BLOCK_AT = 2;
/** The most times that a frame's packet may be as long as its body; bounds what a peer can make the relay send (PROTOCOL R49). */
export const LZ4_RATIO_MAX = 16;

const HEAD_BIT = 0x8000;
const KIND_SHIFT = 11;
/** What a first byte of 0x40 to 0x7f begins, by its high four bits less 4. */
const BARE_KINDS = [FRAME_PACKET, FRAME_HEADER_COMPRESSED, FRAME_PACKET, FRAME_ROHC];

/** Iterates over the frames of a plaintext; reusable for one plaintext after the other. */
export class FrameReader {
  /** First byte of the frame's body. */
  at = 0;
  /** First byte of the frame: of its head, or of a bare packet. */
  headAt = 0;
  /** Bytes of the body. */
  length = 0;
  #next = 0;
  #end = 0;
  #count = 0;

  start(at: number, length: number): void {
    this.#next = at;
    this.#end = at + length;
    this.#count = 0;
  }

  /** The next frame's kind, with `at` and `length` set; FRAMES_END or FRAMES_MALFORMED at the end, and on every later call. */
  next(view: DataView): number {
    const here = this.#next;
    this.headAt = here;
    if (here === this.#end) return FRAMES_END;
    const first = view.getUint8(here);
    const nibble = first >> 4;
    // Padding takes the rest.
    if (first === 0) {
      this.#next = this.#end;
      return FRAMES_END;
    }
    if (this.#count === FRAMES_MAX) return FRAMES_MALFORMED;
    if (nibble >= 4 && nibble <= 7) {
      this.at = here;
      this.length = this.#end - here;
      this.#next = this.#end;
      this.#count++;
      return BARE_KINDS[nibble - 4];
    }
    if (nibble < 8 || this.#end - here < FRAME_HEAD_BYTES) return FRAMES_MALFORMED;
    const head = view.getUint16(here);
    const length = head & FRAME_BODY_MAX_BYTES;
    const at = here + FRAME_HEAD_BYTES;
    if (length === 0 || length > this.#end - at) return FRAMES_MALFORMED;
    this.at = at;
    this.length = length;
    this.#next = at + length;
    this.#count++;
    return (head >> KIND_SHIFT) & 15;
  }
}

/** Whether a frame's head is at `at`, and not a bare packet. */
export function isFrame(view: DataView, at: number): boolean {
  return view.getUint8(at) >= HEAD_BIT >> 8;
}

/** Whether a bare packet with its headers is at `at`, and not a frame or one without its headers. */
export function isWholePacket(view: DataView, at: number): boolean {
  const nibble = view.getUint8(at) >> 4;
  return nibble === 4 || nibble === 6;
}

/** The kind that a bare packet's frame has: a whole packet's, a short one's, or ROHC's. */
export function bareKind(view: DataView, at: number): number {
  return BARE_KINDS[(view.getUint8(at) >> 4) - 4];
}

/** Whether what begins at `at` is read by the session's contexts: by short packets' or by ROHC's, bare or in a frame. */
export function needsContexts(view: DataView, at: number): boolean {
  const first = view.getUint8(at);
  if (first < HEAD_BIT >> 8) return BARE_KINDS[(first >> 4) - 4] !== FRAME_PACKET;
  const kind = (first >> (KIND_SHIFT - 8)) & 15;
  return kind === FRAME_HEADER_COMPRESSED || kind === FRAME_ROHC;
}

/** Writes a frame's head in front of a body of `length` bytes, 1 to 2047, and returns where the body starts. */
export function writeFrameHead(view: DataView, at: number, kind: number, length: number): number {
  // Big-endian, so that the head's first byte distinguishes a frame from a bare packet.
  view.setUint16(at, HEAD_BIT | (kind << KIND_SHIFT) | length);
  return at + FRAME_HEAD_BYTES;
}

/** Writes an LZ4 frame's head and original length; returns where the block of `blockBytes` starts. */
export function writeLz4Head(view: DataView, at: number, blockBytes: number, originalBytes: number): number {
  const body = writeFrameHead(view, at, FRAME_LZ4, LZ4_BLOCK_AT + blockBytes);
  view.setUint16(body, originalBytes, true);
  return body + LZ4_BLOCK_AT;
}

/**
 * The length that an LZ4 frame's packet must have once decompressed, or 0 for an invalid length: longer than `longest`, not
 * longer than the body, or more than LZ4_RATIO_MAX times as long (PROTOCOL R49). The block lies from at + LZ4_BLOCK_AT to the
 * body's end.
 */
export function lz4OriginalBytes(view: DataView, at: number, length: number, longest: number): number {
  if (length <= LZ4_BLOCK_AT) return 0;
  const original = view.getUint16(at, true);
  return original <= longest && original > length && original <= LZ4_RATIO_MAX * length ? original : 0;
}
