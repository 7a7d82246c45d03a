/**
 * Short packets as they are served, switched on and off at each end: UDP both ways between a real `connect` and a real
 * relay, in namespaces that the test makes and removes. Counts come from the relay's metrics and the client's cable.
 */
import { assert, assertEquals, assertGreater, assertLess } from "@std/assert";
import { onTheWire } from "../../bench/measures.ts";
import { requires } from "../kit/requires.ts";
import { Network, SERVER, until } from "../kit/namespaces.ts";

const SECONDS = 1, PAYLOAD = 64;

/** Counters of the relay by name. */
async function counters(net: Network): Promise<(name: string) => number> {
  const { text } = await net.ask("/metrics");
  return (name) => Number(text.match(new RegExp(`^oxrelay_${name} ([\\d.e+]+)$`, "m"))![1]);
}

for (
  const [name, config, options, headers] of [
    ["leave without their headers", "", [], 1],
    // Four bytes, and more the more packets are on the way unreported.
    ["leave with ROHC's where both want it so", "[headers]\nmethods = ['rohc']\n", ["--rohc"], 10],
    ["keep their headers where the relay wants it so", "[headers]\nenabled = false\n", [], 28],
    ["keep their headers where the client wants it so", "", ["--no-header-compression"], 28],
  ] as const
) {
  Deno.test({
    name: `short packets: packets both ways ${name}`,
    ...requires({ root: true, programs: ["ip", "nft", "iperf3"] }),
    sanitizeResources: false,
    sanitizeOps: false,
    async fn() {
      const net = await Network.open();
      try {
        const client = await net.client(2);
        const isOn = headers < 28;
        await net.relay(
          `exit = "tun"\nenable_batching = false\n[destinations]\nallow = ["10.200.0.0/24"]\n${config}`,
        );
        const file = `${net.directory}/laptop.conf`;
        await Deno.writeTextFile(file, await net.addPeer("laptop"));
        await net.connect(client, ["--config", file, "--protocol", "oxtunnel", "--no-batching", ...options]);
        await net.iperf("server");
        const talk = [
          "iperf3",
          "-c",
          SERVER,
          "-u",
          "-l",
          String(PAYLOAD),
          "-b",
          "400K",
          "-t",
          String(SECONDS),
        ];
        await until(
          async () => (await net.run(client, ["iperf3", "-c", SERVER, "-u", "-l", "64", "-t", "1"])).success,
          "iperf3 listens",
        );
        const before = await counters(net), wire = await onTheWire(net, client);
        for (const direction of [[], ["-R"]]) {
          const { success, stdout } = await net.run(client, [...talk, ...direction, "-J"]);
          assert(success);
          assertEquals(JSON.parse(stdout).end.sum.lost_packets, 0);
        }
        const after = await counters(net), wireAfter = await onTheWire(net, client);
        const rose = (name: string) => after(name) - before(name);
        const inner = rose("to_exit_packets_total") + rose("to_tunnel_packets_total");
        const each = (wireAfter.bytes - wire.bytes) / inner;
        console.log(`${inner} packets, ${each.toFixed(1)} bytes each on the cable`);
        assertGreater(inner, 1000);
        // 64 of payload, 28 of IPv4 and UDP, 22 of the tunnel; and what is left of the packet's own headers.
        if (isOn) assertLess(each, PAYLOAD + 28 + 22 + headers + 9);
        else assertGreater(each, PAYLOAD + 28 + 22 + 25);
        const down = rose("headers_elided_packets_total");
        if (isOn) assertGreater(down, 0.4 * inner);
        else assertEquals(down + rose("header_definitions_total"), 0);
        const shown = JSON.parse((await net.ask("/v1/status")).text).peers[0].headers;
        assertEquals(shown?.method, headers === 28 ? undefined : headers === 10 ? "rohc" : "elided");
        if (isOn) assertLess(shown.after, headers + 1);
        if (isOn) assertGreater(after("header_contexts"), 0);
        else assertEquals(after("header_contexts"), 0);
        assertEquals(after('dropped_packets_total\\{reason="unknown_context"\\}'), 0);
        assertEquals(after("headers_mismatch_total"), 0);
      } finally {
        await net.close();
      }
    },
  });
}
