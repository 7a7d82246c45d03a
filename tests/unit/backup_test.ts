/** `backup` and `restore` by themselves, in a directory of their own: what is in a backup, what is not, and what either refuses. */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { backup, readBackup, restore } from "../../src/cli/state/backup.ts";
import { createFile } from "../../src/process/durable.ts";
import { CommandError } from "../../src/process/help.ts";
import { requires } from "../kit/requires.ts";
import { generatePrivateKey, keyToText } from "../../src/process/keys_text.ts";

interface Place {
  directory: string;
  state: string;
  config: string;
  file: string;
}

/** A relay's files, in a new directory that is removed afterwards. */
async function withState(action: (place: Place) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir({ prefix: "oxrelay-backup-" });
  const place = { directory, state: join(directory, "state"), config: join(directory, "oxrelay.toml") };
  try {
    await Deno.mkdir(place.state);
    await Deno.writeTextFile(join(place.state, "private.key"), `${keyToText(generatePrivateKey())}\n`);
    await Deno.writeTextFile(join(place.state, "admin.token"), "a-token-of-the-operator\n");
    await Deno.writeTextFile(place.config, `state_dir = "${place.state}"\n`);
    await action({ ...place, file: join(directory, "relay.backup") });
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

const namesIn = (directory: string) => [...Deno.readDirSync(directory)].map(({ name }) => name).sort();

/** By another program: Deno.symlink needs more permissions than the tests have. */
async function symlink(target: string, path: string): Promise<void> {
  const { success } = await new Deno.Command("sh", { args: ["-c", 'ln -s "$0" "$1"', target, path] })
    .output();
  assert(success);
}

const LINKS = `{"version":1,"links":[]}\n`;

Deno.test("backup: one-time links are not in a backup, and one that an older backup has is not restored", async () => {
  await withState(async ({ state, config, file }) => {
    await Deno.writeTextFile(join(state, "links.json"), LINKS);
    assertEquals(await backup([file, "--config", config]), 0);
    const text = await Deno.readTextFile(file);
    assertEquals([...readBackup(text, file).files.keys()].sort(), ["admin.token", "private.key"]);
    const older = JSON.parse(text);
    const sha256 = createHash("sha256").update(LINKS).digest("hex");
    older.files.push({ name: "links.json", sha256, base64: btoa(LINKS) });
    await Deno.writeTextFile(`${file}.older`, JSON.stringify(older));
    await Deno.remove(state, { recursive: true });
    assertEquals(await restore([`${file}.older`, "--config", config]), 0);
    assertEquals(namesIn(state), ["admin.token", "private.key"]);
  });
});

Deno.test("backup: follows links in the state directory, and refuses a link to nothing and a place beside the state", async () => {
  await withState(async ({ directory, state, config, file }) => {
    const token = join(directory, "token-kept-elsewhere");
    await Deno.rename(join(state, "admin.token"), token);
    await symlink(token, join(state, "admin.token"));
    assertEquals(await backup([file, "--config", config]), 0);
    const { files } = readBackup(await Deno.readTextFile(file), file);
    assertEquals(new TextDecoder().decode(files.get("admin.token")), "a-token-of-the-operator\n");
    await symlink(state, join(directory, "alias"));
    for (const inside of [join(state, "b.backup"), join(directory, "alias", "b.backup")]) {
      const refused = await assertRejects(() => backup([inside, "--config", config]), CommandError);
      assertMatch(refused.message, /is in the state directory .*; choose a place outside of it/);
    }
    await Deno.remove(token);
    const broken = await assertRejects(() => backup([`${file}.2`, "--config", config]), CommandError);
    assertMatch(broken.message, /admin\.token: is a link to what is no file, so no backup was made/);
    assertEquals(namesIn(directory), ["alias", "oxrelay.toml", "relay.backup", "state"]);
  });
});

Deno.test("createFile: of several at the same name one wins, and nothing is mixed or left", async () => {
  await withState(async ({ directory, file }) => {
    const contents = Array.from({ length: 8 }, (_, i) => new Uint8Array(100_000).fill(i));
    const results = await Promise.allSettled(contents.map((bytes) => createFile(file, bytes)));
    assertEquals(results.filter(({ status }) => status === "fulfilled").length, 1);
    const found = await Deno.readFile(file);
    assertEquals(found, contents[found[0]]);
    assertEquals((await Deno.stat(file)).mode! & 0o777, 0o600);
    const again = await assertRejects(() => createFile(file, contents[0]), CommandError);
    assert(again.message.includes("something of that name is there already"));
    assertEquals(namesIn(directory), ["oxrelay.toml", "relay.backup", "state"]);
  });
});

Deno.test({
  name:
    "restore: kill -9 leaves the key whole or not there, before anything else, and the next restore goes on",
  ...requires({ programs: ["strace"] }),
  async fn() {
    await withState(async ({ directory, state, config, file }) => {
      assertEquals(await backup([file, "--config", config]), 0);
      const key = await Deno.readTextFile(join(state, "private.key"));
      await Deno.remove(state, { recursive: true });
      // The process dies as the key, which is written, is about to be synced.
      const at = ["private.key", "private.key.new.tmp"].flatMap((name) => ["-P", join(state, name)]);
      const script = new URL("../../main.ts", import.meta.url).pathname;
      const inject = [
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "trace=fsync",
        "-e",
        "inject=fsync:signal=KILL",
        ...at,
      ];
      const { success } = await new Deno.Command("strace", {
        args: [
          ...inject,
          Deno.execPath(),
          "run",
          "--no-prompt",
          "-A",
          script,
          "restore",
          file,
          "--config",
          config,
        ],
        stdout: "null",
        stderr: "null",
      }).output();
      assert(!success);
      assertEquals(namesIn(state), ["private.key.new.tmp"]);
      assertEquals(await restore([file, "--config", config]), 0);
      assertEquals(namesIn(state), ["admin.token", "private.key"]);
      assertEquals(await Deno.readTextFile(join(state, "private.key")), key);
      assertEquals(namesIn(directory), ["oxrelay.toml", "relay.backup", "state"]);
    });
  },
});
