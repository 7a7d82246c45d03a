/**
 * `deno task bench:classify [--captures DIRECTORY] [--packets N] [--before FILE] [--json FILE] [--missed]`: how often the
 * classifier takes labelled flows for what they are after 2, 8 and 32 packets of theirs, by class and by application, over UDP
 * flows of N packets (20) or more; and what a packet costs. The directory has captures and a labels.tsv as in ../shared/flows.
 * With --before the shares of an earlier run stand beside. Deterministic but for the cost; asserts nothing.
 */
import { parseArgs } from "@std/cli";
import { readCapture } from "../src/cli/capture.ts";
import { type CapturedFlow, CaptureFlows } from "../src/cli/capture_flows.ts";
import { CLASS_BULK, CLASS_GAME, CLASS_VOICE } from "../src/control/traffic_class.ts";
import { CLASS_LABELS } from "../src/metrics.ts";
import { formatAddress } from "../src/wire/address.ts";
import { readLabels, type Truth, truthOf } from "./classify_labels.ts";

const options = parseArgs(Deno.args, {
  string: ["captures", "packets", "before", "json"],
  boolean: ["missed"],
});
const directory = String(options.captures ?? "../shared/flows");
const packetsMin = Number(options.packets ?? 20);
const AFTER = [2, 8, 32];
const CLASS_OF: Partial<Record<Truth, number>> = { game: CLASS_GAME, call: CLASS_VOICE };

interface Scored {
  file: string;
  application: string;
  truth: Truth;
  flow: CapturedFlow;
}

function nameOf({ words, isIpv6 }: CapturedFlow): [string, string] {
  const width = isIpv6 ? 4 : 1, ports = words[2 * width];
  const address = (at: number) =>
    formatAddress(isIpv6 ? words.slice(at, at + 4) : Uint32Array.of(0, 0, 0xffff, words[at]));
  return [`${address(width)} ${ports & 0xffff}`, `${address(0)} ${ports >>> 16}`];
}

function scoredFlows(): Scored[] {
  const labels = readLabels(Deno.readTextFileSync(`${directory}/labels.tsv`));
  return [...new Set(labels.map(({ file }) => file))].flatMap((file) => {
    const flows = new CaptureFlows();
    try {
      for (const packet of readCapture(Deno.readFileSync(`${directory}/${file}`))) flows.take(packet);
    } catch (error) {
      console.error(`${file}: ${error instanceof Error ? error.message : error}`);
      return [];
    }
    const named = new Map(
      labels.filter((label) => label.file === file && label.protocol === "UDP")
        .flatMap((label) => [[label.ends.join(" "), label], [label.ends.toReversed().join(" "), label]]),
    );
    return flows.all.flatMap((flow) => {
      const label = flow.protocol === 17 ? named.get(nameOf(flow).join(" ")) : undefined;
      if (!label || flow.packets[0] + flow.packets[1] < packetsMin) return [];
      return [{ file, application: label.application, truth: truthOf(label), flow }];
    });
  });
}

interface Shares {
  flows: number;
  /** By number of packets: the share taken for a game or a call, and for the right one of the two. */
  realTime: Record<number, number>;
  right: Record<number, number>;
}

function isRealTime(trafficClass: number): boolean {
  return trafficClass === CLASS_GAME || trafficClass === CLASS_VOICE;
}

/** The class after `count` packets, or the flow's last. */
function classAfter({ first }: CapturedFlow, count: number): number {
  return first[Math.min(count, first.length) - 1];
}

function sharesOf(flows: Scored[]): Shares {
  const share = (fits: (one: Scored, count: number) => boolean) =>
    Object.fromEntries(
      AFTER.map((count) => [count, flows.filter((one) => fits(one, count)).length / flows.length]),
    );
  return {
    flows: flows.length,
    realTime: share(({ flow }, count) => isRealTime(classAfter(flow, count))),
    right: share(({ flow, truth }, count) => classAfter(flow, count) === CLASS_OF[truth]),
  };
}

/** Of all flows that are taken for games or calls, the share that is one. */
function precision(flows: Scored[]): Record<number, number> {
  return Object.fromEntries(AFTER.map((count) => {
    const taken = flows.filter(({ flow }) => isRealTime(classAfter(flow, count)));
    return [count, taken.filter(({ truth }) => truth in CLASS_OF).length / taken.length];
  }));
}

/** Of the packets of transfers, the share that was taken for a game's or a call's. */
function bulkTaken(flows: Scored[]): { packets: number; share: number } {
  const ofClass = flows.filter(({ truth }) => truth === "bulk").map(({ flow }) => flow.ofClass);
  const sum = (labels: number[]) =>
    ofClass.reduce((total, one) => total + labels.reduce((n, i) => n + one[i], 0), 0);
  const packets = sum([0, CLASS_GAME, CLASS_VOICE, 3, CLASS_BULK]);
  return { packets, share: sum([CLASS_GAME, CLASS_VOICE]) / packets };
}

const flows = scoredFlows();
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
const result = {
  flows: flows.length,
  groups: Object.fromEntries(Object.entries(groups).map(([name, some]) => [name, sharesOf(some)])),
  precision: precision(flows),
  bulkTaken: bulkTaken(flows),
};
const before = options.before === undefined
  ? undefined
  : JSON.parse(Deno.readTextFileSync(String(options.before))) as typeof result;
const percent = (share: number | undefined) =>
  share === undefined || Number.isNaN(share) ? "" : `${Math.round(100 * share)}`;
const cell = (now: Record<number, number>, was: Record<number, number> | undefined) =>
  AFTER.map((count) => before ? `${percent(now[count])} (${percent(was?.[count])})` : percent(now[count]))
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
if (options.missed) {
  for (const { file, application, truth, flow } of flows) {
    const after = classAfter(flow, 8);
    const isWrong = truth in CLASS_OF ? after !== CLASS_OF[truth] : isRealTime(after);
    if (!isWrong) continue;
    const classes = AFTER.map((count) => CLASS_LABELS[classAfter(flow, count)]).join(" ");
    console.log(
      `${truth} ${application} ${file} ${nameOf(flow).join(" ")} ${flow.packets.join("+")}: ${classes}`,
    );
  }
}
if (options.json !== undefined) {
  Deno.writeTextFileSync(String(options.json), JSON.stringify(result, null, 1) + "\n");
}
