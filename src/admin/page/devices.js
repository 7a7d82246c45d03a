/**
 * The table of devices, with search, order and pages made by the relay, and the dialogs that add, change and remove a device. Invariant: a
 * row stays the same element while its device is on the page, so that focus and selection survive a refresh.
 */
import { configView } from "./config_view.js";
import { given, limitFields, nameInput } from "./device_form.js";
import { deviceDetail } from "./device_detail.js";
import { ask, askWithTotal, el, field, openDialog, say, sayProblem, setText } from "./dom.js";
import { bytes, duration, milliseconds, percent, rate } from "./format.js";
import { TEXTS } from "./texts.js";

/** @typedef {import("./device_detail.js").Device} Device */

const PER_PAGE = 50;
const UNDO_S = 10;
const SEARCH_PAUSE_MS = 250;
const text = TEXTS.devices;

/**
 * A column: its text for a device, and by what the relay sorts it.
 * @type {{ title: string, sort?: string, cell: (device: Device) => string }[]}
 */
const COLUMNS = [
  { title: text.columns.sentBps, sort: "sentBps", cell: (device) => live(device, rate(device.sentBps)) },
  {
    title: text.columns.receivedBps,
    sort: "receivedBps",
    cell: (device) => live(device, rate(device.receivedBps)),
  },
  {
    title: text.columns.rttMs,
    sort: "rttMs",
    cell: (device) => live(device, device.rttMs === undefined ? undefined : milliseconds(device.rttMs)),
  },
  { title: text.columns.lossRatio, sort: "lossRatio", cell: (device) => live(device, lossOf(device)) },
  { title: text.columns.repair, cell: (device) => live(device, repairOf(device)) },
  {
    title: text.columns.queue,
    cell: (device) => live(device, waitOf(device)),
  },
  { title: text.columns.month, sort: "month", cell: monthOf },
  {
    title: text.columns.lastHandshakeAgeS,
    sort: "lastHandshakeAgeS",
    cell: ({ lastHandshakeAgeS: age }) => age === undefined ? text.never : text.ago(duration(age)),
  },
];

/** What is known of a connected device only. @param {Device} device @param {string | undefined} value */
function live({ connected }, value) {
  return connected && value !== undefined ? value : TEXTS.none;
}

/** @param {Device} device */
function lossOf({ lossRatio, receiving }) {
  const ratio = receiving?.lossRatio ?? lossRatio;
  return ratio === undefined ? undefined : percent(ratio);
}

/** The share of lost datagrams that repair brought back, of both directions. @param {Device} device */
function repairOf({ sending, receiving }) {
  const all = [sending, receiving].flatMap((figures) => figures ?? []);
  const repaired = all.reduce((sum, figures) => sum + figures.repaired, 0);
  const lost = all.reduce((sum, figures) => sum + figures.repaired + figures.unrecovered, 0);
  return lost === 0 ? undefined : percent(repaired / lost);
}

/** The 99th percentile of what packets waited, of the class that waited longest. @param {Device} device */
function waitOf({ line }) {
  const waits = Object.values(line?.waits ?? {}).map(({ p99Ms }) => p99Ms);
  return waits.length === 0 ? undefined : milliseconds(Math.max(...waits));
}

/** @param {Device} device */
function monthOf({ usage, monthlyBytes }) {
  const used = bytes(usage.monthReceived + usage.monthSent);
  return monthlyBytes === undefined ? used : text.ofLimit(used, bytes(monthlyBytes));
}

