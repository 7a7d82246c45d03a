/**
 * A device that is kept out, as its person sees it: `connect` and `ping` say why and what to do, before the tunnel is up
 * and while it is, and go on when the device is let in again.
 */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { requires } from "../kit/requires.ts";
import { Network, SERVER, until } from "../kit/namespaces.ts";

const OPEN = 'exit = "tun"\n[destinations]\nallow = ["10.200.0.0/24"]\n';

Deno.test({
  name: "kept out: connect says why, in words, at its start and while it is up, and is up again afterwards",
  ...requires({ root: true, programs: ["ip", "nft", "ping", "wg"] }),
  sanitizeResources: false,
  sanitizeOps: false,
  async fn() {
    const net = await Network.open();
    try {
      const client = await net.client(2);
      await net.relay(OPEN);
      const file = `${net.directory}/laptop.conf`;
      await Deno.writeTextFile(file, await net.addPeer("laptop", undefined, ["--oxtunnel"]));
      const running = await net.connect(client, ["--config", file]);
      const reaches = async () => (await net.run(client, ["ping", "-c", "1", "-W", "1", SERVER])).success;
      assert(await reaches(), running.said);
      await net.changePeer(["disable", "laptop"]);
      await running.says("refuses this device: its operator has disabled this device");
      assert(!await reaches());
      await net.changePeer(["enable", "laptop"]);
      await until(reaches, "the tunnel is up again");
      assertEquals(running.said.split("refuses this device").length, 2, "it says so once");
      assertEquals(await running.stop("SIGINT"), 0, running.said);

      for (
        const [change, words] of [
          [["--expires", "2020-01-01"], "the date has come that its operator set"],
          [["--expires", "none", "--volume", "1"], "used up the volume of this month"],
        ] as const
      ) {
        await net.changePeer(["set", "laptop", ...change]);
        const refused = net.spawn(client, net.command("connect", ["--config", file]));
        assertEquals((await refused.child.status).code, 1);
        await refused.says("Nothing was changed here.");
        assertStringIncludes(refused.said, words);
        assertMatch(refused.said, /peer set NAME --/);
      }
      assertMatch(await net.changePeer(["list"]), /^laptop +volume /m);
      const ping = await net.run(client, net.command("ping", ["--from", file, "--count", "1"]));
      assertStringIncludes(ping.stderr, "used up the volume of this month");
    } finally {
      await net.close();
    }
  },
});
