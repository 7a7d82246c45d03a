/**
 * `deno task bench:attacks [--only TEXT] [--seconds N]` (root): a relay in network namespaces that somebody attacks, and what another peer of it
 * notices: its pings, each 15.6 ms, and a UDP flow of 20 Mbit/s before and during each attack, and the most memory that the relay's
 * process had. Attackers (attackers.ts) and their tunnels run at nice 10, so that what is measured is the relay and not who gets the
 * processors. Then what `peer add` takes beside a relay with 2000 peers. Prints two tables; asserts no time.
 */
import { parseArgs } from "@std/cli";
import { generatePrivateKey, keyToText, publicKeyOf } from "../src/process/keys_text.ts";
import { makeCertificate } from "../tests/kit/certificate.ts";
import {
  ADMIN_TOKEN,
  type Background,
  Network,
  pause,
  RELAY,
  SERVER,
  SERVER_V6,
  taskFlags,
} from "../tests/kit/namespaces.ts";
import type { Kind } from "./attackers.ts";
import { iperf } from "./measures.ts";

const args = parseArgs(Deno.args, { string: ["only", "seconds"] });
const BEFORE_S = 4, WARM_S = 1.5;
const ATTACK_S = Number(args.seconds ?? 8), DURING_S = ATTACK_S - 3;
const PING_S = 0.0156;
const RATE = ["-u", "-b", "20M", "-l", "1200"];
const GOAL_SHARE = 0.9, GOAL_MB = 300;
const ATTACKERS = new URL("attackers.ts", import.meta.url).pathname;
const ROOT = new URL("..", import.meta.url).pathname;
const PEERS = 2000, ADDS = 7, ADD_GOAL_MS = 50;
const NETWORKS = 16;

interface Stage {
  net: Network;
  attacker: string;
  relay: Background;
}

interface Attack {
  name: string;
  exit: "tun" | "userspace";
  /** In front of the relay's command. */
  before?: string[];
  hasFallback?: boolean;
  /** Starts it for ATTACK_S seconds; resolves when it has begun, with its process or processes. */
  start(stage: Stage): Promise<Background>;
  /** What else has to succeed while it goes on; returns what is said of that in the table. */
  meanwhile?(stage: Stage): Promise<{ isGood: boolean; text: string }>;
}

function launch(net: Network, name: string, kind: Kind, order: Record<string, unknown>): Background {
  return net.spawn(name, [
    ...["nice", "-n", "10", Deno.execPath(), "run", "--no-prompt", "--unstable-net", "--allow-net"],
    ...["--unsafely-ignore-certificate-errors", "--config", `${ROOT}deno.json`, ATTACKERS, kind],
    JSON.stringify({ seconds: ATTACK_S, ...order }),
  ]);
}

/** The attacker's own tunnel, at nice 10 too. */
async function join({ net, attacker }: Stage): Promise<void> {
  net.daemon = ["nice", "-n", "10", "wireguard-go", "-f"];
  await net.wireguard(attacker, await net.addPeer("attacker"));
  await net.must(attacker, ["ping", "-q", "-c", "1", "-w", "20", SERVER]);
}

/** Gives attacker and relay NETWORKS addresses each, and routes by which the attacker reaches each of them from another source. */
async function manySources({ net, attacker }: Stage): Promise<string[]> {
  const doors = [];
  for (let i = 1; i <= NETWORKS; i++) {
    await net.ip("relay", ["addr", "add", `10.202.0.${i}/32`, "dev", "br0"]);
    await net.ip(attacker, ["addr", "add", `10.203.${i}.1/32`, "dev", "eth0"]);
    await net.ip(attacker, ["route", "add", `10.202.0.${i}/32`, "dev", "eth0", "src", `10.203.${i}.1`]);
    await net.ip("relay", ["route", "add", `10.203.${i}.0/24`, "dev", "br0"]);
    doors.push(`10.202.0.${i}`);
  }
  return doors;
}

