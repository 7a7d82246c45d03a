/**
 * The house rules, checked over the whole tree. Each rule is a function from a file to the violations that it
 * finds, and each is first shown a snippet that breaks it, so that no rule passes for want of teeth.
 */
import { assert, assertEquals } from "@std/assert";

interface SourceFile {
  /** Relative to the top of the tree, with slashes. */
  path: string;
  text: string;
}

type Rule = (file: SourceFile) => string[];

const ROOT = new URL("..", import.meta.url).pathname;
const SKIPPED_DIRECTORIES = new Set([".git", "node_modules", "state", "tests/results", "ffi/target"]);

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
  tunnel: [...BELOW_THE_ARCS, "ingress", "egress"],
  relay: [...BELOW_THE_ARCS, "ingress", "egress", "tunnel"],
  client: [...BELOW_THE_ARCS, "tunnel"],
  // The driver carries bursts between port, core and exit.
  carry: ["metrics", "vector"],
  io: ["carry", "metrics", "vector", "wire", "ffi", "exit"],
  exit: ["metrics", "vector", "wire", "ffi"],
  admin: ["config", "metrics", "repair/figures.ts", "session/peer_record.ts", "io/accept.ts"],
  // Processes: the relay's, the client's, the commands beside them, and what these share.
  serve: EVERYTHING,
  connect: EVERYTHING,
  process: EVERYTHING,
  cli: EVERYTHING,
  main: EVERYTHING,
};

/** Where native code may be called from, apart from tests and benchmarks. */
const MAY_CALL_NATIVE = /^src\/(codec\/native(_\w+)?\.ts|io\/|exit\/)/;

/** The doors to the world; everything else gets time, randomness and bytes as arguments. */
const IMPURE = /^(src\/(io|exit|admin|serve|connect|process|cli)\/|ffi\/|bench\/|tests\/|tools\/|main\.ts$)/;

