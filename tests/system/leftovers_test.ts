/**
 * What a run of tests that is killed leaves behind: the next one removes it, and nothing of a run that goes on.
 */
import { assert, assertEquals } from "@std/assert";
import { requires } from "../kit/requires.ts";
import { pause, removeLeftovers, until } from "../kit/namespaces.ts";

const needs = requires({ root: true, programs: ["ip", "sh"] });

async function run(command: string, ...args: string[]): Promise<string> {
  const { stdout } = await new Deno.Command(command, { args, stderr: "null" }).output();
  return new TextDecoder().decode(stdout);
}

Deno.test({
  name: "leftovers: a killed run's networks, programs and folders go, a living one's stay",
  ...needs,
  async fn() {
    // A number that was a process's just now.
    const gone = new Deno.Command("sh", { args: ["-c", "exit 0"] }).spawn();
    await gone.status;
    const dead = `ox${gone.pid}x0-relay`, alive = `ox${Deno.pid}x999-relay`;
    const folder = await Deno.makeTempDir({ prefix: `oxrelay-test-${gone.pid}-` });
    const own = await Deno.makeTempDir({ prefix: `oxrelay-test-${Deno.pid}-` });
    for (const name of [dead, alive]) await run("ip", "netns", "add", name);
    // What `ip netns add` has made before it mounts the namespace there.
    const halfMade = `/run/netns/ox${Deno.pid}x998-relay`;
    await run("sh", "-c", `: > ${halfMade}`);
    const left = new Deno.Command("ip", { args: ["netns", "exec", dead, "sh", "-c", "sleep 60 & wait"] })
      .spawn();
    const stays = new Deno.Command("ip", { args: ["netns", "exec", alive, "sleep", "60"] }).spawn();
    try {
      await until(async () => (await run("ip", "netns", "pids", dead)).trim() !== "", "a program runs there");
      await removeLeftovers(folder.replace(/\/[^/]*$/, ""));
      const names = await run("ip", "netns", "list");
      assert(!names.includes(dead), names);
      assert(names.includes(alive), names);
      assertEquals(await run("sh", "-c", `ls ${halfMade}`), `${halfMade}\n`, "half-made, it stays");
      assertEquals((await left.status).signal, "SIGKILL");
      const isStaying = await Promise.race([stays.status.then(() => false), pause(100).then(() => true)]);
      assert(isStaying);
      assertEquals((await Deno.stat(own)).isDirectory, true);
      const isThere = await Deno.stat(folder).then(() => true, () => false);
      assert(!isThere);
    } finally {
      stays.kill("SIGTERM");
      await stays.status;
      await run("ip", "netns", "del", alive);
      await run("sh", "-c", `rm -f ${halfMade}`);
      await Deno.remove(own);
    }
  },
});
