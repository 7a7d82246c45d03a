/**
 * The admin interface over HTTP: metrics and health for everyone who reaches the listener, /v1 for the operator
 * (guard.ts), a dashboard that is a client of /v1. Invariant: every refusal is JSON that names the field at fault,
 * no answer carries a secret except the answer to the request that made the secret, and at most BODY_BYTES_MAX bytes of
 * a body are read. Owns no state: the caller supplies what it shows and does.
 */
import { getLogger } from "@logtape/logtape";
import { type Context, Hono } from "hono";
import { createHash } from "node:crypto";
import * as v from "valibot";
import { delayFigures } from "../control/delay_figures.ts";
import { COUNTER_NAMES, DROP_REASONS, type Metrics } from "../metrics.ts";
import {
  PEER_RATE_MAX_BPS,
  PEER_RATE_MIN_BPS,
  type PeerRecord,
  type RelaySnapshot,
} from "../session/peer_record.ts";
import dashboard from "./dashboard.html" with { type: "text" };
import { judge, NONCE, proofOf } from "./guard.ts";
import { createRegistry, sum } from "./prometheus.ts";

/** Longest request body, in bytes. */
export const BODY_BYTES_MAX = 16 << 10;
/**
 * How old the snapshot of all peers may be that a scrape of /metrics has, milliseconds: everybody who reaches the listener may
 * scrape, and a snapshot costs every Worker time. What the operator asks for is of the moment.
 */
const SCRAPED_AGE_MS = 900;

/** What the relay reports about itself. */
export interface RelayStatus {
  readonly name: "oxrelay";
  readonly version: string;
  readonly startedAt: Date;
  /** The exit in use, "tun" or "userspace". */
  readonly exit: string;
  /** What the tunnel listens on, "[::]:4433". */
  readonly listen: string;
}

/** What a reload did: the names of the peers, and the names of the keys that differ from before. */
export interface ReloadReport {
  peers: { added: string[]; removed: string[]; total: number };
  config: { applied: string[]; needsRestart: string[] };
}

/** Whether the relay is healthy, and each fault as a sentence. */
export interface Health {
  ok: boolean;
  reasons: string[];
}

/** A well-formed request that cannot be granted, or only in part: answered with 409 and this field and message. */
export class Refusal extends Error {
  override readonly name = "Refusal";
  readonly field: string;

  constructor(field: string, message: string) {
    super(message);
    this.field = field;
  }
}

/** What the interface shows and does. `addPeer`, `removePeer` and `reload` may reject with a Refusal. */
export interface AdminDeps {
  /** One column per worker. */
  metrics: readonly Metrics[];
  status(): RelayStatus;
  /** All peers and sessions at one moment, at most `maxAgeMs` milliseconds ago. Must not be changed. */
  snapshot(maxAgeMs: number): Promise<RelaySnapshot>;
  /** Whether /metrics may name applications, by the snapshot. */
  applicationsInMetrics(): boolean;
  /** How many devices /metrics may name; 0 for none. */
  devicesInMetrics(): number;
  /** The configuration without secrets. */
  config(): unknown;
  /** Asked at every request, so that a reload takes effect. */
  adminToken(): string;
  /** Where this machine's subcommands reach the interface. */
  url(): string;
  reload(): Promise<ReloadReport>;
  /** The relay's key and tunnel networks as one text (`networkOf`), which a peer's addresses depend on. */
  network(): string;
  /**
   * Stores a peer and serves it. Without a public key a key pair is made, and the answer holds the private key, which is
   * stored nowhere. A preshared key is stored and never returned.
   */
  addPeer(
    peer: Omit<PeerRecord, "publicKey" | "allowedIps" | "created"> & { publicKey?: string },
  ): Promise<Omit<PeerRecord, "presharedKey"> & { privateKey?: string }>;
  /** False when there is no such peer. */
  removePeer(name: string): Promise<boolean>;
  /** Milliseconds to a peer and back inside the tunnel; null when it does not answer. False when there is no such peer. */
  ping(name: string): Promise<number | null | false>;
  /**
   * Adds port forwards ("udp:27015") to a peer and opens them, all or none; undefined when there is no such peer. May reject with a
   * Refusal.
   */
  addForwards(name: string, forwards: string[]): Promise<Omit<PeerRecord, "presharedKey"> | undefined>;
  /** Closes one; false when there is no such peer, or it has no such forward. */
  removeForward(name: string, forward: string): Promise<boolean>;
  /** Whether the relay works: loops turn, the exit is there. */
  health(): Health;
  /** Whether new clients should be sent here; false while starting and draining. */
  ready(): Health;
}

