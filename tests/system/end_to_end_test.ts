/**
 * The relay as a stranger would use it: `serve`, `peer add`, and Debian's wireguard-go with the configuration
 * that was printed, in network namespaces. Each test makes and removes its own network.
 */
import { assert, assertEquals, assertGreater, assertMatch, assertStringIncludes } from "@std/assert";
import { IO_WAYS } from "../../src/config.ts";
import { requires } from "../kit/requires.ts";
import {
  type Background,
  type Network,
  networkTest,
  pause,
  RELAY,
  SERVER,
  SERVER_V6,
  until,
} from "../kit/namespaces.ts";

const needs = requires({
  root: true,
  programs: ["ip", "nft", "wg", "wg-quick", "wireguard-go", "iperf3", "ping"],
});

const OPEN = `[destinations]\nallow = ["10.200.0.0/24", "fd00:200::/64"]\n`;
const TUN = `exit = "tun"\n${OPEN}`;
const USERSPACE = `exit = "userspace"\n${OPEN}`;

interface Options {
  env?: Record<string, string>;
  /** The client's way to the relay, where it is not the usual one. */
  endpoint?: string;
  /** The ways to move datagrams that it is run with; all of them unless it takes long and asks little of the port. */
  ways?: readonly (typeof IO_WAYS)[number][];
}

/** One relay, one client, with both sets of kernels and every port; the rest is the test's. */
function scenario(
  name: string,
  config: string,
  body: (net: Network, client: string, relay: Background) => Promise<void>,
  { env, endpoint, ways = IO_WAYS }: Options = {},
) {
  for (const io of ways) {
    const engine = `kernels = "${io === "portable" ? "portable" : "native"}"\nio = "${io}"\n`;
    networkTest(`${io}: ${name}`, needs, async (net) => {
      const client = await net.client(2);
      const relay = await net.relay(engine + config, env);
      assertStringIncludes(relay.said, io === "portable" ? "/udp (WireGuard and OxTunnel)" : `/udp (${io}`);
      await net.wireguard(client, await net.addPeer("phone", endpoint));
      await body(net, client, relay);
    });
  }
}

async function ping(net: Network, client: string, target: string, more: string[] = []) {
  return await net.run(client, ["ping", "-c", "2", "-i", "0.2", "-W", "2", ...more, target]);
}

const ECHO = `
for (const hostname of ["${SERVER}", "${SERVER_V6}"]) (async () => {
  const socket = Deno.listenDatagram({ transport: "udp", hostname, port: 7777 });
  for (;;) {
    const [data, from] = await socket.receive(new Uint8Array(65536));
    const seen = new TextEncoder().encode(from.port + " ");
    const answer = new Uint8Array(seen.length + data.length);
    answer.set(seen);
    answer.set(data, seen.length);
    await socket.send(answer, from);
  }
})();
console.log("ready");`;

/** Asks the echo from a fixed port; prints "PORT LENGTH WORD" of the answer, or "silence". */
function ask(word: string, length: number, hostname = SERVER, port = 5353): string {
  return `
const socket = Deno.listenDatagram({ transport: "udp", hostname: "${
    hostname.includes(":") ? "::" : "0.0.0.0"
  }", port: ${port} });
const data = new Uint8Array(${length});
data.set(new TextEncoder().encode("${word} "));
for (let i = 0; i < 3; i++) {
  await socket.send(data, { transport: "udp", hostname: "${hostname}", port: 7777 });
  const got = await Promise.race([socket.receive(new Uint8Array(65536)), new Promise((r) => setTimeout(r, 1500))]);
  if (!got) continue;
  const text = new TextDecoder().decode(got[0]);
  console.log(text.split(" ")[0], got[0].length, text.split(" ")[1]);
  Deno.exit();
}
console.log("silence");
Deno.exit();`;
}

