/**
 * /v1 as its OpenAPI document has it: every route is in the document, and what each answers fits it; signing in, and who is kept out.
 */
import { assert, assertEquals, assertGreater, assertMatch } from "@std/assert";
import { Validator } from "@cfworker/json-schema";
import { createAdmin, Refusal } from "../../src/admin/mod.ts";
import { selectPeers } from "../../src/admin/peers_list.ts";
import { SORTS } from "../../src/admin/shapes.ts";
import { limitChanges, limitTexts } from "../../src/admin/page/format.js";
import { SESSION_S, SignIns } from "../../src/admin/sign_in.ts";
import { type Answer, KEY, relay, rowOf, TOKEN, withAdmin } from "../kit/admin_relay.ts";

const NAMED = "GET /v1/peers/{name}", FORWARDS = "POST /v1/peers/{name}/forwards";
const PING = "POST /v1/peers/{name}/ping";
const FORWARD = "DELETE /v1/peers/{name}/forwards/{forward}";
const post = (body: unknown, method = "POST") => ({
  method,
  headers: { "content-type": "application/json" },
  body: JSON.stringify(body),
});

/** A relay of which something can be asked at every route. */
function wholeRelay() {
  const deps = relay();
  deps.metrics[0].drop(40);
  const removed: typeof deps.records = [];
  const links: ReturnType<typeof deps.links> = [];
  return Object.assign(deps, {
    removePeer(name: string) {
      const at = deps.records.findIndex((record) => record.name === name);
      removed.push(...deps.records.splice(at, at < 0 ? 0 : 1));
      return Promise.resolve(at >= 0);
    },
    restorePeer(name: string) {
      const record = removed.find((record) => record.name === name);
      if (record) deps.records.push(record);
      return Promise.resolve(record !== undefined);
    },
    changePeer(name: string, change: { name?: string }) {
      if (change.name === "taken") return Promise.reject(new Refusal("name", "this name is taken"));
      return Promise.resolve(deps.records.some((record) => record.name === name));
    },
    links: () => links,
    makeLink({ name }: { name: string }) {
      const times = { created: "2026-11-30T00:00:00.000Z", expires: "2026-12-01T00:00:00.000Z" };
      links.push({ id: "0123456789ab", name, state: "open", ...times });
      return Promise.resolve({ ...links[0], token: "x".repeat(43) });
    },
    revokeLink: (id: string) => Promise.resolve(links.some((link) => link.id === id)),
    redeemLink: (token: string) =>
      Promise.resolve(
        token === "good"
          ? {
            ...{ name: "friend", publicKey: KEY, allowedIps: ["10.66.0.9/32"], created: "2026" },
            ...{ privateKey: KEY, config: "[Interface]", invitation: "oxrelay://x" },
          }
          : undefined,
      ),
    events: () => [{ id: 1, at: "2026-11-30T00:00:00.000Z", kind: "added" as const, peer: "phone" }],
    history: () => ({
      stepS: 1,
      samples: [{ at: 1, receivedBps: 8, sentBps: 0, dropsPerS: 0.1, connections: 1 }],
    }),
  });
}

