/**
 * A comparison as an SVG picture: one bar a row, to the right of the line where ours is better, to the left where it
 * is worse, on a logarithmic scale of how many times. Draws what it is given and measures nothing.
 */

export interface Comparison {
  label: string;
  ours: number;
  theirs: number;
  /** Which direction is better. */
  better: "more" | "less";
}

const ROW = 26, LEFT = 250, HALF = 180, RIGHT = 190, TOP = 56;
const GOOD = "#1a7f37", BAD = "#cf222e", TEXT = "#57606a";

/** How many times better ours is; below 1 it is worse. */
export function advantage({ ours, theirs, better }: Comparison): number {
  return better === "more" ? ours / theirs : theirs / ours;
}

/** The picture as SVG text. The scale ends at the largest advantage either way, at least twofold. */
export function comparisonChart(
  title: string,
  names: [ours: string, theirs: string],
  rows: Comparison[],
): string {
  const edge = Math.max(1, ...rows.map((row) => Math.abs(Math.log2(advantage(row)))));
  const middle = LEFT + HALF, width = LEFT + 2 * HALF + RIGHT, height = TOP + ROW * rows.length + 16;
  const bars = rows.map((row, i) => {
    const times = Math.log2(advantage(row));
    const length = Math.abs(times) / edge * HALF, y = TOP + ROW * i;
    const x = times >= 0 ? middle : middle - length;
    return `<text x="${LEFT - 12}" y="${y + 16}" text-anchor="end">${escape(row.label)}</text>
<rect x="${x.toFixed(1)}" y="${y + 4}" width="${length.toFixed(1)}" height="${ROW - 8}" rx="2" fill="${
      times >= 0 ? GOOD : BAD
    }"/>
<text x="${middle + HALF + 12}" y="${y + 16}">${figure(row.ours)} / ${figure(row.theirs)}</text>`;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="12" fill="${TEXT}">
<text x="${middle}" y="20" text-anchor="middle" font-size="14">${escape(title)}</text>
<text x="${middle - 8}" y="42" text-anchor="end">worse, down to ${figure(2 ** edge)}×</text>
<text x="${middle + 8}" y="42">better, up to ${figure(2 ** edge)}×</text>
<text x="${middle + HALF + 12}" y="42">${escape(names.join(" / "))}</text>
${bars.join("\n")}
<line x1="${middle}" x2="${middle}" y1="${TOP - 6}" y2="${height - 10}" stroke="${TEXT}"/>
</svg>
`;
}

function figure(value: number): string {
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

function escape(text: string): string {
  return text.replace(/[&<>]/g, (character) => `&#${character.charCodeAt(0)};`);
}
