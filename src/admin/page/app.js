/**
 * The operator's page: sign-in, its parts, and the clock that refreshes the part that is shown. Invariant: the token is sent once, for a
 * cookie that no script can read; nothing is kept in the browser. The parts are in the other files.
 */
import { devicesView } from "./devices.js";
import { ask, el, field, messageArea, Refused, sayProblem, setText } from "./dom.js";
import { duration } from "./format.js";
import { linksView } from "./links.js";
import { TEXTS } from "./texts.js";
import { eventsView, trafficView } from "./watch.js";

const INTERVAL_MS = 2000;
const TABS = /** @type {const} */ (["devices", "links", "traffic", "events"]);

const traffic = trafficView();
const views = { devices: devicesView(), links: linksView(), traffic, events: eventsView() };

const about = el("span", { class: "about" }, TEXTS.connecting);
const problem = el("div", { class: "problem", role: "alert" });
const signOut = el("button", { type: "button", class: "quiet", onclick: leave }, TEXTS.signIn.signOut);
const links = TABS.map((tab) => el("a", { href: `#${tab}` }, TEXTS.tabs[tab]));
const nav = el("nav", { "aria-label": TEXTS.navigation }, ...links);
const main = el("main", { id: "content", tabindex: -1 });
const header = el(
  "header",
  {},
  el("a", { class: "skip", href: "#content", onclick: skip }, TEXTS.skip),
  el("h1", {}, TEXTS.product),
  about,
  signOut,
);
document.body.append(header, nav, problem, main, messageArea());

/** @param {Event} event */
function skip(event) {
  event.preventDefault();
  main.focus();
}

/** @returns {typeof TABS[number]} */
function shownTab() {
  const wanted = location.hash.slice(1);
  return TABS.find((tab) => tab === wanted) ?? "devices";
}

let isSignedIn = false;

function showTab() {
  if (!isSignedIn) return;
  const shown = shownTab();
  TABS.forEach((tab, i) => {
    if (tab === shown) links[i].setAttribute("aria-current", "page");
    else links[i].removeAttribute("aria-current");
  });
  if (main.firstElementChild !== views[shown].element) main.replaceChildren(views[shown].element);
  views[shown].refresh().catch(sayProblem);
}

function showSignIn() {
  if (!isSignedIn && main.firstElementChild?.className === "sign-in") return;
  isSignedIn = false;
  nav.hidden = signOut.hidden = true;
  const token = el("input", { type: "password", autocomplete: "current-password", required: true });
  const form = el(
    "form",
    {
      class: "sign-in",
      onsubmit: async (/** @type {SubmitEvent} */ event) => {
        event.preventDefault();
        try {
          await ask("POST", "v1/sign-in", { token: token.value.trim() });
          token.value = "";
          await refresh();
        } catch (error) {
          sayProblem(error);
        }
      },
    },
    el("h2", {}, TEXTS.signIn.title),
    field(TEXTS.signIn.token, token, TEXTS.signIn.hint),
    el("button", { class: "primary" }, TEXTS.signIn.button),
  );
  main.replaceChildren(form);
  token.focus();
}

async function leave() {
  await ask("POST", "v1/sign-out").catch(sayProblem);
  location.reload();
}

/** @param {any} overview */
function showOverview(overview) {
  const { version, exit, uptimeS, connections, peers, healthy, faults } = overview;
  setText(
    about,
    `${TEXTS.about(version, exit.split(/[ (:,]/)[0], duration(uptimeS))} · ${
      TEXTS.connected(connections, peers)
    }`,
  );
  setText(problem, healthy ? "" : `${TEXTS.faulty} ${faults.join("; ")}`);
  traffic.show(overview);
}

async function refresh() {
  try {
    const overview = await ask("GET", "v1/overview");
    showOverview(overview);
    if (!isSignedIn) {
      isSignedIn = true;
      nav.hidden = signOut.hidden = false;
      showTab();
    } else if (!document.hidden) await views[shownTab()].refresh();
  } catch (error) {
    if (error instanceof Refused && error.status === 401) {
      setText(about, "");
      setText(problem, "");
      return showSignIn();
    }
    setText(problem, error instanceof Refused ? error.message : TEXTS.noAnswer);
  }
}

async function watch() {
  await refresh();
  setTimeout(watch, INTERVAL_MS);
}

addEventListener("hashchange", showTab);
nav.hidden = signOut.hidden = true;
watch();
