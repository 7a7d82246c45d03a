/**
 * A relay's Worker and a client's plane go first on their processor, and wait like any other program where they are told so: the
 * scheduling policy of each thread. The policy itself is turn_priority_test.ts's, among the unit tests.
 */
import { assertEquals } from "@std/assert";
import { Network } from "../kit/namespaces.ts";
import { requires } from "../kit/requires.ts";

/** The policies of the process's threads that move packets (field 41 in proc_pid_stat(5)): 2, SCHED_RR, goes before 0, SCHED_OTHER. */
async function policies(net: Network, where: string, pid: number): Promise<number[]> {
  const shown = await net.must(where, ["sh", "-c", `cat /proc/${pid}/task/*/stat`]);
  return [...shown.matchAll(/\(worker.*?\) (.*)/g)].map(([, fields]) => Number(fields.split(" ")[38]));
}

Deno.test({
  name: "priority: threads that move packets go first, where that is not switched off",
  ...requires({ root: true, programs: ["ip", "nft", "sh"] }),
  fn: async () => {
    const net = await Network.open();
    try {
      const client = await net.client(2);
      const relay = await net.relay('exit = "tun"\n');
      const file = `${net.directory}/first.conf`;
      await Deno.writeTextFile(file, await net.addPeer("first"), { mode: 0o600 });
      const up = await net.connect(client, ["--config", file, "--protocol", "oxtunnel"]);
      assertEquals(await policies(net, "relay", relay.child.pid), [2]);
      assertEquals(await policies(net, client, up.child.pid), [2]);
      up.child.kill("SIGTERM");
      await up.child.status;
      const other = await net.connect(client, ["--config", file, "--protocol", "oxtunnel", "--no-priority"]);
      assertEquals(await policies(net, client, other.child.pid), [0]);
      relay.child.kill("SIGTERM");
      await relay.child.status;
      const ordinary = await net.relay('exit = "tun"\ngo_first = false\n');
      assertEquals(await policies(net, "relay", ordinary.child.pid), [0]);
    } finally {
      await net.close();
    }
  },
});
