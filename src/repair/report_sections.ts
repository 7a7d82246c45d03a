// Hot path.
/**
 * The sections of a report that only sessions with repair fill (PROTOCOL §14): totals of losses and repairs when they have
 * changed, and arrival times where delays vary or losses happen. Invariant: a report never grows beyond the room that it
 * is given, and what has no room now is in a later report or in its totals. Judges nothing.
 * Keeps PROTOCOL R94.
 */
import type { Arrivals } from "./arrivals.ts";
import {
  LOSS_RUN_CLASSES,
  REPORT_ARRIVALS_MAX,
  REPORT_CLOCK_BYTES,
  REPORT_QUALITY_BYTES,
} from "../wire/control.ts";
import { arrivalSteps, clockSteps, type Report } from "../wire/report.ts";

/**
 * Adds the sections to a report whose `highest` and bitmap are set, in `bytesMax` bytes.
 * @param reported the highest counter of the last report, which had the arrival times up to that counter.
 */
export function fillSections(
  report: Report,
  arrivals: Arrivals,
  bytesMax: number,
  reported: number,
  nowUs: number,
): void {
  arrivals.judge(nowUs);
  const { highest, bitmap, bitmapBytes } = report;
  const highestUs = arrivals.usOf(highest);
  let room = bytesMax;
  if (!Number.isNaN(highestUs) && room >= REPORT_CLOCK_BYTES) {
    room -= REPORT_CLOCK_BYTES;
    report.hasClock = true;
    report.clock = clockSteps(highestUs);
  }
  if (arrivals.isQualityDue(nowUs) && room >= REPORT_QUALITY_BYTES) {
    room -= REPORT_QUALITY_BYTES;
    report.hasQuality = true;
    for (let i = 0; i < LOSS_RUN_CLASSES; i++) report.lossRuns[i] = arrivals.runs.runs[i];
    report.reorderDepth = arrivals.reorderDepth;
    report.repaired = arrivals.repaired;
    report.unrepaired = arrivals.unrepaired;
    arrivals.saidQuality(nowUs);
  }
  const { tellingBytes } = arrivals;
  const most = Math.min(REPORT_ARRIVALS_MAX, Math.floor((Math.min(room, tellingBytes) - 1) / 2));
  let count = 0;
  for (let bit = 0; bit < 8 * bitmapBytes && count < most && highest - 1 - bit > reported; bit++) {
    if ((bitmap[bit >> 3] >> (bit & 7) & 1) === 0) continue;
    const earlierUs = highestUs - arrivals.usOf(highest - 1 - bit);
    if (Number.isNaN(earlierUs)) break;
    report.arrivals[count++] = arrivalSteps(earlierUs);
  }
  if (count === 0) return;
  report.arrivalCount = count;
  arrivals.saidArrivals(1 + 2 * count);
}