/** The part of the page that has the devices. */
export function devicesView() {
  const view = { search: "", sort: "name", order: "asc", page: 1 };
  const search = el("input", {
    type: "search",
    "aria-label": text.search,
    placeholder: text.searchHint,
    autocomplete: "off",
    oninput: () => {
      clearTimeout(pause);
      pause = setTimeout(() => turnTo({ search: search.value, page: 1 }), SEARCH_PAUSE_MS);
    },
  });
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let pause;
  const place = el("span", { role: "status" });
  const back = el("button", {
    type: "button",
    "aria-label": text.back,
    onclick: () => turnTo({ page: view.page - 1 }),
  }, "‹");
  const forth = el("button", {
    type: "button",
    "aria-label": text.forth,
    onclick: () => turnTo({ page: view.page + 1 }),
  }, "›");
  const table = deviceTable((sort) =>
    // Of numbers the largest first.
    turnTo({
      sort,
      order: view.sort !== sort
        ? (sort === "name" || sort === "state" ? "asc" : "desc")
        : view.order === "asc"
        ? "desc"
        : "asc",
      page: 1,
    })
  );

  /** @param {Partial<typeof view>} change */
  function turnTo(change) {
    Object.assign(view, change);
    refresh().catch(sayProblem);
  }

  async function refresh() {
    const query = new URLSearchParams({ ...view, page: String(view.page), perPage: String(PER_PAGE) });
    const { answer, total } = await askWithTotal("GET", `v1/peers?${query}`);
    const pages = Math.max(1, Math.ceil(total / PER_PAGE));
    view.page = Math.min(view.page, pages);
    setText(place, text.place(view.page, pages, total));
    back.disabled = view.page === 1;
    forth.disabled = view.page === pages;
    table.fill(
      answer,
      view,
      view.search === "" ? text.empty : text.notFound,
      () => refresh().catch(sayProblem),
    );
  }

  const element = el(
    "section",
    { "aria-label": TEXTS.tabs.devices },
    el(
      "div",
      { class: "row" },
      el("button", {
        type: "button",
        class: "primary",
        onclick: () => openAdd(() => refresh().catch(sayProblem)),
      }, text.add),
      search,
      el("span", { class: "pages" }, back, place, forth),
    ),
    table.element,
  );
  return { element, refresh };
}

/** @param {(sort: string) => void} onSort */
function deviceTable(onSort) {
  const heads = [
    { title: text.columns.name, sort: "name" },
    { title: text.columns.state, sort: "state" },
    ...COLUMNS,
  ]
    .map(({ title, sort }) =>
      el(
        "th",
        { scope: "col", "data-sort": sort },
        sort === undefined ? title : el("button", { type: "button", onclick: () => onSort(sort) }, title),
      )
    );
  const body = el("tbody");
  const element = el(
    "div",
    { class: "scroll" },
    el(
      "table",
      { class: "cards" },
      el("caption", { class: "hidden" }, text.caption),
      el("thead", {}, el("tr", {}, ...heads)),
      body,
    ),
  );
  /** @type {Map<string, ReturnType<typeof deviceRow>>} */
  let rows = new Map();

  /**
   * @param {Device[]} devices @param {{ sort: string, order: string }} view @param {string} empty @param {() => void} onChange
   */
  function fill(devices, { sort, order }, empty, onChange) {
    for (const head of heads) {
      const isIt = head.dataset.sort === sort;
      head.setAttribute("aria-sort", isIt ? (order === "asc" ? "ascending" : "descending") : "none");
    }
    const next = new Map(devices.map((device) => {
      const row = rows.get(device.publicKey) ?? deviceRow(onChange);
      row.show(device);
      return [device.publicKey, row];
    }));
    rows = next;
    const wanted = [...next.values()].map(({ element }) => element);
    const isSame = wanted.length === body.children.length &&
      wanted.every((row, i) => body.children[i] === row);
    if (wanted.length === 0) body.replaceChildren(el("tr", {}, el("td", { colspan: heads.length }, empty)));
    else if (!isSame) body.replaceChildren(...wanted);
  }
  return { element, fill };
}

/** @param {() => void} onChange */
function deviceRow(onChange) {
  /** @type {Device} */
  let device;
  const open = el("button", { type: "button", class: "link", onclick: () => openDetail(device, onChange) });
  const state = el("span", { class: "state" });
  const cells = COLUMNS.map(({ title }) => el("td", { "data-label": title, class: "number" }));
  const element = el(
    "tr",
    {},
    el("th", { scope: "row" }, open),
    el("td", { "data-label": text.columns.state }, state),
    ...cells,
  );
  /** @param {Device} shown */
  function show(shown) {
    device = shown;
    setText(open, device.name);
    open.setAttribute("aria-label", text.open(device.name));
    setText(state, text.states[device.state]);
    state.className = `state ${device.state}`;
    COLUMNS.forEach(({ cell }, i) => setText(cells[i], cell(device)));
  }
  return { element, show };
}

