/**
 * bench/README.md against the tree: a table there is one that a command prints, which its section names. Runs no bench.
 */
import { assert, assertEquals } from "@std/assert";
import project from "../../deno.json" with { type: "json" };

const README = new URL("../../bench/README.md", import.meta.url);

/** Headings of sections with a table but without a command of the tree. */
function withoutCommand(text: string): string[] {
  const tasks = new Set(Object.keys(project.tasks));
  return text.split(/^(?=## )/m).filter((section) => /^\|[ -]/m.test(section)).map((section) =>
    section.split("\n")[0]
  ).filter((heading) => {
    const named = [...heading.matchAll(/`deno task ([\w:]+)/g)].map(([, name]) => name);
    return named.length === 0 || named.some((name) => !tasks.has(name));
  });
}

Deno.test("bench: every table that is published names the command that prints it", async () => {
  assertEquals(withoutCommand("## A\n| a |\n|---|\n"), ["## A"]);
  assertEquals(withoutCommand("## A: `deno task bench:gone`\n| a |\n|---|\n"), [
    "## A: `deno task bench:gone`",
  ]);
  assertEquals(withoutCommand("## A\nno table\n## B: `deno task bench:hop`\n| b |\n"), []);
  const text = await Deno.readTextFile(README);
  assert(text.includes("\n| "));
  assertEquals(withoutCommand(text), []);
});
