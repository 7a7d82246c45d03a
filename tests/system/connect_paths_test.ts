/**
 * `connect` as root while paths, relays and networks fail under a transfer: an uplink that is taken down, a relay that is
 * killed and started again, one of two relays that stays away, one whose
 * name leads elsewhere. Each test makes and removes its own network.
 */
import { assert, assertEquals, assertGreater, assertStringIncludes } from "@std/assert";
import { requires } from "../kit/requires.ts";
import {
  type Background,
  type Network,
  networkTest,
  pause,
  RELAY,
  SERVER,
  until,
} from "../kit/namespaces.ts";

const OPEN = `dns = []\nexit = "tun"\n[destinations]\nallow = ["10.200.0.0/24", "10.200.0.2/32"]\n`;
const needs = requires({ root: true, programs: ["ip", "nft", "ping", "sh"] });

/** `connect` with an invitation, after the shell words of `before`; resolves when the tunnel is up. */
async function connect(
  net: Network,
  client: string,
  invitation: string,
  args: string[],
  before = "exec",
): Promise<Background> {
  const file = `${net.directory}/invitation`;
  await Deno.writeTextFile(file, invitation);
  return await net.connect(client, ["--config", file, "--json", ...args], { before });
}

/** What `connect --json` has said so far, a line a second. */
function statuses(running: Background): Record<string, unknown>[] {
  return running.said.split("\n").slice(0, -1).filter((line) => line.startsWith("{")).map((line) =>
    JSON.parse(line)
  );
}

/** Whoever connects to TCP port 8888 is sent 400 KB/s until it has 8 MB, whose bytes count up. */
const SOURCE = `
const tcp = Deno.listen({ hostname: "${SERVER}", port: 8888 });
(async () => {
  for await (const c of tcp) {
    (async () => {
      for (let i = 0; i < 200; i++) {
        const part = new Uint8Array(40_000).fill(i);
        for (let at = 0; at < part.length;) at += await c.write(part.subarray(at));
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      c.close();
    })().catch(() => {});
  }
})();
console.log("ready");`;

/** Takes it and prints how many bytes came, whether all were right, and the longest pause in milliseconds. */
const SINK = `
const c = await Deno.connect({ hostname: "${SERVER}", port: 8888 });
const part = new Uint8Array(65536);
let bytes = 0, isRight = true, lastMs = performance.now(), pauseMs = 0;
for (;;) {
  const n = await c.read(part);
  if (n === null) break;
  for (let i = 0; i < n; i++) if (part[i] !== (Math.floor((bytes + i) / 40_000) & 255)) isRight = false;
  bytes += n;
  const nowMs = performance.now();
  pauseMs = Math.max(pauseMs, nowMs - lastMs);
  lastMs = nowMs;
}
console.log(JSON.stringify({ bytes, isRight, pauseMs: Math.round(pauseMs) }));
Deno.exit();`;

async function transfer(
  net: Network,
  client: string,
): Promise<{ bytes: number; isRight: boolean; pauseMs: number }> {
  return JSON.parse(await net.script(client, SINK, 60));
}

networkTest("connect: a transfer survives that its uplink is taken down", needs, async (net) => {
  const client = await net.client(2);
  await net.relay(OPEN);
  const invitation = await net.addPeer("laptop", undefined, ["--oxtunnel"]);
  await net.server("server", SOURCE);
  // The relay has an address behind both uplinks.
  await net.ip("relay", "addr add 10.203.0.1/32 dev br0".split(" "));
  await net.ip("relay", `link add net2 type veth peer name eth1 netns ${net.namespace(client)}`.split(" "));
  await net.ip("relay", "addr add 10.202.0.1/24 dev net2".split(" "));
  await net.ip("relay", "link set net2 up".split(" "));
  await net.ip(client, "addr add 10.202.0.2/24 dev eth1".split(" "));
  await net.ip(client, "link set eth1 up".split(" "));
  await net.ip(client, `route add default via ${RELAY} metric 10`.split(" "));
  await net.ip(client, "route add default via 10.202.0.1 metric 20".split(" "));
  const running = await connect(net, client, invitation, ["--server", "10.203.0.1:4433"]);
  const endpoint = async () => (await net.status()).peers[0].endpoint!;
  assertStringIncludes(await endpoint(), "10.201.0.2");
  const handshakes = (await net.status()).counters.handshakes_completed;
  const transferred = transfer(net, client);
  await pause(3000);
  await net.ip(client, "link set eth0 down".split(" "));
  const { bytes, isRight, pauseMs } = await transferred;
  assertEquals([bytes, isRight], [8_000_000, true], running.said);
  assertStringIncludes(await endpoint(), "10.202.0.2");
  assertStringIncludes(running.said, "The network changed; the session goes on.");
  assertEquals(
    (await net.status()).counters.handshakes_completed,
    handshakes,
    "by a move, not by a handshake",
  );
  console.log(`the transfer stood for ${pauseMs} ms`);
});

