/**
 * packaging/install.sh against a dpkg and programs that fail: "Installed" is said only of a program that is there and has told its
 * version. dpkg, dpkg-query, apt-get and id are scripts of the test in PATH, so no root is needed and nothing of this machine
 * changes; the real ones are in tests/system/install_test.ts.
 */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { createHash } from "node:crypto";
import { requires } from "../kit/requires.ts";

const SCRIPT = new URL("../../packaging/install.sh", import.meta.url);
const [DEBIAN, NODE] = Deno.build.arch === "x86_64" ? ["amd64", "x64"] : ["arm64", "arm64"];
const DEB = `oxrelay_1.2.3_${DEBIAN}.deb`, BINARY = `oxrelay-linux-${NODE}`;
const WORKS = "echo 1.2.3", FAILS = "echo broken >&2; exit 1";

/** What the machine's programs do, each the body of a shell script. */
interface Machine {
  dpkg: string;
  /** Of the package afterwards, in dpkg's words: "installed", "unpacked", "not-installed". */
  status: string;
  /** The program in the package, or the single file. */
  oxrelay: string;
}

/** Runs install.sh; `kept` is what is in ~/.local/bin afterwards, by name. */
async function install(kind: "deb" | "binary", { dpkg, status, oxrelay }: Machine) {
  const folder = await Deno.makeTempDir({ prefix: "oxrelay-install-script-" });
  const script = (path: string, body: string) =>
    Deno.writeTextFile(`${folder}/${path}`, `#!/bin/sh\n${body}\n`, { mode: 0o755 });
  try {
    await Deno.mkdir(`${folder}/programs`);
    await Deno.mkdir(`${folder}/home/.local/bin`, { recursive: true });
    const name = kind === "deb" ? DEB : BINARY;
    await script(name, oxrelay);
    const hash = createHash("sha256").update(await Deno.readFile(`${folder}/${name}`)).digest("hex");
    const text = (await Deno.readTextFile(SCRIPT)).replace("#SUMS#", `${hash}  ${name}`);
    await Deno.writeTextFile(`${folder}/install.sh`, text);
    await script("programs/id", `echo ${kind === "deb" ? 0 : 1000}`);
    await script("programs/dpkg", dpkg);
    await script(
      "programs/dpkg-query",
      `[ "$*" = "-W -f \\\${db:Status-Status} oxrelay" ] && echo ${status}`,
    );
    await script("programs/apt-get", "exit 0");
    await script("programs/oxrelay", oxrelay);
    await script("home/.local/bin/oxrelay", "echo 1.0.0");
    const { code, stdout, stderr } = await new Deno.Command("sh", {
      args: [`${folder}/install.sh`],
      clearEnv: true,
      env: { PATH: `${folder}/programs:/usr/bin:/bin`, HOME: `${folder}/home`, OXRELAY_PACKAGE: kind },
    }).output();
    const kept: Record<string, string> = {};
    for await (const { name } of Deno.readDir(`${folder}/home/.local/bin`)) {
      kept[name] = (await Deno.readTextFile(`${folder}/home/.local/bin/${name}`)).split("\n")[1];
    }
    const words = new TextDecoder();
    return { code, said: words.decode(stdout), errors: words.decode(stderr), kept };
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test({
  name:
    "install.sh: a package that dpkg did not install, or whose program fails, is not said to be installed",
  ...requires({ programs: ["sh"] }),
  async fn() {
    const good = await install("deb", { dpkg: "exit 0", status: "installed", oxrelay: WORKS });
    assertEquals([good.code, good.errors], [0, ""]);
    assertStringIncludes(good.said, `Installed Oxrelay 1.2.3 (${DEB}). `);
    const bad: [machine: Machine, error: RegExp][] = [
      // dpkg fails, and apt-get puts that right by removing the package.
      [{ dpkg: "exit 1", status: "not-installed", oxrelay: WORKS }, /not installed.*"not-installed"/],
      [{ dpkg: "exit 0", status: "unpacked", oxrelay: WORKS }, /not installed.*"unpacked"/],
      [{ dpkg: "exit 0", status: "installed", oxrelay: FAILS }, /broken\n.*"oxrelay --version" fails/],
    ];
    for (const [machine, error] of bad) {
      const { code, said, errors } = await install("deb", machine);
      assertEquals(code, 1, errors);
      assertMatch(errors, error);
      assert(!said.includes("Installed"), said);
    }
  },
});

Deno.test({
  name: "install.sh: a single file that does not run here leaves the one that was installed before",
  ...requires({ programs: ["sh"] }),
  async fn() {
    const machine = { dpkg: "exit 1", status: "not-installed" };
    const good = await install("binary", { ...machine, oxrelay: WORKS });
    assertStringIncludes(good.said, `Installed Oxrelay 1.2.3 (${BINARY}). `);
    assertEquals(good.kept, { oxrelay: WORKS });
    const bad = await install("binary", { ...machine, oxrelay: FAILS });
    assertEquals([bad.code, bad.said], [1, ""]);
    assertMatch(bad.errors, /broken\n.*does not run here; see above; nothing was installed/);
    assertEquals(bad.kept, { oxrelay: "echo 1.0.0" });
  },
});
