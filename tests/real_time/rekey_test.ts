/**
 * One rekey at WireGuard's real times, under traffic that never pauses: wireguard-go renews the session after
 * 120 s, as its initiator. Takes as long as that; the shortened times are tried in end_to_end_test.ts.
 */
import {
  assert,
  assertEquals,
  assertGreater,
  assertGreaterOrEqual,
  assertLess,
  assertNotEquals,
} from "@std/assert";
import type { SessionSnapshot } from "../../src/session/peer_record.ts";
import { requires } from "../kit/requires.ts";
import { Network, SERVER } from "../kit/namespaces.ts";

const PINGS = 650; // 130 s at 5 a second

Deno.test({
  name: "rekey: at the real 120 s the session is renewed, and of 5 pings a second not one is lost",
  ...requires({ root: true, programs: ["ip", "nft", "wg", "wg-quick", "wireguard-go", "ping"] }),
  sanitizeResources: false,
  sanitizeOps: false,
  async fn() {
    const net = await Network.open();
    const sessions = async (): Promise<SessionSnapshot[]> => JSON.parse((await net.ask("/v1/sessions")).text);
    try {
      const client = await net.client(2);
      await net.relay(`exit = "tun"\n[destinations]\nallow = ["10.200.0.0/24"]\n`);
      await net.wireguard(client, await net.addPeer("phone"));
      await net.must(client, ["ping", "-c", "1", "-w", "10", SERVER]);
      const [before, ...others] = await sessions();
      assertEquals([before.epoch, before.initiator, others.length], ["current", false, 0]);

      const ping = ["ping", "-q", "-i", "0.2", "-c", String(PINGS), "-W", "2", SERVER];
      const said = await net.must(client, ping, { timeoutS: 160 });
      assert(said.includes(`${PINGS} packets transmitted, ${PINGS} received, 0% packet loss`), said);

      const after = await sessions();
      const current = after.find(({ epoch }) => epoch === "current")!;
      const previous = after.find(({ epoch }) => epoch === "previous")!;
      assertNotEquals(current.receiverIndex, before.receiverIndex);
      assertEquals(previous.receiverIndex, before.receiverIndex);
      assertLess(current.ageS, 15);
      assertGreater(current.packetsSent, 20, "the pings after the rekey went by the new key");
      assertGreaterOrEqual(current.packetsSent + previous.packetsSent, PINGS);
      assertEquals((await net.status()).counters.handshakes_completed, 2);
    } finally {
      await net.close();
    }
  },
});