const PeerName = v.pipe(
  v.string("a peer's name is text"),
  v.regex(/^[A-Za-z0-9._-]{1,63}$/, "a peer's name is 1 to 63 characters of A-Z a-z 0-9 . _ -"),
);

/** 32 bytes of base64: the last character before the padding carries four bits. */
const keyText = (what: string) =>
  v.pipe(
    v.string(`a ${what} is text`),
    v.regex(/^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$/, `a ${what} is 44 characters of base64`),
  );

const RATE_WORDS = `a rate is whole bits a second from ${PEER_RATE_MIN_BPS} to ${PEER_RATE_MAX_BPS}`;
const rate = v.pipe(
  v.number(RATE_WORDS),
  v.integer(RATE_WORDS),
  v.minValue(PEER_RATE_MIN_BPS, RATE_WORDS),
  v.maxValue(PEER_RATE_MAX_BPS, RATE_WORDS),
);

const NewPeer = v.strictObject(
  {
    name: PeerName,
    publicKey: v.optional(keyText("public key")),
    presharedKey: v.optional(keyText("preshared key")),
    rateDownBps: v.optional(rate),
    rateUpBps: v.optional(rate),
    network: v.optional(v.string("a network is text")),
  },
  // Of an unknown key valibot has the key in quotes; of another body its type.
  ({ received }) =>
    `the body is a JSON object of "name" and, if wanted, "publicKey", "presharedKey", "rateDownBps", "rateUpBps"; got ${received}`,
);

const NewForwards = v.strictObject({
  forwards: v.pipe(
    v.array(v.string("a forward is text"), "forwards is a list of texts"),
    v.minLength(1, "forwards is a list of at least one"),
    v.maxLength(256, "forwards is a list of 256 at most"),
  ),
}, 'the body is a JSON object with "forwards", a list such as ["udp:27015"]');

const DASHBOARD_POLICY = [
  "default-src 'none'",
  "connect-src 'self'",
  `script-src ${hashOf("script")}`,
  `style-src ${hashOf("style")}`,
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join("; ");

/** Builds the whole interface; `serveAdmin` gives it a listener. */
export function createAdmin(deps: AdminDeps): Hono {
  const app = new Hono();
  answerSafely(app);
  addOpenRoutes(app, deps);
  // Before the guard: a client that has the token verifies by this to whom it would send the token.
  app.get("/v1/hello", (c) => {
    const nonce = c.req.query("nonce") ?? "";
    if (!NONCE.test(nonce)) return refuse(c, 400, "nonce", "a nonce is 43 characters of base64url");
    return c.json({ proof: proofOf(deps.adminToken(), deps.url(), nonce) });
  });
  app.use("/v1/*", async (c, next) => {
    const denial = judge(c.req.raw, deps.adminToken());
    if (denial === undefined) return await next();
    if (denial.status === 401) c.header("WWW-Authenticate", 'Bearer realm="oxrelay"');
    return refuse(c, denial.status, denial.field, denial.message);
  });
  addReadingRoutes(app, deps);
  app.post("/v1/reload", async (c) => c.json(await deps.reload()));
  app.post("/v1/peers", (c) => addPeer(c, deps));
  app.delete("/v1/peers/:name", async (c) => {
    const name = v.safeParse(PeerName, c.req.param("name"));
    if (!name.success) return refuseIssue(c, name.issues[0], "name");
    if (await deps.removePeer(name.output)) return c.body(null, 204);
    return refuse(c, 404, "name", `there is no peer ${name.output}`);
  });
  app.post("/v1/peers/:name/ping", async (c) => {
    const name = v.safeParse(PeerName, c.req.param("name"));
    if (!name.success) return refuseIssue(c, name.issues[0], "name");
    const rttMs = await deps.ping(name.output);
    return rttMs === false ? refuse(c, 404, "name", `there is no peer ${name.output}`) : c.json({ rttMs });
  });
  addForwardRoutes(app, deps);
  return app;
}

function addForwardRoutes(app: Hono, deps: AdminDeps): void {
  app.post("/v1/peers/:name/forwards", async (c) => {
    const body = await readJson(c, "forwards");
    if (body instanceof Response) return body;
    const name = v.safeParse(PeerName, c.req.param("name")), wanted = v.safeParse(NewForwards, body.json);
    if (!name.success) return refuseIssue(c, name.issues[0], "name");
    if (!wanted.success) return refuseIssue(c, wanted.issues[0], "body");
    const record = await deps.addForwards(name.output, wanted.output.forwards);
    return record ? c.json(record, 201) : refuse(c, 404, "name", `there is no peer ${name.output}`);
  });
  app.delete("/v1/peers/:name/forwards/:forward", async (c) => {
    const name = v.safeParse(PeerName, c.req.param("name"));
    if (!name.success) return refuseIssue(c, name.issues[0], "name");
    const forward = c.req.param("forward");
    if (await deps.removeForward(name.output, forward)) return c.body(null, 204);
    return refuse(c, 404, "forward", `peer ${name.output} has no such forward`);
  });
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
  app.get("/", (c) => {
    c.header("Content-Security-Policy", DASHBOARD_POLICY);
    return c.html(dashboard);
  });
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
  app.get("/v1/status", async (c) => {
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
      applications,
      latency: { queue: delayFigures(delays.queue), processing: delayFigures(delays.processing) },
    });
  });
  app.get("/v1/sessions", async (c) => c.json((await deps.snapshot(0)).sessions));
  app.get("/v1/peers", async (c) => c.json((await deps.snapshot(0)).peers));
  app.get("/v1/config", (c) => c.json(deps.config() as Record<string, unknown>));
}