/** Bytes that iperf3 brought through in 2 s. Once in hundreds of runs its own end has no sums, without an error: then it runs again. */
async function received(net: Network, client: string, mode: string[]): Promise<number> {
  let text = "";
  for (let i = 0; i < 3; i++) {
    text = await net.must(client, ["iperf3", "-J", "-c", SERVER, "-t", "2", ...mode]);
    const { end } = JSON.parse(text);
    const sum = end.sum_received ?? end.sum;
    if (sum !== undefined) return sum.bytes;
  }
  throw new Error(`iperf3 ${mode.join(" ")} gives no sums: ${text}`);
}

scenario(
  "tun: ping, TCP and UDP both ways, and a megabyte that arrives whole",
  TUN,
  async (net, client) => {
    for (const target of ["10.66.0.1", SERVER, SERVER_V6]) {
      const { success, stdout } = await ping(net, client, target);
      assert(success, stdout);
    }
    await net.iperf("server");
    for (const mode of [[], ["-R"], ["-u", "-b", "5M"], ["-u", "-b", "5M", "-R"]]) {
      assertGreater(await received(net, client, mode), 100_000, mode.join(" "));
    }
    await net.server(
      "server",
      `
const listener = Deno.listen({ hostname: "${SERVER}", port: 8888 });
(async () => { for await (const c of listener) c.readable.pipeTo(c.writable).catch(() => {}); })();
console.log("ready");`,
    );
    const verdict = await net.script(
      client,
      `
const sent = new Uint8Array(1 << 20);
for (let i = 0; i < sent.length; i += 65536) crypto.getRandomValues(sent.subarray(i, i + 65536));
const c = await Deno.connect({ hostname: "${SERVER}", port: 8888 });
const digest = async (b) => new Uint8Array(await crypto.subtle.digest("SHA-256", b)).join();
const writing = (async () => { for (let at = 0; at < sent.length;) at += await c.write(sent.subarray(at)); })();
const got = new Uint8Array(sent.length);
for (let at = 0; at < got.length;) at += await c.read(got.subarray(at)) ?? got.length;
await writing;
console.log(got.length, await digest(got) === await digest(sent));`,
    );
    assertEquals(verdict.trim(), `${1 << 20} true`);
  },
);

scenario("tun: packets up to the MTU pass whole, larger ones in fragments", TUN, async (net, client) => {
  assert((await ping(net, client, SERVER, ["-M", "do", "-s", "1392"])).success);
  assert(!(await ping(net, client, SERVER, ["-M", "do", "-s", "1393"])).success);
  assert((await ping(net, client, SERVER, ["-M", "dont", "-s", "4000"])).success);
});

scenario(
  "tun: the destination policy holds, and each opening opens just itself",
  TUN,
  async (net, client) => {
    await net.ip("relay", ["addr", "add", "10.200.9.1/32", "dev", "lo"]);
    for (const target of ["10.200.9.1", RELAY, "169.254.169.254", "192.168.1.1", "100.64.0.1"]) {
      // The relay's outer address is routed outside the tunnel; through it the ping must go by the device.
      const { success, stdout } = await ping(net, client, target, ["-I", net.device(client)]);
      assert(!success, `${target} was reached: ${stdout}`);
    }
    const { stdout } = await ping(net, client, "192.168.1.1");
    assertStringIncludes(stdout, "Packet filtered");
    assertGreater((await net.status()).drops.denied, 5);
  },
);

for (const [exit, config] of [["tun", TUN], ["userspace", USERSPACE]]) {
  scenario(
    `${exit}: two clients are kept apart, and asking from one port get their own answers`,
    config,
    async (net, first) => {
      const second = await net.client(3);
      await net.wireguard(second, await net.addPeer("laptop"));
      await net.server("server", ECHO);
      const [a, b] = await Promise.all([
        net.script(first, ask("first", 100)),
        net.script(second, ask("second", 100)),
      ]);
      assertMatch(a, /^\d+ 10\d first/);
      assertMatch(b, /^\d+ 10\d second/);
      assertEquals((await ping(net, first, "10.66.0.3")).success, false);
    },
  );
}

