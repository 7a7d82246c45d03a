/**
 * The tunnel over TLS where UDP is blocked, in network namespaces with the rules of a firewall: it comes up there, it
 * moves there and back under a TCP transfer that goes on, and a relay without a fallback says what is wrong.
 */
import { assert, assertEquals, assertGreater, assertStringIncludes } from "@std/assert";
import { requires } from "../kit/requires.ts";
import { makeCertificate } from "../kit/certificate.ts";
import { type Background, type Network, networkTest, pause, SERVER, until } from "../kit/namespaces.ts";

const OPEN = `exit = "tun"\n[destinations]\nallow = ["10.200.0.0/24"]\n`;
const needs = requires({ root: true, programs: ["ip", "nft", "ping", "iperf3", "openssl", "timeout"] });

/** A relay with a fallback, and the file with its client's invitation. */
async function open(
  net: Network,
  more = "",
  port = 443,
): Promise<{ client: string; file: string; restart: () => Promise<void> }> {
  const client = await net.client(2);
  const { certificate, privateKey } = await makeCertificate(net.directory, "relay.test");
  const config = `${more}${OPEN}[fallback]\nlisten = "0.0.0.0:${port}"\n` +
    `certificate = "${certificate}"\nprivate_key = "${privateKey}"\n`;
  const relay = await net.relay(config);
  const restart = async () => {
    await relay.stop("SIGKILL");
    await net.relay(config);
  };
  return { client, file: await invite(net), restart };
}

async function invite(net: Network): Promise<string> {
  const file = `${net.directory}/laptop.conf`;
  await Deno.writeTextFile(file, await net.addPeer("laptop", undefined, ["--oxtunnel"]));
  return file;
}

/** Lets no UDP to the relay, as a hotel's network may; `port` 443 blocks the fallback too. */
async function block(net: Network, what = "udp dport 4433"): Promise<void> {
  await net.must("relay", ["nft", "-f", "-"], {
    input: `table inet firewall {
  chain input { type filter hook input priority 0; ${what} drop; }
}
`,
  });
}

async function unblock(net: Network): Promise<void> {
  await net.must("relay", ["nft", "delete", "table", "inet", "firewall"]);
}

function start(net: Network, client: string, file: string, args: string[] = []): Background {
  return net.spawn(client, net.command("connect", ["--config", file, ...args]));
}

async function reaches(net: Network, client: string): Promise<boolean> {
  return (await net.run(client, ["ping", "-c", "3", "-i", "0.2", "-W", "1", SERVER])).success;
}

async function endpoint(net: Network): Promise<string> {
  return (await net.status()).peers[0].endpoint ?? "";
}

/** A TCP transfer from the server for `seconds`; returns the bits a second in each second. */
async function transfer(net: Network, client: string, seconds: number, to = SERVER): Promise<number[]> {
  const { stdout, success, stderr } = await net.run(
    client,
    ["iperf3", "-c", to, "-R", "-t", String(seconds), "-J"],
    { timeoutS: seconds + 20 },
  );
  assert(success, stdout.slice(-200) + stderr);
  const { intervals } = JSON.parse(stdout) as { intervals: { sum: { bits_per_second: number } }[] };
  return intervals.map(({ sum }) => sum.bits_per_second);
}

networkTest("fallback: the tunnel comes up over TLS, and goes back to UDP", needs, async (net) => {
  const { client, file } = await open(net);
  await net.iperf("server");
  await block(net);
  const startedMs = performance.now();
  const running = start(net, client, file);
  await running.says("The tunnel is up.");
  console.log(`up over TLS after ${Math.round(performance.now() - startedMs)} ms`);
  assertStringIncludes(running.said, "the tunnel goes over TLS to 10.201.0.1:443");
  assert(await reaches(net, client), running.said);
  assertStringIncludes(await endpoint(net), "10.201.0.2:");
  assertStringIncludes(await endpoint(net), "(TLS)");
  const rates = await transfer(net, client, 3);
  console.log(`TCP over TLS: ${rates.map((rate) => Math.round(rate / 1e6)).join(" ")} Mbit/s`);
  assertGreater(Math.min(...rates), 1e6);
  const text = running.said + (await net.ask("/v1/sessions")).text;
  assert(!text.includes("100::"), text);

  await unblock(net);
  const sessions = (await net.ask("/v1/sessions")).text;
  const moving = transfer(net, client, 36);
  await running.says("the tunnel is back on it");
  const after = await moving;
  console.log(`through the move to UDP: ${after.map((rate) => Math.round(rate / 1e6)).join(" ")} Mbit/s`);
  assertGreater(after.at(-1)!, 1e6);
  assert(!(await endpoint(net)).includes("TLS"));
  const index = (text: string) =>
    JSON.parse(text).filter((one: { epoch: string }) => one.epoch === "current")[0].receiverIndex;
  assertEquals(index((await net.ask("/v1/sessions")).text), index(sessions), "it is the same session");
  assertEquals(await running.stop("SIGINT"), 0, running.said);
});

