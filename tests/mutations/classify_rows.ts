/**
 * Mutations of what says which class a flow has: patterns, RTP, behaviour, rules, and the reader of captures.
 */
import type { Mutation } from "./mutation.ts";

export const CLASSIFY_ROWS: readonly Mutation[] = [
  {
    file: "src/control/recognise.ts",
    from: "return step <= STEP_MAX ||",
    to: "return false && step <= STEP_MAX ||",
    tests: ["tests/unit/classifier_test.ts"],
    note: "RTP's next packet does not show a call",
  },
  {
    file: "src/control/recognise.ts",
    from: "if (RANK[app] > RANK[was]) application[row] = app;",
    to: "",
    tests: ["tests/unit/signatures_test.ts"],
    note: "a transport's name stays where its program is seen",
  },
  {
    file: "src/control/recognise.ts",
    from: "return first === DTLS_DATA ||",
    to: "return false ||",
    tests: ["tests/unit/classifier_test.ts"],
    note: "a meeting's file transfer is a call",
  },
  {
    file: "src/control/classifier.ts",
    from: "if (isHeavy) return false;",
    to: "",
    tests: ["tests/unit/classifier_test.ts"],
    note: "what acknowledges a transfer is a game",
  },
  {
    file: "src/control/classifier.ts",
    from: "return theirs >= DATA_PAYLOAD_MIN ? Math.min(ACKS_MAX, score + 3) : score;",
    to: "return score;",
    tests: ["tests/unit/classifier_test.ts"],
    note: "a slow transfer's acknowledgements are a game",
  },
  {
    file: "src/control/classifier.ts",
    from: "if (crowd > CROWD_RUN) return score >> 1;",
    to: "",
    tests: ["tests/unit/classifier_test.ts"],
    note: "who asks as fast as answers come is a game",
  },
  {
    file: "src/control/classifier.ts",
    from: "STEADY_TAKEN << state[at + STATE_FLIPS]",
    to: "STEADY_TAKEN",
    tests: ["tests/unit/classifier_test.ts"],
    note: "a class that was taken back returns as easily",
  },
  {
    file: "src/control/signatures.ts",
    from: "if (said + this.#lengthPlus[i] !== bytes) return false;",
    to: "",
    tests: ["tests/unit/signatures_test.ts"],
    note: "a pattern's length field counts for nothing",
  },
  {
    file: "src/control/direction.ts",
    from: "if (ruled[place >> 1] !== 0) return ruled[place >> 1] - 1;",
    to: "",
    tests: ["tests/unit/class_rules_test.ts"],
    note: "a person's rules count for nothing",
  },
  {
    file: "src/control/direction.ts",
    from: "if (payloadBytes > 0) {",
    to: "if (payloadBytes < 0) {",
    tests: ["tests/unit/classifier_test.ts"],
    note: "no payload is looked at",
  },
  {
    file: "src/control/flows.ts",
    from: "this.ruled.fill(0);",
    to: "",
    tests: ["tests/unit/class_rules_test.ts"],
    note: "rules that were taken away still hold for flows that are there",
  },
  {
    file: "src/cli/capture.ts",
    from: "if (bytes > view.byteLength - at) return;",
    to: "",
    tests: ["tests/unit/capture_test.ts"],
    note: "a record's length is believed beyond the file's end",
  },
];
