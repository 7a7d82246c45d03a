/**
 * Least significant bits against references (RFC 3095 4.5.1, 4.5.2): how a value that differs little from what the
 * other end knows is written in few bits, and read again. All values are unsigned and of at most 32 bits; a field of
 * `width` bits wraps around. Nothing is kept here but the window of a compressor's references.
 */

/**
 * How far the interpretation interval of k bits reaches below its reference; above, it reaches 2^k - 1 - p.
 * RFC 3095 4.5.1 and 5.7: sequence numbers of RTP tolerate reordering, those that a compressor counts need none.
 */
export function shiftOfRtpSequence(bits: number): number {
  return bits <= 4 ? 1 : 2 ** (bits - 5) - 1;
}

/** The same for RTP's time stamp (RFC 3095 4.5.4, RFC 4815 4.2): a quarter of the interval lies below. */
export function shiftOfRtpTimestamp(bits: number): number {
  return bits <= 2 ? 0 : 2 ** (bits - 2) - 1;
}

/** Values of 0 to 2^width - 1; 2^32 has no shift in JavaScript. */
function modulus(width: number): number {
  return 2 ** width;
}

/**
 * The only value of `width` bits in [reference - shift, reference - shift + 2^bits - 1] whose lowest `bits` bits are
 * `value`. `bits` is 0 to `width`.
 */
export function decodeLsb(
  reference: number,
  value: number,
  bits: number,
  shift: number,
  width: number,
): number {
  const whole = modulus(width);
  if (bits >= width) return value % whole;
  const interval = 2 ** bits;
  const lowest = (reference - shift + 2 * whole) % whole;
  const above = (value - (lowest % interval) + interval) % interval;
  return (lowest + above) % whole;
}

/** Whether `bits` bits suffice for `value` against one reference. */
export function fitsLsb(
  reference: number,
  value: number,
  bits: number,
  shift: number,
  width: number,
): boolean {
  if (bits >= width) return true;
  const whole = modulus(width);
  const distance = (value - reference + shift + 2 * whole) % whole;
  return distance < 2 ** bits;
}

/**
 * A compressor's sliding window of the values that the decompressor may have as its reference (W-LSB, RFC 3095
 * 4.5.2). At most `capacity` values; the oldest goes when another comes, which is safe when a decompressor that has
 * missed `capacity` packets in a row asks for a refresh.
 */
export class LsbWindow {
  readonly #values: Uint32Array;
  /** The number of the packet that carried each value. */
  readonly #packets: Float64Array;
  #length = 0;
  #next = 0;

  constructor(capacity: number) {
    this.#values = new Uint32Array(capacity);
    this.#packets = new Float64Array(capacity);
  }

  get length(): number {
    return this.#length;
  }

  clear(): void {
    this.#length = 0;
  }

  add(value: number, packet: number): void {
    this.#values[this.#next] = value;
    this.#packets[this.#next] = packet;
    this.#next = (this.#next + 1) % this.#values.length;
    if (this.#length < this.#values.length) this.#length++;
  }

  /** Forgets what is older than the packet with the number, which the decompressor has confirmed; false if it is unknown. */
  acknowledge(packet: number): boolean {
    for (let age = 0; age < this.#length; age++) {
      if (this.#packets[this.#at(age)] !== packet) continue;
      this.#length = age + 1;
      return true;
    }
    return false;
  }

  /** The number of the newest packet that carried the value; -1 if none in the window did. */
  packetOf(value: number): number {
    for (let age = 0; age < this.#length; age++) {
      if (this.#values[this.#at(age)] === value) return this.#packets[this.#at(age)];
    }
    return -1;
  }

  /** Whether `bits` bits tell `value` whichever value of the window is the decompressor's reference. */
  fits(value: number, bits: number, shift: number, width: number): boolean {
    if (this.#length === 0) return bits >= width;
    for (let age = 0; age < this.#length; age++) {
      if (!fitsLsb(this.#values[this.#at(age)], value, bits, shift, width)) return false;
    }
    return true;
  }

  #at(age: number): number {
    return (this.#next - 1 - age + 2 * this.#values.length) % this.#values.length;
  }
}
