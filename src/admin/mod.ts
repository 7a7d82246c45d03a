/**
 * The admin interface over HTTP: metrics and health for everyone who reaches the listener, /v1 for the operator
 * (guard.ts, openapi.ts), and a page that is a client of /v1. Invariant: every refusal is JSON that names the field at fault, and
 * no answer carries a secret except the answer to the request that made the secret. Owns no state but who has signed in: the
 * caller supplies what it shows and does.
 */
import { getLogger } from "@logtape/logtape";
import { Hono } from "hono";
import { latencyFigures } from "../session/peer_record.ts";
import { COUNTER_NAMES, DROP_REASONS } from "../metrics.ts";
import type { AdminDeps } from "./deps.ts";
import { Refusal, refuse } from "./answers.ts";
import { judge, NONCE, proofOf } from "./guard.ts";
import { addLinkRoutes, addRedeeming } from "./link_routes.ts";
import { addDocument, described } from "./openapi.ts";
import { addPage } from "./page_files.ts";
import { addPeerRoutes } from "./peer_routes.ts";
import { createRegistry, sum } from "./prometheus.ts";
import { addSignIn } from "./sign_in_routes.ts";
import { cookieOf, SignIns } from "./sign_in.ts";
import { addWatchRoutes } from "./watch_routes.ts";

export { BODY_BYTES_MAX, Refusal } from "./answers.ts";
export type {
  AdminDeps,
  Health,
  NewPeer,
  NewPeerAnswer,
  PeerChange,
  RelayStatus,
  ReloadReport,
} from "./deps.ts";
export type { HistorySample, Link, PeerRow, RelayEvent } from "./shapes.ts";

/**
 * How old the snapshot of all peers may be that a scrape of /metrics has, milliseconds: everybody who reaches the listener may
 * scrape, and a snapshot costs every Worker time. What the operator asks for is of the moment.
 */
const SCRAPED_AGE_MS = 900;

/** Builds the whole interface; `serveAdmin` gives it a listener. */
export function createAdmin(deps: AdminDeps): Hono {
  const app = new Hono();
  const signIns = new SignIns();
  answerSafely(app);
  addOpenRoutes(app, deps);
  addPage(app);
  // Before the guard: a client that has the token verifies by this to whom it would send the token.
  app.get("/v1/hello", described("GET /v1/hello"), (c) => {
    const nonce = c.req.query("nonce") ?? "";
    if (!NONCE.test(nonce)) return refuse(c, 400, "nonce", "a nonce is 43 characters of base64url");
    return c.json({ proof: proofOf(deps.adminToken(), deps.url(), nonce) });
  });
  addSignIn(app, deps, signIns);
  addRedeeming(app, deps);
  app.use("/v1/*", async (c, next) => {
    const cookie = cookieOf(c.req.header("Cookie") ?? null);
    const hasSession = cookie !== undefined && signIns.has(cookie, deps.adminToken());
    const denial = judge(c.req.raw, deps.adminToken(), hasSession);
    if (denial === undefined) return await next();
    if (denial.status === 401) c.header("WWW-Authenticate", 'Bearer realm="oxrelay"');
    return refuse(c, denial.status, denial.field, denial.message);
  });
  addReadingRoutes(app, deps);
  addWatchRoutes(app, deps);
  addPeerRoutes(app, deps);
  addLinkRoutes(app, deps);
  app.post("/v1/reload", described("POST /v1/reload"), async (c) => c.json(await deps.reload()));
  addDocument(app, () => deps.status().version);
  return app;
}

/** Headers of every answer, and answers to what no route takes or a route fails at. */
function answerSafely(app: Hono): void {
  const log = getLogger(["oxrelay", "admin"]);
  app.use(async (c, next) => {
    await next();
    c.header("Cache-Control", "no-store");
    c.header("Cross-Origin-Resource-Policy", "same-origin");
    c.header("Referrer-Policy", "no-referrer");
    c.header("X-Content-Type-Options", "nosniff");
    c.header("X-Frame-Options", "DENY");
    if (!c.res.headers.has("Content-Security-Policy")) {
      c.header("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'");
    }
  });
  app.notFound((c) =>
    refuse(c, 404, "path", `there is no ${c.req.method} ${c.req.path}; try /, /metrics, /healthz, /v1/status`)
  );
  app.onError((error, c) => {
    if (error instanceof Refusal) return refuse(c, 409, error.field, error.message);
    log.error("{method} {path} failed: {error}", { method: c.req.method, path: c.req.path, error });
    return refuse(c, 500, "relay", "the relay failed to answer; its log says why");
  });
}

/** What everybody who reaches the listener may read: no secret is in it, and no peer unless devices_in_metrics asks for names. */
function addOpenRoutes(app: Hono, deps: AdminDeps): void {
  const registry = createRegistry(
    deps.metrics,
    () => deps.status(),
    async () => deps.applicationsInMetrics() ? (await deps.snapshot(SCRAPED_AGE_MS)).applications : {},
    async () => {
      const max = deps.devicesInMetrics();
      return { max, peers: max === 0 ? [] : (await deps.snapshot(SCRAPED_AGE_MS)).peers };
    },
  );
  app.get("/metrics", async (c) => {
    c.header("Content-Type", registry.contentType);
    return c.body(await registry.metrics());
  });
  for (const [path, read] of [["/healthz", deps.health], ["/readyz", deps.ready]] as const) {
    app.get(path, (c) => {
      const health = read.call(deps);
      return c.json(health, health.ok ? 200 : 503);
    });
  }
}

/** What the operator may read. */
function addReadingRoutes(app: Hono, deps: AdminDeps): void {
  app.get("/v1/status", described("GET /v1/status"), async (c) => {
    const { startedAt, ...about } = deps.status();
    const counters = COUNTER_NAMES.map((name) => [name, sum(deps.metrics, (metrics) => metrics.get(name))]);
    const drops = DROP_REASONS.map((
      [label],
    ) => [label, sum(deps.metrics, (metrics) => metrics.dropped(label))]);
    const { peers, applications, delays } = await deps.snapshot(0);
    return c.json({
      ...about,
      uptimeS: Math.max(0, (Date.now() - startedAt.getTime()) / 1000),
      counters: Object.fromEntries(counters),
      drops: Object.fromEntries(drops),
      peers,
      keptOut: deps.keptOut(),
      applications,
      latency: latencyFigures(delays),
    });
  });
  app.get(
    "/v1/sessions",
    described("GET /v1/sessions"),
    async (c) => c.json((await deps.snapshot(0)).sessions),
  );
  app.get("/v1/config", described("GET /v1/config"), (c) => c.json(deps.config() as Record<string, unknown>));
}
