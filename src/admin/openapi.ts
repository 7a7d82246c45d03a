/**
 * /v1 as an OpenAPI 3.1 document: what each route does, takes and answers. Invariant: the schemas are those of shapes.ts, which check the
 * requests; a test asks every route and holds its answers against this document, and no route is missing in it. Carries out nothing.
 */
import { toJsonSchema } from "@valibot/to-json-schema";
import type { Hono, MiddlewareHandler } from "hono";
import { describeRoute, generateSpecs } from "hono-openapi";
import * as v from "valibot";
import * as shapes from "./shapes.ts";

/** A route of the document. */
interface Documented {
  summary: string;
  /** Without a token or a cookie. */
  isOpen?: true;
  query?: Record<string, string>;
  body?: v.GenericSchema;
  /** Status of success, what it means, and the answer's shape. */
  success: [status: number, means: string, shape?: v.GenericSchema];
  /** Headers of the successful answer. */
  headers?: Record<string, string>;
  /** Statuses of refusals beside 401, 403 and 500. */
  refusals?: number[];
}

const Anything = v.record(v.string(), v.unknown());

const ROUTES = {
  "GET /v1/hello": {
    summary: "Proves that the relay knows the admin token: HMAC-SHA256 of its own URL and the nonce.",
    isOpen: true,
    query: { nonce: "43 characters of base64url, used once" },
    success: [200, "the proof, base64url", shapes.HelloAnswer],
    refusals: [400],
  },
  "POST /v1/sign-in": {
    summary: "Begins a session of the page with the admin token; the answer sets its cookie.",
    isOpen: true,
    body: shapes.TokenBody,
    success: [204, "signed in"],
    headers: { "Set-Cookie": "the session's cookie, HttpOnly and SameSite=Strict" },
    refusals: [400, 413, 415, 429],
  },
  "POST /v1/sign-out": {
    summary: "Ends the session of the cookie, if there is one.",
    isOpen: true,
    success: [204, "signed out"],
    headers: { "Set-Cookie": "takes the cookie away" },
  },
  "GET /v1/status": {
    summary: "Everything at one moment: counters, drops by reason, all peers, recognised applications.",
    success: [200, "the relay's state", shapes.StatusAnswer],
  },
  "GET /v1/overview": {
    summary: "The relay at a glance, without its peers: cheap enough to be asked each second.",
    success: [200, "the relay's state", shapes.Overview],
  },
  "GET /v1/history": {
    summary: "What the relay carried: the last ten minutes by the second, or the last day by the minute.",
    query: { span: '"minutes" (the default) or "day"' },
    success: [200, "samples, the oldest first", shapes.HistoryAnswer],
    refusals: [400],
  },
  "GET /v1/events": {
    summary: "The last events, the oldest first; clients' addresses as their networks only.",
    query: { after: "only events with a greater number" },
    success: [200, "events", v.array(shapes.RelayEvent)],
    refusals: [400],
  },
  "GET /v1/sessions": {
    summary: "The key epochs of all sessions.",
    success: [200, "epochs", v.array(shapes.SessionRow)],
  },
  "GET /v1/config": {
    summary: "The configuration in force, without secrets.",
    success: [200, "keys and values", Anything],
  },
  "POST /v1/reload": {
    summary: "Reads peers, certificate, token and the reloadable keys of the configuration again.",
    success: [200, "what has changed", shapes.ReloadAnswer],
    refusals: [409],
  },
  "GET /v1/peers": {
    summary: "Peers, each with its limits, live state and traffic. All of them, or one page.",
    query: {
      search: "words that each peer must have: in name, notes, addresses, endpoint, key, state or protocol",
      sort: `one of ${shapes.SORTS.join(", ")}; "name" if absent`,
      order: '"asc" (the default) or "desc"; what is unknown comes last in both',
      page: "from 1; one behind the last is the last",
      perPage: `1 to ${shapes.PER_PAGE_MAX}; ${shapes.PER_PAGE_DEFAULT} where only page is given`,
    },
    success: [200, "peers", v.array(shapes.PeerRow)],
    headers: { "X-Total-Count": "how many peers the search has found on all pages" },
    refusals: [400],
  },
  "POST /v1/peers": {
    summary:
      "Adds a peer. Without a public key the relay makes a key pair, and this answer alone has the private key, the WireGuard " +
      "configuration and the invitation for `connect`, with their QR codes.",
    body: shapes.NewPeer,
    success: [201, "the peer", shapes.NewPeerAnswer],
    refusals: [400, 409, 413, 415],
  },
  "GET /v1/peers/{name}": {
    summary: "One peer.",
    success: [200, "the peer", shapes.PeerRow],
    refusals: [400, 404],
  },
  "PATCH /v1/peers/{name}": {
    summary:
      "Changes a peer: what is absent stays, null takes a value away. Disabling ends its sessions at once; a new name leaves them.",
    body: shapes.PeerChange,
    success: [204, "changed"],
    refusals: [400, 404, 409, 413, 415],
  },
  "DELETE /v1/peers/{name}": {
    summary: "Ends the peer's sessions and removes it. It can be restored for ten seconds.",
    success: [204, "removed"],
    refusals: [400, 404, 409],
  },
  "POST /v1/peers/{name}/restore": {
    summary: "Takes back a removal of the last ten seconds: the same keys, addresses and limits.",
    success: [204, "restored"],
    refusals: [400, 404, 409],
  },
  "POST /v1/peers/{name}/ping": {
    summary: "Asks a peer for an echo inside the tunnel.",
    success: [200, "milliseconds, or null from a peer that does not answer", shapes.PingAnswer],
    refusals: [400, 404],
  },
  "POST /v1/peers/{name}/forwards": {
    summary: 'Adds port forwards to a peer and opens them, all or none: "udp:27015", "tcp:8000-8010:9000".',
    body: shapes.NewForwards,
    success: [201, "the peer", shapes.PeerAnswer],
    refusals: [400, 404, 409, 413, 415],
  },
  "DELETE /v1/peers/{name}/forwards/{forward}": {
    summary: "Closes a port forward.",
    success: [204, "closed"],
    refusals: [400, 404, 409],
  },
  "GET /v1/links": {
    summary: "One-time links, the newest first, without their tokens.",
    success: [200, "links", v.array(shapes.Link)],
  },
  "POST /v1/links": {
    summary:
      "Makes a one-time link for a new device. This answer alone has its token; the address is /link#TOKEN. Without " +
      "linkExpires it works for a day.",
    body: shapes.NewLink,
    success: [201, "the link", shapes.NewLinkAnswer],
    refusals: [400, 409, 413, 415],
  },
  "DELETE /v1/links/{id}": {
    summary: "Makes a link useless.",
    success: [204, "revoked"],
    refusals: [400, 404, 409],
  },
  "POST /v1/links/redeem": {
    summary: "Uses a one-time link: adds its device and answers as POST /v1/peers does.",
    isOpen: true,
    body: shapes.TokenBody,
    success: [201, "the device", shapes.NewPeerAnswer],
    refusals: [400, 404, 409, 413, 415],
  },
  "GET /v1/openapi.json": {
    summary: "This document.",
    success: [200, "OpenAPI 3.1", Anything],
  },
} satisfies Record<string, Documented>;

