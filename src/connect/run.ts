/**
 * A client's link while it is up: looked after several times a second, shown once a second, ended by a signal. Invariant: the link
 * is closed however the run ends; a shortage of descriptors ends nothing that carries, or may carry, packets. Touches nothing of
 * the host: the caller's hooks do.
 */
import { isShortage } from "../io/accept.ts";
import { CommandError } from "../process/help.ts";
import { giveBackMemorySoon } from "../process/memory.ts";
import { onParentGone } from "../process/parent.ts";
import { isBar } from "../wire/parameters.ts";
import type { AppHints } from "./app_hints.ts";
import type { Link } from "./link/mod.ts";
import { explainRefusal } from "./refusal.ts";
import type { LinkStatus, LinkView } from "./view.ts";

const FIRST_ANSWER_MS = 20_000;
const LOOK_MS = 250, FIRST_LOOK_MS = 100, SHOW_MS = 1000 - LOOK_MS / 2;
const GUARD_LOOKS = 40;
// Windows has no others.
const SIGNALS = Deno.build.os === "windows"
  ? ["SIGINT", "SIGBREAK"] as const
  : ["SIGINT", "SIGTERM", "SIGHUP"] as const;

export interface Hooks {
  /** Whether to try for ever: giving up would open the kill switch. */
  isPatient: boolean;
  onConnected: () => Promise<void>;
  onGuard: () => Promise<void>;
  /** What is still to be said through the tunnel; must end by itself soon. */
  onEnding?: () => Promise<void>;
}

/** Runs the link until a signal ends it. Throws when the relay never answers, unless it is patient. */
export async function run(
  link: Link,
  appHints: AppHints,
  view: LinkView,
  { isPatient, onConnected, onGuard, onEnding }: Hooks,
): Promise<number> {
  let wake = () => {};
  let ended = false;
  const end = () => {
    ended = true;
    wake();
  };
  for (const signal of SIGNALS) Deno.addSignalListener(signal, end);
  const endWatch = onParentGone(end);
  try {
    const startedMs = performance.now();
    let isUp = false, shownMs = -Infinity;
    const refusals = new Refusals(link, view);
    const look = async (looks: number) => {
      const state = await link.tend();
      refusals.look(state, isUp || isPatient);
      if (!isUp && state === "connected") {
        await onConnected();
        isUp = true;
        view.say("The tunnel is up.");
        giveBackMemorySoon();
      }
      if (!isUp && !isPatient && performance.now() - startedMs > FIRST_ANSWER_MS) {
        throw new CommandError(refusals.last ?? noAnswer(link));
      }
      const nowMs = performance.now();
      if (nowMs - shownMs >= SHOW_MS || view.isChange(state)) {
        view.show(link.report());
        shownMs = nowMs;
      }
      if (isUp) appHints.tend(nowMs);
      if (isUp && looks % GUARD_LOOKS === GUARD_LOOKS - 1) await onGuard();
    };
    for (let looks = 0; !ended; looks++) {
      try {
        await look(looks);
      } catch (error) {
        // A tunnel goes on without a look at it. One that is not up yet may carry already; it has as long as an answer has.
        const isWaitedFor = isUp || performance.now() - startedMs <= FIRST_ANSWER_MS;
        if (!isWaitedFor || !isShortage(error)) throw error;
        if (performance.now() - shownMs >= SHOW_MS) {
          view.say(`not looked after now: ${(error as Error).message}`);
        }
        shownMs = performance.now();
      }
      if (ended) break;
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, isUp ? LOOK_MS : FIRST_LOOK_MS);
        wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    return 0;
  } finally {
    for (const signal of SIGNALS) Deno.removeSignalListener(signal, end);
    endWatch();
    try {
      await onEnding?.();
    } finally {
      await link.close();
    }
  }
}

/** Tells each reason why the relay refuses, once until the tunnel is up again. */
class Refusals {
  readonly #link: Link;
  readonly #view: LinkView;
  #reason: number | undefined;

  constructor(link: Link, view: LinkView) {
    this.#link = link;
    this.#view = view;
  }

  /** What was told last, for an end at which nothing is changed. */
  get last(): string | undefined {
    return this.#reason === undefined ? undefined : `${this.#words(this.#reason)} Nothing was changed here.`;
  }

  /** Throws CommandError for a device that is kept out, unless it `goesOn`: asking again changes nothing before a person does. */
  look(state: LinkStatus["state"], goesOn: boolean): void {
    const { refused } = this.#link;
    if (state === "connected") this.#reason = undefined;
    else if (refused !== undefined && refused !== this.#reason) {
      this.#reason = refused;
      if (!goesOn && isBar(refused)) throw new CommandError(this.last!);
      this.#view.say(this.#words(refused));
    }
  }

  #words(reason: number): string {
    return explainRefusal(reason, this.#link.servers.address);
  }
}

function noAnswer(link: Link): string {
  const failure = link.fallbackFailure;
  const around = failure === undefined
    ? "UDP may be blocked on the way, and the invitation names no way around (no [fallback] on the relay when it was " +
      "made)"
    : failure || "UDP may be blocked on the way, and over TLS it does not answer either";
  return `no answer from the relay at ${link.servers.address} in ${
    FIRST_ANSWER_MS / 1000
  } s: it may be off, ${around}, ` +
    "or it does not know this device, or this machine's clock has gone back; on the relay, `deno task peer list`, " +
    "`deno task status` and its log tell. " +
    "Nothing was changed here";
}
