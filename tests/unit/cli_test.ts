/**
 * The subcommands, run as a person runs them: the real main.ts in a process of its own with the permissions of
 * its task, in a fresh directory.
 * Long because every subcommand is run in one way, with its task's permissions.
 */
import { type AddressInfo, createServer } from "node:net";
import { resolve } from "node:path";
import { requires } from "../kit/requires.ts";
import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { proofOf } from "../../src/admin/guard.ts";
import { UsageError } from "../../src/process/help.ts";
import { keyToText, publicKeyOf } from "../../src/process/keys_text.ts";
import { chooseEndpoint } from "../../src/cli/client_config.ts";
import { renderQr } from "../../src/cli/qr.ts";
import {
  formatBytes,
  formatDuration,
  formatRate,
  renderStatus,
  sparkline,
  type Status,
} from "../../src/cli/status.ts";
import type { LineSnapshot } from "../../src/session/peer_record.ts";
import { parseConfig } from "../../src/config.ts";
import { encode } from "uqr";

const MAIN = new URL("../../main.ts", import.meta.url).pathname;
const { tasks: TASKS, permissions: SETS } = JSON.parse(
  Deno.readTextFileSync(new URL("../../deno.json", import.meta.url)),
);

interface Outcome {
  code: number;
  stdout: string;
  stderr: string;
}

/** Runs `deno task NAME ARGS` with the task's own permissions, but with `cwd` in the place of the project's directory. */
async function run(
  cwd: string,
  [name, ...args]: string[],
  { stdin = "", env = {}, stdoutFile }: {
    stdin?: string;
    env?: Record<string, string>;
    stdoutFile?: string;
  } = {},
): Promise<Outcome> {
  // "deno run FLAGS main.ts NAME", as written in deno.json.
  const flags: string[] = TASKS[name].split(" ").slice(2, -2);
  // A flag takes the place of what the permission set says of the same permission.
  for (const kind of ["read", "write"]) {
    const granted = SETS[name]?.[kind] ?? [];
    const paths: string[] = granted.allow ?? granted;
    if (paths.length > 0) flags.push(`--allow-${kind}=${paths.map((path) => resolve(cwd, path))}`);
  }
  const line = [Deno.execPath(), "run", "--quiet", "--cached-only", ...flags, MAIN, name, ...args];
  const [program, ...rest] = stdoutFile === undefined
    ? line
    : ["sh", "-c", 'file=$1; shift; exec "$@" > "$file"', "sh", stdoutFile, ...line];
  const command = new Deno.Command(program, {
    args: rest,
    cwd,
    // Settings of whoever runs the tests must not leak in.
    clearEnv: true,
    env: { PATH: Deno.env.get("PATH") ?? "", HOME: Deno.env.get("HOME") ?? "", NO_COLOR: "1", ...env },
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  });
  const process = command.spawn();
  const writer = process.stdin.getWriter();
  await writer.write(new TextEncoder().encode(stdin)).catch(() => {});
  await writer.close().catch(() => {});
  const { code, stdout, stderr } = await process.output();
  return { code, stdout: new TextDecoder().decode(stdout), stderr: new TextDecoder().decode(stderr) };
}

