/**
 * `deno task bench:queue [--quick] [--lines 10/50,2/16] [--flows N] [--only told] [--rounds N]` (root): a game beside a transfer
 * over a home's line, whose modem holds 200 ms of packets, first in first out (tc tbf in network namespaces): no tunnel, both
 * ends wireguard-go, both ends ours with nothing known of the line, with its rate found, and with its rate told. By turns, the
 * first of several rounds discarded; a game's packets at 64 Hz both ways, each timed from sender to receiver by one clock, and N
 * CUBIC flows by iperf3. Prints a table; asserts no time.
 */
import { parseArgs } from "@std/cli";
import { type Arrivals, runFlow, startFarEnd } from "../tests/kit/flow.ts";
import { Network, pause, SERVER, until } from "../tests/kit/namespaces.ts";
import { type Contender, daemonOf, median, oxrelay, plain } from "./contest.ts";
import { WORKLOADS } from "../tests/kit/workloads.ts";
import { iperf } from "./measures.ts";

const args = parseArgs(Deno.args, { boolean: ["quick"], string: ["lines", "flows", "only", "rounds"] });
const ROUNDS = Number(args.rounds ?? (args.quick ? 1 : 4));
const GAME_S = args.quick ? 6 : 12;
/** The transfer begins before the game and ends behind it. */
const BULK_LEAD_S = 3;
const FIFO_MS = 200;
/** What of its line's rate `connect` is told. */
const TOLD = 0.95;
const GAME_PORT = 7777;
const FLOWS = String(args.flows ?? "1");

interface Line {
  upMbit: number;
  downMbit: number;
}

const LINES = String(args.lines ?? "10/50,2/16").split(",").map((text): Line => {
  const [upMbit, downMbit] = text.split("/").map(Number);
  if (!(upMbit > 0 && downMbit > 0)) {
    throw new Error(`--lines: "${text}" is no line such as 10/50, in Mbit/s`);
  }
  return { upMbit, downMbit };
});

interface End extends Contender {
  join(net: Network, client: string, configuration: string | undefined, line: Line): Promise<void>;
}

async function connectOurs(net: Network, client: string, invitation: string, words: string[]) {
  const file = `${net.directory}/bench.conf`;
  await Deno.writeTextFile(file, invitation, { mode: 0o600 });
  await net.connect(client, ["--config", file, "--protocol", "oxtunnel", ...words]);
}

async function startOurs(net: Network, config: string) {
  await net.relay(`${config}exit = "tun"\n[destinations]\nallow = ["10.200.0.0/24"]\n`);
  return { configuration: await net.addPeer("bench") };
}

const ALL_ENDS: End[] = [
  {
    ...plain,
    name: "no tunnel",
    join: (net, client) => net.ip(client, ["route", "add", "default", "via", "10.201.0.1"]),
  },
  {
    ...daemonOf("wireguard-go", ["wireguard-go", "-f"]),
    async join(net, client, configuration) {
      await net.wireguard(client, configuration!);
    },
  },
  {
    ...oxrelay,
    name: "oxrelay, off",
    start: (net) => startOurs(net, `congestion_algorithm = "none"\n`),
    join: (net, client, invitation) => connectOurs(net, client, invitation!, ["--congestion", "none"]),
  },
  {
    ...oxrelay,
    name: "oxrelay, rate found",
    join: (net, client, invitation) => connectOurs(net, client, invitation!, []),
  },
  {
    ...oxrelay,
    name: "oxrelay, rate told",
    join: (net, client, invitation, { upMbit, downMbit }) =>
      connectOurs(net, client, invitation!, [
        "--up",
        `${Math.round(1000 * TOLD * upMbit)}k`,
        "--down",
        `${Math.round(1000 * TOLD * downMbit)}k`,
      ]),
  },
];

const ENDS = ALL_ENDS.filter(({ name }) => args.only === undefined || name.includes(String(args.only)));

async function narrow(net: Network, namespace: string, device: string, mbit: number): Promise<void> {
  await net.must(namespace, [
    ...["tc", "qdisc", "add", "dev", device, "root", "tbf"],
    ...["rate", `${mbit}mbit`, "burst", "5kb", "latency", `${FIFO_MS}ms`],
  ]);
}

interface Delays {
  p50: number;
  p99: number;
  longest: number;
  /** Share that never came. */
  lost: number;
}