/** The JSON of a request's body, or the refusal. */
async function readJson(c: Context, what: string): Promise<{ json: unknown } | Response> {
  // A page of another site can send anything but JSON without a CORS preflight.
  if (!/^application\/json\b/i.test(c.req.header("Content-Type") ?? "")) {
    return refuse(c, 415, "Content-Type", `send the ${what} as application/json`);
  }
  const text = await readBody(c.req.raw);
  if (text === undefined) return refuse(c, 413, "body", `the body may be ${BODY_BYTES_MAX} bytes at most`);
  try {
    return { json: JSON.parse(text) };
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    return refuse(c, 400, "body", "the body is not JSON");
  }
}

async function addPeer(c: Context, deps: AdminDeps): Promise<Response> {
  const body = await readJson(c, "peer");
  if (body instanceof Response) return body;
  const peer = v.safeParse(NewPeer, body.json);
  if (!peer.success) return refuseIssue(c, peer.issues[0], "body");
  const { network, ...wanted } = peer.output;
  // 400, not 409: the caller's configuration is of another relay, so the caller stores the peer by itself.
  if (network !== undefined && network !== deps.network()) {
    return refuse(c, 400, "network", "this relay has another key or other tunnel networks");
  }
  return c.json(await deps.addPeer(wanted), 201);
}

/** The body's text, or undefined when the body is longer than BODY_BYTES_MAX, whatever its announced length. */
async function readBody(request: Request): Promise<string | undefined> {
  const decoder = new TextDecoder();
  let text = "";
  let length = 0;
  for await (const chunk of request.body ?? []) {
    length += chunk.length;
    if (length > BODY_BYTES_MAX) return undefined;
    text += decoder.decode(chunk, { stream: true });
  }
  return text + decoder.decode();
}

type RefusalStatus = 400 | 401 | 403 | 404 | 409 | 413 | 415 | 500;

function refuse(c: Context, status: RefusalStatus, field: string, message: string): Response {
  return c.json({ error: { field, message } }, status);
}

function refuseIssue(c: Context, issue: v.BaseIssue<unknown>, whole: string): Response {
  return refuse(c, 400, v.getDotPath(issue) ?? whole, issue.message);
}

/** The source expression that lets exactly the dashboard's one inline element run (CSP level 3, section 2.3.1). */
function hashOf(tag: "script" | "style"): string {
  const from = dashboard.indexOf(`<${tag}>`) + tag.length + 2;
  const text = dashboard.slice(from, dashboard.indexOf(`</${tag}>`, from));
  return `'sha256-${createHash("sha256").update(text).digest("base64")}'`;
}
