/**
 * Who may import whom: the layers of the program, what surrounds it, and the one door to native code.
 */
import { check, IMPURE, type Rule, sources, specifiersOf, split, typescript } from "./tree.ts";

/** Who may import whom, by folder of src/ or file at its top; ingress and egress never each other. */
const BELOW_THE_ARCS = [
  "config",
  "metrics",
  "vector",
  "wire",
  "control",
  "codec",
  "repair",
  "queue",
  "rate",
  "session",
];
const EVERYTHING = ["*"];
const MAY_IMPORT: Record<string, readonly string[]> = {
  config: ["wire", "control", "repair"],
  metrics: [],
  vector: [],
  wire: [],
  control: [],
  std: [],
  // The native library is given bursts and arenas.
  ffi: ["vector"],
  codec: ["vector", "wire"],
  repair: ["vector", "wire", "codec", "control"],
  queue: ["vector", "wire", "control", "session/timers.ts"],
  rate: [],
  session: ["metrics", "vector", "wire", "codec", "control", "repair", "rate"],
  ingress: BELOW_THE_ARCS,
  egress: BELOW_THE_ARCS,
  tunnel_options: BELOW_THE_ARCS,
  tunnel_rollout: BELOW_THE_ARCS,
  tunnel_snapshots: BELOW_THE_ARCS,
  tunnel: [...BELOW_THE_ARCS, "ingress", "egress", "tunnel_options", "tunnel_rollout", "tunnel_snapshots"],
  relay: [...BELOW_THE_ARCS, "ingress", "egress", "tunnel", "tunnel_options"],
  client: [...BELOW_THE_ARCS, "tunnel", "tunnel_options"],
  // The driver carries bursts between port, core and exit.
  carry: ["metrics", "vector"],
  io: ["carry", "metrics", "vector", "wire", "ffi", "exit", "control/delays.ts"],
  exit: ["metrics", "vector", "wire", "ffi"],
  admin: [
    "config",
    "metrics",
    "control/delay_figures.ts",
    "control/rollout.ts",
    "repair/figures.ts",
    "session/peer_record.ts",
    "io/accept.ts",
  ],
  // Processes: the relay's, the client's, the commands beside them, and what these share.
  serve: EVERYTHING,
  connect: EVERYTHING,
  process: EVERYTHING,
  cli: EVERYTHING,
  main: EVERYTHING,
};

/** Where native code may be called from, apart from tests and benchmarks. */
const MAY_CALL_NATIVE = /^src\/(codec\/native(_\w+)?\.ts|io\/|exit\/)/;

/** Modules of Node that compute and do nothing else. */
const PURE_MODULES = new Set(["node:buffer", "node:crypto"]);

