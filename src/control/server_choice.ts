/**
 * Which of several relays a client uses, from rounds of probes. Invariant: a relay that answered is preferred to one that
 * did not, and a live one is left only for another that is clearly nearer, several rounds in a row: a change of relay cuts
 * every connection, because their addresses are the relay's. Sends nothing and knows no names.
 */

/** "Clearly nearer": a smaller round trip by this share and by these milliseconds, in this number of rounds in a row. */
const NEARER_RATIO = 0.8;
const NEARER_MS = 5;
const NEARER_ROUNDS = 3;
/** Rounds in which the relay answers probes but not the session, after which it is left. */
const USELESS_ROUNDS = 3;

export class ServerChoice {
  /** The relay in use, by its place in the list. */
  chosen = 0;
  #isFirst = true;
  /** The relay that was clearly nearer in the last round, -1 for none, and for how many rounds. */
  #rival = -1;
  #rivalRounds = 0;
  #deadRounds = 0;

  /** Whether the next round should follow soon: a change is near, or no relay answers. */
  get isUndecided(): boolean {
    return this.#rival >= 0 || this.#deadRounds > 0;
  }

  /**
   * Takes a round of probes and returns who is to be used from now on.
   * @param rttsMs round trips in the list's order; undefined where there was no answer, or one that would refuse.
   * @param isDead whether the session with the chosen relay gets no answers now.
   */
  round(rttsMs: readonly (number | undefined)[], isDead: boolean): number {
    const nearest = nearestOf(rttsMs);
    const own = rttsMs[this.chosen];
    this.#deadRounds = isDead && !this.#isFirst ? this.#deadRounds + 1 : 0;
    if (this.#isFirst) {
      // Without any answer the first of the list is tried, and may yet answer.
      if (nearest < 0) return this.chosen;
      this.#isFirst = false;
      return this.#choose(nearest);
    }
    if (isDead) {
      // One that answers probes is about to answer the handshake too, unless it has had its time.
      const isUseful = own !== undefined && this.#deadRounds < USELESS_ROUNDS;
      const other = nearestOf(rttsMs, this.chosen);
      return isUseful || other < 0 ? this.chosen : this.#choose(other);
    }
    const isNearer = nearest >= 0 && own !== undefined && rttsMs[nearest]! < NEARER_RATIO * own &&
      rttsMs[nearest]! < own - NEARER_MS;
    if (!isNearer) {
      this.#rival = -1;
      this.#rivalRounds = 0;
      return this.chosen;
    }
    this.#rivalRounds = nearest === this.#rival ? this.#rivalRounds + 1 : 1;
    this.#rival = nearest;
    return this.#rivalRounds < NEARER_ROUNDS ? this.chosen : this.#choose(nearest);
  }

  #choose(server: number): number {
    this.chosen = server;
    this.#rival = -1;
    this.#rivalRounds = this.#deadRounds = 0;
    return server;
  }
}

/** The place of the shortest round trip, `except` left out; -1 when no relay answered. */
function nearestOf(rttsMs: readonly (number | undefined)[], except = -1): number {
  let best = -1;
  for (const [i, rttMs] of rttsMs.entries()) {
    if (i === except || rttMs === undefined) continue;
    if (best < 0 || rttMs < rttsMs[best]!) best = i;
  }
  return best;
}
