/**
 * Parses TOML text to a table of unknown values, and finds the nearest known word for a mistyped one. Quotes nothing of the
 * file that could be a secret. Knows no keys.
 */
import { parse, TomlError } from "smol-toml";
import { ConfigError } from "./shape.ts";

/** Parses to objects without a prototype, which therefore have no inherited keys. Throws ConfigError, with the line. */
export function parseToml(text: string, file: string): Record<string, unknown> {
  try {
    return parse(text);
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    // The parser quotes the line, which may hold the token: only the place and the kind are repeated.
    const what = /redefine/.test(error.message)
      ? "a key or section that stands above already; keep one of the two"
      : /end-of-line/.test(error.message)
      ? "more than one pair; each needs a line of its own"
      : 'not valid TOML; expected lines like mtu = 1420 or listen = "[::]:4433", each key once';
    throw new ConfigError(`${file}: line ${error.line}: ${what}`);
  }
}

/** "line 3: " of a section that is written otherwise than [name], or nothing where it is not found. */
export function placeOfSection(text: string, name: string): string {
  const at = text.split("\n").findIndex((line) =>
    new RegExp(`^\\s*(\\[\\[\\s*"?${name}"?\\s*\\]\\]|"?${name}"?\\s*=)`).test(line)
  );
  return at < 0 ? "" : `line ${at + 1}: `;
}

/** Whether the value is a TOML table. */
export function isTable(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date);
}

/** The choice with the smallest edit distance, when that is at most a third of the word (and at least 2). */
export function nearest(word: string, choices: readonly string[]): string | undefined {
  let best: string | undefined;
  let bestDistance = Math.max(2, Math.floor(word.length / 3)) + 1;
  for (const choice of choices) {
    const distance = editDistance(word.slice(0, 64), choice);
    if (distance < bestDistance) [best, bestDistance] = [choice, distance];
  }
  return best;
}

/** Levenshtein's distance, one row of the table at a time. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const above = row;
    row = [i];
    for (let j = 1; j <= b.length; j++) {
      row[j] = Math.min(row[j - 1] + 1, above[j] + 1, above[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1));
    }
  }
  return row[b.length];
}
