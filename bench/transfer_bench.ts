/**
 * `deno task bench:transfer [--quick]` (root): a download through the userspace exit against the same one through the TUN
 * exit. One WireGuard client, and between it and the relay a path (tests/system/impair.ts) of 1, 40 or 150 ms, clean or
 * with 0.5 % of the datagrams lost and 1 % late. Both relays run beside each other and take turns in each round; prints the
 * medians and their ratio. Asserts no time.
 */
import { parseArgs } from "@std/cli";
import { startProxy } from "../tests/system/impair.ts";
import { Network, pause, RELAY, SERVER } from "../tests/system/namespaces.ts";
import { TRANSFER_PATHS, type TransferPathName } from "../tests/sim/channels.ts";

const args = parseArgs(Deno.args, { boolean: ["quick"] });
const SECONDS = args.quick ? 5 : 12;
const ROUNDS = args.quick ? 3 : 5; // odd, so that the median is a round
const EXITS = ["tun", "userspace"] as const;
const PATHS = Object.keys(TRANSFER_PATHS) as TransferPathName[];
const FIRST_PORT = 5001;

/** A relay with one exit, its client, and a proxy for each path. */
async function open(exit: string): Promise<{ net: Network; client: string; peer: string }> {
  const net = await Network.open();
  try {
    const client = await net.client(2);
    await net.relay(`exit = "${exit}"\n[destinations]\nallow = ["10.200.0.0/24"]\n`);
    const configuration = await net.addPeer("laptop");
    await net.wireguard(client, configuration);
    net.spawn("server", ["iperf3", "-s"]);
    for (const [i, channel] of PATHS.entries()) {
      const listen = `${RELAY}:${FIRST_PORT + i}`;
      await startProxy(net, "relay", { listen, upstream: "127.0.0.1:4433", channel, seed: 1 });
    }
    return { net, client, peer: /^PublicKey = (.*)$/m.exec(configuration)![1] };
  } catch (error) {
    await net.close();
    throw error;
  }
}

/** Megabits per second that arrive. */
async function download({ net, client, peer }: Awaited<ReturnType<typeof open>>, path: number) {
  const endpoint = `${RELAY}:${FIRST_PORT + path}`;
  await net.must(client, ["wg", "set", net.device(client), "peer", peer, "endpoint", endpoint]);
  await pause(500);
  const said = await net.must(client, ["iperf3", "-J", "-R", "-c", SERVER, "-t", String(SECONDS)], {
    timeoutS: SECONDS + 30,
  });
  return JSON.parse(said).end.sum_received.bits_per_second / 1e6;
}

function median(values: number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1];
}

async function main(): Promise<void> {
  const tunnels: Awaited<ReturnType<typeof open>>[] = [];
  try {
    for (const exit of EXITS) tunnels.push(await open(exit));
    console.log("| path | tun Mbit/s | userspace Mbit/s | ratio | its rounds |\n|---|---|---|---|---|");
    for (const [path, name] of PATHS.entries()) {
      const found: [number[], number[]] = [[], []];
      for (let round = 0; round < ROUNDS; round++) {
        for (const i of round % 2 === 0 ? [0, 1] : [1, 0]) found[i].push(await download(tunnels[i], path));
      }
      const ratios = found[1].map((rate, round) => rate / found[0][round]);
      const cells = [
        name,
        ...found.map((rates) => median(rates).toFixed(1)),
        median(ratios).toFixed(2),
        ratios.map((ratio) => ratio.toFixed(2)).join(" "),
      ];
      console.log(`| ${cells.join(" | ")} |`);
    }
  } finally {
    for (const { net } of tunnels) await net.close();
  }
}

await main();
