/**
 * The classifier over the captures of real programs in ../shared/flows: the recall that repair and priority need, and what the
 * wrong side of it may cost. Deterministic; bench:classify has the figures one by one.
 */
import { assert, assertEquals, assertGreaterOrEqual, assertLessOrEqual } from "@std/assert";
import {
  bulkTaken,
  CLASS_OF,
  classAfter,
  precisionOfRealTime,
  scoredFlows,
  sharesOf,
} from "../../bench/classify_score.ts";
import { verdictsOf } from "../../src/cli/classify.ts";
import { CLASS_VOICE } from "../../src/control/traffic_class.ts";
import { requires } from "../kit/requires.ts";

const DIRECTORY = new URL("../../../shared/flows", import.meta.url).pathname;
const NEEDS = requires({ files: [`${DIRECTORY}/labels.tsv`] });

for (const packets of [20, 8]) {
  Deno.test({
    name:
      `captured flows: games and calls of ${packets} packets and more are known after 8, and transfers are not taken for them`,
    ...NEEDS,
    fn() {
      const flows = scoredFlows(DIRECTORY, packets);
      const real = sharesOf(flows.filter(({ truth }) => truth in CLASS_OF));
      assertGreaterOrEqual(real.flows, 31);
      assertGreaterOrEqual(real.realTime[8], 0.95);
      assertGreaterOrEqual(real.right[8], 0.9);
      assertGreaterOrEqual(real.realTime[2], 0.9);
      assertGreaterOrEqual(precisionOfRealTime(flows)[8], 0.9);
      const { packets: ofTransfers, share } = bulkTaken(flows);
      assertGreaterOrEqual(ofTransfers, 400);
      assertLessOrEqual(share, 0.01);
    },
  });
}

Deno.test({
  name: "captured flows: a meeting's media is a call from its first packets to its last",
  ...NEEDS,
  fn() {
    const meetings = scoredFlows(DIRECTORY, 20).filter(({ application }) =>
      /Zoom|Teams|Google/.test(application)
    );
    assertGreaterOrEqual(meetings.length, 5);
    for (const { flow, file } of meetings) {
      assertEquals(classAfter(flow, 2), CLASS_VOICE, file);
      const total = flow.packets[0] + flow.packets[1];
      assertGreaterOrEqual(flow.ofClass[CLASS_VOICE], total - 1, file);
    }
  },
});

Deno.test({
  name: "captured flows: classify says of each what it is recognised as, and why",
  ...NEEDS,
  fn() {
    const verdicts = verdictsOf(Deno.readFileSync(`${DIRECTORY}/zoom2.pcap`), 20);
    const media = verdicts.filter(({ protocol }) => protocol === "udp");
    assertEquals(media.length, 3);
    for (const { application, after, trafficClass, why, far } of media) {
      assertEquals([application, trafficClass, after], ["zoom", "voice", ["voice", "voice", "voice"]]);
      assert(why.startsWith("bytes of zoom"), why);
      assert(far.endsWith(":8801"), far);
    }
  },
});
