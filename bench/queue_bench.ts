/**
 * `deno task bench:queue [SET …] [--quick] [--only told] [--rounds N] [--lines 10/50,2/16] [--loads cubic1,bbr1] [--rtts 0,60]`
 * (root): a game and a call beside a transfer over a home's line, whose modem holds 200 ms of packets (queue/home.ts), by the
 * ends of queue/ends.ts in turn. Sets: lines, loads, paths, steps, two (tunnels over one line), idle (no line at all); without one,
 * the first. Prints tables, leaves pictures of the delay over time in bench/docs; asserts no time.
 */
import { parseArgs } from "@std/cli";
import { Network, SERVER, until } from "../tests/kit/namespaces.ts";
import { timeChart } from "./chart.ts";
import { median } from "./contest.ts";
import { type End, ENDS as ALL_ENDS, FOUND, OFF } from "./queue/ends.ts";
import { type Direction, FIFO_MS, Home, type Line } from "./queue/home.ts";
import {
  at,
  type Busy,
  busy,
  idleMs,
  LOADS,
  LONG_MS,
  longMs,
  lostShare,
  type Step,
  transfer,
} from "./queue/play.ts";

const args = parseArgs(Deno.args, {
  boolean: ["quick"],
  string: ["only", "rounds", "lines", "loads", "rtts", "ways"],
});
const ROUNDS = Number(args.rounds ?? (args.quick ? 1 : 4));
const GAME_S = args.quick ? 6 : 12;
const IDLE_S = 2;
/** A line whose rate falls to a tenth and comes back, each STEP_S. */
const STEP_S = 5, STEP_MBIT = [50, 5, 50, 5, 50];
const CHARTED = ["no tunnel", "wireguard-go", OFF, FOUND];
const listed = (name: "lines" | "loads" | "rtts", usual: string) => String(args[name] ?? usual).split(",");
const WAYS = String(args.ways ?? "up,down").split(",") as Direction[];
const ENDS = ALL_ENDS.filter(({ name }) =>
  args.only === undefined || String(args.only).split(",").some((part) => name.includes(part))
);

function lineOf(text: string, rttMs = 0): Line {
  const [upMbit, downMbit] = text.split("/").map(Number);
  if (!(upMbit > 0 && downMbit > 0)) {
    throw new Error(`--lines: "${text}" is no line such as 10/50, in Mbit/s`);
  }
  return { upMbit, downMbit, rttMs };
}

/** A network with its home and one tunnel or none for each device, and the line as it is to be; closed behind `use`. */
async function withHome<T>(
  end: End,
  line: Line | undefined,
  devices: number,
  use: (net: Network, home: Home) => Promise<T>,
): Promise<T> {
  const net = await Network.open();
  try {
    const home = await Home.open(net, devices, line ?? lineOf("1/1"));
    const configurations = await end.start(net, devices);
    for (const [i, device] of home.devices.entries()) {
      await end.join(net, device, configurations[i], line ?? lineOf("1000/1000"));
      net.spawn("server", ["iperf3", "-s", "-p", String(5201 + i)]);
      const reaches = async () => (await net.run(device, ["ping", "-c", "1", "-W", "1", SERVER])).success;
      await until(reaches, "the server is reached");
    }
    if (line !== undefined) await home.narrow(line);
    return await use(net, home);
  } finally {
    await net.close();
  }
}

/** Rows of one table: everyone by turns, medians of the rounds behind the first. */
async function byTurns<T>(about: string, measure: (end: End) => Promise<T>): Promise<[End, T[]][]> {
  const runs = ENDS.map((end): [End, T[]] => [end, []]);
  for (let round = 0; round < ROUNDS; round++) {
    for (const [end, outcomes] of runs) {
      console.error(`${about}, round ${round + 1} of ${ROUNDS}: ${end.name}`);
      const outcome = await measure(end);
      if (round > 0 || ROUNDS === 1) outcomes.push(outcome);
    }
  }
  return runs;
}

const ofRounds = (seconds: number) =>
  `${Math.max(1, ROUNDS - 1)} rounds of ${seconds} s${ROUNDS > 1 ? ", the first of all discarded" : ""}`;

const HEAD = [
  "| line, Mbit/s | beside | | game p50 | p99 | longest | call p99 | lost | transfer |",
  "|---|---|---|---|---|---|---|---|---|",
];

