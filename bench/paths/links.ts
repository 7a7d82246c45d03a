/**
 * Several paths between real processes: a player with two interfaces, behind each a router with the impairment proxy at the relay's
 * address, the relay and a server. What a game feels over both, over one, and over WireGuard on one: on bad paths, and while the
 * first one is cut again and again; and what a second path costs that nothing goes on. Invariant: contenders cross paths of one seed.
 * Asserts nothing.
 */
import { type Arrivals, runFlow, startFarEnd } from "../../tests/kit/flow.ts";
import { Network, pause, RELAY, SERVER, until } from "../../tests/kit/namespaces.ts";
import { startProxy } from "../../tests/kit/proxy.ts";
import { WORKLOADS } from "../../tests/kit/workloads.ts";

/** The relay's address as the player has it: at both routers. */
const NEAR = "10.203.0.1:4433";
const GAME_PORT = 7777, LEAD_S = 3, TICK_MS = 1000 / 64;
const SETTLE_MS = 10_000;
const OPEN = `dns = []\nexit = "tun"\n[destinations]\nallow = ["10.200.0.0/24"]\n`;

/** Path models by the names of the impairment proxy. */
export interface Links {
  name: string;
  a: string;
  b: string;
  /** One way over A without losses, milliseconds. */
  baseMs: number;
}

export const LINKS: readonly Links[] = [
  { name: "bursts, clean +20 ms", a: "bursts", b: "clean-40ms", baseMs: 20 },
  { name: "random, random", a: "random", b: "random", baseMs: 20 },
  { name: "handover, clean +20 ms", a: "handover", b: "clean-40ms", baseMs: 20 },
];
const CLEAN: Links = { name: "clean, clean +20 ms", a: "clean", b: "clean-40ms", baseMs: 20 };

export interface Contender {
  name: string;
  start: (net: Network, player: string) => Promise<void>;
}

function oxtunnel(name: string, flags: string[], config = ""): Contender {
  return {
    name,
    async start(net, player) {
      await net.relay(OPEN + config);
      const file = `${net.directory}/player.conf`;
      await Deno.writeTextFile(file, await net.addPeer("player", NEAR, ["--oxtunnel"]));
      await net.connect(player, ["--config", file, "--json", ...flags]);
      if (!flags.includes("--paths")) return;
      const count = async () =>
        ((await net.status()).peers[0] as { paths?: { endpoint?: string }[] }).paths?.filter(({ endpoint }) =>
          endpoint
        )
          .length === 2;
      await until(count, "there are two paths", 20_000);
    },
  };
}

export const CONTENDERS: readonly Contender[] = [
  {
    name: "WireGuard on A",
    async start(net, player) {
      await net.relay(OPEN);
      await net.wireguard(player, await net.addPeer("player", NEAR));
    },
  },
  oxtunnel("oxrelay on A", []),
  oxtunnel("oxrelay, both", ["--paths", "auto"]),
  oxtunnel("oxrelay, both, no copies", ["--paths", "auto", "--redundant", "none"]),
];

export interface LinkScore {
  packets: number;
  /** Never came, or more than 60 ms later than over A without any loss. */
  missed: number;
  lost: number;
  /** Times between arrivals, milliseconds. */
  gapP99Ms: number;
  gapMs: number;
}

/** A game both ways for `seconds`, beside which `happening` may cut what it likes until `isOver` says so. */
export async function linkGame(
  { start }: Contender,
  links: Links,
  seconds: number,
  happening?: (net: Network, routers: string[], isOver: () => boolean) => Promise<void>,
): Promise<LinkScore> {
  const net = await Network.open();
  try {
    const { player, routers } = await makeLinks(net, links);
    await start(net, player);
    await until(
      async () => (await net.run(player, ["ping", "-c", "1", "-W", "1", SERVER])).success,
      "the server is reached",
      20_000,
    );
    const plan = (end: string) => ({
      workload: WORKLOADS.game64,
      seconds: seconds + LEAD_S,
      way: { transport: "udp" as const, host: SERVER, port: GAME_PORT },
      file: `${net.directory}/${end}.json`,
    });
    const far = { server: await startFarEnd(net, "server", plan("far")), file: plan("far").file };
    let isOver = false;
    const flow = runFlow(net, player, plan("near"), far).finally(() => isOver = true);
    if (happening !== undefined) {
      await pause(1000 * LEAD_S);
      await happening(net, routers, () => isOver);
    }
    const { up, down } = await flow;
    return scoreOf([up, down], links.baseMs);
  } finally {
    await net.close();
  }
}

