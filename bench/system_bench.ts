/**
 * `deno task bench:system [--quick] [--wireguard-go PATH] [--boringtun PATH] [--offloads on|off]` (root): this relay,
 * wireguard-go and boringtun as the relay, in turn and in one run, for the same client (wireguard-go) in network
 * namespaces, and the same path without any of them. TCP up and down, UDP at three sizes and at three times what passes
 * without loss, ping idle and under bulk, processor time, resident memory; all of it once more where the veth pairs have
 * no offloads. Prints tables and writes them with a chart to bench/results/; asserts no time.
 */
import { parseArgs } from "@std/cli";
import { advantage, type Comparison, comparisonChart } from "./chart.ts";
import { Network, pause, RELAY, SERVER, until } from "../tests/system/namespaces.ts";

const args = parseArgs(Deno.args, {
  boolean: ["quick"],
  string: ["wireguard-go", "boringtun", "offloads"],
});
const ROUNDS = args.quick ? 1 : 3;
const SECONDS = args.quick ? 2 : 5;
const WIREGUARD_GO = String(args["wireguard-go"] ?? "wireguard-go");
/** Whether the veth pairs have their offloads, table by table. */
const OFFLOADS = args.offloads === undefined ? [true, false] : [args.offloads === "on"];
const OFFLOAD_NAMES = ["tx", "rx", "sg", "tso", "gso", "gro"];
const LOSS_MAX_PERCENT = 1;
const UDP_SIZES = [64, 512, 1200];
const SMALL = UDP_SIZES[0];
const OVERLOAD = 3;

type Figures = Record<string, number>;

interface Contender {
  name: string;
  /** Starts the relay for one client; returns the client's configuration and the relay's process number, if it has them. */
  start(net: Network): Promise<{ configuration?: string; pid?: number }>;
}

/** What the namespaces carry by themselves: no tunnel and no relay, the same masquerade. */
const plain: Contender = {
  name: "no relay",
  async start(net) {
    await masquerade(net, "10.201.0.0/24", "br0");
    return {};
  },
};

async function masquerade(net: Network, source: string, device: string): Promise<void> {
  await net.must("relay", ["sysctl", "-qw", "net.ipv4.ip_forward=1"]);
  const rules = `table inet bench {\n chain post {\n type nat hook postrouting priority srcnat;\n` +
    ` ip saddr ${source} oifname != "${device}" masquerade\n }\n}\n`;
  await net.must("relay", ["nft", "-f", "-"], { input: rules });
}

const ours: Contender = {
  name: "oxrelay",
  async start(net) {
    const relay = await net.relay(`exit = "tun"\n[destinations]\nallow = ["10.200.0.0/24"]\n`);
    return { configuration: await net.addPeer("bench"), pid: relay.child.pid };
  },
};

