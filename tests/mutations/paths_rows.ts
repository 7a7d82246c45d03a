/**
 * Mutations of the choice among several paths: src/control/paths.
 */
import type { Mutation } from "./mutation.ts";

const CHOICE = "tests/unit/path_choice_test.ts";

export const PATHS_ROWS: readonly Mutation[] = [
  {
    file: "src/control/paths/choice.ts",
    from: "if (second.leastUs > first.delayUs + LATE_US) return false;",
    to: "",
    tests: [CHOICE],
    note: "copies go where they are of no use",
  },
  {
    file: "src/control/paths/choice.ts",
    from: "if (second.delayUs < first.delayUs) return true;",
    to: "",
    tests: [CHOICE],
    note: "no copy on the faster path once it has lost something",
  },
  {
    file: "src/control/paths/choice.ts",
    from: "path.lossRate + (1 - path.lossRate) * late * late",
    to: "late * late",
    tests: [CHOICE],
    note: "losses do not count for the choice",
  },
  {
    file: "src/control/paths/choice.ts",
    from: "this.#credit--;",
    to: "",
    tests: [CHOICE],
    note: "copies have no bound",
  },
  {
    file: "src/control/paths/choice.ts",
    from: "this.#tried[number] *= keep;",
    to: "",
    tests: [CHOICE],
    note: "UCB1 forgets its successes and not its trials",
  },
  {
    file: "src/control/paths/figures.ts",
    from: "this.#lostBefore = isNext ? this.#lost : 0;",
    to: "this.#lostBefore = this.#lost;",
    tests: [CHOICE],
    note: "losses of long ago count for ever",
  },
  {
    file: "src/control/paths/bulk.ts",
    from: "path.lossRate <= LOSS_MAX && path.queueUs <= QUEUE_US_MAX;",
    to: "path.lossRate <= 1;",
    tests: [CHOICE],
    note: "a path that loses or queues much takes bulk",
  },
  {
    file: "src/control/paths/bulk.ts",
    from: "if (pausedUs < PAUSE_US_MIN) return kept;",
    to: "",
    tests: [CHOICE],
    note: "a flow changes its path between two packets",
  },
  {
    file: "src/control/paths/reorder.ts",
    from: "if (this.#slot[at] !== NONE) return TO_GO;",
    to: "",
    tests: [CHOICE],
    note: "a number that comes twice takes the first one's slot away",
  },
  {
    file: "src/control/paths/reorder.ts",
    from: "Math.min(HOLD_US_MAX, HOLD_SHARE * us)",
    to: "HOLD_SHARE * us",
    tests: [CHOICE],
    note: "packets wait for as long as the paths are apart",
  },
  {
    file: "src/control/paths/handoff.ts",
    from: "if (!(dbm < 0 && dbm >= LEAST_DBM)) return;",
    to: "",
    tests: [CHOICE],
    note: "a driver that tells nothing tells of a handover",
  },
  {
    file: "src/control/paths/handoff.ts",
    from: "if (dbm <= WEAK_DBM || isFalling)",
    to: "if (dbm <= WEAK_DBM)",
    tests: [CHOICE],
    note: "a signal that falls fast warns of nothing",
  },
];
