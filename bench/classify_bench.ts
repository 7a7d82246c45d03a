/**
 * `deno task bench:classify [--captures DIRECTORY] [--packets N] [--before FILE] [--json FILE] [--missed] [--leave-one-out]`:
 * how often the classifier takes labelled flows for what they are after 2, 8 and 32 packets of theirs, and how often what it
 * says is right, by class and by application, over UDP flows of N packets (20) or more. The directory has captures and a
 * labels.tsv as in ../shared/flows. With --before the shares of an earlier run stand beside. With --leave-one-out each
 * application is judged without its own patterns instead. Deterministic; asserts nothing.
 */
import { parseArgs } from "@std/cli";
import { isRealTime } from "../src/control/traffic_class.ts";
import { CLASS_LABELS } from "../src/metrics.ts";
import { leaveOneOut, NO_PATTERNS, wholeApplications } from "./classify_left_out.ts";
import {
  AFTER,
  bulkTaken,
  CLASS_OF,
  classAfter,
  nameOf,
  precisionOfClass,
  precisionOfRealTime,
  recognised,
  type Scored,
  scoredFlows,
  sharesOf,
} from "./classify_score.ts";

type ByCount = Record<number, number>;

const options = parseArgs(Deno.args, {
  string: ["captures", "packets", "before", "json"],
  boolean: ["missed", "leave-one-out"],
});
const directory = String(options.captures ?? "../shared/flows");
const packetsMin = Number(options.packets ?? 20);

const isReal = ({ truth }: Scored) => truth in CLASS_OF;
const percent = (share: number | undefined) =>
  share === undefined || share === null || Number.isNaN(share) ? "–" : `${Math.round(100 * share)}`;
const cell = (now: ByCount | undefined, was?: ByCount) =>
  AFTER.map((count) => was ? `${percent(now?.[count])} (${percent(was[count])})` : percent(now?.[count]))
    .join(" / ");
const table = (...columns: string[]) =>
  console.log(`\n| ${columns.join(" | ")} |\n|${columns.map(() => "---|").join("")}`);
const line = (...cells: (string | number)[]) => console.log(`| ${cells.join(" | ")} |`);

/** Everything that is said of the flows, as --json keeps it. */
function judge(flows: Scored[]) {
  const real = flows.filter(isReal);
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
  const unknown = scoredFlows(directory, packetsMin, NO_PATTERNS);
  return {
    flows: flows.length,
    groups: Object.fromEntries(Object.entries(groups).map(([name, some]) => [name, sharesOf(some)])),
    /** No pattern of any application: what an application that nobody has heard of meets. */
    unknown: {
      all: sharesOf(unknown.filter(isReal)),
      games: sharesOf(unknown.filter(({ truth }) => truth === "game")),
      calls: sharesOf(unknown.filter(({ truth }) => truth === "call")),
      precision: precisionOfRealTime(unknown),
      bulkTaken: bulkTaken(unknown),
    },
    precision: precisionOfRealTime(flows),
    precisionOf: {
      "games and calls": precisionOfRealTime(flows),
      games: precisionOfClass(flows, "game"),
      calls: precisionOfClass(flows, "call"),
      transfers: precisionOfClass(flows, "bulk"),
    } as Record<string, ByCount>,
    recognised: recognised(flows),
    bulkTaken: bulkTaken(flows),
  };
}

type Judgement = ReturnType<typeof judge>;

