/**
 * The choice among several relays, as properties over rounds of probes: who answers is used, who is left must have been
 * clearly worse, and noise moves nobody.
 */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { ServerChoice } from "../../src/control/server_choice.ts";

const rtt = fc.option(fc.double({ min: 0.1, max: 400, noNaN: true }), { nil: undefined, freq: 4 });
const rounds = fc.integer({ min: 2, max: 5 }).chain((servers) =>
  fc.array(fc.tuple(fc.array(rtt, { minLength: servers, maxLength: servers }), fc.boolean()), {
    maxLength: 40,
  })
);

Deno.test("server choice: the first round takes the nearest that answered", () => {
  assertEquals(new ServerChoice().round([30, 12, 14], false), 1);
  assertEquals(new ServerChoice().round([30, undefined, 14], false), 2);
  const nobody = new ServerChoice();
  assertEquals(nobody.round([undefined, undefined], true), 0);
  assertEquals(nobody.round([undefined, 50], true), 1);
});

Deno.test("server choice: a live relay is left after three rounds of somebody clearly nearer, and not sooner", () => {
  const choice = new ServerChoice();
  choice.round([10, 100], false);
  assertEquals([1, 2, 3].map(() => choice.round([30, 23], false)), [0, 0, 1]);
  assertEquals(
    [1, 2, 3, 4].map(() => choice.round([19, 23], false)),
    [1, 1, 1, 1],
    "19 is not 20 % below 23",
  );
  assertEquals([1, 2, 3, 4].map(() => choice.round([1, 5], false)), [1, 1, 1, 1], "4 ms are nobody's gain");
  assertEquals([[10, 40], [10, 40], [40, 40], [10, 40], [10, 40]].map((r) => choice.round(r, false)), [
    ...[1, 1, 1, 1, 1],
  ], "two rounds, a break, two rounds");
  assertEquals(choice.round([10, 40], false), 0);
});

Deno.test("server choice: a dead relay is left at once for one that answers, and back only by its own merit", () => {
  const choice = new ServerChoice();
  choice.round([10, 30, 20], false);
  assertEquals(choice.round([undefined, 30, 20], true), 2);
  assertEquals(choice.round([undefined, 30, 20], false), 2);
  assertEquals([1, 2, 3].map(() => choice.round([10, 30, 20], false)), [2, 2, 0]);
  assertEquals(
    choice.round([undefined, undefined, undefined], true),
    0,
    "without a network there is no choice",
  );
  assertEquals(choice.round([10, 30, 20], true), 0, "it answers: a handshake will mend it");
});

Deno.test("server choice: one that answers probes and never the session is given up", () => {
  const choice = new ServerChoice();
  choice.round([10, 30], false);
  assertEquals([1, 2, 3].map(() => choice.round([10, 30], true)), [0, 0, 1]);
});

Deno.test("server choice: whatever comes, every change has its reason", () => {
  fc.assert(fc.property(rounds, (all) => {
    const choice = new ServerChoice();
    let wasNearer = 0, isFirst = true;
    for (const [rtts, isDead] of all) {
      const before = choice.chosen;
      const now = choice.round(rtts, isDead);
      assertEquals(choice.chosen, now);
      assert(now >= 0 && now < rtts.length);
      const answered = rtts.filter((one) => one !== undefined);
      const own = rtts[before];
      const isNearer = own !== undefined && answered.some((one) => one < 0.8 * own && one < own - 5);
      if (!isDead) wasNearer = isNearer ? wasNearer + 1 : 0;
      if (isFirst && answered.length > 0) {
        isFirst = false;
        assertEquals(rtts[now], Math.min(...answered));
        wasNearer = 0;
        continue;
      }
      if (now === before) continue;
      assert(rtts[now] !== undefined, "only one that answered is chosen");
      assert(isDead || wasNearer >= 3, `${before} to ${now} after ${wasNearer} rounds`);
      const others = rtts.map((rtt, i) => i === before ? Infinity : rtt ?? Infinity);
      if (isDead) assertEquals(rtts[now], Math.min(...others));
      wasNearer = 0;
    }
  }));
});

Deno.test("server choice: noise of a fifth between equals moves nobody", () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(...[0, 1, 2].map(() => fc.double({ min: 40, max: 49, noNaN: true })))),
      (all) => {
        const choice = new ServerChoice();
        const first = choice.round([45, 46, 47], false);
        for (const rtts of all) assertEquals(choice.round(rtts, false), first);
      },
    ),
  );
});
