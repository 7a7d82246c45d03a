/**
 * What a new device loads: its configuration as a QR code, a file and a text to copy, for the WireGuard app or the project's own client.
 * Invariant: the private key is in this view alone, and gone with it. Asks the relay nothing.
 */
import { el, say, svg } from "./dom.js";
import { TEXTS } from "./texts.js";

/**
 * @typedef {{ name: string, config?: string, configQr?: string[], invitation?: string, invitationQr?: string[], note?: string }} NewDevice
 */

/** Modules of white around a code (ISO/IEC 18004 asks for 4). */
const QUIET_ZONE = 4;

/** @param {string[]} rows @param {string} label */
function qr(rows, label) {
  const size = rows.length + 2 * QUIET_ZONE;
  let path = "";
  rows.forEach((row, y) => {
    for (let x = 0; x < row.length; x++) {
      if (row[x] === "1") path += `M${x + QUIET_ZONE} ${y + QUIET_ZONE}h1v1h-1z`;
    }
  });
  return svg(
    "svg",
    {
      class: "qr",
      viewBox: `0 0 ${size} ${size}`,
      role: "img",
      "aria-label": label,
      "shape-rendering": "crispEdges",
    },
    svg("rect", { width: size, height: size, fill: "#fff" }),
    svg("path", { d: path, fill: "#000" }),
  );
}

/** @param {HTMLTextAreaElement} area */
async function copy(area) {
  area.select();
  try {
    // Without TLS browsers have no clipboard for pages, and the old command still works in most.
    if (navigator.clipboard) await navigator.clipboard.writeText(area.value);
    else if (!document.execCommand("copy")) throw new Error("refused");
    say(TEXTS.config.copied);
  } catch {
    say(TEXTS.config.notCopied, { isProblem: true });
  }
}

/** @param {string} name @param {string} text */
function download(name, text) {
  const url = URL.createObjectURL(new Blob([text], { type: "application/octet-stream" }));
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/**
 * One form of the configuration.
 * @param {string} name @param {string} text @param {string[] | undefined} code @param {boolean} isWireguard
 */
function panel(name, text, code, isWireguard) {
  const area = el("textarea", {
    readonly: true,
    rows: isWireguard ? 12 : 5,
    "aria-label": TEXTS.config.text,
    spellcheck: "false",
    class: "config-text",
  });
  area.value = text;
  const file = isWireguard ? `${name.slice(0, 15)}.conf` : `${name}.oxrelay.txt`;
  return el(
    "div",
    { class: "config" },
    el("p", {}, isWireguard ? TEXTS.config.scan : TEXTS.config.scanLine),
    code && qr(code, TEXTS.config.qr(name)),
    area,
    el(
      "div",
      { class: "row" },
      el("button", { type: "button", onclick: () => download(file, text) }, TEXTS.config.download),
      el("button", { type: "button", onclick: () => copy(area) }, TEXTS.config.copy),
    ),
  );
}

/**
 * The view, which begins with the wanted form.
 * @param {NewDevice} device @param {boolean} isOxtunnel
 */
export function configView(device, isOxtunnel) {
  const forms = /** @type {const} */ ([false, true]).map((ox) => ({
    ox,
    label: ox ? TEXTS.config.oxtunnel : TEXTS.config.wireguard,
    view: ox
      ? panel(device.name, device.invitation ?? "", device.invitationQr, false)
      : panel(device.name, device.config ?? "", device.configQr, true),
  }));
  const buttons = forms.map(({ ox, label }) =>
    el("button", { type: "button", role: "tab", onclick: () => show(ox) }, label)
  );
  /** @param {boolean} wanted */
  const show = (wanted) =>
    forms.forEach(({ ox, view }, i) => {
      view.hidden = ox !== wanted;
      buttons[i].setAttribute("aria-selected", String(ox === wanted));
    });
  show(isOxtunnel);
  return el(
    "div",
    {},
    el("p", { class: "strong" }, TEXTS.config.once),
    device.note !== undefined && el("p", { class: "note" }, device.note),
    el("div", { class: "tabs", role: "tablist" }, ...buttons),
    ...forms.map(({ view }) => view),
  );
}
