/**
 * The arithmetic of the measure of repair: scores of packets worked out by hand, a call's best playout, the bound against trying
 * every way to spend a budget, and residuals between measured shares; and that what is published is what was printed.
 */
import { assert, assertAlmostEquals, assertEquals, assertGreater } from "@std/assert";
import fc from "fast-check";
import { blindBound } from "../../bench/feel/bound.ts";
import { G711 } from "../kit/speech.ts";
import { residualAt, type Row } from "../../bench/feel/measure.ts";
import { type Carrier, leastLost, type Original } from "../../bench/feel/oracle.ts";
import { NONE } from "../../bench/feel/play.ts";
import { score, speechRating } from "../../bench/feel/score.ts";

/** Packets every 10 ms over a path of 20 ms; how late each is, milliseconds. */
function received(lateMs: number[]) {
  const sentUs = lateMs.map((_, n) => 10_000 * n), expectedUs = sentUs.map((us) => us + 20_000);
  return { sentUs, expectedUs, arrivedUs: lateMs.map((ms, n) => expectedUs[n] + 1000 * ms) };
}

Deno.test("score: lost, late, in a row", () => {
  const lost = Infinity;
  const up = received([0, lost, 61, 59, 60, lost, lost, 100, 0, 5]);
  const { residual, residualRelaxed, longRunsPerMinute, ...rest } = score([up], 60_000);
  assertEquals(rest, {
    packets: 10,
    lost: 5,
    addedMsP50: 59,
    addedMsP99: 100,
    addedMsP999: 100,
  });
  assertAlmostEquals(residual, 0.5);
  assertAlmostEquals(residualRelaxed, 0.4);
  // One in 90 ms.
  assertAlmostEquals(longRunsPerMinute, 60_000 / 90, 1e-9);
  const both = score([up, received([lost, lost, 0, 0, 0, lost])], 60_000);
  assertEquals([both.packets, both.lost], [16, 8]);
  assertAlmostEquals(both.longRunsPerMinute, 60_000 / 140, 1e-9); // Runs end with their direction.
});

Deno.test("score: a call waits as long as pays", () => {
  const steady = speechRating(received(new Array(1000).fill(0)), 100_000, G711);
  assertAlmostEquals(steady, 93.2, 1e-9);
  // A packet in ten comes 40 ms late: to wait for them costs nothing up to 100 ms from mouth to ear.
  const late = received(new Array(1000).fill(0).map((_, n) => n % 10 === 0 ? 40 : 0));
  assertAlmostEquals(speechRating(late, 100_000, G711), 93.2, 1e-9);
  assertAlmostEquals(speechRating(late, 39_000, G711), 93.2 - 95 * 10 / (10 / 0.9 + 25.1), 1e-9);
  // One in a thousand is not worth 90 ms to all.
  const once = received(new Array(1000).fill(0).map((_, n) => n === 500 ? 190 : 0));
  const lossOnly = 93.2 - 95 * 0.1 / (0.1 / 0.999 + 25.1);
  assertAlmostEquals(speechRating(once, 200_000, G711), lossOnly, 1e-9);
  assertGreater(steady, lossOnly);
});

/** Tries every carrier or none for every lost packet. */
function leastLostByForce(originals: Original[], carriers: Carrier[], budget: number): number {
  const lost = originals.filter(({ arrivedUs, limitUs }) => arrivedUs > limitUs);
  const saved = (n: number, left: number): number => {
    if (n === lost.length) return 0;
    const { sentUs, limitUs, bytes } = lost[n];
    let best = saved(n + 1, left);
    for (const carrier of carriers) {
      if (carrier.sentUs <= sentUs || carrier.arrivedUs > limitUs || bytes > left) continue;
      best = Math.max(best, 1 + saved(n + 1, left - bytes));
    }
    return best;
  };
  return lost.length - saved(0, budget);
}

Deno.test("bound: as good as trying everything, and no better", () => {
  let repaired = 0;
  const packet = fc.record({
    isLost: fc.boolean(),
    delayUs: fc.nat(9),
    bytes: fc.integer({ min: 1, max: 9 }),
  });
  fc.assert(fc.property(
    fc.array(packet, { maxLength: 9 }),
    fc.nat(5),
    fc.nat(30),
    fc.array(fc.tuple(fc.nat(24), fc.nat(9)), { maxLength: 6 }),
    (packets, deadlineUs, budget, others) => {
      const originals = packets.map(({ isLost, delayUs, bytes }, n) => ({
        sentUs: 3 * n,
        arrivedUs: isLost ? Infinity : 3 * n + delayUs,
        bytes,
        limitUs: 3 * n + 9 + deadlineUs,
      }));
      const carriers: Carrier[] = others.map(([sentUs, delayUs]) => ({
        sentUs,
        arrivedUs: sentUs + delayUs,
      }));
      carriers.push(...originals.filter((_, n) => n % 3 === 0));
      carriers.sort((a, b) => a.sentUs - b.sentUs);
      const found = leastLost(originals, carriers, budget);
      assertEquals(found, leastLostByForce(originals, carriers, budget));
      repaired += packets.filter(({ isLost }) => isLost).length - found;
    },
  ));
  assert(repaired > 0);
});

