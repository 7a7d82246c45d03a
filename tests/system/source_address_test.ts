/**
 * A relay whose interface has two addresses of each family, bound to all: a client that talks to the second is answered
 * from the second, by the handshake's answer and by data alike. wireguard-go moves its endpoint to wherever authentic
 * packets come from, so an endpoint that has stayed is the proof.
 */
import { assert, assertEquals } from "@std/assert";
import { requires } from "../kit/requires.ts";
import { Network, until } from "../kit/namespaces.ts";

const NEEDS = requires({ root: true, programs: ["ip", "nft", "wg", "wg-quick", "wireguard-go", "ping"] });

for (const io of ["mmsg", "io_uring"]) {
  for (const [version, second] of [["IPv4", "10.201.0.9"], ["IPv6", "fd00:201::9"]]) {
    Deno.test({
      name: `source address, ${io}: answers over ${version} leave from the address that was asked`,
      ...NEEDS,
      fn: async () => {
        const net = await Network.open();
        try {
          await net.ip("relay", "addr add 10.201.0.9/24 dev br0".split(" "));
          await net.ip("relay", "addr add fd00:201::9/64 dev br0 nodad".split(" "));
          const relay = await net.relay(`listen = "[::]:4433"\nexit = "userspace"\nio = "${io}"\n`);
          assert(relay.said.includes(`/udp (${io}`), relay.said);
          const client = await net.client(100);
          const endpoint = `${version === "IPv6" ? `[${second}]` : second}:4433`;
          await net.wireguard(client, await net.addPeer("phone", endpoint));
          await until(
            async () => (await net.run(client, "ping -c 1 -W 1 10.66.0.1".split(" "))).success,
            "a ping through the tunnel",
          );
          const { success, stdout } = await net.run(client, "ping -c 20 -i 0.02 10.66.0.1".split(" "));
          assert(success, stdout);
          const shown = await net.must(client, ["wg", "show", net.device(client), "endpoints"]);
          assertEquals(shown.trim().split("\t")[1], endpoint);
        } finally {
          await net.close();
        }
      },
    });
  }
}