/** The player's eth0 leads to router A and its eth1 to router B. */
async function makeLinks(net: Network, { a, b }: Links): Promise<{ player: string; routers: string[] }> {
  const routers = [await net.client(2), await net.client(3)];
  const player = await net.behind(routers[0], 1);
  const ip = (name: string, words: string) => net.ip(name, words.split(" "));
  await ip(routers[1], `link add d2 type veth peer name eth1 netns ${net.namespace(player)}`);
  await ip(routers[1], "addr add 10.202.2.1/24 dev d2");
  await ip(routers[1], "link set d2 up");
  await ip(player, "addr add 10.202.2.2/24 dev eth1");
  await ip(player, "link set eth1 up");
  await ip(player, "route add default via 10.202.1.1 metric 10");
  await ip(player, "route add default via 10.202.2.1 metric 20");
  for (const [i, channel] of [a, b].entries()) {
    await ip(routers[i], "link set lo up");
    await ip(routers[i], "addr add 10.203.0.1/32 dev lo");
    await startProxy(net, routers[i], { listen: NEAR, upstream: `${RELAY}:4433`, channel, seed: 11 + i });
  }
  return { player, routers };
}

function scoreOf(directions: readonly Arrivals[], baseMs: number): LinkScore {
  const score: LinkScore = { packets: 0, missed: 0, lost: 0, gapP99Ms: 0, gapMs: 0 };
  const gaps: number[] = [];
  for (const { latencyUs } of directions) {
    let lastMs = NaN;
    latencyUs.slice(LEAD_S * 64).forEach((us, i) => {
      score.packets++;
      if (us === null) score.lost++;
      if (us === null || us / 1000 > baseMs + 60) score.missed++;
      if (us === null) return;
      const atMs = i * TICK_MS + us / 1000;
      if (!Number.isNaN(lastMs)) gaps.push(atMs - lastMs);
      lastMs = Math.max(atMs, Number.isNaN(lastMs) ? -Infinity : lastMs);
    });
  }
  gaps.sort((x, y) => x - y);
  score.gapP99Ms = gaps[Math.floor(0.99 * gaps.length)];
  score.gapMs = gaps.at(-1)!;
  return score;
}

/** Cuts A without a word so many times, for `cutMs` of each `everyMs`. */
export function cuts(times: number, everyMs: number, cutMs: number) {
  return async (net: Network, [router]: string[], isOver: () => boolean): Promise<void> => {
    for (let i = 0; i < times && !isOver(); i++) {
      await net.ip(router, "link set eth0 down".split(" "));
      await pause(cutMs);
      await net.ip(router, "link set eth0 up".split(" "));
      await pause(everyMs - cutMs);
    }
  };
}

/** kbit/s on the player's second interface, both ways with all headers, beside a transfer of small bulk on the first; and idle. */
export async function idleCost(seconds: number): Promise<{ usedKbit: number; idleKbit: number }> {
  const net = await Network.open();
  try {
    const { player } = await makeLinks(net, CLEAN);
    await oxtunnel("both", ["--paths", "auto", "--priority", `bulk=${SERVER}`]).start(net, player);
    const read = async () => {
      const of = (way: string) => net.must(player, ["cat", `/sys/class/net/eth1/statistics/${way}_bytes`]);
      return Number(await of("rx")) + Number(await of("tx"));
    };
    const kbitOf = async (happening: () => Promise<unknown>) => {
      const before = await read(), startMs = performance.now();
      await happening();
      return 8 * (await read() - before) / (performance.now() - startMs);
    };
    await pause(SETTLE_MS); // the size of each path is found by then
    const usedKbit = await kbitOf(() =>
      net.run(player, ["ping", "-i", "0.05", "-s", "1200", "-c", String(20 * seconds), SERVER], {
        timeoutS: seconds + 10,
      })
    );
    await pause(SETTLE_MS);
    const idleKbit = await kbitOf(() => pause(1000 * seconds));
    return { usedKbit, idleKbit };
  } finally {
    await net.close();
  }
}

/** The links without losses. */
export const CLEAN_LINKS = CLEAN;
