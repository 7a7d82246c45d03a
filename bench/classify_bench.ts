/**
 * `deno task bench:classify [--captures DIRECTORY] [--packets N] [--before FILE] [--json FILE] [--missed]`: how often the
 * classifier takes labelled flows for what they are after 2, 8 and 32 packets of theirs, by class and by application, over UDP
 * flows of N packets (20) or more; and what a packet costs. The directory has captures and a labels.tsv as in ../shared/flows.
 * With --before the shares of an earlier run stand beside. Deterministic but for the cost; asserts nothing.
 */
import { parseArgs } from "@std/cli";
import { isRealTime } from "../src/control/traffic_class.ts";
import { CLASS_LABELS } from "../src/metrics.ts";
import {
  AFTER,
  bulkTaken,
  CLASS_OF,
  classAfter,
  nameOf,
  precision,
  type Scored,
  scoredFlows,
  sharesOf,
} from "./classify_score.ts";

const options = parseArgs(Deno.args, {
  string: ["captures", "packets", "before", "json"],
  boolean: ["missed"],
});
const directory = String(options.captures ?? "../shared/flows");
const packetsMin = Number(options.packets ?? 20);
const flows = scoredFlows(directory, packetsMin);
const real = flows.filter(({ truth }) => truth in CLASS_OF);
const groups: Record<string, Scored[]> = {
  "games and calls": real,
  games: flows.filter(({ truth }) => truth === "game"),
  calls: flows.filter(({ truth }) => truth === "call"),
  transfers: flows.filter(({ truth }) => truth === "bulk"),
  others: flows.filter(({ truth }) => truth === "other"),
  ...Object.fromEntries(
    [...new Set(real.map(({ application }) => application))].sort()
      .map((name) => [`- ${name}`, real.filter(({ application }) => application === name)]),
  ),
};
const unknown = scoredFlows(directory, packetsMin, false);
const unknownReal = unknown.filter(({ truth }) => truth in CLASS_OF);
const result = {
  flows: flows.length,
  groups: Object.fromEntries(Object.entries(groups).map(([name, some]) => [name, sharesOf(some)])),
  /** No pattern of any application: what an application that nobody has heard of meets. */
  unknown: {
    all: sharesOf(unknownReal),
    games: sharesOf(unknownReal.filter(({ truth }) => truth === "game")),
    calls: sharesOf(unknownReal.filter(({ truth }) => truth === "call")),
    bulkTaken: bulkTaken(unknown),
  },
  precision: precision(flows),
  bulkTaken: bulkTaken(flows),
};
const before = options.before === undefined
  ? undefined
  : JSON.parse(Deno.readTextFileSync(String(options.before))) as typeof result;
const percent = (share: number | undefined) =>
  share === undefined || Number.isNaN(share) ? "" : `${Math.round(100 * share)}`;
const cell = (now: Record<number, number>, was: Record<number, number> | undefined) =>
  AFTER.map((count) => was ? `${percent(now[count])} (${percent(was[count])})` : percent(now[count]))
    .join(" / ");

console.log(
  `${flows.length} UDP flows of ${packetsMin} packets and more in ${directory}; in percent of flows after ${
    AFTER.join(" / ")
  } packets` +
    `${before ? ", before in brackets" : ""}\n`,
);
console.log(
  "| flows | number | taken for a game or a call | for the right one of the two |\n|---|---|---|---|",
);
for (const [name, { flows, realTime, right }] of Object.entries(result.groups)) {
  const was = before?.groups[name];
  const isReal = !["transfers", "others"].includes(name);
  console.log(
    `| ${name} | ${flows} | ${cell(realTime, was?.realTime)} | ${isReal ? cell(right, was?.right) : ""} |`,
  );
}
console.log(`\nprecision of game or call: ${cell(result.precision, before?.precision)} %`);
console.log(
  `packets of transfers taken for a game's or a call's: ${
    (100 * result.bulkTaken.share).toFixed(2)
  } % of ${result.bulkTaken.packets}` +
    (before ? ` (${(100 * before.bulkTaken.share).toFixed(2)} %)` : ""),
);
console.log("\nwith no pattern of any application, by RTP, ports, sizes and pace alone:\n");
console.log(
  "| flows | number | taken for a game or a call | for the right one of the two |\n|---|---|---|---|",
);
const { all, games, calls, bulkTaken: ofTransfers } = result.unknown;
for (const [name, one] of Object.entries({ "games and calls": all, games, calls })) {
  console.log(
    `| ${name} | ${one.flows} | ${cell(one.realTime, undefined)} | ${cell(one.right, undefined)} |`,
  );
}
console.log(`packets of transfers taken for a game's or a call's: ${(100 * ofTransfers.share).toFixed(2)} %`);
if (options.missed) {
  for (const { file, application, truth, flow } of flows) {
    const after = classAfter(flow, 8);
    const isWrong = truth in CLASS_OF ? after !== CLASS_OF[truth] : isRealTime(after);
    if (!isWrong) continue;
    const classes = AFTER.map((count) => CLASS_LABELS[classAfter(flow, count)]).join(" ");
    console.log(
      `${truth} ${application} ${file} ${nameOf(flow)} ${flow.packets.join("+")}: ${classes}`,
    );
  }
}
if (options.json !== undefined) {
  Deno.writeTextFileSync(String(options.json), JSON.stringify(result, null, 1) + "\n");
}
