/**
 * A game over two paths in virtual time, one way: what a scheduler (src/control/paths) knows, by reports and pings that take as
 * long as on the wire, and what becomes of its packets. Invariant: the same seed, paths and scheduler give the same result. Has
 * no session, no repair and no machine in it: what is measured is the choice alone.
 */
import { copyOf, NO_PATH, pathOf, type PathScheduler } from "../../src/control/paths/choice.ts";
import { PathFigures } from "../../src/control/paths/figures.ts";
import type { PathModel } from "./channels.ts";

const MS = 1000;
/** 64 packets a second, with all headers. */
const TICK_US = 15_625, GAME_BYTES = 190, PING_BYTES = 74;
/** A report comes this often while packets do, a ping after this time without a packet (PROTOCOL §14). */
const REPORT_US = 50 * MS, PING_US = 100 * MS;
/** Three pings of these unanswered are silence, when packets are given to a path. */
const SILENT_US = 225 * MS;
/** A datagram that three later ones overtook is lost (R93). */
const OVERTAKEN = 3;

/** One path with what its end knows of it. */
export interface PlayedPath {
  model: PathModel;
  /** How long a report takes back to the sender. */
  backUs: number;
  isMetered?: boolean;
}

export interface PlayOptions {
  paths: readonly PlayedPath[];
  seconds: number;
  /** A packet that arrives later than this after its sending is of no use. */
  usefulUs: number;
  /** Until when nothing is counted. */
  warmUpS?: number;
  /** Called at each tick before the choice, with the figures: what predicts a gap sets `isHandoffAhead`. */
  onTick?: (figures: readonly PathFigures[], nowUs: number) => void;
}

export interface Played {
  packets: number;
  /** Lost, or too late. */
  missed: number;
  /** Datagrams of the game by path, and bytes with pings. */
  sent: number[];
  bytes: number[];
  /** The most packets in a row that were missed. */
  longestRun: number;
  /** When each packet was sent and whether it was missed, in order. */
  fates: { atUs: number; isMissed: boolean }[];
}

interface Datagram {
  sentUs: number;
  arrivalUs: number;
  /** Of the game, and not a ping; for UCB1 only what was chosen first counts. */
  isGame: boolean;
  isJudged: boolean;
}

/** The sender's side of one path: what is under way, and what is known. */
class Side {
  readonly figures: PathFigures;
  readonly #open: Datagram[] = [];
  #lastSentUs = -Infinity;
  #unansweredUs = Infinity;
  bytes = 0;
  datagrams = 0;

  constructor(readonly path: PlayedPath) {
    this.figures = new PathFigures(0);
    this.figures.isMetered = path.isMetered ?? false;
  }

  send(nowUs: number, bytes: number, isGame: boolean): number {
    const arrivalUs = this.path.model.arrivalUs(nowUs, bytes);
    this.#open.push({ sentUs: nowUs, arrivalUs, isGame, isJudged: false });
    this.#lastSentUs = nowUs;
    this.#unansweredUs = Math.min(this.#unansweredUs, nowUs);
    this.bytes += bytes;
    if (isGame) this.datagrams++;
    return arrivalUs;
  }

  tick(nowUs: number): void {
    if (nowUs - this.#lastSentUs >= PING_US) this.send(nowUs, PING_BYTES, false);
    this.figures.isSilent = nowUs - this.#unansweredUs > SILENT_US + 2 * this.path.backUs;
  }

  /** Takes the report that the other end wrote at `writtenUs`. */
  report(writtenUs: number, nowUs: number, onJudged: (inTime: boolean) => void, usefulUs: number): void {
    const open = this.#open;
    let arrived = 0, later = 0, lost = 0;
    for (let i = open.length - 1; i >= 0; i--) {
      const one = open[i];
      if (one.arrivalUs <= writtenUs) {
        later++;
        if (one.isJudged) continue;
        one.isJudged = true;
        arrived++;
        this.figures.delay(one.arrivalUs - one.sentUs, nowUs);
        if (one.isGame) onJudged(one.arrivalUs - one.sentUs <= usefulUs);
      } else if (later >= OVERTAKEN && !one.isJudged) {
        one.isJudged = true;
        lost++;
        if (one.isGame) onJudged(false);
      }
    }
    if (arrived > 0) this.#unansweredUs = Infinity;
    this.figures.outcome(arrived + lost, lost, nowUs);
    // What is judged, and three that arrived, say no more.
    while (open.length > 64) open.shift();
  }
}

/** Plays the game with this scheduler. */
export function play(scheduler: PathScheduler, options: PlayOptions): Played {
  const { paths, seconds, usefulUs, warmUpS = 2, onTick } = options;
  const sides = paths.map((path) => new Side(path));
  const figures = sides.map((side) => side.figures);
  const backUs = Math.min(...paths.map((path) => path.backUs));
  const played: Played = { packets: 0, missed: 0, sent: [], bytes: [], longestRun: 0, fates: [] };
  let reportUs = REPORT_US, run = 0;
  for (let nowUs = 0; nowUs < seconds * 1e6; nowUs += TICK_US) {
    for (; reportUs + backUs <= nowUs; reportUs += REPORT_US) {
      sides.forEach((side, number) => {
        const judged = (inTime: boolean) => scheduler.judge(number, inTime ? 1 : 0, inTime ? 0 : 1, nowUs);
        side.report(reportUs, nowUs, judged, usefulUs);
      });
    }
    for (const side of sides) side.tick(nowUs);
    onTick?.(figures, nowUs);
    const choice = scheduler.choose(figures, nowUs);
    let arrivalUs = Infinity;
    for (const number of choice === NO_PATH ? [] : [pathOf(choice), copyOf(choice)]) {
      if (number !== NO_PATH) arrivalUs = Math.min(arrivalUs, sides[number].send(nowUs, GAME_BYTES, true));
    }
    if (nowUs < warmUpS * 1e6) continue;
    const isMissed = arrivalUs - nowUs > usefulUs;
    run = isMissed ? run + 1 : 0;
    played.longestRun = Math.max(played.longestRun, run);
    played.packets++;
    if (isMissed) played.missed++;
    played.fates.push({ atUs: nowUs, isMissed });
  }
  played.sent = sides.map(({ datagrams }) => datagrams);
  played.bytes = sides.map(({ bytes }) => bytes);
  return played;
}

/** One path alone, whatever it does. */
export class OnePath implements PathScheduler {
  constructor(readonly path: number) {}

  choose(): number {
    return this.path; // no copy
  }

  judge(): void {}
}

/** A path that is cut from `cutUs` until `untilUs`. */
export class Cut implements PathModel {
  constructor(readonly path: PathModel, readonly cutUs: number, readonly untilUs = Infinity) {}

  arrivalUs(nowUs: number, bytes: number): number {
    const arrivalUs = this.path.arrivalUs(nowUs, bytes);
    return nowUs >= this.cutUs && nowUs < this.untilUs ? Infinity : arrivalUs;
  }
}
