/**
 * What a relay does once, at its start, and what nobody would miss in a test of packets: memory in large pages, threads that
 * keep to their processors, a compiler that has seen the routes; and that what is stored has reached the disk.
 */
import { assert, assertEquals, assertGreater, assertMatch } from "@std/assert";
import { requires } from "../kit/requires.ts";
import { LoopbackRelay, relayTest } from "./loopback_relay.ts";
import { until } from "../kit/namespaces.ts";

async function shell(command: string, ...args: string[]): Promise<string> {
  const { stdout } = await new Deno.Command("sh", { args: ["-c", command, "sh", ...args] }).output();
  return new TextDecoder().decode(stdout);
}

relayTest(
  "start: the tables that packets reach into are shown to the system for large pages",
  requires({ programs: ["sh"] }),
  { config: "max_connections = 10000\n" },
  async (relay) => {
    // "hg": madvise(MADV_HUGEPAGE) was called for the mapping, whether or not the kernel has large pages to give.
    const maps = await shell("cat /proc/$1/smaps", String(relay.pid));
    const sizes = [...maps.matchAll(/^Size: +(\d+) kB\n(?:(?!VmFlags).*\n)*VmFlags:.* hg\b/gm)].map((
      [, kB],
    ) => Number(kB));
    // The tables are some hundred MB of which little is ever touched; 20 MB are the arena and the keys.
    assertGreater(sizes.reduce((sum, kB) => sum + kB, 0), 100_000, "kB in mappings for large pages");
    assert(sizes.some((kB) => kB > 12_000 && kB <= 16_384), `the arena of 16 MB is among ${sizes}`);
  },
);

relayTest(
  "start: each Worker keeps to its processor, and the main thread to none",
  requires({ programs: ["sh"] }),
  { config: `workers = 1\ncpus = [${navigator.hardwareConcurrency - 1}]\n` },
  async (relay) => {
    const last = navigator.hardwareConcurrency - 1;
    const threads = await shell(
      'for t in /proc/$1/task/*; do echo "$(cat $t/comm): $(grep Cpus_allowed_list $t/status)"; done',
      String(relay.pid),
    );
    const allowed = (name: RegExp) =>
      threads.split("\n").filter((line) => name.test(line)).map((line) => line.split(/\s/).at(-1));
    assertEquals(allowed(/^worker-/), [String(last)], threads);
    if (last > 0) assert(!allowed(/^deno: /).includes(String(last)), threads);
  },
);

relayTest(
  "start: the compiler is taught the routes of both protocols before the port is served",
  requires({}),
  { config: 'log_level = "debug"\n' },
  async (relay) => {
    await until(() => relay.said.includes("taught the compiler"), "the Worker says so");
    const [, packets] = /\[debug\] oxrelay\.kernels: (\d+) packets have taught the compiler/.exec(
      relay.said,
    )!;
    // Of two protocols, 500 bursts of one packet and 500 of 16, each way.
    assert(Number(packets) >= 2 * 2 * 500 * (1 + 16), `${packets} packets`);
  },
);

/** The calls of a traced program that concern the path, in order. */
function callsAbout(trace: string, path: string): string[] {
  return trace.split("\n").flatMap((line) => {
    const call = /\b(fsync|fdatasync|rename|renameat|renameat2)\((.*)\) += 0/.exec(line);
    return call?.[2].includes(path) ? [`${call[1].replace(/^rename.*/, "rename")} ${call[2]}`] : [];
  });
}

Deno.test({
  name: "stored: a peer's file is synced before it takes the old one's place, and its directory after",
  ...requires({ programs: ["strace"] }),
  async fn() {
    const relay = await LoopbackRelay.without();
    try {
      const log = `${relay.directory}/trace`;
      const tracing = [
        "strace",
        "-f",
        "-y",
        "-o",
        log,
        "-e",
        "trace=fsync,fdatasync,rename,renameat,renameat2",
      ];
      for (const [action, file] of [["add", "private.key"], ["remove", "peers.json"]]) {
        const { code, stderr } = await relay.run("peer", [action, "phone"], tracing);
        assertEquals(code, 0, stderr);
        const calls = callsAbout(await Deno.readTextFile(log), `${relay.directory}/state`);
        const of = calls.findIndex((call) => call.includes(`${file}.tmp`));
        const [synced, renamed, directory] = calls.slice(of);
        assertMatch(synced, new RegExp(`^fsync .*/state/${file}\\.tmp>$`), calls.join("\n"));
        assertMatch(renamed, new RegExp(`^rename .*/${file}\\.tmp", .*/${file}"`), calls.join("\n"));
        assertMatch(directory, /^fsync \d+<.*\/state>$/, calls.join("\n"));
      }
    } finally {
      await Deno.remove(relay.directory, { recursive: true });
    }
  },
});