const IMPURITIES: [name: string, pattern: RegExp][] = [
  ["Deno", /(?<![.\w#])Deno\b|\bglobalThis\.Deno\b/],
  // A value may be asked whether it is a Date; the clock may not be read.
  ["Date", /\bnew Date\b|\bDate[.(]/],
  ["performance", /(?<![.\w#])performance\b/],
  ["Math.random", /\bMath\.random\b/],
  ["a timer", /\b(setTimeout|setInterval|setImmediate|queueMicrotask)\b/],
  ["randomness", /(?<!#)\b(getRandomValues|randomUUID|randomBytes|randomInt)\b/],
  ["async", /\b(async|await)\b/],
];

/** Modules of Node that compute and do nothing else. */
const PURE_MODULES = new Set(["node:buffer", "node:crypto"]);

const HOT_PATH_BANS: [name: string, pattern: RegExp][] = [
  ["subarray(", /\bsubarray\(/],
  ["slice(", /\bslice\(/],
  ["a closure", /=>\s*[^\s]|\bfunction\s*\(/],
  ["for…of", /\bfor\s*\([^;)]*\bof\b/],
  ["spread", /\.\.\./],
  ["try", /\btry\b/],
  ["BigInt", /\bBigInt|\b\d+n\b|get(Big)(U?)[iI]nt64/],
];

/**
 * Splits TypeScript: `code` has comments and the insides of strings removed, `imports` has
 * comments removed and double-quoted strings kept, `comments` is their text. Line breaks stay where they were.
 */
function split(text: string): { code: string; imports: string; comments: string } {
  const token =
    /\/\/[^\n]*|\/\*[^]*?\*\/|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\[^]|[^`\\])*`|(?<=[(,=:[!&|?{};\n]\s*|\breturn\s+)\/(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n[])+\/[a-z]*/g;
  const breaksOf = (match: string) => match.replace(/[^\n]/g, "");
  const isComment = (match: string) => match.startsWith("//") || match.startsWith("/*");
  return {
    code: text.replace(
      token,
      (match) => isComment(match) ? breaksOf(match) : `${match[0]}${breaksOf(match)}${match[0]}`,
    ),
    imports: text.replace(token, (match) => match.startsWith('"') ? match : breaksOf(match)),
    comments: (text.match(token) ?? []).filter(isComment).join("\n"),
  };
}

/** "src/wire/inner.ts" belongs to "wire", "src/relay.ts" to "relay", "main.ts" to "main". */
function partOf(path: string): string {
  return path.replace(/^src\//, "").split("/")[0].replace(/\.ts$/, "");
}

function specifiersOf(text: string): string[] {
  const { imports } = split(text);
  const pattern = /(?:\bfrom\s+|\bimport\s*\(?\s*)"([^"]+)"/g;
  return [...imports.matchAll(pattern)].map(([, specifier]) => specifier);
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

const coreIsPure: Rule = ({ path, text }) => {
  if (IMPURE.test(path)) return [];
  const { code } = split(text);
  return IMPURITIES.filter(([, pattern]) => pattern.test(code))
    .map(([name]) => `${path}: ${name} belongs to the doors; take it as an argument`);
};

const hotPathIsPlain: Rule = ({ path, text }) => {
  if (!text.startsWith("// Hot path.\n")) return [];
  return split(text).code.split("\n").flatMap((line, i) => {
    // A function's type is no closure.
    const judged = line.replace(/[:=]\s*\([^()]*\) => (number|boolean|string|void)\b/, "");
    return HOT_PATH_BANS.filter(([, pattern]) => pattern.test(judged))
      .map(([name]) => `${path}:${i + 1}: ${name} on the hot path`);
  });
};

/** Folders whose modules hold constants alone: whoever needs state or scratch space owns it. */
const WITHOUT_STATE = /^src\/(repair|session|control|wire|codec)\//;
/** Which of two equal implementations of BLAKE2s a thread uses; results do not depend on it. */
const KERNEL_OF_A_THREAD = "src/codec/hash.ts";
/** What a module of theirs may make when it is loaded, if nothing writes to it afterwards. */
const CONSTANT_CLASSES =
  /^(TextEncoder|TextDecoder|Set|Map|(Big)?(Ui|I)nt\d+Array|Uint8ClampedArray|Float\d+Array|Signatures)$/;
const WRITING_METHODS =
  "set|fill|push|pop|shift|unshift|splice|sort|reverse|copyWithin|add|delete|clear|set(?:Ui|I)nt\\d+|setFloat\\d+";

/** The statements of a module's top level, each with the lines that are indented under it. */
function statementsOf(code: string): string[] {
  return code.split(/\n(?=[^\s}\])])/);
}

/** A module's variables, and what could change them after it was loaded. */
const modulesHoldNoState: Rule = ({ path, text }) => {
  if (!WITHOUT_STATE.test(path) || path === KERNEL_OF_A_THREAD) return [];
  const statements = statementsOf(split(text).code), found: string[] = [], names: string[] = [];
  for (const statement of statements) {
    const kind = statement.match(/^(?:export )?(const|let|var)\b/)?.[1];
    if (kind === undefined) continue;
    const own = [
      ...statement.matchAll(/(?:^(?:export )?\w+|,)\s+([A-Za-z_$][\w$]*)\s*(?::[^=,;]+)?=(?![=>])/g),
    ];
    names.push(...own.map(([, name]) => name));
    if (kind !== "const") found.push(`${path}: a module's variable: ${statement.split("\n")[0]}`);
    for (const [, name, made] of statement.matchAll(/([\w$]+)(?:: [^=]+)? = new (\w+)/g)) {
      if (!names.includes(name)) continue;
      const isScratch = /Array$/.test(made) && !/^[A-Z0-9_]+$/.test(name);
      if (isScratch || !CONSTANT_CLASSES.test(made)) {
        found.push(`${path}: ${name} is shared by all who import it`);
      }
    }
  }
  // Loops at the top level fill tables, and declarations make constants; anything else runs later.
  const later = statements.filter((statement) => !/^(for|if|while|[A-Z_]+[.[])/.test(statement))
    .map((statement) =>
      statement.startsWith("const") || statement.startsWith("export const")
        ? statement.replace(/(^(?:export )?const|,)\s+[\w$]+\s*(?::[^=,;]+)?=(?![=>])/g, "$1 ")
        : statement
    ).join("\n");
  for (const name of new Set(names)) {
    const place = `(?<![\\w.#$]|\\b(?:const|let|var)\\s+)${name}(?:\\.\\w+|\\[[^\\]]*\\])*`;
    const write = new RegExp(
      `${place}\\s*(?:(?:[-+*/%&|^]|<<|>>>?|\\*\\*|&&|\\|\\||\\?\\?)?=(?![=>])|\\+\\+|--)` +
        `|${place}\\.(?:${WRITING_METHODS})\\(`,
    );
    const line = later.split("\n").find((line) => /^\s/.test(line) && write.test(line));
    if (line !== undefined) found.push(`${path}: ${name} changes after the module is loaded: ${line.trim()}`);
  }
  return found;
};

const startsWithItsPurpose: Rule = ({ path, text }) => {
  const start = text.replace(/^\/\/ Hot path\.\n/, "");
  // Re-exports and declarations of a few lines say it in a line or two.
  const comment = path.startsWith("src/std/")
    ? start.match(/^(\/\/ [^\n]+\n)+/)?.[0]
    : start.match(/^\/\*\*[^]*?\*\//)?.[0];
  const said = comment?.replace(/[/*\s]+/g, " ").trim() ?? "";
  return said.length >= 40 ? [] : [`${path}: does not start with a paragraph that says what it is for`];
};

const oneDoorToNativeCode: Rule = ({ path, text }) =>
  path !== "ffi/mod.ts" && /\bdlopen\b/.test(split(text).code)
    ? [`${path}: Deno.dlopen outside ffi/mod.ts`]
    : [];

const importsComeFromTheMap: Rule = ({ path, text }) =>
  specifiersOf(text)
    .filter((specifier) => /^(npm|jsr|https?|data):/.test(specifier))
    .map((specifier) => `${path}: ${specifier} is not pinned in deno.json's import map`);

/** What the comments cite after the word PROTOCOL: a section as "§2.3", a requirement as "R12", or a list of these. */
function citationsIn(text: string): string[] {
  const prose = split(text).comments.replace(/\s*\n\s*(\*|\/\/)?\s*/g, " ");
  const cite = /\bPROTOCOL(?:\.md)? ((?:(?:, | and | to )?(?:§[\d.]*\d|R\d+))+)/g;
  return [...prose.matchAll(cite)].flatMap(([, list]) => list.match(/§[\d.]*\d|R\d+/g)!);
}

function citationsResolve(protocol: string | undefined): Rule {
  const sections = new Set(
    [...(protocol ?? "").matchAll(/^#+ (?:§ ?)?(\d+(?:\.\d+)*)\b/gm)].map(([, n]) => `§${n}`),
  );
  const requirements = new Set((protocol ?? "").match(/\bR\d+\b/g));
  return ({ path, text }) =>
    citationsIn(text).flatMap((place) => {
      if (protocol === undefined) {
        return [`${path}: cites ${place}, but src/wire/PROTOCOL.md does not exist`];
      }
      if (sections.has(place) || requirements.has(place)) return [];
      return [`${path}: cites ${place}, which src/wire/PROTOCOL.md does not have`];
    });
}

/**
 * Every requirement "- Rn: …" of the document is numbered in a row of its own, and either names files of src/ that
 * cite it, or ends in "(planned)" and is cited by nothing; and the document itself mentions no place that it lacks.
 */
function requirementsAreKept(protocol: string, files: SourceFile[]): string[] {
  const requirements = [...protocol.matchAll(/^- (R\d+):([^]*?)(?=\n- |\n\n|$(?![^]))/gm)];
  const citedBy = new Map<string, Set<string>>();
  for (const { path, text } of files) {
    for (const place of citationsIn(text)) {
      if (!citedBy.has(place)) citedBy.set(place, new Set());
      citedBy.get(place)!.add(path);
    }
  }
  const paths = new Set(files.map(({ path }) => path));
  const numbers = requirements.map(([, name]) => name);
  const sections = new Set([...protocol.matchAll(/^## (§\d+)/gm)].map(([, name]) => name));
  // Other documents' sections are theirs: "RFC 9000 §17.1".
  const mentioned = protocol.replace(/(RFC [\d/]+|whitepaper) §[\d.]+/g, "").match(/§\d+|\bR\d+\b/g) ?? [];
  return [
    ...numbers.filter((name, i) => numbers.indexOf(name) !== i).map((name) => `${name} stands twice`),
    ...[...new Set(numbers)].map((_, i) => `R${i + 1}`).filter((name) => !numbers.includes(name)).map((
      name,
    ) => `${name} is missing`),
    ...mentioned.filter((place) => !sections.has(place) && !numbers.includes(place)).map((place) =>
      `the document mentions ${place}, which it does not have`
    ),
    ...requirements.flatMap(([, name, body]) => {
      const keepers = (body.match(/`[\w/]+\.ts`/g) ?? []).map((file) => `src/${file.slice(1, -1)}`);
      const cited = citedBy.get(name) ?? new Set();
      if (body.includes("(planned)")) {
        return [...cited, ...keepers].map((path) => `${name} is planned, but ${path} has to do with it`);
      }
      if (keepers.length === 0) return [`${name} names no file that keeps it, nor is it planned`];
      return keepers.filter((path) => !paths.has(path) || !cited.has(path)).map((path) =>
        `${name} is said to be kept by ${path}, which ${
          paths.has(path) ? "does not cite it" : "does not exist"
        }`
      );
    }),
  ];
}

const namesNoRegistry: Rule = ({ path, text }) => {
  const host =
    /\b(?:registry|npm|static|index|proxy)\.(?:npmjs|npmmirror|yarnpkg|jsr|crates|golang|pkg\.github)\.\w+|(?<![\w-])(?:npm\.)?jsr\.io\b|\.jfrog\.io\b/gi;
  return (text.match(host) ?? []).map((name) => `${path}: names the registry ${name}`);
};

interface Project {
  imports: Record<string, string>;
  tasks: Record<string, string | { command?: string }>;
  permissions: Record<string, Record<string, unknown>>;
}

function unpinned({ imports }: Project): string[] {
  return Object.entries(imports)
    .filter(([, target]) =>
      !target.startsWith("./") && !/^(npm|jsr):\/?(@[\w.-]+\/)?[\w.-]+@\d+\.\d+\.\d+\/?$/.test(target)
    )
    .map(([name, target]) => `deno.json: ${name} is ${target}; pin it as npm:name@1.2.3`);
}

/** A task or permission set that may run any program, or load any library where it names a set, may do anything. */
function unbounded({ tasks, permissions }: Project): string[] {
  const ofTasks = Object.entries(tasks).flatMap(([name, task]) => {
    const command = typeof task === "string" ? task : task.command ?? "";
    const flag = command.match(/(?<!\S)(-A|--allow-all|--allow-run)(?!\S)|(?<!\S)-[a-zA-Z]*A[a-zA-Z]*(?!\S)/)
      ?.[0];
    const sets = [...command.matchAll(/(?<!\S)(?:-P|--permission-set)(?:=(\S+))?/g)].map(([, set]) =>
      set ?? "default"
    );
    return [
      ...(flag === undefined ? [] : [`deno.json: task ${name} uses ${flag}`]),
      ...sets.filter((set) => !(set in permissions)).map((set) =>
        `deno.json: task ${name} uses set ${set}, which is not there`
      ),
    ];
  });
  const isEverything = (granted: unknown) =>
    granted === true || (granted as { allow?: unknown } | null)?.allow === true;
  const ofSets = Object.entries(permissions).flatMap(([name, set]) =>
    ["all", "run", "ffi"].filter((kind) => isEverything(set[kind]))
      .map((kind) => `deno.json: permission set ${name} allows all of ${kind}`)
  );
  return [...ofTasks, ...ofSets];
}

function* walk(directory = ""): Generator<SourceFile> {
  for (const { name, isDirectory, isFile } of Deno.readDirSync(ROOT + directory)) {
    const path = directory + name;
    if (SKIPPED_DIRECTORIES.has(path)) continue;
    if (isDirectory) yield* walk(`${path}/`);
    else if (isFile && /\.(ts|md|toml|json|lock|html|rs|c|yml|yaml)$|(^|\/)(Dockerfile|run)$/.test(name)) {
      yield { path, text: Deno.readTextFileSync(ROOT + path) };
    }
  }
}

const files = [...walk()];
const typescript = files.filter(({ path }) => path.endsWith(".ts"));
const sources = typescript.filter(({ path }) => !path.startsWith("tests/"));
const protocol = files.find(({ path }) => path === "src/wire/PROTOCOL.md")?.text;
const project: Project = JSON.parse(files.find(({ path }) => path === "deno.json")!.text);

/** Registers a rule: it must find something in every bad snippet, nothing in the good ones, nothing in the tree. */
function check(
  name: string,
  rule: Rule,
  subjects: SourceFile[],
  bad: [path: string, text: string][],
  good: [path: string, text: string][] = [],
): void {
  Deno.test(`tidy: ${name}`, () => {
    for (const [path, text] of bad) {
      assert(rule({ path, text }).length > 0, `the rule misses ${path}: ${text}`);
    }
    for (const [path, text] of good) {
      assertEquals(rule({ path, text }), [], `the rule is too strict: ${text}`);
    }
    assert(subjects.length > 0);
    assertEquals(subjects.flatMap(rule), []);
  });
}

check("imports follow the layers", importsFollowTheLayers, sources, [
  ["src/wire/a.ts", 'import { x } from "../codec/b.ts";'],
  ["src/config.ts", 'import { x } from "./session/b.ts";'],
  ["src/wire/a.ts", 'import type { X } from "../session/b.ts";'],
  ["src/vector/a.ts", 'export * from "../metrics.ts";'],
  ["src/repair/a.ts", 'import type { X } from "../session/peer_record.ts";'],
  ["src/ingress/a.ts", 'import "../egress/mod.ts";'],
  ["src/egress/a.ts", 'const m = import("../ingress/mod.ts");'],
  ["src/session/a.ts", 'import {\n  x,\n} from "../../ffi/mod.ts";'],
  ["src/codec/aead.ts", 'import { x } from "../../ffi/mod.ts";'],
  ["src/admin/a.ts", 'import { PeerTable } from "../session/peers.ts";'],
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

check("the core knows no world, no clock and no chance", coreIsPure, sources, [
  ["src/relay.ts", "const now = Date.now();"],
  ["src/session/a.ts", 'Deno.env.get("X");'],
  ["src/wire/a.ts", "performance.now();"],
  ["src/control/a.ts", "return Math.random();"],
  ["src/session/a.ts", "globalThis.setTimeout(f, 1);"],
  ["src/codec/a.ts", "export async function f() {}"],
  ["src/codec/a.ts", "crypto.getRandomValues(key);"],
], [
  ["src/relay.ts", "/** Not Deno, nor new Date(). */ const s = 'Deno'; const is = x instanceof Date;"],
  ["src/io/driver.ts", "performance.now(); setTimeout(f, 1);"],
]);

check("the hot path is plain", hotPathIsPlain, typescript, [
  ["a.ts", "// Hot path.\nconst part = bytes.subarray(1);"],
  ["a.ts", "// Hot path.\nconst part = bytes.slice(1);"],
  ["a.ts", "// Hot path.\nlist.forEach((x) => use(x));"],
  ["a.ts", "// Hot path.\nconst f = function () {};"],
  ["a.ts", "// Hot path.\nfor (const x of list) use(x);"],
  ["a.ts", "// Hot path.\nuse(...list);"],
  ["a.ts", "// Hot path.\ntry {\n  f();\n} finally { }"],
  ["a.ts", "// Hot path.\nconst n = 5n;"],
  ["a.ts", "// Hot path.\nview.getBigUint64(0);"],
], [
  ["a.ts", "bytes.subarray(1);"],
  ["a.ts", '// Hot path.\n/** No subarray( and no try. */\nconst s = "slice(";'],
  ["a.ts", "// Hot path.\ntype Wake = (atUs: number) => void;"],
]);

check("modules below the arcs hold no state", modulesHoldNoState, sources, [
  ["src/wire/a.ts", "export let count = 0;"],
  ["src/repair/a.ts", "export const frame = new RepairReader();"],
  ["src/codec/a.ts", "const numbers = new Uint32Array(64);"],
  [
    "src/codec/a.ts",
    "const rows: (Uint8Array | undefined)[] = [];\nfunction f(k) {\n  rows[k] ??= make(k);\n}",
  ],
  ["src/repair/a.ts", "const trial = { score: 0 };\nfunction f() {\n  trial.score = 1;\n}"],
  ["src/session/a.ts", "const SEEN = new Set<number>();\nclass A {\n  add(n) {\n    SEEN.add(n);\n  }\n}"],
  ["src/codec/a.ts", "const STATE = new Int32Array(4);\nfunction f() {\n  STATE[0]++;\n}"],
], [
  ["src/codec/a.ts", "const EXP = new Uint8Array(510);\nfor (let i = 0; i < 255; i++) {\n  EXP[i] = i;\n}"],
  [
    "src/codec/a.ts",
    "const LOG = new Uint8Array(256).fill(1);\nfunction f(LOG2) {\n  return LOG[1] === LOG2;\n}",
  ],
  [
    "src/wire/a.ts",
    "const text = new TextEncoder();\nfunction f() {\n  const count = 0;\n  let text2 = 1;\n}",
  ],
  ["src/io/a.ts", "export let count = 0;"],
]);

check("every file starts with its purpose", startsWithItsPurpose, typescript, [
  ["src/a.ts", "export const x = 1;"],
  ["src/a.ts", "/** Things. */\nexport const x = 1;"],
  [
    "src/a.ts",
    "// Hot path.\nexport const x = 1;\n/** A paragraph that comes too late to be the file's own. */",
  ],
], [[
  "src/a.ts",
  "// Hot path.\n/**\n * Reads and writes the four words of an address. Knows no names.\n */",
]]);

check("native code has one door", oneDoorToNativeCode, typescript, [
  ["src/io/uring.ts", 'const library = Deno.dlopen("libc.so.6", {});'],
  ["tests/unit/a_test.ts", "const { dlopen } = Deno;"],
], [["ffi/mod.ts", "Deno.dlopen(path, {});"], ["src/a.ts", "// Deno.dlopen is elsewhere."]]);

check("dependencies come from the import map", importsComeFromTheMap, typescript, [
  ["src/a.ts", 'import { Hono } from "npm:hono";'],
  ["tests/a_test.ts", 'await import("https://example.com/mod.ts");'],
]);

Deno.test("tidy: citations of the protocol resolve", () => {
  const rule = citationsResolve("# Protocol\n## 2. Messages\n### 2.3 Data\n- **R12** always\n");
  const bad = [
    "// PROTOCOL §9.1",
    "/** As PROTOCOL §2.3 and R99 say. */",
    "/**\n * (PROTOCOL\n * §2, §77)\n */",
  ];
  for (const text of bad) assertEquals(rule({ path: "a.ts", text }).length, 1, text);
  const good = { path: "a.ts", text: "/** PROTOCOL §2.3, R12 and §2; whitepaper §5.4 */" };
  assertEquals(rule(good), []);
  assertEquals(citationsResolve(undefined)(good).length, 3);
  assertEquals(typescript.flatMap(citationsResolve(protocol)), []);
});

Deno.test("tidy: every requirement of the protocol is kept where it says, or planned", () => {
  const files = [
    { path: "src/a.ts", text: "/** Keeps PROTOCOL R1. */" },
    { path: "src/b.ts", text: "/** Keeps PROTOCOL R2. */" },
  ];
  const good =
    "## §1\n- R1: a\n  b (`a.ts`). As RFC 9000 §17.1 says.\n- R2: c (`b.ts`).\n\nText, §1, R2\n- R3: d (planned).\n";
  assertEquals(requirementsAreKept(good, files), []);
  const bad: Record<string, string> = {
    "a requirement that nothing cites": good.replace("`b.ts`", "`a.ts`"),
    "a file that is not there": good.replace("`b.ts`", "`b.ts`, `c.ts`"),
    "no file": good.replace("(`b.ts`)", ""),
    "planned, but cited": good.replace("(`b.ts`)", "(planned)"),
    "a number that stands twice": `${good}- R3: e (planned).\n`,
    "a gap": good.replace("R3", "R4"),
    "a mention of what is not there": good.replace("Text, §1", "Text, §2"),
  };
  for (const [name, protocol] of Object.entries(bad)) {
    assertEquals(requirementsAreKept(protocol, files).length, 1, name);
  }
  assertEquals(requirementsAreKept(protocol!, typescript), []);
});

Deno.test("tidy: the rules see every file to its end", () => {
  for (const { path, text } of typescript) {
    assert(split(`${text}\nlastWord();`).code.endsWith("\nlastWord();"), path);
    assertEquals(split(text).code.split("\n").length, text.split("\n").length, path);
  }
});

check("no file names a package registry", namesNoRegistry, files, [
  ["README.md", "https://registry" + ".npmjs.org/deno"],
  ["deno.lock", "https://npm.jsr" + ".io/x"],
  ["a.ts", "// see https://jsr" + ".io/@std/assert"],
], [["a.ts", 'import "jsr:@std/assert"; // the registry of flows; static.example.com']]);

Deno.test("tidy: every dependency is pinned", () => {
  const loose = [
    "npm:hono",
    "npm:hono@4",
    "npm:hono@^4.1.2",
    "npm:@noble/hashes@~2.0.0",
    "jsr:@std/cli@1",
    "https://x/mod.ts",
  ];
  for (const target of loose) {
    assertEquals(unpinned({ imports: { x: target }, tasks: {}, permissions: {} }).length, 1, target);
  }
  assert(Object.keys(project.imports).length > 0);
  assertEquals(unpinned(project), []);
});

Deno.test("tidy: no task and no permission set is allowed everything", () => {
  const loose = [
    "deno run -A main.ts",
    "deno run --allow-all main.ts",
    "deno test --allow-run tests",
    "deno test -qA tests",
    "deno run -P=absent main.ts",
    "deno run -P main.ts",
  ];
  for (const command of loose) {
    const permissions = { present: { run: ["ip"] } };
    assertEquals(unbounded({ imports: {}, tasks: { x: command }, permissions }).length, 1, command);
  }
  for (const set of [{ all: true }, { run: true }, { ffi: true }, { run: { allow: true } }]) {
    assertEquals(
      unbounded({ imports: {}, tasks: {}, permissions: { x: set } }).length,
      1,
      JSON.stringify(set),
    );
  }
  assert(Object.keys(project.tasks).length > 0 && Object.keys(project.permissions).length > 0);
  assertEquals(unbounded(project), []);
});
