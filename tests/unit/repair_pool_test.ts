/** How many sessions of one tunnel may repair at once, and that who ends makes room. */
import { assert, assertEquals } from "@std/assert";
import { PortableShardKernel } from "../../src/codec/gf256.ts";
import { repairOptions } from "../../src/repair/options.ts";
import { Repairs } from "../../src/repair/pool.ts";

/** 100 KB each both ways, so that repair has 100 MB at most. */
const SESSIONS_MAX = 512;

Deno.test("repair: 512 sessions send repairs and 512 take them, no more until one has ended", () => {
  const options = { budgetPercent: 25, gameDeadlineMs: 60, voiceDeadlineMs: 100 };
  const repairs = new Repairs(repairOptions(new PortableShardKernel(), options), { add() {} });
  const senders = Array.from({ length: SESSIONS_MAX }, () => repairs.takeSender());
  const receivers = Array.from({ length: SESSIONS_MAX }, () => repairs.takeReceiver(0));
  assert(senders.every(Boolean) && receivers.every(Boolean));
  assertEquals([repairs.takeSender(), repairs.takeReceiver(0)], [undefined, undefined]);
  repairs.give(senders[0], undefined);
  assertEquals(repairs.takeReceiver(0), undefined, "a sender's end makes no room for a receiver");
  assert(repairs.takeSender());
  assertEquals(repairs.takeSender(), undefined);
  repairs.give(undefined, receivers[0]);
  assertEquals(repairs.takeSender(), undefined);
  assert(repairs.takeReceiver(0));
  assertEquals(repairs.takeReceiver(0), undefined);
});
