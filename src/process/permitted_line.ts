/**
 * The command line that does what a task's permission set forbids. Invariant: the line grants the directory that was refused and
 * nothing more than that beside the set's own, and repeats no invitation, which holds a private key. Runs nothing.
 */
import { dirname } from "node:path";

/** Permissions of one kind in a set of deno.json: everything, these, or these without those. */
type Granted = boolean | readonly string[] | { readonly allow: readonly string[] };
export type PermissionSets = Record<string, Partial<Record<string, Granted>>>;

/** What a plain command line cannot hold. */
const NEEDS_QUOTES = /[^\w@%+=:,./-]/;
const SECRET = /^oxrelay:\/\//;

/**
 * The line for `subcommand` with `args`, from a refusal's message ("Requires read access to "/etc/a.toml", …"), to be run in the
 * project's folder; undefined for a refusal that no directory would lift, and for a file that the set denies by name.
 */
export function permittedLine(
  subcommand: string,
  args: readonly string[],
  message: string,
  { permissions, tasks }: { permissions: PermissionSets; tasks: Record<string, string> },
): string | undefined {
  const [, kind, path] = /^Requires (read|write) access to "(.+?)"/.exec(message) ?? [];
  const [, name] = / -P=(\w+) /.exec(tasks[subcommand] ?? "") ?? [];
  const set = permissions[name];
  if (kind === undefined || set === undefined || !/^(\/|\.\.)/.test(path)) return undefined;
  const refused = dirname(path);
  const config = args[args.indexOf("--config") + 1];
  const isConfig = args.includes("--config") && /^(\/|\.\.)/.test(config ?? "");
  const directories = [refused, ...(isConfig ? [dirname(config)] : [])];
  // What is written is read again; what is read beside the configuration is the state directory, which is written.
  const isState = kind === "write" || (isConfig && refused !== dirname(config));
  const flags = [
    flag("read", set.read, directories),
    ...(isState && set.write !== undefined ? [flag("write", set.write, [refused])] : []),
  ];
  const shown = args.map((arg) => SECRET.test(arg) ? "oxrelay://…" : quoted(arg));
  return ["deno run --no-prompt", `-P=${name}`, ...flags, "main.ts", subcommand, ...shown].join(" ");
}

/** The flag that grants what the set does and these directories; a flag takes the place of the set's permission of its kind. */
function flag(kind: string, granted: Granted | undefined, more: readonly string[]): string {
  const own = typeof granted !== "object" ? [] : "allow" in granted ? granted.allow : granted;
  return `--allow-${kind}=${[...new Set([...own, ...more])].map(quoted).join(",")}`;
}

function quoted(text: string): string {
  return NEEDS_QUOTES.test(text) || text === "" ? `'${text.replaceAll("'", `'\\''`)}'` : text;
}
