/**
 * The guides (README.md, CONTRIBUTING.md, docs/, src/README.md, bench/'s pages, PROTOCOL.md) against the tree: a path that
 * they name and a place that they link to exist. Invariant: each rule is first shown a text that breaks it. Judges no prose
 * beyond the phrases that CONTRIBUTING.md bans.
 */
import { assert, assertEquals, assertGreater } from "@std/assert";

const ROOT = new URL("../../", import.meta.url).pathname;

interface Guide {
  /** Relative to the top of the tree. */
  path: string;
  text: string;
}

/** Files of a person's own, which the tree does not have. */
const OWN_FILES =
  /^(state\/|dist\/|install\.sh$|oxrelay\.toml$|oxrelay-connect\.conf$|laptop\.conf$|oxrelay-bugreport\.txt$|wg0\.(conf|json)$)/;
/** Where a short name may lie: src/README.md writes `wire/frame.ts`, and `aead.rs` for a file of the native library. */
const FOLDERS = [
  "",
  "src/",
  "ffi/src/",
  "ffi/src/codec/",
  "ffi/src/port/",
  "ffi/src/tun/",
  "ffi/src/flows/",
  "ffi/src/sys/",
];
const ENDINGS = "ts|rs|c|sh|md|toml|conf|json|lock|html|svg|txt|so";
/** A file, or a folder with a slash behind it, in backticks; an upper-case NAME in it stands for any name. */
const PATH_WORD = new RegExp(`\`([a-z.][\\w.-]*(?:/[\\w.*-]+)*(?:\\.(?:${ENDINGS})|/))\``, "g");
const LINK = /\]\((?!https?:)([^)\s#]*)(?:#([^)\s]+))?\)/g;

function exists(path: string): boolean {
  try {
    Deno.statSync(ROOT + path);
    return true;
  } catch {
    return false;
  }
}

/** Paths in backticks that are not in the tree. */
function missingPaths({ path: guide, text }: Guide): string[] {
  const folder = guide.replace(/[^/]*$/, "");
  return [...text.matchAll(PATH_WORD)].map(([, path]) => path)
    .filter((path) =>
      !OWN_FILES.test(path) && !/[A-Z]{4}|\*/.test(path.replace(/README|PROTOCOL|CONTRIBUTING/, ""))
    )
    .filter((path) => ![...FOLDERS, folder].some((start) => exists(start + path)))
    .map((path) => `${guide}: ${path} does not exist`);
}

/** The anchors of a text's headings, as GitHub makes them. */
function anchorsOf(text: string): Set<string> {
  const headings = text.replace(/^```[^]*?^```/gm, "").match(/^#+ .*$/gm) ?? [];
  return new Set(
    headings.map((line) =>
      line.replace(/^#+ /, "").toLowerCase().replace(/[^\p{L}\p{N}\s_-]/gu, "").replace(/ /g, "-")
    ),
  );
}

/** Links to files or headings that are not there. */
function deadLinks({ path: guide, text }: Guide): string[] {
  return [...text.matchAll(LINK)].flatMap(([, to, anchor]) => {
    const target = to === "" ? guide : new URL(to, `file:///${guide}`).pathname.slice(1);
    if (to !== "" && !exists(target)) return [`${guide}: ${to} does not exist`];
    if (anchor === undefined) return [];
    const there = target === guide ? text : Deno.readTextFileSync(ROOT + target);
    return anchorsOf(there).has(anchor) ? [] : [`${guide}: ${target} has no heading ${anchor}`];
  });
}

/** Phrases that say nothing exact; CONTRIBUTING.md, which names them, is not asked. */
function bannedPhrases({ path, text }: Guide): string[] {
  const found = text.match(/\b(of late|so (?:much|many)|comes? to)\b/gi) ?? [];
  return found.map((phrase) => `${path}: "${phrase}"`);
}

function guides(): Guide[] {
  const inFolder = (folder: string) =>
    [...Deno.readDirSync(ROOT + folder)].filter(({ name }) => name.endsWith(".md")).map(({ name }) =>
      folder + name
    );
  const paths = ["README.md", "CONTRIBUTING.md", "src/README.md", "src/wire/PROTOCOL.md", "bench/README.md"];
  return [...paths, ...inFolder("docs/"), ...inFolder("bench/docs/")]
    .map((path) => ({ path, text: Deno.readTextFileSync(ROOT + path) }));
}

Deno.test("guides: every path that they name exists", () => {
  const of = (text: string) => missingPaths({ path: "docs/a.md", text });
  assertEquals(of("`src/wire/gone.ts`, `gone/`, `aead.rs.md`").length, 3);
  assertEquals(
    of("`wire/frame.ts`, `src/wire/`, `aead.rs`, `connect.md`, `state/x.toml`, `docs/NAME.md`"),
    [],
  );
  assertEquals(guides().flatMap(missingPaths), []);
});

Deno.test("guides: every link leads somewhere", () => {
  const of = (text: string) => deadLinks({ path: "docs/a.md", text });
  assertEquals(of("[a](gone.md) [b](../gone/) [c](#nowhere) [d](connect.md#nowhere)").length, 4);
  assertEquals(of("# Some thing: here\n[a](#some-thing-here) [b](connect.md) [c](../bench/README.md)"), []);
  const all = guides();
  assertGreater(all.flatMap(({ text }) => [...text.matchAll(LINK)]).length, 50);
  assertEquals(all.flatMap(deadLinks), []);
});

Deno.test("guides: no phrase that CONTRIBUTING.md bans", () => {
  assertEquals(bannedPhrases({ path: "a.md", text: "what it loses of late comes to so much" }).length, 3);
  const judged = guides().filter(({ path }) => path !== "CONTRIBUTING.md");
  assert(judged.length > 10);
  assertEquals(judged.flatMap(bannedPhrases), []);
});
