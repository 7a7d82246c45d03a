/**
 * What a relay says of its own health, against real faults: a device that is down or gone, a relay worker whose
 * thread is held still, and more clients than max_connections. Each fault is shown to clear again.
 */
import { assert, assertEquals, assertGreaterOrEqual, assertMatch, assertStringIncludes } from "@std/assert";
import { requires } from "../kit/requires.ts";
import { type Network, networkTest, SERVER, SERVER_V6, until } from "../kit/namespaces.ts";

const needs = requires({
  root: true,
  programs: ["ip", "nft", "wg", "wg-quick", "wireguard-go", "ping", "bash"],
});

const TUN = `exit = "tun"\n[destinations]\nallow = ["10.200.0.0/24", "fd00:200::/64"]\n`;

/** Waits until /healthz answers with this status; returns its reasons. */
async function health(net: Network, status: number): Promise<string[]> {
  let last = { status: 0, text: "" };
  await until(
    async () => {
      last = await net.ask("/healthz");
      return last.status === status;
    },
    `/healthz answers ${status}`,
    8000,
  );
  const { ok, reasons } = JSON.parse(last.text);
  assertEquals(ok, status === 200);
  return reasons;
}

/** Whether the target answers within 10 s. */
async function reaches(net: Network, client: string, target: string): Promise<boolean> {
  return (await net.run(client, ["ping", "-q", "-c", "1", "-i", "0.2", "-w", "10", target])).success;
}

networkTest(
  "health: a tun device that is down or gone is told, and forgotten once it is back",
  needs,
  async (net) => {
    const client = await net.client(2);
    const relay = await net.relay(TUN);
    await net.wireguard(client, await net.addPeer("phone"));
    assert(await reaches(net, client, SERVER));
    assertEquals(await health(net, 200), []);

    await net.ip("relay", ["link", "set", "oxrelay0", "down"]);
    assertEquals(await health(net, 503), ["the device oxrelay0 is down; ip link set oxrelay0 up"]);
    assertEquals((await net.ask("/readyz")).status, 503);
    await net.ip("relay", ["link", "set", "oxrelay0", "up"]);
    assertEquals(await health(net, 200), []);
    for (const target of [SERVER, SERVER_V6]) {
      assert(await reaches(net, client, target), `${target} after the device came back`);
    }

    await net.ip("relay", ["link", "del", "oxrelay0"]);
    assertEquals(await health(net, 503), ["the device oxrelay0 is gone; restart the relay"]);
    assertEquals(await relay.stop("SIGTERM"), 0);
    await net.relay(TUN);
    assertEquals(await health(net, 200), []);
    await until(() => reaches(net, client, SERVER), "the client is back", 30_000);
  },
);

/** Stops one thread for a given time, as a debugger does; the others run on. PTRACE_SEIZE, then INTERRUPT. */
const HOLD = `
const library = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib/aarch64-linux-gnu/libc.so.6"]
  .find((path) => path.includes(Deno.build.arch));
const { symbols } = Deno.dlopen(library, {
  ptrace: { parameters: ["i64", "i64", "usize", "usize"], result: "i64" },
});
const [thread, forMs] = Deno.args.map(Number);
for (const request of [0x4206, 0x4207]) {
  if (symbols.ptrace(BigInt(request), BigInt(thread), 0n, 0n) !== 0n) throw new Error("ptrace refused " + request);
}
console.log("held");
setTimeout(() => {}, forMs); // the end of the tracer lets go`;

