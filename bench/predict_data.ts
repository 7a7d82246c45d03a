/**
 * What predictors learn from and are judged by: a stream of small datagrams at a game's or a call's pace over a modelled path,
 * the receiver's reports (PROTOCOL §14) and their way back, what each report says as a PathStep, and what was
 * lost 50 to 100 ms later. Invariant: a step knows only what its report could say. Paths for training and paths held out
 * have no parameters in common.
 */
import { Arrivals } from "../src/repair/arrivals.ts";
import { PathMeter, type PathStep } from "../src/repair/path_quality.ts";
import { fillSections } from "../src/repair/report_sections.ts";
import { REPORT_BITMAP_MAX_BYTES } from "../src/wire/control.ts";
import { Report } from "../src/wire/report.ts";
import {
  burstLoss,
  congestion,
  fading,
  handover,
  type Impairment,
  jitter,
  Path,
  type PathModel,
  randomLoss,
} from "../tests/kit/channels.ts";
import { Random } from "../tests/kit/random.ts";

export interface Stream {
  /** When each datagram was sent, and whether it was lost. */
  sentUs: Float64Array;
  isLost: Uint8Array;
  /** Of each report that came back: when, what it said, and the share lost of what was sent 50 to 100 ms later; NaN for nothing. */
  atUs: Float64Array;
  steps: PathStep[];
  lostAhead: Float32Array;
}

const AHEAD_US_MIN = 50_000, AHEAD_US_MAX = 100_000;
const DATAGRAM_BYTES_MIN = 120, DATAGRAM_BYTES_MAX = 420;
/** As session/oxtunnel/sessions.ts times reports, and session/oxtunnel/subjects/reports.ts fills them. */
const REPORT_US = 25_000, REPORT_PATIENCE = 3, PRESSING_DATAGRAMS = 8, REPORT_OVERLAP = 32;
/** Room for a report's sections in what it rides with, bytes. */
const SECTIONS_BYTES = 400;
const PACES_HZ = [50, 64, 64, 128];

/** A stream of `seconds` over the path that `make` chooses. */
export function makeStream(seed: number, seconds: number, make: (random: Random) => PathModel): Stream {
  const random = new Random(seed);
  const path = make(random), gapUs = 1e6 / PACES_HZ[random.u32() % PACES_HZ.length];
  const count = Math.floor(seconds * 1e6 / gapUs);
  const sentUs = new Float64Array(count), arrivedUs = new Float64Array(count);
  const bytes = new Uint16Array(count), isLost = new Uint8Array(count);
  for (let i = 0, atUs = 0; i < count; i++) {
    // A sender's timer is late now and then.
    atUs = Math.max(atUs + 1, i * gapUs + random.real() * 1000);
    sentUs[i] = atUs;
    bytes[i] = DATAGRAM_BYTES_MIN + random.real() * (DATAGRAM_BYTES_MAX - DATAGRAM_BYTES_MIN);
    arrivedUs[i] = path.arrivalUs(atUs, bytes[i]);
    isLost[i] = arrivedUs[i] === Infinity ? 1 : 0;
  }
  const backUs = 5_000 + random.real() * 55_000, backLoss = random.real() < 0.5 ? 0 : 0.02;
  const atUs: number[] = [], steps: PathStep[] = [];
  const meter = new PathMeter();
  let told = 0;
  report(arrivedUs, bytes, gapUs, random.real() * gapUs, (report, leftUs) => {
    if (random.real() < backLoss) return;
    const nowUs = leftUs + backUs;
    for (; told < count && sentUs[told] <= nowUs; told++) meter.sent(told, true, true, sentUs[told]);
    if (!meter.observe(report, nowUs)) return;
    atUs.push(nowUs);
    steps.push({ ...meter.step });
  });
  const lostAhead = new Float32Array(steps.length);
  for (let i = 0, first = 0; i < steps.length; i++) {
    while (first < count && sentUs[first] < atUs[i] + AHEAD_US_MIN) first++;
    let sent = 0, lost = 0;
    for (let n = first; n < count && sentUs[n] < atUs[i] + AHEAD_US_MAX; n++, sent++) lost += isLost[n];
    lostAhead[i] = sent > 0 ? lost / sent : NaN;
  }
  return { sentUs, isLost, atUs: Float64Array.from(atUs), steps, lostAhead };
}

/**
 * The receiver: calls `tell` with each report, by its own classes, at the time when it leaves. It sends at the pace `gapUs`
 * itself, `phaseUs` later, so that reports ride along.
 */
