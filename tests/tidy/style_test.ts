/**
 * What a file's text must be: pure where it belongs to the core, plain where it is on the hot path, and begun with its purpose.
 */
import { assert, assertEquals } from "@std/assert";
import { check, IMPURE, type Rule, sources, split, typescript } from "./tree.ts";

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

const HOT_PATH_BANS: [name: string, pattern: RegExp][] = [
  ["subarray(", /\bsubarray\(/],
  ["slice(", /\bslice\(/],
  ["a closure", /=>\s*[^\s]|\bfunction\s*\(/],
  ["for…of", /\bfor\s*\([^;)]*\bof\b/],
  ["spread", /\.\.\./],
  ["try", /\btry\b/],
  ["BigInt", /\bBigInt|\b\d+n\b|get(Big)(U?)[iI]nt64/],
];

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

const startsWithItsPurpose: Rule = ({ path, text }) => {
  const start = text.replace(/^\/\/ Hot path\.\n/, "");
  // Re-exports and declarations of a few lines say it in a line or two.
  const comment = path.startsWith("src/std/")
    ? start.match(/^(\/\/ [^\n]+\n)+/)?.[0]
    : start.match(/^\/\*\*[^]*?\*\//)?.[0];
  const said = comment?.replace(/[/*\s]+/g, " ").trim() ?? "";
  return said.length >= 40 ? [] : [`${path}: does not start with a paragraph that says what it is for`];
};

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

Deno.test("tidy: the rules see every file to its end", () => {
  for (const { path, text } of typescript) {
    assert(split(`${text}\nlastWord();`).code.endsWith("\nlastWord();"), path);
    assertEquals(split(text).code.split("\n").length, text.split("\n").length, path);
  }
});
