/**
 * `deno task bench:feel --sockets [--seconds N] [--seed N] [--only NAME] [--one-way MS]` (root): what a game and a call feel of a bad path
 * through real sockets. In network namespaces, side by side and on paths of one seed: no tunnel, WireGuard (wireguard-go and
 * our responder), kcptun, and OxTunnel without repair, with plain duplication and as it is. Every contender's datagrams cross
 * a proxy of its own (tools/impair.ts), which counts them. Prints a table for each path and traffic and writes them
 * to bench/results/, unless it has fewer seconds or contenders; a table during which the machine was too busy for what has no
 * repair is left out. Asserts nothing.
 */
import type { ChannelName } from "../../tests/kit/channels.ts";
import { type Arrivals, runFlow, startFarEnd, type Way } from "../../tests/kit/flow.ts";
import { type ProxyCounts, proxyCounts, startProxy } from "../../tests/kit/proxy.ts";
import { type Background, Network, RELAY, SERVER, until } from "../../tests/kit/namespaces.ts";
import { type Received, score, speechRating } from "./score.ts";
import { type Stream, type Workload, WORKLOADS } from "../../tests/kit/workloads.ts";

const LOSSY: ChannelName[] = ["random", "bursts"], CHANNELS: ChannelName[] = ["clean", ...LOSSY];
const GAME = { workload: WORKLOADS.game64, port: 7777 }, CALL = { workload: WORKLOADS.opus, port: 40_000 };
const FAST_GAME = { workload: WORKLOADS.game128, port: 7777 };
const TRAFFIC: { workload: Workload; port: number }[] = [GAME, CALL], NEAR_TRAFFIC = [GAME, FAST_GAME, CALL];
/** Seconds of a run that is published: of one path and traffic, and of each where there are many. */
const SECONDS_MIN = 30, NEAR_SECONDS_MIN = 15;
/** Seconds at the start that are not counted: classes and repair settle. */
const LEAD_S = 3;
const PROXY = `${RELAY}:5000`;
/** Where the path without a tunnel, or a tunnel without repair, adds more, the machine is too busy for a table to say anything of repair. */
const BARE_P99_MS_MAX = 30;

interface Contender {
  name: string;
  about: string;
  /** Where its datagrams go on to behind the proxy, for a server's port. */
  upstream(port: number): string;
  /** Whether its bytes are to be held against those of OxTunnel without repair. */
  isRepaired?: boolean;
  /** Starts both ends; how the client reaches the server's port. */
  start(net: Network, client: string, port: number): Promise<Way>;
}

const TUNNEL = "127.0.0.1:4433";
const BARE = "OxTunnel, no repair";

/** A relay with these words in its configuration. */
async function relay(net: Network, words: string): Promise<void> {
  await net.relay(`dns = []\nexit = "tun"\n${words}\n[destinations]\nallow = ["10.200.0.0/24"]\n`);
}

/** Once the server answers, packets to it go through the tunnel. */
async function reached(net: Network, client: string, port: number): Promise<Way> {
  await until(
    async () => (await net.run(client, ["ping", "-c", "1", "-W", "1", SERVER])).success,
    "the server is reached",
  );
  return { transport: "udp", host: SERVER, port };
}

function oxtunnel(name: string, about: string, { config = "", flags = [] as string[] }): Contender {
  return {
    name,
    about,
    isRepaired: name !== BARE,
    upstream: () => TUNNEL,
    async start(net, client, port) {
      await relay(net, config);
      const file = `${net.directory}/player.conf`;
      await Deno.writeTextFile(file, await net.addPeer("player", PROXY, ["--oxtunnel"]));
      await net.connect(client, ["--config", file, "--json", ...flags]);
      return await reached(net, client, port);
    },
  };
}

const KCP = [
  "--key",
  "bench",
  "--crypt",
  "aes",
  "--mode",
  "fast3",
  "--nocomp",
  "--datashard",
  "10",
  "--parityshard",
  "3",
];

