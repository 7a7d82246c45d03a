/**
 * The admin interface of a real relay: who gets in, through a real proxy too; what a reload does to its token; and its end
 * whatever clients do.
 */
import { assert, assertEquals, assertMatch, assertNotEquals, assertStringIncludes } from "@std/assert";
import { requires } from "../kit/requires.ts";
import { freePort, LoopbackRelay, relayTest } from "./loopback_relay.ts";
import { Background, until } from "../kit/namespaces.ts";

relayTest(
  "admin: through a plain proxy of this machine nobody gets in without the token",
  requires({ programs: ["nginx"] }),
  {},
  async (relay) => {
    const port = freePort();
    const { directory } = relay;
    await Deno.writeTextFile(
      `${directory}/nginx.conf`,
      `daemon off; master_process off; pid ${directory}/nginx.pid; error_log stderr;
events {}
http {
  access_log off;
  ${
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((kind) =>
          `${kind}_temp_path ${directory}/${kind};`
        )
          .join("\n  ")
      }
  server { listen 127.0.0.1:${port}; location / { proxy_pass http://127.0.0.1:${relay.adminPort}; } }
}`,
    );
    const nginx = new Background(
      new Deno.Command("nginx", {
        args: ["-p", directory, "-e", "stderr", "-c", `${directory}/nginx.conf`],
        stdin: "null",
        stdout: "piped",
        stderr: "piped",
      }).spawn(),
    );
    try {
      await until(async () => {
        return await relay.ask("/healthz", { port, token: "" }).then(
          ({ status }) => status === 200,
          () => false,
        );
      }, "nginx passes requests on");
      const body = JSON.stringify({ name: "intruder" });
      const post = { method: "POST", body, headers: { "content-type": "application/json" } };
      for (const by of [port, relay.adminPort]) {
        assertEquals((await relay.ask("/v1/peers", { ...post, port: by, token: "" })).status, 401);
        assertEquals((await relay.ask("/v1/status", { port: by, token: "" })).status, 401);
        for (const path of ["/", "/metrics", "/readyz"]) {
          assertEquals((await relay.ask(path, { port: by, token: "" })).status, 200, path);
        }
      }
      assertEquals(JSON.parse((await relay.ask("/v1/peers")).text), []);
      assertEquals((await relay.ask("/v1/peers", { ...post, port })).status, 201, "the operator gets in");
    } finally {
      await nginx.stop("SIGTERM");
    }
  },
);

relayTest(
  "admin: a token is made at the first start, only its owner may read it, and peer and status use it",
  requires({}),
  {},
  async (relay) => {
    const { mode } = await Deno.stat(`${relay.directory}/state/admin.token`);
    assertEquals(mode! & 0o777, 0o600);
    assertMatch(await relay.token(), /^[\w-]{43}$/);
    assert(!relay.said.includes(await relay.token()), "it is not printed");
    const added = await relay.run("peer", ["add", "phone", "--no-qr"]);
    assertEquals(added.code, 0, added.stderr);
    assertStringIncludes(added.stderr, "The running relay serves it.");
    assertStringIncludes((await relay.run("status", ["--once"])).stdout, "phone");
    const presharedKey = "w7mYSzvpyVRzRXBL7wUgT8YWQBVQAySOhwJlQ8rFgUU=";
    const guarded = await relay.ask("/v1/peers", {
      method: "POST",
      body: JSON.stringify({ name: "guarded", presharedKey }),
      headers: { "content-type": "application/json" },
    });
    assertEquals(guarded.status, 201);
    assertEquals(Object.keys(JSON.parse(guarded.text)).sort(), [
      "allowedIps",
      "config",
      "configQr",
      "created",
      "invitation",
      "invitationQr",
      "name",
      "note",
      "privateKey",
      "publicKey",
    ]);
    assertStringIncludes(await Deno.readTextFile(`${relay.directory}/state/peers.json`), presharedKey);
    assertEquals((await relay.run("peer", ["remove", "guarded"])).code, 0);
    const removed = await relay.run("peer", ["remove", "phone"]);
    assertEquals([removed.code, removed.stderr], [0, 'Peer "phone" is removed, and its session cut.\n']);
    assertEquals(JSON.parse((await relay.ask("/v1/peers")).text), []);
  },
);

relayTest("admin: a reload takes over another admin_token, and one that was removed", requires({}), {
  config: 'admin_token = "the-first-of-the-tokens"\n',
}, async (relay) => {
  const file = `${relay.directory}/oxrelay.toml`;
  const config = await Deno.readTextFile(file);
  const status = async (token: string) => (await relay.ask("/v1/status", { token })).status;
  assertEquals(await status("the-first-of-the-tokens"), 200);
  await Deno.writeTextFile(file, config.replace("the-first", "the-second"));
  relay.kill("SIGHUP");
  await until(async () => await status("the-second-of-the-tokens") === 200, "the second token holds");
  assertEquals(await status("the-first-of-the-tokens"), 401);
  await Deno.writeTextFile(file, config.replace(/^admin_token.*\n/m, ""));
  relay.kill("SIGHUP");
  await until(async () => await status("the-second-of-the-tokens") === 401, "the second token is gone");
  assertEquals(await status(await relay.token()), 200, "and one was made");
  const first = await relay.token();
  await Deno.remove(`${relay.directory}/state/admin.token`);
  relay.kill("SIGHUP");
  await until(async () => await status(first) === 401, "a file that was removed ends its token");
  assertNotEquals(await relay.token(), first);
});

/** Opens connections that send their text and read nothing. */
function linger(port: number, texts: string[]): Promise<Deno.TcpConn[]> {
  return Promise.all(texts.map(async (text) => {
    const connection = await Deno.connect({ hostname: "127.0.0.1", port });
    await connection.write(new TextEncoder().encode(text));
    return connection;
  }));
}

Deno.test({
  name: "admin: SIGTERM ends the relay soon, whatever its HTTP clients do",
  ...requires({}),
  sanitizeResources: false,
  sanitizeOps: false,
  async fn() {
    const relay = await LoopbackRelay.open();
    const ask = (path: string) =>
      `GET ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer ${token}\r\n\r\n`;
    const token = await relay.token();
    const clients = await linger(relay.adminPort, [
      "", // silent
      "GET /metr", // half a request
      "POST /v1/peers HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 9000\r\n\r\n{", // half a body
      ask("/healthz"), // kept alive
      ask("/metrics").repeat(400), // megabytes of answers, none of them read
      "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ]);
    assertEquals((await relay.ask("/healthz")).status, 200);
    // A relay that waits for its clients does not end by itself, and stop kills it.
    assertEquals(await relay.stop("SIGTERM"), 0, relay.said);
    assertStringIncludes(relay.said, "stopped");
    for (const client of clients) client.close();
    await Deno.remove(relay.directory, { recursive: true });
  },
});
