/**
 * What a newcomer runs into in the first minutes, with real processes: a port that Prometheus has, a relay that restarts under
 * `status`, files with keys, a configuration outside the folder, a terminal that is too small for a QR code.
 */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { requires } from "../kit/requires.ts";
import { Background, until } from "../kit/namespaces.ts";
import { LoopbackRelay, relayTest } from "./loopback_relay.ts";

const ROOT = new URL("../..", import.meta.url).pathname;

/** Leaves out the line about metrics_listen, which then has its default; the same with it as a choice is beside it. */
async function withDefaultAdminPort(directory: string): Promise<void> {
  const file = `${directory}/oxrelay.toml`;
  const text = (await Deno.readTextFile(file)).replace(/^metrics_listen.*\n/m, "");
  await Deno.writeTextFile(file, text);
  await Deno.writeTextFile(`${directory}/chosen.toml`, `metrics_listen = "127.0.0.1:9090"\n${text}`);
}

/** Starts a program with a relay's state directory. */
function start(directory: string, [program, ...args]: string[]): Background {
  return new Background(
    new Deno.Command(program, {
      args,
      cwd: ROOT,
      env: { OXRELAY_STATE_DIR: `${directory}/state`, DENO_NO_UPDATE_CHECK: "1", TERM: "xterm" },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn(),
  );
}

/** The same on a terminal of that size. */
function onTerminal(columns: number, rows: number, directory: string, command: string[]): Background {
  const words = command.map((word) => `'${word}'`).join(" ");
  return start(directory, [
    "script",
    "-qec",
    `stty cols ${columns} rows ${rows}; exec ${words}`,
    "/dev/null",
  ]);
}

Deno.test({
  name:
    "first minutes: with 9090 taken the relay goes on, says where, and its subcommands find it; a chosen port is used or refused",
  ...requires({}),
  sanitizeResources: false,
  sanitizeOps: false,
  async fn() {
    let taker: Deno.TcpListener | undefined;
    try {
      taker = Deno.listen({ hostname: "127.0.0.1", port: 9090 });
    } catch (error) {
      if (!(error instanceof Deno.errors.AddrInUse)) throw error; // taken is what this test wants
    }
    const relay = await LoopbackRelay.open("", { prepare: withDefaultAdminPort });
    try {
      assertMatch(
        relay.said,
        /another program listens at 127\.0\.0\.1:9090 .* are at 127\.0\.0\.1:\d+ until/,
      );
      const [, port] = /metrics +http:\/\/127\.0\.0\.1:(\d+)\/metrics/.exec(relay.said)!;
      assert(port !== "9090");
      assertEquals((await relay.ask("/healthz", { port: Number(port), token: "" })).status, 200);
      assertStringIncludes(
        (await relay.run("peer", ["add", "phone"])).stderr,
        "The running relay serves it.",
      );
      assertStringIncludes((await relay.run("status", ["--once"])).stdout, "phone");
      const address = `${relay.directory}/state/admin.address`;
      assertEquals(await Deno.readTextFile(address), `127.0.0.1:${port}\n`);
      assertEquals(await relay.stop("SIGTERM"), 0);
      await Deno.stat(address).then(() => assert(false, "the address of an ended relay stays"), () => {});
      const line = relay.line("serve", []).map((word) => word.replace(/oxrelay\.toml$/, "chosen.toml"));
      const chosen = start(relay.directory, line);
      assertEquals((await chosen.child.status).code, 1);
      await until(
        () => chosen.said.includes("metrics_listen: 127.0.0.1:9090 is taken"),
        "the refusal says why",
      );
    } finally {
      taker?.close();
      await Deno.remove(relay.directory, { recursive: true });
    }
  },
});

relayTest(
  "first minutes: status goes on through a restart of the relay",
  requires({ programs: ["script"] }),
  {},
  async (relay) => {
    assertEquals((await relay.run("peer", ["add", "phone"])).code, 0);
    const status = onTerminal(150, 30, relay.directory, relay.line("status", []));
    try {
      await status.says("phone");
      await relay.stop("SIGTERM");
      await status.says("asked again each second");
      const again = start(relay.directory, relay.line("serve", []));
      try {
        await again.says("listening on");
        const before = status.said.length;
        await until(() => / up \d+s /.test(status.said.slice(before)), "the table is drawn again");
      } finally {
        await again.stop("SIGTERM");
      }
    } finally {
      await status.stop("SIGTERM");
    }
  },
);

Deno.test({
  name: "first minutes: no file with a key is open to others, and no QR code is wider than the terminal",
  ...requires({ programs: ["script", "sh"] }),
  async fn() {
    const relay = await LoopbackRelay.without();
    const { directory } = relay;
    try {
      const modeOf = async (file: string) => (await Deno.stat(`${directory}/${file}`)).mode! & 0o777;
      const endpoint = ["--endpoint", "192.0.2.1:4433"];
      const out = ["add", "laptop", ...endpoint, "--no-dns", "--out", `${directory}/laptop.conf`];
      assertEquals((await relay.run("peer", out)).code, 0);
      assertEquals(await modeOf("laptop.conf"), 0o600);
      const kept = await Deno.readTextFile(`${directory}/laptop.conf`);
      assert(!kept.includes("DNS"), "wg-quick needs no resolvconf");
      const twice = await relay.run("peer", out.with(1, "other"));
      assertMatch(twice.stderr, /laptop\.conf: exists already and is left as it is/);
      assertEquals([twice.code, await Deno.readTextFile(`${directory}/laptop.conf`)], [1, kept]);
      const redirected = ["sh", "-c", `umask 022; exec "$@" > ${directory}/desk.conf`, "sh"];
      const desk = await relay.run("peer", ["add", "desk", ...endpoint], redirected);
      assertStringIncludes(desk.stderr, "its mode is 0600 now");
      assertEquals(await modeOf("desk.conf"), 0o600);
      assertStringIncludes(await Deno.readTextFile(`${directory}/desk.conf`), "DNS = ");

      const narrow = onTerminal(50, 24, directory, relay.line("peer", ["add", "narrow", ...endpoint]));
      assertEquals((await narrow.child.status).code, 0);
      await narrow.says("and this terminal has 50.");
      assertStringIncludes(narrow.said, "PrivateKey = ");
      assert(!/[▀▄█]/.test(narrow.said), "no broken code");
      const wide = onTerminal(100, 24, directory, relay.line("peer", ["add", "wide", ...endpoint]));
      assertEquals((await wide.child.status).code, 0);
      await wide.says("enlarge the window");
      // deno-lint-ignore no-control-regex
      const lines = wide.said.split(/\r?\n/).map((line) => line.replace(/\x1b\[[\d;]*m/g, ""));
      const code = lines.filter((line) => /[▀▄█]/.test(line));
      assert(code.length > 20 && code.every((line) => [...line].length <= 100));
    } finally {
      await Deno.remove(directory, { recursive: true });
    }
  },
});

Deno.test({
  name: "first minutes: a configuration outside the folder is refused with a line that works",
  ...requires({ programs: ["sh"] }),
  async fn() {
    const relay = await LoopbackRelay.without();
    const { directory } = relay;
    const file = `${directory}/oxrelay.toml`;
    await Deno.writeTextFile(file, `state_dir = "${directory}/state"\n${await Deno.readTextFile(file)}`);
    try {
      let line =
        `deno run --no-prompt -P=peer main.ts peer add phone --endpoint 192.0.2.1:4433 --config ${file}`;
      const lines = [line];
      for (;;) {
        const command = `deno() { "$0" "$@"; }; ${line}`;
        const { code, stdout, stderr } = await new Deno.Command("sh", {
          args: ["-c", command, Deno.execPath()],
          cwd: ROOT,
          env: { DENO_NO_UPDATE_CHECK: "1" },
        }).output();
        const said = new TextDecoder().decode(stderr);
        if (code === 0) {
          assertStringIncludes(new TextDecoder().decode(stdout), "[Interface]");
          break;
        }
        const next = /^ {2}(deno run .*)$/m.exec(said)?.[1];
        assert(next !== undefined && !lines.includes(next), `${lines.join("\n")}\n${said}`);
        lines.push(line = next);
      }
      assert(lines.length > 1 && lines.length <= 3, lines.join("\n"));
    } finally {
      await Deno.remove(directory, { recursive: true });
    }
  },
});