/** Someone new, to whom UDP is blocked, comes in by TLS. */
async function newcomer({ net }: Stage): Promise<{ isGood: boolean; text: string }> {
  const name = await net.client(9);
  await net.must("relay", ["nft", "-f", "-"], {
    input: `table inet firewall { chain input { type filter hook input priority 0;
  ip saddr 10.201.0.9 udp dport 4433 drop; }; }
`,
  });
  const file = `${net.directory}/newcomer.conf`;
  await Deno.writeTextFile(file, await net.addPeer("newcomer", undefined, ["--oxtunnel"]));
  const startMs = performance.now();
  const running = net.spawn(name, net.command("connect", ["--config", file]));
  const up = running.says("The tunnel is up.").then(() => true, () => false);
  const isGood = await Promise.race([up, pause(1000 * ATTACK_S).then(() => false)]);
  const seconds = ((performance.now() - startMs) / 1000).toFixed(1);
  return { isGood, text: isGood ? `a newcomer is in after ${seconds} s` : "a newcomer is not let in" };
}

const ATTACKS: Attack[] = [
  {
    name: "fallback: junk pushed over 4 TLS connections",
    exit: "tun",
    hasFallback: true,
    start: ({ net, attacker }) =>
      Promise.resolve(launch(net, attacker, "tlsJunk", { hosts: [RELAY], port: 443, count: 4 })),
  },
  {
    name: `fallback: ${NETWORKS} networks, 35 connections a second each`,
    exit: "tun",
    hasFallback: true,
    start: async (stage) =>
      launch(stage.net, stage.attacker, "crowd", { hosts: await manySources(stage), port: 443, count: 35 }),
    meanwhile: newcomer,
  },
  {
    name: "tun exit: UDP flows of both families",
    exit: "tun",
    start: async (stage) => {
      await join(stage);
      return launch(stage.net, stage.attacker, "udpFlows", {
        hosts: [SERVER, SERVER_V6],
        port: 10000,
        count: 50000,
      });
    },
  },
  {
    name: "tun exit: TCP connections that are kept",
    exit: "tun",
    start: async (stage) => {
      await join(stage);
      await stage.net.server("server", ACCEPT);
      return launch(stage.net, stage.attacker, "tcpFlows", { hosts: [SERVER], port: 9000, count: 10 });
    },
  },
  {
    name: "userspace exit: 1024 TCP flows, neither end reads",
    exit: "userspace",
    start: async (stage) => {
      await join(stage);
      const order = { hosts: [SERVER], port: 9100, count: 1024 };
      await launch(stage.net, "server", "tcpFill", order).says("ready");
      return launch(stage.net, stage.attacker, "tcpStuck", order);
    },
  },
  {
    name: "a peer's hint frames, 1000 datagrams a second",
    exit: "tun",
    start: async ({ net, attacker }) => {
      const configuration = await net.addPeer("attacker");
      const field = (key: string) => new RegExp(`^${key} = (.*)$`, "m").exec(configuration)![1];
      return launch(net, attacker, "hints", {
        hosts: [RELAY],
        port: 4433,
        count: 1000,
        relayKey: field("PublicKey"),
        privateKey: field("PrivateKey"),
      });
    },
  },
  ...(["tun", "userspace"] as const).map((exit): Attack => ({
    name: `admin: 512 idle connections, 256 descriptors, ${exit} exit`,
    exit,
    before: ["prlimit", "--nofile=256"],
    start: ({ net }) =>
      Promise.resolve(launch(net, "relay", "idle", { hosts: ["127.0.0.1"], port: 9090, count: 512 })),
    meanwhile: async ({ net }) => {
      const { status } = await net.ask("/healthz").catch(() => ({ status: 0 }));
      return { isGood: status === 200, text: `health says ${status}` };
    },
  })),
];

/** Takes connections on ten ports and keeps them. */
const ACCEPT = `
for (let port = 9000; port < 9010; port++) {
  const listener = Deno.listen({ hostname: "${SERVER}", port });
  (async () => { for await (const connection of listener) void connection; })();
}
console.log("ready");`;

interface Notice {
  answered: number;
  p50: number;
  p99: number;
  mbit: number;
}

