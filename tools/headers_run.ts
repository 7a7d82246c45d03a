/**
 * `deno task sim:headers`: a million packets of forty flows through a path that loses a fifth, reorders them by 64 and more and
 * repeats some, with repair, while flows end and numbers are defined anew, once for each way of making headers small. Fails
 * where a packet comes out other than it went in, or came and could not be read. Takes minutes; with a number, so many
 * packets. `SIM_SEED` chooses the run.
 */
import { compare } from "../tests/kit/header_play.ts";

const packets = Number(Deno.args[0] ?? 1_000_000);
const failures: string[] = [];
for (const [method, jitterUs] of [["elided", 140_000], ["rohc", 40_000]] as const) {
  const startMs = performance.now();
  const result = compare({
    contexts: 4096,
    methods: [method],
    channel: { loss: 0.2, jitterUs, duplicate: 0.05 },
    isRepairing: true,
    packets,
    intervalUs: 2000,
    renewEvery: 100,
    withIds: method === "rohc",
    progress: (done) => console.error(`${method}: ${done} packets`),
  });
  const seconds = ((performance.now() - startMs) / 1000).toFixed(0);
  console.log(method, { ...result, seconds });
  if (result.wrong + result.unknown + result.mismatches > 0) failures.push(method);
}
if (failures.length > 0) {
  console.error(`not read, or wrong: ${failures.join(", ")}`);
  Deno.exit(1);
}
