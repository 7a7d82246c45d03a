// Hot path.
/**
 * A report: which of the other end's datagrams one end received (PROTOCOL §14). One object is reused for
 * reading and writing. Invariant: `read` assumes that control.ts's `controlFits` has checked the body, and reads nothing
 * outside the body. Judges no report: repair/path_quality.ts does.
 */
import {
  CONTROL_REPORT,
  ECN_BYTES,
  LOSS_RUN_CLASSES,
  REPORT_ARRIVALS_MAX,
  REPORT_BITMAP_MAX_BYTES,
  REPORT_CLOCK_BYTES,
  REPORT_FIXED_BYTES,
  REPORT_QUALITY_BYTES,
  SECTION_ARRIVALS,
  SECTION_CLOCK,
  SECTION_ECN,
  SECTION_QUALITY,
  writeControl,
} from "./control.ts";
import { FRAME_HEAD_BYTES } from "./frame.ts";

/** Steps of `delayUs`, `arrivals` and `clock` on the wire, microseconds. */
const DELAY_UNIT_US = 16, ARRIVAL_UNIT_US = 8, CLOCK_UNIT_US = 64;

export class Report {
  /** Highest counter that opened, below 2^48. */
  highest = 0;
  /** From that datagram's arrival to this report, in steps of 16, saturating at 1 048 560. */
  delayUs = 0;
  /** Datagrams accepted since the session began, modulo 2^32. */
  received = 0;
  /** Bit i, least significant first, is counter highest - 1 - i; bits beyond bitmapBytes are not part of the report. */
  readonly bitmap = new Uint8Array(REPORT_BITMAP_MAX_BYTES);
  bitmapBytes = 0;

  hasEcn = false;
  /** Datagrams that arrived with each mark since the session began, modulo 2^32. */
  ect0 = 0;
  ect1 = 0;
  congestionExperienced = 0;

  hasQuality = false;
  /** Runs of 1, 2, 3 to 4, 5 to 8 and more lost datagrams since the session began, modulo 2^16. */
  readonly lossRuns = new Uint16Array(LOSS_RUN_CLASSES);
  /** The deepest reordering since the last report: how far behind the highest a datagram arrived, in counters, at most 65 535. */
  reorderDepth = 0;
  /** Datagrams whose packets repair recovered, and lost protected ones that it did not, since the session began, modulo 2^32. */
  repaired = 0;
  unrepaired = 0;

  /**
   * arrivals[i] is how much earlier than the highest counter's datagram the i-th datagram of the bitmap arrived, in units of
   * 8 microseconds, saturating at both ends; negative when it arrived later.
   */
  readonly arrivals = new Int16Array(REPORT_ARRIVALS_MAX);
  arrivalCount = 0;

  hasClock = false;
  /** When the highest counter's datagram arrived, by the receiver's clock, in steps of 64 microseconds, modulo 2^16. */
  clock = 0;

  /** Reads a body that `controlFits` has checked. */
  read(view: DataView, at: number): void {
    const sections = view.getUint8(at + 1);
    this.highest = view.getUint16(at + 6, true) * 4294967296 + view.getUint32(at + 2, true);
    this.delayUs = view.getUint16(at + 8, true) * DELAY_UNIT_US;
    this.received = view.getUint32(at + 10, true);
    this.bitmapBytes = view.getUint8(at + 14);
    let here = at + REPORT_FIXED_BYTES;
    for (let i = 0; i < this.bitmapBytes; i++) this.bitmap[i] = view.getUint8(here + i);
    here += this.bitmapBytes;
    this.hasEcn = (sections & SECTION_ECN) !== 0;
    if (this.hasEcn) {
      this.ect0 = view.getUint32(here, true);
      this.ect1 = view.getUint32(here + 4, true);
      this.congestionExperienced = view.getUint32(here + 8, true);
      here += ECN_BYTES;
    }
    this.hasQuality = (sections & SECTION_QUALITY) !== 0;
    if (this.hasQuality) {
      for (let i = 0; i < LOSS_RUN_CLASSES; i++) this.lossRuns[i] = view.getUint16(here + 2 * i, true);
      this.reorderDepth = view.getUint16(here + 10, true);
      this.repaired = view.getUint32(here + 12, true);
      this.unrepaired = view.getUint32(here + 16, true);
      here += REPORT_QUALITY_BYTES;
    }
    this.arrivalCount = (sections & SECTION_ARRIVALS) !== 0 ? view.getUint8(here) : 0;
    for (let i = 0; i < this.arrivalCount; i++) this.arrivals[i] = view.getInt16(here + 1 + 2 * i, true);
    if (this.arrivalCount > 0) here += 1 + 2 * this.arrivalCount;
    this.hasClock = (sections & SECTION_CLOCK) !== 0;
    if (this.hasClock) this.clock = view.getUint16(here, true);
  }