const CONTENDERS: Contender[] = [
  {
    name: "no tunnel",
    about: "plain UDP",
    upstream: (port) => `${SERVER}:${port}`,
    start: () => Promise.resolve({ transport: "udp", host: RELAY, port: 5000 }),
  },
  {
    name: "WireGuard",
    about: "wireguard-go to our responder",
    upstream: () => TUNNEL,
    async start(net, client, port) {
      await relay(net, "");
      await net.wireguard(client, await net.addPeer("player", PROXY));
      return await reached(net, client, port);
    },
  },
  {
    name: "kcptun",
    about:
      "the same messages one after the other over one TCP connection through KCP, fast3, Reed-Solomon 10+3",
    upstream: () => "127.0.0.1:29900",
    async start(net, client, port) {
      for (const [name, program] of [["relay", "kcptun-server"], [client, "kcptun-client"]]) {
        const found = await net.run(name, ["sh", "-c", `command -v ${program}`]);
        if (!found.success) throw new Error(`${program} is missing; install with \`apt-get install kcptun\``);
      }
      const server = net.spawn("relay", ["kcptun-server", "-l", ":29900", "-t", `${SERVER}:${port}`, ...KCP]);
      await server.says("istening on");
      const tunnel = net.spawn(client, ["kcptun-client", "-l", "127.0.0.1:12948", "-r", PROXY, ...KCP]);
      await tunnel.says("istening on");
      return { transport: "tcp", host: "127.0.0.1", port: 12948 };
    },
  },
  oxtunnel(BARE, "", { config: "[repair]\nenabled = false", flags: ["--no-repair"] }),
  oxtunnel("OxTunnel, duplicates", "each packet's copy in a later datagram", {
    config: `[repair]\nscheme = "copy"\nshare_percent = 100\nbudget_percent = 100`,
    flags: ["--repair", "scheme=copy,share_percent=100,budget_percent=100"],
  }),
  oxtunnel("OxTunnel, in advance only", "adaptive, at most 25 % more bytes, no requests", {
    config: `[repair]\nrequests = false`,
    flags: ["--repair", "requests=false"],
  }),
  oxtunnel("OxTunnel", "as it is: adaptive, at most 25 % more bytes", {}),
  oxtunnel("OxTunnel, up to 100 %", "adaptive, at most twice the bytes, at both ends", {
    config: `[repair]\nbudget_percent = 100`,
    flags: ["--repair", "budget_percent=100"],
  }),
];

interface Run {
  arrivals: { up: Arrivals; down: Arrivals };
  before: ProxyCounts;
  after: ProxyCounts;
}

const SIDES = ["up", "down"] as const;

/** What was sent one way after the first seconds; expected is what takes as long as `plain`'s quickest. */
function received(run: Run, plain: Run, side: "up" | "down", { packetsPerSecond }: Stream): Received {
  const quickestUs = Math.min(...plain.arrivals[side].latencyUs.filter((one) => one !== null));
  const latencyUs = run.arrivals[side].latencyUs.slice(LEAD_S * packetsPerSecond);
  const sentUs = latencyUs.map((_, n) => n * 1e6 / packetsPerSecond);
  return {
    sentUs,
    expectedUs: sentUs.map((us) => us + quickestUs),
    arrivedUs: latencyUs.map((one, n) => one === null ? Infinity : sentUs[n] + one),
  };
}

/** Bytes on the wire, both ways, IPv4 and UDP headers included. */
function bytesOf({ before, after }: Run): number {
  return after.up.bytes + after.down.bytes - before.up.bytes - before.down.bytes;
}

const COLUMNS = [
  "late or lost, up",
  "down",
  "runs of 3 and more, a minute",
  "added p50, ms",
  "p99",
  "p99.9",
  "R of the E-model",
  "bytes above plain UDP",
  "above no repair",
  "proxy late, p99",
];

/** One contender's cells; `bare` is the same tunnel without repair, where there is one. */
function cells(run: Run, plain: Run, bare: Run | undefined, workload: Workload): string[] {
  const { deadlineUs, codec } = workload;
  const ways = SIDES.map((side) => received(run, plain, side, workload[side]));
  const percent = (share: number, digits: number) => `${(100 * share).toFixed(digits)} %`;
  const both = score(ways, deadlineUs);
  const { up, down } = run.after;
  return [
    ...ways.map((way) => percent(score([way], deadlineUs).residual, 2)),
    both.longRunsPerMinute.toFixed(1),
    both.addedMsP50.toFixed(1),
    both.addedMsP99.toFixed(1),
    both.addedMsP999.toFixed(1),
    codec ? (ways.reduce((sum, way) => sum + speechRating(way, deadlineUs, codec), 0) / 2).toFixed(0) : "",
    percent(bytesOf(run) / bytesOf(plain) - 1, 0),
    bare ? percent(bytesOf(run) / bytesOf(bare) - 1, 1) : "",
    `${Math.max(up.lateUsP99, down.lateUsP99)} µs`,
  ];
}

/** A contender with its network, ready to carry the traffic. */
interface Ready {
  net: Network;
  client: string;
  proxy: Background;
  way: Way;
}

async function prepare(
  net: Network,
  contender: Contender,
  plan: { channel: string; seed: number; originMs: number; port: number },
): Promise<Ready> {
  const { channel, seed, originMs, port } = plan;
  const client = await net.client(2);
  const proxy = await startProxy(net, "relay", {
    listen: PROXY,
    upstream: contender.upstream(port),
    channel,
    seed,
    originMs,
  });
  return { net, client, proxy, way: await contender.start(net, client, port) };
}

