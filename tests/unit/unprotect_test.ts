/** The step that takes header protection off, where counters end: by itself, for no session in a test lives that long. */
import { assertEquals } from "@std/assert";
import type { IngressContext } from "../../src/ingress/context.ts";
import { unprotect } from "../../src/ingress/unprotect.ts";
import { DROP } from "../../src/metrics.ts";
import { Arena } from "../../src/vector/arena.ts";
import { Burst, TO_OPEN_DATAGRAM, TO_UNPROTECT } from "../../src/vector/burst.ts";
import { COUNTER_LIMIT, writeShortHeader } from "../../src/wire/oxtunnel.ts";

const DATAGRAM_BYTES = 60;

/** What becomes of a datagram with this counter in a session whose highest is `highest`. No mask covers its header. */
function outcome(counter: number, highest: number): { next: number; counter: number } {
  const burst = new Burst(new Arena(4));
  const row = burst.grow(DATAGRAM_BYTES, TO_UNPROTECT);
  writeShortHeader(burst.view, burst.offset[row], 0, 1, counter, 4);
  burst.session[row] = 0;
  unprotect(burst, {
    table: { replay: { highest: Float64Array.of(highest) }, pathNumber: Uint8Array.of(0) },
    datagramAead: { masks() {} },
    masks: new Uint8Array(16 * 256),
  } as unknown as IngressContext);
  return { next: burst.next[row], counter: burst.counter[row] };
}

Deno.test("unprotect: a counter at the end of its range is the last one that is opened", () => {
  const last = COUNTER_LIMIT - 1;
  assertEquals(outcome(last, last - 1), { next: TO_OPEN_DATAGRAM, counter: last });
  assertEquals(outcome(COUNTER_LIMIT, last).next, DROP.expired);
  assertEquals(outcome(COUNTER_LIMIT + 5, last).next, DROP.expired);
});
