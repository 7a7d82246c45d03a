/**
 * Mutations of the way over TLS, of what one peer or stranger may take, and of path sizes: src/cli/fallback_*, src/io, and
 * src/session with src/control where these bound work and memory.
 */
import type { Mutation } from "./mutation.ts";

const DOOR = ["tests/unit/fallback_door_test.ts"], CROWD = ["tests/unit/fallback_crowd_test.ts"];
const STREAM = ["tests/unit/stream_port_test.ts"], FLOOD = ["tests/sim/control_flood_test.ts"];
const DUTIES = ["tests/sim/session_duties_test.ts"], TICKETS = ["tests/unit/ox_tickets_test.ts"];
const SIZE = ["tests/unit/path_size_test.ts"], REPAIR = ["tests/unit/repair_sender_test.ts"];

export const FALLBACK_ROWS: readonly Mutation[] = [
  {
    file: "src/io/socket_stream.ts",
    from: "if (this.#allowance > 0) this.pull();",
    to: "this.pull();",
    tests: ["tests/unit/socket_stream_test.ts"],
    note: "TLS reads on while nobody takes anything",
  },
  {
    file: "src/io/stream_port.ts",
    from: "if (this.#outputBytes + wanted - output.length > OUTPUT_ALL_BYTES) return false;",
    to: "",
    tests: STREAM,
    note: "what waits for readers has no bound in all",
  },
  {
    file: "src/io/stream_port.ts",
    from: "if (!connection.isWriting && connection.queued === 0) this.#giveRoomBack(connection);",
    to: "{}",
    tests: STREAM,
    note: "quiet connections keep their buffers",
  },
  {
    file: "src/cli/fallback_door.ts",
    from: "this.#context = contextOf(this.#config, material);",
    to: "contextOf(this.#config, material);",
    tests: DOOR,
    note: "a new certificate is not taken over",
  },
  {
    file: "src/cli/fallback_door.ts",
    from: "    this.#admission.ratePerSecond = config.rateLimitPerIp;",
    to: "",
    tests: DOOR,
    note: "the door keeps the old rate limit",
  },
  {
    file: "src/cli/fallback_door.ts",
    from: "if (guest === undefined || !this.#crowd.enter(guest)) {",
    to: "if (guest === undefined) {",
    tests: DOOR,
    note: "connections are not bounded",
  },
  {
    file: "src/cli/fallback_crowd.ts",
    from: "if (!this.#expel(this.#oldestOfGreediest())) return false;",
    to: "return false;",
    tests: CROWD,
    note: "strangers lock newcomers out",
  },
  {
    file: "src/cli/fallback_crowd.ts",
    from: "if (visitors.size > (greediest?.size ?? 0)) greediest = visitors;",
    to: "greediest ??= visitors;",
    tests: CROWD,
    note: "any network's connection makes room",
  },
  {
    file: "src/session/control_budget.ts",
    from: "this.#left[id] -= price;",
    to: "",
    tests: FLOOD,
    note: "control frames are free",
  },
  {
    file: "src/session/ox_session.ts",
    from: " && budget.has(this.peer, KEY_EXCHANGE_PRICE, nowUs)",
    to: "",
    tests: FLOOD,
    note: "key exchanges of session after session are free",
  },
  {
    file: "src/ingress/admit.ts",
    from: "if (next[row] !== DROP.bad_mac1) taken++;",
    to: "taken++;",
    tests: ["tests/sim/adversary_test.ts"],
    note: "messages for another key take handshakes' places",
  },
  {
    file: "src/control/path_size.ts",
    from: "if (this.#isHeard) this.#losses++;",
    to: "if (nowUs >= 0) this.#losses++;",
    tests: [...SIZE, "tests/sim/path_size_test.ts"],
    note: "a pause of the network is a narrow path",
  },
  {
    file: "src/session/ox_session.ts",
    from: "if (size.isRepeat) this.#isPingDue = true;",
    to: "",
    tests: ["tests/sim/path_size_test.ts"],
    note: "an idle session never learns that only large ones are lost",
  },
  {
    file: "src/session/ox_session.ts",
    from: "this.size.onReport(report.highest, report.bitmap, report.bitmapBytes, nowUs);",
    to: "",
    tests: DUTIES,
    note: "reports are not wired to the path's size",
  },
  {
    file: "src/session/ox_repair_sender.ts",
    from: "const TOLERANCE = 1 - USABLE;",
    to: "const TOLERANCE = 1 / 32;",
    tests: REPAIR,
    note: "repairs take sources that are too late",
  },
  {
    file: "src/session/associations.ts",
    from: "if (admission.take(address, 4 * row, nowUs)) return true;",
    to: "if (nowUs >= 0) return true;",
    tests: DUTIES,
    note: "rate_limit_per_ip is off",
  },
  {
    file: "src/relay.ts",
    from: "    this.admission.ratePerSecond = tuning.rateLimitPerIp;",
    to: "",
    tests: DUTIES,
    note: "a reload loses the rate limit",
  },
  {
    file: "src/relay.ts",
    from: "    this.associations.maxConnections = tuning.maxConnections;",
    to: "",
    tests: DUTIES,
    note: "a reload loses max_connections",
  },
  {
    file: "src/relay.ts",
    from: "    this.setCompression(tuning.compression);",
    to: "",
    tests: ["tests/sim/ox_compression_test.ts"],
    note: "a reload loses compression",
  },
  {
    file: "src/config.ts",
    from: "Object.fromEntries(RELOADABLE_KEYS.map(camelCase)",
    to: "Object.fromEntries(RELOADABLE_KEYS.slice(1).map(camelCase)",
    tests: ["tests/unit/config_test.ts"],
    note: "a reload loses a key",
  },
  {
    file: "src/session/ox_sessions.ts",
    from: "    this.ecn[ECN_MARKS * session + mark]++;",
    to: "",
    tests: DUTIES,
    note: "ECN marks are not counted",
  },
  {
    file: "src/session/ox_session.ts",
    from: "report.hasEcn = (report.ect0 | report.ect1 | report.congestionExperienced) !== 0;",
    to: "report.hasEcn = false;",
    tests: DUTIES,
    note: "ECN marks are not reported",
  },
  {
    file: "src/session/wireguard.ts",
    from: ") this.#askForSuccessor(id);",
    to: ") {}",
    tests: DUTIES,
    note: "WireGuard renews no key on receipt",
  },
  {
    file: "src/session/ox_tickets.ts",
    from: "  bytes.set(publicKey);",
    to: "",
    tests: TICKETS,
    note: "a ticket is good for another key",
  },
  {
    file: "src/session/ox_tickets.ts",
    from: "view.setUint32(publicKey.length, id, true);",
    to: "",
    tests: TICKETS,
    note: "a ticket is good in another place",
  },
  {
    file: "src/session/ox_keys.ts",
    from: "this.#chain.fill(0); // its successor exists",
    to: "",
    tests: ["tests/unit/ox_keys_test.ts"],
    note: "the old key chain is not overwritten",
  },
];
