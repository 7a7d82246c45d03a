/**
 * `deno task bench:tunnel [--quick] [--rounds N] [--wireguard-go PATH] [--boringtun PATH]` (root): a whole tunnel, both ends ours over
 * OxTunnel, beside both ends wireguard-go and both ends boringtun, in turn and in one run, over network namespaces with a
 * masquerading relay. TCP both ways, UDP of 64 B, pings idle and under bulk, processor time and memory of both ends, time
 * of the first handshake, and bytes on the client's cable for a game, a call and a transfer. Prints a table and writes it
 * with a chart to bench/results/; asserts no time.
 */
import { parseArgs } from "@std/cli";
import { Network, pause, SERVER, until } from "../tests/kit/namespaces.ts";
import { compare, type Contender, daemonOf, type Figures, oxrelay, publish } from "./contest.ts";
import {
  iperf,
  LOSS_MAX_PERCENT,
  onTheWire,
  pingFigures,
  udpRate,
  usage,
  withoutOffloads,
} from "./measures.ts";

const args = parseArgs(Deno.args, { boolean: ["quick"], string: ["rounds", "wireguard-go", "boringtun"] });
const ROUNDS = Number(args.rounds ?? (args.quick ? 1 : 3));
const SECONDS = args.quick ? 2 : 5;
const SMALL = 64;
const ECHO_PORT = 7777;
/** Inner bytes of a packet with its IPv4 and UDP headers, and packets a second each way. */
const MIXES = [
  { name: "game, 60 B, 64 a second", bytes: 60, rate: 64 },
  { name: "call, 100 B, 50 a second", bytes: 100, rate: 50 },
];
const IPV4_UDP_BYTES = 28;

interface End extends Contender {
  /** Starts the client's end with what `start` gave; returns its process number. */
  join(net: Network, client: string, configuration: string): Promise<number>;
}

const ours: End = {
  ...oxrelay,
  async join(net, client, configuration) {
    const file = `${net.directory}/bench.conf`;
    await Deno.writeTextFile(file, configuration, { mode: 0o600 });
    return (await net.connect(client, ["--config", file, "--protocol", "oxtunnel"])).child.pid;
  },
};

function endsOf(name: string, command: string[]): End {
  return {
    ...daemonOf(name, command),
    async join(net, client, configuration) {
      net.daemon = command;
      return (await net.wireguard(client, configuration)).child.pid;
    },
  };
}

/** Milliseconds from the client's initiation to its first data, as its cable showed them. */
function handshakeMs(capture: string): number {
  const datagrams = [...capture.matchAll(/^(\d+\.\d+) IP .*?UDP.*\n((?:\s+0x.*\n)+)/gm)].map(
    ([, time, hex]) => {
      const bytes = hex.replaceAll(/^\s+0x[0-9a-f]+:/gm, "").replaceAll(/\s/g, "");
      return {
        time: Number(time),
        first: parseInt(bytes.slice(2 * IPV4_UDP_BYTES, 2 * IPV4_UDP_BYTES + 2), 16),
      };
    },
  );
  const data = datagrams.findIndex(({ first }) => first === 4 || (first & 0xc0) === 0x40);
  const start = datagrams.slice(0, Math.max(0, data)).findLast(({ first }) => first === 1 || first === 0xc1);
  return data < 0 || start === undefined ? NaN : 1000 * (datagrams[data].time - start.time);
}

/** Bytes on the cable for each packet of a conversation, both ways. */
async function bytesOfMix(net: Network, client: string, bytes: number, rate: number): Promise<number> {
  const before = await onTheWire(net, client);
  const count = rate * SECONDS;
  const said = await net.script(
    client,
    `const socket = Deno.listenDatagram({ transport: "udp", hostname: "0.0.0.0", port: 0 });
let back = 0;
(async () => { for await (const _ of socket) back++; })();
const start = performance.now();
for (let i = 0; i < ${count}; i++) {
  await socket.send(new Uint8Array(${bytes - IPV4_UDP_BYTES}).fill(i), {
    transport: "udp", hostname: "${SERVER}", port: ${ECHO_PORT} });
  await new Promise((resolve) => setTimeout(resolve, start + (i + 1) * ${1000 / rate} - performance.now()));
}
await new Promise((resolve) => setTimeout(resolve, 300));
console.log(back);
Deno.exit(0);`,
  );
  const after = await onTheWire(net, client);
  return (after.bytes - before.bytes) / (count + Number(said));
}