/** The routes of the document, each "METHOD /path/{parameter}". */
export type Route = keyof typeof ROUTES;

const MEANINGS: Record<number, string> = {
  400: "the request is malformed; the field says where",
  401: "no token, or a wrong one",
  403: "the request comes from another site's page, or through a proxy that does not pass Host",
  404: "there is no such thing",
  409: "it cannot be granted, or only in part; the message says why",
  413: `the body is longer than ${16 << 10} bytes`,
  415: "the body is not application/json",
  429: "too many failed attempts",
  500: "the relay failed to answer; its log says why",
};

/** The schema as OpenAPI 3.1 has it: what goes over the wire, before any check changes it. */
function schemaOf(shape: v.GenericSchema) {
  const { $schema: _, ...schema } = toJsonSchema(shape, { errorMode: "ignore", typeMode: "input" });
  return schema as Record<string, unknown>;
}

const json = (shape: v.GenericSchema) => ({ "application/json": { schema: schemaOf(shape) } });

/** The part of the document for a route, as a middleware that only carries it. */
export function described(route: Route): MiddlewareHandler {
  const { summary, isOpen, query = {}, body, success, headers = {}, refusals = [] }: Documented =
    ROUTES[route];
  const [status, means, shape] = success;
  const described = Object.entries(headers).map(([name, description]) => [name, {
    description,
    schema: { type: "string" as const },
  }]);
  // Even an open route refuses another site's page and a wrong token, where it takes one.
  const all = [...refusals, 403, 500, ...(isOpen && body === undefined ? [] : [401])];
  return describeRoute({
    summary,
    security: isOpen ? [] : [{ token: [] }, { cookie: [] }],
    parameters: Object.entries(query).map(([name, description]) => ({
      in: "query" as const,
      name,
      description,
      schema: { type: "string" as const },
    })),
    ...(body === undefined ? {} : { requestBody: { required: true, content: json(body) } }),
    responses: {
      [status]: {
        description: means,
        headers: Object.fromEntries(described),
        ...(shape === undefined ? {} : { content: json(shape) }),
      },
      ...Object.fromEntries(all.map((status) => [status, {
        description: MEANINGS[status],
        content: json(shapes.ErrorAnswer),
      }])),
    },
  });
}

/** Serves the document, made once. To be added last. */
export function addDocument(app: Hono, version: () => string): void {
  let document: Promise<unknown> | undefined;
  app.get("/v1/openapi.json", described("GET /v1/openapi.json"), async (c) => {
    document ??= generateSpecs(app, {
      excludeStaticFile: false, // a route with a dot is one
      documentation: {
        openapi: "3.1.0",
        info: {
          title: "Oxrelay's admin interface",
          version: version(),
          description:
            "For the operator of a relay. Every refusal is an ErrorAnswer. Rates are bits a second, counts of " +
            "traffic bytes of datagrams from the relay's side, times in UTC.",
        },
        components: {
          securitySchemes: {
            token: { type: "http", scheme: "bearer" },
            cookie: { type: "apiKey", in: "cookie", name: "oxrelay_session" },
          },
        },
      },
    });
    return c.json(await document as Record<string, unknown>);
  });
}