async function inDirectory(action: (directory: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir({ prefix: "oxrelay-cli-" });
  // A port that nobody uses, so that a relay on this machine is left in peace.
  const probe = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = probe.addr as Deno.NetAddr;
  probe.close();
  await Deno.writeTextFile(`${directory}/oxrelay.toml`, `metrics_listen = "127.0.0.1:${port}"\n`);
  try {
    await action(directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

/** What the admin interface answers, on a real socket, and what it was asked once it had proved to know `token`. */
async function withRelay(
  cwd: string,
  answer: (request: Request) => Response | Promise<Response>,
  action: (asked: string[]) => Promise<void>,
  token = "made-at-the-first-start",
): Promise<void> {
  const asked: string[] = [];
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, (request) => {
    const { pathname, searchParams, origin } = new URL(request.url);
    if (pathname === "/v1/hello") {
      return Response.json({ proof: proofOf(token, origin, searchParams.get("nonce") ?? "") });
    }
    asked.push(`${request.method} ${pathname} ${request.headers.get("authorization") ?? "-"}`);
    return answer(request);
  });
  try {
    await Deno.writeTextFile(`${cwd}/oxrelay.toml`, `metrics_listen = "127.0.0.1:${server.addr.port}"\n`);
    await action(asked);
  } finally {
    await server.shutdown();
  }
}

Deno.test("cli: keygen makes pairs that fit", async () => {
  await inDirectory(async (cwd) => {
    const made = await run(cwd, ["keygen"]);
    assertMatch(made.stdout, /^[A-Za-z0-9+/]{43}=\n$/);
    const made2 = await run(cwd, ["keygen"]);
    assert(made.stdout !== made2.stdout);
    const { stdout } = await run(cwd, ["keygen", "--public"], { stdin: made.stdout });
    assertEquals(stdout, `${keyToText(publicKeyOf(Uint8Array.fromBase64(made.stdout.trim())))}\n`);
    assertMatch((await run(cwd, ["keygen", "--psk"])).stdout, /^[A-Za-z0-9+/]{43}=\n$/);
    for (const stdin of ["", "nonsense", made.stdout + made.stdout]) {
      const refused = await run(cwd, ["keygen", "--public"], { stdin });
      assertEquals([refused.code, refused.stdout], [1, ""]);
      assertMatch(refused.stderr, /expected a private key/);
    }
    assertEquals((await run(cwd, ["keygen", "--psk", "--public"])).code, 2);
  });
});

Deno.test("cli: peer add prints a config and nothing else, and keeps no private key", async () => {
  await inDirectory(async (cwd) => {
    const added = await run(cwd, ["peer", "add", "phone", "--psk", "--endpoint", "relay.example.com:4433"]);
    assertEquals(added.code, 0, added.stderr);
    assertMatch(
      added.stdout,
      new RegExp(
        "^\\[Interface\\]\nPrivateKey = (\\S{43}=)\n" +
          "Address = 10\\.66\\.0\\.2/32, fd[0-9a-f:]+::2/128\nDNS = 1\\.1\\.1\\.1, 2606:4700:4700::1111\nMTU = 1420\n" +
          "\n\\[Peer\\]\nPublicKey = (\\S{43}=)\nPresharedKey = (\\S{43}=)\n" +
          "Endpoint = relay\\.example\\.com:4433\nAllowedIPs = 0\\.0\\.0\\.0/0, ::/0\nPersistentKeepalive = 25\n$",
      ),
    );
    assertMatch(added.stderr, /relay is not running; it will read this when it starts/);
    const [privateKey, presharedKey] = ["PrivateKey", "PresharedKey"].map((key) =>
      new RegExp(`^${key} = (.*)$`, "m").exec(added.stdout)![1]
    );
    const relayKey = (await Deno.readTextFile(`${cwd}/state/private.key`)).trim();
    assertMatch(added.stdout, new RegExp(`^PublicKey = ${escape(publicOf(relayKey))}$`, "m"));

    const stored = await Deno.readTextFile(`${cwd}/state/peers.json`);
    assert(stored.includes(publicOf(privateKey)) && stored.includes(presharedKey));
    assert(!stored.includes(privateKey), "the client's private key is stored");

    for (const shown of [["list"], ["list", "--json"], ["show", "phone"], ["show", "phone", "--json"]]) {
      const { code, stdout } = await run(cwd, ["peer", ...shown]);
      assertEquals(code, 0);
      assert(stdout.includes("phone") && stdout.includes(publicOf(privateKey)));
      for (const secret of [privateKey, presharedKey, relayKey]) assert(!stdout.includes(secret));
    }

    const exported = await run(cwd, ["peer", "export"]);
    assertMatch(exported.stdout, /^[A-Za-z0-9+/=]+\n$/);
    const limited = await run(cwd, ["peer", "rate", "phone", "--down", "45M", "--up", "900k"]);
    assertEquals([limited.code, limited.stdout], [0, ""]);
    assertMatch(limited.stderr, /45.0 Mbit\/s down, 900.0 kbit\/s up/);
    await run(cwd, ["peer", "rate", "phone", "--up", "none"]);
    const shown = JSON.parse((await run(cwd, ["peer", "show", "phone", "--json"])).stdout);
    assertEquals([shown.rateDownBps, shown.rateUpBps], [45e6, undefined]);
    assertMatch((await run(cwd, ["peer", "rate", "desk", "--up", "none"])).stderr, /there is no peer "desk"/);
    const removed = await run(cwd, ["peer", "remove", "phone"]);
    assertEquals([removed.code, removed.stdout], [0, ""]);
    assertMatch((await run(cwd, ["peer", "list"])).stderr, /no peers yet/);
    const elsewhere = await run(cwd, ["peer", "list"], { env: { OXRELAY_PEERS: exported.stdout.trim() } });
    assertMatch(elsewhere.stdout, /phone/);
  });
});

Deno.test("cli: peer add needs the fallback's certificate for what names it alone", async () => {
  await inDirectory(async (cwd) => {
    await Deno.writeTextFile(
      `${cwd}/oxrelay.toml`,
      '[fallback]\nlisten = "0.0.0.0:443"\ncertificate = "state/none.crt"\nprivate_key = "state/none.key"\n',
    );
    const add = (...args: string[]) =>
      run(cwd, ["peer", "add", ...args, "--endpoint", "relay.example.com:4433"]);
    const phone = await add("phone");
    assertEquals(phone.code, 0, phone.stderr);
    const laptop = await add("laptop", "--oxtunnel");
    assertEquals([laptop.code, laptop.stdout], [1, ""]);
    assertMatch(laptop.stderr, /"laptop" is not stored: fallback\.certificate: state\/none\.crt/);
    assert(!(await run(cwd, ["peer", "list"])).stdout.includes("laptop"));
  });
});

Deno.test("cli: peer add takes a public key, writes 0600, overwrites nothing", async () => {
  await inDirectory(async (cwd) => {
    const key = publicOf((await run(cwd, ["keygen"])).stdout.trim());
    // "=" inside a value, and a name of digits only, which must stay a name.
    const added = await run(cwd, [
      "peer",
      "add",
      "007",
      `--public-key=${key}`,
      "--out",
      "state/007.conf",
      "--qr",
    ]);
    assertEquals([added.code, added.stdout], [0, ""], added.stderr);
    const conf = await Deno.readTextFile(`${cwd}/state/007.conf`);
    assertMatch(conf, /^\[Interface\]\n# PrivateKey = \(this device's own\)\nAddress/);
    assertEquals((await Deno.stat(`${cwd}/state/007.conf`)).mode! & 0o777, 0o600);
    const again = await run(cwd, ["peer", "add", "other", "--out", "state/007.conf"]);
    assertEquals(again.code, 1);
    assertMatch(again.stderr, /exists already and is left as it is/);
    // A refused add leaves no file, and no peer.
    assertEquals((await run(cwd, ["peer", "add", "007", "--out", "state/new.conf"])).code, 1);
    assertThrows(() => Deno.statSync(`${cwd}/state/new.conf`), Deno.errors.NotFound);
    const names = JSON.parse((await run(cwd, ["peer", "list", "--json"])).stdout) as { name: string }[];
    assertEquals(names.map(({ name }) => name), ["007"]);
    const own = publicOf((await Deno.readTextFile(`${cwd}/state/private.key`)).trim());
    assertMatch((await run(cwd, ["peer", "add", "x", "--public-key", own])).stderr, /the relay's own key/);
  });
});

Deno.test("cli: peer add gives the config away whatever becomes of the relay, or stores nothing", async () => {
  await inDirectory(async (cwd) => {
    for (const [i, host] of ["localhost", "192.0.2.1"].entries()) {
      await Deno.writeTextFile(`${cwd}/oxrelay.toml`, `metrics_listen = "${host}:9099"\n`);
      const added = await run(cwd, ["peer", "add", `p${i}`]);
      assertEquals(added.code, 0, added.stderr);
      assertMatch(added.stdout, /^\[Interface\]\nPrivateKey = \S{43}=\n/);
      assertMatch(
        added.stderr,
        i === 0 ? /relay is not running/ : /may not reach .*192\.0\.2\.1:9099; send it SIGHUP/,
      );
    }
    const full = await run(cwd, ["peer", "add", "full"], { stdoutFile: "/dev/full" });
    assertEquals(full.code, 1);
    assertMatch(full.stderr, /could not be written, so peer "full" is not stored: .*28/);
    const { stdout } = await run(cwd, ["peer", "list"]);
    assert(stdout.includes("p1") && !stdout.includes("full"));
  });
});

Deno.test("cli: peer and status may use the image's and a service's directories, and peer no file of the program", () => {
  for (const task of ["peer", "status"]) {
    assertMatch(TASKS[task], new RegExp(` -P=${task} `));
    const more = task === "peer" ? ["/etc/wireguard"] : [];
    assertEquals(SETS[task].read, [".", "/data", "/etc/oxrelay", ...more, "/var/lib/oxrelay"]);
  }
  const { allow, deny } = SETS.peer.write;
  assertEquals(allow, [".", "/data", "/var/lib/oxrelay"]);
  for (
    const name of [
      "main.ts",
      "deno.json",
      "deno.lock",
      "src",
      "ffi",
      "tests",
      "tools",
      "bench",
      "docs",
      "packaging",
    ]
  ) {
    assert(deny.includes(name), `${name} is not denied to peer`);
  }
});

Deno.test("cli: wrong command lines end with 2 and say what to do", async () => {
  await inDirectory(async (cwd) => {
    const cases: [args: string[], message: RegExp][] = [
      [["peer", "ad", "phone"], /did you mean "peer add"\?/],
      [["peer", "add"], /something is missing; see --help/],
      [["peer", "add", "a", "b"], /"b" is one word too many/],
      [["peer", "add", "a", "--endpont", "x:1"], /unknown option --endpont; did you mean --endpoint\?/],
      [["peer", "add", "a", "--endpoint"], /--endpoint needs a value/],
      [["peer", "add", "a", "--endpoint", "nowhere"], /--endpoint: expected "host:port"/],
      [["peer", "add", "a", "--out", "b", "--out", "c"], /--out is given 2 times/],
      [["peer", "add", "a", "--qr", "--no-qr"], /exclude each other/],
      [["peer", "add", "a", "--public-key", "x"], /--public-key: expected 44 characters/],
      [["peer", "add", "a", "--rate-down", "9"], /--rate-down: expected a rate from 64k to 100G/],
      [["peer", "set", "a"], /peer set: give what to change/],
      [["peer", "rate", "a", "--up", "fast"], /--up: expected a rate/],
      [["peer", "set", "a", "--volume", "0"], /--volume: expected 1 to 1000000000000000 bytes such as 50G/],
      [["peer", "set", "a", "--volume", "2000T"], /--volume: expected 1 to/],
      [
        ["peer", "set", "a", "--expires", "2026-02-30"],
        /--expires: expected a time such as 30d.*"2026-02-30"/,
      ],
      [["peer", "set", "a", "--expires", "0d"], /--expires: expected a time/],
      [["peer", "set", "a", "--notes", "x".repeat(501)], /--notes: 501 characters, of 500 at most/],
      [["peer", "rename", "a"], /something is missing/],
      [["peer", "link", "a", "--page", "relay.example.com"], /--page: expected an address such as https/],
      [["peer", "link", "a", "--valid", "soon"], /--valid: expected a time/],
      [["keygen", "--publc"], /did you mean --public\?/],
      [["status", "now"], /"now" is one word too many/],
    ];
    for (const [args, message] of cases) {
      const { code, stdout, stderr } = await run(cwd, args);
      assertEquals([code, stdout], [2, ""], args.join(" "));
      assertMatch(stderr, message);
    }
    assertEquals((await Array.fromAsync(Deno.readDir(cwd))).length, 1, "nothing was made");
    for (const args of [["keygen"], ["status"], ["peer"], ["peer", "add"], ["peer", "list"]]) {
      const { code, stdout } = await run(cwd, [...args, "--help"]);
      assertEquals(code, 0);
      assertMatch(stdout, /^ {2}deno task /m);
    }
  });
});

Deno.test("cli: a bad, a missing and a default configuration file", async () => {
  await inDirectory(async (cwd) => {
    await Deno.writeTextFile(`${cwd}/oxrelay.toml`, "listn = 1\n");
    const bad = await run(cwd, ["peer", "list"]);
    assertEquals(bad.code, 1);
    assertEquals(bad.stderr, `oxrelay.toml: listn: unknown key; did you mean "listen"?\n`);
    const missing = await run(cwd, ["peer", "list", "--config", "other.toml"]);
    assertEquals([missing.code, missing.stderr], [
      1,
      "other.toml: there is no such file; it is named by --config\n",
    ]);
    assertMatch(
      (await run(cwd, ["peer", "list"], { env: { OXRELAY_CONFIG: "gone.toml" } })).stderr,
      /gone\.toml: there is no such file; it is named by OXRELAY_CONFIG/,
    );
    await Deno.remove(`${cwd}/oxrelay.toml`);
    assertEquals((await run(cwd, ["peer", "list"])).code, 0);
  });
});

Deno.test("cli: peer add is the running relay's work, which gets the token and no private key", async () => {
  await inDirectory(async (cwd) => {
    const token = "0123456789abcdef";
    const env = { OXRELAY_ADMIN_TOKEN: token };
    const allowedIps = ["10.66.7.7/32"];
    const bodies: string[] = [];
    const answer = (request: Request) =>
      request.text().then((text) => {
        bodies.push(text);
        const { name, publicKey } = JSON.parse(text);
        return Response.json({ name, publicKey, allowedIps, created: "2026-01-01T00:00:00.000Z" }, {
          status: 201,
        });
      });
    await withRelay(cwd, answer, async (asked) => {
      const added = await run(cwd, ["peer", "add", "phone", "--psk"], { env });
      assertEquals(added.code, 0, added.stderr);
      assertMatch(added.stderr, /is stored with 10\.66\.7\.7\/32\.\n.*The running relay serves it\.\n$/s);
      assertMatch(added.stdout, /^Address = 10\.66\.7\.7\/32$/m);
      assertEquals(asked, [`POST /v1/peers Bearer ${token}`]);
      const [, privateKey] = /^PrivateKey = (\S+)$/m.exec(added.stdout)!;
      const [, presharedKey] = /^PresharedKey = (\S+)$/m.exec(added.stdout)!;
      const [{ network, ...peer }] = bodies.map((body) => JSON.parse(body));
      assertEquals(peer, { name: "phone", publicKey: publicOf(privateKey), presharedKey });
      assertMatch(network, /^\S{44} 10\.66\.0\.0\/16 fd[0-9a-f:]+\/64$/);
      assertThrows(() => Deno.statSync(`${cwd}/state/peers.json`), Deno.errors.NotFound);
    }, token);
    const taken = { error: { field: "name", message: 'peer "phone" exists' } };
    await withRelay(cwd, () => Response.json(taken, { status: 409 }), async () => {
      const refused = await run(cwd, ["peer", "add", "phone", "--out", "state/phone.conf"], { env });
      assertEquals([refused.code, refused.stdout, refused.stderr], [1, "", 'peer "phone" exists\n']);
      assertThrows(() => Deno.statSync(`${cwd}/state/phone.conf`), Deno.errors.NotFound);
      assertThrows(() => Deno.statSync(`${cwd}/state/peers.json`), Deno.errors.NotFound);
    }, token);
  });
});

Deno.test("cli: a config that cannot be written takes its peer back from the running relay", async () => {
  await inDirectory(async (cwd) => {
    const answer = async (request: Request) => {
      if (request.method === "DELETE") return new Response(null, { status: 204 });
      const { name, publicKey } = await request.json();
      return Response.json({ name, publicKey, allowedIps: ["10.66.7.7/32"], created: "2026" }, {
        status: 201,
      });
    };
    const env = { OXRELAY_ADMIN_TOKEN: "0123456789abcdef" };
    await withRelay(cwd, answer, async (asked) => {
      const full = await run(cwd, ["peer", "add", "full"], { env, stdoutFile: "/dev/full" });
      assertEquals(full.code, 1);
      assertMatch(full.stderr, /could not be written, so peer "full" is not stored: .*28/);
      assertEquals(asked.map((line) => line.split(" Bearer")[0]), [
        "POST /v1/peers",
        "DELETE /v1/peers/full",
      ]);
    }, env.OXRELAY_ADMIN_TOKEN);
  });
});

Deno.test("cli: a relay that cannot add a peer by itself reads the store again", async () => {
  await inDirectory(async (cwd) => {
    const unknown = { error: { field: "presharedKey", message: "an unknown key" } };
    const reply = { peers: { added: ["phone"], removed: [], total: 1 }, config: {} };
    const answer = ({ url }: Request) =>
      url.endsWith("/v1/reload") ? Response.json(reply) : Response.json(unknown, { status: 400 });
    const env = { OXRELAY_ADMIN_TOKEN: "0123456789abcdef" };
    await withRelay(cwd, answer, async (asked) => {
      const added = await run(cwd, ["peer", "add", "phone", "--psk"], { env });
      assertEquals(added.code, 0, added.stderr);
      assertMatch(added.stderr, /The running relay knows: it serves 1 peers now\./);
      assertEquals(asked.map((line) => line.split(" Bearer")[0]), ["POST /v1/peers", "POST /v1/reload"]);
      assertMatch(await Deno.readTextFile(`${cwd}/state/peers.json`), /"phone"/);
    }, env.OXRELAY_ADMIN_TOKEN);
  });
});

Deno.test("cli: a peer that the relay stored before its answer was lost keeps its config", async () => {
  await inDirectory(async (cwd) => {
    const env = { OXRELAY_ADMIN_TOKEN: "0123456789abcdef" };
    const answer = async (request: Request) => {
      const { name, publicKey } = await request.json();
      const peer = { name, publicKey, allowedIps: ["10.66.7.7/32"], created: "2026" };
      await Deno.mkdir(`${cwd}/state`, { recursive: true });
      await Deno.writeTextFile(`${cwd}/state/peers.json`, JSON.stringify({ version: 1, peers: [peer] }));
      return new Response("<html>", { status: 502 });
    };
    await withRelay(cwd, answer, async () => {
      const added = await run(cwd, ["peer", "add", "phone"], { env });
      assertEquals(added.code, 1, "a script has to notice");
      assertMatch(added.stdout, /^Address = 10\.66\.7\.7\/32$/m);
      assertMatch(added.stderr, /the running relay was not told: .* answered HTTP 502/);
    }, env.OXRELAY_ADMIN_TOKEN);
  });
});

Deno.test("cli: peer remove is the running relay's work, which gets the token", async () => {
  await inDirectory(async (cwd) => {
    assertEquals((await run(cwd, ["peer", "add", "phone"])).code, 0);
    await Deno.writeTextFile(`${cwd}/state/admin.token`, "made-at-the-first-start\n");
    const refused = { field: "store", message: "it is cut off, but the disk is full" };
    const removals: [response: () => Response, code: number, said: RegExp, left: boolean][] = [
      [() => Response.json({ error: refused }, { status: 409 }), 1, /cut off, but the disk is full/, true],
      [() => new Response(null, { status: 204 }), 0, /is removed, and its session cut/, true],
      [
        () => Response.json({ error: { field: "name", message: "there is no peer" } }, { status: 404 }),
        0,
        /"phone" is removed\.\n$/,
        false,
      ],
    ];
    for (const [response, code, said, left] of removals) {
      await withRelay(cwd, response, async (asked) => {
        const removed = await run(cwd, ["peer", "remove", "phone"]);
        assertEquals(removed.code, code, removed.stderr);
        assertMatch(removed.stderr, said);
        // The relay removes it from the store, unless it knows none of that name.
        assertEquals((await Deno.readTextFile(`${cwd}/state/peers.json`)).includes("phone"), left);
        assertEquals(asked, ["DELETE /v1/peers/phone Bearer made-at-the-first-start"]);
      });
    }
    const answers: [response: () => Response, message: RegExp][] = [
      [() => new Response("", { status: 401 }), /refused the token \(HTTP 401\); set OXRELAY_ADMIN_TOKEN/],
      [() => new Response("<html>"), /answered HTTP 200, not as a relay does/],
      [() => new Response("{}", { status: 500 }), /answered HTTP 500/],
    ];
    for (const [i, [response, message]] of answers.entries()) {
      await withRelay(cwd, response, async () => {
        const added = await run(cwd, ["peer", "add", `p${i}`]);
        // Its peer is stored and its config must not be lost, but a script has to notice.
        assertEquals(added.code, 1);
        assertMatch(added.stdout, /^\[Interface\]\nPrivateKey = /);
        assertMatch(added.stderr, message);
        assertMatch((await run(cwd, ["status"])).stderr, message);
      });
    }
  });
});

/** A listener that answers everything with `answer`, and all that it was sent meanwhile. */
async function listening(answer: string, action: (port: number) => Promise<void>): Promise<string> {
  let got = "";
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const serving = (async () => {
    for await (const connection of listener) {
      const bytes = new Uint8Array(4096);
      for (let length; (length = await connection.read(bytes).catch(() => null)) !== null;) {
        got += new TextDecoder().decode(bytes.subarray(0, length));
        if (answer === "") break;
        await connection.write(new TextEncoder().encode(answer));
      }
      connection.close();
    }
  })();
  try {
    await action((listener.addr as Deno.NetAddr).port);
  } finally {
    listener.close();
    await serving;
  }
  return got;
}

Deno.test("cli: what breaks on the way to a relay is named, and is not taken for no relay", async () => {
  await inDirectory(async (cwd) => {
    const server = createServer((socket) => void socket.once("data", () => socket.resetAndDestroy()));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    try {
      await Deno.mkdir(`${cwd}/state`);
      await Deno.writeTextFile(`${cwd}/state/admin.token`, "made-at-the-first-start\n");
      await Deno.writeTextFile(`${cwd}/oxrelay.toml`, `metrics_listen = "127.0.0.1:${port}"\n`);
      const status = await run(cwd, ["status"]);
      assertEquals(status.code, 1);
      assertMatch(status.stderr, /^the relay at http:\/\/127\.0\.0\.1:\d+ cannot be asked: .*reset/i);
    } finally {
      await new Promise((resolve) => server.close(resolve));
    }
    const none = await run(cwd, ["status"]);
    assertMatch(none.stderr, /^no relay is running here/);
  });
});

const jsonAnswer = (body: string) =>
  `HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`;

Deno.test("cli: a peer that is there stays when the same is asked again and cannot be carried out", async () => {
  await inDirectory(async (cwd) => {
    const words = [
      "peer",
      "add",
      "router",
      "--public-key",
      publicOf((await run(cwd, ["keygen"])).stdout.trim()),
    ];
    assertEquals((await run(cwd, words)).code, 0);
    const before = await Deno.readTextFile(`${cwd}/state/peers.json`);
    const again = await run(cwd, words);
    assertEquals(again.code, 1);
    assertMatch(again.stderr, /exists/);
    assertEquals((await run(cwd, words, { stdoutFile: "/dev/full" })).code, 1);
    assertEquals(await Deno.readTextFile(`${cwd}/state/peers.json`), before);
  });
});

Deno.test("cli: what is asked of the relay goes over no proxy", async () => {
  await inDirectory(async (cwd) => {
    const env = { OXRELAY_ADMIN_TOKEN: "0123456789abcdef" };
    const got = await listening("", async (port) => {
      const proxy = `http://127.0.0.1:${port}`;
      const proxies = Object.fromEntries(
        ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"].map((name) => [name, proxy]),
      );
      await withRelay(cwd, () => Response.json(STATUS), async (asked) => {
        const { code, stderr } = await run(cwd, ["status", "--json"], {
          env: { ...env, ...proxies, NODE_USE_ENV_PROXY: "1", DENO_NO_UPDATE_CHECK: "1" },
        });
        assertEquals(code, 0, stderr);
        assertEquals(asked, ["GET /v1/status Bearer 0123456789abcdef"]);
      }, env.OXRELAY_ADMIN_TOKEN);
    });
    assertEquals(got, "", "the proxy sees nothing");
  });
});

Deno.test("cli: the token is not told to a stranger who listens where the relay should", async () => {
  await inDirectory(async (cwd) => {
    const env = { OXRELAY_ADMIN_TOKEN: "0123456789abcdef" };
    const wrong = proofOf("another-token-entirely", "http://127.0.0.1:1", "n");
    for (
      const answer of [
        jsonAnswer("{}"),
        jsonAnswer("null"),
        jsonAnswer(JSON.stringify({ proof: wrong })),
        jsonAnswer('{"proof":7}'),
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 302 Found\r\nLocation: /v1/status\r\nContent-Length: 0\r\n\r\n",
      ]
    ) {
      const got = await listening(answer, async (port) => {
        await Deno.writeTextFile(`${cwd}/oxrelay.toml`, `metrics_listen = "127.0.0.1:${port}"\n`);
        const { code, stderr } = await run(cwd, ["status", "--once"], { env });
        assertEquals(code, 1);
        assertMatch(
          stderr,
          /does not prove to know the admin token, so nothing was asked; set OXRELAY_ADMIN/,
        );
      });
      assertMatch(got, /^GET \/v1\/hello\?nonce=[\w-]{43} HTTP\/1\.0\r\n/);
      assert(!/authorization|0123456789abcdef/i.test(got), got);
    }
  });
});

Deno.test("cli: a proof that was fetched from the relay at another address is none", async () => {
  await inDirectory(async (cwd) => {
    const token = "0123456789abcdef";
    const got: string[] = [];
    // What a stranger gets who passes the nonce on to the relay, which listens elsewhere.
    const stranger = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, (request) => {
      got.push(request.headers.get("authorization") ?? "-");
      const nonce = new URL(request.url).searchParams.get("nonce") ?? "";
      return Response.json({ proof: proofOf(token, "http://127.0.0.1:9090", nonce) });
    });
    await Deno.writeTextFile(`${cwd}/oxrelay.toml`, `metrics_listen = "127.0.0.1:${stranger.addr.port}"\n`);
    const { code, stderr } = await run(cwd, ["status", "--once"], { env: { OXRELAY_ADMIN_TOKEN: token } });
    await stranger.shutdown();
    assertEquals([code, got], [1, ["-"]], stderr);
  });
});

const STATUS: Status = {
  name: "oxrelay",
  version: "0.1.0",
  uptimeS: 3725,
  exit: "userspace",
  listen: "[::]:4433",
  applications: { quic: 12, zoom: 1 },
  counters: { sessions: 1, bytes_received: 2048, bytes_sent: 1536 },
  drops: { forged: 3, denied: 0, replayed: 7 },
  peers: [
    {
      name: "phone",
      publicKey: "k1",
      allowedIps: ["10.66.0.2/32"],
      endpoint: "192.0.2.7:51820",
      lastHandshakeAgeS: 42.9,
      connected: true,
      protocol: "oxtunnel",
      aead: "AES-256-GCM",
      bytesReceived: 2_000_000,
      bytesSent: 1000,
      drops: 2,
      lossRatio: 0.0123,
      rttMs: 18.25,
    },
    {
      name: "\x1b[2Jlaptop",
      publicKey: "k2",
      allowedIps: ["10.66.0.3/32"],
      connected: false,
      bytesReceived: 0,
      bytesSent: 0,
      drops: 0,
    },
  ],
};

Deno.test("cli: status shows a relay once and as JSON, and says when there is none", async () => {
  await inDirectory(async (cwd) => {
    const none = await run(cwd, ["status"]);
    assertEquals([none.code, none.stdout], [1, ""]);
    assertMatch(none.stderr, /^no relay is running here \(nothing answers at http:\/\/127/);
    await Deno.mkdir(`${cwd}/state`);
    await Deno.writeTextFile(`${cwd}/state/admin.token`, "made-at-the-first-start\n");
    await withRelay(cwd, () => Response.json(STATUS), async (asked) => {
      const once = await run(cwd, ["status", "--once"]);
      assertEquals([once.code, once.stdout], [0, `${renderStatus(STATUS, undefined, 0, [])}\n`]);
      assertEquals(JSON.parse((await run(cwd, ["status", "--json"])).stdout), STATUS);
      assertEquals(asked, Array(2).fill("GET /v1/status Bearer made-at-the-first-start"));
    });
  });
});

const LATENCY = {
  queue: { p50Ms: 0.1, p99Ms: 0.51 },
  queueByClass: { game: { p50Ms: 0, p99Ms: 0.11 }, bulk: { p50Ms: 1.2, p99Ms: 9 } },
  processing: { p50Ms: 0.02, p99Ms: 0.04 },
};

Deno.test("cli: status shows what headers became", () => {
  const [phone, laptop] = STATUS.peers;
  const text = renderStatus(
    {
      ...STATUS,
      peers: [
        { ...phone, headers: { method: "elided", before: 28, after: 1.06 } },
        { ...laptop, headers: { method: "rohc", before: 39.6, after: 4 } },
      ],
    },
    undefined,
    0,
    [],
  );
  assertMatch(text, /\n {2}headers 28 → 1\.1 B to phone\n {2}headers 40 → 4\.0 B to .*laptop, by ROHC$/);
});

Deno.test("cli: the status table's numbers", () => {
  const [phone, laptop] = STATUS.peers;
  const previous = { ...STATUS, peers: [{ ...phone, bytesReceived: 1_000_000, bytesSent: 1000 }, laptop] };
  const text = renderStatus(STATUS, previous, 2, [0, 5, 10]);
  assertMatch(text, /^oxrelay 0\.1\.0 {2}up 1h 2m {2}listens on \[::\]:4433 {2}exit userspace\n/);
  assertMatch(text, /2 peers, 1 sessions, 2\.0 KiB received, 1\.5 KiB sent/);
  assertMatch(text, /\n▁▅█ 80 bit\/s\n/);
  const line: LineSnapshot = {
    shapedBps: 9.5e6,
    rateBy: "found",
    path: { state: "cruise", bps: 10e6, leastRttMs: 41.24, queueMs: 1.5 },
    waiting: 3,
    marked: 4,
    drops: { queue_delay: 2, queue_stale: 1 },
    waits: { game: { p50Ms: 0.012, p99Ms: 1.25 }, bulk: { p50Ms: 20, p99Ms: 41 } },
    serializationMs: 1.211,
  };
  const lines = renderStatus(
    { ...STATUS, latency: LATENCY, peers: [{ ...phone, line }, laptop] },
    undefined,
    0,
    [],
  );
  assertMatch(
    lines,
    /latency: queue 0\.10\/0\.51 ms \(over 0\.5\), processing 0\.02\/0\.04 ms \(under 0\.1\)\n {9}queue by class: game 0\.00\/0\.11 ms, bulk 1\.2\/9\.0 ms\n/,
  );
  assertMatch(
    lines,
    /LINE TO .*\n {2}phone +9\.5 Mbit\/s \(found\) +cruise +10\.0 Mbit\/s +41\.2 ms +1\.5 ms +1\.2 ms +0\.01\/1\.3 ms +- +- +20\.0\/41\.0 ms +4 +3/,
  );
  assertMatch(text, /drops: replayed 7, forged 3\nflows: quic 12, zoom 1\n/);
  assertMatch(
    text,
    /● phone +192\.0\.2\.7:51820 +oxtunnel AES-256-GCM +42s ago +1\.9 MiB +1000 B +4\.0 Mbit\/s +0 bit\/s +18\.3 ms +1\.23 % +2/,
  );
  assertMatch(text, /○ \?\[2Jlaptop +- +- +never +0 B +0 B +0 bit\/s +0 bit\/s +- +- +0$/);
  const [speaks, trusted] = ([["wireguard", "ChaCha20-Poly1305"], ["oxtunnel", "AES-256-GMAC"]] as const).map(
    ([protocol, aead]) =>
      renderStatus({ ...STATUS, peers: [{ ...phone, protocol, aead }] }, undefined, 0, []),
  );
  assertMatch(speaks, /:51820 +wireguard +42s ago/);
  assertMatch(trusted, /:51820 +oxtunnel TRUSTED, NOT ENCRYPTED +42s ago/);
  assert(!text.includes("\x1b"));
  const receiving = {
    lossRatio: 0.05,
    residualRatio: 0.0012,
    repaired: 40,
    unrecovered: 2,
    repairs: 90,
    wasted: 50,
    requests: 31,
    answered: 29,
    late: 2,
    useless: 1,
    extraRatio: 0.21,
    scheme: "window 8, 24 %",
    isSilent: false,
  };
  const sending = { ...receiving, isSilent: true };
  const repairing = renderStatus({ ...STATUS, peers: [{ ...phone, receiving, sending }] }, undefined, 0, []);
  assertMatch(
    repairing,
    /from phone +window 8, 24 % +5\.00 % +0\.12 % +40 +2 +90 +50 +31 +29 +2 +1 +21\.00 %\n/,
  );
  assertMatch(repairing, /to phone +no reports +5\.00 %/);
});

Deno.test("cli: numbers as people read them", () => {
  assertEquals([0, 1023, 1024, 5 * 2 ** 40].map(formatBytes), ["0 B", "1023 B", "1.0 KiB", "5.0 TiB"]);
  assertEquals([-5, 1, 125, 125e6].map(formatRate), ["0 bit/s", "8 bit/s", "1.0 kbit/s", "1.0 Gbit/s"]);
  assertEquals([59.9, 60, 3600, 187200].map(formatDuration), ["59s", "1m 0s", "1h 0m", "2d 4h"]);
  assertEquals(sparkline([0, 0]), "▁▁");
});

Deno.test("cli: the QR code's half blocks are the code's modules, with a quiet zone of four", () => {
  const text = "[Interface]\n" + "x".repeat(300);
  const { data, size } = encode(text, { ecc: "L", border: 0 });
  // deno-lint-ignore no-control-regex
  const lines = renderQr(text).split("\n").map((line) => line.replace(/\x1b\[[\d;]*m/g, ""));
  assertEquals([lines[0].length, lines.length], [size + 8, Math.ceil((size + 8) / 2)]);
  const dark = (x: number, y: number) =>
    "█▀▄ ".indexOf(lines[y >> 1][x]) <= 0 || lines[y >> 1][x] === "▀▄"[y & 1];
  for (let y = 0; y < size + 8; y++) {
    for (let x = 0; x < size + 8; x++) {
      assertEquals(dark(x, y), data[y - 4]?.[x - 4] ?? false, `module ${x},${y}`);
    }
  }
});

Deno.test("cli: the endpoint is chosen in order, and a private one comes with its remedy", () => {
  const choose = (toml: string, addresses: string[], env = {}, given?: string) =>
    chooseEndpoint(
      given,
      parseConfig(toml, "f", {}),
      env,
      () => addresses.map((address, i) => ({ name: i === 0 ? "oxrelay0" : `eth${i}`, address })),
    );
  const own = ["8.8.8.8", "127.0.0.1", "fe80::1", "192.168.1.2", "2600::1", "9.9.9.9"];
  assertEquals(choose("", own, {}, "a.example:1").text, "a.example:1");
  assertEquals(choose(`public_endpoint = "b.example:2"`, own).text, "b.example:2");
  assertEquals(choose("", own, { FLY_APP_NAME: "edge" }).text, "edge.fly.dev:4433");
  assertEquals(choose(`listen = "9.8.7.6:5000"`, own).text, "9.8.7.6:5000");
  assertEquals(choose("", own).text, "9.9.9.9:4433");
  assertEquals(choose("", own.slice(0, 5)).text, "[2600::1]:4433");
  const behindNat = choose("", own.slice(0, 4));
  assertEquals(behindNat.text, "192.168.1.2:4433");
  assertMatch(behindNat.note!, /is private.*--endpoint PUBLIC_ADDRESS:4433/);
  assertThrows(() => choose("", own.slice(0, 3)), UsageError, "no address that a client could reach");
});

Deno.test("cli: a tunnel without IPv6 gives a config without IPv6", async () => {
  await inDirectory(async (cwd) => {
    const { stdout, stderr } = await run(cwd, ["peer", "add", "phone"], { env: { FLY_APP_NAME: "edge" } });
    assertMatch(stdout, /Address = 10\.66\.0\.2\/32\nDNS = 1\.1\.1\.1\nMTU = 1240\n/, stderr);
    assertMatch(stdout, /Endpoint = edge\.fly\.dev:4433\nAllowedIPs = 0\.0\.0\.0\/0\n/);
  });
});

Deno.test({
  name: "cli: wg-quick reads the printed config as it is",
  ...requires({ programs: ["wg-quick"] }),
  fn: async () => {
    await inDirectory(async (cwd) => {
      const { stdout: conf } = await run(cwd, ["peer", "add", "phone", "--psk"]);
      await Deno.writeTextFile(`${cwd}/phone.conf`, conf, { mode: 0o600 });
      const { code, stdout } = await new Deno.Command("wg-quick", { args: ["strip", `${cwd}/phone.conf`] })
        .output();
      assertEquals(code, 0);
      // What is left for `wg setconf`: all but wg-quick's own three keys.
      const kept = conf.split("\n").filter((line) => line !== "" && !/^(Address|DNS|MTU) /.test(line));
      assertEquals(new TextDecoder().decode(stdout).split("\n").filter((line) => line !== ""), kept);
    });
  },
});

function publicOf(privateKey: string): string {
  return keyToText(publicKeyOf(Uint8Array.fromBase64(privateKey)));
}

function escape(text: string): string {
  return text.replace(/[+/]/g, "\\$&");
}