scenario(
  "userspace: UDP of both families and in fragments, a quick refusal for TCP to a closed port",
  USERSPACE,
  async (net, client) => {
    await net.server("server", ECHO);
    assertMatch(await net.script(client, ask("small", 20)), /^5353 25 small/);
    assertMatch(await net.script(client, ask("six", 20, SERVER_V6)), /^\d+ 2\d six/);
    assertMatch(await net.script(client, ask("large", 5000)), /^5353 5005 large/);
    const { success, stderr } = await net.run(client, ["bash", "-c", `exec 3<>/dev/tcp/${SERVER}/22`]);
    assert(!success);
    assertStringIncludes(stderr, "refused");
    for (const target of ["192.168.1.1", "169.254.169.254", "100.64.0.1"]) {
      assertEquals((await ping(net, client, target)).success, false, target);
    }
  },
);

scenario(
  "userspace: ping through ping sockets, once the system allows them",
  USERSPACE,
  async (net, client) => {
    assertStringIncludes((await ping(net, client, SERVER)).stdout, "Packet filtered");
  },
);

scenario("roaming: the session follows the client to a new address", TUN, async (net, client) => {
  assert((await ping(net, client, SERVER)).success);
  await net.ip(client, ["addr", "add", "10.201.0.77/24", "dev", "eth0"]);
  await net.ip(client, ["addr", "del", "10.201.0.2/24", "dev", "eth0"]);
  await net.ip(client, ["addr", "add", "10.201.0.77/24", "dev", "eth0"]).catch(() => {});
  // wireguard-go itself needs a moment to let go of its old source address.
  await until(
    async () => (await ping(net, client, SERVER)).success,
    "the client is heard from its new address",
  );
  const { counters, peers } = await net.status();
  assertStringIncludes(peers[0].endpoint ?? "", "10.201.0.77:");
  assertEquals(counters.roamed, 1);
}, { ways: ["portable", "mmsg"] });

scenario("rekey: traffic outlives many key epochs", TUN, async (net, client) => {
  assert((await ping(net, client, SERVER)).success);
  // Silence after its answers makes the relay start a handshake; as the initiator it then keeps its own, shortened time.
  await pause(2000);
  const { success, stdout } = await net.run(client, ["ping", "-c", "100", "-i", "0.2", SERVER], {
    timeoutS: 60,
  });
  assert(success);
  const lost = Number(/(\d+)% packet loss/.exec(stdout)?.[1]);
  assert(lost <= 5, stdout);
  assertGreater((await net.status()).counters.handshakes_completed, 3);
}, { env: { OXRELAY_TEST_TIME_SCALE: "40" }, ways: ["portable", "mmsg"] });

scenario("removal: a removed peer is cut by the running relay", TUN, async (net, client) => {
  assert((await ping(net, client, SERVER)).success);
  await net.changePeer(["remove", "phone"]);
  await until(async () => (await net.status()).peers.length === 0, "the relay has forgotten it");
  assertEquals((await ping(net, client, SERVER)).success, false);
}, { ways: ["portable", "mmsg"] });

