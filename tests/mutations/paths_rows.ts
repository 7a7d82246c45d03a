/**
 * Mutations of several paths at once: the choice among them, src/control/paths, and a client's doors, src/connect/link.
 */
import type { Mutation } from "./mutation.ts";

const CHOICE = "tests/unit/path_choice_test.ts";

export const PATHS_ROWS: readonly Mutation[] = [
  {
    file: "src/control/paths/choice.ts",
    from: "|| second.leastUs > first.delayUs + LATE_US) return false;",
    to: ") return false;",
    tests: [CHOICE],
    note: "copies go where they are of no use",
  },
  {
    file: "src/control/paths/choice.ts",
    from: "if (second.delayUs < first.delayUs && !isForPrice) return true;",
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
    from: "(path.isMetered ? METERED : 0)",
    to: "0",
    tests: [CHOICE],
    note: "a path that costs money is as good as any",
  },
  {
    file: "src/session/oxtunnel/path_set.ts",
    from: "figures.isSilent = this.isSilent(path);",
    to: "",
    tests: ["tests/sim/several_paths_test.ts"],
    note: "packets stay on a silent path",
  },
  {
    file: "src/connect/link/mod.ts",
    from: "if (isWell) this.#lookAtDoors();",
    to: "",
    tests: ["tests/system/several_paths_test.ts"],
    note: "no interface has a door",
  },
  {
    file: "src/connect/link/doors.ts",
    from:
      "const stays = first !== undefined && (again !== undefined || wanted.length > 0 && before.length > 1);",
    to: "const stays = first !== undefined && again !== undefined;",
    tests: ["tests/unit/link_doors_test.ts"],
    note: "the first path moves onto another one's interface",
  },
  {
    file: "src/connect/link/plane_doors.ts",
    from: "else this.#client.dropDoor(door);",
    to: "",
    tests: ["tests/unit/link_doors_test.ts", "tests/system/several_paths_test.ts"],
    note: "the path of an interface that is gone stays",
  },
  {
    file: "src/connect/link/doors.ts",
    from: "isAhead ? { ...one, isMetered: false } : one",
    to: "one",
    tests: ["tests/unit/link_doors_test.ts"],
    note: "a handover is waited for without copies",
  },
  {
    file: "src/session/oxtunnel/path_set.ts",
    from: "if (door === 0) this.#say(0, isMetered);",
    to: "",
    tests: ["tests/sim/several_paths_test.ts"],
    note: "nobody hears that the first path costs money",
  },
  {
    file: "src/connect/link/mod.ts",
    from: "if (doors.isUsedUp) this.#connect();",
    to: "",
    tests: ["tests/system/several_paths_test.ts"],
    note: "an interface that came and went seven times has no path again",
  },
  {
    file: "src/connect/options.ts",
    from: "if (trafficClass >= 0 && trafficClass !== CLASS_BULK) return bits | 1 << trafficClass;",
    to: "if (trafficClass >= 0) return bits | 1 << trafficClass;",
    tests: ["tests/unit/connect_cli_test.ts"],
    note: "a transfer's packets may go twice",
  },
  {
    file: "src/control/paths/choice.ts",
    from: "this.#credit--;",
    to: "",
    tests: [CHOICE],
    note: "copies have no bound",
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
    from: "if (pausedUs <= path.delayUs + path.deviationUs - paths[other]!.leastUs) return kept;",
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