/** What is asked of each route: where it succeeds, and where it refuses; in this order. */
const ASKED: [
  route: string,
  path: string,
  status: number,
  init?: RequestInit & { headers?: Record<string, string> },
][] = [
  ["GET /v1/hello", `/v1/hello?nonce=${"n".repeat(43)}`, 200],
  ["GET /v1/hello", "/v1/hello", 400],
  ["POST /v1/sign-in", "/v1/sign-in", 204, post({ token: TOKEN })],
  ["POST /v1/sign-in", "/v1/sign-in", 401, post({ token: "wrong" })],
  ["POST /v1/sign-in", "/v1/sign-in", 400, post({})],
  ["POST /v1/sign-in", "/v1/sign-in", 403, { ...post({}), headers: { origin: "https://attacker.example" } }],
  ["POST /v1/sign-out", "/v1/sign-out", 204, { method: "POST" }],
  ["GET /v1/status", "/v1/status", 200],
  ["GET /v1/status", "/v1/status", 401, { headers: { authorization: "" } }],
  ["GET /v1/overview", "/v1/overview", 200],
  ["GET /v1/history", "/v1/history?span=day", 200],
  ["GET /v1/history", "/v1/history?span=year", 400],
  ["GET /v1/events", "/v1/events?after=0", 200],
  ["GET /v1/events", "/v1/events?after=x", 400],
  ["GET /v1/sessions", "/v1/sessions", 200],
  ["GET /v1/config", "/v1/config", 200],
  ["POST /v1/reload", "/v1/reload", 200, { method: "POST" }],
  [
    "POST /v1/peers",
    "/v1/peers",
    201,
    post({ name: "phone", rateUpBps: 64_000, expires: "2027-01-01T00:00Z" }),
  ],
  ["POST /v1/peers", "/v1/peers", 409, post({ name: "phone" })],
  ["POST /v1/peers", "/v1/peers", 400, post({ name: "x", expires: "tomorrow" })],
  ["POST /v1/peers", "/v1/peers", 400, post({ name: "x", monthlyBytes: 0 })],
  ["POST /v1/peers", "/v1/peers", 415, { method: "POST", body: "name=x" }],
  ["POST /v1/peers", "/v1/peers", 413, post({ name: "x".repeat(20_000) })],
  ["GET /v1/peers", "/v1/peers?search=phone&sort=month&order=desc&page=1&perPage=10", 200],
  ["GET /v1/peers", "/v1/peers?sort=colour", 400],
  ["GET /v1/peers", "/v1/peers?perPage=100000", 400],
  [NAMED, "/v1/peers/phone", 200],
  [NAMED, "/v1/peers/nobody", 404],
  [NAMED, "/v1/peers/a%20b", 400],
  [
    "PATCH /v1/peers/{name}",
    "/v1/peers/phone",
    204,
    post({ disabled: true, expires: null, notes: "x" }, "PATCH"),
  ],
  ["PATCH /v1/peers/{name}", "/v1/peers/nobody", 404, post({}, "PATCH")],
  ["PATCH /v1/peers/{name}", "/v1/peers/phone", 409, post({ name: "taken" }, "PATCH")],
  ["PATCH /v1/peers/{name}", "/v1/peers/phone", 400, post({ publicKey: KEY }, "PATCH")],
  [PING, "/v1/peers/phone/ping", 200, { method: "POST" }],
  [PING, "/v1/peers/nobody/ping", 404, { method: "POST" }],
  [FORWARDS, "/v1/peers/phone/forwards", 201, post({ forwards: ["udp:1"] })],
  [FORWARDS, "/v1/peers/nobody/forwards", 404, post({ forwards: ["udp:1"] })],
  [FORWARDS, "/v1/peers/phone/forwards", 409, post({ forwards: ["udp:22"] })],
  [FORWARDS, "/v1/peers/phone/forwards", 400, post({ forwards: [] })],
  [FORWARD, "/v1/peers/phone/forwards/udp:1", 204, { method: "DELETE" }],
  [FORWARD, "/v1/peers/phone/forwards/udp:2", 404, { method: "DELETE" }],
  ["DELETE /v1/peers/{name}", "/v1/peers/phone", 204, { method: "DELETE" }],
  ["DELETE /v1/peers/{name}", "/v1/peers/phone", 404, { method: "DELETE" }],
  ["POST /v1/peers/{name}/restore", "/v1/peers/phone/restore", 204, { method: "POST" }],
  ["POST /v1/peers/{name}/restore", "/v1/peers/nobody/restore", 404, { method: "POST" }],
  ["POST /v1/links", "/v1/links", 201, post({ name: "friend", linkExpires: "2026-12-01T00:00:00Z" })],
  ["POST /v1/links", "/v1/links", 400, post({ name: "" })],
  ["GET /v1/links", "/v1/links", 200],
  ["DELETE /v1/links/{id}", "/v1/links/0123456789ab", 204, { method: "DELETE" }],
  ["DELETE /v1/links/{id}", "/v1/links/ffffffffffff", 404, { method: "DELETE" }],
  ["DELETE /v1/links/{id}", "/v1/links/x", 400, { method: "DELETE" }],
  ["POST /v1/links/redeem", "/v1/links/redeem", 201, post({ token: "good" })],
  ["POST /v1/links/redeem", "/v1/links/redeem", 404, post({ token: "bad" })],
  ["GET /v1/openapi.json", "/v1/openapi.json", 200],
];

interface Described {
  responses: Record<string, { content?: Record<string, { schema: object }> }>;
  requestBody?: { content: Record<string, { schema: object }> };
}

