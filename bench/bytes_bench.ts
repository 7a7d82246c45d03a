/**
 * `deno task bench:bytes [--udp]` (root): bytes on the client's cable for a game, a call, acknowledgments and full segments, through
 * whole tunnels between real sockets in network namespaces: OxTunnel with headers left out, by ROHC and with all headers,
 * beside wireguard-go. Bytes do not depend on the machine, so one round is enough. With --udp only games and calls,
 * which load no processor. Prints a table and writes it to bench/results/bytes.md.
 */
import { Network, pause, SERVER, SERVER_V6, until } from "../tests/kit/namespaces.ts";
import { daemonOf, type Figures } from "./contest.ts";
import { iperf, onTheWire, withoutOffloads } from "./measures.ts";

const WARM_S = 2, SECONDS = 8, ECHO_PORT = 7777;
/** Packets of one conversation: payload of UDP, packets a second each way, and whether they are RTP. */
const MIXES = [
  { name: "game, 32 B, IPv4", payload: 32, rate: 64, version: 4, isRtp: false },
  { name: "game, 100 B, IPv4", payload: 100, rate: 64, version: 4, isRtp: false },
  { name: "game, 32 B, IPv6", payload: 32, rate: 64, version: 6, isRtp: false },
  { name: "game, 100 B, IPv6", payload: 100, rate: 64, version: 6, isRtp: false },
  { name: "call, 60 B of Opus in RTP, IPv4", payload: 72, rate: 50, version: 4, isRtp: true },
] as const;
/** Leaves out what loads the processors. */
const isWithoutTcp = Deno.args.includes("--udp");
type Mix = (typeof MIXES)[number];

interface End {
  name: string;
  start(net: Network, client: string): Promise<void>;
}

function ours(name: string, headers: string, options: string[]): End {
  return {
    name,
    async start(net, client) {
      await net.relay(
        `exit = "tun"\n[destinations]\nallow = ["10.200.0.0/24", "fd00:200::/64"]\n[repair]\nenabled = false\n${headers}`,
      );
      const file = `${net.directory}/bench.conf`;
      await Deno.writeTextFile(file, await net.addPeer("bench"), { mode: 0o600 });
      await net.connect(client, ["--config", file, "--protocol", "oxtunnel", ...options]);
    },
  };
}

const wireguard: End = {
  name: "wireguard-go",
  async start(net, client) {
    const command = ["wireguard-go", "-f"];
    const { configuration } = await daemonOf("wireguard-go", command).start(net);
    const device = net.device("relay"), v6 = "fd00:66::2/128";
    const peer = (await net.must("relay", ["wg", "show", device, "peers"])).trim();
    await net.must("relay", ["wg", "set", device, "peer", peer, "allowed-ips", `10.66.0.2/32,${v6}`]);
    await net.ip("relay", ["addr", "add", "fd00:66::1/64", "dev", device, "nodad"]);
    await net.must("relay", ["sysctl", "-qw", "net.ipv6.conf.all.forwarding=1"]);
    const rules =
      `table inet bench6 {\n chain post {\n type nat hook postrouting priority srcnat;\n ip6 saddr fd00:66::/64 masquerade\n }\n}\n`;
    await net.must("relay", ["nft", "-f", "-"], { input: rules });
    net.daemon = command;
    await net.wireguard(client, configuration!.replace("10.66.0.2/32", `10.66.0.2/32, ${v6}`));
  },
};

/**
 * Bytes on the cable for each packet of a conversation, both ways, reports and all other control frames included. The first
 * two seconds do not count: headers are defined then, and sizes of the path tried.
 */
async function bytesOfMix(net: Network, client: string, mix: Mix): Promise<number> {
  const { payload, rate, version, isRtp } = mix, hostname = version === 4 ? "0.0.0.0" : "::";
  const talk = net.script(
    client,
    `const socket = Deno.listenDatagram({ transport: "udp", hostname: "${hostname}", port: 0 });
let back = 0;
(async () => { for await (const _ of socket) back++; })();
const start = performance.now(), count = ${rate * (WARM_S + SECONDS + 2)};
for (let i = 0; i < count; i++) {
  const data = new Uint8Array(${payload}).map((_, at) => i * 31 + at * at), view = new DataView(data.buffer);
  if (${isRtp}) { view.setUint32(0, 0x806f0000 | i); view.setUint32(4, 960 * i); view.setUint32(8, 77); }
  else data[0] = i & 0x3f;
  await socket.send(data, { transport: "udp", hostname: "${
      version === 4 ? SERVER : SERVER_V6
    }", port: ${ECHO_PORT} });
  await new Promise((resolve) => setTimeout(resolve, start + (i + 1) * ${1000 / rate} - performance.now()));
}
console.log(back / count);
Deno.exit(0);`,
    60,
  );
  // Until the script runs.
  await pause(500 + 1000 * WARM_S);
  const before = await onTheWire(net, client), first = await inTheTunnel(net, client);
  await pause(1000 * SECONDS);
  const after = await onTheWire(net, client), last = await inTheTunnel(net, client);
  const back = Number(await talk);
  if (back < 0.95) throw new Error(`${mix.name}: ${back} of the packets came back`);
  return (after.bytes - before.bytes) / (last - first);
}

