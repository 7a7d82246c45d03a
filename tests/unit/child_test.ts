/** Programs of the system that `src/` runs: what they see of this process, and what is told of their failures. */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { requires } from "../kit/requires.ts";
import { run } from "../../src/exit/child.ts";

Deno.test("child programs see nothing of the relay's environment, not even its key", async () => {
  Deno.env.set("OXRELAY_PRIVATE_KEY", "a secret");
  try {
    const names = (await run("sh", ["-c", "env"])).split("\n").map((line) => line.split("=")[0]);
    const own = ["", "LC_ALL", "OLDPWD", "PATH", "PWD", "SHLVL", "_"];
    assertEquals(names.filter((name) => !own.includes(name)), []);
    assertEquals(await run("sh", ["-c", 'printf %s "$OXRELAY_PRIVATE_KEY"']), "");
  } finally {
    Deno.env.delete("OXRELAY_PRIVATE_KEY");
  }
});

Deno.test("a child program's own words are in the error, all lines of them, from either stream", async () => {
  const failing = (script: string, input?: string) =>
    assertRejects(() => run("sh", ["-c", script], input), Error);
  assertStringIncludes((await failing("echo one >&2; echo two >&2; exit 3")).message, "one | two");
  assertStringIncludes((await failing("echo printed; exit 3")).message, ": printed");
  assertStringIncludes((await failing("exit 3")).message, "ended with code 3 and said nothing");
  assertStringIncludes((await failing("kill -9 $$")).message, "ended by SIGKILL");
  const unread = await failing("exec <&-; echo no more >&2; exit 1", "x".repeat(1 << 20));
  assertStringIncludes(unread.message, "no more");
});

Deno.test("a child program gets its whole input and gives its whole output", async () => {
  const text = "ä line\n".repeat(50_000);
  assertEquals(await run("sh", ["-c", "cat"], text), text);
});

Deno.test("a child program that does not end is killed, and that is said", async () => {
  const { message } = await assertRejects(() => run("sh", ["-c", "exec sleep 600"], undefined, 300), Error);
  assertStringIncludes(message, "did not end within 0.3 s and was killed");
});

for (const folder of ["/usr/bin", "/usr/sbin"]) {
  Deno.test({
    name: `a child program runs that is allowed by name, where the caller finds it first in ${folder}`,
    ...requires({ programs: ["ip"] }),
    async fn() {
      const module = new URL("../../src/exit/child.ts", import.meta.url);
      const script = `import { run } from "${module}"; console.log(await run("ip", ["-V"]));`;
      const file = await Deno.makeTempFile({ suffix: ".ts" });
      await Deno.writeTextFile(file, script);
      const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
        args: ["run", "--no-prompt", "--no-config", "--no-check", "--allow-run=ip", file],
        env: { PATH: `${folder}:/usr/sbin:/usr/bin` },
      }).output();
      await Deno.remove(file);
      const text = new TextDecoder();
      assert(success, text.decode(stderr));
      assertStringIncludes(text.decode(stdout), "iproute2");
    },
  });
}