function report(
  arrivedUs: Float64Array,
  bytes: Uint16Array,
  gapUs: number,
  phaseUs: number,
  tell: (report: Report, leftUs: number) => void,
): void {
  const order = Array.from(arrivedUs.keys()).filter((n) => arrivedUs[n] < Infinity);
  order.sort((a, b) => arrivedUs[a] - arrivedUs[b]);
  const arrivals = new Arrivals(0), { runs } = arrivals, report = new Report();
  let unreported = 0, isPressing = false, reportedUs = 0, reported = 0, dueUs = Infinity, leavesUs = Infinity;
  for (const n of order) {
    const nowUs = arrivedUs[n];
    if (leavesUs <= nowUs) {
      fill(report, arrivals, reported, leavesUs);
      tell(report, leavesUs);
      reportedUs = leavesUs;
      reported = runs.highest;
      dueUs = leavesUs = Infinity;
      unreported = 0;
      isPressing = false;
    }
    if (++unreported >= PRESSING_DATAGRAMS || n > runs.highest + 1) isPressing = true;
    arrivals.arrived(n, bytes[n], nowUs);
    const ownUs = isPressing ? Math.max(nowUs, reportedUs + REPORT_US) : nowUs + REPORT_PATIENCE * REPORT_US;
    dueUs = Math.min(dueUs, ownUs);
    const earlyUs = Math.max(nowUs, dueUs - (isPressing ? REPORT_US / 2 : REPORT_US));
    const rideUs = Math.ceil((earlyUs - phaseUs) / gapUs) * gapUs + phaseUs;
    leavesUs = Math.min(dueUs, rideUs);
  }
}

function fill(report: Report, arrivals: Arrivals, reported: number, nowUs: number): void {
  const { highest } = arrivals.runs;
  report.highest = highest;
  report.delayUs = 16 * Math.floor((nowUs - arrivals.usOf(highest)) / 16);
  const counters = Math.min(highest, highest - reported + REPORT_OVERLAP);
  report.bitmapBytes = Math.min(REPORT_BITMAP_MAX_BYTES, (counters + 7) >> 3);
  report.bitmap.fill(0);
  for (let bit = 0; bit < 8 * report.bitmapBytes; bit++) {
    if (arrivals.runs.hasArrived(highest - 1 - bit)) report.bitmap[bit >> 3] |= 1 << (bit & 7);
  }
  report.hasEcn = report.hasQuality = report.hasClock = false;
  report.arrivalCount = 0;
  fillSections(report, arrivals, SECTIONS_BYTES, reported, nowUs);
}

/** A choice between the two, evenly by the logarithm. */
function logarithmic(random: Random, least: number, most: number): number {
  return least * (most / least) ** random.real();
}

function even(random: Random, least: number, most: number): number {
  return least + random.real() * (most - least);
}

function oneWayUs(random: Random): number {
  return even(random, 5_000, 60_000);
}

/** Elliott's bad state: as `burstLoss`, but the share `badLoss` of what is sent in it is lost and the rest comes through. */
export function elliottLoss(random: Random, badRate: number, badUs: number, badLoss: number): Impairment {
  const bad = burstLoss(random, badRate, badUs);
  return {
    delayUs: (nowUs, bytes) =>
      bad.delayUs(nowUs, bytes) === Infinity && random.real() < badLoss ? Infinity : 0,
  };
}

/** As `logarithmic`, but nothing from `from` to `to`, which lie between. */
function around(random: Random, least: number, from: number, to: number, most: number): number {
  const value = logarithmic(random, least, most * from / to);
  return value < from ? value : value * to / from;
}

/** Gilbert's bursts, in which all is lost, or Elliott's spells, in which much is. */
function trainingLosses(random: Random): Impairment {
  return random.real() < 0.3
    ? burstLoss(random, logarithmic(random, 0.005, 0.1), logarithmic(random, 15_000, 120_000))
    : elliottLoss(
      random,
      logarithmic(random, 0.02, 0.2),
      around(random, 100_000, 800_000, 2_500_000, 5_000_000),
      even(random, 0.1, 0.9),
    );
}

function trainingQueue(random: Random): Impairment {
  return congestion(random, {
    bytesPerSecond: logarithmic(random, 300_000, 5_000_000),
    bufferUs: around(random, 20_000, 120_000, 260_000, 600_000),
    busyUs: around(random, 200_000, 1_500_000, 3_000_000, 6_000_000),
    idleUs: around(random, 500_000, 4_000_000, 8_000_000, 12_000_000),
    busyLoad: around(random, 1.03, 1.4, 1.9, 3),
    idleLoad: even(random, 0.1, 0.9),
  });
}

