/**
 * RTP's time stamp as a multiple of its stride (RFC 3095 4.5.3, RFC 4815 4): TS = scaled x stride + offset. Holds the
 * three numbers for one end of a flow; which of them travel, and when, the formats and the compressor decide.
 */

export class ScaledTimestamp {
  /** Time stamp units from one packet to the next; 0 while unknown. */
  stride = 0;
  offset = 0;
  scaled = 0;

  copyFrom(other: ScaledTimestamp): void {
    this.stride = other.stride;
    this.offset = other.offset;
    this.scaled = other.scaled;
  }

  /** Takes an unscaled time stamp over. */
  follow(timestamp: number): void {
    if (this.stride === 0) return;
    this.offset = timestamp % this.stride;
    this.scaled = (timestamp - this.offset) / this.stride;
  }

  /** The time stamp of a scaled value, which becomes the current one; modulo 2^32. */
  take(scaled: number): number {
    this.scaled = scaled >>> 0;
    return (Math.imul(this.scaled, this.stride) + this.offset) >>> 0;
  }
}
