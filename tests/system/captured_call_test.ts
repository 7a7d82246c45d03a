/**
 * A call as it was captured, through `connect` over a path that loses 5 % each way: its packets at their times and with their
 * bytes, on a port that says QUIC. It is known for a call by its bytes and so repaired; its media is cut to the length of what
 * acknowledges a page, so that without its bytes nothing of it would be. The capture is one of ../shared/flows; the test
 * makes and removes its own network, and times nothing.
 */
import { assert, assertEquals, assertGreater, assertLess } from "@std/assert";
import { WORKLOADS } from "../kit/workloads.ts";
import type { ClassMix } from "../../src/connect/class_mix.ts";
import { requires } from "../kit/requires.ts";
import { type Arrivals, type FlowPlan, runFlow, startFarEnd } from "../kit/flow.ts";
import { proxyCounts, startProxy } from "../kit/proxy.ts";
import { networkTest, RELAY, SERVER, until } from "../kit/namespaces.ts";

/** WhatsApp's media between two telephones: STUN, then SRTP. */
const CALL = {
  file: new URL("../../../shared/flows/whatsapp_login_call.pcap", import.meta.url).pathname,
  near: 51_518,
  far: 9344,
  mediaBytesMax: 80,
};
const SECONDS = 10;
/** QUIC's, so that small packets at a pace may as well acknowledge a page. */
const PORT = 443;
const BUDGET = "budget_percent=100";
/** Repair learns of losses by the first of them. */
const LEAD = 40;

interface Line {
  mixUp?: ClassMix;
  mixDown?: ClassMix;
  repairUp?: { repaired: number };
  repairDown?: { repaired: number };
}

networkTest(
  "captured call: a call on QUIC's port is known by its bytes, and what the path loses of it comes back",
  requires({ root: true, programs: ["ip", "nft", "ping"], files: [CALL.file] }),
  async (net) => {
    await net.relay(
      `dns = []\nexit = "tun"\n[repair]\n${BUDGET}\n[destinations]\nallow = ["10.200.0.0/24"]\n`,
    );
    const client = await net.client(2);
    const proxy = await startProxy(net, "relay", {
      listen: `${RELAY}:5002`,
      upstream: "127.0.0.1:4433",
      channel: "random",
      seed: 12,
    });
    const file = `${net.directory}/${client}.conf`;
    await Deno.writeTextFile(file, await net.addPeer(client, `${RELAY}:5002`, ["--oxtunnel"]));
    const running = await net.connect(client, ["--config", file, "--json", "--repair", BUDGET]);
    const ping = ["ping", "-c", "1", "-W", "1", SERVER];
    await until(async () => (await net.run(client, ping)).success, "the server is reached");
    const plan = (end: string): FlowPlan => ({
      workload: WORKLOADS.opus,
      capture: CALL,
      seconds: SECONDS,
      way: { transport: "udp", host: SERVER, port: PORT },
      file: `${net.directory}/${end}.json`,
    });
    const far = { server: await startFarEnd(net, "server", plan("far")), file: plan("far").file };
    const before = proxyCounts(proxy);
    const { up, down } = await runFlow(net, client, plan("near"), far);
    const after = proxyCounts(proxy);
    const lines: Line[] = running.said.split("\n").slice(0, -1).filter((line) => line.startsWith("{")).map((
      line,
    ) => JSON.parse(line));
    const { repairUp, repairDown } = lines.at(-1)!;
    const counted = ({ latencyUs }: Arrivals) => latencyUs.slice(LEAD);
    const lost = [...counted(up), ...counted(down)].filter((one) => one === null).length;
    const share = lost / (counted(up).length + counted(down).length);
    const dropped = (side: "up" | "down") =>
      (after[side].dropped - before[side].dropped) / (after[side].offered - before[side].offered);
    console.log(
      `captured call: the path lost ${(100 * dropped("up")).toFixed(1)} and ${
        (100 * dropped("down")).toFixed(1)
      } %, ` +
        `the call ${
          (100 * share).toFixed(1)
        } %; brought back ${repairUp?.repaired} and ${repairDown?.repaired}`,
    );
    assertEquals([up.twice, down.twice], [0, 0], "nothing comes twice");
    for (const [side, repaired] of [["up", repairUp?.repaired], ["down", repairDown?.repaired]] as const) {
      assertGreater(dropped(side), 0.02, `the path is bad, ${side}`);
      assertGreater(repaired ?? 0, 0, `brought back, ${side}`);
    }
    assertLess(share, (dropped("up") + dropped("down")) / 4);
    for (const mix of ["mixUp", "mixDown"] as const) {
      assert(
        lines.some((line) => (line[mix]?.voice?.packets ?? 0) > 0.9),
        `${mix}: its packets are a call's`,
      );
    }
  },
);
