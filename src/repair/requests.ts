// Hot path.
/**
 * The receiving side of repair on request (PROTOCOL §14): which marked datagrams are missing, by the marks of later ones or,
 * where the pace is known, because they are overdue; and when each is asked for. Invariant: memory is fixed; nothing is asked
 * for whose answer would come too late; requests take at most ASK_SHARE of the bytes that arrive. asking.ts has the times.
 * Keeps PROTOCOL R103 and R104.
 */
import type { Arrivals } from "./arrivals.ts";
import { ANSWERABLE, APART_US, areTooFew, type AskingPath, nextAskAge } from "./asking.ts";
import {
  REQUEST_ENTRIES_MAX,
  REQUEST_ENTRY_BYTES,
  REQUEST_FIXED_BYTES,
  REQUEST_RUN_MAX,
  writeRequest,
  writeRequestEntry,
} from "../wire/control.ts";
import { FRAME_HEAD_BYTES } from "../wire/frame.ts";
import { MARKS } from "../wire/oxtunnel.ts";
import { PLACES } from "../wire/repair.ts";

/** Missing datagrams that are remembered, a power of two. */
const MISSING_MAX = 64;
/** Answers whose places are remembered; and no place. */
const ANSWERS = 16, NO_PLACE = -1;
/** Bytes of requests for each byte that arrives, and how many may add up: some requests in datagrams of their own. */
const ASK_SHARE = 0.06, ASK_BYTES_MAX = 1500;
/** Bytes of a request with one entry; and of a datagram around one that goes alone, IPv4 and UDP counted. */
const REQUEST_BYTES_MIN = FRAME_HEAD_BYTES + REQUEST_FIXED_BYTES + REQUEST_ENTRY_BYTES;
const DATAGRAM_BYTES = 28 + 6 + 16;
/** Overdue datagrams in a row that are asked for by pace, and how long after the last arrival. */
const OVERDUE_MAX = 32, OVERDUE_US_MAX = 250_000;
/** The pace counts for this long after a loss, and again after so many datagrams when it had been wrong. */
const ARMED_US = 10_000_000, DISTRUST = 64, DISTRUST_MAX = 4096;
/** Least time that a datagram is overdue by before it is asked for; and share of its lateness's maximum on top. */
const OVERDUE_US_MIN = 1_000, LATENESS_MARGIN = 1.25, LATENESS_KEPT = 127 / 128;
/** A pause, and gain of the average gap. */
const PAUSE_US = 200_000, GAIN = 1 / 16;
/** Gaps until the pace is known. */
const GAPS_MIN = 8;
/** A shorter period is none. */
const PERIOD_US_MIN = 500;
/** How far behind a marked datagram another can be named; and how many counters are searched for missing ones. */
const PLACE_MAX = 255, SEARCHED = 256;
/** A request may be this much later than its last moment, by timers and by a round trip that has grown. */
const ROUNDING_US = 1_000;
/** Share of the time that is left, for which a request may wait for a ride; and how late that ride may be. */
const HOLD_SHARE = 1 / 6, RIDE_LATE_US = 1_000;
/** Losses in a row, on average, from which on they are bursts. */
const BURST_RUN = 1.5;
/** After so many datagrams in a row that were asked for in vain, one in IN_VAIN_EVERY is asked for: nobody answers in time. */
const IN_VAIN_MAX = 16, IN_VAIN_EVERY = 16;