/** What the victim measures for `seconds`: round trips of its pings and, beside them, the rate of its flow. */
async function notice(net: Network, victim: string, seconds: number): Promise<Notice> {
  const count = Math.round(seconds / PING_S);
  const ping = [
    "ping",
    "-i",
    String(PING_S),
    "-c",
    String(count),
    "-W",
    "1",
    "-w",
    String(seconds + 2),
    SERVER,
  ];
  const [{ stdout }, flow] = await Promise.all([
    net.run(victim, ping, { timeoutS: seconds + 10 }),
    iperf(net, victim, seconds, RATE).catch(() => undefined),
  ]);
  const times = [...stdout.matchAll(/time=([\d.]+)/g)].map(([, ms]) => Number(ms)).sort((a, b) => a - b);
  const at = (share: number) => times[Math.min(times.length - 1, Math.floor(share * times.length))] ?? NaN;
  const sum = flow?.sum;
  const mbit = sum === undefined ? 0 : sum.bits_per_second * (1 - sum.lost_percent / 100) / 1e6;
  const sent = Number(/(\d+) packets transmitted/.exec(stdout)?.[1] ?? count);
  return { answered: times.length / sent, p50: at(0.5), p99: at(0.99), mbit };
}

/** The relay with what the attack needs of it. */
async function serve(net: Network, { exit, before = [], hasFallback }: Attack): Promise<Background> {
  let config = `exit = "${exit}"\n[destinations]\nallow = ["10.200.0.0/24", "fd00:200::/64"]\n`;
  if (hasFallback) {
    const { certificate, privateKey } = await makeCertificate(net.directory, "relay.test");
    config +=
      `[fallback]\nlisten = "0.0.0.0:443"\ncertificate = "${certificate}"\nprivate_key = "${privateKey}"\n`;
  }
  if (exit === "userspace") {
    await net.must("relay", ["sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647"]);
  }
  const file = `${net.directory}/oxrelay.toml`;
  await Deno.writeTextFile(file, config);
  const relay = net.spawn(
    "relay",
    [...before, ...net.command("serve", ["--config", file])],
    ENVIRONMENT(net),
  );
  await relay.says("listening on");
  return relay;
}

const ENVIRONMENT = (net: Network) => ({
  OXRELAY_STATE_DIR: `${net.directory}/state`,
  OXRELAY_ADMIN_TOKEN: ADMIN_TOKEN,
});

async function play(attack: Attack): Promise<string[]> {
  const net = await Network.open();
  try {
    const [attacker, victim] = [await net.client(2), await net.client(3)];
    const relay = await serve(net, attack);
    const stage = { net, attacker, relay };
    await net.wireguard(victim, await net.addPeer("victim"));
    net.spawn("server", ["iperf3", "-s"]);
    await net.must(victim, ["ping", "-q", "-c", "1", "-w", "20", SERVER]);
    const before = await notice(net, victim, BEFORE_S);
    const running = await attack.start(stage);
    await pause(1000 * WARM_S);
    const [during, more] = await Promise.all([notice(net, victim, DURING_S), attack.meanwhile?.(stage)]);
    await running.child.status;
    await pause(100);
    const sent = running.said.trim().split("\n").at(-1) ?? "";
    const { stdout: status } = await net.run("relay", ["cat", `/proc/${relay.child.pid}/status`]);
    const memory = /VmHWM:\s+(\d+)/.exec(status);
    return row(attack, before, during, memory === null ? NaN : Number(memory[1]) * 1024 / 1e6, sent, more);
  } finally {
    await net.close();
  }
}

