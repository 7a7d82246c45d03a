/**
 * How long a wait in the kernel lasts: held packets have deadlines of less than a millisecond. The real call, with
 * nothing to wait for.
 */
import { assert } from "@std/assert";
import { PollSet } from "../../src/io/poll.ts";

Deno.test({
  name: "poll: a wait ends within its millisecond, not at the next",
  ignore: Deno.build.os !== "linux",
  fn() {
    const set = new PollSet([undefined]);
    let shortestMs = Infinity;
    // The machine may be busy: one of them shows that it can.
    for (let i = 0; i < 5000 && shortestMs >= 0.8; i++) {
      const start = performance.now();
      set.wait(0.2);
      const took = performance.now() - start;
      assert(took >= 0.2, `${took}`);
      shortestMs = Math.min(shortestMs, took);
    }
    assert(shortestMs < 0.8, `${shortestMs}`);
  },
});
