/**
 * Elements, messages and requests. Invariant: text is set as text, so that a device's name cannot become markup; a request that the relay
 * refuses becomes an error with the relay's own sentence. Keeps no state but the messages that it shows.
 */
import { TEXTS } from "./texts.js";

/** @typedef {Node | string | undefined | false} Child */
/** @typedef {Record<string, string | number | boolean | undefined | ((event: any) => void)>} Properties */

/**
 * An element. A function is a listener (`onclick`), true an attribute without a value, false and undefined none.
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag @param {Properties} [properties] @param {...Child} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function el(tag, properties = {}, ...children) {
  return filled(document.createElement(tag), properties, children);
}

/**
 * The same for SVG.
 * @param {string} tag @param {Properties} [properties] @param {...Child} children
 */
export function svg(tag, properties = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), properties, children);
}

/**
 * @template {Element} E
 * @param {E} element @param {Properties} properties @param {Child[]} children
 */
function filled(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== undefined) element.setAttribute(name, String(value));
  }
  element.append(...children.filter((child) => child !== undefined && child !== false));
  return element;
}

/** Sets an element's text only where it differs, so that a selection or a reader is not disturbed. @param {Element} element @param {string} text */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** What the relay refused, in its own words. */
export class Refused extends Error {
  /** @param {number} status @param {string} field @param {string} message */
  constructor(status, field, message) {
    super(message);
    this.status = status;
    this.field = field;
  }
}

/**
 * Asks the relay; resolves with the answer's JSON, null for an empty one. Throws Refused, or TypeError where nobody answers.
 * @param {string} method @param {string} path @param {unknown} [body]
 */
export async function ask(method, path, body) {
  return (await askWithTotal(method, path, body)).answer;
}

/**
 * The same, with how many there are on all pages.
 * @param {string} method @param {string} path @param {unknown} [body]
 * @returns {Promise<{ answer: any, total: number }>}
 */
export async function askWithTotal(method, path, body) {
  const response = await fetch(path, {
    method,
    ...(body === undefined
      ? {}
      : { headers: { "content-type": "application/json" }, body: JSON.stringify(body) }),
  });
  const answer = response.status === 204 ? null : await response.json();
  if (response.ok) return { answer, total: Number(response.headers.get("x-total-count")) };
  const { field, message } = answer?.error ?? { field: "", message: TEXTS.noAnswer };
  throw new Refused(response.status, field, message);
}

const messages = el("div", { class: "messages", role: "status", "aria-live": "polite" });

/** Where messages appear; part of the page once. */
export const messageArea = () => messages;

/**
 * Shows a message for some seconds, with a button where there is something to do.
 * @param {string} text
 * @param {{ seconds?: number, isProblem?: boolean, button?: { label: string, act: () => void } }} [options]
 */
export function say(text, { seconds = 6, isProblem = false, button } = {}) {
  const message = el("div", { class: isProblem ? "message problem" : "message" }, el("span", {}, text));
  const end = () => message.remove();
  if (button) {
    message.append(el("button", {
      type: "button",
      onclick: () => {
        end();
        button.act();
      },
    }, button.label));
  }
  // A dialog covers the rest of the page.
  (document.querySelector("dialog[open] .messages") ?? messages).append(message);
  setTimeout(end, 1000 * seconds);
}

/** @param {unknown} error */
export function sayProblem(error) {
  say(error instanceof Refused ? error.message : TEXTS.noAnswer, { isProblem: true, seconds: 12 });
}

/**
 * A modal dialog with a title, removed when it is closed. Escape closes it; the browser keeps the focus inside and gives it back.
 * @param {string} title @param {Child[]} children @param {() => void} [onClose]
 */
export function openDialog(title, children, onClose = () => {}) {
  const heading = el("h2", { id: "dialog-title" }, title);
  const dialog = el(
    "dialog",
    { "aria-labelledby": "dialog-title" },
    el(
      "div",
      { class: "dialog-head" },
      heading,
      el("button", {
        type: "button",
        class: "quiet",
        "aria-label": TEXTS.close,
        onclick: () => dialog.close(),
      }, "✕"),
    ),
    ...children,
    el("div", { class: "messages", role: "status", "aria-live": "polite" }),
  );
  dialog.addEventListener("close", () => {
    dialog.remove();
    onClose();
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/**
 * A labelled field. @param {string} label @param {HTMLElement} control @param {string} [hint]
 */
export function field(label, control, hint) {
  const id = `f${(fields++).toString(36)}`;
  control.id = id;
  if (hint !== undefined) control.setAttribute("aria-describedby", `${id}h`);
  return el(
    "div",
    { class: "field" },
    el("label", { for: id }, label),
    control,
    hint !== undefined && el("small", { id: `${id}h` }, hint),
  );
}

let fields = 0;
