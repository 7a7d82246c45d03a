/**
 * The fields of a device's limits: shared by adding, changing and inviting. Invariant: what the fields give back is what /v1 takes, of the
 * fields that were written into alone, so that saving one undoes nobody's change of another. Asks the relay nothing.
 */
import { el, field } from "./dom.js";
import { limitChanges, limitTexts } from "./format.js";
import { TEXTS } from "./texts.js";

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

/** @param {string} min */
function numberInput(min) {
  return el("input", { type: "number", min, step: "any", inputmode: "decimal" });
}

/** @param {import("./format.js").Limits} device */
export function limitFields(device) {
  const text = TEXTS.form;
  const inputs = {
    expires: el("input", { type: "datetime-local" }),
    monthlyBytes: numberInput("0.001"),
    rateDownBps: numberInput("0.064"),
    rateUpBps: numberInput("0.064"),
    notes: el("textarea", { rows: 2, maxlength: 500 }),
  };
  const { expires, monthlyBytes, rateDownBps, rateUpBps, notes } = inputs;
  const texts = () => ({
    expires: expires.value,
    monthlyBytes: monthlyBytes.value,
    rateDownBps: rateDownBps.value,
    rateUpBps: rateUpBps.value,
    notes: notes.value,
  });
  for (const [name, shown] of Object.entries(limitTexts(device))) {
    inputs[/** @type {keyof typeof inputs} */ (name)].value = shown;
  }
  // As the browser has them, which may write a line break in another way.
  const opened = texts();
  return {
    elements: [
      field(text.expires, expires, text.expiresHint),
      field(text.monthly, monthlyBytes, text.monthlyHint),
      el(
        "div",
        { class: "pair" },
        field(text.rateDown, rateDownBps, text.rateHint),
        field(text.rateUp, rateUpBps, text.rateHint),
      ),
      field(text.notes, notes),
    ],
    /** What was written into the fields since they were made, null for one that was emptied. */
    changes: () => limitChanges(opened, texts()),
  };
}

/** The values that are not null. @param {Record<string, unknown>} values */
export function given(values) {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== null));
}
