/**
 * `deno task bench:paths [schedulers] [handoff] [links] [cuts] [idle] [--seeds N] [--seconds N] [--cuts N]`: what several paths do for a game. Schedulers: each of
 * them over pairs of simulated paths, by packets lost or late and bytes on the second path. Handoff: whether predicting a radio's
 * handovers spares bytes on a metered path. Links, cuts and idle (root; not without being named): the same between real processes,
 * while one path is cut again and again, and what a path costs that nothing goes on. Prints tables and writes their pictures to bench/docs; asserts nothing. No machine is
 * in the first two: the same seeds give the same figures anywhere.
 */
import { parseArgs } from "@std/cli";
import { play } from "../tests/kit/paths_play.ts";
import { comparisonChart, curveChart } from "./chart.ts";
import { compareHandoffs, type HandoffRow, train } from "./paths/handoff.ts";
import { CONTENDERS, PAIRS, USEFUL_US } from "./paths/pairs.ts";
import {
  CLEAN_LINKS,
  CONTENDERS as TUNNELS,
  cuts,
  idleCost,
  linkGame,
  LINKS,
  type LinkScore,
} from "./paths/links.ts";
import { HELD_OUT } from "./paths/radio.ts";

const args = parseArgs(Deno.args, { string: ["seeds", "seconds", "cuts"] });
const parts = args._.length > 0 ? args._.map(String) : ["schedulers", "handoff"];
const SEEDS = Number(args.seeds ?? 8), SECONDS = Number(args.seconds ?? 300);
/** Between real processes: seconds, and how often one path is cut, how often that is and for how long. */
const REAL_S = Number(args.seconds ?? 60), CUTS = Number(args.cuts ?? 100), EVERY_MS = 1500, CUT_MS = 700;
const DOCS = new URL("docs/", import.meta.url);
/** Below this a share cannot be told from none with so many packets. */
const PERCENT_MIN = 0.01;
const TRAINING_RADIOS = 60, EPOCHS = 6;

if (parts.includes("schedulers")) schedulers();
if (parts.includes("handoff")) handoff();
if (parts.includes("links")) {
  await links(LINKS.map((pair) => [pair.name, (tunnel) => linkGame(tunnel, pair, REAL_S)]));
}
if (parts.includes("cuts")) {
  const row = `${CLEAN_LINKS.name}, A cut ${CUTS} times`;
  await links([[
    row,
    (tunnel) => linkGame(tunnel, CLEAN_LINKS, CUTS * EVERY_MS / 1000, cuts(CUTS, EVERY_MS, CUT_MS)),
  ]]);
}
if (parts.includes("idle")) {
  const { usedKbit, idleKbit } = await idleCost(REAL_S);
  console.log(
    `\na second path that nothing goes on: ${usedKbit.toFixed(2)} kbit/s beside bulk, ${
      idleKbit.toFixed(2)
    } kbit/s idle`,
  );
}

function schedulers(): void {
  console.log(
    `\n${SEEDS} seeds of ${SECONDS} s for each pair; lost or late, and kbit/s on B with its pings\n`,
  );
  console.log(`| A, B | ${CONTENDERS.map(({ name }) => name).join(" | ")} |`);
  console.log(`|---|${CONTENDERS.map(() => "---|").join("")}`);
  const sums = CONTENDERS.map(() => ({ percent: 0, kbit: 0 }));
  const bars = PAIRS.map((pair) => {
    const cells = CONTENDERS.map((contender, i) => {
      let missed = 0, packets = 0, bytes = 0;
      for (let seed = 1; seed <= SEEDS; seed++) {
        const paths = pair.make(seed, SECONDS);
        const played = play(contender.make(), { paths, seconds: SECONDS, usefulUs: USEFUL_US });
        missed += played.missed;
        packets += played.packets;
        bytes += played.bytes[1];
      }
      const percent = 100 * missed / packets, kbit = 8 * bytes / (SEEDS * SECONDS) / 1000;
      sums[i].percent += percent / PAIRS.length;
      sums[i].kbit += kbit / PAIRS.length;
      return { percent, kbit };
    });
    const text = cells.map(({ percent, kbit }, i) =>
      CONTENDERS[i].isOracle ? percentOf(percent) : `${percentOf(percent)}, ${kbit.toFixed(0)}`
    );
    console.log(`| ${pair.name} | ${text.join(" | ")} |`);
    const of = (name: string) =>
      Math.max(PERCENT_MIN, cells[CONTENDERS.findIndex((one) => one.name === name)].percent);
    const theirs = Math.min(of("A alone"), of("B alone"));
    return { label: pair.name, ours: of("copies always"), theirs, better: "less" as const };
  });
  const means = sums.map(({ percent, kbit }, i) =>
    CONTENDERS[i].isOracle ? percentOf(percent) : `${percentOf(percent)}, ${kbit.toFixed(0)}`
  );
  console.log(`| mean | ${means.join(" | ")} |`);
  const title = `Percent of a game's packets lost or late (${PERCENT_MIN} stands for less)`;
  Deno.writeTextFileSync(
    new URL("paths_copies.svg", DOCS),
    comparisonChart(title, ["copies always", "the better path alone"], bars),
  );
}

