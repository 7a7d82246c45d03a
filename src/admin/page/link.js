/**
 * The page of a one-time link, for somebody without the token: one button, then the configuration. Invariant: opening the page uses nothing
 * up, since programs look at links before people do; the token leaves the address bar at once and goes to the relay only when asked.
 */
import { configView } from "./config_view.js";
import { ask, el, messageArea, sayProblem } from "./dom.js";
import { TEXTS } from "./texts.js";

const text = TEXTS.friend;
const token = location.hash.slice(1);
history.replaceState(null, "", location.pathname);

const main = el("main", { id: "content" });
document.body.append(el("header", {}, el("h1", {}, TEXTS.product)), main, messageArea());

const button = el("button", { type: "button", class: "primary", onclick: redeem }, text.button);
main.append(
  el("h2", {}, text.title),
  el("p", {}, /^[\w-]{43}$/.test(token) ? text.explain : text.broken),
);
if (/^[\w-]{43}$/.test(token)) main.append(button);

async function redeem() {
  button.disabled = true;
  try {
    const device = await ask("POST", "v1/links/redeem", { token });
    main.replaceChildren(el("h2", {}, TEXTS.config.title(device.name)), configView(device, false));
  } catch (error) {
    sayProblem(error);
    button.disabled = false;
  }
}
