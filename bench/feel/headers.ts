/**
 * `deno task bench:feel --headers`: what short packets change for repair: the same game with the same budgets, with all headers
 * and without those that both ends know, and what stays lost at equal bytes. Invariant: bytes are over those of the run with
 * all headers and without repair, for both. Measures nothing itself.
 */
import { auto, MAIN_PLACES, type Measure, type Plan, type Row, SHARES } from "./measure.ts";
import { NONE, type Scheme } from "./play.ts";

const without = (scheme: Scheme): Scheme => ({
  ...scheme,
  label: `${scheme.label}, short packets`,
  hasShortPackets: true,
});

/** @param seconds of each run. */
export function headersPlan(seconds: number): Plan {
  const schemes = [NONE, ...SHARES.map(auto)].flatMap((scheme) => [scheme, without(scheme)]);
  const entries = (["game64", "opus"] as const).flatMap((workload) =>
    MAIN_PLACES.flatMap((place) => schemes.map((scheme) => ({ workload, place, scheme, seconds })))
  );
  return { entries, bounds: [] };
}

/** The residual of the rows at these extra bytes, its logarithm taken as straight between two of them; undefined outside. */
function residualAt(rows: readonly Row[], extra: number): number | undefined {
  const sorted = rows.toSorted((a, b) => a.extra - b.extra);
  for (let i = 1; i < sorted.length; i++) {
    const [low, high] = [sorted[i - 1], sorted[i]];
    if (low.extra > extra || high.extra < extra) continue;
    const share = high.extra === low.extra ? 0 : (extra - low.extra) / (high.extra - low.extra);
    const [from, to] = [low, high].map((row) => Math.log(Math.max(row.score.residual, 1e-6)));
    return Math.exp(from + share * (to - from));
  }
}

const percent = (share: number | undefined, digits = 1) =>
  share === undefined ? "beyond" : `${(100 * share).toFixed(digits)} %`;

export function headersReport({ rows }: Measure): string {
  const lines = [
    "| traffic, path | budget | all headers: residual (bytes) | short packets: residual (bytes) | short packets at the bytes of all headers |",
    "|---|---|---|---|---|",
  ];
  for (const workload of ["game64", "opus"] as const) {
    for (const place of MAIN_PLACES) {
      const here = rows.filter((row) => row.workload === workload && row.place === place);
      const short = here.filter(({ scheme }) => scheme.hasShortPackets);
      for (const row of here.filter(({ scheme }) => !scheme.hasShortPackets)) {
        const same = short.find(({ scheme }) =>
          scheme.code === row.scheme.code && scheme.budget === row.scheme.budget
        )!;
        const cell = ({ score, extra }: Row) => `${percent(score.residual, 2)} (${percent(extra, 0)})`;
        const equal = residualAt(short, row.extra);
        const label = row.scheme.code === "none" ? "none" : percent(row.scheme.budget, 0);
        lines.push(
          `| ${workload}, ${place} | ${label} | ${cell(row)} | ${cell(same)} | ${percent(equal, 2)} |`,
        );
      }
    }
  }
  return `${lines.join("\n")}\n`;
}
