/**
 * One device at this moment: its figures, and charts of them since the dialog was opened. Invariant: asks the relay only while it is shown.
 * Changes nothing.
 */
import { chart } from "./chart.js";
import { ask, el, setText } from "./dom.js";
import { amount, bytes, duration, milliseconds, moment, percent, rate } from "./format.js";
import { TEXTS } from "./texts.js";

/** @typedef {import("../shapes.ts").PeerRow} Device */

const INTERVAL_MS = 2000, SAMPLES_MAX = 300;
const text = TEXTS.detail;

/** @param {Device} device */
function speech({ protocol, aead }) {
  if (protocol === undefined) return TEXTS.none;
  if (protocol === "wireguard") return "WireGuard";
  return aead === "AES-256-GMAC" ? text.unencrypted : `OxTunnel, ${aead}`;
}

/** @param {Device["sending"]} figures */
function repair(figures) {
  return figures === undefined
    ? TEXTS.none
    : text.repair(percent(figures.lossRatio), percent(figures.residualRatio), figures.scheme);
}

/** @type {[title: string, value: (device: Device) => string][]} */
const FACTS = [
  [TEXTS.devices.columns.state, ({ state }) => TEXTS.devices.states[state]],
  [text.from, ({ endpoint }) => endpoint ?? TEXTS.none],
  [text.protocol, speech],
  [
    text.handshake,
    ({ lastHandshakeAgeS: age }) =>
      age === undefined ? TEXTS.devices.never : TEXTS.devices.ago(duration(age)),
  ],
  [text.repairDown, ({ sending }) => repair(sending)],
  [text.repairUp, ({ receiving }) => repair(receiving)],
  [
    text.queue,
    ({ line }) =>
      Object.entries(line?.waits ?? {}).map(([name, { p50Ms, p99Ms }]) =>
        text.wait(name, milliseconds(p50Ms), milliseconds(p99Ms))
      ).join("; ") || TEXTS.none,
  ],
  [text.rateNow, ({ line }) => line?.shapedBps === undefined ? TEXTS.none : rate(line.shapedBps)],
  [
    text.path,
    ({ line }) =>
      line?.path === undefined ? TEXTS.none : text.pathIs(
        line.path.state,
        line.path.bps === undefined ? TEXTS.none : rate(line.path.bps),
        line.path.leastRttMs === undefined ? TEXTS.none : milliseconds(line.path.leastRttMs),
        milliseconds(line.path.queueMs),
      ),
  ],
  [
    text.queueLosses,
    ({ line }) =>
      line === undefined ? TEXTS.none : text.markedAndDropped(
        amount(line.marked),
        amount(Object.values(line.drops).reduce((sum, count) => sum + count, 0)),
      ),
  ],
  [text.drops, ({ drops }) => amount(drops)],
  [text.total, ({ usage }) => `${bytes(usage.received)} / ${bytes(usage.sent)}`],
  [text.address, ({ allowedIps }) => allowedIps.join(", ")],
  [text.forwards, ({ forwards = [] }) => forwards.length === 0 ? TEXTS.none : forwards.join(", ")],
  [text.key, ({ publicKey }) => publicKey],
  [text.added, ({ created }) => moment(created)],
];

/** @param {Device} device */
export function deviceDetail(device) {
  const values = FACTS.map(() => el("dd"));
  const rates = chart(text.rate, rate, 1000);
  const roundTrip = chart(text.roundTrip, milliseconds, 1);
  const loss = chart(text.lost, percent, 0.01);
  const facts = el("dl", {}, ...FACTS.flatMap(([title], i) => [el("dt", {}, title), values[i]]));
  const charts = el(
    "div",
    {},
    el("h3", {}, text.live),
    rates.figure,
    roundTrip.figure,
    loss.figure,
  );
  /** @type {{ at: number, device: Device }[]} */
  const samples = [];

  /** @param {Device} now */
  function show(now) {
    FACTS.forEach(([, value], i) => setText(values[i], value(now)));
    samples.push({ at: Date.now() / 1000, device: now });
    if (samples.length > SAMPLES_MAX) samples.shift();
    const times = samples.map(({ at }) => at);
    const each = (/** @type {(device: Device) => number | undefined} */ read) =>
      samples.map(({ device }) => read(device));
    rates.draw(times, INTERVAL_MS / 1000, [
      { label: TEXTS.traffic.down, className: "down", values: each(({ sentBps }) => sentBps) },
      { label: TEXTS.traffic.up, className: "up", values: each(({ receivedBps }) => receivedBps) },
    ]);
    roundTrip.draw(times, INTERVAL_MS / 1000, [
      { label: text.roundTrip, className: "down", values: each(({ rttMs }) => rttMs) },
    ]);
    loss.draw(times, INTERVAL_MS / 1000, [
      { label: text.lost, className: "down", values: each(({ sending }) => sending?.lossRatio) },
      {
        label: TEXTS.traffic.up,
        className: "up",
        values: each(({ receiving, lossRatio }) => receiving?.lossRatio ?? lossRatio),
      },
    ]);
  }
  show(device);
  const timer = setInterval(() => {
    // A device that was removed or renamed meanwhile keeps its last figures.
    ask("GET", `v1/peers/${encodeURIComponent(device.name)}`).then(show).catch(() => {});
  }, INTERVAL_MS);
  return { facts, charts, stop: () => clearInterval(timer) };
}
