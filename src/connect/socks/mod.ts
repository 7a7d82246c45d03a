/**
 * The doors of a client without privilege: a SOCKS5 server (RFC 1928: CONNECT and UDP ASSOCIATE, no authentication) and
 * forwarded ports. Invariant: it listens on loopback only, what a program says is bounded before it is read and what is not
 * SOCKS5 is closed at its first byte, a connection's two directions end each for itself, and one that broke in the tunnel is
 * broken here too. Knows nothing of packets.
 */
import { DialError, type DialReason, type TunnelConnection } from "../../exit/userspace/call.ts";
import type { Dialler } from "../../exit/userspace/dialler.ts";
import { acceptAll } from "../../io/accept.ts";
import { PROTOCOL_TCP, PROTOCOL_UDP } from "../../wire/inner.ts";
import { connectFirst } from "./eyeballs.ts";
import { CommandError } from "../../process/help.ts";
import type { Names } from "./names.ts";
import { reset } from "./reset.ts";
import { encodeTarget, readTarget, type Target, targetBytes } from "./target.ts";
import { Association } from "./udp.ts";

export interface Forward {
  /** Port here, on 127.0.0.1. */
  port: number;
  host: string;
  hostPort: number;
}

const VERSION = 5;
const NO_AUTHENTICATION = 0, NO_METHOD = 0xff;
const CONNECT = 1, UDP_ASSOCIATE = 3;
// Replies, RFC 1928 §6.
const SUCCEEDED = 0, FAILURE = 1, FORBIDDEN = 2, NETWORK_UNREACHABLE = 3, HOST_UNREACHABLE = 4, REFUSED = 5;
const TTL_EXPIRED = 6, BAD_COMMAND = 7, BAD_ADDRESS = 8;
const REPLY_OF: Record<DialReason, number> = {
  unreachable: NETWORK_UNREACHABLE,
  no_host: HOST_UNREACHABLE,
  refused: REFUSED,
  forbidden: FORBIDDEN,
  expired: TTL_EXPIRED,
  timeout: HOST_UNREACHABLE,
  full: FAILURE,
  broken: FAILURE,
};

const GREETING_MS = 10_000;
const CLIENTS_MAX = 1024;
const CHUNK_BYTES = 65536;

/** What is needed of a dialler. */
export type SocksDialler = Pick<Dialler, "connect" | "listen">;

export interface Doors {
  /** Where it listens; the port that was asked for, or the system's choice for 0. */
  readonly port: number;
  /** The port inside the tunnel that stands for a program's local one; undefined when that is no client's. */
  innerPort(protocol: number, port: number): number | undefined;
  close(): void;
}

/** By protocol and a program's port: the port inside. */
type InnerPorts = Map<number, number>;

function portKey(protocol: number, port: number): number {
  return protocol << 16 | port;
}

/** Serves SOCKS5 on a loopback address. Throws CommandError when the port is taken. */
export function serveSocks(dialler: SocksDialler, names: Names, host: string, port: number): Doors {
  return listen(
    host,
    port,
    "--socks",
    (client, inner) => serveClient(client, inner, dialler, names, host),
  );
}

/** Forwards a port of 127.0.0.1. Throws CommandError when the port is taken. */
export function forward(dialler: SocksDialler, names: Names, { port, host, hostPort }: Forward): Doors {
  return listen("127.0.0.1", port, "-L", async (client, inner) => {
    const connection = await dial(dialler, names, host, hostPort).catch((error) => {
      reset(client); // as the far end would have
      throw error;
    });
    await splice(client, inner, connection);
  });
}

function listen(
  hostname: string,
  port: number,
  flag: string,
  serve: (client: Deno.TcpConn, inner: InnerPorts) => Promise<void>,
): Doors {
  let listener: Deno.TcpListener;
  try {
    listener = Deno.listen({ hostname, port });
  } catch (error) {
    const reason = error instanceof Deno.errors.AddrInUse ? "it is taken" : (error as Error).message;
    throw new CommandError(
      `cannot listen on ${hostname}:${port}: ${reason}; choose another port with ${flag}`,
    );
  }
  const clients = new Set<Deno.TcpConn>();
  const inner: InnerPorts = new Map();
  acceptAll(listener, (client) => {
    if (clients.size >= CLIENTS_MAX) {
      client.close();
      return;
    }
    clients.add(client);
    try {
      client.setNoDelay(true);
    } catch {
      // It is gone already, which its first read will tell.
    }
    // Whatever ends a client ends only that client.
    serve(client, inner).catch(() => {}).finally(() => {
      clients.delete(client);
      shut(client);
    });
  }, () => {}); // no descriptor for one more, which the next one to end brings
  return {
    port: listener.addr.port,
    innerPort: (protocol, port) => inner.get(portKey(protocol, port)),
    close() {
      listener.close();
      clients.forEach(reset); // what is cut short is not to look whole
    },
  };
}

function shut(client: Deno.TcpConn): void {
  try {
    client.close();
  } catch {
    // It is closed already.
  }
}

