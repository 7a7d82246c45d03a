/**
 * `connect --paths` between real processes: a client with two interfaces that lead to the relay, a game over both, and each of the
 * ways in which one of them dies. Counted is what never came; nothing is timed. Each test makes and removes its own network.
 */
import { assert, assertEquals, assertGreater, assertStringIncludes } from "@std/assert";
import { type Arrivals, type FlowPlan, runFlow, startFarEnd } from "../kit/flow.ts";
import {
  type Background,
  type Network,
  networkTest,
  pause,
  RELAY,
  SERVER,
  until,
} from "../kit/namespaces.ts";
import { requires } from "../kit/requires.ts";
import { WORKLOADS } from "../kit/workloads.ts";

const OPEN = `dns = []\nexit = "tun"\n[destinations]\nallow = ["10.200.0.0/24", "10.200.0.2/32"]\n`;
const NEEDS = requires({ root: true, programs: ["ip", "nft", "ping", "sh", "sysctl"] });
/** The relay has this address behind both interfaces. */
const FAR = "10.203.0.1:4433";
/** A port that games are known by. */
const GAME_PORT = 7777;
const SECONDS = 8;

/** A relay, and a client whose eth0 and eth1 lead to it. */
async function twoWays(net: Network): Promise<{ client: string; invitation: string }> {
  const client = await net.client(2);
  await net.ip("relay", "addr add 10.203.0.1/32 dev br0".split(" "));
  await net.ip("relay", `link add net2 type veth peer name eth1 netns ${net.namespace(client)}`.split(" "));
  await net.ip("relay", "addr add 10.202.0.1/24 dev net2".split(" "));
  await net.ip("relay", "link set net2 up".split(" "));
  await net.ip(client, "addr add 10.202.0.2/24 dev eth1".split(" "));
  await net.ip(client, "link set eth1 up".split(" "));
  await net.ip(client, `route add default via ${RELAY} metric 10`.split(" "));
  await net.ip(client, "route add default via 10.202.0.1 metric 20".split(" "));
  await net.relay(OPEN);
  const file = `${net.directory}/laptop.conf`;
  await Deno.writeTextFile(file, await net.addPeer("laptop", FAR, ["--oxtunnel"]));
  return { client, invitation: file };
}

interface SeenPath {
  endpoint?: string;
  isSilent: boolean;
}

/** How the relay sees the client's paths that answer, by their addresses. */
async function pathsOf(net: Network): Promise<string[]> {
  const { peers } = await net.status() as unknown as { peers: { paths?: SeenPath[] }[] };
  return (peers[0].paths ?? []).filter(({ isSilent }) => !isSilent).map(({ endpoint }) =>
    endpoint?.replace(/:\d+$/, "") ?? ""
  );
}

async function both(net: Network, running: Background): Promise<void> {
  const last = () =>
    JSON.parse(running.said.split("\n").slice(0, -1).findLast((line) => line.startsWith("{"))!);
  const isHere = () => ((last().paths ?? []) as SeenPath[]).filter(({ isSilent }) => !isSilent).length === 2;
  const is = async () => isHere() && (await pathsOf(net)).sort().join() === "10.201.0.2,10.202.0.2";
  await until(is, "the relay sees a path by each interface", 20_000).catch((error) => {
    throw new Error(`${error.message}: ${running.said}`);
  });
}

/** A game both ways, during which something happens; how many packets never came. */
async function game(
  net: Network,
  client: string,
  happening: () => Promise<void>,
): Promise<{ up: number; down: number }> {
  const plan = (end: string): FlowPlan => ({
    workload: WORKLOADS.game64,
    seconds: SECONDS,
    way: { transport: "udp", host: SERVER, port: GAME_PORT },
    file: `${net.directory}/${end}-${crypto.randomUUID()}.json`,
  });
  const farPlan = plan("far");
  const far = { server: await startFarEnd(net, "server", farPlan), file: farPlan.file };
  const flow = runFlow(net, client, plan("near"), far);
  await pause(SECONDS * 400);
  await happening();
  const { up, down } = await flow;
  const lost = ({ latencyUs }: Arrivals) => latencyUs.filter((us) => us === null).length;
  assertEquals([up.twice, down.twice], [0, 0], "nothing comes twice");
  assertGreater(Math.min(up.latencyUs.length, down.latencyUs.length), 60 * SECONDS);
  return { up: lost(up), down: lost(down) };
}

networkTest(
  "several paths: a game loses nothing whichever way one of two interfaces dies",
  NEEDS,
  async (net) => {
    const { client, invitation } = await twoWays(net);
    const running = await net.connect(client, ["--config", invitation, "--json", "--paths", "auto"]);
    await both(net, running);
    assertStringIncludes(running.said, "A path leads through eth0 and through eth1.");
    const handshakes = (await net.status()).counters.handshakes_completed;
    const deaths: [name: string, die: () => Promise<void>, live: () => Promise<void>][] = [
      [
        "its interface is taken down",
        () => net.ip(client, "link set eth0 down".split(" ")),
        async () => {
          await net.ip(client, "link set eth0 up".split(" "));
          await net.ip(client, `route add default via ${RELAY} metric 10`.split(" "));
        },
      ],
      [
        "nothing comes through any more, and nobody says so",
        () => net.ip("relay", "link set vc1 nomaster".split(" ")),
        () => net.ip("relay", "link set vc1 master br0".split(" ")),
      ],
      [
        "the second one, silently",
        () => net.ip("relay", "link set net2 down".split(" ")),
        () => net.ip("relay", "link set net2 up".split(" ")),
      ],
    ];
    for (const [name, die, live] of deaths) {
      const { up, down } = await game(net, client, die);
      assertEquals([up, down], [0, 0], `${name}: ${running.said.slice(-3000)}`);
      await live();
      await both(net, running);
    }
    const { counters } = await net.status();
    assertEquals(counters.handshakes_completed, handshakes, "no handshake was needed");
    const shown = JSON.parse(running.said.split("\n").slice(0, -1).findLast((line) => line.startsWith("{"))!);
    assertEquals(shown.paths.map(({ device }: { device: string }) => device), ["eth0", "eth1"]);
    assertGreater(counters.copies_useful, 0);
  },
);

