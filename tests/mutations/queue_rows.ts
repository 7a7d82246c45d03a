/**
 * Mutations of queues and rates: src/queue, src/rate, and where sessions use them.
 */
import type { Mutation } from "./mutation.ts";

const QUEUES = ["tests/unit/queues_test.ts"],
  LINE = ["tests/sim/queue_test.ts"],
  BBR = ["tests/vectors/bbr_test.ts"];

export const QUEUE_ROWS: readonly Mutation[] = [
  {
    file: "src/egress/mod.ts",
    from: "  queue(burst, context, nowUs); //",
    to: "  //",
    tests: LINE,
    note: "nothing waits for its line",
  },
  {
    file: "src/egress/queue.ts",
    from: "if (rest.pathRate === undefined) rest.rate.find(nowUs);",
    to: "",
    tests: LINE,
    note: "no path's rate is found",
  },
  {
    file: "src/egress/classify.ts",
    from: "if (!isOxtunnel && !isSorted) continue;",
    to: "if (!isOxtunnel) continue;",
    tests: LINE,
    note: "WireGuard's packets are not sorted",
  },
  {
    file: "src/queue/tins.ts",
    from: "if (isRealTime(trafficClass)) return TIN_REAL;",
    to: "",
    tests: [...QUEUES, ...LINE],
    note: "games and calls wait among the others",
  },
  {
    file: "src/queue/tins.ts",
    from: "      if (this.#deficit[flow] <= 0) {",
    to: "      if (this.#deficit[flow] <= -1e9) {",
    tests: QUEUES,
    note: "one flow's turn does not end",
  },
  {
    file: "src/queue/queues.ts",
    from: "if (!this.#codel.drops(flow, waitedUs, isShort, nowUs)) return false;",
    to: "if (nowUs >= 0) return false;",
    tests: QUEUES,
    note: "a standing queue loses nothing",
  },
  {
    file: "src/queue/queues.ts",
    from: "if (waitedUs <= (trafficClass === CLASS_GAME ? gameDeadlineUs : voiceDeadlineUs)) return false;",
    to: "if (gameDeadlineUs + voiceDeadlineUs > 0) return false;",
    tests: QUEUES,
    note: "what is too late goes out",
  },
  {
    file: "src/queue/queues.ts",
    from: "return flow >= 0 && Math.floor(this.#tins.tin[flow] / TINS) === line ? flow : NONE;",
    to: "return flow >= 0 ? flow : NONE;",
    tests: QUEUES,
    note: "a packet goes to another peer",
  },
  {
    file: "src/queue/queues.ts",
    from: "if (this.#o.ecn && markCe(",
    to: "if (!this.#o.ecn && markCe(",
    tests: QUEUES,
    note: "nothing is marked",
  },
  {
    file: "src/queue/queues.ts",
    from: "if (this.#waiting[line] >= this.#o.packets / LINE_SHARE) this.#thin(line);",
    to: "if (this.#waiting[line] < 0) this.#thin(line);",
    tests: QUEUES,
    note: "one peer's packets take all room",
  },
  {
    file: "src/queue/codel.ts",
    from: "this.#dropNextUs[row] += this.#intervalUs / Math.sqrt(this.#count[row]);",
    to: "this.#dropNextUs[row] = Infinity;",
    tests: QUEUES,
    note: "only one packet of a standing queue is lost",
  },
  {
    file: "src/wire/ecn.ts",
    from: "view.setUint16(at + 10, ~((sum & 0xffff) + (sum >>> 16)) & 0xffff);",
    to: "view.setUint16(at + 10, sum);",
    tests: ["tests/unit/ecn_test.ts"],
    note: "a marked packet's checksum is wrong",
  },
  {
    file: "src/rate/bbr.ts",
    from: "if (this.state === STARTUP && queueUs > this.#tuning.startupQueueUs && rate.sample.rate > 0) {",
    to: "if (this.state === STARTUP && queueUs < 0) {",
    tests: LINE,
    note: "a queue does not end start-up",
  },
  {
    file: "src/rate/bbr.ts",
    from: "this.isFullBwNow = this.fullBwCount >= FULL_BW_ROUNDS;",
    to: "this.isFullBwNow = false;",
    tests: BBR,
    note: "a plateau of the rate is not seen",
  },
  {
    file: "src/rate/bbr.ts",
    from: "    this.#lossEventsInRound++;",
    to: "",
    tests: BBR,
    note: "losses do not end start-up",
  },
  {
    file: "src/rate/delivery_rate.ts",
    from: "const intervalUs = Math.max(this.#sendElapsedUs, this.#ackElapsedUs);",
    to: "const intervalUs = this.#ackElapsedUs / 2;",
    tests: BBR,
    note: "acknowledgements that come together show a rate that the path has not",
  },
  {
    file: "src/session/oxtunnel/subjects/rate.ts",
    from: "    pathRate.onReport(report, nowUs);",
    to: "",
    tests: LINE,
    note: "reports say nothing of the rate",
  },
  {
    file: "src/tunnel.ts",
    from: "          this.#told[peer] = kbitS * BYTES_PER_KBIT;",
    to: "",
    tests: LINE,
    note: "what a client says of its line is not kept to",
  },
];
