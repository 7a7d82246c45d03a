/**
 * Mutations of limits, expiry, volumes and links of peers: src/serve/access.
 */
import type { Mutation } from "./mutation.ts";

const DOOR = "tests/system/admin_door_test.ts";
const PAGE = "tests/system/page_test.ts";
const ACCESS = "tests/unit/access_test.ts";

const KEPT_OUT = "tests/system/kept_out_test.ts";
const COMMANDS = "tests/system/peer_commands_test.ts";

export const ACCESS_ROWS: readonly Mutation[] = [
  {
    file: "src/serve/access/bars.ts",
    from: "this.#o.ledger.add(traffic, nowMs);\n    this.look();",
    to: "this.#o.ledger.add(traffic, nowMs);",
    tests: [ACCESS],
    note: "traffic beyond the volume passes until the next look",
  },
  {
    file: "src/serve/access/ledger.ts",
    from: "month > this.#clockMonth && month !== this.#month;",
    to: "month !== this.#month;",
    tests: [ACCESS],
    note: "a clock that goes back begins a month, and a volume anew",
  },
  {
    file: "src/serve/access/ledger.ts",
    from: "this.#clockMonth = month;",
    to: "if (isNew) this.#clockMonth = month;",
    tests: [ACCESS],
    note: "after a clock that was years ahead no month begins",
  },
  {
    file: "src/serve/access/ledger.ts",
    from: "if (!this.#isChanged || nowMs - this.#wroteAtMs < WRITE_MS) return;",
    to: "if (!this.#isChanged) return;",
    tests: [ACCESS],
    note: "each report of traffic is a write to the disk",
  },
  {
    file: "src/serve/access/bars.ts",
    from: "if (!isAgain && this.#changed",
    to: "if (this.#changed",
    tests: [ACCESS],
    note: "a bar that could not be carried out once never is",
  },
  {
    file: "src/serve/access/event_log.ts",
    from: "isDevices(kind) && recent",
    to: "isDevices(kind) && 0 > 1 && recent",
    tests: [ACCESS],
    note: "one device fills the list of events",
  },
  {
    file: "src/serve/access/event_log.ts",
    from: "const last = recent.at(-1);",
    to: "const last = recent.findLast((event) => event.kind === kind);",
    tests: [ACCESS],
    note: "of disabling, enabling and disabling again the last is not noted",
  },
  {
    file: "src/serve/access/links.ts",
    from: "await this.#store(before.map((other) => other === link ? spent : other));",
    to: "",
    tests: [ACCESS, PAGE],
    note: "a one-time link works twice",
  },
  {
    file: "src/serve/access/links.ts",
    from: "used === undefined && Date.parse(expires) > wallMs;",
    to: "used === undefined && Date.parse(expires) > 0;",
    tests: [ACCESS],
    note: "a link works after its time",
  },
  {
    file: "src/serve/access/mod.ts",
    from: "const { presharedKey: _, ...shown } = record;",
    to: "const shown = record;",
    tests: [DOOR],
    note: "the admin interface answers a preshared key",
  },
  {
    file: "src/session/oxtunnel/negotiation.ts",
    from: "if (answerBarred(this.#s, burst, row, message, opened, seenIn(burst, row), nowUs)) return;",
    to: "",
    tests: ["tests/sim/barred_test.ts", "tests/sim/workers_test.ts", KEPT_OUT],
    note: "a device that is kept out is not told why",
  },
  {
    file: "src/session/oxtunnel/barred.ts",
    from: "if (!isFresh) return DROP.handshake_replay;",
    to: "",
    tests: ["tests/sim/barred_test.ts", "tests/sim/workers_test.ts"],
    note: "whoever has heard a handshake learns that its peer is kept out",
  },
  {
    file: "src/session/oxtunnel/barred.ts",
    from: "if (barred.owner !== table.worker) {",
    to: "if (false) {",
    tests: ["tests/sim/workers_test.ts"],
    note: "every Worker takes a repetition once",
  },
  {
    file: "src/connect/run.ts",
    from: "else if (refused !== undefined && refused !== this.#reason) {",
    to: "else if (refused === null) {",
    tests: [KEPT_OUT],
    note: "connect keeps a refusal to itself",
  },
  {
    file: "src/cli/status.ts",
    from: "    ...renderKeptOut(keptOut),",
    to: "",
    tests: [COMMANDS],
    note: "status does not say who is kept out",
  },
  {
    file: "src/cli/relay_peers.ts",
    from: 'await askRelay(config, "PATCH", `/v1/peers/${encodeURIComponent(name)}`, change, ADD_TIMEOUT_MS);',
    to: "",
    tests: [COMMANDS],
    note: "a change on the command line does not reach the relay",
  },
  {
    file: "src/cli/peer_set.ts",
    from: "await openStore(config, env).edit(name, (record) => changed(record, change))",
    to: "await openStore(config, env).edit(name, (record) => record)",
    tests: [COMMANDS],
    note: "a change without a running relay is not stored",
  },
  {
    file: "src/serve/worker_pool.ts",
    from: "this.#refused = byHost ?? ready.flatMap(({ refused }) => refused);",
    to: "this.#refused = byHost ?? [];",
    tests: ["tests/unit/worker_pool_test.ts"],
    note: "ports that the userspace exit could not open at the start count as open",
  },
  {
    file: "src/cli/peer_link.ts",
    from: "...limits,",
    to: "",
    tests: [COMMANDS],
    note: "a link of the command line has no limits",
  },
  {
    file: "src/cli/peer_limits.ts",
    from: "if (!Number.isNaN(time.getTime()) && time.toISOString().startsWith(text.slice(0, 10))) {",
    to: "if (!Number.isNaN(time.getTime())) {",
    tests: ["tests/unit/cli_test.ts"],
    note: "a day that does not exist is a day of the next month",
  },
];
