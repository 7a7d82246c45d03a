/**
 * The admin interface's listener, HTTP/1.1 and HTTP/2 without TLS on one port. Invariant: connections are bounded, each
 * must complete an answer within IDLE_MS, and no client can keep the listener from closing; a port that cannot be opened is
 * reported in one sentence that names metrics_listen. Knows no routes. Runs its own accept loop, because the listeners of the
 * platform do not meet this: one ends with the first EMFILE, the other stops accepting without an error.
 */
import { getRequestListener } from "@hono/node-server";
import type { Logger } from "@logtape/logtape";
import { createServer as createHttp1 } from "node:http";
import { createServer as createHttp2 } from "node:http2";
import type { Socket } from "node:net";
import { Duplex } from "node:stream";
import { ConfigError, type Endpoint, formatEndpoint } from "../config.ts";
import { acceptAll } from "../io/accept.ts";
import type { createAdmin } from "./mod.ts";

/** Connections at once; a further one replaces the one that has been quiet for longest. */
const CONNECTIONS_MAX = 64;
/** How long a connection may go without a completed answer: idle, with half a request, or reading too slowly. */
const IDLE_MS = 60_000;
const SWEEP_MS = 1000;
/** Time for requests in progress when the listener closes. */
export const GRACE_MS = 500;
/** Bytes of a connection that are read at first. */
const FIRST_BYTES = 1024;
/** How HTTP/2 without TLS begins (RFC 9113 section 3.4); no method of HTTP/1 has these letters. */
const HTTP2_PREFACE = "PRI";
/** Requests of one connection at once, in streams of HTTP/2 or one behind another: the answers wait in memory. */
const REQUESTS_MAX = 16;

export interface AdminServer {
  readonly addr: { readonly hostname: string; readonly port: number };
  /** Stops listening, and ends all connections within a second. May be called again. */
  shutdown(): Promise<void>;
}

/** Whether more bytes are needed to recognise the protocol. */
function mayBecomePreface(start: Uint8Array): boolean {
  return start.length < HTTP2_PREFACE.length && HTTP2_PREFACE.startsWith(String.fromCharCode(...start));
}

/** A connection and its state. */
class Connection {
  /** When the last answer was completed, or the connection began. */
  quietSinceMs = performance.now();
  /** Requests whose answers are not complete. */
  requests = 0;
  /** Settled once the client has sent something or the connection is closed. */
  begun = Promise.resolve();
  readonly #tcp: Deno.TcpConn;
  #stream: Duplex | undefined;

  constructor(tcp: Deno.TcpConn) {
    this.#tcp = tcp;
    try {
      tcp.setNoDelay(true);
    } catch (error) {
      tcp.close(); // nobody else has it yet
      throw error;
    }
  }

