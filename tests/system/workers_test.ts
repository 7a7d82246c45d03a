/**
 * A relay of two Workers under real WireGuard clients: the kernel's steering brings every datagram and every packet for a
 * client to the Worker that owns it, roaming included; a Worker that dies is told and replaced while the other serves on.
 */
import { assert, assertEquals, assertGreater, assertStringIncludes } from "@std/assert";
import { ownerOf } from "../../src/session/peers.ts";
import { requires } from "../kit/requires.ts";
import { type Background, Network, SERVER, SERVER_V6, until } from "../kit/namespaces.ts";

const needs = requires({
  root: true,
  programs: ["ip", "nft", "wg", "wg-quick", "wireguard-go", "iperf3", "ping"],
});
const WORKERS = 2;
const CLIENTS_EACH = 2;
const CONFIG =
  `workers = ${WORKERS}\ncpus = [0, 1]\n[destinations]\nallow = ["10.200.0.0/24", "fd00:200::/64"]\n`;

interface Client {
  name: string;
  worker: number;
}

function scenario(
  name: string,
  config: string,
  body: (net: Network, clients: Client[], relay: Background) => Promise<void>,
  env = {},
) {
  Deno.test({
    name: `workers: ${name}`,
    ...needs,
    sanitizeResources: false,
    sanitizeOps: false,
    async fn() {
      const net = await Network.open();
      try {
        // For the userspace exit's pings.
        await net.must("relay", ["sysctl", "-qw", "net.ipv4.ping_group_range=0 0"]);
        const relay = await net.relay(config, env);
        const clients: Client[] = [];
        // Keys are random, and so are their owners: whoever has enough clients already gets no more.
        for (let i = 0; clients.length < WORKERS * CLIENTS_EACH; i++) {
          const configuration = await net.addPeer(`peer-${i}`);
          const { peers } = await net.status();
          const { publicKey } = peers.find(({ name }) => name === `peer-${i}`)!;
          const worker = ownerOf(Uint8Array.from(atob(publicKey), (c) => c.charCodeAt(0)), WORKERS);
          if (clients.filter((client) => client.worker === worker).length === CLIENTS_EACH) continue;
          const name = await net.client(2 + clients.length);
          await net.wireguard(name, configuration);
          clients.push({ name, worker });
        }
        await body(net, clients, relay);
      } finally {
        await net.close();
      }
    },
  });
}

async function reaches(net: Network, { name }: Client, target = SERVER): Promise<boolean> {
  return (await net.run(name, ["ping", "-q", "-c", "1", "-i", "0.2", "-w", "10", target])).success;
}

/** Sessions by the Worker that their receiver index names. */
async function sessionsByWorker(net: Network): Promise<number[]> {
  const sessions: { receiverIndex: number }[] = JSON.parse((await net.ask("/v1/sessions")).text);
  return Array.from(
    { length: WORKERS },
    (_, worker) => sessions.filter(({ receiverIndex }) => receiverIndex >>> 28 === worker).length,
  );
}

for (const exit of ["tun", "userspace"]) {
  scenario(
    `the kernel brings everything to its owner (${exit})`,
    `exit = "${exit}"\n${CONFIG}`,
    async (net, clients) => {
      for (const client of clients) {
        assert(await reaches(net, client) && await reaches(net, client, SERVER_V6), client.name);
      }
      assertEquals(await sessionsByWorker(net), [CLIENTS_EACH, CLIENTS_EACH]);
      const server = await net.iperf("server");
      let runs = 0;
      // It closes its port after each run, and says so each time it has opened it again.
      const isListening = () => server.said.split("Server listening").length > runs + 1;
      for (const { name } of clients) {
        for (const way of [[], ["-R"]]) {
          await until(isListening, "iperf3 listens");
          runs++;
          await net.must(name, ["iperf3", "-c", SERVER, "-n", "4M", "-P", "4", ...way], { timeoutS: 30 });
        }
      }
      const { name } = clients[0];
      await net.ip(name, ["addr", "add", "10.201.0.77/24", "dev", "eth0"]);
      await net.ip(name, ["addr", "del", "10.201.0.2/24", "dev", "eth0"]);
      await net.ip(name, ["addr", "add", "10.201.0.77/24", "dev", "eth0"]).catch(() => {});
      await until(() => reaches(net, clients[0]), "the client is heard from its new address");
      const { counters, drops, peers } = await net.status();
      assertEquals(counters.roamed, 1);
      assertEquals(counters.packets_handed_over, 0, "nothing came to the wrong Worker");
      assertEquals(drops.worker_full, 0);
      assertEquals(peers.filter(({ connected }) => connected).length, clients.length);
    },
  );
}

scenario(
  "one that dies is told and replaced, and the other's clients notice nothing",
  `exit = "tun"\n${CONFIG}`,
  async (net, clients, relay) => {
    for (const client of clients) assert(await reaches(net, client));
    const others = clients.filter(({ worker }) => worker === 1);
    const pings = others.map(({ name }) =>
      net.run(name, ["ping", "-q", "-c", "300", "-i", "0.1", SERVER], { timeoutS: 60 })
    );
    await until(
      async () => {
        const { status, text } = await net.ask("/healthz");
        return status === 503 && text.includes("relay worker 0 failed");
      },
      "the failure is told",
      30_000,
    );
    for (let i = 0; i < 4; i++) await net.addPeer(`meanwhile-${i}`);
    await relay.says("it runs again");
    await until(async () => (await net.ask("/healthz")).status === 200, "it is well again");
    const told = (await net.status()).peers.filter(({ name }) => name.startsWith("meanwhile"));
    assertEquals(told.length, 4, "what is told then is not lost");
    for (const { stdout } of await Promise.all(pings)) {
      assertStringIncludes(stdout, " 300 received, 0% packet loss");
    }
    for (const client of clients) {
      await until(() => reaches(net, client), `${client.name} is served again`, 60_000);
    }
    const sessions = await sessionsByWorker(net);
    assertGreater(Math.min(...sessions), 0);
    assertEquals(await relay.stop("SIGTERM"), 0);
    assertEquals((await net.run("relay", ["ip", "link", "show", "oxrelay0"])).success, false);
  },
  { OXRELAY_TEST_FAIL_AFTER_MS: "25000" },
);
