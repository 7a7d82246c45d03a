/**
 * `deno task bench:transfer [--quick] [path …]` (root): a download through the userspace exit against the same one
 * through the TUN exit, where the far server's kernel controls congestion: by BBR and by CUBIC, a row for each. One WireGuard
 * client, and between it and the relay a path (tools/impair.ts) of 1, 40 or 150 ms, clean or with 0.5 % of the
 * datagrams lost and 1 % late. Both relays run beside each other and take turns in each round; prints the medians, the median
 * of the ratios, and every ratio. Asserts no time.
 */
import { parseArgs } from "@std/cli";
import { startProxy } from "../tests/kit/proxy.ts";
import { Network, pause, RELAY, SERVER } from "../tests/kit/namespaces.ts";
import { TRANSFER_PATHS, type TransferPathName } from "../tests/kit/channels.ts";

const args = parseArgs(Deno.args, { boolean: ["quick"] });
const SECONDS = args.quick ? 5 : 12;
const ROUNDS = args.quick ? 3 : 5; // odd, so that the median is a round
const EXITS = ["tun", "userspace"] as const;
const ALL_PATHS = Object.keys(TRANSFER_PATHS) as TransferPathName[];
const WANTED = args._.map(String);
const PATHS = WANTED.length === 0 ? ALL_PATHS : ALL_PATHS.filter((name) => WANTED.includes(name));
/** By relay and by what the far server's kernel sends with; to the userspace exit it sends over no path. */
const SIDES = [
  { exit: "tun", control: "bbr" },
  { exit: "tun", control: "cubic" },
  { exit: "userspace", control: undefined },
] as const;
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

/** Megabits per second that arrive, sent with a congestion control of the kernel's (iperf3 tells the server), or its default. */
async function download(
  { net, client, peer }: Awaited<ReturnType<typeof open>>,
  path: number,
  control: string | undefined,
) {
  const endpoint = `${RELAY}:${FIRST_PORT + path}`;
  await net.must(client, ["wg", "set", net.device(client), "peer", peer, "endpoint", endpoint]);
  await pause(500);
  const chosen = control === undefined ? [] : ["-C", control];
  const said = await net.must(
    client,
    ["iperf3", "-J", "-R", "-c", SERVER, "-t", String(SECONDS), ...chosen],
    { timeoutS: SECONDS + 30 },
  );
  return JSON.parse(said).end.sum_received.bits_per_second / 1e6;
}

function median(values: number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1];
}

async function main(): Promise<void> {
  const tunnels: Awaited<ReturnType<typeof open>>[] = [];
  try {
    for (const exit of EXITS) tunnels.push(await open(exit));
    console.log(
      "| path | tun, with | tun Mbit/s | userspace Mbit/s | ratio | its rounds |\n|---|---|---|---|---|---|",
    );
    for (const [path, name] of PATHS.entries()) {
      const found: number[][] = SIDES.map(() => []);
      for (let round = 0; round < ROUNDS; round++) {
        for (let turn = 0; turn < SIDES.length; turn++) {
          const side = (round + turn) % SIDES.length;
          const { exit, control } = SIDES[side];
          found[side].push(await download(tunnels[EXITS.indexOf(exit)], path, control));
        }
      }
      const userspace = found[SIDES.findIndex(({ exit }) => exit === "userspace")];
      for (const [side, { exit, control }] of SIDES.entries()) {
        if (exit !== "tun") continue;
        const ratios = userspace.map((rate, round) => rate / found[side][round]);
        const cells = [
          name,
          control,
          median(found[side]).toFixed(1),
          median(userspace).toFixed(1),
          median(ratios).toFixed(2),
          ratios.map((ratio) => ratio.toFixed(2)).join(" "),
        ];
        console.log(`| ${cells.join(" | ")} |`);
      }
    }
  } finally {
    for (const { net } of tunnels) await net.close();
  }
}

await main();