networkTest("connect: a transfer survives that the relay is killed and started again", needs, async (net) => {
  const client = await net.client(2);
  const relay = await net.relay(OPEN);
  const invitation = await net.addPeer("laptop", undefined, ["--oxtunnel"]);
  await net.server("server", SOURCE);
  const running = await connect(net, client, invitation, []);
  const transferred = transfer(net, client);
  await pause(3000);
  await relay.stop("SIGKILL");
  const killedMs = performance.now();
  await until(() => statuses(running).at(-1)?.state === "silent", "the state is silent");
  const noticedMs = performance.now() - killedMs;
  await net.relay(OPEN);
  const startedMs = performance.now();
  await until(() => statuses(running).at(-1)?.state === "connected", "the tunnel is back");
  const backMs = performance.now() - startedMs;
  const { bytes, isRight, pauseMs } = await transferred;
  assertEquals([bytes, isRight], [8_000_000, true], running.said);
  console.log(
    `silent after ${Math.round(noticedMs)} ms, back ${
      Math.round(backMs)
    } ms after the start, stood ${pauseMs} ms`,
  );
});

/** Passes datagrams of UDP port 5000 on to 4433 and back, each 10 ms later. */
const DELAY = `
const outside = Deno.listenDatagram({ transport: "udp", hostname: "10.201.0.3", port: 5000 });
const to = { transport: "udp", hostname: "127.0.0.1", port: 4433 };
const inside = new Map();
const later = (send) => setTimeout(() => send().catch(() => {}), 10);
(async () => {
  for await (const [data, from] of outside) {
    const key = from.hostname + " " + from.port;
    let socket = inside.get(key);
    if (socket === undefined) {
      inside.set(key, socket = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 }));
      const mine = socket;
      (async () => {
        for await (const [answer] of mine) later(() => outside.send(answer, from));
      })();
    }
    const mine = socket;
    later(() => mine.send(data, to));
  }
})();
console.log("ready");`;

networkTest(
  "connect: of two relays the nearer is used, and the other when it is gone",
  needs,
  async (net) => {
    const client = await net.client(2);
    const near = await net.relay(OPEN);
    const invitation = await net.addPeer("laptop", undefined, ["--oxtunnel"]);
    await net.ip("relay", "addr add 10.203.0.1/32 dev br0".split(" "));
    await net.ip(client, `route add default via ${RELAY}`.split(" "));
    // A second relay of the same key and peers, in a namespace of its own, behind 20 ms and with a server of its own.
    const far = await net.client(3);
    await net.ip(far, "link add oxin type bridge".split(" "));
    await net.ip(far, `addr add ${SERVER}/32 dev oxin`.split(" "));
    await net.ip(far, "link set oxin up".split(" "));
    const second = await net.relay(OPEN, {}, far);
    await net.server(far, DELAY);
    const running = await connect(net, client, invitation, [
      "--server",
      "10.201.0.3:5000,10.203.0.1:4433",
      "--server",
      "10.201.0.9:4433",
    ]);
    // Who had no time to answer the first question is asked again.
    const rttsOf = ({ servers }: ReturnType<typeof statuses>[number]) =>
      (servers as { rttMs?: number }[]).map(({ rttMs }) => rttMs);
    const measured = () =>
      statuses(running).find((status) => rttsOf(status).slice(0, 2).every((rtt) => rtt !== undefined));
    await until(() => measured() !== undefined, "it says how far both are", 90_000);
    const first = measured()!, rtts = rttsOf(first);
    assertEquals([first.server, rtts[2]], ["10.203.0.1:4433", undefined], running.said);
    assertGreater(rtts[0]!, 19);
    assert(rtts[1]! < rtts[0]!);
    const ping = () => net.run(client, ["ping", "-c", "1", "-W", "1", SERVER]);
    await near.stop("SIGKILL");
    const killedMs = performance.now();
    await until(async () => (await ping()).success, "the other relay carries packets");
    const failedOverMs = performance.now() - killedMs;
    assertEquals(statuses(running).at(-1)!.server, "10.201.0.3:5000", running.said);
    assertStringIncludes(running.said, "From now on through 10.201.0.3:5000.");
    console.log(`failed over in ${Math.round(failedOverMs)} ms`);
    assertEquals(await running.stop("SIGINT"), 0);
    await second.stop("SIGTERM");
  },
);

networkTest("connect: a relay that has moved is found under its name", needs, async (net) => {
  const client = await net.client(2);
  await net.relay(OPEN);
  await net.ip("relay", "addr add 10.201.0.8/24 dev br0".split(" "));
  const invitation = await net.addPeer("laptop", "relay.test:4433", ["--oxtunnel"]);
  const hosts = `${net.directory}/hosts`;
  await Deno.writeTextFile(hosts, "10.201.0.8 relay.test\n");
  const running = await connect(net, client, invitation, [], `mount --bind ${hosts} /etc/hosts && exec`);
  const ping = async () => (await net.run(client, ["ping", "-c", "1", "-W", "1", SERVER])).success;
  assert(await ping(), running.said);
  await net.ip("relay", "addr del 10.201.0.8/24 dev br0".split(" "));
  await net.ip("relay", "addr add 10.201.0.7/24 dev br0".split(" "));
  await Deno.writeTextFile(hosts, "10.201.0.7 relay.test\n");
  await until(ping, "the tunnel leads to the new address", 15_000);
  await until(() => statuses(running).at(-1)?.state === "connected", "it says so", 3000);
  assertEquals(statuses(running).at(-1)!.address, "10.201.0.7", running.said);
});
