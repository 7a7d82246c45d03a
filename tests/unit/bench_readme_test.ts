/**
 * bench/'s pages against the tree: a table there is one that a command prints, which its page names; the index names every
 * page; a figure that README.md quotes is on the page that it links. Runs no bench.
 */
import { assert, assertEquals, assertGreater } from "@std/assert";
import project from "../../deno.json" with { type: "json" };

const ROOT = new URL("../../", import.meta.url);
const PAGES = new URL("bench/docs/", ROOT);

/** The pages' file names; beside them are the pictures that they show. */
const names = [...Deno.readDirSync(PAGES)].map(({ name }) => name).filter((name) => name.endsWith(".md"));

/** Sections with a table whose text names no task, or one that deno.json does not have; each by its first line. */
function withoutCommand(text: string): string[] {
  const tasks = new Set(Object.keys(project.tasks));
  return text.split(/^(?=## )/m).filter((section) => /^\|[ -]/m.test(section)).filter((section) => {
    const named = [...section.matchAll(/`deno task ([\w:]+)/g)].map(([, name]) => name);
    return named.length === 0 || named.some((name) => !tasks.has(name));
  }).map((section) => section.split("\n")[0]);
}

/**
 * Figures in the first cell of a table's rows that the linked page does not have: whole numbers of three digits and more and
 * decimals, each as the beginning of a number of the page. Two given cells: what is measured, and the link.
 */
function figuresNotOnTheirPage(text: string, pageAt: (path: string) => string): string[] {
  return [...text.matchAll(/^\| (.*) \| \[.*\]\((bench\/docs\/\w+\.md)\) \|$/gm)].flatMap(
    ([, cell, path]) => {
      const numbers = pageAt(path).match(/\d+(?:\.\d+)?/g) ?? [];
      return (cell.match(/\d+\.\d+|\d{3,}/g) ?? []).filter((figure) =>
        !numbers.some((number) => number.startsWith(figure))
      ).map((figure) => `${path}: ${figure}`);
    },
  );
}

Deno.test("bench: every table that is published names the command that prints it", () => {
  assertEquals(withoutCommand("# A\n| a |\n|---|\n"), ["# A"]);
  assertEquals(withoutCommand("# A\n`deno task bench:gone`\n| a |\n|---|\n"), ["# A"]);
  assertEquals(withoutCommand("# A\nno table\n## B\n`deno task bench:hop`\n| b |\n"), []);
  assertGreater(names.length, 10);
  for (const name of names) {
    assertEquals(withoutCommand(Deno.readTextFileSync(new URL(name, PAGES))), [], name);
  }
});

Deno.test("bench: the index names every page and no other", () => {
  const index = Deno.readTextFileSync(new URL("bench/README.md", ROOT));
  const linked = new Set([...index.matchAll(/\]\(docs\/(\w+\.md)/g)].map(([, name]) => name));
  assertEquals([...linked].sort(), names.sort());
});

Deno.test("README quotes figures of the benches' pages", () => {
  const page = () => "| 3290.32 | 0.83 |";
  const row = (cell: string) => `| ${cell} | [bench:x](bench/docs/x.md) |\n`;
  assertEquals(figuresNotOnTheirPage(row("3290 Mbit/s, 0.83 of 64 bytes"), page), []);
  assertEquals(figuresNotOnTheirPage(row("3291 Mbit/s, 0.84"), page).length, 2);
  const text = Deno.readTextFileSync(new URL("README.md", ROOT));
  assert(text.includes("](bench/docs/system.md) |"));
  assertEquals(figuresNotOnTheirPage(text, (path) => Deno.readTextFileSync(new URL(path, ROOT))), []);
});
