/**
 * The protocol's document and the files that keep it: citations resolve, and each requirement is kept where the document says.
 */
import { assertEquals } from "@std/assert";
import { files, type Rule, type SourceFile, split, typescript } from "./tree.ts";

const protocol = files.find(({ path }) => path === "src/wire/PROTOCOL.md")?.text;

/** What the comments cite after the word PROTOCOL: a section as "§2.3", a requirement as "R12", or a list of these. */
function citationsIn(text: string): string[] {
  const prose = split(text).comments.replace(/\s*\n\s*(\*|\/\/)?\s*/g, " ");
  const cite = /\bPROTOCOL(?:\.md)? ((?:(?:, | and | to )?(?:§[\d.]*\d|R\d+))+)/g;
  return [...prose.matchAll(cite)].flatMap(([, list]) => list.match(/§[\d.]*\d|R\d+/g)!);
}

function citationsResolve(protocol: string | undefined): Rule {
  const sections = new Set(
    [...(protocol ?? "").matchAll(/^#+ (?:§ ?)?(\d+(?:\.\d+)*)\b/gm)].map(([, n]) => `§${n}`),
  );
  const requirements = new Set((protocol ?? "").match(/\bR\d+\b/g));
  return ({ path, text }) =>
    citationsIn(text).flatMap((place) => {
      if (protocol === undefined) {
        return [`${path}: cites ${place}, but src/wire/PROTOCOL.md does not exist`];
      }
      if (sections.has(place) || requirements.has(place)) return [];
      return [`${path}: cites ${place}, which src/wire/PROTOCOL.md does not have`];
    });
}

/**
 * Every requirement "- Rn: …" of the document is numbered in a row of its own, and either names files of src/ that
 * cite it, or ends in "(planned)" and is cited by nothing; and the document itself mentions no place that it lacks.
 */
function requirementsAreKept(protocol: string, files: SourceFile[]): string[] {
  const requirements = [...protocol.matchAll(/^- (R\d+):([^]*?)(?=\n- |\n\n|$(?![^]))/gm)];
  const citedBy = new Map<string, Set<string>>();
  for (const { path, text } of files) {
    for (const place of citationsIn(text)) {
      if (!citedBy.has(place)) citedBy.set(place, new Set());
      citedBy.get(place)!.add(path);
    }
  }
  const paths = new Set(files.map(({ path }) => path));
  const numbers = requirements.map(([, name]) => name);
  const sections = new Set([...protocol.matchAll(/^## (§\d+)/gm)].map(([, name]) => name));
  // Other documents' sections are theirs: "RFC 9000 §17.1".
  const mentioned = protocol.replace(/(RFC [\d/]+|whitepaper) §[\d.]+/g, "").match(/§\d+|\bR\d+\b/g) ?? [];
  return [
    ...numbers.filter((name, i) => numbers.indexOf(name) !== i).map((name) => `${name} stands twice`),
    ...[...new Set(numbers)].map((_, i) => `R${i + 1}`).filter((name) => !numbers.includes(name)).map((
      name,
    ) => `${name} is missing`),
    ...mentioned.filter((place) => !sections.has(place) && !numbers.includes(place)).map((place) =>
      `the document mentions ${place}, which it does not have`
    ),
    ...requirements.flatMap(([, name, body]) => {
      const keepers = (body.match(/`[\w/]+\.ts`/g) ?? []).map((file) => `src/${file.slice(1, -1)}`);
      const cited = citedBy.get(name) ?? new Set();
      if (body.includes("(planned)")) {
        return [...cited, ...keepers].map((path) => `${name} is planned, but ${path} has to do with it`);
      }
      if (keepers.length === 0) return [`${name} names no file that keeps it, nor is it planned`];
      return keepers.filter((path) => !paths.has(path) || !cited.has(path)).map((path) =>
        `${name} is said to be kept by ${path}, which ${
          paths.has(path) ? "does not cite it" : "does not exist"
        }`
      );
    }),
  ];
}

Deno.test("tidy: citations of the protocol resolve", () => {
  const rule = citationsResolve("# Protocol\n## 2. Messages\n### 2.3 Data\n- **R12** always\n");
  const bad = [
    "// PROTOCOL §9.1",
    "/** As PROTOCOL §2.3 and R99 say. */",
    "/**\n * (PROTOCOL\n * §2, §77)\n */",
  ];
  for (const text of bad) assertEquals(rule({ path: "a.ts", text }).length, 1, text);
  const good = { path: "a.ts", text: "/** PROTOCOL §2.3, R12 and §2; whitepaper §5.4 */" };
  assertEquals(rule(good), []);
  assertEquals(citationsResolve(undefined)(good).length, 3);
  assertEquals(typescript.flatMap(citationsResolve(protocol)), []);
});

Deno.test("tidy: every requirement of the protocol is kept where it says, or planned", () => {
  const files = [
    { path: "src/a.ts", text: "/** Keeps PROTOCOL R1. */" },
    { path: "src/b.ts", text: "/** Keeps PROTOCOL R2. */" },
  ];
  const good =
    "## §1\n- R1: a\n  b (`a.ts`). As RFC 9000 §17.1 says.\n- R2: c (`b.ts`).\n\nText, §1, R2\n- R3: d (planned).\n";
  assertEquals(requirementsAreKept(good, files), []);
  const bad: Record<string, string> = {
    "a requirement that nothing cites": good.replace("`b.ts`", "`a.ts`"),
    "a file that is not there": good.replace("`b.ts`", "`b.ts`, `c.ts`"),
    "no file": good.replace("(`b.ts`)", ""),
    "planned, but cited": good.replace("(`b.ts`)", "(planned)"),
    "a number that stands twice": `${good}- R3: e (planned).\n`,
    "a gap": good.replace("R3", "R4"),
    "a mention of what is not there": good.replace("Text, §1", "Text, §2"),
  };
  for (const [name, protocol] of Object.entries(bad)) {
    assertEquals(requirementsAreKept(protocol, files).length, 1, name);
  }
  assertEquals(requirementsAreKept(protocol!, typescript), []);
});
