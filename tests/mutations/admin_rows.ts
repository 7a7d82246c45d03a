/**
 * Mutations of the admin interface, of the peers and what is stored of them, and of what a relay does at its start: src/admin
 * and src/cli.
 */
import type { Mutation } from "./mutation.ts";

const DOOR = "tests/system/admin_door_test.ts", ADMIN = "tests/unit/admin_test.ts";
const STARTED = "tests/system/started_relay_test.ts", STATE = "tests/system/state_directory_test.ts";
const DESCRIPTORS = "tests/system/descriptors_test.ts", LIVE = "tests/unit/live_peers_test.ts";
const CLI = "tests/unit/cli_test.ts";
const KEYS = "tests/unit/key_doors_test.ts", PREDICTION = "tests/unit/prediction_wiring_test.ts";

export const ADMIN_ROWS: readonly Mutation[] = [
  {
    file: "src/admin/guard.ts",
    from: "if (given !== undefined && isSameSecret(given, token)) return undefined;",
    to: "return undefined;",
    tests: [DOOR, ADMIN],
    note: "nobody needs the token",
  },
  {
    file: "src/cli/admin_client.ts",
    from: "const tcp = await Deno.connect(address);",
    to: 'const tcp = (await fetch(url + "/v1/hello"), await Deno.connect(address));',
    tests: [CLI],
    note: "the subcommands ask over a proxy",
  },
  {
    file: "src/cli/admin_client.ts",
    from: "if (token === undefined || !proves(hello.text, proofOf(token, url, nonce))) {",
    to: "if (token === undefined || (false && !proves(hello.text, proofOf(token, url, nonce)))) {",
    tests: [CLI],
    note: "a stranger who listens is told the token",
  },
  {
    file: "src/admin/guard.ts",
    from: "hello\\n${url}\\n${nonce}",
    to: "hello\\n${void url}\\n${nonce}",
    tests: [ADMIN, CLI],
    note: "a proof holds for every address",
  },
  {
    file: "src/admin/guard.ts",
    from: "/^bearer +(\\S+)$/i",
    to: "/^Bearer +(\\S+)$/",
    tests: [ADMIN],
    note: "the scheme is compared with case",
  },
  {
    file: "src/admin/guard.ts",
    from: "if (origin !== null && hostOf(origin) !== hostOf(url)) {",
    to: 'if (origin !== null && new URL(origin).host !== headers.get("host")) {',
    tests: [ADMIN],
    note: "HTTP/2's authority is not the host",
  },
  {
    file: "src/cli/serve.ts",
    from: "adminToken = await loadAdminToken(merged, sayClosed);",
    to: "",
    tests: [DOOR],
    note: "a reload leaves the old admin token in place",
  },
  {
    file: "src/admin/server.ts",
    from: "if (connections.size >= connectionsMax) end(quietest(connections));",
    to: "",
    tests: [ADMIN, DESCRIPTORS],
    note: "connections to the admin interface are not bounded",
  },
  {
    file: "src/admin/server.ts",
    from: "if (nowMs - connection.quietSinceMs > idleMs) end(connection);",
    to: "void nowMs;",
    tests: [ADMIN],
    note: "idle connections stay",
  },
  {
    file: "src/admin/server.ts",
    from: "if (connection.requests === 0 || performance.now() >= lastMs) end(connection);",
    to: "if (connection.requests === 0) end(connection);",
    tests: [ADMIN],
    note: "an answer that never comes keeps the listener from closing",
  },
  {
    file: "src/admin/server.ts",
    from: "if (this.requests >= REQUESTS_MAX) {",
    to: "if (this.requests >= Infinity) {",
    tests: [ADMIN],
    note: "requests of one connection are not bounded",
  },
  {
    file: "src/io/accept.ts",
    from: "onFault(error as Error);",
    to: "throw error;",
    tests: ["tests/unit/accept_test.ts", DESCRIPTORS],
    note: "an accept loop ends with the first shortage",
  },
  {
    file: "src/io/every.ts",
    from: "onFault(error as Error);",
    to: "throw error;",
    tests: ["tests/unit/accept_test.ts", DESCRIPTORS],
    note: "a timer ends its thread",
  },
  {
    file: "src/cli/connect.ts",
    from: "if (!isUp || !isShortage(error)) throw error;",
    to: "throw error;",
    tests: [DESCRIPTORS],
    note: "connect ends with the first shortage",
  },
  {
    file: "src/cli/descriptors.ts",
    from: "const flows = Math.floor((limit - reserved) / (2 * workers));",
    to: "const flows = Math.floor(limit * 3 / 8);",
    tests: [DESCRIPTORS],
    note: "flows take descriptors that others need",
  },
  {
    file: "src/cli/live_peers.ts",
    from: "this.#cutOff.set(identityOf(record), name);",
    to: "",
    tests: [LIVE, STATE],
    note: "a reload lets in who was cut off while the disk refused",
  },
  {
    file: "src/cli/live_peers.ts",
    from: "await this.#storeAgain();",
    to: "",
    tests: [LIVE, STATE],
    note: "a removal that the disk refused is never stored",
  },
  {
    file: "src/cli/planes.ts",
    from: "return known === undefined || !isSame(known, peer);",
    to: "return true;",
    tests: [LIVE],
    note: "data planes are told all peers at each change",
  },
  {
    file: "src/cli/durable.ts",
    from: "await file.sync();",
    to: "",
    tests: [STARTED],
    note: "a file is not synced",
  },
  {
    file: "src/cli/durable.ts",
    from: "await directory.sync();",
    to: "",
    tests: [STARTED],
    note: "the directory is not synced",
  },
  {
    file: "src/cli/durable.ts",
    from: "await giveToOwner(temporary);",
    to: "",
    tests: [STATE],
    note: "root's files stay root's",
  },
  {
    file: "src/cli/durable.ts",
    from: "throw fileError(error, path, what);",
    to: "throw error;",
    tests: [STATE],
    note: "a refusal of the system is no sentence",
  },
  {
    file: "src/cli/keys_text.ts",
    from: "if (UNUSABLE.has(publicKey)) {",
    to: "if (false as boolean) {",
    tests: [KEYS],
    note: "keys of small order are taken",
  },
  {
    file: "src/cli/keys_text.ts",
    from: 'return publicKey === own ? "this is the relay\'s own key" : undefined;',
    to: "return void own;",
    tests: [KEYS],
    note: "the relay's own key is taken",
  },
  {
    file: "src/cli/dataplane.ts",
    from: "adviseTables(nativeAdviser(native));",
    to: "void adviseTables, nativeAdviser;",
    tests: [STARTED],
    note: "no large pages",
  },
  {
    file: "src/cli/dataplane.ts",
    from: "if (config.cpus.length > 0) pinTo(config.cpus[worker]);",
    to: "void pinTo;",
    tests: [STARTED],
    note: "Workers keep to no processor",
  },
  {
    file: "src/cli/dataplane.ts",
    from: "${warmUp(kernels)} packets",
    to: "${void warmUp} packets",
    tests: [STARTED],
    note: "the compiler is not warmed up",
  },
  {
    file: "src/control/predictor.ts",
    from: 'export const DEFAULT_PREDICTOR: PredictorKind = "lstm";',
    to: 'export const DEFAULT_PREDICTOR: PredictorKind = "ewma";',
    tests: [PREDICTION],
    note: "the default predictor is not the documented one",
  },
  {
    file: "src/session/repairs.ts",
    from: "if (isJudged) this.predictor?.observe(quality.step);",
    to: "void isJudged;",
    tests: [PREDICTION],
    note: "a session's prediction never changes",
  },
  {
    file: "src/session/repairs.ts",
    from: "situation.lossAhead = this.#options.isProactive ? this.predictor?.lossAhead ?? 0 : 0;",
    to: "situation.lossAhead = 0.1;",
    tests: [PREDICTION],
    note: "every session's repair is planned by the same prediction",
  },
];
