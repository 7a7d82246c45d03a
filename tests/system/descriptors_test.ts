/**
 * A relay that is short of file descriptors: by a low limit from the start, and by one that falls below what it has open,
 * so that whatever it opens fails with EMFILE until the limit rises again.
 */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { fallbackShare, shareDescriptors } from "../../src/serve/descriptors.ts";
import { openLibrary } from "../../ffi/mod.ts";
import { makeCertificate } from "../kit/certificate.ts";
import { requires } from "../kit/requires.ts";
import { freePort, type LoopbackRelay, relayTest } from "./loopback_relay.ts";
import { Background, pause, taskFlags, until } from "../kit/namespaces.ts";

const needs = requires({ programs: ["prlimit"] });
const fallbackPort = freePort();
const sockets = openLibrary(`/lib/${Deno.build.arch}-linux-gnu/libc.so.6`, {
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  connect: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
});

function connections(relay: LoopbackRelay, count: number): Promise<Deno.TcpConn[]> {
  return Promise.all(
    Array.from({ length: count }, () => Deno.connect({ hostname: "127.0.0.1", port: relay.adminPort })),
  );
}

async function healthy(relay: LoopbackRelay): Promise<boolean> {
  const asked = relay.ask("/healthz", { token: "", signal: AbortSignal.timeout(2000) });
  return await asked.then(({ status }) => status === 200, () => false);
}

for (const descriptors of [64, 256]) {
  relayTest(
    `descriptors: with ${descriptors} of them idle admin connections shut nobody out and end nothing`,
    needs,
    { before: ["prlimit", `--nofile=${descriptors}`] },
    async (relay) => {
      const idle = await connections(relay, 2 * descriptors);
      await until(() => healthy(relay), "health is told while others idle");
      const added = await relay.run("peer", ["add", "phone", "--no-qr"]);
      assertEquals(added.code, 0, added.stderr);
      assertStringIncludes(added.stderr, "The running relay serves it.");
      for (const connection of idle) connection.close();
      assertEquals(await relay.stop("SIGTERM"), 0, relay.said);
      assert(!/EMFILE|os error|failed/.test(relay.said), relay.said);
    },
  );
}

/** Opens a TCP connection to a port of loopback from an address of it, and says nothing on it; returns its descriptor. */
function connectFrom(last: number, port: number): number {
  const address = (last: number, port: number) =>
    Uint8Array.of(2, 0, port >> 8, port & 255, 127, 0, 0, last, 0, 0, 0, 0, 0, 0, 0, 0); // sockaddr_in
  const fd = sockets.socket(2, 1, 0);
  assert(fd >= 0 && sockets.bind(fd, address(last, 0), 16) === 0);
  assertEquals(sockets.connect(fd, address(1, port), 16), 0);
  return fd;
}

relayTest(
  "descriptors: with 256 of them idle connections of many sources to the fallback leave enough for the rest",
  requires({ programs: ["prlimit", "openssl"] }),
  {
    before: ["prlimit", "--nofile=256"],
    prepare: async (directory) => {
      const { certificate, privateKey } = await makeCertificate(directory, "relay.test");
      await Deno.writeTextFile(
        `${directory}/oxrelay.toml`,
        `[fallback]\nlisten = "127.0.0.1:${fallbackPort}"\ncertificate = "${certificate}"\n` +
          `private_key = "${privateKey}"\n`,
        { append: true },
      );
    },
  },
  async (relay) => {
    const idle = Array.from({ length: 300 }, (_, i) => connectFrom(2 + (i >> 1), fallbackPort));
    try {
      await until(() => healthy(relay), "health is told while others idle");
      const added = await relay.run("peer", ["add", "phone", "--no-qr"]);
      assertStringIncludes(added.stderr, "The running relay serves it.");
      assert(!/EMFILE|os error/.test(relay.said), relay.said);
    } finally {
      for (const fd of idle) sockets.close(fd);
    }
  },
);

/** Sets what a running process may open from now on; what it has open stays. */
async function limit(pid: number, descriptors: number): Promise<void> {
  const { success, stderr } = await new Deno.Command("prlimit", {
    args: ["--pid", String(pid), `--nofile=${descriptors}:`],
  }).output();
  assert(success, new TextDecoder().decode(stderr));
}