function trainingPath(random: Random, ...parts: Impairment[]): PathModel {
  return new Path(oneWayUs(random), jitter(random, logarithmic(random, 100, 3_000)), ...parts);
}

/** Paths to learn from: Gilbert's and Elliott's losses, a bottleneck's queue, both, and losses that cannot be predicted. */
export const TRAINING: Record<string, (random: Random) => PathModel> = {
  losses: (random) => trainingPath(random, trainingLosses(random)),
  congestion: (random) => trainingPath(random, trainingQueue(random)),
  both: (random) =>
    trainingPath(
      random,
      randomLoss(random, even(random, 0, 0.02)),
      trainingLosses(random),
      trainingQueue(random),
    ),
  random: (random) => trainingPath(random, randomLoss(random, even(random, 0, 0.06))),
};

/** Paths to be judged by, of kinds or with parameters that no training path has. */
export const HELD_OUT: Record<string, (random: Random) => PathModel> = {
  "short bursts": (random) =>
    new Path(
      oneWayUs(random),
      jitter(random, 1_000),
      burstLoss(random, even(random, 0.03, 0.15), even(random, 5_000, 14_000)),
    ),
  "long bursts": (random) =>
    new Path(
      oneWayUs(random),
      jitter(random, 1_000),
      burstLoss(random, even(random, 0.03, 0.15), even(random, 130_000, 400_000)),
    ),
  "lossy spells": (random) =>
    new Path(
      oneWayUs(random),
      jitter(random, 1_000),
      elliottLoss(random, even(random, 0.1, 0.3), even(random, 900_000, 2_500_000), even(random, 0.1, 0.6)),
    ),
  congestion: (random) =>
    new Path(
      oneWayUs(random),
      congestion(random, {
        bytesPerSecond: logarithmic(random, 6_000_000, 20_000_000),
        bufferUs: even(random, 130_000, 250_000),
        busyUs: even(random, 1_600_000, 3_000_000),
        idleUs: even(random, 4_500_000, 8_000_000),
        busyLoad: even(random, 1.45, 1.8),
        idleLoad: even(random, 0.1, 0.8),
      }),
    ),
  fading: (random) =>
    new Path(
      oneWayUs(random),
      fading(random, {
        marginDb: even(random, 5, 8),
        deviationDb: even(random, 3, 5),
        coherenceUs: logarithmic(random, 100_000, 600_000),
        retryUs: even(random, 5_000, 10_000),
        retries: 2 + random.u32() % 3,
      }),
    ),
  handover: (random) =>
    new Path(
      oneWayUs(random),
      jitter(random, 1_000),
      handover(random, {
        everyUsMin: even(random, 2_000_000, 4_000_000),
        everyUsMax: even(random, 4_000_000, 7_000_000),
        outageUsMin: 50_000,
        outageUsMax: 150_000,
        warningUs: even(random, 150_000, 500_000),
        warningDelayUs: even(random, 10_000, 40_000),
      }),
    ),
  mixed: (random) =>
    new Path(
      oneWayUs(random),
      randomLoss(random, even(random, 0, 0.02)),
      congestion(random, {
        bytesPerSecond: 2_500_000,
        bufferUs: even(random, 50_000, 150_000),
        busyUs: even(random, 500_000, 1_500_000),
        idleUs: even(random, 2_000_000, 6_000_000),
        busyLoad: even(random, 1.1, 1.5),
        idleLoad: even(random, 0.2, 0.7),
      }),
      handover(random, {
        everyUsMin: 6_000_000,
        everyUsMax: 12_000_000,
        outageUsMin: 50_000,
        outageUsMax: 150_000,
        warningUs: 300_000,
        warningDelayUs: 25_000,
      }),
    ),
};

/** `count` streams of each kind, seeded from `seed` on. */
export function makeStreams(
  kinds: Record<string, (random: Random) => PathModel>,
  seed: number,
  count: number,
  seconds: number,
): { kind: string; streams: Stream[] }[] {
  return Object.entries(kinds).map(([kind, make], k) => ({
    kind,
    streams: Array.from({ length: count }, (_, i) => makeStream(seed + 1000 * k + i, seconds, make)),
  }));
}
