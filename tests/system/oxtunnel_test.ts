/**
 * OxTunnel end to end: a client core in a namespace of its own, over a real UDP port, through a relay as it is served
 * by default, out of its TUN device to a host behind it and back; beside a real WireGuard client on the same port.
 */
import { assert, assertEquals, assertGreaterOrEqual } from "@std/assert";
import { requires } from "../requires.ts";
import { Network, SERVER } from "./namespaces.ts";

const PINGS = 100;
const CHILD = new URL("oxtunnel_child.ts", import.meta.url).pathname;
const LIBRARY =
  new URL("../../ffi/prebuilt/x86_64-unknown-linux-gnu/liboxrelay.so", import.meta.url).pathname;

Deno.test({
  name: "OxTunnel and WireGuard: both reach a host behind one relay on one port",
  ...requires({ root: true, programs: ["ip", "nft", "wg", "wg-quick", "wireguard-go", "ping", "bash"] }),
  sanitizeResources: false,
  sanitizeOps: false,
  async fn() {
    const net = await Network.open();
    try {
      const [phone, laptop] = [await net.client(2), await net.client(3)];
      await net.relay(`exit = "tun"\n[destinations]\nallow = ["10.200.0.0/24"]\n`);
      await net.wireguard(phone, await net.addPeer("phone"));
      const file = `${net.directory}/laptop.conf`;
      await Deno.writeTextFile(file, await net.addPeer("laptop"));
      const pinged = net.run(phone, ["ping", "-q", "-c", "20", "-i", "0.1", "-w", "20", SERVER]);
      const outcome = await net.run(laptop, [
        Deno.execPath(),
        "run",
        "--no-prompt",
        `--allow-read=${file}`,
        "--allow-net",
        `--allow-ffi=${LIBRARY},/lib/x86_64-linux-gnu/libc.so.6`,
        CHILD,
        file,
        SERVER,
        String(PINGS),
      ]);
      assert(outcome.success, JSON.stringify(outcome));
      const said = JSON.parse(outcome.stdout.trim().split("\n").at(-1)!);
      assertGreaterOrEqual(said.answered, PINGS - 1, JSON.stringify(said));
      assertEquals([said.handshakes, said.epochs], [1, 1]);
      assertEquals(said.told.mtu, 1420);
      assertEquals(said.told.aeads, [2], "both ends have AES");
      assert((await pinged).success, "WireGuard goes on beside it");
      const { peers } = await net.status();
      assertEquals(peers.find(({ name }) => name === "laptop")?.connected, false, "it said goodbye");
    } finally {
      await net.close();
    }
  },
});
