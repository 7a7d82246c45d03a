/**
 * The measure of repair as tables in Markdown: the goals and how far they are from what is possible, one table of schemes by paths,
 * and all figures of every run. Invariant: the same measure gives the same text. Draws no picture.
 */
import { blindBound } from "./bound.ts";
import { opinionScore } from "./e_model.ts";
import { auto, bestFixed, type Bounds, type Measure, type Place, type Row } from "./measure.ts";
import { NONE } from "./play.ts";
import { WORKLOADS } from "../../tests/kit/workloads.ts";

const DEFAULT = auto(0.25).label, MOST = auto(1).label;

export function table(heads: string[], rows: string[][]): string {
  return [heads, heads.map(() => "---"), ...rows].map((cells) => `| ${cells.join(" | ")} |`).join("\n");
}

export function percent(share: number, digits = 2): string {
  return `${(100 * share).toFixed(digits)} %`;
}

/** The game of 64 Hz by itself. */
function gameRows({ rows }: Measure, place?: Place): Row[] {
  return rows.filter((row) =>
    row.workload === "game64" && !row.hasBulk && (place === undefined || row.place === place)
  );
}

export interface Goal {
  goal: string;
  result: string;
  isReached: boolean;
  /** What perfect knowledge allows, where that says something. */
  bound: string;
}

function boundText({ bounds }: Measure, place: Place, share: number): string {
  const found = bounds.find((one) => one.place === place && one.share === share);
  return found === undefined ? "" : `${percent(found.bound.riding)} / ${percent(found.bound.alone)}`;
}

/** What was to be reached, and what was. */
export function goalsOf(measure: Measure): Goal[] {
  const goals: Goal[] = [];
  const row = (place: Place, label: string) =>
    gameRows(measure, place).find(({ scheme }) => scheme.label === label);
  const residual = (place: Place, label: string, budget: number, most: number) => {
    const { score, extra } = row(place, label)!;
    goals.push({
      goal: `${place}, at most ${percent(budget, 0)} extra: residual at most ${percent(most, 1)}`,
      result: `${percent(score.residual)} at ${percent(extra, 1)} (${
        percent(score.residualRelaxed)
      } with 65 ms)`,
      isReached: score.residual <= most && extra <= budget,
      bound: boundText(measure, place, budget),
    });
  };
  residual("random", DEFAULT, 0.25, 0.008);
  const blind = percent(blindBound(WORKLOADS.game64, 0.25, 0.05));
  goals[0].bound += `; riding, without knowing the losses: ${blind} of the bytes`;
  residual("bursts", MOST, 1, 0.006);
  const clean = row("clean", DEFAULT)!;
  goals.push({
    goal: "clean: less than 2 % extra",
    result: percent(clean.extra),
    isReached: clean.extra < 0.02,
    bound: "",
  });
  for (const [label, budget] of [[DEFAULT, 0.25], [MOST, 1]] as const) {
    const adaptive = row("walk", label)!;
    const best = bestFixed(measure.rows, "walk", adaptive.extra);
    const ratio = adaptive.score.residual / best.residual;
    goals.push({
      goal: `walk, ${label}: at most half of the best fixed scheme's residual at equal bytes`,
      result: `${percent(adaptive.score.residual)} at ${percent(adaptive.extra, 1)}, ${best.code} ${
        percent(best.residual)
      }: ${ratio.toFixed(2)} times`,
      isReached: ratio <= 0.5,
      bound: boundText(measure, "walk", budget),
    });
  }
  return goals;
}

export function goalsTable(measure: Measure): string {
  return table(
    ["goal (game, 64 Hz, 60 ms)", "result", "", "bound: riding / alone"],
    goalsOf(measure).map(({ goal, result, isReached, bound }) => [
      goal,
      result,
      isReached ? "reached" : "**missed**",
      bound,
    ]),
  );
}

/** The bounds at all shares. */
export function boundsTable({ bounds }: Measure): string {
  const cell = ({ bound }: Bounds) => `${percent(bound.riding)} / ${percent(bound.alone)}`;
  const shares = [...new Set(bounds.map(({ share }) => share))];
  const places = [...new Set(bounds.map(({ place }) => place))];
  return table(
    ["least possible, riding / alone", ...shares.map((share) => `${percent(share, 0)} extra`)],
    places.map((place) => [place, ...bounds.filter((one) => one.place === place).map(cell)]),
  );
}

/** Residual and extra bytes of every scheme over every path. */
export function overviewTable(measure: Measure): string {
  const rows = gameRows(measure);
  const places = [...new Set(rows.map(({ place }) => place))];
  // The walk has them all, in order.
  const labels = [...new Set([...gameRows(measure, "walk"), ...rows].map(({ scheme }) => scheme.label))];
  return table(
    ["residual (extra bytes)", ...places],
    labels.map((label) => [
      label,
      ...places.map((place) => {
        const row = rows.find((one) => one.place === place && one.scheme.label === label);
        if (row === undefined) return "";
        const residual = percent(row.score.residual);
        return row.scheme === NONE ? residual : `${residual} (${percent(row.extra, 0)})`;
      }),
    ]),
  );
}

/** Every figure of the rows that are asked for. */
export function detailTable(rows: readonly Row[]): string {
  const isCall = rows.some(({ rating }) => rating !== undefined);
  const hasBulk = rows.some(({ bulkMbitPerS }) => bulkMbitPerS !== undefined);
  const heads = [
    "traffic",
    "path",
    "scheme",
    "residual",
    "added ms p50 / p99 / p99.9",
    "runs of 3 or more lost a minute",
    "extra bytes",
    hasBulk ? "transfer, Mbit/s" : "in the worst second",
    ...(isCall ? ["E-model, R / MOS, approximate"] : []),
  ];
  return table(
    heads,
    rows.map((row) => {
      const { score, rating } = row;
      return [
        row.workload,
        row.place,
        row.scheme.label,
        percent(score.residual),
        [score.addedMsP50, score.addedMsP99, score.addedMsP999].map((ms) => ms.toFixed(1)).join(" / "),
        score.longRunsPerMinute.toFixed(1),
        percent(row.extra, 1),
        row.extraWorstSecond === undefined ? row.bulkMbitPerS!.toFixed(2) : percent(row.extraWorstSecond, 0),
        ...(rating === undefined
          ? (isCall ? [""] : [])
          : [`${rating.toFixed(1)} / ${opinionScore(rating).toFixed(2)}`]),
      ];
    }),
  );
}

/** All tables. */
export function report(measure: Measure): string {
  const others = measure.rows.filter((row) => row.workload !== "game64" && !row.hasBulk);
  const withBulk = measure.rows.filter(({ hasBulk }) => hasBulk);
  const parts: [title: string, text: string][] = [
    ["Goals", goalsTable(measure)],
    ["What perfect knowledge allows", boundsTable(measure)],
    ["Game, 64 Hz: every scheme over every path", overviewTable(measure)],
    ["Game, 64 Hz: all figures", detailTable(gameRows(measure))],
    ["Other games and calls", detailTable(others)],
    ["Beside a transfer in the same tunnel", detailTable(withBulk)],
  ];
  return parts.map(([title, text]) => `## ${title}\n\n${text}\n`).join("\n");
}