async function serveClient(
  client: Deno.TcpConn,
  inner: InnerPorts,
  dialler: SocksDialler,
  names: Names,
  host: string,
): Promise<void> {
  const timer = setTimeout(() => shut(client), GREETING_MS);
  let command: number, target: Target | undefined;
  try {
    const reader = new Reader(client);
    if ((await reader.bytes(1))[0] !== VERSION) return;
    const [methods] = await reader.bytes(1);
    if (!(await reader.bytes(methods)).includes(NO_AUTHENTICATION)) {
      await writeAll(client, Uint8Array.of(VERSION, NO_METHOD));
      return;
    }
    await writeAll(client, Uint8Array.of(VERSION, NO_AUTHENTICATION));
    if ((await reader.bytes(1))[0] !== VERSION) return;
    [command] = await reader.bytes(2);
    target = await takeTarget(reader);
  } finally {
    clearTimeout(timer);
  }
  if (target === undefined) return await reply(client, BAD_ADDRESS);
  if (command === UDP_ASSOCIATE) return await associate(client, inner, dialler, names, host);
  if (command !== CONNECT) return await reply(client, BAD_COMMAND);
  let connection: TunnelConnection;
  try {
    connection = await dial(dialler, names, target.host, target.port);
  } catch (error) {
    return await reply(client, error instanceof DialError ? REPLY_OF[error.reason] : HOST_UNREACHABLE);
  }
  try {
    await reply(client, SUCCEEDED);
  } catch (error) {
    connection.close();
    throw error;
  }
  await splice(client, inner, connection);
}

/** The target of a request; undefined for an unknown type. */
async function takeTarget(reader: Reader): Promise<Target | undefined> {
  const start = await reader.bytes(2);
  const bytes = targetBytes(start[0], start[1]);
  if (bytes === undefined) return undefined;
  const whole = new Uint8Array(bytes);
  whole.set(start);
  whole.set(await reader.bytes(bytes - start.length), start.length);
  return readTarget(whole, 0)?.target;
}

async function reply(client: Deno.TcpConn, code: number, host = "0.0.0.0", port = 0): Promise<void> {
  await writeAll(client, Uint8Array.of(VERSION, code, 0, ...encodeTarget(host, port)));
}

/** Connects to whichever address of the name answers first. Throws DialError, or what the look-up threw. */
function dial(dialler: SocksDialler, names: Names, host: string, port: number): Promise<TunnelConnection> {
  return connectFirst(
    (found) => names.addresses(host, found),
    (address, signal) => dialler.connect(address, port, signal),
  );
}

/** Carries both directions until both have ended, or one has broken. */
async function splice(
  client: Deno.TcpConn,
  inner: InnerPorts,
  connection: TunnelConnection,
): Promise<void> {
  const key = portKey(PROTOCOL_TCP, client.remoteAddr.port);
  inner.set(key, connection.port);
  const outward = async () => {
    const chunk = new Uint8Array(CHUNK_BYTES);
    for (let count = await client.read(chunk); count !== null; count = await client.read(chunk)) {
      await connection.write(chunk.subarray(0, count));
    }
    connection.finish();
  };
  const inward = async () => {
    const chunk = new Uint8Array(CHUNK_BYTES);
    for (let count = await connection.read(chunk); count !== null; count = await connection.read(chunk)) {
      await writeAll(client, chunk.subarray(0, count));
    }
    await client.closeWrite();
  };
  try {
    await Promise.all([outward(), inward()]);
    shut(client);
  } catch {
    reset(client); // an end that looks like the end of the data would lie
  } finally {
    inner.delete(key);
    connection.close();
  }
}

/** UDP ASSOCIATE (connect/socks/udp.ts), until the program's connection ends. */
async function associate(
  client: Deno.TcpConn,
  inner: InnerPorts,
  dialler: SocksDialler,
  names: Names,
  host: string,
): Promise<void> {
  let key: number | undefined;
  let association: Association;
  try {
    association = new Association(dialler, names, host, (port, innerPort) => {
      key = portKey(PROTOCOL_UDP, port);
      inner.set(key, innerPort);
    });
  } catch {
    return await reply(client, FAILURE); // no descriptor, or no port, is left
  }
  try {
    await reply(client, SUCCEEDED, host, association.port);
    const rest = new Uint8Array(64);
    while (await client.read(rest) !== null);
  } finally {
    if (key !== undefined) inner.delete(key);
    association.close();
  }
}

/** Exact numbers of bytes from a connection. */
class Reader {
  constructor(readonly client: Deno.TcpConn) {}

  async bytes(count: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(count);
    for (let got = 0; got < count;) {
      const more = await this.client.read(bytes.subarray(got));
      if (more === null) throw new Error("cut off");
      got += more;
    }
    return bytes;
  }
}

async function writeAll(client: Deno.TcpConn, bytes: Uint8Array): Promise<void> {
  for (let written = 0; written < bytes.length;) written += await client.write(bytes.subarray(written));
}
