/**
 * Modules below the arcs hold constants alone, so that two cores in one thread, or one test after another, share nothing.
 */
import { check, type Rule, sources, split } from "./tree.ts";

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
