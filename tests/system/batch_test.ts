/**
 * Batching as it is served, switched on and off at each end: many small UDP packets both ways between a real `connect`
 * and a real relay, in namespaces that the test makes and removes. Counts come from the relay's metrics.
 */
import { assert, assertEquals, assertGreater } from "@std/assert";
import { requires } from "../kit/requires.ts";
import { Network, SERVER, until } from "../kit/namespaces.ts";

/** Counters of the relay by name. */
async function counters(net: Network): Promise<(name: string) => number> {
  const { text } = await net.ask("/metrics");
  return (name) => Number(text.match(new RegExp(`^oxrelay_${name} ([\\d.e+]+)$`, "m"))![1]);
}

for (const isOn of [true, false]) {
  Deno.test({
    name: `batching: small packets both ways share datagrams${isOn ? "" : ", and none does when it is off"}`,
    ...requires({ root: true, programs: ["ip", "nft", "iperf3", "sh"] }),
    sanitizeResources: false,
    sanitizeOps: false,
    async fn() {
      const net = await Network.open();
      try {
        const client = await net.client(2);
        await net.relay(
          `exit = "tun"\n${
            isOn ? "" : "enable_batching = false\n"
          }[destinations]\nallow = ["10.200.0.0/24"]\n`,
        );
        const file = `${net.directory}/laptop.conf`;
        await Deno.writeTextFile(file, await net.addPeer("laptop"));
        const args = ["--config", file, "--protocol", "oxtunnel", ...(isOn ? [] : ["--no-batching"])];
        await net.connect(client, args);
        await net.iperf("server");
        const talk = ["iperf3", "-c", SERVER, "-u", "-l", "64", "-b", "40M", "-t", "2"];
        await until(
          async () => (await net.run(client, ["iperf3", "-c", SERVER, "-u", "-l", "64", "-t", "1"])).success,
          "iperf3 listens",
        );
        const before = await counters(net);
        assert((await net.run(client, talk)).success, "up");
        const between = await counters(net);
        assert((await net.run(client, [...talk, "-R"])).success, "down");
        const after = await counters(net);
        const rose = (name: string) => after(name) - before(name);
        const packetsUp = between("to_exit_packets_total") - before("to_exit_packets_total");
        const datagramsUp = between("received_datagrams_total") - before("received_datagrams_total");
        assertGreater(packetsUp, 10_000);
        if (isOn) {
          assertGreater(rose("batched_packets_total"), 1000);
          assertGreater(rose("saved_datagrams_total"), 500);
          assertGreater(packetsUp, 1.05 * datagramsUp);
        } else {
          assertEquals(rose("batched_packets_total"), 0);
          assert(packetsUp <= datagramsUp, `${packetsUp} packets in ${datagramsUp} datagrams`);
        }
        console.log(
          `${packetsUp} packets up in ${datagramsUp} datagrams; ${rose("saved_datagrams_total")} saved down`,
        );
        assertEquals(after('dropped_packets_total\\{reason="arena_full"\\}'), 0);
        assertEquals(after('dropped_packets_total\\{reason="malformed_inner"\\}'), 0);
      } finally {
        await net.close();
      }
    },
  });
}