Deno.test("api: every route is in the OpenAPI document, and every answer fits it", async () => {
  await withAdmin(wholeRelay(), async (ask) => {
    const { json: document } = await ask("/v1/openapi.json");
    assertEquals([document.openapi, document.info.version], ["3.1.0", "1.2.3"]);
    const routes = Object.entries(document.paths as Record<string, Record<string, Described>>)
      .flatMap(([path, methods]) =>
        Object.entries(methods).map(([method, described]) =>
          [`${method.toUpperCase()} ${path}`, described] as const
        )
      );
    const described = new Map<string, Described>(routes);
    const served = createAdmin(relay()).routes.filter(({ method, path }) =>
      method !== "ALL" && path.startsWith("/v1/")
    )
      .map(({ method, path }) => `${method} ${path.replace(/:(\w+)/g, "{$1}")}`);
    assertEquals([...described.keys()].sort(), [...new Set(served)].sort());
    assertEquals([...described.keys()].filter((route) => !ASKED.some(([asked]) => asked === route)), []);

    const mistakes = (schema: object, value: unknown) => {
      const { valid, errors } = new Validator(schema, "2020-12", false).validate(value);
      return valid ? "" : JSON.stringify(errors);
    };
    for (const [route, path, status, init] of ASKED) {
      const answer: Answer = await ask(path, init);
      const what = `${route} ${path}: ${answer.text.slice(0, 200)}`;
      assertEquals(answer.status, status, what);
      const { responses, requestBody } = described.get(route)!;
      assert(String(status) in responses, `${route} does not say ${status}`);
      const schema = responses[status].content?.["application/json"].schema;
      if (status === 204) assertEquals([answer.text, schema], ["", undefined], what);
      else assertEquals(mistakes(schema!, answer.json), "", what);
      const isJson = init?.headers?.["content-type"] !== undefined;
      if (isJson && status < 300) {
        const { schema } = requestBody!.content["application/json"];
        const told = mistakes(schema, JSON.parse(String(init!.body)));
        assertEquals(told, "", `${what}: the document refuses what the relay takes`);
      }
    }
    const broken = structuredClone((await ask("/v1/peers/phone")).json);
    delete broken.usage;
    const { schema } = described.get(NAMED)!.responses[200].content!["application/json"];
    assertMatch(mistakes(schema, broken), /usage/, "the document says enough to notice a missing field");
  });
});

const cookieOf = (answer: Answer) => answer.headers.get("set-cookie")!.split(";")[0];

Deno.test("sign-in: the cookie opens /v1 until it is signed out or the token changes, and no script can read it", async () => {
  let token = TOKEN;
  const noted: string[] = [];
  const deps = relay({
    adminToken: () => token,
    noteEvent: (kind, detail) => noted.push(`${kind} ${detail}`),
  });
  await withAdmin(deps, async (ask, port) => {
    const origin = `http://127.0.0.1:${port}`;
    const signIn = () =>
      ask("/v1/sign-in", { ...post({ token }), headers: { ...post({}).headers, origin, authorization: "" } });
    const first = await signIn();
    assertMatch(
      first.headers.get("set-cookie")!,
      /^oxrelay_session=[\w-]{43}; Path=\/; Max-Age=43200; HttpOnly; SameSite=Strict$/,
    );
    const overTls = await ask("/v1/sign-in", {
      ...post({ token }),
      headers: { ...post({}).headers, "x-forwarded-proto": "https" },
    });
    assertMatch(overTls.headers.get("set-cookie")!, /; Secure$/);
    const cookie = cookieOf(first);
    const by = (headers: Record<string, string>, method = "GET") =>
      ask(method === "GET" ? "/v1/overview" : "/v1/reload", {
        method,
        headers: { authorization: "", ...headers },
      });
    assertEquals((await by({ cookie })).status, 200);
    assertEquals((await by({ cookie: `other=1; ${cookie}` })).status, 200);
    assertEquals((await by({ cookie: cookie.slice(0, -1) + "~" })).status, 401);
    assertEquals((await by({})).status, 401);
    // A page of this host on another port has the cookie, but not the origin; a form says none.
    assertEquals((await by({ cookie, origin }, "POST")).status, 200);
    assertEquals((await by({ cookie }, "POST")).status, 401);
    assertEquals((await by({ cookie, origin: "http://127.0.0.1:1" }, "POST")).status, 403);
    assertEquals((await by({ cookie, origin: "null" }, "POST")).status, 403);

    const out = await ask("/v1/sign-out", { method: "POST", headers: { authorization: "", cookie, origin } });
    assertMatch(out.headers.get("set-cookie")!, /^oxrelay_session=; .*Max-Age=0/);
    assertEquals((await by({ cookie })).status, 401, "the relay has forgotten it, too");
    const second = cookieOf(await signIn());
    token = "another-token-after-a-reload";
    assertEquals((await by({ cookie: second })).status, 401);
    assertEquals(noted.length, 3);
    assert(noted.every((event) => event.startsWith("signed_in 127.0.0.1")), noted.join());
    assert(!noted.join().includes(TOKEN));
  });
});

