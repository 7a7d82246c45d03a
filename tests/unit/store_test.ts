/** The store of peers and the identity: leases, refusals, kill -9, concurrent writers, a full disk. */
import { assert, assertEquals, assertMatch, assertNotMatch, assertRejects, assertThrows } from "@std/assert";
import { CommandError } from "../../src/process/help.ts";
import { deriveTunnelIpv6, loadIdentity, resolveTunnelIpv6 } from "../../src/serve/identity.ts";
import { generatePrivateKey, keyFromText, keyToText, publicKeyOf } from "../../src/process/keys_text.ts";
import { exportPeers, loadAllPeers, peersFromEnvironment, PeerStore } from "../../src/serve/store.ts";
import { parseConfig } from "../../src/config.ts";
import type { PeerRecord } from "../../src/session/peer_record.ts";

const KILLS = 40;
const CREATED = "2026-01-01T00:00:00.000Z";
const TUNNEL = { tunnelIpv4: "10.66.0.0/16", tunnelIpv6: "fd00:1:2::/64" };

async function inDirectory(action: (directory: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir({ prefix: "oxrelay-store-" });
  try {
    await action(directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

function newKey(): string {
  return keyToText(publicKeyOf(generatePrivateKey()));
}

function newPeer(name: string) {
  return { name, publicKey: newKey(), created: CREATED };
}

function child(stateDir: string, prefix: string, wrapper: string[] = []): Deno.ChildProcess {
  const script = new URL("store_child.ts", import.meta.url).pathname;
  const [program, ...args] = [
    ...wrapper,
    Deno.execPath(),
    "run",
    "--quiet",
    "--no-prompt",
    `--allow-read=${stateDir}`,
    `--allow-write=${stateDir}`,
    script,
    stateDir,
    prefix,
  ];
  return new Deno.Command(program, { args, stdout: "piped", stderr: "inherit" }).spawn();
}

Deno.test("store: leases the lowest free address of both families and gives freed ones out again", async () => {
  await inDirectory(async (stateDir) => {
    const store = new PeerStore({ stateDir, tunnelIpv4: "10.0.0.8/29", tunnelIpv6: "fd00:1:2::/64" });
    assertEquals(await store.load(), []);
    const leases = [];
    for (const name of ["a", "b", "c", "d", "e"]) leases.push((await store.add(newPeer(name))).allowedIps);
    assertEquals(leases[0], ["10.0.0.10/32", "fd00:1:2::2/128"]);
    assertEquals(leases[4], ["10.0.0.14/32", "fd00:1:2::6/128"]);
    const full = await assertRejects(() => store.add(newPeer("f")), CommandError);
    assertMatch(full.message, /no address is free in tunnel_ipv4 10.0.0.8\/29/);
    await store.remove("c");
    assertEquals((await store.add(newPeer("f"))).allowedIps, ["10.0.0.12/32", "fd00:1:2::4/128"]);
    assertEquals((await store.load()).map(({ name }) => name), ["a", "b", "d", "e", "f"]);
    const { mode } = await Deno.stat(store.path);
    assertEquals(mode! & 0o777, 0o600);
  });
});

Deno.test("store: a removed peer's address is leased again last, longest ago first, whoever asks after a restart", async () => {
  await inDirectory(async (stateDir) => {
    const open = () => new PeerStore({ stateDir, tunnelIpv4: "10.0.0.8/29", tunnelIpv6: "fd00:1:2::/64" });
    const add = async (name: string) => (await open().add(newPeer(name))).allowedIps[0];
    for (const name of ["a", "b", "c"]) await add(name);
    await open().remove("b");
    await open().remove("a");
    assertEquals(await add("d"), "10.0.0.13/32", "never given, before what was given back");
    assertEquals(await add("e"), "10.0.0.14/32");
    assertEquals(await add("f"), "10.0.0.11/32", "b's, which went first");
    await open().remove("f");
    assertEquals(await add("g"), "10.0.0.10/32", "a's, and not f's, which went last");
    assertEquals(await add("h"), "10.0.0.11/32");
    assertEquals((await open().load()).map(({ name }) => name), ["c", "d", "e", "g", "h"]);
  });
});

Deno.test("store: host numbers beyond 65535 carry into the next group", async () => {
  await inDirectory(async (stateDir) => {
    const others = Array.from({ length: 65534 }, (_, i) => ({
      name: `o${i}`,
      publicKey: "",
      allowedIps: [`10.0.${i + 2 >> 8}.${i + 2 & 255}/32`],
      created: CREATED,
    }));
    const store = new PeerStore({ stateDir, tunnelIpv4: "10.0.0.0/8", tunnelIpv6: "fd00:1:2::/64", others });
    assertEquals((await store.add(newPeer("a"))).allowedIps, ["10.1.0.0/32", "fd00:1:2::1:0/128"]);
  });
});

Deno.test("store: refuses names and keys that are taken or malformed", async () => {
  await inDirectory(async (stateDir) => {
    const store = new PeerStore({ stateDir, ...TUNNEL });
    const first = await store.add(newPeer("phone"));
    const cases: [peer: { name: string; publicKey: string; created: string }, message: RegExp][] = [
      [newPeer("phone"), /peer "phone" exists; choose another name/],
      [{ ...first, name: "other" }, /peer "phone" has this public key already/],
      [newPeer("../phone"), /not 1 to 63 of/],
      [newPeer("a".repeat(64)), /not 1 to 63 of/],
      [newPeer(""), /not 1 to 63 of/],
      [{ ...newPeer("x"), publicKey: "short" }, /not a 32-byte key/],
    ];
    for (const [peer, message] of cases) {
      assertMatch((await assertRejects(() => store.add(peer), CommandError)).message, message);
    }
    assertMatch(
      (await assertRejects(() => store.remove("nobody"), CommandError)).message,
      /no peer "nobody"/,
    );
    assertEquals(await store.load(), [first]);
  });
});

Deno.test("store: a damaged file is named, kept as it is, and not quoted", async () => {
  await inDirectory(async (stateDir) => {
    const store = new PeerStore({ stateDir, ...TUNNEL });
    const secret = keyToText(generatePrivateKey());
    await store.add({ ...newPeer("phone"), presharedKey: secret });
    const whole = await Deno.readTextFile(store.path);
    const damages = [
      whole.slice(0, -20),
      "",
      "null",
      whole.replace('"version": 1', '"version": 2'),
      whole.replace(secret, secret.slice(1)),
      whole.replace("10.66.0.2/32", "10.66.0.2"),
      whole.replace(/(\{\s+"name"[^}]*\})/, "$1,$1"),
    ];
    for (const damaged of damages) {
      assert(damaged !== whole);
      await Deno.writeTextFile(store.path, damaged);
      for (
        const action of [() => store.load(), () => store.add(newPeer("next")), () => store.remove("phone")]
      ) {
        const { message } = await assertRejects<CommandError>(action as () => Promise<unknown>, CommandError);
        assertMatch(message, /peers\.json: cannot be used: .*mv /);
        assertNotMatch(message, new RegExp(secret.slice(1, 40).replace(/[+/]/g, ".")));
      }
      assertEquals(await Deno.readTextFile(store.path), damaged);
    }
  });
});

Deno.test("store: a file that is wrong is refused by peer and field", async () => {
  await inDirectory(async (stateDir) => {
    const store = new PeerStore({ stateDir, ...TUNNEL });
    const good = { ...newPeer("phone"), allowedIps: ["10.66.0.2/32"] };
    const secret = newKey();
    const cases: [peer: unknown, place: RegExp][] = [
      [7, /peers\.0 is not as it should be: not an object/],
      [{ ...good, name: "a b" }, /peers\.0\.name is not as it should be: not 1 to 63/],
      [{ ...good, publicKey: secret.slice(1) }, /peers\.0\.publicKey .*\(peer "phone"\): not a 32-byte key/],
      [{ ...good, publicKey: `${"A".repeat(43)}=` }, /peers\.0\.publicKey .*a key that nobody can have/],
      [{ ...good, presharedKey: secret.slice(1) }, /peers\.0\.presharedKey .*not a 32-byte key/],
      [{ ...good, allowedIps: [] }, /peers\.0\.allowedIps .*a list of 1 to 64 networks/],
      [{ ...good, allowedIps: Array(65).fill("10.66.0.2/32") }, /peers\.0\.allowedIps .*1 to 64/],
      [{ ...good, allowedIps: ["10.66.0.2/32", 7] }, /peers\.0\.allowedIps\.1 .*not a network/],
      [{ ...good, allowedIps: ["10.66.0.2"] }, /peers\.0\.allowedIps\.0 .*not a network/],
      [{ ...good, rateDownBps: 1000 }, /peers\.0\.rateDownBps .*not bits a second from 64000/],
      [{ ...good, rateUpBps: "10M" }, /peers\.0\.rateUpBps .*not bits a second/],
      [{ ...good, created: 7 }, /peers\.0\.created .*not a time/],
      [{ ...good, presharedkey: secret }, /peers\.0\.presharedkey .*an unknown key/],
    ];
    for (const [peer, place] of cases) {
      await Deno.writeTextFile(store.path, JSON.stringify({ version: 1, peers: [peer] }));
      const { message } = await assertRejects(() => store.load(), CommandError);
      assertMatch(message, place);
      assert(!message.includes(secret.slice(1)), "no value is quoted");
    }
    for (
      const file of [{ version: 2, peers: [] }, { version: 1 }, { version: 1, peers: [], released: [7] }, []]
    ) {
      await Deno.writeTextFile(store.path, JSON.stringify(file));
      await assertRejects(() => store.load(), CommandError, "is not as it should be");
    }
    const twoTexts = { ...good, allowedIps: ["FD00:1:2:0::7/128", "::ffff:10.66.0.9/128"] };
    await Deno.writeTextFile(store.path, JSON.stringify({ version: 1, peers: [twoTexts] }));
    assertEquals((await store.load())[0].allowedIps, ["fd00:1:2::7/128", "10.66.0.9/32"]);
  });
});

Deno.test("store: what another process has written meanwhile is seen by who added before", async () => {
  await inDirectory(async (stateDir) => {
    const [one, other] = [0, 1].map(() => new PeerStore({ stateDir, ...TUNNEL }));
    await one.add(newPeer("a"));
    await other.add(newPeer("b"));
    await one.add(newPeer("c"));
    await other.remove("a");
    assertEquals((await one.load()).map(({ name }) => name), ["b", "c"]);
    const text = await Deno.readTextFile(one.path);
    await Deno.writeTextFile(one.path, text.replace('"b"', '"x"')); // by hand, of the same length
    assertEquals((await one.add(newPeer("d"))).allowedIps[0], "10.66.0.5/32");
    assertEquals((await other.load()).map(({ name }) => name), ["x", "c", "d"]);
  });
});

Deno.test("store: no file is made where a link in the directory leads", async () => {
  await inDirectory(async (directory) => {
    const target = `${directory}/elsewhere`;
    await new Deno.Command("sh", { args: ["-c", `ln -s "${target}" "${directory}/peers.lock"`] }).output();
    const store = new PeerStore({ stateDir: directory, ...TUNNEL });
    await assertRejects(() => store.add(newPeer("phone")), CommandError, "peers.lock");
    await assertRejects(() => Deno.lstat(target), Deno.errors.NotFound);
  });
});

Deno.test("store: a leftover temporary file is cleaned up and harms nothing", async () => {
  await inDirectory(async (stateDir) => {
    const store = new PeerStore({ stateDir, ...TUNNEL });
    await store.add(newPeer("a"));
    await Deno.writeTextFile(`${store.path}.tmp`, '{"version":1,"pee');
    assertEquals((await store.load()).length, 1);
    await store.add(newPeer("b"));
    const names = [...Deno.readDirSync(stateDir)].map(({ name }) => name).sort();
    assertEquals(names, ["peers.json", "peers.lock"]);
  });
});

Deno.test(`store: ${KILLS} times kill -9 in the middle: always parses, no acknowledged peer is lost`, async () => {
  await inDirectory(async (stateDir) => {
    const store = new PeerStore({ stateDir, ...TUNNEL });
    const acknowledged: string[] = [];
    for (let kill = 0; kill < KILLS; kill++) {
      const process = child(stateDir, `k${kill}`);
      const decoder = new TextDecoder();
      let said = "";
      let killed = false;
      for await (const chunk of process.stdout) {
        said += decoder.decode(chunk);
        // From its first words on, a kill within about ten adds, wherever in one it happens to be.
        if (!killed) {
          killed = true;
          setTimeout(() => process.kill("SIGKILL"), Math.random() * 20);
        }
      }
      assertEquals((await process.status).signal, "SIGKILL");
      acknowledged.push(...said.split("\n").slice(0, -1));
      const peers = await store.load();
      const names = new Set(peers.map(({ name }) => name));
      for (const name of acknowledged) assert(names.has(name), `${name} was acknowledged and is lost`);
      assert(peers.length - acknowledged.length <= kill + 1, "at most one unacknowledged add a kill");
    }
    assert(acknowledged.length >= KILLS);
    const addresses = (await store.load()).flatMap(({ allowedIps }) => allowedIps);
    assertEquals(new Set(addresses).size, addresses.length);
  });
});

Deno.test("store: processes that add at once lose nothing", async () => {
  await inDirectory(async (stateDir) => {
    const processes = ["p", "q", "r"].map((prefix) => child(stateDir, prefix));
    const said = processes.map(async (process) => {
      let text = "";
      const decoder = new TextDecoder();
      for await (const chunk of process.stdout) {
        text += decoder.decode(chunk);
        if (text.split("\n").length > 15) {
          try {
            process.kill("SIGKILL");
          } catch {
            // It is dead already; what it said before still comes.
          }
        }
      }
      await process.status;
      return text.split("\n").slice(0, -1);
    });
    const acknowledged = (await Promise.all(said)).flat();
    const names = new Set((await new PeerStore({ stateDir, ...TUNNEL }).load()).map(({ name }) => name));
    assert(acknowledged.length >= 45);
    for (const name of acknowledged) assert(names.has(name), `${name} is lost`);
  });
});

/** A mount needs root. In CI a skip is a failure, so there the test runs and says what it lacks. */
const mayMount = Deno.build.os === "linux" && Deno.uid() === 0;
if (!mayMount) console.warn("SKIPPED without root: store: a full disk (run the tests with sudo)");

Deno.test({
  name: "store: a full disk refuses the add and leaves the old file whole",
  ignore: !mayMount && Deno.env.get("CI") !== "true",
  fn: async () => {
    await inDirectory(async (stateDir) => {
      // The mount lives in a namespace of the child's own and ends with it, whatever happens.
      const script = `mount -t tmpfs -o size=64k none ${stateDir} && exec "$@"`;
      const process = child(stateDir, "f", ["unshare", "--mount", "sh", "-c", script, "sh"]);
      const { code, stdout } = await process.output();
      const lines = new TextDecoder().decode(stdout).trimEnd().split("\n");
      assertEquals(code, 0);
      const refused = lines.findIndex((line) => line.startsWith("refused "));
      assert(refused > 20, "some adds fit");
      assertEquals(lines[refused], `refused ${refused} peers.json,peers.lock`);
      assertMatch(
        lines[refused + 1],
        /peers\.json: cannot be written, so it is as it was before: the disk is full; .* \(ENOSPC\)$/m,
      );
    });
  },
});

Deno.test("store: peers travel through OXRELAY_PEERS and join the stored ones", async () => {
  await inDirectory(async (stateDir) => {
    const config = parseConfig(`state_dir = "${stateDir}"\ntunnel_ipv6 = "${TUNNEL.tunnelIpv6}"`, "f", {});
    const store = new PeerStore({ stateDir, ...TUNNEL });
    const stored = [
      await store.add(newPeer("a")),
      await store.add({ ...newPeer("b"), presharedKey: newKey() }),
    ];
    const text = exportPeers(stored);
    assertMatch(text, /^[A-Za-z0-9+/=]+$/);
    const env = { OXRELAY_PEERS: text };
    assertEquals(peersFromEnvironment(env), stored);
    assertEquals(await loadAllPeers(config, env), stored);
    const elsewhere = { ...newPeer("c"), allowedIps: ["10.66.0.4/32"] };
    assertEquals(await loadAllPeers(config, { OXRELAY_PEERS: exportPeers([elsewhere]) }), [
      ...stored,
      elsewhere,
    ]);
    // The environment's addresses are taken, too.
    const joined = new PeerStore({ stateDir, ...TUNNEL, others: [elsewhere] });
    assertEquals((await joined.add(newPeer("d"))).allowedIps[0], "10.66.0.5/32");
    assertEquals((await joined.add(newPeer("e"))).allowedIps[0], "10.66.0.6/32");
    const clashes: [record: PeerRecord, message: RegExp][] = [
      [{ ...elsewhere, name: "a" }, /peers "a" and "a" both have a/],
      [{ ...elsewhere, allowedIps: ["10.66.0.2/32"] }, /peers "a" and "c" both have 10.66.0.2\/32/],
      [{ ...elsewhere, allowedIps: ["10.67.0.2/32"] }, /peer "c" has 10.67.0.2\/32, outside tunnel_ipv4/],
    ];
    for (const [record, message] of clashes) {
      const env = { OXRELAY_PEERS: exportPeers([record]) };
      assertMatch((await assertRejects(() => loadAllPeers(config, env), CommandError)).message, message);
    }
    for (const damaged of ["!", "bm8=", text.slice(0, text.length >> 1 & ~3)]) {
      const { message } = await assertRejects(
        () => loadAllPeers(config, { OXRELAY_PEERS: damaged }),
        CommandError,
      );
      assertMatch(message, /OXRELAY_PEERS: cannot be used/);
    }
  });
});

Deno.test("store: a peer's prefixes are networks inside the tunnel, without the relay's own address", async () => {
  await inDirectory(async (stateDir) => {
    const toml = `state_dir = "${stateDir}"\ntunnel_ipv6 = "${TUNNEL.tunnelIpv6}"`;
    const load = (toml: string, ...allowedIps: string[]) => {
      const others = [{ ...newPeer("a"), allowedIps: ["10.66.9.9/32"] }, { ...newPeer("b"), allowedIps }];
      return loadAllPeers(parseConfig(toml, "f", {}), { OXRELAY_PEERS: exportPeers(others) });
    };
    const fits = ["10.66.1.0/24", "fd00:1:2::5/128", "FD00:1:2:0:1::/80"];
    assertEquals((await load(toml, ...fits))[1].allowedIps, [...fits.slice(0, 2), "fd00:1:2:0:1::/80"]);
    const misfits: [prefix: string, message: RegExp][] = [
      ["10.66.0.1/32", /peer "b" has 10\.66\.0\.1\/32, which takes the relay's own address 10\.66\.0\.1;/],
      ["10.66.0.0/24", /takes the relay's own address/],
      ["fd00:1:2::1/128", /takes the relay's own address fd00:1:2::1;/],
      ["fd00:1:2::/64", /takes the relay's own address/],
      ["10.66.0.5/0", /OXRELAY_PEERS: cannot be used: peers\.1\.allowedIps\.0 is not as it should be/],
      ["10.66.1.5/24", /allowedIps\.0 is not as it should be/],
      ["0.0.0.0/0", /outside tunnel_ipv4 10\.66\.0\.0\/16/],
      ["8.8.8.8/32", /outside tunnel_ipv4/],
      ["10.66.0.0/15", /outside tunnel_ipv4/],
      ["::/0", /outside tunnel_ipv6 fd00:1:2::\/64; remove the peer/],
      [
        "fd00:1:3::5/128",
        /; if the relay.s key has changed, set tunnel_ipv6 = "fd00:1:3::\/64", or remove the peer/,
      ],
    ];
    for (const [prefix, message] of misfits) {
      assertMatch((await assertRejects(() => load(toml, prefix), CommandError)).message, message);
    }
    const off = toml.replace(TUNNEL.tunnelIpv6, "off");
    assertMatch(
      (await assertRejects(() => load(off, "fd00:1:2::5/128"), CommandError)).message,
      /and tunnel_ipv6 is "off"; turn it on/,
    );
    // Two texts of one prefix are the same prefix.
    const twice = [{ ...newPeer("a"), allowedIps: ["fd00:1:2::5/128"] }, {
      ...newPeer("b"),
      allowedIps: ["FD00:1:2:0:0::5/128"],
    }];
    const env = { OXRELAY_PEERS: exportPeers(twice) };
    assertThrows(
      () => peersFromEnvironment(env),
      CommandError,
      `peers "a" and "b" both have fd00:1:2::5/128`,
    );
  });
});

Deno.test("store: peers of a relay whose key has changed are refused with the way back", async () => {
  await inDirectory(async (stateDir) => {
    const config = parseConfig(`state_dir = "${stateDir}"`, "f", {});
    const [before, after] = [generatePrivateKey(), generatePrivateKey()];
    const tunnelIpv6 = deriveTunnelIpv6(publicKeyOf(before));
    const added = await new PeerStore({ stateDir, tunnelIpv4: "10.66.0.0/16", tunnelIpv6 }).add(newPeer("a"));
    assertEquals(await loadAllPeers(config, { OXRELAY_PRIVATE_KEY: keyToText(before) }), [added]);
    const env = { OXRELAY_PRIVATE_KEY: keyToText(after) };
    const { message } = await assertRejects(() => loadAllPeers(config, env), CommandError);
    const remedy = /set (tunnel_ipv6 = "[^"]+")/.exec(message)![1];
    assertEquals(remedy, `tunnel_ipv6 = "${tunnelIpv6}"`);
    const back = parseConfig(`state_dir = "${stateDir}"\n${remedy}`, "f", {});
    assertEquals(await loadAllPeers(back, env), [added]);
  });
});

Deno.test("identity: made once, 0600, and the same for all who start together", async () => {
  await inDirectory(async (parent) => {
    const stateDir = `${parent}/state`;
    const config = parseConfig(`state_dir = "${stateDir}"`, "f", {});
    const all = await Promise.all(Array.from({ length: 8 }, () => loadIdentity(config, {})));
    assertEquals(new Set(all.map(({ publicKey }) => keyToText(publicKey))).size, 1);
    assertEquals(all.filter(({ made }) => made).length, 1);
    const path = `${stateDir}/private.key`;
    assertEquals((await Deno.stat(path)).mode! & 0o777, 0o600);
    assertEquals((await Deno.stat(stateDir)).mode! & 0o777, 0o700);
    assertEquals(await Deno.readTextFile(path), `${keyToText(all[0].privateKey)}\n`);

    await Deno.chmod(path, 0o640);
    const open = await assertRejects(() => loadIdentity(config, {}), CommandError);
    assertMatch(open.message, /mode 0640.*chmod 600/);
    await Deno.chmod(path, 0o600);
    for (const damaged of ["", "AAAA\n", `${keyToText(all[0].privateKey)}x`]) {
      await Deno.writeTextFile(path, damaged);
      const { message } = await assertRejects(() => loadIdentity(config, {}), CommandError);
      assertMatch(message, /private\.key: not a private key/);
    }
  });
});

Deno.test("identity: the environment's key wins and touches no file", async () => {
  const privateKey = generatePrivateKey();
  const config = parseConfig(`state_dir = "/nonexistent"`, "f", {});
  const identity = await loadIdentity(config, { OXRELAY_PRIVATE_KEY: keyToText(privateKey) });
  assertEquals(identity.publicKey, publicKeyOf(privateKey));
  const wrong = await assertRejects(
    () => loadIdentity(config, { OXRELAY_PRIVATE_KEY: "secret" }),
    CommandError,
  );
  assertMatch(wrong.message, /OXRELAY_PRIVATE_KEY: expected 44/);
  assertNotMatch(wrong.message, /secret/);
});

Deno.test("identity: X25519 as RFC 7748 section 6.1, and text that is exactly one key", () => {
  const alice = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a";
  const bob = "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb";
  assertEquals(
    [alice, bob].map((hex) => publicKeyOf(Uint8Array.fromHex(hex)).toHex()),
    [
      "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
      "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
    ],
  );
  for (
    const text of [
      "",
      "A".repeat(44),
      "A".repeat(42) + "B=",
      "A".repeat(43) + "=\n",
      " " + "A".repeat(43) + "=",
    ]
  ) {
    assertEquals(keyFromText(text), undefined);
  }
  const key = generatePrivateKey();
  assertEquals([key[0] & 7, key[31] & 192], [0, 64]);
  assertEquals(keyFromText(keyToText(key)), key);
});

Deno.test("identity: the tunnel's IPv6 prefix is stable, unique local and of 40 bits of the key", () => {
  const [a, b] = [new Uint8Array(32), new Uint8Array(32).fill(1)];
  assertMatch(deriveTunnelIpv6(a), /^fd[0-9a-f]{2}:[0-9a-f]{1,4}:[0-9a-f]{1,4}::\/64$/);
  assertEquals(deriveTunnelIpv6(a), deriveTunnelIpv6(a));
  assert(deriveTunnelIpv6(a) !== deriveTunnelIpv6(b));
  const prefix = (text: string) => resolveTunnelIpv6(parseConfig(text, "f", {}), a);
  assertEquals(prefix(""), deriveTunnelIpv6(a));
  assertEquals(prefix(`tunnel_ipv6 = "off"`), undefined);
  assertEquals(prefix(`tunnel_ipv6 = "fd12:3456:789a::/64"`), "fd12:3456:789a::/64");
});