relayTest(
  "descriptors: timers, Workers and listeners outlive a time without any",
  needs,
  { config: "workers = 2\n" },
  async (relay) => {
    assert(await healthy(relay));
    await limit(relay.pid, 10);
    const waiting = await connections(relay, 20);
    relay.kill("SIGHUP");
    // The longest of the Workers' timers has its turn each 5 s.
    await relay.says("the addresses known as this host's own stay as they were");
    await relay.says("reload refused: ");
    await limit(relay.pid, 4096);
    await until(() => healthy(relay), "health is told again");
    for (const connection of waiting) connection.close();
    relay.kill("SIGHUP");
    await relay.says("reloaded: 0 peers");
    await pause(1000); // a Worker that died is started again after 500 ms
    assert(await healthy(relay));
    assert(!relay.said.includes("it is started again"), relay.said);
    assertEquals(await relay.stop("SIGTERM"), 0, relay.said);
  },
);

relayTest(
  "descriptors: connect and its SOCKS listener outlive a time without any",
  requires({ programs: ["prlimit", "curl", "sh"] }),
  { config: "[destinations]\nallow_loopback = true\n" },
  async (relay) => {
    const invitation = await relay.run("peer", [
      "add",
      "--oxtunnel",
      "laptop",
      "--no-qr",
      "--endpoint",
      `127.0.0.1:${relay.port}`,
    ]);
    const file = `${relay.directory}/laptop`;
    await Deno.writeTextFile(file, invitation.stdout);
    const port = freePort();
    const main = new URL("../../main.ts", import.meta.url).pathname;
    const client = new Background(
      new Deno.Command("sh", {
        args: [
          ...["-c", `exec "$@" < ${file}`, "sh", Deno.execPath(), ...taskFlags("connect", relay.directory)],
          ...[main, "connect", "--socks", String(port)],
        ],
        cwd: new URL("../..", import.meta.url).pathname,
        env: { DENO_NO_UPDATE_CHECK: "1" },
        stdin: "null",
        stdout: "piped",
        stderr: "piped",
      }).spawn(),
    );
    /** Whether a program gets through proxy and tunnel to the relay's own loopback. */
    const carries = async () => {
      const { stdout } = await new Deno.Command("curl", {
        args: [
          ...["-s", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", "--socks5", `127.0.0.1:${port}`],
          `http://127.0.0.1:${relay.adminPort}/healthz`,
        ],
      }).output();
      return new TextDecoder().decode(stdout) === "200";
    };
    try {
      await until(carries, "the tunnel carries");
      const { pid } = client.child;
      await limit(pid, 10);
      const waiting = await Promise.all(
        Array.from({ length: 30 }, () => Deno.connect({ hostname: "127.0.0.1", port })),
      );
      await pause(3000); // the link is looked after several times a second
      await limit(pid, 4096);
      for (const connection of waiting) connection.close();
      await until(carries, "the tunnel carries again");
      assertEquals(await client.stop("SIGTERM"), 0, client.said);
    } finally {
      await client.stop("SIGKILL");
    }
  },
);

Deno.test("descriptors: what the outside may have opened never adds up to more than there are", () => {
  for (const limit of [64, 256, 1024, 4096, 1 << 20]) {
    for (const workers of [1, 2, 16]) {
      for (const hasFallback of [false, true]) {
        const open = 40;
        const { adminConnections, flowsOfWorker, isTight } = shareDescriptors({
          limit,
          open,
          workers,
          hasFallback,
        });
        assert(adminConnections >= 4 && flowsOfWorker >= 4);
        const sum = open + adminConnections + 2 * workers * flowsOfWorker +
          (hasFallback ? fallbackShare(limit) : 0);
        if (!isTight) assert(sum <= limit, `${limit} ${workers} ${hasFallback}: ${sum}`);
        if (limit >= 1024) assert(!isTight && flowsOfWorker > 8, `${limit} ${workers} ${hasFallback}`);
      }
    }
  }
});