networkTest(
  "several paths: without copies, packets are lost until the path is known to be dead",
  NEEDS,
  async (net) => {
    const { client, invitation } = await twoWays(net);
    const flags = [
      "--config",
      invitation,
      "--json",
      "--paths",
      "eth0,eth1",
      "--redundant",
      "none",
      "--no-repair",
    ];
    const running = await net.connect(client, flags);
    await both(net, running);
    // Each end has its packets on the path that it likes better, whichever that is.
    const first = await game(net, client, () => net.ip("relay", "link set vc1 nomaster".split(" ")));
    await net.ip("relay", "link set vc1 master br0".split(" "));
    await both(net, running);
    const second = await game(net, client, () => net.ip("relay", "link set net2 down".split(" ")));
    const lost = first.up + first.down + second.up + second.down;
    assert(lost > 2 && lost < 256, `${lost} lost`);
  },
);

networkTest(
  "several paths: an interface that comes later opens a path, and one that goes closes it",
  NEEDS,
  async (net) => {
    const { client, invitation } = await twoWays(net);
    await net.ip(client, "link set eth1 down".split(" "));
    await net.must(client, ["sysctl", "-w", "net.ipv4.conf.eth1.rp_filter=1"]);
    const flags = ["--config", invitation, "--json", "--paths", "auto", "--metered", "eth1"];
    const running = await net.connect(client, flags);
    const ping = async () => (await net.run(client, ["ping", "-c", "1", "-W", "1", SERVER])).success;
    assert(await ping());
    assertEquals(await pathsOf(net), []);
    await net.ip(client, "link set eth1 up".split(" "));
    await net.ip(client, "route add default via 10.202.0.1 metric 20".split(" "));
    // Linux drops what arrives there; the remedy is what it says.
    const remedy = "sysctl -w net.ipv4.conf.eth1.rp_filter=2";
    await until(() => running.said.includes(remedy), "it names the obstacle", 20_000);
    await net.must(client, remedy.split(" "));
    await both(net, running);
    assertStringIncludes(running.said, "eth1 (metered)");
    await net.ip(client, "link set eth1 down".split(" "));
    await until(async () => (await pathsOf(net)).length === 0, "one path is left", 20_000);
    assertStringIncludes(running.said, "No path leads through eth1 now.");
    assert(await ping());
  },
);

/** Whoever connects to TCP port 8888 is sent 400 KB/s until it has 3.2 MB, whose bytes count up. */
const SOURCE = `
const tcp = Deno.listen({ hostname: "${SERVER}", port: 8888 });
for await (const c of tcp) {
  (async () => {
    for (let i = 0; i < 80; i++) {
      const part = new Uint8Array(40_000).fill(i);
      for (let at = 0; at < part.length;) at += await c.write(part.subarray(at));
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    c.close();
  })().catch(() => {});
}`;
const SINK = `
const c = await Deno.connect({ hostname: "127.0.0.1", port: 8080 });
const part = new Uint8Array(65536);
let bytes = 0, isRight = true;
for (;;) {
  const n = await c.read(part);
  if (n === null) break;
  for (let i = 0; i < n; i++) if (part[i] !== (Math.floor((bytes + i) / 40_000) & 255)) isRight = false;
  bytes += n;
}
console.log(JSON.stringify({ bytes, isRight }));
Deno.exit();`;

networkTest(
  "several paths: a transfer without a device survives the death of an interface too",
  NEEDS,
  async (net) => {
    const { client, invitation } = await twoWays(net);
    await net.server("server", `${SOURCE.replace("for await", 'console.log("ready");\nfor await')}`);
    const flags = ["--config", invitation, "--json", "--paths", "auto", "-L", `8080:${SERVER}:8888`];
    const running = await net.connect(client, flags);
    await both(net, running);
    const transferred = net.script(client, SINK, 60);
    await pause(1500);
    await net.ip("relay", "link set vc1 nomaster".split(" "));
    assertEquals(JSON.parse(await transferred), { bytes: 3_200_000, isRight: true }, running.said);
  },
);

networkTest(
  "several paths: an interface that comes and goes more often than a session has numbers",
  NEEDS,
  async (net) => {
    const { client, invitation } = await twoWays(net);
    const running = await net.connect(client, ["--config", invitation, "--json", "--paths", "auto"]);
    const handshakes = (await net.status()).counters.handshakes_completed;
    for (let i = 0; i < 9; i++) {
      await both(net, running);
      await net.ip(client, "link set eth1 down".split(" "));
      await until(async () => (await pathsOf(net)).length === 0, "one path is left", 20_000);
      await net.ip(client, "link set eth1 up".split(" "));
      await net.ip(client, "route add default via 10.202.0.1 metric 20".split(" "));
    }
    await both(net, running);
    assertEquals(
      (await net.status()).counters.handshakes_completed,
      handshakes + 1,
      "one new session was enough",
    );
  },
);