/** @param {() => void} onChange */
function openAdd(onChange) {
  const form = TEXTS.form;
  const name = nameInput("");
  const kinds = [form.wireguard, form.oxtunnel].map((label, i) => {
    const radio = el("input", { type: "radio", name: "kind", value: String(i) });
    radio.checked = i === 0;
    return { radio, element: el("label", { class: "choice" }, radio, label) };
  });
  const endpoint = el("input", {
    autocomplete: "off",
    spellcheck: "false",
    placeholder: "relay.example.com:4433",
  });
  const limits = limitFields({});
  const create = el("button", { class: "primary" }, form.create);
  const body = el(
    "form",
    {
      onsubmit: async (/** @type {SubmitEvent} */ event) => {
        event.preventDefault();
        create.disabled = true;
        try {
          const wanted = {
            name: name.value,
            ...given(limits.changes()),
            ...given({ endpoint: endpoint.value.trim() || null }),
          };
          const added = await ask("POST", "v1/peers", wanted);
          dialog.close();
          openDialog(TEXTS.config.title(added.name), [configView(added, kinds[1].radio.checked)]);
          onChange();
        } catch (error) {
          sayProblem(error);
        } finally {
          create.disabled = false;
        }
      },
    },
    field(form.name, name, form.nameHint),
    el("fieldset", {}, el("legend", {}, form.kind), ...kinds.map(({ element }) => element)),
    el(
      "details",
      {},
      el("summary", {}, form.more),
      ...limits.elements,
      field(form.endpoint, endpoint, form.endpointHint),
    ),
    el("div", { class: "row" }, create),
  );
  const dialog = openDialog(form.addTitle, [body]);
  name.focus();
}

/** @param {Device} device @param {() => void} onChange */
function openDetail(device, onChange) {
  const detail = deviceDetail(device);
  const name = nameInput(device.name);
  const limits = limitFields(device);
  const forwards = el("input", { autocomplete: "off", spellcheck: "false" });
  forwards.value = (device.forwards ?? []).join(", ");
  const act = async (/** @type {() => Promise<unknown>} */ change, /** @type {string} */ done) => {
    try {
      await change();
      dialog.close();
      say(done);
      onChange();
    } catch (error) {
      sayProblem(error);
    }
  };
  const path = `v1/peers/${encodeURIComponent(device.name)}`;
  const isOut = device.disabled;
  const buttons = el(
    "div",
    { class: "row" },
    el(
      "button",
      {
        type: "button",
        "aria-label": isOut ? text.enableNamed(device.name) : text.disableNamed(device.name),
        onclick: () =>
          act(
            () => ask("PATCH", path, { disabled: !isOut }),
            isOut ? text.enabled(device.name) : text.disabled(device.name),
          ),
      },
      isOut ? text.enable : text.disable,
    ),
    el("button", {
      type: "button",
      class: "danger",
      "aria-label": text.removeNamed(device.name),
      onclick: () => remove(device.name, () => dialog.close(), onChange),
    }, text.remove),
  );
  const form = el(
    "form",
    {
      onsubmit: (/** @type {SubmitEvent} */ event) => {
        event.preventDefault();
        act(() => save(device, name.value, limits.changes(), forwards.value), text.saved(name.value));
      },
    },
    el(
      "details",
      {},
      el("summary", {}, TEXTS.detail.edit),
      field(TEXTS.form.name, name, TEXTS.form.nameHint),
      ...limits.elements,
      field(TEXTS.form.forwards, forwards, TEXTS.form.forwardsHint),
      el("div", { class: "row" }, el("button", { class: "primary" }, TEXTS.save)),
    ),
  );
  const dialog = openDialog(device.name, [buttons, detail.facts, form, detail.charts], detail.stop);
}

/**
 * Saves what was changed in the settings: forwards first, which the host may refuse, by the name that the device has until then.
 * @param {Device} device @param {string} name @param {object} limits @param {string} forwards
 */
async function save({ name: before, forwards: had = [] }, name, limits, forwards) {
  const path = `v1/peers/${encodeURIComponent(before)}`;
  const wanted = forwards.split(/[\s,]+/).filter(Boolean);
  const added = wanted.filter((forward) => !had.includes(forward));
  if (added.length > 0) await ask("POST", `${path}/forwards`, { forwards: added });
  for (const forward of had.filter((forward) => !wanted.includes(forward))) {
    await ask("DELETE", `${path}/forwards/${encodeURIComponent(forward)}`);
  }
  await ask("PATCH", path, name === before ? limits : { name, ...limits });
}

/** @param {string} name @param {() => void} close @param {() => void} onChange */
async function remove(name, close, onChange) {
  const path = `v1/peers/${encodeURIComponent(name)}`;
  try {
    await ask("DELETE", path);
  } catch (error) {
    return sayProblem(error);
  }
  close();
  onChange();
  say(text.removed(name), {
    seconds: UNDO_S,
    button: {
      label: text.undo,
      act: () =>
        void ask("POST", `${path}/restore`).then(() => {
          say(text.restored(name));
          onChange();
        }).catch(sayProblem),
    },
  });
}