function percentOf(percent: number): string {
  return `${percent.toFixed(2)} %`;
}

function handoff(): void {
  const { strategies, areas, logistic } = train(1, TRAINING_RADIOS, 300, EPOCHS);
  console.log(
    `\n${TRAINING_RADIOS} training radios of 300 s, ${EPOCHS} epochs; area under the ROC curve of unseen radios\n`,
  );
  console.log(
    `| | ${Object.keys(HELD_OUT).join(" | ")} |\n|---|${Object.keys(HELD_OUT).map(() => "---|").join("")}`,
  );
  for (const [name, row] of Object.entries(areas)) {
    console.log(`| ${name} | ${Object.values(row).map((value) => value.toFixed(3)).join(" | ")} |`);
  }
  console.log(`\nthe logistic regression: ${logistic.map((weight) => weight.toFixed(2)).join(", ")}\n`);
  const seeds = Array.from({ length: SEEDS }, (_, i) => 700 + i);
  const results = Object.entries(HELD_OUT).map(([radio, settings]): [string, HandoffRow[]] => [
    radio,
    compareHandoffs(strategies, settings, seeds, 2 * SECONDS),
  ]);
  console.log(
    `${SEEDS} unseen radios of each kind, ${
      2 * SECONDS
    } s; lost or late for each handover, kbit/s on the metered path\n`,
  );
  console.log(
    `| | ${results.map(([radio, [{ handovers }]]) => `${radio} (${handovers} handovers)`).join(" | ")} |`,
  );
  console.log(`|---|${results.map(() => "---|").join("")}`);
  results[0][1].forEach(({ strategy, isInTable }, i) => {
    if (!isInTable) return;
    const cells = results.map(([, rows]) =>
      `${rows[i].missed.toFixed(2)}, ${rows[i].meteredKbit.toFixed(1)}`
    );
    console.log(`| ${strategy} | ${cells.join(" | ")} |`);
  });
  for (const [radio, rows] of results) {
    const curves = ["threshold", "logistic", "LSTM"].map((name) => ({
      label: name,
      isOurs: name === "threshold",
      points: rows.filter(({ strategy }) =>
        strategy === name || strategy === "reactive" || strategy === "always"
      )
        .map(({ meteredKbit, missed }) => ({ x: meteredKbit, y: missed })).sort((a, b) => a.x - b.x),
    }));
    Deno.writeTextFileSync(
      new URL(`paths_handoff_${radio}.svg`, DOCS),
      curveChart(`Handovers (${radio}): from reactive copies, at the left, to copies always, at the right`, [
        "kbit/s on the metered path",
        "packets lost or late for each handover",
      ], curves),
    );
  }
}

/** A table with a row for each of these, over all tunnels. */
async function links(
  rows: [name: string, cell: (tunnel: typeof TUNNELS[number]) => Promise<LinkScore>][],
): Promise<void> {
  console.log(
    `\n| A, B | ${TUNNELS.map(({ name }) => name).join(" | ")} |\n|---|${TUNNELS.map(() => "---|").join("")}`,
  );
  for (const [name, cell] of rows) {
    const cells: string[] = [];
    for (const tunnel of TUNNELS) {
      const { packets, missed, lost, gapP99Ms, gapMs } = await cell(tunnel);
      cells.push(
        `${percentOf(100 * missed / packets)}, ${lost} lost, ${gapP99Ms.toFixed(0)} and ${
          gapMs.toFixed(0)
        } ms`,
      );
    }
    console.log(`| ${name} | ${cells.join(" | ")} |`);
  }
}
