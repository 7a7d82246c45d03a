/**
 * The measure of repair on request as tables in Markdown: near and far relays, games and calls, what is left at the deadline, what
 * it costs and how much later it comes, beside the bounds, and the goals. Invariant: the same measure gives the same text.
 */
import { bestFixed, type Measure, NEAR_MS, onRequest, type Place, type Row } from "./measure.ts";
import { percent, table } from "./report.ts";
import type { WorkloadName } from "../../tests/kit/workloads.ts";

const ON_25 = onRequest(0.25).label, ON_100 = onRequest(1).label;

interface NearGoal {
  goal: string;
  result: string;
  isReached: boolean;
}

function rowOf({ rows }: Measure, workload: WorkloadName, place: Place, oneWayMs: number, label: string) {
  return rows.find((row) =>
    row.workload === workload && row.place === place && row.oneWayMs === oneWayMs &&
    row.scheme.label === label
  );
}

/** Residual and bytes: "0.05 % (7.9 %)". */
function cell(row: Row | undefined): string {
  return row === undefined ? "" : `${percent(row.score.residual)} (${percent(row.extra, 1)})`;
}

/** What was to be reached, over all workloads and each length of the path, and what was. */
export function nearGoals(measure: Measure): NearGoal[] {
  const goals: NearGoal[] = [];
  const add = (
    name: string,
    workload: WorkloadName,
    place: Place,
    oneWayMs: number,
    labels: string[],
    most: number,
    bytes: number,
  ) => {
    const rows = labels.map((label) => rowOf(measure, workload, place, oneWayMs, label)).filter((row) =>
      row !== undefined
    );
    if (rows.length === 0) return;
    const isMet = (row: Row) => row.score.residual <= most && row.extra <= bytes;
    const best = rows.find(isMet) ?? rows.reduce((a, b) => b.score.residual < a.score.residual ? b : a);
    goals.push({
      goal: `${workload}, round trip ${2 * oneWayMs} ms, ${name}: at most ${percent(most, 1)} at ${
        percent(bytes, 0)
      }`,
      result: `${cell(best)}, ${best.scheme.label}`,
      isReached: isMet(best),
    });
  };
  for (const workload of ["game64", "game128", "opus"] as const) {
    for (const oneWayMs of NEAR_MS) {
      if (oneWayMs <= 10) add("random", workload, "random", oneWayMs, [ON_25], 0.001, 0.08);
      else if (oneWayMs === 20) add("random", workload, "random", oneWayMs, [ON_25], 0.003, 0.15);
      if (oneWayMs > 10) continue;
      add("bursts", workload, "bursts", oneWayMs, [ON_25, ON_100], 0.01, 0.15);
      add("bursts", workload, "bursts", oneWayMs, [ON_25, ON_100], 0.005, 0.6);
    }
  }
  for (const oneWayMs of NEAR_MS) {
    const clean = rowOf(measure, "game64", "clean", oneWayMs, ON_25);
    if (clean) {
      goals.push({
        goal: `game64, round trip ${2 * oneWayMs} ms, clean: at most 1.2 % extra`,
        result: percent(clean.extra),
        isReached: clean.extra <= 0.012,
      });
    }
    for (const label of [ON_25, ON_100]) {
      const row = rowOf(measure, "game64", "walk", oneWayMs, label);
      if (row === undefined) continue;
      const best = bestFixed(measure.rows.filter((one) => one.oneWayMs === oneWayMs), "walk", row.extra);
      const ratio = row.score.residual / best.residual;
      goals.push({
        goal: `game64, round trip ${
          2 * oneWayMs
        } ms, walk, ${label}: at most half of the best fixed scheme's residual`,
        result: `${cell(row)}, ${best.code} ${percent(best.residual)}: ${ratio.toFixed(2)} times`,
        isReached: ratio <= 0.5,
      });
    }
  }
  return goals;
}

/** All tables. */
export function nearReport(measure: Measure): string {
  const { rows, bounds } = measure;
  const lengths = NEAR_MS.filter((ms) => rows.some(({ oneWayMs }) => oneWayMs === ms));
  const heads = ["traffic, path, scheme", ...lengths.map((ms) => `${2 * ms} ms`)];
  const kinds = [
    ...new Set(rows.map(({ workload, place, scheme }) => `${workload}|${place}|${scheme.label}`)),
  ]
    .filter((kind) => !/\|walk\|(copy|spaced|window|block) /.test(kind));
  const line = (of: (row: Row) => string) =>
    kinds.map((kind) => {
      const [workload, place, label] = kind.split("|");
      return [
        `${workload}, ${place}, ${label}`,
        ...lengths.map((ms) => {
          const row = rowOf(measure, workload as WorkloadName, place as Place, ms, label);
          return row === undefined ? "" : of(row);
        }),
      ];
    });
  const bound = (pick: (row: (typeof bounds)[number]) => number) =>
    [...new Set(bounds.map(({ workload, place }) => `${workload}|${place}`))].map((kind) => {
      const [workload, place] = kind.split("|");
      return [
        `${workload}, ${place}`,
        ...lengths.map((ms) => {
          const found = bounds.find((one) =>
            one.workload === workload && one.place === place && one.oneWayMs === ms
          );
          return found === undefined ? "" : percent(pick(found));
        }),
      ];
    });
  const late = (row: Row) => `${row.score.addedMsP99.toFixed(1)} / ${row.score.addedMsP999.toFixed(1)}`;
  const parts: [title: string, text: string][] = [
    [
      "Goals",
      table(
        ["goal", "result", ""],
        nearGoals(measure).map(({ goal, result, isReached }) => [
          goal,
          result,
          isReached ? "reached" : "**missed**",
        ]),
      ),
    ],
    ["Residual at the deadline (extra bytes), by round trip", table(heads, line(cell))],
    ["Added latency of packets that came, ms p99 / p99.9, by round trip", table(heads, line(late))],
    [
      "Least possible with perfect knowledge, copies at any time",
      table(["traffic, path", ...heads.slice(1)], bound(({ bound }) => bound.alone)),
    ],
    [
      "Least possible with perfect knowledge, each copy behind a request",
      table(["traffic, path", ...heads.slice(1)], bound(({ bound }) => bound.asking)),
    ],
  ];
  return parts.map(([title, text]) => `## ${title}\n\n${text}\n`).join("\n");
}
