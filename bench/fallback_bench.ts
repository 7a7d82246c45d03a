/**
 * `deno task bench:fallback [--quick]` (root): what the fallback over TLS costs in latency. A game's flow, 64 packets of
 * 60 bytes a second each way, through a relay in network namespaces, over UDP and over TLS, while the path between them
 * loses nothing, 1 % and 3 % of the packets in each direction. Prints one table; asserts no time.
 */
import { parseArgs } from "@std/cli";
import { makeCertificate } from "../tests/kit/certificate.ts";
import { Network, SERVER } from "../tests/kit/namespaces.ts";

const args = parseArgs(Deno.args, { boolean: ["quick"] });
const SECONDS = args.quick ? 5 : 30;
const LOSSES_PERCENT = [0, 1, 3];
/** UDP payload of an inner packet of 60 bytes. */
const PAYLOAD_BYTES = 32;
const PORT = 7777;

const ECHO = `
const socket = Deno.listenDatagram({ transport: "udp", hostname: "${SERVER}", port: ${PORT} });
console.log("ready");
for (;;) {
  const [data, from] = await socket.receive(new Uint8Array(2048));
  await socket.send(data, from);
}`;

/** Sends the flow and prints the round trips in milliseconds, those that came in a second, sorted. */
const GAME = `
const count = 64 * ${SECONDS}, gapMs = 1000 / 64;
const socket = Deno.listenDatagram({ transport: "udp", hostname: "0.0.0.0", port: 0 });
const sentMs = new Float64Array(count), found = [];
(async () => {
  for (;;) {
    const [data] = await socket.receive(new Uint8Array(2048));
    found.push(performance.now() - sentMs[new DataView(data.buffer).getUint32(0)]);
  }
})().catch(() => {});
const startMs = performance.now();
for (let i = 0; i < count; i++) {
  const waitMs = startMs + i * gapMs - performance.now();
  if (waitMs > 0) await new Promise((resolve) => setTimeout(resolve, waitMs));
  const data = new Uint8Array(${PAYLOAD_BYTES});
  new DataView(data.buffer).setUint32(0, i);
  sentMs[i] = performance.now();
  await socket.send(data, { transport: "udp", hostname: "${SERVER}", port: ${PORT} });
}
await new Promise((resolve) => setTimeout(resolve, 1000));
console.log(JSON.stringify({ count, found: found.sort((a, b) => a - b) }));
Deno.exit(0);`;

/** What the relay's side of the path lets through. */
async function setPath(net: Network, lossPercent: number, isUdpBlocked: boolean): Promise<void> {
  const lose = lossPercent === 0 ? "" : `numgen random mod 1000 < ${10 * lossPercent} drop;`;
  const block = isUdpBlocked ? "udp dport 4433 drop;" : "";
  const chain = (hook: string, side: string) =>
    `chain ${hook} { type filter hook ${hook} priority 0; ${block} ` +
    `udp ${side} 4433 jump lose; tcp ${side} 443 jump lose; }`;
  await net.must("relay", ["nft", "-f", "-"], {
    input: `table inet path
delete table inet path
table inet path {
  chain lose { ${lose} }
  ${chain("input", "dport")}
  ${chain("output", "sport")}
}
`,
  });
}

async function play(net: Network, client: string): Promise<string[]> {
  const { count, found } = JSON.parse(await net.script(client, GAME, SECONDS + 20)) as {
    count: number;
    found: number[];
  };
  const at = (share: number) =>
    `${found[Math.min(found.length - 1, Math.floor(share * found.length))].toFixed(1)}`;
  return [at(0.5), at(0.99), at(1), `${(100 * (1 - found.length / count)).toFixed(1)} %`];
}

async function main(): Promise<void> {
  const net = await Network.open();
  try {
    const client = await net.client(2);
    const { certificate, privateKey } = await makeCertificate(net.directory, "relay.test");
    await net.relay(
      `exit = "tun"\n[destinations]\nallow = ["10.200.0.0/24"]\n[fallback]\nlisten = "0.0.0.0:443"\n` +
        `certificate = "${certificate}"\nprivate_key = "${privateKey}"\n`,
    );
    const file = `${net.directory}/player.conf`;
    await Deno.writeTextFile(file, await net.addPeer("player", undefined, ["--oxtunnel"]));
    await net.server("server", ECHO);
    console.log(
      "| path | loss each way | p50 ms | p99 ms | most ms | packets lost |\n|---|---|---|---|---|---|",
    );
    for (const path of ["UDP", "TLS"]) {
      await setPath(net, 0, path === "TLS");
      const connect = await net.connect(client, ["--config", file]);
      for (const loss of LOSSES_PERCENT) {
        await setPath(net, loss, path === "TLS");
        console.log(`| ${[path, `${loss} %`, ...await play(net, client)].join(" | ")} |`);
      }
      if (connect.said.includes("goes over TLS") !== (path === "TLS")) throw new Error(connect.said);
      await setPath(net, 0, path === "TLS");
      await connect.stop("SIGINT");
    }
  } finally {
    await net.close();
  }
}

await main();
