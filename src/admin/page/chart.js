/**
 * Line charts over time, as SVG: axes with round steps, one colour a line, a summary in words as the accessible name. Invariant: a gap in
 * the samples is a gap in the line; what is drawn is as wide as the place for it. Fetches nothing.
 */
import { el, svg } from "./dom.js";
import { clock } from "./format.js";
import { TEXTS } from "./texts.js";

/** @typedef {{ label: string, className: string, values: (number | undefined)[] }} Line */

const HEIGHT = 180, LEFT = 72, RIGHT = 8, TOP = 8, BOTTOM = 22;
const STEPS_S = [10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 10_800, 21_600];

/** The least round number (1, 2 or 5 times a power of ten) that is not below `value`. @param {number} value */
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((digit) => digit * power).find((round) => round >= value) ?? value;
}

/**
 * A figure with a chart of lines.
 * @param {string} title
 * @param {(value: number) => string} format
 * @param {number} floor the least height of the value axis
 */
export function chart(title, format, floor) {
  const legend = el("div", { class: "legend" });
  const drawing = svg("svg", { class: "chart", role: "img", height: HEIGHT });
  const figure = el("figure", {}, el("figcaption", {}, title, legend), drawing);

  /** @param {readonly number[]} times seconds since 1970 @param {number} stepS @param {readonly Line[]} lines */
  function draw(times, stepS, lines) {
    const width = drawing.clientWidth || 600;
    drawing.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    if (times.length < 2) {
      drawing.replaceChildren(svg("text", { x: LEFT, y: HEIGHT / 2 }, TEXTS.traffic.empty));
      drawing.setAttribute("aria-label", TEXTS.traffic.empty);
      return;
    }
    const from = times[0], to = times[times.length - 1];
    const highest = Math.max(floor, ...lines.flatMap(({ values }) => values.map((value) => value ?? 0)));
    const step = roundUp(highest / 4), top = step * Math.ceil(highest / step);
    const x = (/** @type {number} */ time) => LEFT + (width - LEFT - RIGHT) * (time - from) / (to - from);
    const y = (/** @type {number} */ value) => HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top;
    drawing.replaceChildren(
      ...valueAxis(step, top, width, y, format),
      ...timeAxis(from, to, width, x),
      ...lines.map(({ className, values }) =>
        svg("path", { class: `line ${className}`, d: pathOf(times, values, stepS, x, y) })
      ),
    );
    const summaries = lines.map(({ label, values }) =>
      TEXTS.traffic.summary(
        label === title ? "" : label,
        format(values[values.length - 1] ?? 0),
        format(Math.max(...values.map((value) => value ?? 0))),
      )
    );
    drawing.setAttribute("aria-label", `${title}. ${summaries.join(". ")}`);
    legend.replaceChildren(
      ...lines.map(({ className }, i) => el("span", { class: className }, summaries[i])),
    );
  }
  return { figure, draw };
}

/**
 * @param {number} step @param {number} top @param {number} width @param {(value: number) => number} y
 * @param {(value: number) => string} format
 */
function valueAxis(step, top, width, y, format) {
  const marks = [];
  for (let value = 0; value <= top + step / 2; value += step) {
    marks.push(
      svg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }),
      svg("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, format(value)),
    );
  }
  return marks;
}

/** @param {number} from @param {number} to @param {number} width @param {(time: number) => number} x */
function timeAxis(from, to, width, x) {
  const least = (to - from) * 90 / Math.max(1, width - LEFT - RIGHT);
  const step = STEPS_S.find((seconds) => seconds >= least) ?? 43_200;
  const marks = [];
  // Round in the reader's zone.
  const zone = 60 * new Date(1000 * from).getTimezoneOffset();
  for (let time = Math.ceil((from - zone) / step) * step + zone; time <= to; time += step) {
    marks.push(
      svg("line", { class: "grid", x1: x(time), x2: x(time), y1: TOP, y2: HEIGHT - BOTTOM }),
      svg("text", { x: x(time), y: HEIGHT - 6, "text-anchor": "middle" }, clock(time, step < 60)),
    );
  }
  return marks;
}

/**
 * @param {readonly number[]} times @param {readonly (number | undefined)[]} values @param {number} stepS
 * @param {(time: number) => number} x @param {(value: number) => number} y
 */
function pathOf(times, values, stepS, x, y) {
  let path = "", before = -Infinity;
  for (const [i, value] of values.entries()) {
    if (value === undefined) continue;
    path += `${times[i] - before > 3 * stepS ? "M" : "L"}${x(times[i]).toFixed(1)} ${y(value).toFixed(1)}`;
    before = times[i];
  }
  return path;
}
