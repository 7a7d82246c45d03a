/**
 * Figures as SVG pictures. A comparison: one bar a row, to the right of the line where ours is better, to the left where
 * it is worse, on a logarithmic scale of how many times. And curves over two axes. Draws what it is given and measures
 * nothing.
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

export interface Point {
  x: number;
  y: number;
}

export interface Curve {
  label: string;
  points: Point[];
  isOurs: boolean;
}

const PLOT_WIDTH = 640, PLOT_HEIGHT = 360, MARGIN = 60;

/** Curves over two axes that begin at zero, as SVG text: ours solid, theirs dashed, each pair in a colour of its own. */
export function curveChart(title: string, axes: [x: string, y: string], curves: Curve[]): string {
  const xMax = Math.max(1, ...curves.flatMap(({ points }) => points.map(({ x }) => x)));
  const yMax = Math.max(1, ...curves.flatMap(({ points }) => points.map(({ y }) => y)));
  const x = (value: number) => plotX(value / xMax), y = (value: number) => plotY(value / yMax);
  const colours = ["#1a7f37", "#0969da", "#bf3989", "#9a6700"];
  const lines = curves.map(({ label, points, isOurs }, i) => {
    const colour = colours[(i >> 1) % colours.length];
    const dash = isOurs ? "" : ` stroke-dasharray="5 4"`;
    const path = points.map((point) => `${x(point.x)},${y(point.y)}`).join(" ");
    const dots = points.map((point) => `<circle cx="${x(point.x)}" cy="${y(point.y)}" r="2.5"/>`).join("");
    const keyY = MARGIN + 14 * i + 8, keyX = MARGIN + PLOT_WIDTH - 250;
    return `<g stroke="${colour}" fill="${colour}"><polyline points="${path}" fill="none"${dash}/>${dots}
<line x1="${keyX}" x2="${keyX + 24}" y1="${keyY - 4}" y2="${keyY - 4}"${dash}/></g>
<text x="${keyX + 30}" y="${keyY}">${escape(label)}</text>`;
  });
  return plot(title, axes, [xMax, yMax], lines, 0);
}

const plotX = (share: number) => (MARGIN + share * PLOT_WIDTH).toFixed(1);
const plotY = (share: number) => (MARGIN + (1 - share) * PLOT_HEIGHT).toFixed(1);

/** Axes that end at `most`, and `lines` in between; `aside` is room for a key at the right. */
function plot(
  title: string,
  axes: [x: string, y: string],
  most: [x: number, y: number],
  lines: string[],
  aside: number,
): string {
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((part) =>
    `<text x="${plotX(part)}" y="${MARGIN + PLOT_HEIGHT + 18}" text-anchor="middle">${
      figure(part * most[0])
    }</text><text x="${MARGIN - 8}" y="${plotY(part)}" text-anchor="end">${figure(part * most[1])}</text>`
  );
  const bottom = MARGIN + PLOT_HEIGHT;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${PLOT_WIDTH + 2 * MARGIN + aside} ${
    bottom + 50
  }" font-family="sans-serif" font-size="12" fill="${TEXT}">
<text x="${MARGIN}" y="24" font-size="14">${escape(title)}</text>
<text x="${MARGIN + PLOT_WIDTH / 2}" y="${bottom + 38}" text-anchor="middle">${escape(axes[0])}</text>
<text x="${MARGIN - 40}" y="44">${escape(axes[1])}</text>
<path d="M${MARGIN} ${MARGIN}V${bottom}H${MARGIN + PLOT_WIDTH}" fill="none" stroke="${TEXT}"/>
${ticks.join("\n")}
${lines.join("\n")}
</svg>
`;
}

/** The axis of a time chart ends at a multiple of this, so that its four ticks are round. */
const TICKS_OF = 80;
/** What theirs are drawn in, in their order. */
const GREYS = ["#8c959f", "#bf8700", "#cf222e", "#8250df"];

/** Many points over time, as lines without marks: ours thick and green, theirs thin. */
export function timeChart(title: string, axes: [x: string, y: string], curves: Curve[]): string {
  const xMax = Math.ceil(Math.max(1, ...curves.flatMap(({ points }) => points.map(({ x }) => x))));
  const yMax = TICKS_OF *
    Math.ceil(Math.max(1, ...curves.flatMap(({ points }) => points.map(({ y }) => y))) / TICKS_OF);
  const colours = GREYS[Symbol.iterator]();
  const lines = curves.map(({ label, points, isOurs }, i) => {
    const colour = isOurs ? GOOD : colours.next().value ?? TEXT;
    const keyX = MARGIN + PLOT_WIDTH + 12, keyY = MARGIN + 18 * i + 8;
    return `<g stroke="${colour}" stroke-width="${isOurs ? 2 : 1}" fill="none"><polyline points="${
      points.map((point) => `${plotX(point.x / xMax)},${plotY(point.y / yMax)}`).join(" ")
    }"/><path d="M${keyX} ${keyY - 4}h24"/></g>
<text x="${keyX + 30}" y="${keyY}">${escape(label)}</text>`;
  });
  return plot(title, axes, [xMax, yMax], lines, 150);
}
