/**
 * Numbers and times as people read them, and limits as they write them. Bytes in steps of 1024 as `status` has them, bits a second in
 * steps of 1000. Pure.
 */

/** @param {number} value @param {number} step @param {readonly string[]} prefixes @param {string} unit */
function scaled(value, step, prefixes, unit) {
  let place = 0;
  for (; value >= step && place < prefixes.length - 1; place++) value /= step;
  const shown = place === 0 || value >= 1000 ? Math.round(value) : Number(value.toPrecision(3));
  return `${shown} ${prefixes[place]}${unit}`;
}

/** @param {number} count */
export const bytes = (count) => scaled(count, 1024, ["", "Ki", "Mi", "Gi", "Ti", "Pi"], "B");

/** @param {number} bps */
export const rate = (bps) => scaled(bps, 1000, ["", "k", "M", "G", "T"], "bit/s");

/** @param {number} count */
export const amount = (count) => new Intl.NumberFormat("en").format(Math.round(count));

/** @param {number} ratio */
export const percent = (ratio) => `${(100 * Math.max(0, ratio)).toFixed(ratio > 0 && ratio < 0.1 ? 1 : 0)} %`;

/** @param {number} ms */
export const milliseconds = (ms) => `${ms < 10 ? ms.toFixed(1) : ms.toFixed(0)} ms`;

/** @param {number} seconds */
export function duration(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

/** A time of RFC 3339 in the reader's zone. @param {string} text */
export function moment(text) {
  return new Date(text).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
}

/** "14:05", or "14:05:30" for steps under a minute. @param {number} seconds since 1970 @param {boolean} hasSeconds */
export function clock(seconds, hasSeconds) {
  const style = hasSeconds ? /** @type {const} */ ("medium") : "short";
  return new Date(1000 * seconds).toLocaleTimeString("en-GB", { timeStyle: style });
}

/** As an input of type datetime-local has it, in the reader's zone; "" for none. @param {string | undefined} text */
export function toLocalInput(text) {
  if (text === undefined) return "";
  const date = new Date(text);
  return new Date(date.getTime() - 60_000 * date.getTimezoneOffset()).toISOString().slice(0, 16);
}

/** @typedef {{ expires?: string, monthlyBytes?: number, rateDownBps?: number, rateUpBps?: number, notes?: string }} Limits */
/** @typedef {Record<keyof Limits, string>} LimitTexts */

const GIB = 1 << 30, MBIT = 1e6;

/** A device's limits as the inputs have them: GiB, Mbit/s, the reader's time; "" for none. @param {Limits} device @returns {LimitTexts} */
export function limitTexts({ expires, monthlyBytes, rateDownBps, rateUpBps, notes = "" }) {
  const number = (/** @type {number | undefined} */ value, /** @type {number} */ unit) =>
    value === undefined ? "" : String(Number((value / unit).toPrecision(6)));
  return {
    expires: toLocalInput(expires),
    monthlyBytes: number(monthlyBytes, GIB),
    rateDownBps: number(rateDownBps, MBIT),
    rateUpBps: number(rateUpBps, MBIT),
    notes,
  };
}

/**
 * What /v1 is to be told of the inputs whose text is another than before: null for what was emptied. What nobody touched is left out, as
 * its text has not all digits, and as somebody else may have changed the limit meanwhile.
 * @param {LimitTexts} before @param {LimitTexts} now
 */
export function limitChanges(before, now) {
  const number = (/** @type {number} */ unit) => (/** @type {string} */ text) =>
    Math.round(Number(text) * unit);
  /** @type {Record<keyof Limits, (text: string) => string | number>} */
  const meanings = {
    expires: (text) => new Date(text).toISOString(),
    monthlyBytes: number(GIB),
    rateDownBps: number(MBIT),
    rateUpBps: number(MBIT),
    notes: (text) => text,
  };
  const names = /** @type {(keyof Limits)[]} */ (Object.keys(meanings));
  return Object.fromEntries(
    names.filter((name) => now[name] !== before[name])
      .map((name) => [name, now[name].trim() === "" ? null : meanings[name](now[name].trim())]),
  );
}
