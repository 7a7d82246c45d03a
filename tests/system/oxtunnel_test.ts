/**
 * OxTunnel end to end: a client core in a namespace of its own, over a real UDP port, through a relay as it is served
 * by default, out of its TUN device to a host behind it and back; beside a real WireGuard client on the same port.
 */
import { assert, assertEquals, assertGreaterOrEqual } from "@std/assert";
import { requires } from "../kit/requires.ts";
import { Network, SERVER } from "../kit/namespaces.ts";

const PINGS = 100;
const CHILD = new URL("oxtunnel_child.ts", import.meta.url).pathname;
const LIBRARY =
  new URL("../../ffi/prebuilt/x86_64-unknown-linux-gnu/liboxrelay.so", import.meta.url).pathname;

/** The words that run the child, which reads `file`. */
const child = (file: string) => [
  Deno.execPath(),
  "run",
  "--no-prompt",
  `--allow-read=${file}`,
  "--allow-net",
  `--allow-ffi=${LIBRARY},/lib/x86_64-linux-gnu/libc.so.6`,
  CHILD,
];

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
      const outcome = await net.run(laptop, [...child(file), file, SERVER, String(PINGS)]);
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

Deno.test({
  name: "OxTunnel: who comes back with a ticket has the first answer a round trip earlier",
  ...requires({ root: true, programs: ["ip", "nft", "bash"] }),
  sanitizeResources: false,
  sanitizeOps: false,
  async fn() {
    const net = await Network.open();
    try {
      const laptop = await net.client(3);
      await net.relay(`exit = "tun"\n[destinations]\nallow = ["10.200.0.0/24"]\n`);
      const file = `${net.directory}/laptop.conf`;
      await Deno.writeTextFile(file, await net.addPeer("laptop"));
      const said = JSON.parse(
        (await net.must(laptop, [...child(file), file, SERVER, "10", "5"])).trim().split("\n").at(-1)!,
      );
      assert(said.hasTicket);
      // A round trip earlier: the relay has sent the answer before it received anything under the new keys.
      const [without, withTicket] = said.dataBefore.map((counts: number[]) =>
        counts.toSorted((a, b) => a - b)[2]
      );
      assertEquals(withTicket, 0, JSON.stringify(said.dataBefore));
      assertGreaterOrEqual(without, 1, JSON.stringify(said.dataBefore));
    } finally {
      await net.close();
    }
  },
});