function delaysMs({ latencyUs }: Arrivals): Delays {
  const came = latencyUs.filter((us): us is number => us !== null).sort((a, b) => a - b);
  const at = (share: number) => came[Math.min(came.length - 1, Math.ceil(share * came.length) - 1)] / 1000;
  return { p50: at(0.5), p99: at(0.99), longest: at(1), lost: 1 - came.length / latencyUs.length };
}

/** The game's packets in both directions, with or without something beside. */
async function play(net: Network, client: string, run: string): Promise<{ up: Delays; down: Delays }> {
  const plan = (side: string, host: string) => ({
    workload: WORKLOADS.game64,
    seconds: GAME_S,
    way: { transport: "udp" as const, host, port: GAME_PORT },
    file: `${net.directory}/${run}-${side}.json`,
  });
  const far = plan("far", "0.0.0.0");
  const server = await startFarEnd(net, "server", far);
  const { up, down } = await runFlow(net, client, plan("near", SERVER), { server, file: far.file });
  return { up: delaysMs(up), down: delaysMs(down) };
}

type Direction = "up" | "down";

/** By direction of the transfer: the game's delay in that direction beyond an idle line's median, and what the transfer got. */
type Outcome = Record<Direction, Delays & { goodput: number }>;

async function measure(end: End, line: Line): Promise<Outcome> {
  const net = await Network.open();
  try {
    const client = await net.client(2);
    const { configuration } = await end.start(net);
    await end.join(net, client, configuration, line);
    await net.iperf("server");
    await until(
      async () => (await net.run(client, ["ping", "-c", "1", "-W", "1", SERVER])).success,
      "the server is reached",
    );
    await narrow(net, client, "eth0", line.upMbit);
    await narrow(net, "relay", `v${client}`, line.downMbit);
    const idle = await play(net, client, "idle");
    const outcome = {} as Outcome;
    for (const direction of ["up", "down"] as const) {
      const words = ["-P", FLOWS, "-C", "cubic", ...(direction === "down" ? ["-R"] : [])];
      const bulk = iperf(net, client, BULK_LEAD_S + GAME_S + 1, words);
      await pause(1000 * BULK_LEAD_S);
      const busy = (await play(net, client, direction))[direction];
      const { sum_received } = await bulk;
      const rate = direction === "up" ? line.upMbit : line.downMbit;
      const base = idle[direction].p50;
      outcome[direction] = {
        p50: busy.p50 - base,
        p99: busy.p99 - base,
        longest: busy.longest - base,
        lost: busy.lost,
        goodput: sum_received.bits_per_second / 1e6 / rate,
      };
    }
    return outcome;
  } finally {
    await net.close();
  }
}

const rows = [
  `Beside ${FLOWS} CUBIC transfer${
    FLOWS === "1" ? "" : "s"
  }: what each adds to a game's packets, in ms, and the share of the line's rate that ` +
  `the transfer's user gets. Medians of ${Math.max(1, ROUNDS - 1)} rounds of ${GAME_S} s${
    ROUNDS > 1 ? ", the first discarded" : ""
  }.`,
  "",
  "| line, Mbit/s | | game p50 | p99 | longest | lost | transfer |",
  "|---|---|---|---|---|---|---|",
];
for (const line of LINES) {
  const runs = ENDS.map((): Outcome[] => []);
  for (let round = 0; round < ROUNDS; round++) {
    for (const [i, end] of ENDS.entries()) {
      console.error(`${line.upMbit}/${line.downMbit}, round ${round + 1} of ${ROUNDS}: ${end.name}`);
      const outcome = await measure(end, line);
      if (round > 0 || ROUNDS === 1) runs[i].push(outcome);
    }
  }
  for (const direction of ["up", "down"] as const) {
    for (const [i, { name }] of ENDS.entries()) {
      const of = (key: keyof Outcome[Direction]) => median(runs[i].map((one) => one[direction][key]));
      rows.push(
        `| ${direction === "up" ? `${line.upMbit} up` : `${line.downMbit} down`} | ${name} | ${
          of("p50").toFixed(1)
        } | ${of("p99").toFixed(1)} | ${of("longest").toFixed(1)} | ${(100 * of("lost")).toFixed(1)} % | ${
          of("goodput").toFixed(2)
        } |`,
      );
    }
  }
}
console.log(rows.join("\n"));