  /** Whether the report says that the datagram with the counter has come. */
  has(counter: number): boolean {
    const bit = this.highest - 1 - counter;
    if (bit < 0) return bit === -1;
    return bit < 8 * this.bitmapBytes && (this.bitmap[bit >> 3] & (1 << (bit & 7))) !== 0;
  }

  /** Bytes of the whole frame. */
  get frameBytes(): number {
    return FRAME_HEAD_BYTES + REPORT_FIXED_BYTES + this.bitmapBytes + (this.hasEcn ? ECN_BYTES : 0) +
      (this.hasQuality ? REPORT_QUALITY_BYTES : 0) + (this.arrivalCount > 0 ? 1 + 2 * this.arrivalCount : 0) +
      (this.hasClock ? REPORT_CLOCK_BYTES : 0);
  }

  /** Writes the frame; arrivalCount is at most the bits set in the bitmap. */
  write(view: DataView, at: number): number {
    const sections = (this.hasEcn ? SECTION_ECN : 0) | (this.hasQuality ? SECTION_QUALITY : 0) |
      (this.arrivalCount > 0 ? SECTION_ARRIVALS : 0) | (this.hasClock ? SECTION_CLOCK : 0);
    const length = this.frameBytes - FRAME_HEAD_BYTES;
    const body = writeControl(view, at, CONTROL_REPORT, length);
    view.setUint8(body + 1, sections);
    view.setUint32(body + 2, this.highest >>> 0, true);
    view.setUint16(body + 6, Math.floor(this.highest / 4294967296), true);
    view.setUint16(body + 8, Math.min(0xffff, Math.floor(this.delayUs / DELAY_UNIT_US)), true);
    view.setUint32(body + 10, this.received, true);
    view.setUint8(body + 14, this.bitmapBytes);
    let here = body + REPORT_FIXED_BYTES;
    for (let i = 0; i < this.bitmapBytes; i++) view.setUint8(here + i, this.bitmap[i]);
    here += this.bitmapBytes;
    if (this.hasEcn) {
      view.setUint32(here, this.ect0, true);
      view.setUint32(here + 4, this.ect1, true);
      view.setUint32(here + 8, this.congestionExperienced, true);
      here += ECN_BYTES;
    }
    if (this.hasQuality) {
      for (let i = 0; i < LOSS_RUN_CLASSES; i++) view.setUint16(here + 2 * i, this.lossRuns[i], true);
      view.setUint16(here + 10, Math.min(0xffff, this.reorderDepth), true);
      view.setUint32(here + 12, this.repaired, true);
      view.setUint32(here + 16, this.unrepaired, true);
      here += REPORT_QUALITY_BYTES;
    }
    if (this.arrivalCount > 0) {
      view.setUint8(here, this.arrivalCount);
      for (let i = 0; i < this.arrivalCount; i++) view.setInt16(here + 1 + 2 * i, this.arrivals[i], true);
      here += 1 + 2 * this.arrivalCount;
    }
    if (this.hasClock) view.setUint16(here, this.clock, true);
    return FRAME_HEAD_BYTES + length;
  }
}

/** The `clock` for a time in microseconds, 0 or more. */
export function clockSteps(us: number): number {
  return Math.floor(us / CLOCK_UNIT_US) & 0xffff;
}

/** The steps of `arrivals` for a time in microseconds, saturating. */
export function arrivalSteps(us: number): number {
  return Math.max(-32768, Math.min(32767, Math.round(us / ARRIVAL_UNIT_US)));
}
