/**
 * The admin interface's listener, HTTP/1.1 and HTTP/2 without TLS on one port. Invariant: connections are bounded, each
 * of them must get an answer through in IDLE_MS, and no client, however it behaves, keeps the listener from closing; a
 * port that cannot be had is one sentence that names metrics_listen. Knows no routes. It accepts by itself, as no listener
 * of the platform's does all this: one dies of the first EMFILE, the other stops accepting without a word.
 */
import { getRequestListener } from "@hono/node-server";
import type { Logger } from "@logtape/logtape";
import { Buffer } from "node:buffer";
import { createServer as createHttp1 } from "node:http";
import { createServer as createHttp2 } from "node:http2";
import type { Socket } from "node:net";
import { Duplex } from "node:stream";
import { ConfigError, type Endpoint, formatEndpoint } from "../config.ts";
import { acceptAll } from "../io/accept.ts";
import type { createAdmin } from "./mod.ts";

/** Connections at once; another one takes the place of the one that has been quiet for longest. */
const CONNECTIONS_MAX = 64;
/** How long a connection may be without an answer that it took to its end: idle, half asked, or reading too slowly. */
const IDLE_MS = 60_000;
const SWEEP_MS = 1000;
/** What requests under way get when the listener closes. */
const GRACE_MS = 500;
/** How HTTP/2 without TLS begins (RFC 9113 section 3.4); no method of HTTP/1 has these letters. */
const HTTP2_PREFACE = "PRI";
/** Requests of one connection at once, in streams of HTTP/2 or one behind another: answers wait in memory. */
const REQUESTS_MAX = 16;

export interface AdminServer {
  readonly addr: { readonly hostname: string; readonly port: number };
  /** Stops listening, and ends within a second whatever is open. */
  shutdown(): Promise<void>;
}

/** A connection and how it fares. */
class Connection {
  readonly stream: Duplex;
  /** When it last took an answer to its end, or began. */
  quietSinceMs = performance.now();
  /** Requests whose answers are not through. */
  requests = 0;
  readonly #tcp: Deno.TcpConn;

  constructor(tcp: Deno.TcpConn, onClosed: (connection: Connection) => void) {
    this.#tcp = tcp;
    try {
      tcp.setNoDelay(true);
    } catch (error) {
      tcp.close(); // nobody else has it yet
      throw error;
    }
    const self = () => this.stream as unknown as Socket;
    // What the servers ask of a socket; they are not the ones who bound it.
    this.stream = Object.assign(
      Duplex.fromWeb(
        { readable: tcp.readable, writable: tcp.writable } as Parameters<typeof Duplex.fromWeb>[0],
      ),
      { setTimeout: self, setNoDelay: self, setKeepAlive: self, ref: self, unref: self },
    );
    this.stream.on("error", () => {}); // its close says enough
    this.stream.on("close", () => onClosed(this));
  }

  /** Counts a request until its answer is through, or never can be; false, and the end, when there are too many. */
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
    this.stream.destroy();
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
  log.info("metrics, health and dashboard at {url}", { url });
  const connections = new Set<Connection>();
  const end = (connection: Connection) => {
    connections.delete(connection); // now, as others may come before it says that it is closed
    connection.end();
  };
  const speak = protocols(app, log);
  const accepting = acceptAll(listener, (tcp) => {
    if (connections.size >= connectionsMax) end(quietest(connections));
    const connection = new Connection(tcp, end);
    connections.add(connection);
    speak(connection);
  }, (error) => log.warn("a connection could not be taken: {message}", { message: error.message }));
  const sweeping = setInterval(() => {
    const nowMs = performance.now();
    for (const connection of connections) if (nowMs - connection.quietSinceMs > idleMs) end(connection);
  }, Math.min(SWEEP_MS, idleMs));

  return {
    addr: { hostname, port },
    async shutdown() {
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
    },
  };
}

/** What reads a new connection's first bytes and has its protocol served. */
function protocols(app: ReturnType<typeof createAdmin>, log: Logger): (connection: Connection) => void {
  const answer = getRequestListener(app.fetch, {
    overrideGlobalObjects: false,
    errorHandler(error) {
      log.error("an HTTP request failed: {error}", { error });
      return new Response(null, { status: 500 });
    },
  });
  // By what the servers have of a connection: its stream, or the session that HTTP/2 made of it.
  const connectionOf = new WeakMap<object, Connection>();
  const http1 = createHttp1((request, response) => {
    if (connectionOf.get(request.socket)?.takes(response)) return answer(request, response);
  });
  const http2 = createHttp2({ settings: { maxConcurrentStreams: REQUESTS_MAX } }, (request, response) => {
    if (connectionOf.get(request.stream.session!)?.takes(response)) return answer(request, response);
  });
  let speaking: Connection | undefined;
  http2.on("session", (session) => {
    session.on("error", () => {});
    if (speaking) connectionOf.set(session, speaking);
  });
  http2.on("sessionError", () => {});
  return (connection) => {
    const { stream } = connection;
    connectionOf.set(stream, connection);
    let start = "";
    const parts: Uint8Array[] = [];
    stream.on("readable", function look() {
      for (let part: Uint8Array | null; (part = stream.read()) !== null;) {
        parts.push(part);
        start += String.fromCharCode(...part.subarray(0, HTTP2_PREFACE.length - start.length));
      }
      if (start === "") return; // it has ended
      // A preface may come in pieces; who never sends the rest is idle.
      if (start.length < HTTP2_PREFACE.length && HTTP2_PREFACE.startsWith(start)) return;
      stream.off("readable", look);
      stream.unshift(Buffer.concat(parts));
      const isHttp2 = start === HTTP2_PREFACE;
      speaking = connection;
      (isHttp2 ? http2 : http1).emit("connection", stream);
      speaking = undefined;
    });
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