async function carry({ net, client, proxy, way }: Ready, workload: Workload, seconds: number, port: number) {
  const { transport } = way;
  const file = (end: string) => `${net.directory}/${end}.json`;
  const farPlan = { workload, seconds, way: { transport, host: SERVER, port }, file: file("far") };
  const server = await startFarEnd(net, "server", farPlan);
  const before = proxyCounts(proxy);
  const plan = { workload, seconds, way, file: file("near") };
  const arrivals = await runFlow(net, client, plan, { server, file: file("far") });
  return { arrivals, before, after: proxyCounts(proxy) };
}

/** The table of one path and traffic, in Markdown; undefined where the machine was too busy. */
async function round(
  channel: string,
  { workload, port }: (typeof TRAFFIC)[number],
  contenders: Contender[],
  { seconds, seed }: { seconds: number; seed: number },
): Promise<string | undefined> {
  const title = `${workload.label}, path "${channel}"`;
  console.error(`${title}: preparing`);
  const leftOut = (i: number) => (reason: Error) => {
    console.error(`${contenders[i].name} is left out: ${reason.message}`);
    return undefined;
  };
  const nets: Network[] = [];
  try {
    for (const _ of contenders) nets.push(await Network.open());
    const plan = { channel, seed, originMs: Date.now(), port };
    const ready = await Promise.all(
      contenders.map((one, i) => prepare(nets[i], one, plan).catch(leftOut(i))),
    );
    console.error(`${title}: ${seconds} s`);
    const runs = await Promise.all(
      ready.map((one, i) => one && carry(one, workload, seconds + LEAD_S, port).catch(leftOut(i))),
    );
    const [plain] = runs;
    if (plain === undefined) throw new Error("there is nothing to hold the others against");
    const bareAt = contenders.findIndex(({ name }) => name === BARE);
    for (const bare of [plain, runs[bareAt]]) {
      if (bare === undefined) continue;
      const ways = SIDES.map((side) => received(bare, plain, side, workload[side]));
      const { addedMsP99 } = score(ways, workload.deadlineUs);
      if (addedMsP99 <= BARE_P99_MS_MAX) continue;
      console.error(
        `${title}: left out, the machine is busy: without repair p99 is ${addedMsP99.toFixed(0)} ms`,
      );
      return undefined;
    }
    const row = (words: string[]) => `| ${words.join(" | ")} |`;
    return [
      `### ${title}, ${workload.deadlineUs / 1000} ms deadline`,
      "",
      row(["", ...COLUMNS]),
      row(["", ...COLUMNS].map(() => "---")),
      ...runs.flatMap((run, i) => {
        if (run === undefined) return [];
        const { name, isRepaired } = contenders[i];
        const bare = isRepaired ? runs[bareAt] : undefined;
        return [row([name, ...cells(run, plain, bare, workload)])];
      }),
    ].join("\n");
  } finally {
    await Promise.all(nets.map((net) => net.close()));
  }
}

/** Runs it all; prints the tables, and leaves them in bench/results/feel_sockets.md when nothing is cut short. */
export async function benchSockets(
  { seed, seconds, only, oneWay }: { seed: number; seconds: number; only: string; oneWay: number[] },
): Promise<void> {
  if (!(seconds > 0)) throw new Error("--seconds is not a number of seconds");
  const isNear = oneWay.length > 0;
  const isWhole = seconds >= (isNear ? NEAR_SECONDS_MIN : SECONDS_MIN) && only === "";
  // Over other lengths of the path, what loses nothing says nothing new.
  const channels = isNear
    ? oneWay.flatMap((ms) => LOSSY.map((name) => ms === 20 ? name : `${name}-${ms}ms`))
    : CHANNELS;
  // The path without a tunnel is what the others are held against.
  const contenders = CONTENDERS.filter(({ name }, i) => i === 0 || name.includes(only));
  const sections = [
    `${seconds} s each way, everyone side by side on paths of seed ${seed}, 20 ms one way unless the path's name says otherwise. Times are above the quickest ` +
    "packet without a tunnel, of those that came at all; the first 3 s are not counted.",
    contenders.map(({ name, about }) => about === "" ? "" : `- ${name}: ${about}`).filter(Boolean).join("\n"),
  ];
  for (const channel of channels) {
    for (const traffic of isNear ? NEAR_TRAFFIC : TRAFFIC) {
      const table = await round(channel, traffic, contenders, { seconds, seed });
      if (table === undefined) continue;
      sections.push(table);
      console.log(`${table}\n`);
    }
  }
  if (!isWhole) return;
  await Deno.mkdir("bench/results", { recursive: true });
  await Deno.writeTextFile(
    `bench/results/feel_sockets${isNear ? "_near" : ""}.md`,
    `${sections.join("\n\n")}\n`,
  );
}
