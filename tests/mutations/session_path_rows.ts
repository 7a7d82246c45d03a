/**
 * Mutations of several paths in a session: their numbers, ids and validation, copies, failover.
 */
import type { Mutation } from "./mutation.ts";

const SIM = "tests/sim/several_paths_test.ts", ADVERSARY = "tests/sim/paths_adversary_test.ts";

export const SESSION_PATH_ROWS: readonly Mutation[] = [
  {
    file: "src/egress/seal.ts",
    from: "if (table.isMultipath[epoch] === 1) copy(",
    to: "if (table.isMultipath[epoch] === 2) copy(",
    tests: [SIM],
    note: "no packet is copied to a second path",
  },
  {
    file: "src/session/oxtunnel/path_set.ts",
    from: "    if (times < SILENT_PINGS) return false;",
    to: "    if (times < 100 * SILENT_PINGS) return false;",
    tests: [SIM],
    note: "no path is ever silent: failover is off",
  },
  {
    file: "src/session/oxtunnel/copy_window.ts",
    from: "    return this.#delivered.accept(0, counter);",
    to: "    return this.#delivered.accept(0, counter) || true;",
    tests: [SIM, ADVERSARY],
    note: "a packet is delivered by its datagram and by its copy",
  },
  {
    file: "src/ingress/recover.ts",
    from: "if (counter < 0 || table.replay.hasSeen(path, counter)) return;",
    to: "if (counter < 0) return;",
    tests: [SIM],
    note: "a copy of what came before the first copy is delivered again",
  },
  {
    file: "src/ingress/unprotect.ts",
    from: "keyPhase(flags) | number << PATH_SHIFT;",
    to: "keyPhase(flags);",
    tests: [SIM, ADVERSARY],
    note: "what comes on a further path is opened as if on the first",
  },
  {
    file: "src/ingress/open.ts",
    from: "table.replay.accept(path[row], counter[row])",
    to: "table.replay.accept(epoch, counter[row])",
    tests: [SIM, ADVERSARY],
    note: "all paths share the first one's replay window",
  },
  {
    file: "src/session/oxtunnel/path_set.ts",
    from: "if (this.rows.length + 1 >= LIVE_MAX ||",
    to: "if (",
    tests: [SIM, ADVERSARY],
    note: "a session has as many paths as there are numbers",
  },
  {
    file: "src/session/oxtunnel/path_set.ts",
    from: "if (this.#session.isInitiator || (this.#used >> number & 1) !== 0) return undefined;",
    to: "if (this.#session.isInitiator) return undefined;",
    tests: [ADVERSARY],
    note: "a number that was used is used again, with the same nonces",
  },
  {
    file: "src/session/oxtunnel/path_set.ts",
    from: "    host.furtherPathsLeft++;",
    to: "",
    tests: [SIM],
    note: "paths that ended are not given back",
  },
  {
    file: "src/session/oxtunnel/further_path.ts",
    from: "    this.paths.abandon();",
    to: "",
    tests: [SIM],
    note: "an id that was asked from one network is asked again from another",
  },
  {
    file: "src/egress/shrink.ts",
    from: "    if (path[row] !== session[row]) continue;",
    to: "",
    tests: [SIM],
    note: "headers are left out on paths that have no contexts",
  },
  {
    file: "src/repair/receiver.ts",
    from: "    this.arrivals.onCopied(counter);",
    to: "",
    tests: [SIM],
    note: "what a copy brought counts as lost for good",
  },
  {
    file: "src/session/oxtunnel/further_path.ts",
    from: "if (this.#session.bulkPath === this.path) this.#session.rate.onReport(report, nowUs);",
    to: "",
    tests: [SIM],
    note: "the rate of a further path is not found",
  },
  {
    file: "src/session/oxtunnel/subjects/rate.ts",
    from: "pathRate.startBytesPerS = BEFORE_SHARE * this.#before;",
    to: "pathRate.startBytesPerS = 0;",
    tests: [SIM],
    note: "bulk comes to another path at any rate, and its full queue looks like the path's length",
  },
  {
    file: "src/ingress/recover.ts",
    from: "if (way.repair?.copyReceived(bytes, from, sourceBytes, counter, nowUs) === false) return;",
    to: "way.repair?.copyReceived(bytes, from, sourceBytes, counter, nowUs);",
    tests: [ADVERSARY],
    note: "what repair brought back is delivered by a copy again",
  },
  {
    file: "src/session/oxtunnel/session.ts",
    from: "if (way === undefined || way.onControl(burst, row, at, length, nowUs)) return false;",
    to: "if (way?.onControl(burst, row, at, length, nowUs)) return false;",
    tests: [ADVERSARY],
    note: "frames of a path that has ended are taken for the first path's",
  },
  {
    file: "src/session/oxtunnel/sessions.ts",
    from: "if (this.#s.table.initiator[burst.session[row]] === 1) return;",
    to: "",
    tests: [SIM],
    note: "a client's path goes on through the door that a datagram came through",
  },
  {
    file: "src/session/oxtunnel/subjects/path_ids.ts",
    from: "if (this.#owner.isClosing) return false;",
    to: "",
    tests: [SIM],
    note: "a path is opened before the other end hears that another one has left its place",
  },
  {
    file: "src/egress/batch.ts",
    from: "epochs.sendable(id, nowUs) === session || ",
    to: "",
    tests: ["tests/unit/batch_test.ts"],
    note: "short packets that wait are lost when their session gets another path",
  },
];
