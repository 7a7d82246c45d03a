/**
 * The admin interface's listener, HTTP/1.1 and HTTP/2 without TLS on one port. Invariant: connections are bounded, each
 * of them must get an answer through in IDLE_MS, and no client, however it behaves, keeps the listener from closing; a
 * port that cannot be had is one sentence that names metrics_listen. Knows no routes.
 */
import { getRequestListener } from "@hono/node-server";
import type { Logger } from "@logtape/logtape";
import { createServer as createHttp1 } from "node:http";
import { createServer as createHttp2 } from "node:http2";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { ConfigError, type Endpoint, formatEndpoint } from "../config.ts";
import type { createAdmin } from "./mod.ts";

/** Connections at once; another one takes the place of the one that has been quiet for longest. */
export const CONNECTIONS_MAX = 64;
/** How long a connection may be without an answer that it took to its end: idle, half asked, or reading too slowly. */
const IDLE_MS = 60_000;
const SWEEP_MS = 1000;
/** What requests under way get when the listener closes. */
const GRACE_MS = 500;
/** How HTTP/2 without TLS begins (RFC 9113 section 3.4); no method of HTTP/1 has these letters. */
const HTTP2_PREFACE = "PRI";
const STREAMS_MAX = 16;

export interface AdminServer {
  readonly addr: { readonly hostname: string; readonly port: number };
  /** Stops listening, and ends within a second whatever is open. */
  shutdown(): Promise<void>;
}

interface Connection {
  /** When it last took an answer to its end, or began. */
  quietSinceMs: number;
  /** Requests whose answers are not through. */
  requests: number;
}

/** Starts listening. Throws ConfigError when the address is taken, not this machine's, or reserved for root. */
export async function serveAdmin(
  app: ReturnType<typeof createAdmin>,
  listen: Endpoint,
  log: Logger,
  { connectionsMax = CONNECTIONS_MAX, idleMs = IDLE_MS } = {},
): Promise<AdminServer> {
  const connections = new Map<Socket, Connection>();
  const door = createServer((socket) => {
    socket.on("error", () => {}); // its close says enough
    if (connections.size >= connectionsMax) quietest(connections)?.destroy();
    connections.set(socket, { quietSinceMs: performance.now(), requests: 0 });
    socket.on("close", () => connections.delete(socket));
    speak(socket);
  });
  const speak = protocols(app, connections, log);
  door.on("error", (error) => log.warn("a connection could not be taken: {error}", { error }));
  await bind(door, listen);
  const { address, port } = door.address() as AddressInfo;
  log.info("metrics, health and dashboard at {url}", {
    url: `http://${formatEndpoint({ host: address, port })}/`,
  });
  const sweeping = setInterval(() => {
    const nowMs = performance.now();
    for (const [socket, { quietSinceMs }] of connections) if (nowMs - quietSinceMs > idleMs) socket.destroy();
  }, Math.min(SWEEP_MS, idleMs));

  return {
    addr: { hostname: address, port },
    async shutdown() {
      clearInterval(sweeping);
      const closed = new Promise<void>((resolve) => door.close(() => resolve()));
      for (const [socket, { requests }] of connections) if (requests === 0) socket.destroy();
      const graceEnds = setTimeout(() => {
        for (const socket of connections.keys()) socket.destroy();
      }, GRACE_MS);
      await closed;
      clearTimeout(graceEnds);
    },
  };
}

/** What reads a new connection's first bytes and has its protocol served. */
function protocols(
  app: ReturnType<typeof createAdmin>,
  connections: Map<Socket, Connection>,
  log: Logger,
): (socket: Socket) => void {
  const answer = getRequestListener(app.fetch, {
    overrideGlobalObjects: false,
    errorHandler(error) {
      log.error("an HTTP request failed: {error}", { error });
      return new Response(null, { status: 500 });
    },
  });
  const sessions = new WeakMap<object, Socket>();
  const watch = (socket: Socket | undefined, response: { on(event: "close", act: () => void): unknown }) => {
    const connection = socket && connections.get(socket);
    if (connection === undefined) return;
    connection.requests++;
    response.on("close", () => {
      connection.requests--;
      connection.quietSinceMs = performance.now();
    });
  };
  const http1 = createHttp1((request, response) => {
    watch(request.socket as Socket, response);
    return answer(request, response);
  });
  const http2 = createHttp2({ settings: { maxConcurrentStreams: STREAMS_MAX } }, (request, response) => {
    watch(sessions.get(request.stream.session!), response);
    return answer(request, response);
  });
  let speaking: Socket | undefined;
  http2.on("session", (session) => {
    session.on("error", () => {});
    if (speaking) sessions.set(session, speaking);
  });
  http2.on("sessionError", () => {});
  return (socket) =>
    socket.once("readable", () => {
      const first = socket.read();
      if (first === null) return; // it has ended
      socket.unshift(first);
      const isHttp2 = String.fromCharCode(...first.subarray(0, HTTP2_PREFACE.length)) === HTTP2_PREFACE;
      speaking = socket;
      (isHttp2 ? http2 : http1).emit("connection", socket);
      speaking = undefined;
    });
}

/** The connection that has gone longest without an answer. */
function quietest(connections: Map<Socket, Connection>): Socket | undefined {
  let found: Socket | undefined, sinceMs = Infinity;
  for (const [socket, { quietSinceMs }] of connections) {
    if (quietSinceMs < sinceMs) [found, sinceMs] = [socket, quietSinceMs];
  }
  return found;
}

async function bind(door: ReturnType<typeof createServer>, listen: Endpoint): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  door.once("error", reject);
  try {
    door.listen(listen.port, listen.host, () => resolve());
    await promise;
  } catch (error) {
    throw new ConfigError(explain(error as Error & { code?: string }, formatEndpoint(listen)), {
      cause: error,
    });
  }
  door.off("error", reject);
}

function explain({ code, message }: Error & { code?: string }, address: string): string {
  if (code === "EADDRINUSE") {
    return `metrics_listen: ${address} is taken by another program (a second relay?); ` +
      "stop that one or choose another port";
  }
  if (code === "EADDRNOTAVAIL") {
    return `metrics_listen: ${address} is no address of this machine; choose one of its own, or 127.0.0.1`;
  }
  if (code === "EACCES") {
    return `metrics_listen: ${address} needs root; choose a port of 1024 or more`;
  }
  return `metrics_listen: cannot listen on ${address}: ${message}`;
}
