/** `backup` and `restore` by themselves, in a directory of their own: what is in a backup, what is not, and what either refuses. */
import { assertEquals } from "@std/assert";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { backup, readBackup, restore } from "../../src/cli/state/backup.ts";
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
