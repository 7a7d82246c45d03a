/**
 * A contest over network namespaces: the same figures of everyone in turn, round after round, and their medians side by
 * side. Invariant: ours is the first contender, and a ratio compares it with the best of the others that are relays.
 */
import { Network, RELAY } from "../tests/kit/namespaces.ts";
import { remedyFor } from "../tests/kit/requires.ts";
import { advantage, type Comparison, comparisonChart } from "./chart.ts";

export type Figures = Record<string, number>;

export interface Contender {
  name: string;
  /** Starts the relay for one client; returns the client's configuration and the relay's process number, if it has them. */
  start(net: Network): Promise<{ configuration?: string; pid?: number }>;
}

export const oxrelay: Contender = {
  name: "oxrelay",
  async start(net) {
    const relay = await net.relay(`exit = "tun"\n[destinations]\nallow = ["10.200.0.0/24"]\n`);
    return { configuration: await net.addPeer("bench"), pid: relay.child.pid };
  },
};

/** What the namespaces carry by themselves: no tunnel and no relay, the same masquerade. */
export const plain: Contender = {
  name: "no relay",
  async start(net) {
    await masquerade(net, "10.201.0.0-10.202.255.255", "br0");
    return {};
  },
};

/** A WireGuard daemon as the relay, with the same masquerade. `command` is followed by the device's name. */
export function daemonOf(name: string, command: string[]): Contender {
  return {
    name,
    async start(net) {
      const key = async () => (await net.must("relay", ["wg", "genkey"])).trim();
      const publicOf = async (secret: string) =>
        (await net.must("relay", ["wg", "pubkey"], { input: secret })).trim();
      const [mine, theirs] = [await key(), await key()];
      const device = net.device("relay");
      const daemon = net.spawn("relay", [...command, device], { WG_PROCESS_FOREGROUND: "1", WG_SUDO: "1" });
      await net.listens("relay", device);
      const configuration =
        `[Interface]\nPrivateKey = ${mine}\nListenPort = 4433\n[Peer]\nPublicKey = ${await publicOf(
          theirs,
        )}\nAllowedIPs = 10.66.0.2/32\n`;
      await net.must("relay", ["wg", "setconf", device, "/dev/stdin"], { input: configuration });
      await net.ip("relay", ["addr", "add", "10.66.0.1/16", "dev", device]);
      await net.ip("relay", ["link", "set", device, "mtu", "1420", "up"]);
      await masquerade(net, "10.66.0.0/16", device);
      return {
        configuration:
          `[Interface]\nPrivateKey = ${theirs}\nAddress = 10.66.0.2/32\nMTU = 1420\n\n[Peer]\nPublicKey = ${await publicOf(
            mine,
          )}\nEndpoint = ${RELAY}:4433\nAllowedIPs = 0.0.0.0/0, ::/0\nPersistentKeepalive = 25\n`,
        pid: daemon.child.pid,
      };
    },
  };
}

async function masquerade(net: Network, source: string, device: string): Promise<void> {
  await net.must("relay", ["sysctl", "-qw", "net.ipv4.ip_forward=1"]);
  const rules = `table inet bench {\n chain post {\n type nat hook postrouting priority srcnat;\n` +
    ` ip saddr ${source} oifname != "${device}" masquerade\n }\n}\n`;
  await net.must("relay", ["nft", "-f", "-"], { input: rules });
}

export interface Contest<C extends Contender> {
  /** Ours first, then the others. */
  relays: C[];
  /** Shown beside them and not compared with. */
  baseline?: C;
  rounds: number;
  /** What `measure` and the contenders run. */
  programs: readonly string[];
  measure: (contender: C) => Promise<Figures>;
  /** What is measured, for the progress on stderr. */
  about: string;
  /** The sentence above the table. */
  caption: string;
}

/** Throws before minutes are spent where a program is missing, and says how to get it. */
async function demand(programs: readonly string[]): Promise<void> {
  const net = await Network.open();
  try {
    for (const program of programs) {
      const { success } = await net.run("relay", ["sh", "-c", `command -v "$0"`, program]);
      if (!success) throw new Error(`this bench runs ${program}, which is not here: ${remedyFor(program)}`);
    }
  } finally {
    await net.close();
  }
}

/** Runs everyone in turn; returns the table in Markdown, and its rows for the chart. */
export async function compare<C extends Contender>(contest: Contest<C>) {
  const { relays, baseline, rounds, programs, measure, about, caption } = contest;
  await demand(programs);
  const contenders = baseline === undefined ? relays : [...relays, baseline];
  const runs = contenders.map((): Figures[] => []);
  for (let round = 1; round <= rounds; round++) {
    for (const [i, contender] of contenders.entries()) {
      console.error(`round ${round} of ${rounds}, ${about}: ${contender.name}`);
      runs[i].push(await measure(contender));
    }
  }
  const keys = Object.keys(runs[0][0]);
  const medians = runs.map((figures) => keys.map((key) => median(figures.map((one) => one[key] ?? NaN))));
  const comparisons = keys.map((label, i): Comparison => {
    const better = /Mbit|delivered/.test(label) ? "more" : "less";
    const others = medians.slice(1, relays.length).map((column) => column[i]);
    return { label, ours: medians[0][i], theirs: Math[better === "more" ? "max" : "min"](...others), better };
  });
  const figure = (value: number) => Number.isNaN(value) ? "" : value.toFixed(2);
  const table = [
    caption,
    "",
    `| | ${contenders.map(({ name }) => name).join(" | ")} | advantage |`,
    `|---|${contenders.map(() => "---|").join("")}---|`,
    ...comparisons.map((row, i) =>
      `| ${row.label} | ${medians.map((column) => figure(column[i])).join(" | ")} | ${
        advantage(row).toFixed(2)
      } |`
    ),
  ].join("\n");
  const rawRounds = Object.fromEntries(contenders.map(({ name }, i) => [name, runs[i]]));
  return { table, comparisons, rawRounds };
}

/** Prints the table and leaves it with its chart and every round in bench/results, as `file`.md, .svg and .json. */
export async function publish(
  file: string,
  title: string,
  names: [ours: string, theirs: string],
  { table, comparisons, rawRounds }: {
    table: string;
    comparisons: Comparison[];
    rawRounds: Record<string, Figures[]>;
  },
): Promise<void> {
  console.log(`${table}\n`);
  await Deno.mkdir("bench/results", { recursive: true });
  await Deno.writeTextFile(`bench/results/${file}.md`, `${table}\n`);
  await Deno.writeTextFile(`bench/results/${file}.svg`, comparisonChart(title, names, comparisons));
  await Deno.writeTextFile(`bench/results/${file}.json`, `${JSON.stringify(rawRounds, undefined, 1)}\n`);
}

export function median(values: number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1];
}