export class Requests {
  /** Deadline of the marked packets, microseconds; the other end tells it. */
  deadlineUs: number;
  /** When there is something to do without an arrival, or Infinity: to ask, or to notice that a datagram is overdue. */
  dueUs = Infinity;
  /** Requests for one datagram each that were sent; those whose datagram came back in time, came back too late, came by itself. */
  asked = 0;
  answered = 0;
  late = 0;
  useless = 0;
  readonly #arrivals: Arrivals;
  readonly #pathNumber: number;
  readonly #path: AskingPath = { rttUs: -1, usableUs: 0, loss: 0, backLoss: 0, burstUs: 0, target: 0.001 };
  // The newest marked datagram: counter, mark, arrival. -1 before the first.
  #anchor = -1;
  #mark = 0;
  #anchorUs = 0;
  /** Which of the datagrams behind the newest marked one came back before any later one arrived, by bits. */
  #cameBack = 0;
  /** Of these, how many are known to be overdue. */
  #overdue = 0;
  // The pace: average gap, gaps measured, recent maximum of what a datagram came later than expected.
  #periodUs = 0;
  #gaps = 0;
  #latenessUs = 0;
  #lossUs = -Infinity;
  /** The pace is not trusted before this many further datagrams; and by how many next time. */
  #distrusted = 0;
  #distrust = DISTRUST;
  // Missing datagrams: the marked one before them, how many places behind, when expected, when to ask, times asked.
  readonly #behind = new Float64Array(MISSING_MAX);
  readonly #place = new Uint8Array(MISSING_MAX);
  readonly #expectedUs = new Float64Array(MISSING_MAX);
  readonly #askUs = new Float64Array(MISSING_MAX).fill(Infinity);
  readonly #asks = new Uint8Array(MISSING_MAX);
  /** 1 where no later datagram has shown that it is missing. */
  readonly #isGuess = new Uint8Array(MISSING_MAX);
  readonly #marks = new Uint8Array(MISSING_MAX);
  readonly #isFree = new Uint8Array(MISSING_MAX).fill(1);
  #count = 0;
  /** Datagrams asked for in vain since the last answer, and missing ones since then that were not asked for. */
  #inVain = 0;
  #skipped = 0;
  // The last answers: counters of their sources, and the places by which these were asked for.
  readonly #answerCounter = new Float64Array(ANSWERS).fill(-1);
  readonly #answerPlace = new Uint8Array(ANSWERS);
  #answerNext = 0;
  /** When a request may ride. */
  #rideUs = Infinity;
  /** Copies of the last request that are still to be sent. */
  #copies = 0;
  #credit = ASK_BYTES_MAX;

  /** @param pathNumber of the path whose datagrams are asked for. */
  constructor(arrivals: Arrivals, deadlineUs: number, target: number, pathNumber = 0) {
    this.#pathNumber = pathNumber;
    this.#arrivals = arrivals;
    this.deadlineUs = deadlineUs;
    this.#path.target = target;
  }

  /** Missing datagrams that can still be asked for. */
  get missing(): number {
    return this.#count;
  }

  /** When this end is likely to send a datagram in which a request can ride; Infinity where that is not known. */
  nextRideUs = Infinity;

  /** Sets what is known of the path: its round trip, -1 for unknown, and the share lost of what this end sends. */
  setPath(rttUs: number, backLoss: number): void {
    const path = this.#path, { runs } = this.#arrivals;
    path.rttUs = rttUs;
    path.backLoss = backLoss;
    path.loss = Math.max(runs.lossRate, runs.lost > 0 && runs.judged < 256 ? 1 / 64 : 0);
    path.burstUs = runs.runLength > BURST_RUN ? -this.#periodUs / Math.log(1 - 1 / runs.runLength) : 0;
    path.usableUs = ANSWERABLE * this.deadlineUs;
  }

  /** Notes an accepted datagram of `bytes`; `mark` is 0 to MARKS. Call after `Arrivals.arrived`. */
  arrived(counter: number, mark: number, bytes: number, nowUs: number): void {
    this.#credit = Math.min(ASK_BYTES_MAX, this.#credit + ASK_SHARE * bytes);
    if (mark === 0) return;
    if (this.#anchor < 0) {
      this.#begin(counter, mark, nowUs);
    } else if (counter > this.#anchor) {
      this.#next(counter, mark, nowUs);
    } else this.#settle(counter, mark, NO_PLACE, nowUs, false);
    this.#schedule(nowUs);
  }

