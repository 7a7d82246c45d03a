/**
 * The parts of packages that follow from deno.json and main.ts: the launcher's flags for each subcommand and the manual page.
 * Invariant: a packaged subcommand has the permissions of its task, no more, and none is missing. Writes no file.
 */

/** A subcommand, what deno.json's task of it gives `deno run`, and its line in the program's own help. */
export interface Task {
  name: string;
  /** "--allow-read -P=serve", without those that the launcher sets itself. */
  flags: string;
  /**
   * What its permission set may read, and write, outside of the tree, "/proc,/data", with "." where that is the current folder
   * too; undefined for nothing at all. The launcher adds an installed program's places.
   */
  reads: string | undefined;
  writes: string | undefined;
  help: string;
}

/** Flags that the launcher gives to all. */
const COMMON = new Set(["--quiet", "--no-prompt"]);

/** The subcommands of a tree. Throws where one in main.ts has no task. */
export async function readTasks(root: string): Promise<Task[]> {
  const { tasks, permissions } = JSON.parse(await Deno.readTextFile(`${root}deno.json`)) as {
    tasks: Record<string, string>;
    permissions: Record<string, Record<string, unknown>>;
  };
  const main = await Deno.readTextFile(`${root}main.ts`);
  return subcommandsOf(main).map((name) => {
    const command = tasks[name] ?? "";
    const [, words] = /^deno run (.*)main\.ts \S+$/.exec(command) ?? [];
    if (words === undefined || !command.endsWith(` ${name}`)) {
      throw new Error(
        `deno.json: no task "${name}" of the form "deno run FLAGS main.ts ${name}"`,
      );
    }
    const flags = words.split(" ").filter((word) => word !== "" && !COMMON.has(word));
    const plain = flags.every((flag) => /^[\w=.,/:-]+$/.test(flag));
    if (!plain) {
      throw new Error(
        `deno.json: task ${name}: a flag that a shell would read otherwise`,
      );
    }
    const help = new RegExp(
      `^  (?:deno task|oxrelay) ${name}\\b(?: \\S+)*? {2,}(.*)$`,
      "m",
    ).exec(main)?.[1] ?? "";
    const set = permissions[/-P=(\S+)/.exec(words)?.[1] ?? ""] ?? {};
    return { name, flags: flags.join(" "), reads: outsideOf(set.read), writes: outsideOf(set.write), help };
  });
}

/** Of a permission's paths, those that are not the tree's own. Throws for everything, which no set may have. */
function outsideOf(granted: unknown): string | undefined {
  if (granted === undefined || granted === false) return undefined;
  const paths = Array.isArray(granted) ? granted : (granted as { allow?: unknown }).allow;
  if (!Array.isArray(paths)) throw new Error("deno.json: a permission set may read or write everything");
  return paths.filter((path) => path === "." || path.startsWith("/")).join(",");
}

/** The names of main.ts's table. */
export function subcommandsOf(main: string): string[] {
  const [, table = ""] = /const SUBCOMMANDS[^{]*\{(.*?)^\};/ms.exec(main) ?? [];
  const names = [...table.matchAll(/^ {2}"?([\w-]+)"?:/gm)].map(([, name]) => name);
  if (names.length === 0) {
    throw new Error("main.ts: the table SUBCOMMANDS is not found");
  }
  return names.sort();
}

/** The actions of `peer`, "add NAME", each with its line in the subcommand's own help. */
export async function readPeerActions(root: string): Promise<{ words: string; help: string }[]> {
  const text = await Deno.readTextFile(`${root}src/cli/peer.ts`);
  const [, overview = ""] = /^const HELP = `(.*?)^`;/ms.exec(text) ?? [];
  const lines = [...overview.matchAll(/^ {2}(?:deno task|oxrelay) (?:-q )?peer (\S.*?) {2,}(.*)$/gm)];
  if (lines.length === 0) throw new Error("src/cli/peer.ts: the overview in HELP is not found");
  return lines.map(([, words, help]) => ({ words, help }));
}

/** The launcher with a case for each subcommand. */
export function renderLauncher(template: string, tasks: readonly Task[]): string {
  const cases = tasks.map(({ name, flags, reads, writes }) =>
    `${name}) flags="${flags}" reads="${reads ?? "none"}" writes="${writes ?? "none"}" ;;`
  ).join("\n  ");
  return template.replace("#TASKS#", () => cases);
}

/** The manual page, in man(7)'s macros. */
export function renderManual(
  version: string,
  tasks: readonly Task[],
  actions: readonly { words: string; help: string }[],
): string {
  const escaped = (text: string) =>
    text.replaceAll("\\", "\\e").replaceAll("-", "\\-").replace(/^([.'])/gm, "\\&$1");
  const commands = tasks.map(({ name, help }) =>
    `.TP\n.B ${escaped(name)}\n${escaped(help || "see its \\-\\-help")}`
  );
  const peers = actions.map(({ words, help }) => `.TP\n.B peer ${escaped(words)}\n${escaped(help)}`);
  return `.TH OXRELAY 1 "" "Oxrelay ${version}" "User Commands"
.SH NAME
oxrelay \\- edge relay for games, calls and other traffic that needs low latency
.SH SYNOPSIS
.B oxrelay
.I SUBCOMMAND
.RI [ OPTIONS ]
.SH DESCRIPTION
Devices send their packets to the relay through an encrypted tunnel on one UDP port, by WireGuard or by Oxrelay's own
protocol OxTunnel, and the relay sends them on to the internet.
.B oxrelay
.I SUBCOMMAND
.B \\-\\-help
explains each subcommand.
.SH SUBCOMMANDS
${commands.join("\n")}
.SH PEERS
${peers.join("\n")}
.PP
.B oxrelay peer
.I ACTION
.B \\-\\-help
has the options of each.
.SH FILES
.TP
.I /etc/oxrelay/oxrelay.toml
The configuration; every key has a default. Users other than root may have their own in
.IR $XDG_CONFIG_HOME/oxrelay/oxrelay.toml .
.I /usr/lib/oxrelay/oxrelay.example.toml
explains the keys.
.TP
.I /var/lib/oxrelay
The relay's key and its peers. Of users other than root:
.IR $XDG_STATE_HOME/oxrelay .
.SH ENVIRONMENT
.TP
.B OXRELAY_CONFIG
Another configuration file.
.TP
.B OXRELAY_STATE_DIR
Another folder for key and peers.
.SH SIGNALS
.B SIGTERM
stops
.BR "oxrelay serve" ,
.B SIGHUP
has it read configuration and peers again.
.SH EXIT STATUS
0 done, 1 failed, 2 wrong command line.
.SH SEE ALSO
.BR systemctl (1),
.BR wg\\-quick (8)
`;
}