networkTest(
  "life: first run, a second serve, SIGHUP, kill -9 and SIGTERM leave the host as it was",
  needs,
  async (net) => {
    const rules = async () => (await net.must("relay", ["nft", "list", "ruleset"])).trim();
    await net.must("relay", ["nft", "-f", "-"], {
      input: "table inet other {\n chain c {\n type filter hook input priority 0;\n }\n}\n",
    });
    // A new namespace takes this from the host.
    await net.must("relay", ["sysctl", "-qw", "net.ipv4.ip_forward=0"]);
    const before = await rules();
    const relay = await net.relay(TUN);
    const key = await Deno.stat(`${net.directory}/state/private.key`);
    assertEquals(key.mode! & 0o777, 0o600);
    await assertRejectsSecond(net);
    const forwarding = ["cat", "/proc/sys/net/ipv4/ip_forward"];
    assertEquals((await net.must("relay", forwarding)).trim(), "1");

    await Deno.writeTextFile(`${net.directory}/oxrelay.toml`, `max_connections = 7\nmtu = 1400\n${TUN}`);
    relay.child.kill("SIGHUP");
    await relay.says("reloaded");
    assertMatch(relay.said, /changed max_connections; mtu need a restart/);

    await relay.stop("SIGKILL");
    assert(await rules() !== before, "a killed relay cannot have cleaned up");
    const again = await net.relay(TUN);
    // Twice, as npx and the task runner pass it on.
    again.child.kill("SIGTERM");
    await again.says("stopping");
    assertEquals(await again.stop("SIGTERM"), 0);
    assertEquals(await rules(), before);
    assertEquals((await net.must("relay", forwarding)).trim(), "0", "the setting of before");
    assertEquals((await net.run("relay", ["ip", "link", "show", "oxrelay0"])).success, false);
  },
);

async function assertRejectsSecond(net: Network): Promise<void> {
  const error = await net.relay(TUN).then(() => undefined, (reason: Error) => reason);
  assertMatch(error?.message ?? "", /UDP \[::\]:4433 is taken/);
}

networkTest("restart: clients come back by themselves after the relay was killed", needs, async (net) => {
  const client = await net.client(2);
  const relay = await net.relay(TUN);
  await net.wireguard(client, await net.addPeer("phone"));
  assert((await ping(net, client, SERVER)).success);
  await relay.stop("SIGKILL");
  await net.relay(TUN);
  await until(async () => (await ping(net, client, SERVER)).success, "the client is back", 60_000);
});

scenario("outer IPv6: a client whose endpoint is IPv6 is served the same", TUN, async (net, client) => {
  for (const target of [SERVER, SERVER_V6]) assert((await ping(net, client, target)).success, target);
  assertStringIncludes((await net.status()).peers[0].endpoint ?? "", "[fd00:201::2]:");
}, { endpoint: "[fd00:201::1]:4433" });

networkTest(
  "flood: under five seconds of sound-looking initiations a real client still gets in by its cookie",
  needs,
  async (net) => {
    const attacker = await net.client(66);
    const client = await net.client(2);
    await net.relay(TUN);
    const configuration = await net.addPeer("phone");
    const publicKey = /^PublicKey = (.*)$/m.exec(configuration)![1];
    // Right type, length and MAC1, noise in between: what costs a relay an X25519 unless it asks for cookies.
    const hashes = new URL("../../src/codec/hash.ts", import.meta.url).href;
    const cookies = new URL("../../src/session/cookie.ts", import.meta.url).href;
    const flood = net.script(
      attacker,
      `
import { mac } from "${hashes}";
import { mac1Key } from "${cookies}";
const key = mac1Key(Uint8Array.fromBase64("${publicKey}"));
const socket = Deno.listenDatagram({ transport: "udp", hostname: "0.0.0.0", port: 0 });
const message = new Uint8Array(148);
crypto.getRandomValues(message);
message.set([1, 0, 0, 0]);
message.set(mac(key, message.subarray(0, 116)), 116);
for (const end = Date.now() + 5000; Date.now() < end;) {
  for (let i = 0; i < 20; i++) await socket.send(message, { transport: "udp", hostname: "${RELAY}", port: 4433 });
  await new Promise((r) => setTimeout(r, 5));
}
Deno.exit();`,
    );
    await until(async () => (await net.status()).counters.under_load === 1, "the relay is under load");
    await net.wireguard(client, configuration);
    // wireguard-go repeats its handshake after 5 s, then with the cookie.
    await until(async () => (await ping(net, client, SERVER)).success, "the client is in", 25_000);
    await flood;
    const { counters, drops } = await net.status();
    assertGreater(counters.cookie_replies_sent, 100);
    assert(drops.handshake_failed < counters.handshake_initiations / 2, "most of the flood cost no X25519");
  },
);