networkTest(
  "health: a relay worker that stands still is told by the main thread, and recovers",
  needs,
  async (net) => {
    const client = await net.client(2);
    const relay = await net.relay(TUN);
    await net.wireguard(client, await net.addPeer("phone"));
    assert(await reaches(net, client, SERVER));
    const threads = `/proc/${relay.child.pid}/task`;
    const found = await net.must("relay", ["bash", "-c", `grep -l "^worker-" ${threads}/*/comm`]);
    const thread = /task\/(\d+)\/comm\n$/.exec(found)![1];

    await Deno.writeTextFile(`${net.directory}/hold.ts`, HOLD);
    const command = ["run", "--no-lock", "--allow-ffi", `${net.directory}/hold.ts`, thread, "6000"];
    const holder = net.spawn("relay", [Deno.execPath(), ...command]);
    await holder.says("held");
    const [reason, ...others] = await health(net, 503);
    assertMatch(reason, /^the relay worker's loop has stood still for [2-9]\d{3} ms$/);
    assertEquals(others, []);
    assertEquals((await net.ask("/readyz")).status, 503);
    assertEquals((await holder.child.status).code, 0);
    assertEquals(await health(net, 200), []);
    assert(await reaches(net, client, SERVER));
  },
);

networkTest(
  "health: SIGTERM ends a relay whose worker stands still, and undoes what it changed",
  needs,
  async (net) => {
    const relay = await net.relay(TUN);
    const threads = `/proc/${relay.child.pid}/task`;
    const found = await net.must("relay", ["bash", "-c", `grep -l "^worker-" ${threads}/*/comm`]);
    const thread = /task\/(\d+)\/comm\n$/.exec(found)![1];
    await Deno.writeTextFile(`${net.directory}/hold.ts`, HOLD);
    const command = ["run", "--no-lock", "--allow-ffi", `${net.directory}/hold.ts`, thread, "60000"];
    const holder = net.spawn("relay", [Deno.execPath(), ...command]);
    await holder.says("held");
    relay.child.kill("SIGTERM");
    await relay.says("stopped");
    assertStringIncludes(relay.said, "the relay worker did not stop within 1000 ms and is ended");
    assertEquals(await net.must("relay", ["nft", "list", "tables"]), "", "though the worker is held still");
    await holder.stop("SIGTERM"); // the system keeps a process whose threads somebody traces
    assertEquals(await relay.stop("SIGTERM"), 0);
  },
);

networkTest(
  "max_connections: the second client waits until there is room",
  needs,
  async (net) => {
    const [first, second] = [await net.client(2), await net.client(3)];
    const relay = await net.relay(`max_connections = 1\n${TUN}`);
    await net.wireguard(first, await net.addPeer("phone"));
    assert(await reaches(net, first, SERVER));
    await net.wireguard(second, await net.addPeer("laptop"));

    const refused = async () => (await net.status()).drops.max_connections;
    // wireguard-go asks again every 5 s for as long as there is something to send.
    const asking = net.run(second, ["ping", "-q", "-i", "0.2", "-w", "12", SERVER]);
    const served = await net.run(first, ["ping", "-q", "-i", "0.2", "-c", "50", SERVER]);
    assertStringIncludes(served.stdout, " 50 received, 0% packet loss");
    assertStringIncludes((await asking).stdout, " 0 received");
    assertGreaterOrEqual(await refused(), 2);
    assertStringIncludes(relay.said, "laptop was refused: max_connections is reached");
    assertStringIncludes(
      (await net.ask("/metrics")).text,
      `oxrelay_dropped_packets_total{reason="max_connections"} ${await refused()}`,
    );
    assertEquals((await net.ask("/healthz")).status, 200, "a full relay is a healthy one");
    assertEquals(await net.ask("/readyz").then(({ status, text }) => [status, JSON.parse(text).reasons]), [
      503,
      ["max_connections (1) is reached"],
    ]);
    assertEquals((await net.status()).peers.map(({ name, connected }) => `${name} ${connected}`).sort(), [
      "laptop false",
      "phone true",
    ]);

    await net.changePeer(["remove", "phone"]);
    await until(() => reaches(net, second, SERVER), "the second client is in", 30_000);
    await until(async () => (await net.status()).counters.connections === 1, "one connection is counted");
  },
);

networkTest(
  "a relay worker that dies is told, replaced, and its clients come back by themselves",
  needs,
  async (net) => {
    const client = await net.client(2);
    const relay = await net.relay(`exit = "tun"\n[destinations]\nallow = ["10.200.0.0/24"]\n`, {
      OXRELAY_TEST_FAIL_AFTER_MS: "4000",
    });
    await net.wireguard(client, await net.addPeer("phone"));
    const reaches = async () => (await net.run(client, ["ping", "-c", "1", "-W", "1", SERVER])).success;
    await until(reaches, "the client is served");
    await relay.says("the relay worker failed");
    await relay.says("it runs again");
    assertEquals((await net.ask("/healthz")).status, 200);
    await until(reaches, "the client is served again", 60_000);
    assertEquals(await relay.stop("SIGTERM"), 0);
    assertEquals((await net.run("relay", ["ip", "link", "show", "oxrelay0"])).success, false);
    assertEquals((await net.must("relay", ["nft", "list", "tables"])).includes("oxrelay"), false);
  },
);
