/**
 * The admin interface, every route over a real listener on loopback; and the log lines.
 * Long because all routes are asked of one made-up relay.
 */
import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { configureSync, getLogger, type LogRecord, resetSync } from "@logtape/logtape";
import { createHmac } from "node:crypto";
import { connect } from "node:net";
import { BODY_BYTES_MAX, createAdmin } from "../../src/admin/mod.ts";
import { serveAdmin } from "../../src/admin/server.ts";
import { redactAddress, setupLogging, sparingWarning } from "../../src/process/logging.ts";
import { ConfigError } from "../../src/config.ts";
import { CLASS_BULK, CLASS_GAME } from "../../src/control/traffic_class.ts";
import {
  CLASS_FROM_TUNNEL_AT,
  CLASS_TO_TUNNEL_AT,
  COUNTER_NAMES,
  DROP,
  DROP_REASONS,
} from "../../src/metrics.ts";
import { requires } from "../kit/requires.ts";
import { KEY, relay, TOKEN, withAdmin } from "../kit/admin_relay.ts";

const post = (body: string, type = "application/json") => ({
  method: "POST",
  body,
  headers: { "content-type": type },
});

/** The status line of a request with any header at all; `fetch` sets Host itself. */
function rawStatus(port: number, lines: string[]): Promise<number> {
  return new Promise((resolve, reject) => {
    let answer = "";
    const socket = connect(port, "127.0.0.1", () => {
      socket.write([...lines, "Connection: close", "", ""].join("\r\n"));
    });
    socket.setEncoding("latin1");
    socket.on("data", (text: string) => answer += text);
    socket.on("error", reject);
    socket.on("close", () => resolve(Number(answer.match(/^HTTP\/1\.1 (\d+)/)?.[1])));
  });
}