function row(
  { name }: Attack,
  before: Notice,
  during: Notice,
  mb: number,
  sent: string,
  more?: { isGood: boolean; text: string },
): string[] {
  const pings = during.answered / before.answered, rate = during.mbit / before.mbit;
  const misses = [
    pings >= GOAL_SHARE ? "" : "pings",
    rate >= GOAL_SHARE ? "" : "throughput",
    mb <= GOAL_MB ? "" : "memory",
    more?.isGood ?? true ? "" : more!.text,
  ].filter((word) => word !== "");
  const percent = (share: number) => (100 * share).toFixed(0);
  return [
    name,
    sent.replace(/[{}"]/g, "").replaceAll(",", ", ").replaceAll(":", " "),
    `${percent(before.answered)} / ${percent(during.answered)} %`,
    `${before.p50.toFixed(1)} / ${during.p50.toFixed(1)}`,
    `${before.p99.toFixed(1)} / ${during.p99.toFixed(1)}`,
    `${before.mbit.toFixed(1)} / ${during.mbit.toFixed(1)}, ${percent(rate)} %`,
    mb.toFixed(0),
    (misses.length === 0 ? "holds" : `**missed**: ${misses.join(", ")}`) +
    (more?.isGood ? `; ${more.text}` : ""),
  ];
}

/** What `peer add` takes beside a relay that serves PEERS others. */
async function adds(): Promise<string[][]> {
  const net = await Network.open();
  try {
    const peers = Array.from({ length: PEERS }, (_, i) => ({
      name: `peer-${i}`,
      publicKey: keyToText(publicKeyOf(generatePrivateKey())),
      allowedIps: [`10.66.${(i + 2) >> 8}.${(i + 2) & 255}/32`, `fd00:1:2::${(i + 2).toString(16)}/128`],
      created: "2026-01-01T00:00:00.000Z",
    }));
    const file = `${net.directory}/oxrelay.toml`;
    await Deno.mkdir(`${net.directory}/state`, { mode: 0o700 });
    await Deno.writeTextFile(`${net.directory}/state/peers.json`, JSON.stringify({ version: 1, peers }), {
      mode: 0o600,
    });
    const config = `exit = "tun"\npublic_endpoint = "${RELAY}:4433"\ntunnel_ipv6 = "fd00:1:2::/64"\n`;
    await net.relay(config);
    const flags = taskFlags("peer", net.directory);
    const order = JSON.stringify({ count: ADDS + 1, config: file, hosts: [], port: 0, seconds: 0 });
    const relayCpuS = async () =>
      Number(/^oxrelay_process_cpu_seconds_total (\S+)$/m.exec((await net.ask("/metrics")).text)?.[1]);
    const beforeS = await relayCpuS();
    const child = net.spawn(
      "relay",
      [Deno.execPath(), ...flags, ATTACKERS, "peerAdd", order],
      ENVIRONMENT(net),
    );
    await child.child.status;
    const afterS = await relayCpuS();
    const said = child.said.trim().split("\n").at(-1)!;
    const { wallMs, cpuMs } = JSON.parse(said) as Record<"wallMs" | "cpuMs", number[]>;
    const cells = (name: string, [first, ...others]: number[]) => {
      const sorted = others.toSorted((a, b) => a - b);
      const median = sorted[ADDS >> 1];
      return [
        name,
        first.toFixed(1),
        median.toFixed(1),
        `${sorted[0].toFixed(1)} to ${sorted.at(-1)!.toFixed(1)}`,
        median < ADD_GOAL_MS ? "holds" : "**missed**",
      ];
    };
    const relayMs = 1000 * (afterS - beforeS) / (ADDS + 1);
    return [
      cells("by the clock", wallMs),
      cells("by the processor", cpuMs),
      ["mean of the relay's processor", "", relayMs.toFixed(1), "", ""],
    ];
  } finally {
    await net.close();
  }
}

const print = (cells: string[]) => console.log(`| ${cells.join(" | ")} |`);
const head = (cells: string[]) => {
  print(cells);
  console.log(`|${"---|".repeat(cells.length)}`);
};

async function main(): Promise<void> {
  const isAsked = (name: string) => name.includes(String(args.only ?? ""));
  const load = Deno.loadavg()[0].toFixed(1);
  console.log(`Before / during; the machine's load was ${load} at the start.\n`);
  head([
    "attack",
    "the attacker sent",
    "pings answered",
    "ping p50 ms",
    "ping p99 ms",
    "UDP Mbit/s",
    "peak MB",
    "goal",
  ]);
  for (const attack of ATTACKS.filter(({ name }) => isAsked(name))) {
    print(
      await play(attack).catch((
        error: Error,
      ) => [attack.name, `failed: ${error.message.replaceAll("\n", " ")}`]),
    );
  }
  if (!isAsked("peer add")) return;
  console.log("");
  head([`peer add beside ${PEERS} peers, ms`, "first", `median of ${ADDS}`, "least to most", "goal"]);
  for (const cells of await adds()) print(cells);
}

await main();
