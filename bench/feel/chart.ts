/**
 * The picture of the measure of repair: residual loss against extra bytes, one panel for each path, one curve for each scheme, the
 * goals and the bound. Colours and lines keep their contrast on light and on dark ground, and every curve has a mark of its own shape.
 * Draws what it is given and measures nothing.
 */

export interface Curve {
  label: string;
  /** Shares, 0 to 1. */
  points: { extra: number; residual: number }[];
  style: "ours" | "theirs" | "bound";
}

export interface Panel {
  title: string;
  curves: Curve[];
  /** The goal: a residual of at most `residual` with at most `extra`, shares of packets and of bytes. */
  goal?: { extra: number; residual: number };
}

const WIDTH = 270, HEIGHT = 250, LEFT = 62, GAP = 34, TOP = 84, BOTTOM = 56, RIGHT = 16;
const INK = "#768089", FAINT = "#8b949e";
const COLOURS = ["#2f8f4e", "#1f7fe0", "#c2491d", "#a06a00", "#8a63d2", INK];
/** The axes: extra bytes 0 to 1.1, residual 0.01 % to 10 %; what is less lies on the lower edge. */
const EXTRA_MAX = 1.1, RESIDUAL_MIN = 1e-4, RESIDUAL_MAX = 0.1;

/** Shapes around 0, 0. */
const MARKS = [
  `<circle r="4"/>`,
  `<rect x="-3.5" y="-3.5" width="7" height="7"/>`,
  `<path d="M0 -4.5L4.5 3.5H-4.5Z"/>`,
  `<path d="M0 -5L5 0L0 5L-5 0Z"/>`,
  `<path d="M-4 -4L4 4M-4 4L4 -4" stroke-width="2"/>`,
  `<path d="M-4 0H4" stroke-width="2"/>`,
];

/** The picture as SVG text. Curves with one label look the same in all panels. */
export function feelChart(title: string, panels: readonly Panel[]): string {
  const width = LEFT + panels.length * (WIDTH + GAP) - GAP + RIGHT;
  const labels = [...new Set(panels.flatMap(({ curves }) => curves.map(({ label }) => label)))];
  const looks = new Map(labels.map((label, i) => [label, i % COLOURS.length]));
  const drawn = panels.map((panel, i) => drawPanel(panel, LEFT + i * (WIDTH + GAP), i === 0, looks));
  const each = (width - LEFT) / labels.length;
  const key = labels.map((label, i) => {
    const look = looks.get(label)!;
    return `<g transform="translate(${(LEFT + 6 + i * each).toFixed(1)} 46)" fill="${
      COLOURS[look]
    }" stroke="${COLOURS[look]}">${MARKS[look]}</g><text x="${
      (LEFT + 16 + i * each).toFixed(1)
    }" y="50">${label}</text>`;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${
    TOP + HEIGHT + BOTTOM
  }" font-family="sans-serif" font-size="12" fill="${INK}">
<text x="${LEFT}" y="24" font-size="14">${title}</text>
${key.join("\n")}
${drawn.join("\n")}
<text x="${(LEFT + width) / 2}" y="${
    TOP + HEIGHT + 44
  }" text-anchor="middle">extra bytes, % of those without repair</text>
<text transform="translate(16 ${
    TOP + HEIGHT / 2
  }) rotate(-90)" text-anchor="middle">residual loss at the deadline, %</text>
</svg>
`;
}

function drawPanel(
  { title, curves, goal }: Panel,
  left: number,
  hasScale: boolean,
  looks: Map<string, number>,
): string {
  const x = (extra: number) => (left + Math.min(1, Math.max(0, extra / EXTRA_MAX)) * WIDTH).toFixed(1);
  const span = Math.log(RESIDUAL_MAX / RESIDUAL_MIN);
  const y = (residual: number) => {
    const within = Math.min(RESIDUAL_MAX, Math.max(RESIDUAL_MIN, residual));
    return (TOP + Math.log(RESIDUAL_MAX / within) / span * HEIGHT).toFixed(1);
  };
  const lines: string[] = [
    `<text x="${left + WIDTH / 2}" y="${TOP - 10}" text-anchor="middle">${title}</text>`,
  ];
  for (let decade = RESIDUAL_MIN; decade <= RESIDUAL_MAX * 1.01; decade *= 10) {
    lines.push(`<path d="M${left} ${y(decade)}h${WIDTH}" stroke="${FAINT}" stroke-opacity="0.35"/>`);
    if (hasScale) {
      lines.push(
        `<text x="${left - 8}" y="${Number(y(decade)) + 4}" text-anchor="end">${
          Number((100 * decade).toPrecision(1))
        }</text>`,
      );
    }
  }
  for (const extra of [0, 0.25, 0.5, 0.75, 1]) {
    lines.push(
      `<text x="${x(extra)}" y="${TOP + HEIGHT + 18}" text-anchor="middle">${100 * extra}</text>`,
      `<path d="M${x(extra)} ${TOP + HEIGHT}v4" stroke="${INK}"/>`,
    );
  }
  lines.push(`<path d="M${left} ${TOP}v${HEIGHT}h${WIDTH}" fill="none" stroke="${INK}"/>`);
  if (goal) {
    lines.push(
      `<path d="M${left} ${y(goal.residual)}H${x(goal.extra)}V${
        TOP + HEIGHT
      }" fill="none" stroke="${INK}" stroke-dasharray="2 3"/>`,
      `<text x="${left + 5}" y="${Number(y(goal.residual)) + 14}" font-size="11">goal</text>`,
    );
  }
  // Ours last, so that it lies on top.
  const drawn = [
    ...curves.filter(({ style }) => style !== "ours"),
    ...curves.filter(({ style }) => style === "ours"),
  ];
  for (const { label, points, style } of drawn) {
    const look = looks.get(label)!;
    const sorted = points.toSorted((a, b) => a.extra - b.extra);
    const path = sorted.map(({ extra, residual }) => `${x(extra)},${y(residual)}`).join(" ");
    const marks = sorted.map(({ extra, residual }) =>
      `<g transform="translate(${x(extra)} ${y(residual)})">${MARKS[look]}</g>`
    );
    const [strokeWidth, dash] = style === "ours" ? [2.5, ""] : [1.3, style === "bound" ? "6 4" : ""];
    lines.push(
      `<g stroke="${COLOURS[look]}" fill="${
        COLOURS[look]
      }"><polyline points="${path}" fill="none" stroke-width="${strokeWidth}" stroke-dasharray="${dash}"/>${
        marks.join("")
      }</g>`,
    );
  }
  return lines.join("\n");
}