/** Packets that the tunnel's device has carried so far, both ways. */
async function inTheTunnel(net: Network, client: string): Promise<number> {
  const [tun] = JSON.parse(await net.must(client, ["ip", "-j", "-s", "link", "show", "type", "tun"]));
  return tun.stats64.rx.packets + tun.stats64.tx.packets;
}

/** What the client's cable and its tunnel's device have sent so far. */
async function sent(net: Network, client: string): Promise<{ bytes: number; packets: number }> {
  const [wire] = JSON.parse(await net.must(client, ["ip", "-j", "-s", "link", "show", "dev", "eth0"]));
  const [tun] = JSON.parse(await net.must(client, ["ip", "-j", "-s", "link", "show", "type", "tun"]));
  return {
    bytes: wire.stats64.tx.bytes - 14 * wire.stats64.tx.packets,
    packets: tun.stats64.tx.packets,
  };
}

async function measure(end: End): Promise<Figures> {
  const net = await Network.open();
  try {
    const client = await net.client(2);
    await end.start(net, client);
    net.spawn("server", ["iperf3", "-s"]);
    for (const [hostname, name] of [["0.0.0.0", "four"], ["::", "six"]]) {
      if (name === "six") await net.must("server", ["sysctl", "-qw", "net.ipv6.bindv6only=1"]);
      await net.server(
        "server",
        `const s = Deno.listenDatagram({ transport: "udp", hostname: "${hostname}", port: ${ECHO_PORT} });
console.log("ready");
for await (const [bytes, from] of s) await s.send(bytes, from);`,
      );
    }
    for (const to of [SERVER, SERVER_V6]) {
      await until(
        async () => (await net.run(client, ["ping", "-c", "1", "-W", "1", to])).success,
        `${to} is reached`,
      );
    }
    const figures: Figures = {};
    for (const mix of MIXES) figures[mix.name] = await bytesOfMix(net, client, mix);
    if (isWithoutTcp) return figures;
    await withoutOffloads(net, client);
    // Slow enough for segments to come one by one, so that every second is acknowledged.
    const before = await sent(net, client), wire = await onTheWire(net, client);
    const down = await iperf(net, client, SECONDS, ["-R", "-b", "8M", "--pacing-timer", "1000"]);
    const after = await sent(net, client), wireAfter = await onTheWire(net, client);
    const up = after.bytes - before.bytes, acknowledgments = after.packets - before.packets;
    figures["TCP acknowledgments, IPv4"] = up / acknowledgments;
    figures["full segments, bytes on the cable a TCP byte"] = (wireAfter.bytes - wire.bytes - up) /
      down.sum_received.bytes;
    console.error(`${end.name}: ${acknowledgments} acknowledgments of ${down.sum_received.bytes} bytes`);
    return figures;
  } finally {
    await net.close();
  }
}

const ends = [
  ours("elided", "[headers]\nbulk = true\n", []),
  ours("ROHC", '[headers]\nmethods = ["rohc"]\n', ["--rohc"]),
  ours("all headers", "", ["--no-header-compression"]),
  wireguard,
];
const columns: Figures[] = [];
for (const end of ends) {
  console.error(end.name);
  columns.push(await measure(end));
}
const rows = Object.keys(columns[0]).map((name) => {
  const values = columns.map((figures) => figures[name]);
  const digits = values[0] < 10 ? 3 : 1;
  return `| ${name} | ${values.map((value) => value.toFixed(digits)).join(" | ")} | ${
    (values[0] / values[3]).toFixed(2)
  } | ${(values[1] / values[3]).toFixed(2)} |`;
});
const table = [
  `| bytes on the cable a packet | ${
    ends.map(({ name }) => name).join(" | ")
  } | elided to wireguard-go | ROHC |`,
  `|---|${"---|".repeat(ends.length + 2)}`,
  ...rows,
].join("\n");
console.log(table);
await Deno.mkdir("bench/results", { recursive: true });
await Deno.writeTextFile("bench/results/bytes.md", `${table}\n`);