function row(words: string[], runs: Busy[], mbit: number): string {
  const of = (value: (one: Busy) => number, digits = 1) => median(runs.map(value)).toFixed(digits);
  return `| ${
    [
      ...words,
      of(({ game }) => at(game, 0.5)),
      of(({ game }) => at(game, 0.99)),
      of(({ game }) => at(game, 1)),
      of(({ call }) => at(call, 0.99)),
      `${of(({ game }) => 100 * lostShare(game))} %`,
      of((one) => one.mbit / mbit, 2),
    ].join(" | ")
  } |`;
}

async function table(lines: Line[], loads: string[]): Promise<string[]> {
  const rows: string[] = [];
  for (const line of lines) {
    const about = `${line.upMbit}/${line.downMbit}, ${line.rttMs} ms`;
    const runs = await byTurns(about, (end) =>
      withHome(end, line, 1, async (net, home) => {
        const [device] = home.devices, idle = await idleMs(net, device, IDLE_S);
        const outcome: Record<string, Busy> = {};
        for (const load of loads) {
          for (const way of WAYS) {
            outcome[load + way] = await busy(net, home, device, load, way, GAME_S, idle);
          }
        }
        return outcome;
      }));
    for (const load of loads) {
      for (const way of WAYS) {
        const mbit = way === "up" ? line.upMbit : line.downMbit;
        for (const [{ name }, outcomes] of runs) {
          const of = outcomes.map((one) => one[load + way]);
          const path = line.rttMs > 0 ? `, ${line.rttMs} ms` : "";
          rows.push(row([`${mbit} ${way}${path}`, LOADS[load].label, name], of, mbit));
        }
        if (line.upMbit === 10 && line.rttMs === 0 && load === "cubic1") {
          await draw(
            `queue_delay_${way}`,
            `a game beside an ${way === "up" ? "up" : "down"}load, ${mbit} Mbit/s`,
            runs.map(([{ name }, outcomes]) => [name, outcomes.at(-1)![load + way]]),
          );
        }
      }
    }
  }
  return rows;
}

/** Leaves the game's delay over time, everyone's last round, if all who belong there have played. */
async function draw(file: string, title: string, played: [name: string, Busy][]): Promise<void> {
  const shown = played.filter(([name]) => CHARTED.includes(name));
  if (shown.length < CHARTED.length) return;
  const curves = shown.map(([label, { game: { everyMs, delaysMs } }]) => ({
    label,
    isOurs: label === FOUND,
    points: delaysMs.flatMap((ms, i) => ms === null ? [] : [{ x: i * everyMs / 1000, y: Math.max(0, ms) }]),
  }));
  await Deno.writeTextFile(
    `bench/docs/${file}.svg`,
    timeChart(title, ["seconds", "added to each packet's way, ms"], curves),
  );
}

async function steps(): Promise<string[]> {
  const [mbit, ...later] = STEP_MBIT, seconds = STEP_S * STEP_MBIT.length;
  const line = { upMbit: mbit, downMbit: mbit, rttMs: 0 };
  const plan = later.map((to, i): Step => ({ atS: STEP_S * (i + 1), mbit: to }));
  const rows: string[] = [];
  for (const way of WAYS) {
    const runs = await byTurns(`steps ${way}`, (end) =>
      withHome(end, line, 1, async (net, home) => {
        const [device] = home.devices, idle = await idleMs(net, device, IDLE_S);
        return await busy(net, home, device, "cubic1", way, seconds, idle, plan);
      }));
    for (const [{ name }, outcomes] of runs) {
      const of = (value: (one: Busy) => number, digits = 1) => median(outcomes.map(value)).toFixed(digits);
      const down = plan.filter((step) => step.mbit < mbit);
      const longest = ({ game }: Busy) =>
        Math.max(...down.map(({ atS }) => longMs(game, 1000 * atS, 1000 * (atS + STEP_S))));
      const mean = STEP_MBIT.reduce((sum, one) => sum + one, 0) / STEP_MBIT.length;
      rows.push(
        `| ${way} | ${name} | ${of(longest, 0)} | ${of(({ game }) => at(game, 0.5))} | ${
          of(({ game }) => at(game, 0.99))
        } | ${of((one) => one.mbit / mean, 2)} |`,
      );
    }
    await draw(
      `queue_steps_${way}`,
      `a game beside an ${way}load, the line between ${mbit} and ${STEP_MBIT[1]} Mbit/s`,
      runs.map(([{ name }, outcomes]) => [name, outcomes.at(-1)!]),
    );
  }
  return [
    `A line of ${
      STEP_MBIT.join(", ")
    } Mbit/s for ${STEP_S} s each, one CUBIC transfer: ms above ${LONG_MS} ms of added delay after the ` +
    `worse step down, the game's added delay over all, and the share of the mean rate that the transfer's user gets. Medians of ${
      ofRounds(seconds)
    }.`,
    "",
    `| way | | ms above ${LONG_MS} ms | game p50 | p99 | transfer |`,
    "|---|---|---|---|---|---|",
    ...rows,
  ];
}

