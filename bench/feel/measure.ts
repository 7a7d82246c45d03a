/**
 * The measure of repair: which workload goes by which scheme over which path, and the row of figures that each run gives. Invariant:
 * everything follows from the plan and the seed, and every scheme is compared with the run without repair over the same paths.
 * Prints nothing.
 */
import { type ChannelName, CHANNELS, channelsAt } from "../../tests/kit/channels.ts";
import { type Bound, boundOf } from "./bound.ts";
import { type Flow, LEG_SECONDS, NONE, type Outcome, play, type Run, type Scheme, walk } from "./play.ts";
import { type Received, type Score, score, speechRating } from "./score.ts";
import type { Random } from "../../tests/kit/random.ts";
import { type WorkloadName, WORKLOADS } from "../../tests/kit/workloads.ts";

/** A modelled path, or the walk through all of them. */
export type Place = ChannelName | "walk";

/** One run of the plan. */
export interface Entry {
  workload: WorkloadName;
  place: Place;
  scheme: Scheme;
  seconds: number;
  hasBulk?: boolean;
  /** Of the path, each way; 20 where absent. */
  oneWayMs?: number;
}

export interface Row extends Entry {
  score: Score;
  /** All bytes over those of the run without repair, less 1; and the largest of any second and direction. */
  extra: number;
  /** Undefined beside a transfer, whose packets differ from run to run. */
  extraWorstSecond?: number;
  /** R of the E-model, the mean of both directions; for calls. */
  rating?: number;
  bulkMbitPerS?: number;
}

export interface Plan {
  entries: Entry[];
  /** Where the bound is wanted, and for which shares. */
  bounds: { place: Place; seconds: number; shares: number[]; workload?: WorkloadName; oneWayMs?: number }[];
}

export interface Bounds {
  place: Place;
  workload: WorkloadName;
  oneWayMs: number;
  share: number;
  bound: Bound;
}

const FIXED_CODES = ["copy", "spaced", "window", "block"] as const;

/** The whole share at all times, by one scheme. */
export function fixed(code: (typeof FIXED_CODES)[number], share: number): Scheme {
  return { label: `${code} ${percent(share)}`, code, budget: share, isFixed: true };
}

/** The controller with such a budget. */
export function auto(budget: number): Scheme {
  return { label: `auto, at most ${percent(budget)}`, code: "auto", budget };
}

/** The controller that also asks and answers. */
export function onRequest(budget: number): Scheme {
  return { label: `with requests, at most ${percent(budget)}`, code: "auto", budget, isAsking: true };
}

/** The controller without one of its parts. */
function without(part: "traffic awareness" | "prediction", budget: number): Scheme {
  const label = `${auto(budget).label}, no ${part}`;
  return part === "prediction"
    ? { ...auto(budget), label, isProactive: false }
    : { ...auto(budget), label, isTrafficAware: false };
}

/** The controller that may choose how much and not what. */
function only(code: (typeof FIXED_CODES)[number], budget: number): Scheme {
  return { label: `${auto(budget).label}, ${code} only`, code, budget };
}

function percent(share: number): string {
  return `${Math.round(100 * share)} %`;
}

/** The shares of the curves. */
export const SHARES = [0.1, 0.25, 0.5, 1];
/** The default budget and the largest. */
const BUDGET = 0.25, BUDGET_MAX = 1;
/** Where the curves are drawn. */
export const MAIN_PLACES: Place[] = ["random", "bursts", "walk"];
const ONE_WAY_MS = 20;
const WALK_SECONDS = Object.keys(CHANNELS).length * LEG_SECONDS;

/** Everything, a few minutes. */
export function wholePlan(): Plan {
  const places: Place[] = [...Object.keys(CHANNELS) as ChannelName[], "walk"];
  const entries: Entry[] = places.flatMap((place) => {
    const isMain = MAIN_PLACES.includes(place);
    const shares = isMain ? SHARES : [BUDGET, BUDGET_MAX];
    const schemes = [
      NONE,
      ...[...FIXED_CODES.map((code) => (share: number) => fixed(code, share)), auto]
        .flatMap((make) => shares.map(make)),
    ];
    if (place === "walk") {
      for (const budget of [BUDGET, BUDGET_MAX]) {
        schemes.push(without("prediction", budget), ...FIXED_CODES.map((code) => only(code, budget)));
      }
    }
    const seconds = isMain ? 2 * WALK_SECONDS : WALK_SECONDS;
    return schemes.map((scheme): Entry => ({ workload: "game64", place, scheme, seconds }));
  });
  for (const workload of ["game128", "opus", "g711"] as const) {
    for (const place of MAIN_PLACES) {
      const schemes = [
        NONE,
        fixed("copy", BUDGET_MAX),
        fixed("spaced", BUDGET_MAX),
        fixed("window", BUDGET),
        fixed("block", BUDGET),
        auto(BUDGET),
        auto(BUDGET_MAX),
      ];
      for (const scheme of schemes) entries.push({ workload, place, scheme, seconds: WALK_SECONDS });
    }
  }
  for (const workload of Object.keys(WORKLOADS) as WorkloadName[]) {
    for (const place of ["random", "congestion", "walk"] as const) {
      for (
        const scheme of [NONE, fixed("window", BUDGET), auto(BUDGET), without("traffic awareness", BUDGET)]
      ) {
        entries.push({
          workload,
          place,
          scheme,
          seconds: place === "walk" ? WALK_SECONDS : 60,
          hasBulk: true,
        });
      }
    }
  }
  const bounds = MAIN_PLACES.map((place) => ({ place, seconds: 2 * WALK_SECONDS, shares: SHARES }));
  return { entries, bounds };
}