/** A WireGuard daemon as the relay, with the same masquerade. */
const daemonOf = (name: string, command: (device: string) => string[]): Contender => ({
  name,
  async start(net) {
    const key = async () => (await net.must("relay", ["wg", "genkey"])).trim();
    const publicOf = async (secret: string) =>
      (await net.must("relay", ["wg", "pubkey"], { input: secret })).trim();
    const [mine, theirs] = [await key(), await key()];
    const device = net.device("relay");
    const daemon = net.spawn("relay", command(device), { WG_PROCESS_FOREGROUND: "1", WG_SUDO: "1" });
    await until(
      async () => (await net.run("relay", ["wg", "show", device])).success,
      `${name} makes its device`,
    );
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
});

async function iperf(net: Network, client: string, more: string[]) {
  const text = await net.must(client, ["iperf3", "-J", "-c", SERVER, "-t", String(SECONDS), ...more], {
    timeoutS: SECONDS + 20,
  });
  return JSON.parse(text).end;
}

/** Highest rate in Mbit/s whose loss at the receiver stays under 1 %, by doubling and then halving the step. */
async function udpRate(net: Network, client: string, bytes: number): Promise<number> {
  let best = 0, rate = 4, step = 0;
  for (let i = 0; i < 9; i++) {
    const { sum } = await iperf(net, client, ["-u", "-b", `${rate}M`, "-l", String(bytes), "-t", "1"]);
    const good = sum.lost_percent < LOSS_MAX_PERCENT;
    if (good) best = Math.max(best, sum.bits_per_second * (1 - sum.lost_percent / 100) / 1e6);
    if (step === 0 && good) rate *= 2;
    else {
      step = step === 0 ? rate / 4 : step / 2;
      rate += good ? step : -step;
    }
  }
  return best;
}

/** What arrives of three times the rate, Mbit/s. What is not even sent counts as lost. */
async function udpOverload(net: Network, client: string, rate: number, bytes: number): Promise<number> {
  const { sum } = await iperf(net, client, ["-u", "-b", `${OVERLOAD * rate}M`, "-l", String(bytes)]);
  return sum.bits_per_second * (1 - sum.lost_percent / 100) / 1e6;
}

/** Processor microseconds of the relay for each packet that it carries at this rate. */
async function packetCost(net: Network, client: string, pid: number, rate: number): Promise<number> {
  const before = await usage(net, pid);
  const { sum } = await iperf(net, client, ["-u", "-b", `${rate}M`, "-l", String(SMALL)]);
  return ((await usage(net, pid)).cpuS - before.cpuS) * 1e6 / (sum.packets - sum.lost_packets);
}

async function pingTimes(net: Network, client: string): Promise<{ p50: number; p99: number }> {
  const text = await net.must(client, ["ping", "-c", "500", "-i", "0.005", SERVER]);
  const times = [...text.matchAll(/time=([\d.]+)/g)].map(([, ms]) => Number(ms)).sort((a, b) => a - b);
  return { p50: times[times.length >> 1], p99: times[Math.floor(times.length * 0.99)] };
}

/** User and system seconds of a process, and its resident megabytes, from /proc. */
async function usage(net: Network, pid: number): Promise<{ cpuS: number; residentMb: number }> {
  const stat = (await net.must("relay", ["cat", `/proc/${pid}/stat`])).split(") ")[1].split(" ");
  const status = await net.must("relay", ["cat", `/proc/${pid}/status`]);
  return {
    cpuS: (Number(stat[11]) + Number(stat[12])) / 100,
    residentMb: Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) / 1024,
  };
}

/** Takes their offloads from all veth pairs between client and server. */
async function withoutOffloads(net: Network, client: string): Promise<void> {
  const off = OFFLOAD_NAMES.flatMap((name) => [name, "off"]);
  for (
    const [name, device] of [[client, "eth0"], ["relay", `v${client}`], ["relay", "srv"], ["server", "eth0"]]
  ) {
    await net.must(name, ["ethtool", "-K", device, ...off]);
  }
}

async function measure(contender: Contender, offloads: boolean): Promise<Figures> {
  const net = await Network.open();
  net.wireguardGo = WIREGUARD_GO;
  try {
    const client = await net.client(2);
    if (!offloads) await withoutOffloads(net, client);
    const { configuration, pid } = await contender.start(net);
    if (configuration !== undefined) await net.wireguard(client, configuration);
    else await net.ip(client, ["route", "add", "default", "via", RELAY]);
    net.spawn("server", ["iperf3", "-s"]);
    await until(
      async () => (await net.run(client, ["ping", "-c", "1", "-W", "1", SERVER])).success,
      "the server is reached",
    );
    const figures: Figures = {};
    const idle = await pingTimes(net, client);
    figures["ping idle p50, ms"] = idle.p50;
    figures["ping idle p99, ms"] = idle.p99;
    const before = pid === undefined ? undefined : await usage(net, pid);
    const up = await iperf(net, client, []);
    const down = await iperf(net, client, ["-R"]);
    figures["TCP up, Mbit/s"] = up.sum_received.bits_per_second / 1e6;
    figures["TCP down, Mbit/s"] = down.sum_received.bits_per_second / 1e6;
    figures["relay CPU, s per GB"] = before === undefined
      ? NaN
      : ((await usage(net, pid!)).cpuS - before.cpuS) /
        ((up.sum_received.bytes + down.sum_received.bytes) / 1e9);
    const bulk = iperf(net, client, []);
    await pause(300);
    const busy = await pingTimes(net, client);
    await bulk;
    figures["ping under bulk p50, ms"] = busy.p50;
    figures["ping under bulk p99, ms"] = busy.p99;
    const rates: number[] = [];
    for (const bytes of UDP_SIZES) {
      const rate = await udpRate(net, client, bytes);
      rates.push(rate);
      figures[`UDP ${bytes} B under ${LOSS_MAX_PERCENT} % loss, Mbit/s`] = rate;
    }
    const [small] = rates;
    figures[`relay CPU, µs per ${SMALL} B packet`] = pid === undefined
      ? NaN
      : await packetCost(net, client, pid, small);
    figures[`UDP ${SMALL} B, delivered of ${OVERLOAD} times that rate, of that rate`] =
      await udpOverload(net, client, small, SMALL) / small;
    figures["relay resident, MB"] = pid === undefined ? NaN : (await usage(net, pid)).residentMb;
    return figures;
  } finally {
    await net.close();
  }
}

