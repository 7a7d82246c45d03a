/**
 * What the subcommands share with the person at the terminal: reading flags strictly, the two kinds of error
 * that need no stack trace, and loading the configuration. Invariant: an unknown flag, a missing value or a
 * surplus word is refused, never ignored.
 */
import { parseArgs } from "@std/cli";
import {
  type Config,
  ConfigError,
  type Environment,
  ENVIRONMENT_NAMES,
  nearest,
  parseConfig,
} from "../config.ts";

/** The command line is wrong: exit code 2. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** Something expected went wrong and the message says what to do: exit code 1. */
export class CommandError extends Error {
  override readonly name = "CommandError";
}

/** Flags and words of a subcommand's command line. */
export interface CommandLine {
  readonly words: string[];
  /** Values of the flags that take one. */
  readonly values: Record<string, string | undefined>;
  /** Values of the flags that may be given several times. */
  readonly lists: Record<string, string[]>;
  /** Which of the flags without a value are given. */
  readonly flags: Record<string, boolean>;
}

/**
 * Reads a command line. `values`, `lists` and `flags` name the accepted flags without dashes; "help" (also -h) is always
 * accepted. A flag may be given once, unless it is a list's. Throws UsageError.
 */
export function readCommandLine(
  args: string[],
  { values, lists = [], flags, words }: {
    values: string[];
    lists?: string[];
    flags: string[];
    words: [min: number, max: number];
  },
): CommandLine {
  const known = [...values, ...lists, ...flags, "help"];
  // As lists, so that a repeated flag shows.
  const parsed = parseArgs(args, {
    string: ["_", ...values, ...lists],
    boolean: [...flags, "help"],
    collect: [...values, ...lists],
    alias: { help: "h" },
    unknown: (arg, key) => {
      if (key === undefined) return true;
      const near = nearest(key, known);
      throw new UsageError(`unknown option ${arg}${near === undefined ? "" : `; did you mean --${near}?`}`);
    },
  });
  const line: CommandLine = { words: parsed._.map(String), values: {}, lists: {}, flags: {} };
  for (const name of values) {
    const given = parsed[name] as string[];
    if (given.length > 1) throw new UsageError(`--${name} is given ${given.length} times; give it once`);
    if (given[0] === "") throw new UsageError(`--${name} needs a value`);
    line.values[name] = given[0];
  }
  for (const name of lists) {
    const given = parsed[name] as string[];
    if (given.includes("")) throw new UsageError(`${name.length > 1 ? "--" : "-"}${name} needs a value`);
    line.lists[name] = given;
  }
  for (const name of [...flags, "help"]) line.flags[name] = parsed[name] === true;
  if (!line.flags.help) {
    const [min, max] = words;
    if (line.words.length < min) throw new UsageError("something is missing; see --help");
    if (line.words.length > max) {
      throw new UsageError(`"${line.words[max]}" is one word too many; see --help`);
    }
  }
  return line;
}

/** The environment variables that the program knows, and no others. */
export function readEnvironment(): Environment {
  return Object.fromEntries(ENVIRONMENT_NAMES.map((name) => [name, Deno.env.get(name)]));
}

const DEFAULT_FILE = "oxrelay.toml";

/**
 * Loads the configuration from `file`, else from OXRELAY_CONFIG, else from oxrelay.toml, which alone may be
 * missing. Throws ConfigError.
 */
export async function loadConfig(
  file: string | undefined,
  env: Environment,
): Promise<{ config: Config; file: string }> {
  const named = file || env.OXRELAY_CONFIG;
  const path = named || DEFAULT_FILE;
  let text = "";
  try {
    text = await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) throw error;
    if (!(error instanceof Deno.errors.NotFound)) {
      throw new ConfigError(`${path}: cannot be read: ${error instanceof Error ? error.message : error}`);
    }
    if (named) {
      const source = file ? "--config" : "OXRELAY_CONFIG";
      throw new ConfigError(`${path}: there is no such file; it is named by ${source}`);
    }
  }
  return { config: parseConfig(text, path, env), file: path };
}
