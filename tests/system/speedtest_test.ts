/**
 * `speedtest` as a person would use it, in network namespaces against a relay of each exit: plausible figures, nothing
 * left behind, and a refusal in words. How fast is the bench's matter.
 */
import { assert, assertEquals, assertGreater, assertLess, assertStringIncludes } from "@std/assert";
import { requires } from "../kit/requires.ts";
import { type Network, networkTest } from "../kit/namespaces.ts";

const needs = requires({ root: true, programs: ["ip", "nft"] });

async function speedtest(net: Network, client: string, args: string[]) {
  const file = `${net.directory}/laptop.conf`;
  return await net.run(client, net.command("speedtest", ["--config", file, "--seconds", "1", ...args]));
}

for (const exit of ["tun", "userspace"]) {
  networkTest(`speedtest: plausible figures through a relay with the ${exit} exit`, needs, async (net) => {
    const client = await net.client(2);
    await net.relay(`exit = "${exit}"\n`);
    await Deno.writeTextFile(`${net.directory}/laptop.conf`, await net.addPeer("laptop"));
    const { success, stdout, stderr } = await speedtest(net, client, ["--json"]);
    assert(success, stderr);
    const { idle, up, down } = JSON.parse(stdout);
    console.log(stdout.trim());
    assert(idle.asks > 50 && idle.lossRatio < 0.1, stdout);
    for (const one of [up, down]) {
      // Both ends and the way between them share what processors there are; a gigabit is not much here, 20 Mbit/s is less.
      assertGreater(one.bitsPerS, 20e6);
      assertLess(one.bitsPerS, 100e9);
      assertGreater(one.packets, 1000);
      assert(one.lossRatio >= 0 && one.lossRatio < 0.5, stdout);
      assert(one.rttMs.p50 > 0 && one.rttMs.p50 <= one.rttMs.p99, stdout);
    }
    const peer = (await net.status()).peers[0];
    assertEquals(peer.connected, false, "it said goodbye");
  });
}

networkTest("speedtest: a relay that does not measure says so by silence", needs, async (net) => {
  const client = await net.client(2);
  await net.relay(`exit = "userspace"\n[destinations]\nallow_speedtest = false\n`);
  await Deno.writeTextFile(`${net.directory}/laptop.conf`, await net.addPeer("laptop"));
  const { success, stdout, stderr } = await speedtest(net, client, []);
  assertEquals([success, stdout], [false, ""]);
  assertStringIncludes(stderr, "has switched allow_speedtest off");
});
