/**
 * What the relay does as a whole: traffic over time, why packets were dropped, recognised flows, events. Invariant: what is shown comes from
 * the relay's counters. Changes nothing.
 */
import { chart } from "./chart.js";
import { ask, el, setText } from "./dom.js";
import { amount, moment, rate } from "./format.js";
import { TEXTS } from "./texts.js";

/** @typedef {{ at: number, receivedBps: number, sentBps: number, dropsPerS: number, connections: number }} Sample */
/** @typedef {import("../shapes.ts").RelayEvent} RelayEvent */
/** @typedef {{ drops: { sentence: string, packets: number }[], applications: Record<string, number>, exitFlows: number }} Overview */

/** @param {string} caption @param {string[]} titles */
function simpleTable(caption, titles) {
  const body = el("tbody");
  const table = el(
    "table",
    {},
    el("caption", {}, caption),
    el("thead", {}, el("tr", {}, ...titles.map((title) => el("th", { scope: "col" }, title)))),
    body,
  );
  /** @param {string[][]} rows @param {string} empty */
  function fill(rows, empty) {
    const wanted = rows.length === 0 ? [[empty]] : rows;
    const now = [...body.rows].map((row) => [...row.cells].map((cell) => cell.textContent).join("\n"));
    if (now.join("\n\n") === wanted.map((cells) => cells.join("\n")).join("\n\n")) return;
    body.replaceChildren(
      ...wanted.map((cells) =>
        el(
          "tr",
          {},
          ...cells.map((cell) => el("td", cells.length === 1 ? { colspan: titles.length } : {}, cell)),
        )
      ),
    );
  }
  return { element: el("div", { class: "scroll" }, table), fill };
}

export function trafficView() {
  const text = TEXTS.traffic;
  let span = "minutes";
  const buttons = /** @type {const} */ (["minutes", "day"]).map((one) =>
    el("button", {
      type: "button",
      "aria-pressed": String(one === span),
      onclick: () => {
        span = one;
        buttons.forEach((button, i) =>
          button.setAttribute("aria-pressed", String(["minutes", "day"][i] === span))
        );
        refresh().catch(() => {});
      },
    }, text[one])
  );
  const rates = chart(text.rates, rate, 10_000);
  const connections = chart(text.connections, amount, 4);
  const drops = chart(text.dropsChart, amount, 4);
  const reasons = simpleTable(text.drops, [text.dropColumns.packets, text.dropColumns.sentence]);
  const flows = simpleTable(text.flows, [text.flowColumns.application, text.flowColumns.flows]);
  const exitFlows = el("p");
  const element = el(
    "section",
    { "aria-label": text.title },
    el("div", { class: "row", role: "group", "aria-label": text.span }, ...buttons),
    rates.figure,
    connections.figure,
    drops.figure,
    el("div", { class: "columns" }, reasons.element, el("div", {}, flows.element, exitFlows)),
  );

  async function refresh() {
    /** @type {{ stepS: number, samples: Sample[] }} */
    const { stepS, samples } = await ask("GET", `v1/history?span=${span}`);
    const times = samples.map(({ at }) => at);
    rates.draw(times, stepS, [
      { label: text.down, className: "down", values: samples.map(({ sentBps }) => sentBps) },
      { label: text.up, className: "up", values: samples.map(({ receivedBps }) => receivedBps) },
    ]);
    connections.draw(times, stepS, [
      { label: text.connections, className: "down", values: samples.map(({ connections }) => connections) },
    ]);
    drops.draw(times, stepS, [
      { label: text.dropsChart, className: "up", values: samples.map(({ dropsPerS }) => dropsPerS) },
    ]);
  }

  /** @param {Overview} overview */
  function show(overview) {
    reasons.fill(overview.drops.map(({ sentence, packets }) => [amount(packets), sentence]), text.noDrops);
    flows.fill(
      Object.entries(overview.applications).map(([name, count]) => [name, amount(count)]),
      text.noFlows,
    );
    setText(exitFlows, `${text.exitFlows}: ${amount(overview.exitFlows)}`);
  }
  return { element, refresh, show };
}

export function eventsView() {
  const text = TEXTS.events;
  const table = simpleTable(text.caption, [text.columns.at, text.columns.what]);
  const element = el("section", { "aria-label": TEXTS.tabs.events }, table.element);
  /** @type {RelayEvent[]} */
  let events = [];

  async function refresh() {
    const last = events.at(-1)?.id ?? 0;
    /** @type {RelayEvent[]} */
    const more = await ask("GET", `v1/events?after=${last}`);
    // A relay that was restarted counts from one again.
    if (more.length === 0 && last > 0 && (await ask("GET", "v1/events")).at(-1)?.id < last) events = [];
    events = [...events, ...more].slice(-500);
    const rows = events.toReversed().map(({ at, kind, peer, detail }) => [
      moment(at),
      text.kinds[kind]?.(peer, detail) ?? kind,
    ]);
    table.fill(rows, text.empty);
  }
  return { element, refresh };
}
