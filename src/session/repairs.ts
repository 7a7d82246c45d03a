/**
 * Loss repair of the sessions that have it: who repairs, by which plan, within what memory (PROTOCOL §13). Invariant: a
 * session repairs only what both ends accepted, and no more sessions do at a time than there is memory for; the rest go
 * without, which costs them nothing else. What a repair is, is ox_repair.ts's; how much there is of it, control's.
 */
import type { ShardKernel } from "../codec/kernels.ts";
import { PathMeter } from "../control/path_quality.ts";
import { chooseRepair, type RepairSituation } from "../control/redundancy.ts";
import { CLASS_GAME, CLASS_VOICE } from "../control/traffic_class.ts";
import type { Report } from "../wire/control.ts";
import { RepairReceiver, RepairSender } from "./ox_repair.ts";
import { RepairTally } from "./repair_tally.ts";

export interface RepairOptions {
  kernel: ShardKernel;
  /** How late a game's or a call's packet is still of use, microseconds. */
  gameDeadlineUs: number;
  voiceDeadlineUs: number;
  /** Bytes of repair for each byte protected, 0 to 1. */
  budget: number;
}

/** The options for a config's words; `kernel` combines the shards. */
export function repairOptions(
  kernel: ShardKernel,
  { budgetPercent, gameDeadlineMs, voiceDeadlineMs }: {
    budgetPercent: number;
    gameDeadlineMs: number;
    voiceDeadlineMs: number;
  },
): RepairOptions {
  return {
    kernel,
    budget: budgetPercent / 100,
    gameDeadlineUs: 1000 * gameDeadlineMs,
    voiceDeadlineUs: 1000 * voiceDeadlineMs,
  };
}

/** Sessions that send repairs, and as many that take them: about 100 KB each both ways. */
const SESSIONS_MAX = 512;

/** The pool of one tunnel. */
export class Repairs {
  readonly options: RepairOptions;
  #senders = 0;
  #receivers = 0;

  constructor(options: RepairOptions) {
    this.options = options;
  }

  takeSender(): SessionRepair | undefined {
    if (this.#senders === SESSIONS_MAX) return undefined;
    this.#senders++;
    return new SessionRepair(this.options);
  }

  /** @param first the first counter of which it is shown everything that comes. */
  takeReceiver(first: number): RepairReceiver | undefined {
    if (this.#receivers === SESSIONS_MAX) return undefined;
    this.#receivers++;
    return new RepairReceiver(this.options.kernel, first);
  }

  /** A session has ended that had these. */
  give(sender: SessionRepair | undefined, receiver: RepairReceiver | undefined): void {
    if (sender) this.#senders--;
    if (receiver) this.#receivers--;
  }
}

/** Whether packets of the class are protected. */
export function isProtected(trafficClass: number): boolean {
  return trafficClass === CLASS_GAME || trafficClass === CLASS_VOICE;
}

/** The sending side of one session. */
export class SessionRepair {
  readonly sender: RepairSender;
  readonly quality = new PathMeter();
  readonly tally = new RepairTally();
  readonly #options: RepairOptions;
  readonly #situation: RepairSituation;
  readonly #plan = { code: 0, sources: 1, share: 0, spacingUs: 0 };

  constructor(options: RepairOptions) {
    this.#options = options;
    this.sender = new RepairSender(options.kernel);
    this.#situation = {
      lossRate: 0,
      runLength: 1,
      gapUs: options.gameDeadlineUs / 4,
      rttUs: 0,
      rttUsMin: Infinity,
      deadlineUs: options.gameDeadlineUs,
      budget: options.budget,
    };
    this.#choose();
  }

  /** Packets of the class went out in the datagram with `counter`. */
  sent(
    bytes: Uint8Array,
    at: number,
    length: number,
    counter: number,
    trafficClass: number,
    nowUs: number,
  ): void {
    const { voiceDeadlineUs, gameDeadlineUs } = this.#options;
    this.#situation.deadlineUs = trafficClass === CLASS_VOICE ? voiceDeadlineUs : gameDeadlineUs;
    this.sender.sent(bytes, at, length, counter, nowUs);
  }

  /** The other end reports. */
  onReport(report: Report, nowUs: number): void {
    const { quality } = this, situation = this.#situation;
    quality.observe(report, nowUs);
    situation.lossRate = quality.lossRate;
    situation.runLength = quality.runLength;
    situation.gapUs = this.sender.gapUs;
    if (quality.rttUs >= 0) {
      situation.rttUs = quality.rttUs;
      situation.rttUsMin = quality.rttUsMin;
    }
    this.#choose();
  }

  #choose(): void {
    chooseRepair(this.#situation, this.#plan);
    this.sender.plan = this.#plan;
  }
}
