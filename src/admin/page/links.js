/**
 * One-time links: made, listed, revoked. Invariant: a link's address is shown once, and has its token behind "#", which browsers send to
 * nobody. Adds no device itself.
 */
import { given, limitFields, nameInput } from "./device_form.js";
import { ask, el, field, openDialog, say, sayProblem } from "./dom.js";
import { moment } from "./format.js";
import { TEXTS } from "./texts.js";

/** @typedef {import("../shapes.ts").Link} Link */

const HOUR_MS = 3_600_000;
const text = TEXTS.links;

export function linksView() {
  const body = el("tbody");
  const element = el(
    "section",
    { "aria-label": TEXTS.tabs.links },
    el(
      "div",
      { class: "row" },
      el("button", {
        type: "button",
        class: "primary",
        onclick: () => openMake(() => refresh().catch(sayProblem)),
      }, text.make),
    ),
    el(
      "div",
      { class: "scroll" },
      el(
        "table",
        { class: "cards" },
        el("caption", { class: "hidden" }, text.caption),
        el(
          "thead",
          {},
          el(
            "tr",
            {},
            ...Object.values(text.columns).map((title) => el("th", { scope: "col" }, title)),
            el("td"),
          ),
        ),
        body,
      ),
    ),
  );

  async function refresh() {
    /** @type {Link[]} */
    const links = await ask("GET", "v1/links");
    body.replaceChildren(...links.map((link) => rowOf(link, () => refresh().catch(sayProblem))));
    if (links.length === 0) body.append(el("tr", {}, el("td", { colspan: 5 }, text.empty)));
  }
  return { element, refresh };
}

/** @param {Link} link @param {() => void} onChange */
function rowOf({ id, name, state, created, expires }, onChange) {
  const revoke = async () => {
    try {
      await ask("DELETE", `v1/links/${id}`);
      if (state === "open") say(text.revoked(name));
      onChange();
    } catch (error) {
      sayProblem(error);
    }
  };
  return el(
    "tr",
    {},
    el("th", { scope: "row" }, name),
    el(
      "td",
      { "data-label": text.columns.state },
      el("span", { class: `state ${state}` }, text.states[state]),
    ),
    el("td", { "data-label": text.columns.created }, moment(created)),
    el("td", { "data-label": text.columns.expires }, moment(expires)),
    el(
      "td",
      {},
      el(
        "button",
        { type: "button", "aria-label": text.revokeNamed(name), onclick: revoke },
        state === "open" ? text.revoke : text.forget,
      ),
    ),
  );
}

/** @param {() => void} onChange */
function openMake(onChange) {
  const name = nameInput("");
  const lasts = el(
    "select",
    {},
    ...Object.entries(text.hours).map(([hours, label]) =>
      el("option", { value: hours, selected: hours === "24" }, label)
    ),
  );
  const limits = limitFields({});
  const form = el(
    "form",
    {
      onsubmit: async (/** @type {SubmitEvent} */ event) => {
        event.preventDefault();
        try {
          const linkExpires = new Date(Date.now() + HOUR_MS * Number(lasts.value)).toISOString();
          const link = await ask("POST", "v1/links", {
            name: name.value,
            linkExpires,
            ...given(limits.changes()),
          });
          dialog.close();
          openReady(link);
          onChange();
        } catch (error) {
          sayProblem(error);
        }
      },
    },
    el("p", {}, text.explain),
    field(TEXTS.form.name, name, TEXTS.form.nameHint),
    field(text.lasts, lasts),
    el("details", {}, el("summary", {}, TEXTS.form.more), ...limits.elements),
    el("div", { class: "row" }, el("button", { class: "primary" }, text.create)),
  );
  const dialog = openDialog(text.title, [form]);
  name.focus();
}

/** @param {Link & { token: string }} link */
function openReady({ token }) {
  const address = new URL("link", location.href);
  address.search = "";
  address.hash = token;
  const input = el("input", { readonly: true, class: "config-text" });
  input.value = address.href;
  const isLocal = /^(localhost|127\.|\[::1\])/.test(location.hostname);
  const copy = async () => {
    input.select();
    try {
      if (navigator.clipboard) await navigator.clipboard.writeText(input.value);
      else if (!document.execCommand("copy")) throw new Error("refused");
      say(TEXTS.config.copied);
    } catch {
      say(TEXTS.config.notCopied, { isProblem: true });
    }
  };
  openDialog(text.ready, [
    el("p", { class: "strong" }, text.once),
    isLocal && el("p", { class: "note" }, text.loopback),
    field(text.link, input),
    el(
      "div",
      { class: "row" },
      el("button", { type: "button", class: "primary", onclick: copy }, TEXTS.config.copy),
    ),
  ]);
  input.select();
}