const median = (values: number[]) => values.sort((a, b) => a - b)[values.length >> 1];
const relays = [
  ours,
  daemonOf("wireguard-go", (device) => [WIREGUARD_GO, "-f", device]),
  ...(args.boringtun === undefined ? [] : [
    daemonOf("boringtun", (device) => [String(args.boringtun), "-f", "--disable-drop-privileges", device]),
  ]),
];
const contenders = [...relays, plain];

/** Runs everyone in turn; returns the table, and its rows for the chart. */
async function compare(offloads: boolean): Promise<{ table: string; comparisons: Comparison[] }> {
  const runs = new Map<Contender, Figures[]>(contenders.map((contender) => [contender, []]));
  for (let round = 1; round <= ROUNDS; round++) {
    for (const [contender, figures] of runs) {
      console.error(
        `round ${round} of ${ROUNDS}, ${offloads ? "with" : "without"} offloads: ${contender.name}`,
      );
      figures.push(await measure(contender, offloads));
    }
  }
  const keys = Object.keys(runs.get(ours)![0]);
  const medians = contenders.map((contender) =>
    keys.map((key) => median(runs.get(contender)!.map((figures) => figures[key])))
  );
  const comparisons = keys.map((label, i): Comparison => {
    const better = /Mbit|delivered/.test(label) ? "more" : "less";
    const others = medians.slice(1, relays.length).map((column) => column[i]);
    return { label, ours: medians[0][i], theirs: Math[better === "more" ? "max" : "min"](...others), better };
  });
  const figure = (value: number) => Number.isNaN(value) ? "" : value.toFixed(2);
  const table = [
    `veth ${
      offloads ? "with its" : "without"
    } offloads. Median of ${ROUNDS}, ${SECONDS} s each; the last column says how many times better oxrelay is than the best other relay.`,
    "",
    `| | ${contenders.map(({ name }) => name).join(" | ")} | advantage |`,
    `|---|${contenders.map(() => "---|").join("")}---|`,
    ...comparisons.map((row, i) =>
      `| ${row.label} | ${medians.map((column) => figure(column[i])).join(" | ")} | ${
        advantage(row).toFixed(2)
      } |`
    ),
  ].join("\n");
  return { table, comparisons };
}

await Deno.mkdir("bench/results", { recursive: true });
const names: [string, string] = [ours.name, relays.length > 2 ? "best other" : relays[1].name];
for (const offloads of OFFLOADS) {
  const { table, comparisons } = await compare(offloads);
  console.log(`${table}\n`);
  const file = `bench/results/system${offloads ? "" : "_without_offloads"}`;
  await Deno.writeTextFile(`${file}.md`, `${table}\n`);
  const title = `The relay, beside others as the relay${offloads ? "" : ", veth without offloads"}`;
  await Deno.writeTextFile(`${file}.svg`, comparisonChart(title, names, comparisons));
}