  /** Notes that repair brought back the datagram with `counter`. */
  recovered(counter: number, nowUs: number): void {
    let place = NO_PLACE;
    for (let i = 0; i < ANSWERS; i++) if (this.#answerCounter[i] === counter) place = this.#answerPlace[i];
    this.#settle(counter, 0, place, nowUs, true);
  }

  /** Notes that an answer arrived, for the datagram with `counter` that was asked for by `place`, modulo PLACES. */
  answerCame(counter: number, place: number): void {
    this.#answerCounter[this.#answerNext] = counter;
    this.#answerPlace[this.#answerNext] = place;
    this.#answerNext = (this.#answerNext + 1) % ANSWERS;
  }

  #begin(counter: number, mark: number, nowUs: number): void {
    this.#anchor = counter;
    this.#mark = mark;
    this.#anchorUs = nowUs;
    this.#cameBack = this.#overdue = 0;
  }

  /** A marked datagram behind all others: those between are missing. */
  #next(counter: number, mark: number, nowUs: number): void {
    const lost = this.#lostBefore(counter, mark, nowUs);
    const elapsedUs = nowUs - this.#anchorUs;
    this.#judgeOverdue(lost);
    if (lost > 0) this.#lossUs = nowUs;
    const waitUs = this.#arrivals.overtakenUs;
    const last = Math.min(lost, PLACE_MAX), before = Math.max(this.#overdue, last - REQUEST_RUN_MAX);
    for (let i = last; i > before; i--) {
      if (i <= 32 && (this.#cameBack >>> (i - 1) & 1) !== 0) continue;
      this.#miss(this.#anchor, i, this.#anchorUs + elapsedUs * i / (lost + 1), nowUs + waitUs, 0);
    }
    this.#measurePace(elapsedUs / (lost + 1), nowUs);
    this.#begin(counter, mark, nowUs);
  }

  /** How many marked datagrams are missing before the one that arrived: by marks, and by counters and pace what these leave open. */
  #lostBefore(counter: number, mark: number, nowUs: number): number {
    const { runs } = this.#arrivals;
    const isFar = counter - this.#anchor > SEARCHED;
    let open = 0;
    if (!isFar) { for (let i = this.#anchor + 1; i < counter; i++) if (!runs.hasArrived(i)) open++; }
    const least = (mark - this.#mark - 1 + 2 * MARKS) % MARKS;
    const isPaced = this.#gaps >= GAPS_MIN && this.#periodUs >= PERIOD_US_MIN;
    let lost = least;
    if (isPaced || !isFar) {
      const about = isPaced ? (nowUs - this.#anchorUs) / this.#periodUs - 1 : open;
      lost += MARKS * Math.max(0, Math.round((about - least) / MARKS));
    }
    if (isFar) return lost;
    if (lost > open) lost = open < least ? open : open - (open - least) % MARKS;
    // What is missing beside them was not marked, and so not protected.
    for (let i = counter - 1, left = open - lost; left > 0; i--) {
      if (runs.hasArrived(i)) continue;
      this.#arrivals.onUnprotected(i);
      left--;
    }
    return lost;
  }

  /** Now that the number of lost ones is known: overdue ones beyond it were not missing, and the pace was wrong. */
  #judgeOverdue(lost: number): void {
    if (this.#overdue === 0) return;
    let isWrong = false;
    for (let i = 0; i < MISSING_MAX; i++) {
      if (this.#isFree[i] !== 0 || this.#behind[i] !== this.#anchor || this.#isGuess[i] === 0) {
        continue;
      }
      if (this.#place[i] <= lost) this.#isGuess[i] = 0;
      else {
        if (this.#asks[i] > 0) this.useless++;
        this.#free(i);
        isWrong = true;
      }
    }
    if (!isWrong) return;
    this.#distrusted = this.#distrust;
    this.#distrust = Math.min(DISTRUST_MAX, 2 * this.#distrust);
  }

  #measurePace(gapUs: number, nowUs: number): void {
    if (this.#distrusted > 0) this.#distrusted--;
    if (nowUs - this.#anchorUs > PAUSE_US) return;
    this.#gaps++;
    if (this.#gaps <= GAPS_MIN) this.#periodUs += (gapUs - this.#periodUs) / this.#gaps;
    const lateUs = gapUs - this.#periodUs;
    this.#latenessUs = Math.max(lateUs, this.#latenessUs * LATENESS_KEPT);
    this.#periodUs += (gapUs - this.#periodUs) * GAIN;
  }

  #miss(behind: number, place: number, expectedUs: number, askUs: number, isGuess: 0 | 1): void {
    if (this.#count === MISSING_MAX) return;
    if (this.#inVain >= IN_VAIN_MAX && ++this.#skipped % IN_VAIN_EVERY !== 0) return;
    let i = 0;
    while (this.#isFree[i] === 0) i++;
    this.#isFree[i] = 0;
    this.#count++;
    this.#behind[i] = behind;
    this.#place[i] = place;
    // All are noted while the marked one before them is the newest.
    this.#marks[i] = (this.#mark - 1 + place) % MARKS + 1;
    this.#expectedUs[i] = expectedUs;
    this.#askUs[i] = askUs;
    this.#asks[i] = 0;
    this.#isGuess[i] = isGuess;
  }

  #free(i: number): void {
    this.#isFree[i] = 1;
    this.#askUs[i] = Infinity;
    this.#count--;
  }

  /**
   * The datagram with `counter` came, by itself with its mark or by repair, perhaps with the place by which it was asked for (0 and
   * NO_PLACE where unknown): it is missing no more. Its place is at most what counters say, since unmarked ones may be missing too.
   */
  #settle(counter: number, mark: number, askedAs: number, nowUs: number, isRecovered: boolean): void {
    const isTail = counter > this.#anchor;
    const behind = isTail ? this.#anchor : this.#newestBefore(counter, mark, askedAs);
    // Counted once: up to SEARCHED steps, for what the other end may send by the thousand.
    const most = isTail || behind >= 0 ? this.#placesTo(counter, behind) : 0;
    let found = -1;
    for (let i = 0; i < MISSING_MAX && behind >= 0; i++) {
      if (this.#behind[i] !== behind || this.#place[i] > most || !this.#canBe(i, mark, askedAs)) continue;
      if (found < 0 || this.#place[i] > this.#place[found]) found = i;
    }
    if (isTail) {
      const place = found >= 0 ? this.#place[found] : most;
      if (place <= 32) this.#cameBack |= 1 << (place - 1);
    }
    if (found < 0) return;
    if (this.#asks[found] > 0) {
      // Repair in advance would have brought it back without the request.
      const isAnswer = isRecovered && askedAs !== NO_PLACE;
      if (isAnswer) this.#inVain = 0;
      if (!isAnswer) this.useless++;
      else if (nowUs - this.#expectedUs[found] <= this.deadlineUs) this.answered++;
      else this.late++;
    }
    // What comes by itself was only late: from now on the pace waits as long.
    if (!isRecovered) this.#latenessUs = Math.max(this.#latenessUs, nowUs - this.#expectedUs[found]);
    this.#free(found);
  }

  /** The newest marked datagram before `counter` behind which one is missing that has the mark and the place; -1 for none. */
  #newestBefore(counter: number, mark: number, askedAs: number): number {
    let behind = -1;
    for (let i = 0; i < MISSING_MAX && this.#count > 0; i++) {
      if (this.#behind[i] > behind && this.#behind[i] < counter && this.#canBe(i, mark, askedAs)) {
        behind = this.#behind[i];
      }
    }
    return behind;
  }

  /** Whether the i-th is missing and may have the mark and the place by which it was asked for, 0 and NO_PLACE where unknown. */
  #canBe(i: number, mark: number, askedAs: number): boolean {
    return this.#isFree[i] === 0 && (mark === 0 || this.#marks[i] === mark) &&
      (askedAs === NO_PLACE || this.#place[i] % PLACES === askedAs);
  }

  /** How many places behind the marked datagram `behind` one with `counter` is, unmarked ones that arrived left out. */
  #placesTo(counter: number, behind: number): number {
    const { runs } = this.#arrivals;
    let places = 1;
    for (let i = Math.max(behind + 1, counter - SEARCHED); i < counter; i++) {
      if (!runs.hasArrived(i)) places++;
    }
    return places;
  }

  /** When the next datagram is overdue by its pace; Infinity where the pace is not to be trusted. */
  #overdueUs(nowUs: number): number {
    const isTrusted = this.#gaps >= GAPS_MIN && this.#periodUs >= PERIOD_US_MIN && this.#distrusted === 0 &&
      nowUs - this.#lossUs < ARMED_US;
    const marginUs = OVERDUE_US_MIN + LATENESS_MARGIN * this.#latenessUs;
    if (!isTrusted || marginUs > this.#periodUs || this.#overdue === OVERDUE_MAX) return Infinity;
    const afterUs = (this.#overdue + 1) * this.#periodUs + marginUs;
    return afterUs > OVERDUE_US_MAX ? Infinity : this.#anchorUs + afterUs;
  }

  /** Finds what has become overdue, and sets `dueUs`. */
  #schedule(nowUs: number): void {
    const { rttUs, usableUs } = this.#path;
    let overdueUs = Infinity;
    if (rttUs >= 0 && rttUs <= usableUs) {
      for (overdueUs = this.#overdueUs(nowUs); overdueUs <= nowUs; overdueUs = this.#overdueUs(nowUs)) {
        const place = ++this.#overdue;
        if ((this.#cameBack >>> (place - 1) & 1) !== 0) continue;
        this.#miss(this.#anchor, place, this.#anchorUs + place * this.#periodUs, nowUs, 1);
      }
    }
    const holdUs = Math.max(0, (usableUs - rttUs) * HOLD_SHARE), rideUs = this.nextRideUs;
    let askUs = Infinity, dueUs = overdueUs;
    for (let i = 0; i < MISSING_MAX && this.#count > 0; i++) {
      const entryUs = this.#askUs[i], lastUs = this.#expectedUs[i] + usableUs - rttUs;
      askUs = Math.min(askUs, entryUs);
      // Where there is time enough, what is sent anyway takes the request along.
      const isHeld = rideUs >= entryUs && rideUs <= entryUs + holdUs && rideUs + RIDE_LATE_US <= lastUs;
      dueUs = Math.min(dueUs, isHeld ? rideUs + RIDE_LATE_US : entryUs);
    }
    this.#rideUs = askUs;
    if (this.#copies > 0) dueUs = nowUs;
    this.dueUs = Math.ceil(dueUs); // timers are of whole microseconds
  }

  /** Whether a request is to be sent now. Gives up what cannot come in time any more. */
  hasWord(nowUs: number): boolean {
    if (this.#copies > 0) return true;
    if (this.dueUs > nowUs) return false;
    this.#schedule(nowUs);
    return this.dueUs <= nowUs;
  }

  /** Whether a request may go along with a datagram that is sent now. */
  canRide(nowUs: number): boolean {
    return this.#copies > 0 || this.#rideUs <= nowUs;
  }

  /**
   * Writes a request for what is to be asked for now, frame head included, in at most `room` bytes; returns the bytes.
   * @param isAlone whether a datagram is sent for this only.
   */
  write(view: DataView, at: number, room: number, isAlone: boolean, nowUs: number): number {
    const most = Math.min(
      REQUEST_ENTRIES_MAX,
      Math.floor((room - FRAME_HEAD_BYTES - REQUEST_FIXED_BYTES) / REQUEST_ENTRY_BYTES),
    );
    if (most < 1) return 0;
    if (this.#copies > 0) return this.#writeCopy(view, at, most, isAlone, nowUs);
    this.#entries = 0;
    let isLastChance = false;
    for (let i = 0; i < MISSING_MAX; i++) {
      if (this.#askUs[i] > nowUs) continue;
      const ageUs = nowUs - this.#expectedUs[i], { rttUs, usableUs } = this.#path;
      if (ageUs + rttUs > usableUs + ROUNDING_US) {
        this.#expire(i, nowUs);
        continue;
      }
      if (!this.#add(i, most)) {
        if (this.#entries === most) break;
        this.#askUs[i] = nowUs + APART_US; // no credit
        continue;
      }
      const nextAge = nextAskAge(ageUs, ++this.#asks[i], this.#path);
      if (nextAge === Infinity && this.#asks[i] === 1) isLastChance = true;
      this.asked++;
      this.#askUs[i] = nextAge === Infinity
        ? this.#expectedUs[i] + this.deadlineUs + APART_US
        : this.#expectedUs[i] + nextAge;
    }
    const bytes = this.#emit(view, at, isAlone);
    this.#copies = bytes > 0 && isLastChance && areTooFew(this.#path, 1) ? 1 : 0;
    this.#schedule(nowUs);
    return bytes;
  }

  // The entries of the request that is written, or was written last.
  #entries = 0;
  readonly #entryBehind = new Float64Array(REQUEST_ENTRIES_MAX);
  readonly #entryFirst = new Uint8Array(REQUEST_ENTRIES_MAX);
  readonly #entryCount = new Uint8Array(REQUEST_ENTRIES_MAX);

  /** No further answer can come in time: gives the datagram up, once an answer that is under way would have come. */
  #expire(i: number, nowUs: number): void {
    const overUs = this.#expectedUs[i] + this.deadlineUs + APART_US;
    if (this.#asks[i] > 0 && nowUs < overUs) {
      this.#askUs[i] = overUs;
      return;
    }
    if (this.#asks[i] > 0) {
      this.late++;
      this.#inVain++;
    }
    this.#free(i);
  }

  /** Adds a missing datagram to the request; false when it has no room, or there is no credit. */
  #add(i: number, most: number): boolean {
    const behind = this.#behind[i], place = this.#place[i];
    for (let e = 0; e < this.#entries; e++) {
      if (this.#entryBehind[e] !== behind) continue;
      const first = this.#entryFirst[e], end = first + this.#entryCount[e];
      if (place === end && this.#entryCount[e] < REQUEST_RUN_MAX) {
        this.#entryCount[e]++;
        return true;
      }
      if (place === first - 1 && this.#entryCount[e] < REQUEST_RUN_MAX) {
        this.#entryFirst[e]--;
        this.#entryCount[e]++;
        return true;
      }
    }
    if (this.#entries === most || this.#credit < DATAGRAM_BYTES + REQUEST_BYTES_MIN) return false;
    this.#credit -= REQUEST_ENTRY_BYTES;
    this.#entryBehind[this.#entries] = behind;
    this.#entryFirst[this.#entries] = place;
    this.#entryCount[this.#entries++] = 1;
    return true;
  }

  #emit(view: DataView, at: number, isAlone: boolean): number {
    if (this.#entries === 0) return 0;
    let to = writeRequest(view, at, this.#pathNumber, this.#entries);
    for (let e = 0; e < this.#entries; e++) {
      to = writeRequestEntry(view, to, this.#entryBehind[e], this.#entryFirst[e], this.#entryCount[e]);
    }
    this.#credit -= REQUEST_BYTES_MIN - REQUEST_ENTRY_BYTES + (isAlone ? DATAGRAM_BYTES : 0);
    return to - at;
  }

  /** Writes the last request again, as many entries as there is room for. */
  #writeCopy(view: DataView, at: number, most: number, isAlone: boolean, nowUs: number): number {
    this.#copies--;
    this.#entries = Math.min(this.#entries, most);
    this.#schedule(nowUs);
    return this.#emit(view, at, isAlone);
  }
}
