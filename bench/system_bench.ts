/**
 * `deno task bench:system [--quick] [--rounds N] [--pings] [--wireguard-go PATH] [--boringtun PATH] [--offloads on|off]` (root): this relay,
 * wireguard-go and boringtun as the relay, in turn and in one run, for the same client (wireguard-go) in network
 * namespaces, and the same path without any of them. TCP up and down, UDP at three sizes and at three times what passes
 * without loss, ping idle and under bulk, processor time, resident memory; all of it once more where the veth pairs have
 * no offloads; with --pings nothing beyond TCP and pings. Prints tables and writes them with a chart to bench/results/; asserts no time.
 */
import { parseArgs } from "@std/cli";
import { Network, pause, RELAY, SERVER, until } from "../tests/kit/namespaces.ts";
import { compare, type Contender, daemonOf, type Figures, oxrelay, plain, publish } from "./contest.ts";
import {
  iperf,
  LOSS_MAX_PERCENT,
  packetCost,
  pingFigures,
  udpDelivered,
  udpRate,
  usage,
  withoutOffloads,
} from "./measures.ts";

const args = parseArgs(Deno.args, {
  boolean: ["quick", "pings"],
  string: ["rounds", "wireguard-go", "boringtun", "offloads"],
});
const ROUNDS = Number(args.rounds ?? (args.quick ? 1 : 3));
const SECONDS = args.quick ? 2 : 5;
const WIREGUARD_GO = String(args["wireguard-go"] ?? "wireguard-go");
/** Whether the veth pairs have their offloads, table by table. */
const OFFLOADS = args.offloads === undefined ? [true, false] : [args.offloads === "on"];
const UDP_SIZES = [64, 512, 1200];
const SMALL = UDP_SIZES[0];
const OVERLOAD = 3;

async function measure(contender: Contender, offloads: boolean): Promise<Figures> {
  const net = await Network.open();
  net.daemon = [WIREGUARD_GO, "-f"];
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
    Object.assign(figures, await pingFigures(net, client, "idle"));
    const before = pid === undefined ? undefined : await usage(net, pid);
    const up = await iperf(net, client, SECONDS);
    const down = await iperf(net, client, SECONDS, ["-R"]);
    figures["TCP up, Mbit/s"] = up.sum_received.bits_per_second / 1e6;
    figures["TCP down, Mbit/s"] = down.sum_received.bits_per_second / 1e6;
    figures["relay CPU, s per GB"] = before === undefined
      ? NaN
      : ((await usage(net, pid!)).cpuS - before.cpuS) /
        ((up.sum_received.bytes + down.sum_received.bytes) / 1e9);
    for (const [way, more] of [["bulk up", []], ["bulk down", ["-R"]]] as const) {
      const bulk = iperf(net, client, SECONDS, [...more]);
      await pause(300);
      Object.assign(figures, await pingFigures(net, client, `under ${way}`));
      await bulk;
    }
    if (args.pings) return figures;
    const rates: number[] = [];
    for (const bytes of UDP_SIZES) {
      const rate = await udpRate(net, client, bytes);
      rates.push(rate);
      figures[`UDP ${bytes} B under ${LOSS_MAX_PERCENT} % loss, Mbit/s`] = rate;
    }
    const [small] = rates;
    figures[`relay CPU, µs per ${SMALL} B packet`] = pid === undefined
      ? NaN
      : await packetCost(net, client, pid, SECONDS, small, SMALL);
    figures[`UDP ${SMALL} B, delivered of ${OVERLOAD} times that rate, of that rate`] =
      await udpDelivered(net, client, SECONDS, OVERLOAD * small, SMALL) / small;
    figures["relay resident, MB"] = pid === undefined ? NaN : (await usage(net, pid)).residentMb;
    return figures;
  } finally {
    await net.close();
  }
}

const relays = [
  oxrelay,
  daemonOf("wireguard-go", [WIREGUARD_GO, "-f"]),
  ...(args.boringtun === undefined
    ? []
    : [daemonOf("boringtun", [String(args.boringtun), "-f", "--disable-drop-privileges"])]),
];
const programs = [WIREGUARD_GO, "wg", "nft", "iperf3", "ping", ...OFFLOADS.every(Boolean) ? [] : ["ethtool"]];
if (args.boringtun !== undefined) programs.push(String(args.boringtun));
const names: [string, string] = [oxrelay.name, relays.length > 2 ? "best other" : relays[1].name];
for (const offloads of OFFLOADS) {
  const how = `${offloads ? "with" : "without"} offloads`;
  const outcome = await compare({
    relays,
    baseline: plain,
    rounds: ROUNDS,
    programs,
    measure: (contender) => measure(contender, offloads),
    about: how,
    caption:
      `veth ${how}. Median of ${ROUNDS}, ${SECONDS} s each; the last column says how many times better oxrelay is than the best other relay.`,
  });
  const title = `The relay, beside others as the relay${offloads ? "" : ", veth without offloads"}`;
  await publish(
    `system${args.pings ? "_pings" : ""}${offloads ? "" : "_without_offloads"}`,
    title,
    names,
    outcome,
  );
}
