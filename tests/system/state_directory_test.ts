/**
 * The state directory when the system refuses: a full disk, a read-only one, somebody else's files in the way; and root
 * beside the relay of another user.
 */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { generatePrivateKey, keyToText } from "../../src/process/keys_text.ts";
import { requires } from "../kit/requires.ts";
import { LoopbackRelay, relayTest } from "./loopback_relay.ts";
import { ADMIN_TOKEN } from "../kit/namespaces.ts";

const mounts = requires({ root: true, programs: ["unshare", "nsenter", "sh"] });

/** Gives the state directory a file system of its own, which ends with the process. */
function onOwnDisk(options: string): string[] {
  const mount = `mount -t tmpfs -o ${options} none "$OXRELAY_STATE_DIR" && exec "$@"`;
  return ["unshare", "--mount", "sh", "-c", mount, "sh"];
}

relayTest(
  "peer remove on a full disk: the device is cut off at once and stays so, and both outcomes are said",
  mounts,
  {
    config: `admin_token = "${ADMIN_TOKEN}"\n`,
    before: onOwnDisk("size=64k"),
    prepare: (directory) => Deno.mkdir(`${directory}/state`),
  },
  async (relay) => {
    const inside = ["nsenter", "--mount", "--target", String(relay.pid)];
    const served = async () =>
      (JSON.parse((await relay.ask("/v1/peers", { token: ADMIN_TOKEN })).text) as { name: string }[])
        .map(({ name }) => name);
    const shell = async (command: string) => {
      const [program, ...args] = [...inside, "sh", "-c", command, "sh", `${relay.directory}/state`];
      return new TextDecoder().decode((await new Deno.Command(program, { args }).output()).stdout);
    };
    for (const name of ["phone", "tablet", "laptop"]) {
      const added = await relay.run("peer", ["add", name, "--no-qr"], inside);
      assertEquals(added.code, 0, added.stderr);
    }
    await shell('cat /dev/zero > "$1/full"');

    const removed = await relay.run("peer", ["remove", "phone"], inside);
    assertEquals(removed.code, 1);
    assertMatch(
      removed.stderr,
      /^peer "phone" is cut off until the relay restarts; it could not be removed from the store: .*\/peers\.json: cannot be written, so it is as it was before: the disk is full; free some space \(ENOSPC\)\n$/,
    );
    assertEquals(await served(), ["laptop", "tablet"]);
    assertStringIncludes(await shell('cat "$1/peers.json"'), '"phone"');
    relay.kill("SIGHUP");
    await relay.says("reloaded: 2 peers (0 added, 0 removed)");
    assertEquals(await served(), ["laptop", "tablet"], "what a reload reads does not let it in again");

    await shell('rm "$1/full"');
    const next = await relay.run("peer", ["remove", "tablet"], inside);
    assertEquals([next.code, next.stderr], [0, 'Peer "tablet" is removed, and its session cut.\n']);
    assertEquals((await relay.ask("/v1/reload", { method: "POST", token: ADMIN_TOKEN })).status, 200);
    const stored = await shell('cat "$1/peers.json"');
    assert(!stored.includes('"phone"'), "the store follows once the disk takes it");
    assertStringIncludes(stored, '"laptop"');
  },
);

relayTest(
  "state directory: a relay that may write nothing relays all the same, and lets nobody administer it",
  mounts,
  {
    before: onOwnDisk("ro"),
    prepare: (directory) => Deno.mkdir(`${directory}/state`),
    env: { OXRELAY_PRIVATE_KEY: keyToText(generatePrivateKey()) },
  },
  async (relay) => {
    assertStringIncludes(
      relay.said,
      "/v1 is closed to everybody until admin_token or OXRELAY_ADMIN_TOKEN is set",
    );
    assertEquals((await relay.ask("/readyz", { token: "" })).status, 200);
    for (const token of ["", "undefined", "x"]) {
      assertEquals((await relay.ask("/v1/status", { token })).status, 401);
    }
  },
);

/** A directory for a subcommand alone, without a relay. */
async function withoutRelay(body: (relay: LoopbackRelay) => Promise<void>): Promise<void> {
  const relay = await LoopbackRelay.without();
  try {
    await body(relay);
  } finally {
    await Deno.remove(relay.directory, { recursive: true });
  }
}

Deno.test({
  name: "state directory: what root adds belongs to the directory's owner, whose relay must read it",
  ...requires({ root: true }),
  fn: () =>
    withoutRelay(async (relay) => {
      const state = `${relay.directory}/state`;
      await Deno.mkdir(state);
      await Deno.chown(state, 54321, 54322);
      const added = await relay.run("peer", ["add", "phone", "--no-qr"]);
      assertEquals(added.code, 0, added.stderr);
      const found: string[] = [];
      for await (const { name } of Deno.readDir(state)) {
        const { uid, gid, mode } = await Deno.stat(`${state}/${name}`);
        assertEquals([uid, gid, mode! & 0o777], [54321, 54322, 0o600], name);
        found.push(name);
      }
      assertEquals(found.sort(), ["peers.json", "peers.lock", "private.key", "private.key.lock"]);
    }),
});

Deno.test({
  name: "state directory: each refusal of the system is a sentence with the path, never a stack",
  ...mounts,
  fn: () =>
    withoutRelay(async (relay) => {
      const state = `${relay.directory}/state`;
      const refusals: [action: string[], prepare: () => Promise<unknown>, said: RegExp, before?: string[]][] =
        [
          [
            ["add", "a"],
            () => Deno.mkdir(state),
            /state\/private\.key\.lock: cannot be opened: its file system is read-only/,
            onOwnDisk("ro"),
          ],
          [
            ["add", "a"],
            () => Deno.mkdir(state),
            /private\.key.*: the disk is full/,
            onOwnDisk("size=8k,nr_inodes=2"),
          ],
          [
            ["list"],
            () => Deno.mkdir(`${state}/peers.json`, { recursive: true }),
            /peers\.json: cannot be read: it is a directory/,
          ],
          [
            ["add", "a"],
            () => Deno.mkdir(`${state}/private.key`, { recursive: true }),
            /private\.key: cannot be read: it is a dir/,
          ],
          [
            ["add", "a"],
            () => Deno.writeTextFile(state, ""),
            /state\/private\.key: cannot be read: something on the way/,
          ],
          [
            ["add", "a", "--out", `${state}/none/a.conf`],
            () => Deno.mkdir(state),
            /none\/a\.conf: cannot be made: .*not there/,
          ],
        ];
      for (const [action, prepare, said, before] of refusals) {
        await Deno.remove(state, { recursive: true }).catch(() => {});
        await prepare();
        const { code, stderr } = await relay.run("peer", action, before);
        assertEquals(code, 1, stderr);
        assertMatch(stderr, said);
        assert(!/^\s+at |\berror\b.*Uncaught/m.test(stderr), stderr);
      }
    }),
});