/** "src/wire/inner.ts" belongs to "wire", "src/relay.ts" to "relay", "main.ts" to "main". */
function partOf(path: string): string {
  return path.replace(/^src\//, "").split("/")[0].replace(/\.ts$/, "");
}

const importsFollowTheLayers: Rule = ({ path, text }) => {
  if (/^(tests|bench|tools)\//.test(path)) return [];
  const from = partOf(path);
  const allowed = MAY_IMPORT[from];
  if (allowed === undefined) return [`${path}: ${from} is not in the table of layers`];
  return specifiersOf(text).flatMap((specifier) => {
    if (specifier.startsWith("node:")) {
      if (IMPURE.test(path) || PURE_MODULES.has(specifier)) return [];
      return [`${path}: ${specifier} is a door to the world`];
    }
    if (!specifier.startsWith(".")) return [];
    const target = new URL(specifier, `file:///${path}`).pathname.slice(1);
    const to = partOf(target);
    if (
      target.startsWith("ffi/") && from !== "ffi" && !allowed.includes("*") && !MAY_CALL_NATIVE.test(path)
    ) {
      return [`${path}: may not import ${target}`];
    }
    const isAllowed = to === from || allowed === EVERYTHING || allowed.includes(to) ||
      allowed.includes(target.replace(/^src\//, "")) || (to === "ffi" && MAY_CALL_NATIVE.test(path));
    return isAllowed ? [] : [`${path}: ${from} may not import ${target}`];
  });
};

/**
 * What the program is made of knows nothing of its tests, benches and tools; benches, tools and folders of tests share what is in
 * tests/kit and do not reach into each other's.
 */
const AROUND: [from: RegExp, to: RegExp][] = [
  [/^(src\/|ffi\/|main\.ts$)/, /^(src\/|ffi\/|main\.ts$|deno\.json$)/],
  [/^tests\/kit\//, /^(src|ffi|tests\/kit)\/|^deno\.json$/],
  [/^tools\//, /^(src|ffi|tests\/kit|tools)\//],
  [/^bench\//, /^(src|ffi|tests\/kit|bench)\/|^deno\.json$/],
  // What runs the tests, and what they are shown: the benches' sums and the lists of mutations.
  [/^tests\//, /^(src|ffi|bench|tests\/(kit|mutations))\/|^(tests\/\w+\.ts|main\.ts|deno\.json)$/],
];

const testsShareTheKit: Rule = ({ path, text }) => {
  const to = AROUND.find(([from]) => from.test(path))?.[1];
  if (to === undefined) return [`${path}: no row says what it may import`];
  const own = path.replace(/[^/]+$/, "");
  return specifiersOf(text).filter((specifier) => specifier.startsWith("."))
    .map((specifier) => new URL(specifier, `file:///${path}`).pathname.slice(1))
    .filter((target) => !to.test(target) && !(path.startsWith("tests/") && target.startsWith(own)))
    .map((target) => `${path}: may not import ${target}; what is shared belongs to tests/kit`);
};

const oneDoorToNativeCode: Rule = ({ path, text }) =>
  path !== "ffi/mod.ts" && /\bdlopen\b/.test(split(text).code)
    ? [`${path}: Deno.dlopen outside ffi/mod.ts`]
    : [];

const importsComeFromTheMap: Rule = ({ path, text }) =>
  specifiersOf(text)
    .filter((specifier) => /^(npm|jsr|https?|data):/.test(specifier))
    .map((specifier) => `${path}: ${specifier} is not pinned in deno.json's import map`);

check("imports follow the layers", importsFollowTheLayers, sources, [
  ["src/wire/a.ts", 'import { x } from "../codec/b.ts";'],
  ["src/config.ts", 'import { x } from "./session/b.ts";'],
  ["src/wire/a.ts", 'import type { X } from "../session/b.ts";'],
  ["src/vector/a.ts", 'export * from "../metrics.ts";'],
  ["src/ingress/a.ts", 'import "../egress/mod.ts";'],
  ["src/egress/a.ts", 'const m = import("../ingress/mod.ts");'],
  ["src/session/a.ts", 'import {\n  x,\n} from "../../ffi/mod.ts";'],
  ["src/codec/aead.ts", 'import { x } from "../../ffi/mod.ts";'],
  ["src/admin/a.ts", 'import { PeerTable } from "../session/peers.ts";'],
  ["src/repair/a.ts", 'import type { X } from "../session/peer_record.ts";'],
  ["src/metrics.ts", 'import { x } from "./config.ts";'],
  ["src/wire/a.ts", 'import { readFileSync } from "node:fs";'],
  ["src/novelty/a.ts", ""],
], [
  ["src/wire/a.ts", 'import { x } from "./b.ts"; // from "../codec/b.ts"'],
  ["src/codec/native.ts", 'import { x } from "../../ffi/mod.ts";'],
  ["src/config.ts", 'import { x } from "./wire/address.ts";'],
  ["src/admin/a.ts", 'import type { X } from "../session/peer_record.ts";'],
  ["src/codec/a.ts", 'import { createHash } from "node:crypto";'],
  ["src/cli/a.ts", 'import { x } from "../relay.ts";'],
]);

check("tests, benches and tools share the kit", testsShareTheKit, typescript, [
  ["src/serve/a.ts", 'import { x } from "../../tests/kit/b.ts";'],
  ["bench/a.ts", 'import { x } from "../tests/unit/b.ts";'],
  ["bench/feel/a.ts", 'import { x } from "../../tests/sim/b.ts";'],
  ["tools/a.ts", 'import { x } from "../bench/b.ts";'],
  ["tests/kit/a.ts", 'import type { X } from "../../bench/b.ts";'],
  ["tests/unit/a_test.ts", 'import { x } from "../sim/b.ts";'],
  ["elsewhere/a.ts", ""],
], [
  ["bench/feel/a.ts", 'import { x } from "../../tests/kit/b.ts"; import { y } from "../c.ts";'],
  ["tests/unit/a_test.ts", 'import { x } from "./b.ts"; import { y } from "../../bench/c.ts";'],
  ["tests/sim/a_test.ts", 'import { x } from "../kit/b.ts"; import { y } from "../../src/c.ts";'],
]);

check("native code has one door", oneDoorToNativeCode, typescript, [
  ["src/io/uring.ts", 'const library = Deno.dlopen("libc.so.6", {});'],
  ["tests/unit/a_test.ts", "const { dlopen } = Deno;"],
], [["ffi/mod.ts", "Deno.dlopen(path, {});"], ["src/a.ts", "// Deno.dlopen is elsewhere."]]);

check("dependencies come from the import map", importsComeFromTheMap, typescript, [
  ["src/a.ts", 'import { Hono } from "npm:hono";'],
  ["tests/a_test.ts", 'await import("https://example.com/mod.ts");'],
]);