Deno.test("bound of a sender that does not know: by hand", () => {
  const stream = { packetsPerSecond: 50, bytesMin: 22, bytesMax: 22 };
  const workload = { label: "", trafficClass: 0, deadlineUs: 50_000, up: stream, down: stream };
  // Two later datagrams are in time; 50 bytes inside, 100 outside; 0.1 - 2 * 0.2 * 0.9 * (1 - 0.81).
  assertAlmostEquals(blindBound(workload, 0.2, 0.1), 0.0316, 1e-9);
  assertEquals(blindBound(workload, 1, 0.1), 0);
});

Deno.test("residuals between measured shares are straight in their logarithm", () => {
  const row = (extra: number, residual: number) =>
    ({ scheme: NONE, extra, score: { residual, packets: 1000 } }) as unknown as Row;
  const rows = [row(1, 0), row(0, 0.05), row(0.5, 0.0005)];
  assertAlmostEquals(residualAt(rows, 0), 0.05);
  assertAlmostEquals(residualAt(rows, 0.25), 0.005);
  assertAlmostEquals(residualAt(rows, 0.5), 0.0005);
  assertAlmostEquals(residualAt(rows, 7), 0.0005, 1e-9); // None of a thousand counts as half a packet.
});

/** The rows of a Markdown text's tables, as cells. */
function rowsOf(markdown: string): string[][] {
  const rows = markdown.split("\n").filter((line) => line.startsWith("|") && !line.startsWith("|--"));
  return rows.map((row) => row.split("|").slice(1, -1).map((cell) => cell.trim()));
}

/** A file of this project, from one heading to the next of the same depth. */
function textOf(file: string, heading = ""): string {
  const text = Deno.readTextFileSync(new URL(`../../${file}`, import.meta.url));
  if (heading === "") return text;
  const [, rest] = text.split(`\n${heading}`);
  return rest.split(`\n${heading.split(" ")[0]} `)[0];
}

Deno.test("what is published of repair is what the benches printed", () => {
  const printed = rowsOf(textOf("bench/results/feel.md")).map((row) => row.join("|"));
  const quoted = rowsOf(textOf("bench/docs/feel.md"));
  assertGreater(quoted.length, 20);
  for (const row of quoted) assert(printed.includes(row.join("|")), row.join(" | "));

  // Those over sockets are the means of both ways: rows of results/feel_sockets.md hold 11 cells.
  const measured = textOf("bench/results/feel_sockets.md").split("### ").slice(1).map((section) => ({
    title: section.split("\n")[0],
    rows: new Map(rowsOf(section).map((row) => [row[0], row])),
  }));
  const places = [["game", "random"], ["game", "bursts"], ["Opus", "random"], ["Opus", "bursts"]];
  const [, ...shares] = rowsOf(textOf("bench/docs/feel_sockets.md"));
  assertEquals(shares.length, 7);
  for (const [name, ...cells] of shares) {
    places.forEach(([traffic, path], i) => {
      const { rows } = measured.find(({ title }) =>
        title.startsWith(traffic) && title.includes(`"${path}"`)
      )!;
      const [, up, down] = rows.get(name)!, extra = rows.get(name)![8];
      const [, share, bytes] = /^([\d.]+) % \((.+)\)$/.exec(cells[i])!;
      assertAlmostEquals(Number(share), (parseFloat(up) + parseFloat(down)) / 2, 0.0051);
      assertEquals(bytes, extra, `${name}, ${path}`);
    });
  }

  const ofNear = new Map(rowsOf(textOf("bench/results/feel_sockets_near.md")).map((row) => [row[0], row]));
  const [, ...quotedNear] = rowsOf(textOf("bench/docs/feel_sockets_near.md"));
  assertEquals(quotedNear.length, 8);
  for (const [name, ...cells] of quotedNear) {
    assertEquals(cells, [1, 2, 5, 8, 10].map((i) => ofNear.get(name)![i]), name);
  }

  const achieved = rowsOf(textOf("docs/loss-repair.md", "## What it achieves"));
  const second = achieved.findLastIndex(([first]) => first === "");
  const names = ["OxTunnel, no repair", "OxTunnel", "OxTunnel, up to 100 %"];
  assertEquals(
    achieved.slice(second + 1).map(([, ...cells]) => cells),
    names.map((name) => shares.find((row) => row[0] === name)!.slice(1).map((cell) => cell.split(" %")[0])),
  );

  // Those near are cells of results/feel_near.md, whose columns are round trips of 5, 10, 20, 40 and 80 ms.
  const near = rowsOf(textOf("bench/results/feel_near.md", "## Residual at the deadline"));
  const [columns, ...rows] = achieved.slice(0, second);
  assertEquals(columns.slice(1), ["5 ms", "20 ms", "40 ms", "80 ms"]);
  assertEquals(rows.length, 5);
  for (const [name, ...cells] of rows) {
    const [traffic, losses, budget] = name.split(", ");
    const scheme = `${traffic === "game" ? "game64" : "opus"}, ${
      losses === "at random" ? "random" : "bursts"
    }, with requests, ${budget}`;
    const [, ...shares] = near.find(([first]) => first === scheme)!;
    assertEquals(cells, [0, 2, 3, 4].map((i) => shares[i].replace(" %", "")), name);
  }
});
