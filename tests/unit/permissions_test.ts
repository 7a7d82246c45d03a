/**
 * The permission sets of deno.json, as Deno applies them: a process started with `-P=NAME` and the Workers that it starts may
 * use what the set lists and nothing else. What each command does with its permissions is tested with the commands.
 */
import { assertEquals } from "@std/assert";
import { resolve } from "node:path";
import project from "../../deno.json" with { type: "json" };

/** A descriptor that Deno.permissions.query takes. */
export type Question = Record<string, string>;

const ROOT = new URL("../../", import.meta.url).pathname;
const KINDS = ["net", "read", "write", "sys", "run", "ffi", "env"] as const;
/** What a descriptor calls the thing that it asks for. */
const WHAT = {
  net: "host",
  read: "path",
  write: "path",
  sys: "kind",
  run: "command",
  ffi: "path",
  env: "variable",
};
/** A thing of each kind that no set names. */
const FOREIGN = {
  net: "192.0.2.1:9",
  read: "/etc/shadow",
  write: "/etc/shadow",
  sys: "gid",
  run: "/bin/dd",
  ffi: "/usr/lib/foreign.so",
  env: "SSH_AUTH_SOCK",
};
/** The sets of the commands that start Workers. */
const WITH_WORKERS = ["serve", "connect", "speedtest"];

type Listed = { allow: string[]; deny: string[] };
type Granted = Partial<Record<typeof KINDS[number], boolean | string[] | Listed>>;

for (const [name, set] of Object.entries<Granted>(project.permissions)) {
  Deno.test(`permissions: the set ${name} grants what it lists and nothing else`, async () => {
    const questions: Question[] = [];
    const expected: string[] = [];
    for (const kind of KINDS) {
      const granted = set[kind] ?? [];
      const { allow, deny }: Listed = Array.isArray(granted)
        ? { allow: granted, deny: [] }
        : typeof granted === "object"
        ? granted
        : { allow: [], deny: [] };
      // Deno resolves the paths of a set from deno.json's directory, and a program from PATH.
      const isFile = kind === "read" || kind === "write" || kind === "ffi";
      for (const thing of allow) {
        questions.push({ name: kind, [WHAT[kind]]: isFile ? resolve(ROOT, thing) : thing });
        expected.push("granted");
      }
      for (const thing of deny) {
        questions.push({ name: kind, [WHAT[kind]]: resolve(ROOT, thing) });
        expected.push("denied");
      }
      questions.push({ name: kind }, { name: kind, [WHAT[kind]]: FOREIGN[kind] });
      // Without a prompt, "prompt" is a refusal.
      const rest = granted === true ? "granted" : "prompt";
      expected.push(rest, rest);
    }
    const threads = WITH_WORKERS.includes(name) ? ["worker"] : [];
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: [
        ...["run", "--quiet", "--no-prompt", `-P=${name}`, `${ROOT}tests/unit/permissions_child.ts`],
        ...[JSON.stringify(questions), ...threads],
      ],
      // Paths do not depend on where the command is run.
      cwd: "/tmp",
    }).output();
    assertEquals([code, new TextDecoder().decode(stderr)], [0, ""]);
    const said: string[][] = JSON.parse(new TextDecoder().decode(stdout));
    assertEquals(said.length, threads.length + 1);
    for (const states of said) {
      assertEquals(
        states.map((state, i) => [questions[i], state]),
        expected.map((state, i) => [questions[i], state]),
      );
    }
  });
}