/** A smoke of everything, half a minute. @param seconds of each run. */
export function quickPlan(seconds: number): Plan {
  const entries: Entry[] = [];
  for (const place of ["clean", ...MAIN_PLACES] as Place[]) {
    const schemes = [
      NONE,
      fixed("spaced", BUDGET_MAX),
      fixed("window", BUDGET),
      auto(BUDGET),
      auto(BUDGET_MAX),
    ];
    for (const scheme of schemes) entries.push({ workload: "game64", place, scheme, seconds });
  }
  for (const scheme of [NONE, auto(BUDGET)]) {
    entries.push({ workload: "opus", place: "random", scheme, seconds });
    entries.push({ workload: "game64", place: "congestion", scheme, seconds, hasBulk: true });
  }
  return { entries, bounds: MAIN_PLACES.map((place) => ({ place, seconds, shares: [BUDGET, BUDGET_MAX] })) };
}

/** One way, milliseconds. */
export const NEAR_MS = [2.5, 5, 10, 20, 40];
/** Of these, where a game walks through all paths. */
const WALKS_MS = [20];
/** Of a run on a path where nothing happens. */
const QUIET_SECONDS = 20;

/** Repair on request over near and far relays, three minutes. @param seconds of each run of the game of 64 Hz. */
export function nearPlan(seconds: number, nearMs: readonly number[] = NEAR_MS): Plan {
  const entries: Entry[] = [], bounds: Plan["bounds"] = [];
  for (const oneWayMs of nearMs) {
    for (const workload of ["game64", "game128", "opus"] as const) {
      const isMain = workload === "game64", forSeconds = isMain ? seconds : Math.ceil(seconds / 2);
      for (const place of ["random", "bursts"] as const) {
        const schemes = [NONE, onRequest(BUDGET), onRequest(BUDGET_MAX)];
        if (isMain) schemes.push(auto(BUDGET), fixed("copy", BUDGET_MAX));
        for (const scheme of schemes) {
          entries.push({ workload, place, scheme, seconds: forSeconds, oneWayMs });
        }
        bounds.push({ place, seconds: forSeconds, shares: [BUDGET_MAX], workload, oneWayMs });
      }
    }
    for (const scheme of [NONE, onRequest(BUDGET)]) {
      entries.push({ workload: "game64", place: "clean", scheme, seconds: QUIET_SECONDS, oneWayMs });
    }
  }
  const walks = [NONE];
  for (const budget of [BUDGET, BUDGET_MAX]) {
    const scheme = onRequest(budget);
    walks.push(scheme, { ...scheme, label: `${scheme.label}, no prediction`, isProactive: false });
  }
  for (const code of FIXED_CODES) for (const share of SHARES.slice(0, 3)) walks.push(fixed(code, share));
  for (const oneWayMs of WALKS_MS.filter((ms) => nearMs.includes(ms))) {
    const run = { workload: "game64", place: "walk", seconds: WALK_SECONDS, oneWayMs } as const;
    for (const scheme of walks) entries.push({ ...run, scheme });
    bounds.push({ ...run, shares: [BUDGET_MAX] });
  }
  return { entries, bounds };
}

export interface Measure {
  rows: Row[];
  bounds: Bounds[];
}

/** Runs the plan; `progress` gets the share that is done, 0 to 1. */
export function measure(plan: Plan, seed: number, progress: (share: number) => void): Measure {
  const wholeSeconds = plan.entries.reduce((sum, { seconds }) => sum + seconds, 0);
  const references = new Map<string, Outcome>();
  /** The run without repair that a run is compared with. */
  const reference = (run: Run, { workload, place, oneWayMs }: Entry, hasBulk: boolean): Outcome => {
    const key = `${workload} ${place} ${oneWayMs} ${run.seconds} ${hasBulk}`;
    const known = references.get(key) ?? play({ ...run, scheme: NONE, hasBulk });
    references.set(key, known);
    return known;
  };
  let doneSeconds = 0;
  const rows = plan.entries.map((entry): Row => {
    const run = runOf(entry, seed);
    const hasBulk = entry.hasBulk ?? false;
    const base = reference(run, entry, hasBulk);
    // A transfer's queue is no fault of the path, so the path's own delay is seen without it.
    const alone = reference(run, entry, false);
    const outcome = entry.scheme === NONE ? base : play(run);
    progress((doneSeconds += entry.seconds) / wholeSeconds);
    return rowOf(entry, outcome, base, alone);
  });
  const bounds = plan.bounds.flatMap(
    ({ place, seconds, shares, workload = "game64", oneWayMs = ONE_WAY_MS }) => {
      const run = runOf({ workload, place, scheme: NONE, seconds, oneWayMs }, seed);
      return shares.map((share) => ({ place, workload, oneWayMs, share, bound: boundOf(run, share) }));
    },
  );
  return { rows, bounds };
}