const jain = (rates: number[]) =>
  rates.reduce((sum, rate) => sum + rate, 0) ** 2 /
  (rates.length * rates.reduce((sum, rate) => sum + rate * rate, 0));

/** Two devices, each with a tunnel of its own, share the line. */
async function two(): Promise<string[]> {
  const line = lineOf(listed("lines", "10/50")[0]), rows: string[] = [];
  const seconds = 2 * GAME_S;
  const runs = await byTurns(
    "two tunnels",
    (end) =>
      withHome(end, line, end.name.includes("wireguard") ? 1 : 2, async (net, home) => {
        const shares = {} as Record<Direction, number[]>;
        for (const way of WAYS) {
          shares[way] = await Promise.all(
            home.devices.map((device, i) => transfer(net, device, "cubic1", way, seconds, 5201 + i)),
          );
        }
        return shares;
      }),
  );
  for (const way of WAYS) {
    const mbit = way === "up" ? line.upMbit : line.downMbit;
    for (const [{ name }, outcomes] of runs) {
      if (name.includes("wireguard")) continue; // its contender knows one client
      const of = (value: (rates: number[]) => number) =>
        median(outcomes.map((one) => value(one[way]))).toFixed(2);
      rows.push(
        `| ${mbit} ${way} | ${name} | ${of(jain)} | ${of((rates) => rates.reduce((a, b) => a + b) / mbit)} |`,
      );
    }
  }
  return [
    `Two devices, each with its own tunnel and one CUBIC transfer, over one line: Jain's index of their rates, and the share of the ` +
    `line's rate that both get. Medians of ${ofRounds(seconds)}.`,
    "",
    "| line, Mbit/s | | Jain | both |",
    "|---|---|---|---|",
    ...rows,
  ];
}

/** No line at all: what finding a rate costs a transfer that nothing but the processors bounds. */
async function idle(): Promise<string[]> {
  const runs = await byTurns(
    "idle",
    (end) =>
      withHome(end, undefined, 1, async (net, { devices: [device] }) => {
        const rates = {} as Record<Direction, number>;
        for (const way of WAYS) rates[way] = await transfer(net, device, "cubic1", way, GAME_S);
        return rates;
      }),
  );
  const rows: string[] = [];
  for (const way of WAYS) {
    const off = runs.find(([{ name }]) => name === OFF)?.[1].map((one) => one[way]);
    for (const [{ name }, outcomes] of runs) {
      const rates = outcomes.map((one) => one[way]);
      const ratio = off === undefined ? NaN : median(rates.map((rate, i) => rate / off[i]));
      rows.push(`| ${way} | ${name} | ${median(rates).toFixed(0)} | ${ratio.toFixed(2)} |`);
    }
  }
  return [
    `One CUBIC transfer over links that nobody shaped: Mbit/s, and the median of the ratios to "off" in the same round. Medians of ${
      ofRounds(GAME_S)
    }.`,
    "",
    "| way | | Mbit/s | to off |",
    "|---|---|---|---|",
    ...rows,
  ];
}

const caption = [
  `What each adds to a game's and a call's packets, in ms beyond an idle line's median, over a line with ${FIFO_MS} ms of packets in its ` +
  `modem; and the share of the line's rate that the transfer's user gets. Medians of ${ofRounds(GAME_S)}.`,
  "",
  ...HEAD,
];
const SETS: Record<string, () => Promise<string[]>> = {
  lines: async () => [
    ...caption,
    ...await table(
      listed("lines", "10/50,2/16,100/100").map((text) => lineOf(text)),
      listed("loads", "cubic1"),
    ),
  ],
  loads: async () => [
    ...caption,
    ...await table(
      listed("lines", "10/50").map((text) => lineOf(text)),
      listed("loads", "cubic8,bbr1,quic"),
    ),
  ],
  paths: async () => [
    ...caption,
    ...await table(
      listed("rtts", "20,60,120").map((ms) => lineOf(listed("lines", "10/50")[0], Number(ms))),
      listed("loads", "cubic1"),
    ),
  ],
  steps,
  two,
  idle,
};
const wanted = args._.length > 0 ? args._.map(String) : ["lines"];
for (const name of wanted) {
  if (!Object.hasOwn(SETS, name)) {
    throw new Error(`"${name}" is no set of bench:queue; there are ${Object.keys(SETS).join(", ")}`);
  }
}
for (const name of wanted) console.log([...await SETS[name](), ""].join("\n"));
