/**
 * `connect --priority app=NAME:CLASS` with a real program of that name, through a device and through the SOCKS proxy:
 * its packets have the class at both ends while its sockets live. Each test makes and removes its own network.
 */
import { assert, assertEquals, assertGreater } from "@std/assert";
import { requires } from "../kit/requires.ts";
import { type Background, type Network, networkTest, SERVER, until } from "../kit/namespaces.ts";

const NAME = "ourgame";
const CLIENT_PORT = 41_999;
const needs = requires({ root: true, programs: ["ip", "nft", "iperf3", "sh", "setpriv"] });

const config = (exit: string) => `dns = []\nexit = "${exit}"\n[destinations]\nallow = ["10.200.0.0/24"]\n`;

/** Packets of a class that the relay has counted, from its clients and to them. */
async function counted(net: Network, label: string): Promise<{ came: number; went: number }> {
  const { text } = await net.ask("/metrics");
  const of = (direction: string) => {
    const line = `oxrelay_class_packets_total{class="${label}",direction="${direction}"} `;
    return Number(text.split("\n").find((one) => one.startsWith(line))!.slice(line.length));
  };
  return { came: of("from_tunnel"), went: of("to_tunnel") };
}

/** Runs what is done, and says how many packets of the class it was. */
async function during(net: Network, label: string, act: () => Promise<unknown>) {
  const before = await counted(net, label);
  await act();
  const after = await counted(net, label);
  return { came: after.came - before.came, went: after.went - before.went };
}

async function connect(net: Network, client: string, args: string[], before = "exec"): Promise<Background> {
  const file = `${net.directory}/invitation`;
  await Deno.writeTextFile(file, await net.addPeer("laptop", undefined, ["--oxtunnel"]));
  const all = ["--config", file, "--priority", `app=${NAME}:voice`, "--json", ...args];
  return await net.connect(client, all, { before });
}

networkTest("app priority: a program's flows have their class while they last", needs, async (net) => {
  const client = await net.client(2);
  await net.relay(config("tun"));
  await net.iperf("server");
  const running = await connect(net, client, []);
  const copy = `${net.directory}/${NAME}`;
  await net.must(client, ["sh", "-c", `cp "$(command -v iperf3)" ${copy}`]);
  // Both ways, 50 packets a second, from a port that is chosen so that another program can have it later.
  const play = (program: string, seconds: number) => {
    const args = ["-c", SERVER, "-u", "-b", "40k", "-l", "100", "--bidir"];
    const all = [program, ...args, "-t", String(seconds), "--cport", String(CLIENT_PORT)];
    return net.must(client, all, { timeoutS: 25 });
  };
  const { came, went } = await during(net, "voice", () => play(copy, 6));
  // It takes a second or two until the sockets are seen and the relay has been told.
  assertGreater(came, 100, running.said);
  assertGreater(went, 100, running.said);
  const last = () => JSON.parse(running.said.trim().split("\n").filter((one) => one.startsWith("{")).at(-1)!);
  assertGreater(last().mixUp.voice.packets, 0.5, running.said);
  assertGreater(last().mixDown.voice.packets, 0.5);
  // Two seconds later its hints are gone: another program's packets of the same port are what they look like.
  await new Promise((resolve) => setTimeout(resolve, 3000));
  const other = await during(net, "voice", () => play("iperf3", 4));
  assertEquals(other, { came: 0, went: 0 }, running.said);
});

/** Sends through the SOCKS proxy, 50 datagrams a second for 6 s, and a TCP connection beside; each is answered. */
const PROGRAM = `
const take = async (c, count) => {
  const bytes = new Uint8Array(count);
  for (let at = 0; at < count;) at += await c.read(bytes.subarray(at)) ?? Infinity;
  return bytes;
};
const ask = async (command, port) => {
  const c = await Deno.connect({ hostname: "127.0.0.1", port: 1080 });
  await c.write(Uint8Array.of(5, 1, 0));
  await take(c, 2);
  await c.write(Uint8Array.of(5, command, 0, 1, 10, 200, 0, 2, port >> 8, port & 255));
  return [c, await take(c, 10)];
};
const [control, where] = await ask(3, 0);
const [tcp] = await ask(1, 8888);
const socket = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
const to = { transport: "udp", hostname: "127.0.0.1", port: where[8] << 8 | where[9] };
let answers = 0;
(async () => { for await (const _ of socket) answers++; })();
let lines = 0;
for (let i = 0; i < 300; i++) {
  await socket.send(Uint8Array.of(0, 0, 0, 1, 10, 200, 0, 2, 7777 >> 8, 7777 & 255, ...new Uint8Array(100)), to);
  if (i % 10 === 0) {
    await tcp.write(new TextEncoder().encode("hello"));
    await take(tcp, 5);
    lines++;
  }
  await new Promise((resolve) => setTimeout(resolve, 20));
}
console.log(JSON.stringify({ answers, lines }));
Deno.exit();`;

const ECHO = `
const tcp = Deno.listen({ hostname: "${SERVER}", port: 8888 });
(async () => { for await (const c of tcp) c.readable.pipeTo(c.writable).catch(() => {}); })();
const udp = Deno.listenDatagram({ transport: "udp", hostname: "${SERVER}", port: 7777 });
(async () => { for await (const [data, from] of udp) await udp.send(data, from); })();
console.log("ready");`;

networkTest("app priority: through the proxy, by who is on the other side of it", needs, async (net) => {
  const client = await net.client(2);
  await net.relay(config("userspace"));
  await net.server("server", ECHO);
  const bare = "exec setpriv --bounding-set=-all --inh-caps=-all --no-new-privs";
  const running = await connect(net, client, ["--socks", "1080"], bare);
  const script = `${net.directory}/program.ts`, program = `${net.directory}/${NAME}`;
  await Deno.writeTextFile(script, PROGRAM);
  await net.must(client, ["ln", "-s", Deno.execPath(), program]);
  const play = async (name: string) => {
    // A process may look at another's descriptors only if it may do all that the other may.
    const command = `${bare} ${name} run --quiet --unstable-net --allow-net ${script}`;
    return JSON.parse(await net.must(client, ["sh", "-c", command], { timeoutS: 30 }));
  };
  let said = { answers: 0, lines: 0 };
  const { came, went } = await during(net, "voice", async () => said = await play(program));
  assert(said.answers > 290 && said.lines === 30, JSON.stringify(said));
  assertGreater(came, 150, running.said);
  assertGreater(went, 150, running.said);
  const other = await during(net, "voice", () => play(Deno.execPath()));
  assertEquals(other, { came: 0, went: 0 });
  await until(() => running.said.includes('"mixUp"'), "it says the mix");
});
