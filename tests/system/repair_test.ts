/**
 * Loss repair as a player has it: a relay and two clients over a path that loses 5 % each way, a game's packets both ways
 * at once, one client with repair and one without. Counted is what the far ends received, against what the proxies in
 * between lost; nothing is timed. The test makes and removes its own network.
 */
import { assertEquals, assertGreater, assertLess } from "@std/assert";
import { WORKLOADS } from "../kit/workloads.ts";
import type { RepairFigures } from "../../src/repair/figures.ts";
import { requires } from "../kit/requires.ts";
import { type Arrivals, type FlowPlan, runFlow, startFarEnd } from "../kit/flow.ts";
import { type ProxyCounts, proxyCounts, startProxy } from "../kit/proxy.ts";
import { type Background, type Network, networkTest, RELAY, SERVER, until } from "../kit/namespaces.ts";

const NEEDS = requires({ root: true, programs: ["ip", "nft", "ping", "sh"] });
const SECONDS = 8;
/** Repair learns of losses by the first of them. */
const LEAD = 2 * 64;
const SEED = 11;
/** More than the default, so that a run this short shows it beyond chance. */
const BUDGET = "budget_percent=100";
/** With what is added to it, a port that games are known by. */
const GAME_PORT = 7775;

interface Player {
  name: string;
  running: Background;
  proxy: Background;
  port: number;
}

/** A client behind a bad path of its own. */
async function join(net: Network, name: string, host: number, flags: string[]): Promise<Player> {
  const proxy = await startProxy(net, "relay", {
    listen: `${RELAY}:${5000 + host}`,
    upstream: "127.0.0.1:4433",
    channel: "random",
    seed: SEED,
  });
  const file = `${net.directory}/${name}.conf`;
  await Deno.writeTextFile(file, await net.addPeer(name, `${RELAY}:${5000 + host}`, ["--oxtunnel"]));
  const running = await net.connect(name, ["--config", file, "--json", ...flags]);
  const ping = ["ping", "-c", "1", "-W", "1", SERVER];
  await until(async () => (await net.run(name, ping)).success, "the server is reached");
  return { name, running, proxy, port: GAME_PORT + host };
}

interface Outcome {
  /** Shares of the packets that never came, after the first two seconds. */
  lost: { up: number; down: number };
  /** Shares of datagrams that the proxy lost meanwhile. */
  dropped: { up: number; down: number };
  /** Datagrams that each end brought back, as `connect --json` says. */
  repaired: { up: number; down: number };
}

async function play(net: Network, { name, running, proxy, port }: Player): Promise<Outcome> {
  const way = { transport: "udp", host: SERVER, port } as const;
  const plan = (end: string): FlowPlan => ({
    workload: WORKLOADS.game64,
    seconds: SECONDS,
    way,
    file: `${net.directory}/${name}-${end}.json`,
  });
  const far = { server: await startFarEnd(net, "server", plan("far")), file: plan("far").file };
  const before = proxyCounts(proxy);
  const { up, down } = await runFlow(net, name, plan("near"), far);
  const after = proxyCounts(proxy);
  assertEquals([up.twice, down.twice], [0, 0], "nothing comes twice");
  const dropped = (side: keyof ProxyCounts) =>
    (after[side].dropped - before[side].dropped) / (after[side].offered - before[side].offered);
  const said = running.said.split("\n").slice(0, -1).findLast((line) => line.startsWith("{"));
  const { repairUp, repairDown }: Partial<Record<string, RepairFigures>> = JSON.parse(said!);
  return {
    lost: { up: lost(up), down: lost(down) },
    dropped: { up: dropped("up"), down: dropped("down") },
    repaired: { up: repairUp?.repaired ?? 0, down: repairDown?.repaired ?? 0 },
  };
}

function lost({ latencyUs }: Arrivals): number {
  const counted = latencyUs.slice(LEAD);
  return counted.filter((one) => one === null).length / counted.length;
}

networkTest(
  "repair: what a bad path loses of a game comes back, and does not without",
  NEEDS,
  async (net) => {
    await net.relay(
      `dns = []\nexit = "tun"\n[repair]\n${BUDGET}\n[destinations]\nallow = ["10.200.0.0/24"]\n`,
    );
    const [a, b] = [await net.client(2), await net.client(3)];
    const players = await Promise.all([
      join(net, a, 2, ["--repair", BUDGET]),
      join(net, b, 3, ["--no-repair"]),
    ]);
    const [on, off] = await Promise.all(players.map((player) => play(net, player)));
    const percent = (share: number) => `${(100 * share).toFixed(2)} %`;
    for (const [name, { lost, dropped, repaired }] of Object.entries({ on, off })) {
      for (const side of ["up", "down"] as const) {
        console.log(
          `repair ${name}, ${side}: the path lost ${percent(dropped[side])}, the game ${
            percent(lost[side])
          }, ` +
            `${repaired[side]} were brought back`,
        );
        assertGreater(dropped[side], 0.02, "the path is bad");
      }
    }
    const both = ({ up, down }: Outcome["lost"]) => up + down;
    assertLess(both(on.lost), both(on.dropped) / 4);
    for (const side of ["up", "down"] as const) {
      assertLess(on.lost[side], on.dropped[side], `repair on, ${side}`);
      assertGreater(on.repaired[side], 0, players[0].running.said);
      assertGreater(off.lost[side], off.dropped[side] / 2, `repair off, ${side}`);
      assertEquals(off.repaired[side], 0);
    }
  },
);