networkTest(
  "fallback: a transfer goes on over TLS when UDP is blocked under it, with two Workers and a kill switch",
  needs,
  async (net) => {
    const { client, file, restart } = await open(net, "workers = 2\n");
    await net.iperf("server");
    const running = start(net, client, file, ["--kill-switch"]);
    await running.says("The tunnel is up.");
    // A relay that was slow to answer is reached over TLS first.
    await until(async () => !(await endpoint(net)).includes("TLS"), "the tunnel is on UDP", 90_000);
    const moving = transfer(net, client, 14);
    await pause(3000);
    await block(net);
    const rates = await moving;
    console.log(`through the move to TLS: ${rates.map((rate) => Math.round(rate / 1e6)).join(" ")} Mbit/s`);
    assertGreater(rates.at(-1)!, 1e6);
    assertStringIncludes(running.said, "the tunnel goes over TLS");
    assertStringIncludes(await endpoint(net), "(TLS)");
    assert(await reaches(net, client), running.said);
    // The relay forgets everything: the client makes a new session over a new connection.
    await restart();
    await until(() => reaches(net, client), "the tunnel comes up again over TLS");
    assertStringIncludes(await endpoint(net), "(TLS)");
    assertEquals(await running.stop("SIGINT"), 0, running.said);
  },
);

networkTest("fallback: without root, forwarded ports work over TLS", needs, async (net) => {
  const { client, file } = await open(net, "", 8443);
  await net.iperf("server");
  await block(net);
  const running = start(net, client, file, ["-L", `5201:${SERVER}:5201`]);
  await running.says("The tunnel is up.");
  const rates = await transfer(net, client, 3, "127.0.0.1");
  console.log(`a forwarded port over TLS: ${rates.map((rate) => Math.round(rate / 1e6)).join(" ")} Mbit/s`);
  assertGreater(rates.at(-1)!, 1e6);
});

networkTest("fallback: who can go nowhere is told what is wrong", needs, async (net) => {
  const client = await net.client(2);
  const { certificate, privateKey } = await makeCertificate(net.directory, "relay.test");
  const without = await net.relay(OPEN);
  const plain = await invite(net);
  await block(net);
  const lost = start(net, client, plain);
  await lost.says("the invitation names no way around");
  assertEquals(await lost.child.status.then(({ code }) => code), 1);

  await without.stop("SIGTERM");
  await net.relay(
    `${OPEN}[fallback]\nlisten = "0.0.0.0:443"\ncertificate = "${certificate}"\nprivate_key = "${privateKey}"\n`,
  );
  await net.changePeer(["remove", "laptop"]);
  const file = await invite(net);
  await unblock(net);
  await block(net, "udp dport 4433 drop; tcp dport 443 reject with tcp reset; udp dport 4433");
  const refused = start(net, client, file);
  await refused.says("UDP gets no answer, and the fallback over TLS, 10.201.0.1:443, cannot be reached: ");
  await unblock(net);
  await block(net);
  // Another certificate than the one that is pinned: somebody else's.
  const text = (await Deno.readTextFile(file)).replace(/pin=../, "pin=00");
  await Deno.writeTextFile(file, text);
  await refused.stop("SIGTERM");
  const deceived = start(net, client, file);
  await deceived.says("its certificate is not the one that the invitation pins");
});