  /**
   * Waits for the first bytes and gives a stream of these and all later bytes; buffers are allocated only then, so that silent
   * connections have none. Rejects when the connection ends first.
   */
  async begin(onClosed: () => void): Promise<{ stream: Duplex; first: Uint8Array }> {
    const piece = new Uint8Array(FIRST_BYTES);
    let count = 0;
    // A preface may come in pieces; a client that never sends the rest counts as idle.
    while (mayBecomePreface(piece.subarray(0, count))) {
      const more = await this.#tcp.read(piece.subarray(count));
      if (more === null) throw new Error("the connection ended before its protocol was known");
      count += more;
    }
    const { readable, writable } = this.#tcp;
    const stream = Duplex.fromWeb({ readable, writable } as Parameters<typeof Duplex.fromWeb>[0]);
    const self = () => stream as unknown as Socket;
    // The socket's methods that the servers call; their bounds do not apply here.
    const methods = { setTimeout: self, setNoDelay: self, setKeepAlive: self, ref: self, unref: self };
    Object.assign(stream, methods, { remoteAddress: (this.#tcp.remoteAddr as Deno.NetAddr).hostname });
    stream.on("error", () => {}); // its close says enough
    stream.on("close", onClosed);
    const first = piece.subarray(0, count);
    stream.unshift(first);
    this.#stream = stream;
    return { stream, first };
  }

  /** Counts a request until its answer is complete or impossible; false, and the connection ends, when there are too many. */
  takes(response: { on(event: "close", act: () => void): unknown }): boolean {
    if (this.requests >= REQUESTS_MAX) {
      this.end();
      return false;
    }
    this.requests++;
    response.on("close", () => {
      this.requests--;
      this.quietSinceMs = performance.now();
    });
    return true;
  }

  end(): void {
    this.#stream?.destroy();
    try {
      this.#tcp.close();
    } catch {
      // It is closed already.
    }
  }
}

/** Starts listening. Throws ConfigError when the address is taken, not this machine's, or reserved for root. */
export function serveAdmin(
  app: ReturnType<typeof createAdmin>,
  listen: Endpoint,
  log: Logger,
  { connectionsMax = CONNECTIONS_MAX, idleMs = IDLE_MS } = {},
): AdminServer {
  const listener = bind(listen);
  const { hostname, port } = listener.addr as Deno.NetAddr;
  const url = `http://${formatEndpoint({ host: hostname, port })}/`;
  log.info("metrics, health and the page at {url}", { url });
  const connections = new Set<Connection>();
  const end = (connection: Connection) => {
    connections.delete(connection); // now, as others may come before it says that it is closed
    connection.end();
  };
  const speak = protocols(app, log);
  const accepting = acceptAll(listener, (tcp) => {
    const evicted = connections.size >= connectionsMax ? quietest(connections) : undefined;
    if (evicted) end(evicted);
    const connection = new Connection(tcp);
    connections.add(connection);
    connection.begun = connection.begin(() => end(connection))
      .then(({ stream, first }) => speak(connection, stream, first))
      .catch(() => end(connection));
    return evicted?.begun; // a read that is cut off keeps its descriptor until it has noticed
  }, (error) => log.warn("a connection could not be taken: {message}", { message: error.message }));
  const sweeping = setInterval(() => {
    const nowMs = performance.now();
    for (const connection of connections) if (nowMs - connection.quietSinceMs > idleMs) end(connection);
  }, Math.min(SWEEP_MS, idleMs));

  const close = async () => {
    clearInterval(sweeping);
    listener.close();
    await accepting;
    const lastMs = performance.now() + GRACE_MS;
    for (;;) {
      for (const connection of connections) {
        if (connection.requests === 0 || performance.now() >= lastMs) end(connection);
      }
      if (connections.size === 0) return;
      await new Promise((resolve) => setTimeout(resolve, GRACE_MS / 20));
    }
  };
  let closing: Promise<void> | undefined;
  return { addr: { hostname, port }, shutdown: () => closing ??= close() };
}

/** Serves a connection by the protocol that its first bytes reveal. */
function protocols(
  app: ReturnType<typeof createAdmin>,
  log: Logger,
): (connection: Connection, stream: Duplex, first: Uint8Array) => void {
  const answer = getRequestListener(app.fetch, {
    overrideGlobalObjects: false,
    errorHandler(error) {
      log.error("an HTTP request failed: {error}", { error });
      return new Response(null, { status: 500 });
    },
  });
  // Keyed by the object that the servers know of a connection: its stream, or its HTTP/2 session.
  const connectionOf = new WeakMap<object, Connection>();
  const http1 = createHttp1((request, response) => {
    if (connectionOf.get(request.socket)?.takes(response)) return answer(request, response);
  });
  // A server that does not listen ends each connection with its first answer.
  Object.defineProperty(http1, "listening", { value: true });
  const http2 = createHttp2({ settings: { maxConcurrentStreams: REQUESTS_MAX } }, (request, response) => {
    if (connectionOf.get(request.stream.session!)?.takes(response)) return answer(request, response);
  });
  let speaking: Connection | undefined;
  http2.on("session", (session) => {
    session.on("error", () => {});
    if (speaking) connectionOf.set(session, speaking);
  });
  http2.on("sessionError", () => {});
  return (connection, stream, first) => {
    connectionOf.set(stream, connection);
    const isHttp2 = String.fromCharCode(...first.subarray(0, HTTP2_PREFACE.length)) === HTTP2_PREFACE;
    speaking = connection;
    (isHttp2 ? http2 : http1).emit("connection", stream);
    speaking = undefined;
  };
}

/** The connection that has gone longest without an answer. */
function quietest(connections: Iterable<Connection>): Connection {
  return [...connections].reduce((one, other) => other.quietSinceMs < one.quietSinceMs ? other : one);
}

function bind(listen: Endpoint): Deno.TcpListener {
  try {
    return Deno.listen({ hostname: listen.host, port: listen.port });
  } catch (error) {
    throw new ConfigError(explain(error, formatEndpoint(listen)), { cause: error });
  }
}

function explain(error: unknown, address: string): string {
  if (error instanceof Deno.errors.AddrInUse) {
    return `metrics_listen: ${address} is taken by another program (a second relay?); ` +
      "stop that one or choose another port";
  }
  if (error instanceof Deno.errors.AddrNotAvailable) {
    return `metrics_listen: ${address} is no address of this machine; choose one of its own, or 127.0.0.1`;
  }
  if (error instanceof Deno.errors.PermissionDenied) {
    return `metrics_listen: ${address} needs root; choose a port of 1024 or more`;
  }
  throw error;
}
