/**
 * A trusted link between a real relay and a real `connect` in network namespaces (PROTOCOL §18): packets on the wire can be
 * read where both list the other's address, and nowhere else, and both say which it is. Makes and removes its own
 * network.
 */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { requires } from "../kit/requires.ts";
import { Network, SERVER } from "../kit/namespaces.ts";

const LINK = "10.201.0.0/24";
/** The bytes of a ping, which it repeats. */
const PATTERN = "6f7872656c6179";

Deno.test({
  name: "trusted: pings can be read on the way where both ends say so, and status and connect name it",
  ...requires({ root: true, programs: ["ip", "nft", "ping", "tshark", "bash"] }),
  sanitizeResources: false,
  sanitizeOps: false,
  async fn() {
    const net = await Network.open();
    try {
      const client = await net.client(2);
      const relay = await net.relay(
        `exit = "tun"\ntrusted = ["${LINK}"]\n[destinations]\nallow = ["10.200.0.0/24"]\n`,
      );
      assertStringIncludes(relay.said, `OxTunnel may go without encryption in ${LINK}`);
      const file = `${net.directory}/laptop.conf`;
      await Deno.writeTextFile(file, await net.addPeer("laptop"));
      for (const [options, isPlain] of [[[], false], [["--trusted", LINK], true]] as const) {
        const running = await net.connect(client, ["--config", file, "--protocol", "oxtunnel", ...options]);
        const capture = net.run(client, [
          ...["tshark", "-i", "eth0", "-a", "duration:3"],
          ...["-Y", `udp.port == 4433 && frame contains ${PATTERN.match(/../g)!.join(":")}`],
          ...["-T", "fields", "-e", "udp.length"],
        ]);
        const ping = ["ping", "-c", "20", "-i", "0.1", "-p", PATTERN, "-w", "5", SERVER];
        assert((await net.run(client, ping)).success, running.said);
        const readable = (await capture).stdout.split("\n").filter((line) => /^\d+$/.test(line)).length;
        assertEquals(readable > 0, isPlain, `${readable} datagrams`);
        const { peers } = await net.status();
        assertEquals(peers[0].aead, isPlain ? "AES-256-GMAC" : "AES-256-GCM");
        assertEquals(running.said.includes("NOT ENCRYPTED"), isPlain, running.said);
        assertEquals(await running.stop("SIGINT"), 0, running.said);
      }
    } finally {
      await net.close();
    }
  },
});
