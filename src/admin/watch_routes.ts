/**
 * What a person watches: the relay at a glance, its history, and what happened. Invariant: cheap enough to be asked each second, as no
 * answer grows with the number of peers. Changes nothing.
 */
import type { Hono } from "hono";
import { DROP_REASONS } from "../metrics.ts";
import { checked } from "./answers.ts";
import type { AdminDeps } from "./deps.ts";
import { described } from "./openapi.ts";
import { sum } from "./prometheus.ts";
import { AfterQuery, SpanQuery } from "./shapes.ts";

const WATCHED_AGE_MS = 900;

export function addWatchRoutes(app: Hono, deps: AdminDeps): void {
  app.get("/v1/overview", described("GET /v1/overview"), async (c) => c.json(await overviewOf(deps)));
  app.get("/v1/events", described("GET /v1/events"), (c) => {
    const query = checked(c, AfterQuery, c.req.query(), "query");
    return query instanceof Response ? query : c.json(deps.events(query.after ?? 0));
  });
  app.get("/v1/history", described("GET /v1/history"), (c) => {
    const query = checked(c, SpanQuery, c.req.query(), "query");
    return query instanceof Response ? query : c.json(deps.history(query.span ?? "minutes"));
  });
}

async function overviewOf(deps: AdminDeps) {
  const { startedAt, ...about } = deps.status();
  const count = (name: Parameters<AdminDeps["metrics"][number]["get"]>[0]) =>
    sum(deps.metrics, (metrics) => metrics.get(name));
  const drops = DROP_REASONS.map(([reason, sentence]) => ({
    reason,
    sentence,
    packets: sum(deps.metrics, (metrics) => metrics.dropped(reason)),
  }));
  const { ok, reasons } = deps.health();
  return {
    ...about,
    uptimeS: Math.max(0, (Date.now() - startedAt.getTime()) / 1000),
    publicKey: deps.publicKey(),
    peers: deps.peerCount(),
    connections: count("connections"),
    exitFlows: count("exit_flows"),
    receivedBytes: count("bytes_received"),
    sentBytes: count("bytes_sent"),
    drops: drops.filter(({ packets }) => packets > 0).sort((a, b) => b.packets - a.packets),
    applications: await deps.applications(WATCHED_AGE_MS),
    healthy: ok,
    faults: reasons,
  };
}
