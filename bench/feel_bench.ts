/**
 * `deno task bench:feel [--quick] [--seed N]`: what repair does for a game or a call and what it costs, from whole clients and
 * relays in the deterministic simulator, over all modelled paths and by every scheme. Prints the tables, and leaves them, the
 * figures and the picture in bench/results/ (not with --quick). No figure in it depends on the machine. With --near it
 * measures repair on request over paths of several lengths instead, with --headers what short packets change; with --sockets it runs over real sockets, as
 * bench/feel/sockets.ts says.
 */
import { parseArgs } from "@std/cli";
import { renderProgress } from "../src/cli/speedtest.ts";
import { type Curve, feelChart, type Panel } from "./feel/chart.ts";
import {
  MAIN_PLACES,
  type Measure,
  measure,
  NEAR_MS,
  nearPlan,
  quickPlan,
  wholePlan,
} from "./feel/measure.ts";
import { headersPlan, headersReport } from "./feel/headers.ts";
import { nearGoals, nearReport } from "./feel/near.ts";
import { goalsOf, report } from "./feel/report.ts";
import { benchSockets } from "./feel/sockets.ts";

const RESULTS = new URL("results/", import.meta.url);
const QUICK_SECONDS = 20, NEAR_SECONDS = 140, HEADERS_SECONDS = 140;

function panelsOf({ rows, bounds }: Measure): Panel[] {
  return MAIN_PLACES.map((place): Panel => {
    const here = rows.filter((row) => row.workload === "game64" && row.place === place && !row.hasBulk);
    const pointsOf = (some: typeof rows) =>
      some.map(({ extra, score }) => ({ extra, residual: score.residual }));
    const none = here.filter(({ scheme }) => scheme.code === "none");
    const codes = ["copy", "spaced", "window", "block"];
    const curves = codes.map((code): Curve => ({
      label: code,
      points: pointsOf([...none, ...here.filter(({ scheme }) => scheme.code === code && scheme.isFixed)]),
      style: "theirs",
    }));
    const autos = here.filter(({ scheme }) => scheme.code === "auto" && scheme.isProactive === undefined);
    curves.unshift({ label: "adaptive", points: pointsOf(autos), style: "ours" });
    curves.push({
      label: "perfect knowledge",
      points: bounds.filter((one) => one.place === place)
        .map(({ share, bound }) => ({ extra: share, residual: bound.alone })),
      style: "bound",
    });
    const goal = { random: { extra: 0.25, residual: 0.008 }, bursts: { extra: 1, residual: 0.006 } };
    const title = {
      random: "5 % lost at random",
      bursts: "5 % lost in bursts of 30 ms",
      walk: "through all paths in turn",
    };
    return {
      title: title[place as keyof typeof title],
      curves,
      goal: goal[place as keyof typeof goal],
    };
  });
}

const { quick, near, sockets, headers, seed: seedText, seconds, only, "one-way": oneWay } = parseArgs(
  Deno.args,
  {
    boolean: ["quick", "near", "sockets", "headers"],
    string: ["seed", "seconds", "only", "one-way"],
    default: { seed: "1" },
    unknown: (word) => {
      throw new Error(
        `${word}: there are --quick, --near, --headers, --seed N and --sockets with --seconds N, --only NAME and --one-way MS,MS`,
      );
    },
  },
);
const seed = Number(seedText);
if (!Number.isInteger(seed)) throw new Error(`--seed ${seedText} is not a whole number`);
if (sockets) {
  const milliseconds = oneWay === undefined ? [] : String(oneWay).split(",").map(Number);
  if (!milliseconds.every((ms) => NEAR_MS.includes(ms))) {
    throw new Error(`--one-way ${oneWay}: expected some of ${NEAR_MS.join(",")}`);
  }
  await benchSockets({
    seed,
    seconds: Number(seconds ?? 30),
    only: String(only ?? ""),
    oneWay: milliseconds,
  });
  Deno.exit();
}
if (near) {
  const measured = measure(nearPlan(quick ? QUICK_SECONDS : NEAR_SECONDS), seed, () => {});
  const text = nearReport(measured);
  console.log(text);
  if (!quick) {
    Deno.mkdirSync(RESULTS, { recursive: true });
    Deno.writeTextFileSync(new URL("feel_near.md", RESULTS), text);
    const figures = { seed, goals: nearGoals(measured), ...measured };
    Deno.writeTextFileSync(new URL("feel_near.json", RESULTS), `${JSON.stringify(figures, undefined, 1)}\n`);
  }
  Deno.exit();
}
if (headers) {
  const measured = measure(headersPlan(quick ? QUICK_SECONDS : HEADERS_SECONDS), seed, () => {});
  const text = headersReport(measured);
  console.log(text);
  if (!quick) {
    Deno.mkdirSync(RESULTS, { recursive: true });
    Deno.writeTextFileSync(new URL("feel_headers.md", RESULTS), text);
  }
  Deno.exit();
}
const isSeen = Deno.stderr.isTerminal();
const draw = (text: string) => isSeen && Deno.stderr.writeSync(new TextEncoder().encode(`\r\x1b[K${text}`));
const measured = measure(
  quick ? quickPlan(QUICK_SECONDS) : wholePlan(),
  seed,
  (share) => draw(renderProgress(share)),
);
draw("");
const text = report(measured);
console.log(text);
if (!quick) {
  Deno.mkdirSync(RESULTS, { recursive: true });
  Deno.writeTextFileSync(new URL("feel.md", RESULTS), text);
  const figures = { seed, goals: goalsOf(measured), ...measured };
  Deno.writeTextFileSync(new URL("feel.json", RESULTS), `${JSON.stringify(figures, undefined, 1)}\n`);
  Deno.writeTextFileSync(
    new URL("feel.svg", RESULTS),
    feelChart(
      "A game of 64 packets a second, 60 ms: what is lost, and what repair costs",
      panelsOf(measured),
    ),
  );
}