Deno.test("admin: metrics are summed over workers, in base units, and complete", async () => {
  const deps = relay();
  deps.metrics[0].add("bytes_received", 1000);
  deps.metrics[1].add("bytes_received", 24);
  deps.metrics[1].drop(DROP.forged);
  deps.metrics[0].set("connections", 3);
  deps.metrics[0].column[CLASS_TO_TUNNEL_AT + 2 * CLASS_GAME] = 3;
  deps.metrics[1].column[CLASS_TO_TUNNEL_AT + 2 * CLASS_GAME] = 4;
  deps.metrics[1].column[CLASS_FROM_TUNNEL_AT + 2 * CLASS_BULK + 1] = 1400;
  deps.metrics.slice(0, 2).forEach((metrics, i) => {
    metrics.add("held_us", 1500 - 1000 * i);
    metrics.set("held_us_max", 400 + 500 * i);
    metrics.waited(1, 300 + 1000 * i, 1);
    metrics.processed(60, 3);
    metrics.set("receiving_window", 2 + i);
    metrics.add("headers_kept_changed", 2 + i);
  });
  await withAdmin(deps, async (ask) => {
    const { status, headers, text } = await ask("/metrics");
    assertEquals(status, 200);
    assertMatch(headers.get("content-type")!, /^text\/plain; version=0\.0\.4/);
    assertMatch(text, /^oxrelay_received_bytes_total 1024$/m);
    assertMatch(text, /^oxrelay_connections 3$/m);
    assertMatch(text, /^oxrelay_held_seconds_total 0\.002$/m);
    assertMatch(text, /^oxrelay_held_seconds_max 0\.0009$/m, "the longest of all, not their sum");
    assertMatch(text, /^oxrelay_dropped_packets_total\{reason="forged"\} 1$/m);
    assertMatch(text, /^oxrelay_build_info\{version="1\.2\.3",exit="userspace"\} 1$/m);
    assert(Number(text.match(/^oxrelay_process_resident_memory_bytes (\d+)$/m)![1]) > 1 << 20);
    assert(Number(text.match(/^oxrelay_process_cpu_seconds_total ([\d.]+)$/m)![1]) > 0);
    assertEquals(text.match(/^oxrelay_dropped_packets_total\{/gm)!.length, DROP_REASONS.length);
    assertMatch(text, /^oxrelay_class_packets_total\{class="game",direction="to_tunnel"\} 7$/m);
    assertMatch(text, /^oxrelay_class_bytes_total\{class="bulk",direction="from_tunnel"\} 1400$/m);
    assertEquals(text.match(/^oxrelay_class_(packets|bytes)_total\{/gm)!.length, 20);
    // Two Workers, one packet each: 0.3 ms and 1.3 ms.
    assertMatch(text, /^oxrelay_queue_wait_seconds_bucket\{class="game",le="0\.00025"\} 0$/m);
    assertMatch(text, /^oxrelay_queue_wait_seconds_bucket\{class="game",le="0\.0005"\} 1$/m);
    assertMatch(text, /^oxrelay_queue_wait_seconds_bucket\{class="game",le="\+Inf"\} 2$/m);
    assertMatch(text, /^oxrelay_queue_wait_seconds_sum\{class="game"\} 0\.0016$/m);
    assertMatch(text, /^oxrelay_queue_wait_seconds_count\{class="game"\} 2$/m);
    assertMatch(text, /^oxrelay_processing_seconds_bucket\{le="0\.00005"\} 0$/m);
    assertMatch(text, /^oxrelay_processing_seconds_bucket\{le="0\.0001"\} 6$/m);
    assertMatch(text, /^oxrelay_processing_seconds_sum 0\.00036$/m);
    // Build info, drops, two of classes, waits, processing, four of rollouts, recognised flows, six of devices and three of the process
    // besides one family per counter, and one each for twelve and for seven of them.
    assertEquals(text.match(/^# TYPE oxrelay_/gm)!.length, COUNTER_NAMES.length + 20 + 2 - 12 - 7);
    assertMatch(text, /^oxrelay_headers_kept_packets_total\{reason="changed"\} 5$/m);
    assertEquals(text.match(/^oxrelay_device_/m), null, "devices are nobody's business");
    assertEquals(text.match(/^oxrelay_recognised_flows/m), null, "what is recognised is nobody's business");
    assertMatch(text, /^oxrelay_repairing_sessions\{direction="receiving",scheme="window"\} 5$/m);
    assertMatch(text, /^oxrelay_repairing_sessions\{direction="sending",scheme="none"\} 0$/m);
    assertEquals(text.match(/^(?!#|oxrelay_).+$/m), null);
    deps.metrics[0].add("bytes_received", 1);
    assertMatch((await ask("/metrics")).text, /^oxrelay_received_bytes_total 1025$/m);
  });
});

Deno.test("admin: a peer for another relay's networks is refused, and stored by who asked", async () => {
  const deps = relay();
  await withAdmin(deps, async (ask) => {
    const add = (body: unknown) =>
      ask("/v1/peers", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(body),
      });
    const other = await add({ name: "phone", network: "another's" });
    assertEquals([other.status, other.json.error.field, deps.records.length], [400, "network", 0]);
    assertEquals((await add({ name: "phone", network: "this relay's" })).status, 201);
  });
});

Deno.test("admin: metrics name the applications that flows are recognised as where the config says so", async () => {
  await withAdmin(relay({ applicationsInMetrics: () => true }), async (ask) => {
    const { text } = await ask("/metrics");
    assertMatch(text, /^oxrelay_recognised_flows\{application="zoom"\} 1$/m);
    assertMatch(text, /^oxrelay_recognised_flows\{application="quic"\} 12$/m);
  });
});

Deno.test({
  name: "admin: promtool finds no fault with the metrics",
  ...requires({ programs: ["promtool"] }),
  fn: () =>
    withAdmin(relay(), async (ask) => {
      const process = new Deno.Command("promtool", {
        args: ["check", "metrics"],
        stdin: "piped",
        stdout: "piped",
        stderr: "piped",
      }).spawn();
      const input = process.stdin.getWriter();
      await input.write(new TextEncoder().encode((await ask("/metrics")).text));
      await input.close();
      const { code, stdout, stderr } = await process.output();
      const decoder = new TextDecoder();
      assertEquals({ code, said: decoder.decode(stdout) + decoder.decode(stderr) }, { code: 0, said: "" });
    }),
});

Deno.test("admin: health and readiness are what the relay says, without a token", async () => {
  const deps = relay({
    adminToken: () => TOKEN,
    url: () => "http://127.0.0.1:9090",
    health: () => ({ ok: false, reasons: ["worker 0 stalled for 3 s"] }),
  });
  await withAdmin(deps, async (ask) => {
    const health = await ask("/healthz", { headers: { authorization: "" } });
    assertEquals([health.status, health.json], [503, { ok: false, reasons: ["worker 0 stalled for 3 s"] }]);
    const ready = await ask("/readyz", { headers: { authorization: "" } });
    assertEquals([ready.status, ready.json], [200, { ok: true, reasons: [] }]);
  });
});

Deno.test("admin: status, sessions, config and reload answer what the relay gives", async () => {
  const deps = relay();
  deps.metrics[1].add("datagrams_sent", 7);
  deps.metrics[0].drop(DROP.denied);
  await withAdmin(deps, async (ask) => {
    const { json } = await ask("/v1/status");
    assertEquals(json.applications, { zoom: 1, quic: 12 });
    const queue = { p50Ms: 0.0025, p99Ms: 0.0025 };
    assertEquals(json.latency, { queue, queueByClass: { game: queue } });
    assertEquals([json.name, json.version, json.exit, json.listen], [
      "oxrelay",
      "1.2.3",
      "userspace",
      "[::]:4433",
    ]);
    assert(json.uptimeS >= 5 && json.uptimeS < 60);
    assertEquals(json.startedAt, undefined);
    assertEquals(json.counters.datagrams_sent, 7);
    assertEquals(Object.keys(json.counters), [...COUNTER_NAMES]);
    assertEquals([json.drops.denied, json.drops.forged], [1, 0]);
    assertEquals(json.peers, []);
    assertEquals((await ask("/v1/sessions")).json, []);
    assertEquals((await ask("/v1/config")).json, { mtu: 1420, admin_token: "(set)" });
    assertEquals((await ask("/v1/reload", { method: "POST" })).json, await deps.reload());
    assertEquals((await ask("/v1/reload")).status, 404);
  });
});

Deno.test("admin: peers are added, listed and removed; what is wrong is named", async () => {
  const deps = relay();
  await withAdmin(deps, async (ask) => {
    const added = await ask("/v1/peers", post(JSON.stringify({ name: "phone", publicKey: KEY })));
    assertEquals([added.status, added.json.name, added.json.publicKey], [201, "phone", KEY]);
    assertEquals((await ask("/v1/peers")).json[0].name, "phone");
    const guarded = { name: "desk", publicKey: KEY, presharedKey: KEY, rateDownBps: 50e6, rateUpBps: 64_000 };
    assertEquals((await ask("/v1/peers", post(JSON.stringify(guarded)))).status, 201);
    const { presharedKey, rateDownBps, rateUpBps } = deps.records.pop()!;
    assertEquals([presharedKey, rateDownBps, rateUpBps], [KEY, 50e6, 64_000]);

    const mistakes: [body: string, status: number, field: string][] = [
      [JSON.stringify({ name: "phone" }), 409, "name"],
      [JSON.stringify({ name: "a b" }), 400, "name"],
      [JSON.stringify({ name: "" }), 400, "name"],
      [JSON.stringify({ name: "x".repeat(64) }), 400, "name"],
      [JSON.stringify({ name: 7 }), 400, "name"],
      [JSON.stringify({}), 400, "name"],
      [JSON.stringify({ name: "x", publicKey: "short" }), 400, "publicKey"],
      [JSON.stringify({ name: "x", publicKey: KEY.replace("U=", "V=") }), 400, "publicKey"],
      [JSON.stringify({ name: "x", presharedKey: "short" }), 400, "presharedKey"],
      [JSON.stringify({ name: "x", rateDownBps: 63_999 }), 400, "rateDownBps"],
      [JSON.stringify({ name: "x", rateUpBps: "9M" }), 400, "rateUpBps"],
      [JSON.stringify({ name: "x", pubKey: KEY }), 400, "pubKey"],
      ["[]", 400, "name"],
      ["7", 400, "body"],
      ["{", 400, "body"],
      [JSON.stringify({ name: "x".repeat(BODY_BYTES_MAX) }), 413, "body"],
    ];
    for (const [body, status, field] of mistakes) {
      const answer = await ask("/v1/peers", post(body));
      assertEquals([answer.status, answer.json?.error?.field], [status, field], body.slice(0, 80));
      assert(answer.json.error.message.length > 10);
    }
    const form = await ask("/v1/peers", post("name=x", "text/plain"));
    assertEquals([form.status, form.json.error.field], [415, "Content-Type"]);
    // A body whose length is not announced is bounded as well.
    const chunks = ReadableStream.from(
      Array.from({ length: 64 }, () => new TextEncoder().encode(" ".repeat(1024))),
    );
    const headers = { "content-type": "application/json" };
    assertEquals((await ask("/v1/peers", { method: "POST", body: chunks, headers })).status, 413);
    assertEquals(deps.records.map(({ name }) => name), ["phone"]);

    assertEquals((await ask("/v1/peers/a%20b", { method: "DELETE" })).json.error.field, "name");
    const gone = await ask("/v1/peers/nobody", { method: "DELETE" });
    assertEquals([gone.status, gone.json.error.field], [404, "name"]);
    assertEquals((await ask("/v1/peers/phone", { method: "DELETE" })).status, 204);
    assertEquals(deps.records, []);
  });
});

const GUARDED: [method: string, path: string][] = [
  ["GET", "/v1/status"],
  ["GET", "/v1/peers"],
  ["POST", "/v1/peers"],
  ["DELETE", "/v1/peers/phone"],
  ["POST", "/v1/peers/phone/ping"],
  ["GET", "/v1/sessions"],
  ["GET", "/v1/config"],
  ["POST", "/v1/reload"],
  ["GET", "/v1/no-such-route"],
];

Deno.test("admin: forwards are added and removed; what is wrong is named", async () => {
  const deps = relay();
  await withAdmin(deps, async (ask) => {
    await ask("/v1/peers", post(JSON.stringify({ name: "phone" })));
    const add = (body: unknown, name = "phone") =>
      ask(`/v1/peers/${name}/forwards`, post(JSON.stringify(body)));
    const added = await add({ forwards: ["udp:1"] });
    assertEquals([added.status, added.json.forwards], [201, ["udp:1"]]);
    for (
      const [body, name, status, field] of [
        [{ forwards: ["udp:22"] }, "phone", 409, "forwards"],
        [{ forwards: [] }, "phone", 400, "forwards"],
        [{ forwards: "udp:1" }, "phone", 400, "forwards"],
        [{ ports: [] }, "phone", 400, "forwards"],
        [{ forwards: ["udp:1"] }, "nobody", 404, "name"],
      ] as const
    ) {
      const { status: got, json } = await add(body, name);
      assertEquals([got, json.error.field], [status, field], JSON.stringify(body));
    }
    const remove = async (forward: string) =>
      (await ask(`/v1/peers/phone/forwards/${encodeURIComponent(forward)}`, { method: "DELETE" })).status;
    assertEquals([await remove("udp:1"), await remove("udp:2")], [204, 404]);
  });
});

Deno.test("admin: everything under /v1 needs the token, even from loopback", async () => {
  let token = TOKEN;
  const deps = relay({
    adminToken: () => token,
    reload: () => Promise.reject(new Error("must not be called")),
  });
  await withAdmin(deps, async (ask) => {
    for (const [method, path] of GUARDED) {
      const refused = [
        "",
        TOKEN,
        `Bearer ${TOKEN}x`,
        `Bearer ${TOKEN.slice(1)}`,
        "Bearer ",
        `Basic ${TOKEN}`,
      ];
      for (const authorization of refused) {
        const answer = await ask(path, { method, headers: { authorization } });
        assertEquals([answer.status, answer.json.error.field], [401, "Authorization"], `${method} ${path}`);
        assertMatch(answer.headers.get("www-authenticate")!, /^Bearer/);
        assert(!answer.text.includes(TOKEN));
      }
    }
    const headers = { authorization: `Bearer ${TOKEN}` };
    assertEquals((await ask("/v1/status", { headers })).status, 200);
    token = "another-token-after-a-reload";
    assertEquals((await ask("/v1/status", { headers })).status, 401);
  });
});

Deno.test("admin: a request without the token gets nothing, whatever address and name it comes by", async () => {
  await withAdmin(relay(), async (ask, port) => {
    for (const host of ["localhost", `127.0.0.1:${port}`, `[::1]:${port}`, "attacker.example"]) {
      assertEquals(await rawStatus(port, ["GET /v1/status HTTP/1.1", `Host: ${host}`]), 401, host);
    }
    const authorization = `Authorization: Bearer ${TOKEN}`;
    for (const [method, path] of GUARDED) {
      for (const origin of ["https://attacker.example", "null", "http://127.0.0.1:1"]) {
        const lines = [
          `${method} ${path} HTTP/1.1`,
          `Host: 127.0.0.1:${port}`,
          `Origin: ${origin}`,
          authorization,
        ];
        assertEquals(await rawStatus(port, lines), 403, `${method} ${path} from ${origin}`);
      }
    }
    const own = { origin: `http://127.0.0.1:${port}` };
    assertEquals((await ask("/v1/reload", { method: "POST", headers: own })).status, 200);
  });
});

Deno.test("admin: hello proves to know the token, for one nonce and one address, and tells nothing else", async () => {
  await withAdmin(relay(), async (ask) => {
    const headers = { authorization: "" };
    const nonce = "n".repeat(43);
    const { status, json } = await ask(`/v1/hello?nonce=${nonce}`, { headers });
    const expected = createHmac("sha256", TOKEN).update(
      `oxrelay admin hello\nhttp://127.0.0.1:9090\n${nonce}`,
    );
    assertEquals([status, json], [200, { proof: expected.digest("base64url") }]);
    const other = await ask(`/v1/hello?nonce=${"m".repeat(43)}`, { headers });
    assert(other.json.proof !== json.proof);
    for (const bad of ["", "n".repeat(42), "n".repeat(44), `${"n".repeat(42)}%0A`]) {
      const refused = await ask(`/v1/hello?nonce=${bad}`, { headers });
      assertEquals([refused.status, refused.json.error.field], [400, "nonce"]);
    }
    assertEquals((await ask("/v1/hello", { method: "POST", headers })).status, 401);
  });
});

Deno.test("admin: the scheme's name is compared without case", async () => {
  await withAdmin(relay(), async (ask) => {
    for (const scheme of ["Bearer", "bearer", "BEARER", "bEaReR "]) {
      const { status } = await ask("/v1/status", { headers: { authorization: `${scheme} ${TOKEN}` } });
      assertEquals(status, 200, scheme);
    }
  });
});

Deno.test({
  name: "admin: HTTP/2 without Host is judged by its authority, and needs the token too",
  ...requires({ programs: ["curl"] }),
  fn: () =>
    withAdmin(relay(), async (_, port) => {
      const status = async (...headers: string[]) => {
        const { stdout } = await new Deno.Command("curl", {
          args: [
            ...["-s", "-o", "/dev/null", "-w", "%{http_version} %{http_code}", "--http2-prior-knowledge"],
            ...headers.flatMap((header) => ["-H", header]),
            `http://127.0.0.1:${port}/v1/status`,
          ],
        }).output();
        return new TextDecoder().decode(stdout);
      };
      const bearer = `Authorization: bearer ${TOKEN}`;
      assertEquals(await status(), "2 401");
      assertEquals(await status(bearer), "2 200");
      assertEquals(await status(bearer, `Origin: http://127.0.0.1:${port}`), "2 200");
      assertEquals(await status(bearer, "Origin: http://attacker.example"), "2 403");
    }),
});

/** A connection that sends `text` and then waits; `closed` resolves with all that came when the other side ends it. */
function loiterer(port: number, text: string): Promise<{ closed: Promise<string>; destroy(): void }> {
  const { promise, resolve, reject } = Promise.withResolvers<{ closed: Promise<string>; destroy(): void }>();
  const closed = Promise.withResolvers<string>();
  let got = "";
  const socket = connect(port, "127.0.0.1", () => {
    socket.write(text);
    resolve({ closed: closed.promise, destroy: () => socket.destroy() });
  });
  socket.setEncoding("latin1");
  socket.on("data", (part: string) => got += part);
  socket.on("error", reject);
  socket.on("close", () => closed.resolve(got));
  return promise;
}

const HALF = "POST /v1/peers HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Le";
const WHOLE = "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";

Deno.test("admin: one connection of HTTP/1.1 carries one request after another", async () => {
  await withAdmin(relay(), async (_, port) => {
    const connection = await Deno.connect({ hostname: "127.0.0.1", port });
    const bytes = new Uint8Array(4096);
    for (let i = 0; i < 3; i++) {
      await connection.write(
        new TextEncoder().encode(`GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\n\r\n`),
      );
      const count = await connection.read(bytes);
      assertMatch(
        new TextDecoder().decode(bytes.subarray(0, count ?? 0)),
        /^HTTP\/1\.1 \d{3} /,
        `request ${i}`,
      );
    }
    connection.close();
  });
});

Deno.test("admin: a preface of HTTP/2 may come in pieces", async () => {
  await withAdmin(relay(), async (_, port) => {
    const connection = await Deno.connect({ hostname: "127.0.0.1", port });
    connection.setNoDelay(true);
    for (const piece of ["P", "R", "I * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"]) {
      await connection.write(new TextEncoder().encode(piece));
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    const bytes = new Uint8Array(9);
    await connection.read(bytes);
    assertEquals(bytes[3], 4, "a SETTINGS frame, as HTTP/2 begins (RFC 9113 section 3.4)");
    connection.close();
  });
});

Deno.test("admin: idle, half asked and silent connections end after a while", async () => {
  const server = serveAdmin(
    createAdmin(relay()),
    { host: "127.0.0.1", port: 0 },
    getLogger(["oxrelay", "test"]),
    { idleMs: 300 },
  );
  const lingering = await Promise.all(
    ["", "PRI", HALF, WHOLE, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"].map((text) =>
      loiterer(server.addr.port, text)
    ),
  );
  const answers = await Promise.all(lingering.map(({ closed }) => closed));
  assertMatch(answers[3], /^HTTP\/1\.1 200 /);
  await server.shutdown();
});

Deno.test("admin: connections are bounded, and a newcomer takes the place of the quietest", async () => {
  const server = serveAdmin(
    createAdmin(relay()),
    { host: "127.0.0.1", port: 0 },
    getLogger(["oxrelay", "test"]),
    { connectionsMax: 4 },
  );
  const { port } = server.addr;
  const closings: number[] = [];
  const open = [];
  for (let i = 0; i < 8; i++) {
    const one = await loiterer(port, i % 2 === 0 ? HALF : "");
    one.closed.then(() => closings.push(i));
    open.push(one);
  }
  assertEquals(await rawStatus(port, ["GET /healthz HTTP/1.1", "Host: 127.0.0.1"]), 200);
  await Promise.all(open.slice(0, 5).map(({ closed }) => closed));
  assertEquals(closings, [0, 1, 2, 3, 4], "the oldest of those without an answer, one for each newcomer");
  await server.shutdown();
  await Promise.all(open.map(({ closed }) => closed));
});

Deno.test("admin: thousands of requests at once on one connection end it, and are not all answered", async () => {
  let asked = 0;
  const deps = relay({
    snapshot() {
      asked++;
      return new Promise(() => {}); // as slow as can be
    },
  });
  await withAdmin(deps, async (ask, port) => {
    const one = `GET /v1/sessions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer ${TOKEN}\r\n\r\n`;
    const greedy = await loiterer(port, one.repeat(5000));
    await greedy.closed;
    assert(asked <= 16, `${asked} were asked`);
    assertEquals((await ask("/healthz")).status, 200);
  });
});

Deno.test("admin: the listener closes whatever its clients do", async () => {
  const answering = Promise.withResolvers<void>();
  const server = serveAdmin(
    createAdmin(relay({ snapshot: () => new Promise(() => answering.resolve()) })), // an answer that never comes
    { host: "127.0.0.1", port: 0 },
    getLogger(["oxrelay", "test"]),
  );
  const asked = `GET /v1/sessions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer ${TOKEN}\r\n\r\n`;
  const lingering = await Promise.all(
    ["", "PRI", HALF, WHOLE, asked].map((text) => loiterer(server.addr.port, text)),
  );
  await answering.promise;
  await server.shutdown();
  await Promise.all(lingering.map(({ closed }) => closed));
});

Deno.test("admin: every answer has the security headers, refusals and failures too", async () => {
  const records: LogRecord[] = [];
  configureSync({
    reset: true,
    sinks: { records: (record) => records.push(record) },
    loggers: [
      { category: "oxrelay", sinks: ["records"], lowestLevel: "error" },
      { category: ["logtape", "meta"], sinks: [] },
    ],
  });
  try {
    const deps = relay({ peers: () => Promise.reject(new Error("the inside story")) });
    await withAdmin(deps, async (ask) => {
      for (
        const [path, status] of [["/", 200], ["/metrics", 200], ["/nothing", 404], [
          "/v1/peers",
          500,
        ]] as const
      ) {
        const answer = await ask(path);
        assertEquals(answer.status, status, path);
        assertEquals(answer.headers.get("x-content-type-options"), "nosniff");
        assertEquals(answer.headers.get("x-frame-options"), "DENY");
        assertEquals(answer.headers.get("cache-control"), "no-store");
        assertEquals(answer.headers.get("access-control-allow-origin"), null);
        assertMatch(answer.headers.get("content-security-policy")!, /^default-src 'none'/);
        assert(!answer.text.includes("inside story"));
      }
    });
    assertEquals(records.map(({ properties }) => properties.path), ["/v1/peers"]);
  } finally {
    resetSync();
  }
});

Deno.test("admin: a port that cannot be had is one sentence", async () => {
  await withAdmin(relay(), (_, port) => {
    const log = getLogger(["oxrelay", "test"]);
    const app = createAdmin(relay());
    const taken = assertThrows(() => serveAdmin(app, { host: "127.0.0.1", port }, log), ConfigError);
    assertMatch(taken.message, /^metrics_listen: 127\.0\.0\.1:\d+ is taken by another program/);
    return Promise.resolve();
  });
});

/** What a fresh process writes to stderr when it runs `body`. */
async function logged(body: string): Promise<string> {
  const module = (path: string) => JSON.stringify(new URL(path, import.meta.url).href);
  const script = `
    import { getLogger } from "@logtape/logtape";
    import { setLevel, setupLogging } from ${module("../../src/process/logging.ts")};
    const log = getLogger(["oxrelay", "io"]);
    ${body}`;
  const directory = await Deno.makeTempDir({ prefix: "oxrelay-log-" });
  try {
    await Deno.writeTextFile(`${directory}/main.ts`, script);
    const config = new URL("../../deno.json", import.meta.url).pathname;
    const { stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "--quiet", "--no-prompt", "--no-lock", `--config=${config}`, `${directory}/main.ts`],
    }).output();
    assertEquals(new TextDecoder().decode(stdout), "");
    return new TextDecoder().decode(stderr);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

Deno.test("logging: text lines with level and area; a value cannot forge a line", async () => {
  const text = await logged(`
    log.error("before set-up");
    setupLogging({ level: "info", format: "text" });
    log.debug("too quiet");
    log.info("hello {who}", { who: "a\\nb\\x1b[2J" });
    setLevel("debug");
    log.debug("now heard");
    setLevel("error");
    log.warn("too quiet");`);
  const lines = text.trimEnd().split("\n");
  assertEquals(lines.length, 2);
  assertMatch(lines[0], /^\d{4}-\d\d-\d\dT[\d:.]+Z \[info\] oxrelay\.io: hello a\\x0ab\\x1b\[2J$/);
  assertMatch(lines[1], /\[debug\] oxrelay\.io: now heard$/);
});

Deno.test("logging: JSON lines parse and keep the properties", async () => {
  const text = await logged(`
    setupLogging({ level: "warning", format: "json" });
    log.warn("port {port}\\nis taken", { port: 4433 });`);
  assertEquals(text.trimEnd().split("\n").length, 1);
  const line = JSON.parse(text);
  assertEquals([line.level, line.logger, line.properties], ["WARN", "oxrelay.io", { port: 4433 }]);
});

Deno.test("logging: addresses keep their network only, unless the level is debug", () => {
  const cases: [string, string][] = [
    ["203.0.113.7", "203.0.113.x"],
    ["203.0.113.7:51820", "203.0.113.x"],
    ["::ffff:203.0.113.7", "203.0.113.x"],
    ["2001:db8:7:8::9", "2001:db8:7::x"],
    ["[2001:db8:7:8::9]:51820", "2001:db8:7::x"],
    ["2001::1", "2001:0:0::x"],
    ["relay.example", "?"],
    ["", "?"],
  ];
  try {
    setupLogging({ level: "info", format: "text" });
    for (const [address, shown] of cases) assertEquals(redactAddress(address), shown, address);
    setupLogging({ level: "debug", format: "text" });
    assertEquals(redactAddress("203.0.113.7:51820"), "203.0.113.7:51820");
  } finally {
    setupLogging({ level: "info", format: "text" });
    resetSync();
  }
});

Deno.test("logging: a provoked warning comes once an interval and counts the rest", () => {
  const messages: string[] = [];
  configureSync({
    reset: true,
    sinks: { messages: ({ message }) => messages.push(message.join("")) },
    loggers: [
      { category: "oxrelay", sinks: ["messages"] },
      { category: ["logtape", "meta"], sinks: [] },
    ],
  });
  try {
    let nowMs = 0;
    const warn = sparingWarning(getLogger(["oxrelay", "io"]), 1000, () => nowMs);
    for (; nowMs < 2500; nowMs += 100) warn("refused {code}", { code: 5 });
    assertEquals(messages, [
      "refused 5",
      "refused 5 (9 more since the last)",
      "refused 5 (9 more since the last)",
    ]);
  } finally {
    resetSync();
  }
});
