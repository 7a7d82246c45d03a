/**
 * `connect` and `peer add --oxtunnel` as commands, with the permissions of their tasks: what is refused, and in which
 * words. No tunnel is made.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import project from "../../deno.json" with { type: "json" };
import { readRepair } from "../../src/connect/options.ts";
import { parseInvitation } from "../../src/connect/invitation.ts";
import { renderQr } from "../../src/cli/qr.ts";
import { DEFAULTS } from "../../src/config.ts";

const ROOT = new URL("../..", import.meta.url).pathname;

/** Runs a task's command, which may read and write `directory` too. */
async function run(task: "connect" | "peer", args: string[], directory: string, stdin = "") {
  const words = project.tasks[task].split(" ");
  const flags = words.slice(1, words.indexOf("main.ts")).concat(
    `--allow-read=${ROOT},${directory}`,
    ...("write" in project.permissions[task] ? [`--allow-write=${ROOT},${directory}`] : []),
  );
  const child = new Deno.Command(Deno.execPath(), {
    args: [...flags, `${ROOT}main.ts`, task, ...args],
    cwd: ROOT,
    env: { OXRELAY_STATE_DIR: `${directory}/state` },
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(stdin)).catch(() => {});
  await writer.close().catch(() => {});
  const { code, stdout, stderr } = await child.output();
  const text = new TextDecoder();
  return { code, stdout: text.decode(stdout), stderr: text.decode(stderr) };
}

async function inDirectory(action: (directory: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir({ prefix: "oxrelay-connect-" });
  try {
    // A port that nobody uses, so that a relay on this machine is left in peace.
    const probe = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const { port } = probe.addr as Deno.NetAddr;
    probe.close();
    await Deno.writeTextFile(`${directory}/oxrelay.toml`, `metrics_listen = "127.0.0.1:${port}"\n`);
    await action(directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

Deno.test("connect: peer add prints an invitation that says what the config says", async () => {
  await inDirectory(async (directory) => {
    const add = [
      "add",
      "laptop",
      "--endpoint",
      "[2001:db8::1]:4433",
      "--config",
      `${directory}/oxrelay.toml`,
    ];
    const { code, stdout, stderr } = await run("peer", [...add, "--psk", "--oxtunnel"], directory);
    assertEquals(code, 0, stderr);
    assertMatch(stdout, /^oxrelay:\/\/\[2001:db8::1\]:4433\?\S+\n$/);
    const { privateKey, presharedKey, ...rest } = parseInvitation(stdout, "x");
    assertEquals(rest.endpoint, { host: "2001:db8::1", port: 4433 });
    assertEquals(rest.addresses[0], "10.66.0.2/32");
    assertEquals([rest.mtu, rest.keepaliveS, rest.dns[0]], [1420, 25, "1.1.1.1"]);
    const stored = await Deno.readTextFile(`${directory}/state/peers.json`);
    assert(stored.includes(presharedKey!) && !stored.includes(privateKey));
    const seen = await run("peer", [...add.with(1, "seen"), "--oxtunnel", "--qr"], directory);
    const [line, ...drawn] = seen.stdout.split("\n");
    assertEquals(drawn.join("\n").trim(), renderQr(line), "the code says what the line says");
    const both = ["--endpoint", "a.example.com:1,b.example.com:2"];
    const several = await run("peer", [...add.with(1, "several"), ...both, "--oxtunnel"], directory);
    assertEquals(several.code, 0, several.stderr);
    const { endpoint, otherEndpoints } = parseInvitation(several.stdout, "x");
    assertEquals([endpoint, ...otherEndpoints!].map(({ host }) => host), [
      "2001:db8::1",
      "a.example.com",
      "b.example.com",
    ]);
    const config = await run("peer", [...add.with(1, "config"), ...both], directory);
    assertEquals(config.code, 2);
    assertMatch(config.stderr, /several --endpoint need --oxtunnel: a WireGuard config names one relay/);
    const wrong = await run(
      "peer",
      [...add.with(1, "wrong"), "--endpoint", "a.example.com", "--oxtunnel"],
      directory,
    );
    assertMatch(wrong.stderr, /--endpoint: expected "host:port"/);
    const key = rest.relayPublicKey;
    const refused = await run("peer", ["add", "b", "--oxtunnel", "--public-key", key], directory);
    assertEquals(refused.code, 2);
    assertMatch(refused.stderr, /--oxtunnel's line holds the private key/);
  });
});

Deno.test("connect: wrong command lines and files say what to do", async () => {
  await inDirectory(async (directory) => {
    const file = `${directory}/a.conf`;
    await Deno.writeTextFile(file, "[Interface]\nPrivateKey = oops\n");
    const cases: [args: string[], stdin: string, code: number, message: RegExp][] = [
      [["--servr", "x:1"], "", 2, /did you mean --server\?/],
      [["--server", "a b"], "", 2, /--server: expected "host:port"/],
      [["--server", "a:1,,b:1"], "", 2, /--server: expected "host:port"/],
      [["--server", ""], "", 2, /--server needs a value/],
      [["--include", "10.0.0.0/33"], "", 2, /--include: "10\.0\.0\.0\/33" is no prefix such as/],
      [["--trusted", "0.0.0.0/0"], "", 2, /--trusted: 0\.0\.0\.0\/0 is too wide; the smallest prefix is \/8/],
      [["--trusted", "here"], "", 2, /--trusted: "here" is no prefix such as/],
      [["--repair", "lots"], "", 2, /--repair: expected words such as budget_percent=50, found "lots"/],
      [["--repair", "budget_percent=500"], "", 1, /--repair: repair\.budget_percent: .*500/],
      [["--repair", "budget=5"], "", 1, /--repair: .*budget_percent/],
      [["--repair", "budget_percent=5", "--no-repair"], "", 2, /--repair and --no-repair exclude each other/],
      [["--only-user", "nobody-of-this-name"], "", 2, /there is no user "nobody-of-this-name" here/],
      [["--only-user", "0", "--only-cgroup", "a"], "", 2, /exclude each other/],
      [["--only-cgroup", 'a"b'], "", 2, /--only-cgroup: expected a path/],
      [["--priority", "app=csgo"], "", 2, /such as app=csgo:game, found "app=csgo"/],
      [["--protocol", "udp"], "", 2, /--protocol: expected "oxtunnel" or "wireguard"/],
      [["nonsense"], "", 2, /expected an invitation oxrelay:\/\/…/],
      [[], "", 1, /there is no oxrelay-connect\.conf and no invitation/],
      [[], "oxrelay://a", 1, /the invitation is cut off/],
      [["--config", `${directory}/none.conf`], "", 1, /there is no such file; it is named by --config/],
      [["--config", file], "", 1, /a\.conf: PrivateKey: is not a whole key/],
      [
        ["--config", "/etc/hostname"],
        "",
        1,
        /reads its own folder only; .* deno task connect < \/etc\/hostname/,
      ],
    ];
    const lines = await Promise.all(cases.map(([args, stdin]) => run("connect", args, directory, stdin)));
    for (const [i, [args, , code, message]] of cases.entries()) {
      assertMatch(lines[i].stderr, message, args.join(" "));
      assertEquals([lines[i].code, lines[i].stdout], [code, ""], args.join(" "));
    }
    const good = (await run("peer", [
      ...["add", "--oxtunnel", "laptop", "--endpoint", "192.0.2.1:4433"],
      ...["--config", `${directory}/oxrelay.toml`],
    ], directory)).stdout;
    const doors: [args: string[], message: RegExp][] = [
      [["--socks", "0.0.0.0:1080"], /--socks: expected a port such as 1080, or a loopback address/],
      [["--socks", "127.example.com:1080"], /--socks: expected/],
      [["--socks", "99999"], /--socks: expected/],
      [["-L", "80:host"], /-L: expected "port:host:port"/],
      [["-L", "0:host:1"], /-L: expected/],
      [["--socks", "1080", "--kill-switch"], /--kill-switch is of the device/],
    ];
    const several = [
      "--server",
      "192.0.2.1:1,192.0.2.2:1",
      "--server",
      "192.0.2.3",
      "--protocol",
      "wireguard",
    ];
    doors.push([several, /several --server are relays of one key/]);
    for (const [args, message] of doors) {
      const { code, stderr } = await run("connect", args, directory, good);
      assertMatch(stderr, message);
      assertEquals(code, 2, args.join(" "));
      assert(!stderr.includes(good.slice(30, 60)), "the invitation is in an error");
    }
    const help = await run("connect", ["--help"], directory);
    assertEquals(help.code, 0);
    assertMatch(help.stdout, /^ {2}--kill-switch /m);
  });
});

Deno.test("connect: --repair says what a relay's [repair] says", () => {
  assertEquals(readRepair(undefined, false), DEFAULTS.repair);
  assertEquals(readRepair("budget_percent=50,voice_deadline_ms=80", false), {
    ...DEFAULTS.repair,
    budgetPercent: 50,
    voiceDeadlineMs: 80,
  });
  assertEquals(readRepair("enabled=false", false), readRepair(undefined, true));
});

Deno.test("connect: wrong paths are named with what to say", async () => {
  await inDirectory(async (directory) => {
    const cases: [args: string[], message: RegExp][] = [
      [["--redundant", "game"], /--redundant is of several paths; add --paths auto/],
      [["--metered", "wwan0"], /--metered is of several paths; add --paths auto/],
      [["--paths", "eth0,../x"], /--paths: expected names of interfaces .*found "\.\.\/x"; see: ip -br link/],
      [["--paths", "eth0,eth0"], /--paths: expected names of interfaces .* each once/],
      [["--paths", "a,b,c,d,e"], /--paths: at most 4, found 5/],
      [["--paths", "a,b", "--metered", "c"], /--metered: c is not among --paths a,b/],
      [["--paths", "auto", "--redundant", "bulk"], /--redundant: expected classes of .*found "bulk"/],
    ];
    for (const [args, message] of cases) {
      const { code, stderr } = await run("connect", args, directory);
      assertEquals(code, 2, args.join(" "));
      assertMatch(stderr, message);
    }
  });
});