Deno.test("sign-in: behind a proxy that does not pass Host the refusal says so, and docs/security.md has the remedy", async () => {
  const app = createAdmin(relay());
  const origin = "https://relay.example.com:8443";
  const { headers, ...init } = post({ token: TOKEN });
  const signIn = (url: string, passed: Record<string, string> = {}) =>
    app.request(`${url}/v1/sign-in`, { ...init, headers: { ...headers, origin, ...passed } });
  const refused = await signIn("http://127.0.0.1:9090"); // nginx's $proxy_host
  assertEquals(refused.status, 403);
  assertMatch((await refused.json()).error.message, /the proxy in front does not pass Host$/);
  const docs = await Deno.readTextFile("docs/security.md");
  const told = [...docs.matchAll(/proxy_set_header (\S+) (\S+);/g)].map(([, name, value]) => [name, value]);
  assertEquals(told, [["Host", "$http_host"], ["X-Forwarded-Proto", "$scheme"]]);
  const admitted = await signIn("http://relay.example.com:8443", { "x-forwarded-proto": "https" });
  assertEquals(admitted.status, 204);
  assertMatch(admitted.headers.get("set-cookie")!, /; Secure$/);
});

Deno.test("sign-in: wrong tokens are bounded by source; the right token and links get in however often others failed", async () => {
  await withAdmin(wholeRelay(), async (ask) => {
    const attempt = (token: string) => ask("/v1/sign-in", post({ token }));
    for (let i = 0; i < 5; i++) assertEquals((await attempt("wrong")).status, 401);
    const refused = await attempt("wrong");
    assertEquals(refused.status, 429);
    assertGreater(Number(refused.headers.get("retry-after")), 30);
    assertEquals((await attempt(TOKEN)).status, 204, "strangers behind the same proxy lock nobody out");
    assertEquals(
      (await attempt("wrong")).status,
      429,
      "nor does the right token end the wait for wrong ones",
    );
    assertEquals((await ask("/v1/links/redeem", post({ token: "good" }))).status, 201);
  });
  await withAdmin(wholeRelay(), async (ask) => {
    const redeem = (token: string) => ask("/v1/links/redeem", post({ token }));
    for (let i = 0; i < 60; i++) assertEquals((await redeem("x")).status, 404);
    assertEquals((await redeem("good")).status, 201);
    assertEquals(
      (await ask("/v1/sign-in", post({ token: "wrong" }))).status,
      401,
      "links count for no sign-in",
    );
  });
  let nowMs = 0;
  const signIns = new SignIns(() => nowMs);
  for (let i = 0; i < 5; i++) signIns.failed("192.0.2.1");
  assertEquals([signIns.waitS("192.0.2.1"), signIns.waitS("192.0.2.2")], [60, 0]);
  nowMs = 60_000;
  assertEquals(signIns.waitS("192.0.2.1"), 0);
  for (let i = 0; i < 100_000; i++) signIns.failed(`source-${i}`);
  assertGreater(signIns.waitS("192.0.2.2"), 0, "all together are bounded as well");
  const first = signIns.begin(TOKEN);
  const others = Array.from({ length: 64 }, () => signIns.begin(TOKEN));
  assertEquals(
    [signIns.has(first, TOKEN), signIns.has(others[0], TOKEN)],
    [false, true],
    "the oldest gives way",
  );
  nowMs += 1000 * SESSION_S;
  assertEquals(signIns.has(others[0], TOKEN), false);
});