function print(result: Judgement, before: Judgement | undefined): void {
  table(
    "flows",
    "number",
    "taken for a game or a call",
    "for the right one of the two",
    "what is taken for such is one",
  );
  for (const [name, { flows, realTime, right }] of Object.entries(result.groups)) {
    const was = before?.groups[name], hasClass = !["transfers", "others"].includes(name);
    const precise = result.precisionOf[name];
    line(
      name,
      flows,
      cell(realTime, was?.realTime),
      hasClass ? cell(right, was?.right) : "",
      precise ? cell(precise, before?.precisionOf?.[name]) : "",
    );
  }
  table("recognised as", "number", "which the label calls so", "which are a game or a call");
  for (const [name, { flows, named, realTime }] of Object.entries(result.recognised)) {
    line(
      name,
      AFTER.map((count) => flows[count]).join(" / "),
      named ? cell(named) : "a transport",
      cell(realTime),
    );
  }
  const share = (taken: { share: number }) => (100 * taken.share).toFixed(2);
  console.log(
    `\npackets of transfers taken for a game's or a call's: ${share(result.bulkTaken)} % of ` +
      `${result.bulkTaken.packets}${before ? ` (${share(before.bulkTaken)} %)` : ""}`,
  );
  console.log("\nwith no pattern of any application, by RTP, ports, sizes and pace alone:");
  table("flows", "number", "taken for a game or a call", "for the right one of the two");
  const { all, games, calls, precision, bulkTaken: ofTransfers } = result.unknown;
  for (const [name, one] of Object.entries({ "games and calls": all, games, calls })) {
    line(name, one.flows, cell(one.realTime), cell(one.right));
  }
  console.log(`\nof what is taken for a game or a call ${cell(precision)} % is one`);
  console.log(`packets of transfers taken for a game's or a call's: ${share(ofTransfers)} %`);
}

function printMissed(flows: Scored[]): void {
  for (const { file, application, truth, flow } of flows) {
    const after = classAfter(flow, 8);
    if (truth in CLASS_OF ? after === CLASS_OF[truth] : !isRealTime(after)) continue;
    const classes = AFTER.map((count) => CLASS_LABELS[classAfter(flow, count)]).join(" ");
    console.log(`${truth} ${application} ${file} ${nameOf(flow)} ${flow.packets.join("+")}: ${classes}`);
  }
}

/** Prints and returns what each application's flows are without its own patterns. */
function leaveOut(flows: Scored[]) {
  const { each, judged } = leaveOneOut(directory, packetsMin, flows);
  const group = (truth: string) => sharesOf(judged.filter((one) => one.truth === truth));
  const sum = {
    "games and calls": sharesOf(judged.filter(isReal)),
    games: group("game"),
    calls: group("call"),
  };
  const transfers = bulkTaken(judged), applications = wholeApplications(judged);
  table("application", "switched off", "flows", "taken for a game or a call", "for the right one of the two");
  for (const [name, { without, shares, bulkTaken: taken }] of Object.entries(each)) {
    const off = without.join(", ") || "nothing: protocols alone";
    if (shares.flows > 0) line(name, off, shares.flows, cell(shares.realTime), cell(shares.right));
    if (taken) {
      line(`${name}, a transfer`, off, `${taken.packets} packets`, `${percent(taken.share)} of packets`, "");
    }
  }
  for (const [name, { flows, realTime, right }] of Object.entries(sum)) {
    line(`**${name}**`, "", flows, cell(realTime), cell(right));
  }
  console.log(
    `\napplications of which every flow is taken for a game or a call after 8 packets: ${applications.whole} of ` +
      `${applications.of}\npackets of transfers taken for a game's or a call's: ` +
      `${(100 * transfers.share).toFixed(2)} % of ${transfers.packets}`,
  );
  if (options.missed) printMissed(judged);
  return { each, sum, transfers, applications };
}

const flows = scoredFlows(directory, packetsMin);
const before = options.before === undefined
  ? undefined
  : JSON.parse(Deno.readTextFileSync(String(options.before))) as Judgement;
console.log(
  `${flows.length} UDP flows of ${packetsMin} packets and more in ${directory}; in percent of flows after ${
    AFTER.join(" / ")
  } packets${before ? ", before in brackets" : ""}`,
);
let result;
if (options["leave-one-out"]) result = leaveOut(flows);
else {
  print(result = judge(flows), before);
  if (options.missed) printMissed(flows);
}
if (options.json !== undefined) {
  Deno.writeTextFileSync(String(options.json), JSON.stringify(result, null, 1) + "\n");
}
