/**
 * The fields of a device's limits, and what they mean to the relay: shared by adding, changing and inviting. Invariant: what the fields
 * give back is what /v1 takes, null for a field that is empty. Asks the relay nothing.
 */
import { el, field } from "./dom.js";
import { toLocalInput } from "./format.js";
import { TEXTS } from "./texts.js";

/**
 * @typedef {{ name: string, expires?: string, monthlyBytes?: number, rateDownBps?: number, rateUpBps?: number, notes?: string }} Limits
 */

const GIB = 1 << 30, MBIT = 1e6;

/** @param {string} name */
export function nameInput(name) {
  const input = el("input", {
    required: true,
    maxlength: 63,
    pattern: "[A-Za-z0-9._\\-]{1,63}",
    autocomplete: "off",
    autocapitalize: "none",
    spellcheck: "false",
  });
  input.value = name;
  return input;
}

/** @param {number | undefined} value @param {string} step */
function numberInput(value, step) {
  const input = el("input", { type: "number", min: step, step: "any", inputmode: "decimal" });
  if (value !== undefined) input.value = String(Number(value.toPrecision(6)));
  return input;
}

/**
 * @param {Partial<Limits>} device
 */
export function limitFields(device) {
  const text = TEXTS.form;
  const scaled = (/** @type {number | undefined} */ value, /** @type {number} */ unit) =>
    value === undefined ? undefined : value / unit;
  const expires = el("input", { type: "datetime-local" });
  expires.value = toLocalInput(device.expires);
  const monthly = numberInput(scaled(device.monthlyBytes, GIB), "0.001");
  const down = numberInput(scaled(device.rateDownBps, MBIT), "0.064");
  const up = numberInput(scaled(device.rateUpBps, MBIT), "0.064");
  const notes = el("textarea", { rows: 2, maxlength: 500 });
  notes.value = device.notes ?? "";

  /** @param {HTMLInputElement} input @param {number} unit */
  const number = (input, unit) => input.value === "" ? null : Math.round(Number(input.value) * unit);
  return {
    elements: [
      field(text.expires, expires, text.expiresHint),
      field(text.monthly, monthly, text.monthlyHint),
      el(
        "div",
        { class: "pair" },
        field(text.rateDown, down, text.rateHint),
        field(text.rateUp, up, text.rateHint),
      ),
      field(text.notes, notes),
    ],
    values: () => ({
      // A time that was not touched keeps its seconds.
      expires: expires.value === toLocalInput(device.expires)
        ? device.expires ?? null
        : expires.value === ""
        ? null
        : new Date(expires.value).toISOString(),
      monthlyBytes: number(monthly, GIB),
      rateDownBps: number(down, MBIT),
      rateUpBps: number(up, MBIT),
      notes: notes.value.trim() === "" ? null : notes.value.trim(),
    }),
  };
}

/** The values that are not null. @param {Record<string, unknown>} values */
export function given(values) {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== null));
}
