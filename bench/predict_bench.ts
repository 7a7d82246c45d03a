/**
 * `deno task bench:predict [--seed N] [--streams N] [--seconds N] [--budget PERCENT] [--traces DIRECTORY] [--tunnels SEEDS]`:
 * how well each predictor of src/repair/prediction/predictor.ts foresees losses on paths that none was trained on, what remains lost
 * when each spends the same bytes on copies, what a step costs, and what comes of it where whole tunnels repair. Radio
 * traces are read where Debian's mahimahi-traces has put them, and missed aloud. Seeded but for the costs; asserts nothing.
 */
import { parseArgs } from "@std/cli";
import { LSTM_WEIGHTS, TRAINED } from "../src/repair/prediction/weights.ts";
import {
  makePredictor,
  type Predictor,
  type PredictorKind,
  PREDICTORS,
  Predictors,
} from "../src/repair/prediction/predictor.ts";
import { PortableShardKernel } from "../src/codec/gf256.ts";
import { repairOptions } from "../src/repair/options.ts";
import { CHANNELS, Path, type PathModel } from "../tests/kit/channels.ts";
import { play } from "../tests/kit/repair_play.ts";
import type { Random } from "../tests/kit/random.ts";
import { elliottLoss, HELD_OUT, makeStream, makeStreams, type Stream } from "./predict_data.ts";
import { CHECK_BUDGET, score, type Scores } from "./prediction_scores.ts";
import { RadioPath, readTraces } from "./radio_traces.ts";

const options = parseArgs(Deno.args, {
  string: ["seed", "streams", "seconds", "budget", "traces", "tunnels"],
});
const streamCount = Number(options.streams ?? 24), seconds = Number(options.seconds ?? 60);
const budget = options.budget === undefined ? CHECK_BUDGET : Number(options.budget) / 100;
const directory = String(options.traces ?? "/usr/share/mahimahi/traces");
const SEED = 1_000_000 * Number(options.seed ?? 1) - 300_000;

/** What whole tunnels repair on: the simulator's channels, and losses that last long enough to be foreseen. */
const TUNNEL_PATHS: Record<string, (random: Random) => PathModel> = {
  ...CHANNELS,
  "lossy spells": (random) => new Path(20_000, elliottLoss(random.fork(), 0.15, 1_500_000, 0.3)),
};

const families = makeStreams(HELD_OUT, SEED, streamCount, seconds);
const traces = readTraces(directory);
if (traces.length === 0) {
  console.error(`SKIPPED radio traces: none in ${directory}; Debian 11's mahimahi-traces has some`);
} else {
  const streams = Array.from(
    { length: streamCount },
    (_, i) =>
      makeStream(SEED + 90_000 + i, seconds, (random: Random) => {
        const trace = traces[i % traces.length];
        // What a phone's own transfers leave of it, behind a buffer of some 100 packets.
        return new RadioPath(trace, random, 5_000 + random.real() * 40_000, 150_000, 0.3 + random.real() / 2);
      }),
  );
  families.push({ kind: `radio traces (${traces.length})`, streams });
}
/** Knows nothing, so that its copies go anywhere. */
const blind = (): Predictor => ({ lossAhead: 0, observe() {} });

console.log(
  `${streamCount} streams of ${seconds} s for each kind of path; weights: seed ${TRAINED.seed}, ${TRAINED.recipe}\n`,
);
interface Result {
  kind: string;
  none: Scores;
  best: number;
  scores: Scores[];
}

const results = families.map(judge);
results.push(
  mean(results),
  judge({ kind: "all in one", streams: families.flatMap(({ streams }) => streams) }),
);
const head = (more: string[]) =>
  `| path | ${[...more, ...PREDICTORS].join(" | ")} |\n|---|${
    "---|".repeat(more.length + PREDICTORS.length)
  }`;

console.log(
  `Area under precision and recall (PR-AUC); *none* is the share of steps with a loss ahead.\n\n${
    head(["none"])
  }`,
);
for (const { kind, none, scores } of results) {
  row(kind, [none.prevalence], scores, ({ prArea }) => prArea.toFixed(3), (x) => x.toFixed(3));
}
console.log(`\nArea under the receiver operating characteristic (ROC-AUC).\n\n${head([])}`);
for (const { kind, scores } of results) row(kind, [], scores, ({ rocArea }) => rocArea.toFixed(3), String);
console.log(
  `\nPercent of datagrams still lost with copies of ${100 * budget} %; *blind* copies any.\n\n${
    head(["lost", "blind", "best"])
  }`,
);
for (const { kind, none, best, scores } of results) {
  row(
    kind,
    [none.lossRate, none.residualRate, best],
    scores,
    ({ residualRate }) => percent(residualRate),
    percent,
  );
}
costs();
if (options.tunnels !== undefined) tunnels(Number(options.tunnels), seconds);