function runOf(
  { workload, place, scheme, seconds, hasBulk, oneWayMs = ONE_WAY_MS }: Entry,
  seed: number,
): Run {
  const channels = channelsAt(1000 * oneWayMs);
  const makePath = place === "walk" ? (random: Random) => walk(random, channels) : channels[place];
  return { workload: WORKLOADS[workload], makePath, scheme, seconds, seed, hasBulk };
}

function rowOf(entry: Entry, outcome: Outcome, base: Outcome, alone: Outcome): Row {
  const { deadlineUs, codec } = { codec: undefined, ...WORKLOADS[entry.workload] };
  const directions = (["up", "down"] as const).map((name): Received => ({
    sentUs: outcome[name].sentUs,
    arrivedUs: outcome[name].arrivedUs,
    expectedUs: expectedUs(alone[name]),
  }));
  const row: Row = {
    ...entry,
    score: score(directions, deadlineUs),
    extra: extraOf([[outcome.up, base.up], [outcome.down, base.down]]),
  };
  if (entry.hasBulk) row.bulkMbitPerS = outcome.bulkMbitPerS;
  else {row.extraWorstSecond = Math.max(
      worstSecond(outcome.up, base.up),
      worstSecond(outcome.down, base.down),
    );}
  if (codec) {
    row.rating = directions.reduce((sum, one) => sum + speechRating(one, deadlineUs, codec) / 2, 0);
  }
  return row;
}

/** When each packet would have come: as it did, and where it was lost, as late as the one before. */
function expectedUs({ sentUs, arrivedUs }: Flow): Float64Array {
  const first = arrivedUs.findIndex((us) => us < Infinity);
  let transitUs = arrivedUs[first] - sentUs[first];
  return sentUs.map((us, n) => {
    if (arrivedUs[n] < Infinity) transitUs = arrivedUs[n] - us;
    return us + transitUs;
  });
}

/** More or fewer packets of the transfer are no repair: they are taken off. */
function extraOf(flows: [flow: Flow, base: Flow][]): number {
  let more = 0, all = 0;
  for (const [flow, base] of flows) {
    all += sum(base.bytesPerSecond);
    more += sum(flow.bytesPerSecond) - flow.bulkBytes - sum(base.bytesPerSecond) + base.bulkBytes;
  }
  return more / all;
}

function worstSecond(flow: Flow, base: Flow): number {
  return Math.max(...base.bytesPerSecond.map((bytes, second) => flow.bytesPerSecond[second] / bytes - 1));
}

function sum(values: number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

/**
 * The residual loss of a fixed scheme with `extra` bytes, a share: the logarithm of the residual is interpolated linearly between
 * the measured shares, and constant beyond them. Points in any order; a residual of zero counts as half a packet.
 */
export function residualAt(rows: readonly Row[], extra: number): number {
  const points = rows.map((row) => ({
    x: row.extra,
    y: Math.log(Math.max(row.score.residual, 0.5 / row.score.packets)),
  }))
    .sort((a, b) => a.x - b.x);
  const next = points.findIndex(({ x }) => x >= extra);
  if (next < 0) return Math.exp(points[points.length - 1].y);
  if (next === 0) return Math.exp(points[0].y);
  const a = points[next - 1], b = points[next];
  return Math.exp(a.y + (b.y - a.y) * (extra - a.x) / (b.x - a.x));
}

/** The best fixed scheme of a game over a path at the same extra bytes. */
export function bestFixed(rows: readonly Row[], place: Place, extra: number) {
  const here = rows.filter((row) => row.workload === "game64" && row.place === place && !row.hasBulk);
  const none = here.filter(({ scheme }) => scheme === NONE);
  return FIXED_CODES.map((code) => ({
    code,
    fixed: here.filter(({ scheme }) => scheme.code === code && scheme.isFixed),
  })).filter(({ fixed }) => fixed.length > 0)
    .map(({ code, fixed }) => ({ code, residual: residualAt([...none, ...fixed], extra) }))
    .reduce((best, one) => one.residual < best.residual ? one : best);
}