async function measure(end: End): Promise<Figures> {
  const net = await Network.open();
  try {
    const client = await net.client(2);
    const { configuration, pid } = await end.start(net);
    const capture = net.spawn("relay", [
      "tcpdump",
      "-i",
      `v${client}`,
      "-ntt",
      "-lx",
      "-c",
      "8",
      "udp port 4433",
    ]);
    await capture.says("listening on");
    const clientPid = await end.join(net, client, configuration!);
    net.spawn("server", ["iperf3", "-s"]);
    await net.server(
      "server",
      `const s = Deno.listenDatagram({ transport: "udp", hostname: "0.0.0.0", port: ${ECHO_PORT} });
console.log("ready");
for await (const [bytes, from] of s) await s.send(bytes, from);`,
    );
    await until(
      async () => (await net.run(client, ["ping", "-c", "1", "-W", "1", SERVER])).success,
      "the server is reached",
    );
    const figures: Figures = {};
    figures["first handshake, initiation to data, ms"] = NaN;
    Object.assign(figures, await pingFigures(net, client, "idle"));
    figures["first handshake, initiation to data, ms"] = handshakeMs(capture.said);
    const before = [await usage(net, pid!), await usage(net, clientPid)];
    const up = await iperf(net, client, SECONDS);
    const down = await iperf(net, client, SECONDS, ["-R"]);
    const after = [await usage(net, pid!), await usage(net, clientPid)];
    const carriedGb = (up.sum_received.bytes + down.sum_received.bytes) / 1e9;
    figures["TCP up, Mbit/s"] = up.sum_received.bits_per_second / 1e6;
    figures["TCP down, Mbit/s"] = down.sum_received.bits_per_second / 1e6;
    figures["relay CPU, s per GB"] = (after[0].cpuS - before[0].cpuS) / carriedGb;
    figures["client CPU, s per GB"] = (after[1].cpuS - before[1].cpuS) / carriedGb;
    const bulk = iperf(net, client, SECONDS);
    await pause(300);
    Object.assign(figures, await pingFigures(net, client, "under bulk"));
    await bulk;
    figures[`UDP ${SMALL} B under ${LOSS_MAX_PERCENT} % loss, Mbit/s`] = await udpRate(net, client, SMALL);
    figures["relay resident, MB"] = (await usage(net, pid!)).residentMb;
    figures["client resident, MB"] = (await usage(net, clientPid)).residentMb;
    for (const { name, bytes, rate } of MIXES) {
      figures[`bytes on the cable a packet: ${name}`] = await bytesOfMix(net, client, bytes, rate);
    }
    // Interfaces count a segmented datagram's headers once, so here the datagrams are cut before they are counted.
    await withoutOffloads(net, client);
    const start = await onTheWire(net, client);
    const bytes = (await iperf(net, client, SECONDS)).sum_received.bytes;
    figures["bytes on the cable a TCP byte"] = ((await onTheWire(net, client)).bytes - start.bytes) / bytes;
    return figures;
  } finally {
    await net.close();
  }
}

const wireguardGo = String(args["wireguard-go"] ?? "wireguard-go");
const programs = [wireguardGo, "wg", "nft", "iperf3", "ping", "tcpdump", "ethtool"];
if (args.boringtun !== undefined) programs.push(String(args.boringtun));
const relays = [
  ours,
  endsOf("wireguard-go", [wireguardGo, "-f"]),
  ...(args.boringtun === undefined
    ? []
    : [endsOf("boringtun", [String(args.boringtun), "-f", "--disable-drop-privileges"])]),
];
const outcome = await compare({
  relays,
  rounds: ROUNDS,
  programs,
  measure,
  about: "both ends",
  caption:
    `Both ends of the tunnel. Median of ${ROUNDS}, ${SECONDS} s each; the last column says how many times better oxrelay is than the best other.`,
});
await publish("tunnel", "Both ends of the tunnel, beside others", [
  ours.name,
  relays.length > 2 ? "best other" : relays[1].name,
], outcome);