function judge({ kind, streams }: { kind: string; streams: Stream[] }): Result {
  return {
    kind,
    none: score(streams, blind, budget),
    best: bestResidual(streams),
    scores: PREDICTORS.map((name) => score(streams, () => makePredictor(name), budget)),
  };
}

/** Each kind of path counts alike. */
function mean(results: Result[]): Result {
  const of = (value: (result: Result) => number) =>
    results.reduce((sum, result) => sum + value(result), 0) / results.length;
  const ofScores = (pick: (result: Result) => Scores): Scores => ({
    prevalence: of((result) => pick(result).prevalence),
    prArea: of((result) => pick(result).prArea),
    rocArea: of((result) => pick(result).rocArea),
    crossEntropy: of((result) => pick(result).crossEntropy),
    lossRate: of((result) => pick(result).lossRate),
    residualRate: of((result) => pick(result).residualRate),
  });
  return {
    kind: "mean of these",
    none: ofScores(({ none }) => none),
    best: of(({ best }) => best),
    scores: PREDICTORS.map((_, i) => ofScores(({ scores }) => scores[i])),
  };
}

function row(
  kind: string,
  more: number[],
  scores: Scores[],
  show: (scores: Scores) => string,
  showMore: (x: number) => string,
): void {
  console.log(`| ${[kind, ...more.map(showMore), ...scores.map(show)].join(" | ")} |`);
}

function percent(share: number): string {
  return (100 * share).toFixed(2);
}

/** What copies cannot bring back even when each loss has one: those whose copy is lost too. */
function bestResidual(streams: readonly Stream[]): number {
  return score(streams, blind, 1).residualRate;
}

/** Least ns a step and session, each observing and being asked: short rounds, since others may use the machine. */
function costs(): void {
  const { steps } = families[0].streams[0], rounds = 60;
  console.log(
    `\nNanoseconds a step and session, the least of ${rounds} rounds, ${
      LSTM_WEIGHTS.length * 3 / 4
    } bytes of weights in the LSTM.\n`,
  );
  console.log("| predictor | one session | 64 sessions | 4096 sessions |\n|---|---|---|---|");
  for (const kind of PREDICTORS) {
    const cells = [1, 64, 4096].map((sessions) =>
      least(rounds, () => cost(kind, sessions, steps)).toFixed(0)
    );
    console.log(`| ${kind} | ${cells.join(" | ")} |`);
  }
}

function cost(kind: PredictorKind, sessions: number, steps: Stream["steps"]): number {
  const shared = new Predictors(kind);
  const predictors = Array.from({ length: sessions }, () => shared.make());
  const turns = Math.max(2, Math.round(1024 / sessions));
  let sum = 0, start = 0;
  // The first turn finds everything cold, as reports do not.
  for (let turn = -1; turn < turns; turn++) {
    if (turn === 0) start = performance.now();
    // All observe first, as reports of a burst do, and then all are asked.
    for (let i = 0; i < sessions; i++) predictors[i].observe(steps[(turn + 1 + i) % steps.length]);
    for (let i = 0; i < sessions; i++) sum += predictors[i].lossAhead;
  }
  const ns = (performance.now() - start) * 1e6 / (turns * sessions);
  if (!(sum >= 0)) throw new Error(`${kind} is broken`);
  return ns;
}

function least(rounds: number, measure: () => number): number {
  return Math.min(...Array.from({ length: rounds }, measure));
}

/** A game's packets through client and relay with repair by default, and the prediction off or by each predictor. */
function tunnels(seeds: number, seconds: number): void {
  const settings: [string, Partial<Parameters<typeof repairOptions>[1]>][] = [
    ["none", { proactive: false }],
    ...PREDICTORS.map((predictor): [string, { predictor: PredictorKind }] => [predictor, { predictor }]),
  ];
  console.log(
    `\nPercent of a game's packets (64 Hz, deadline 60 ms) lost behind a whole tunnel, and extra bytes; ${seeds} streams of ${seconds} s.\n`,
  );
  console.log(
    `| path | ${settings.map(([name]) => name).join(" | ")} |\n|---|${"---|".repeat(settings.length)}`,
  );
  for (const [name, make] of Object.entries(TUNNEL_PATHS)) {
    const cells = settings.map(([, more]) => {
      let lost = 0, extra = 0;
      for (let seed = 1; seed <= seeds; seed++) {
        const config = { budgetPercent: 25, gameDeadlineMs: 60, voiceDeadlineMs: 100, ...more };
        const repair = repairOptions(new PortableShardKernel(), config);
        const outcome = play(repair, make, { seconds, seed, back: () => new Path(20_000) });
        const repairBytes = outcome.repairBytes[outcome.repairBytes.length - 1];
        lost += outcome.residual / seeds;
        extra += repairBytes / (outcome.bytes - repairBytes) / seeds;
      }
      return `${percent(lost)}, ${percent(extra)}`;
    });
    console.log(`| ${name} | ${cells.join(" | ")} |`);
  }
}