Deno.test("peers: 5000 are searched, sorted and paged; what is unknown comes last in both orders", () => {
  const rows = Array.from({ length: 5000 }, (_, i) => ({
    ...rowOf({
      name: `peer-${i}`,
      publicKey: KEY,
      allowedIps: [`10.66.${i >> 8}.${i & 255}/32`],
      created: "",
    }),
    ...(i % 2 === 0
      ? { endpoint: `192.0.2.${i % 256}:51820`, protocol: "wireguard" as const, connected: true }
      : {}),
    ...(i >= 4997 ? { rttMs: i - 4990 } : {}),
    usage: { received: i * 7919 % 5000, sent: 0, monthReceived: 0, monthSent: i },
    ...(i === 77 ? { notes: "Anna's console" } : {}),
  }));
  const names = (query: Parameters<typeof selectPeers>[1]) =>
    selectPeers(rows, { perPage: 50, ...query }).rows.map(({ name }) => name);
  assertEquals(names({}).length, 50);
  assertEquals(names({}).slice(0, 3), ["peer-0", "peer-1", "peer-2"], "numbers in names count as numbers");
  assertEquals(names({ page: 100 }).at(-1), "peer-4999");
  assertEquals(names({ page: 1000 }).at(-1), "peer-4999", "no page behind the last");
  assertEquals(names({ order: "desc" })[0], "peer-4999");
  assertEquals(names({ search: "  PEER-1234 " }), ["peer-1234"]);
  assertEquals(names({ search: "console anna" }), ["peer-77"]);
  assertEquals(names({ search: "10.66.19.135" }), ["peer-4999"]);
  assertEquals(names({ search: "no such" }), []);
  assertEquals(names({ sort: "month", order: "desc" })[0], "peer-4999");
  assertEquals(
    names({ sort: "received", order: "desc" })[0],
    rows.find(({ usage }) => usage.received === 4999)!.name,
  );
  const byRtt = (order: "asc" | "desc") => names({ sort: "rttMs", order }).slice(0, 4);
  assertEquals(byRtt("asc"), ["peer-4997", "peer-4998", "peer-4999", "peer-0"]);
  assertEquals(byRtt("desc"), ["peer-4999", "peer-4998", "peer-4997", "peer-0"]);
  for (const sort of SORTS) assertEquals(new Set(selectPeers(rows, { sort }).rows).size, 5000, sort);
  assertEquals(selectPeers(rows, { search: "wireguard", page: 1 }).found, 2500);
});

Deno.test("page: its files are the relay's own, and its policy lets nothing else run", async () => {
  await withAdmin(relay(), async (ask) => {
    const seen = new Set<string>();
    const queue = ["/", "/link"];
    for (let path = queue.pop(); path !== undefined; path = queue.pop()) {
      if (seen.has(path)) continue;
      seen.add(path);
      const { status, headers, text } = await ask(path, { headers: { authorization: "" } });
      assertEquals(status, 200, path);
      const policy = headers.get("content-security-policy")!;
      assertMatch(policy, /^default-src 'none'; connect-src 'self'; script-src 'self'; style-src 'self';/);
      assert(!policy.includes("unsafe"), policy);
      if (path.endsWith(".js")) {
        assertMatch(headers.get("content-type")!, /^text\/javascript/);
        // No sentence outside of texts.js, no markup made of text, no other host.
        assertEquals(
          text.match(/innerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function/g),
          null,
          path,
        );
      }
      assertEquals(
        text.replaceAll("http://www.w3.org/2000/svg", "").match(/https?:\/\/\w+\.(?!\w*example)/g),
        null,
        path,
      );
      if (!path.endsWith(".js") && !path.endsWith(".css")) {
        assertEquals(text.match(/<(script|style)[^>]*>[^<]/g), null, "nothing inline");
      }
      for (const [, file] of text.matchAll(/(?:src|href)="([^"#:]+)"/g)) queue.push(`/${file}`);
      for (const [, file] of text.matchAll(/from "\.\/([\w.]+)"/g)) queue.push(`/page/${file}`);
    }
    assertEquals([...seen].filter((path) => path.endsWith(".js")).length, 12);
  });
});

Deno.test("page: of a device's limits only those are sent whose text was changed, and no other loses a digit", () => {
  const opened = limitTexts({
    expires: "2027-01-01T00:00:59.000Z",
    monthlyBytes: 2_000_000_001,
    rateDownBps: 1_234_567_891,
    notes: "Anna's",
  });
  assertEquals([opened.monthlyBytes, opened.rateDownBps, opened.rateUpBps], ["1.86265", "1234.57", ""]);
  assertEquals(limitChanges(opened, { ...opened }), {});
  assertEquals(limitChanges(opened, { ...opened, notes: " Bert's " }), { notes: "Bert's" });
  assertEquals(
    limitChanges(opened, { ...opened, expires: "", monthlyBytes: "0.5", rateUpBps: "0.064", notes: " " }),
    { expires: null, monthlyBytes: 536_870_912, rateUpBps: 64_000, notes: null },
  );
  const written = limitChanges(limitTexts({}), { ...limitTexts({}), expires: opened.expires });
  assertEquals(written, { expires: "2027-01-01T00:00:00.000Z" });
});
