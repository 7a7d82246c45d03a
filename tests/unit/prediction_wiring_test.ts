/** Predictions where they are used: the default is the one that is documented, and each session has one that follows its path. */
import { assert, assertEquals, assertGreater, assertNotEquals } from "@std/assert";
import { PortableShardKernel } from "../../src/codec/gf256.ts";
import { makePredictor, type PredictorKind, PREDICTORS } from "../../src/repair/prediction/predictor.ts";
import { CLASS_GAME } from "../../src/control/traffic_class.ts";
import { DEFAULTS } from "../../src/config.ts";
import { repairOptions } from "../../src/repair/options.ts";
import { Repairs } from "../../src/repair/pool.ts";
import type { RepairPlanner } from "../../src/repair/planner.ts";
import { Report } from "../../src/wire/report.ts";

const kernel = new PortableShardKernel();
const REPORT_US = 50_000, DATAGRAMS = 8;

/** A session with the predictor, whose other end reports `lost` datagrams of each eight; and what it expects after each report. */
function session(
  predictor: PredictorKind | "default" | undefined,
  lost: readonly number[],
  onReport: (repair: RepairPlanner) => void = () => {},
): number[] {
  const { budgetPercent, gameDeadlineMs, voiceDeadlineMs } = DEFAULTS.repair;
  const options = repairOptions(kernel, { budgetPercent, gameDeadlineMs, voiceDeadlineMs, predictor });
  const repair = new Repairs(options, { add() {} }).takeSender()!;
  const report = new Report(), bytes = new Uint8Array(256);
  let counter = 0;
  return lost.map((_, n) => {
    const nowUs = (n + 1) * REPORT_US;
    for (let i = 0; i < DATAGRAMS; i++) {
      repair.quality.sent(counter, true, true, nowUs - REPORT_US / 2 + 1000 * i);
      repair.sent(bytes, 0, 100, counter++, CLASS_GAME, nowUs - REPORT_US / 2 + 1000 * i);
    }
    // Of each eight datagrams this many, the first ones, did not arrive.
    report.highest = counter - 1;
    report.bitmapBytes = Math.min(4, report.highest >> 3);
    report.bitmap.fill(0);
    for (let i = 0; i < 8 * report.bitmapBytes; i++) {
      const group = Math.floor((report.highest - 1 - i) / DATAGRAMS),
        place = (report.highest - 1 - i) % DATAGRAMS;
      if (place >= (lost[group] ?? 0)) report.bitmap[i >> 3] |= 1 << (i & 7);
    }
    repair.onReport(report, nowUs);
    onReport(repair);
    return repair.predictor!.lossAhead;
  });
}

const QUIET = Array.from({ length: 60 }, () => 0);
const LOSING = Array.from({ length: 60 }, (_, n) => n % 20 < 8 ? 5 : 0);

Deno.test("prediction: the default is the predictor that the example of the configuration names", async () => {
  const text = await Deno.readTextFile(new URL("../../oxrelay.example.toml", import.meta.url));
  const named = /"default", the one that measured best \("(\w+)"\)/.exec(text)![1] as PredictorKind;
  assert(PREDICTORS.includes(named));
  assertEquals(DEFAULTS.repair.predictor, "default");
  const byDefault = session(undefined, LOSING);
  assertEquals(session("default", LOSING), byDefault);
  for (const kind of PREDICTORS) {
    if (kind === named) assertEquals(session(kind, LOSING), byDefault);
    else assertNotEquals(session(kind, LOSING), byDefault, kind);
  }
});

Deno.test("prediction: each session's predictor sees its own reports, and follows them", () => {
  for (const kind of PREDICTORS) {
    const twin = makePredictor(kind), expected: number[] = [];
    const said = session(kind, LOSING, ({ quality }) => {
      twin.observe(quality.step);
      expected.push(twin.lossAhead);
    });
    assertEquals(said, expected, `${kind}: as one that is shown the same steps`);
    if (kind === "delay") continue; // it follows queues, and there are none
    assertGreater(Math.max(...said) - Math.min(...said), 0.05, `${kind}: it moves`);
    const quiet = session(kind, QUIET);
    assertGreater(Math.max(...said), 2 * Math.max(...quiet), `${kind}: beside a path that loses nothing`);
  }
});

Deno.test("prediction: what a session expects is what its repair is planned by", () => {
  /** What repairs cost on a path that loses nothing, by what its predictor says. */
  const planned = (lossAhead: number) => {
    let last: RepairPlanner | undefined;
    session(undefined, QUIET, (repair) => {
      repair.predictor = { lossAhead, observe() {} };
      last = repair;
    });
    return last!.sender.lanes[0].plan;
  };
  assertGreater(planned(0.4).share, 5 * planned(0).share);
});
