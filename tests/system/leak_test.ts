/**
 * A relay that handshakes and carries packets for a long time holds no more than at its start: once everything has
 * expired, no session row, timer, waiting packet, slot or descriptor, and as much memory. At scale 1 it is 10^6
 * handshakes and 10^8 packets (half an hour); LEAK_SCALE chooses, 0.02 unless told. Run in a child (leak_child.ts),
 * whose memory is nobody else's.
 */
import { assert, assertEquals, assertGreater, assertLess } from "@std/assert";
import { loadNative } from "../../ffi/native.ts";

const native = loadNative();
if (typeof native === "string") console.error(`SKIPPED tests/system/leak_test.ts: ${native}`);
const CHILD = new URL("leak_child.ts", import.meta.url).pathname;
const ROOT = new URL("../..", import.meta.url).pathname;
const LIBRARY = `${ROOT}ffi/prebuilt/x86_64-unknown-linux-gnu/liboxrelay.so`;
const LIBC = "/lib/x86_64-linux-gnu/libc.so.6,/lib/aarch64-linux-gnu/libc.so.6";

const SCALE = Number(Deno.env.get("LEAK_SCALE") ?? 0.02);
const HANDSHAKES = 1e6 * SCALE, PACKETS = 1e8 * SCALE;
/** What compiled code and the allocator's habits may add between two checkpoints; a leak of 1 KB a handshake is more. */
const RSS_SLACK_BYTES = 10 << 20, HEAP_SLACK_BYTES = 1 << 20;
/** Once its event loop has turned for a while, Deno makes a pair of sockets of its own. */
const DESCRIPTORS_SLACK = 4;

interface Checkpoint {
  rows: number;
  timers: number;
  staged: number;
  slots: number;
  descriptors: number;
  rss: number;
  heapUsed: number;
  handshakes: number;
  packets: number;
  drops: Record<string, number>;
}

async function checkpoints(): Promise<Checkpoint[]> {
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--no-prompt",
      // A young generation that does not grow: its size would drown what is looked for.
      "--v8-flags=--expose-gc,--min-semi-space-size=2,--max-semi-space-size=2",
      "--allow-net=127.0.0.1",
      `--allow-ffi=${LIBC},${LIBRARY}`,
      CHILD,
      String(HANDSHAKES),
      String(PACKETS),
    ],
    cwd: ROOT,
    stderr: "inherit",
  });
  const { success, stdout } = await child.output();
  assert(success, "the child failed");
  return new TextDecoder().decode(stdout).trim().split("\n").map((line) => JSON.parse(line));
}

Deno.test({
  name: `leaks: nothing is held after ${HANDSHAKES} handshakes and ${PACKETS} packets`,
  ignore: typeof native === "string",
  fn: async () => {
    const all = await checkpoints();
    console.error(all.map((each) => JSON.stringify(each)).join("\n"));
    for (const { rows, timers, staged, slots } of all) {
      assertEquals({ rows, timers, staged, slots }, { rows: 0, timers: 0, staged: 0, slots: 0 });
    }
    // The first is before all traffic; by the second, code is compiled and every buffer has had its largest size.
    const [, early] = all, late = all.at(-1)!;
    assertGreater(late.handshakes, 0.8 * HANDSHAKES);
    assertGreater(late.packets, 0.8 * PACKETS);
    // Packets that waited for clients that were away, and what clients sent before they knew that their keys are gone.
    for (const reason of Object.keys(late.drops)) {
      assert(["unanswered", "no_session", "expired"].includes(reason), `packets were dropped: ${reason}`);
    }
    assertLess(late.descriptors - early.descriptors, DESCRIPTORS_SLACK);
    assertLess(late.rss - early.rss, RSS_SLACK_BYTES);
    assertLess(late.heapUsed - early.heapUsed, HEAP_SLACK_BYTES);
  },
});
