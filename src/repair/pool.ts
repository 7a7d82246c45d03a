/**
 * The sessions of one tunnel that repair (PROTOCOL §13), and what they share. Invariant: no more sessions repair at
 * a time, in either direction, than there is memory for; the others go without repair and lose nothing else. Plans no
 * repair (repair/planner.ts) and knows no datagrams.
 */
import { isRealTime } from "../control/traffic_class.ts";
import { SEEN_SCHEMES } from "./figures.ts";
import type { RepairOptions } from "./options.ts";
import { RepairPlanner } from "./planner.ts";
import { Predictors } from "./prediction/predictor.ts";
import { RepairReceiver } from "./receiver.ts";
import type { RepairTally } from "./tally.ts";

/** The tunnel's counters, as far as repair adds to them. */
export interface RepairCounters {
  add(name: RepairCount, amount: number): void;
}

type RepairCount =
  | "repairs_sent"
  | "repair_bytes_sent"
  | "repairs_received"
  | "repair_bytes_received"
  | "repairs_wasted"
  | "packets_unrepaired"
  | "reported_repaired"
  | "reported_unrepaired"
  | "requests_sent"
  | "requests_answered"
  | "requests_late"
  | "requests_useless"
  | "requests_received"
  | "answers_sent"
  | "answers_refused";

/** Sessions that send repairs, and as many that receive them: about 100 KB each in both directions. */
const SESSIONS_MAX = 512;

/** The sessions of one tunnel that repair. */
export class Repairs {
  readonly options: RepairOptions;
  readonly counters: RepairCounters;
  readonly #predictors: Predictors;
  readonly #sending = new Set<RepairTally>();
  readonly #receiving = new Set<RepairTally>();

  constructor(options: RepairOptions, counters: RepairCounters) {
    this.options = options;
    this.counters = counters;
    this.#predictors = new Predictors(options.predictor);
  }

  /** Whether a packet of the class makes a session repair. Bulk alone does not: its transport repairs its losses. */
  isProtected(trafficClass: number): boolean {
    return !this.options.isTrafficAware || isRealTime(trafficClass);
  }

  /**
   * The sending side for one more session; undefined when SESSIONS_MAX have one. @param isAsking whether lost packets are asked
   * for.
   */
  takeSender(isAsking = false): RepairPlanner | undefined {
    if (this.#sending.size === SESSIONS_MAX) return undefined;
    const { options } = this;
    const planner = new RepairPlanner(
      options,
      options.isProactive ? this.#predictors.make() : undefined,
      isAsking,
    );
    this.#sending.add(planner.tally);
    return planner;
  }

  /**
   * The receiving side for one more session; undefined when SESSIONS_MAX have one.
   * @param first the first counter of which everything that arrives is shown to it. @param isAsking whether it asks, and
   * @param pathNumber about which path.
   */
  takeReceiver(first: number, isAsking = false, pathNumber = 0): RepairReceiver | undefined {
    if (this.#receiving.size === SESSIONS_MAX) return undefined;
    const receiver = new RepairReceiver(
      this.options.kernel,
      first,
      isAsking
        ? { deadlineUs: this.options.gameDeadlineUs, target: this.options.target, pathNumber }
        : undefined,
    );
    this.#receiving.add(receiver.tally);
    return receiver;
  }

  /** Takes back what an ended session had. */
  give(sender: RepairPlanner | undefined, receiver: RepairReceiver | undefined): void {
    if (sender) this.#sending.delete(sender.tally);
    if (receiver) this.#receiving.delete(receiver.tally);
  }

  /** Sessions by the scheme that they repair by at `nowUs`, in the order of SEEN_SCHEMES. */
  sessionsByScheme(direction: "sending" | "receiving", nowUs: number): number[] {
    const counts = SEEN_SCHEMES.map(() => 0);
    for (const tally of direction === "sending" ? this.#sending : this.#receiving) {
      counts[SEEN_SCHEMES.indexOf(tally.schemeAt(nowUs))]++;
    }
    return counts;
  }
}
