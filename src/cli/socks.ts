/**
 * The doors of a client without privilege: a SOCKS5 server (RFC 1928: CONNECT and UDP ASSOCIATE, no authentication) and
 * forwarded ports. Invariant: it listens on loopback only, what a program says is bounded before it is read, and a
 * connection's two directions end each for itself. Knows nothing of packets.
 */
import { DialError, type Dialler, type TunnelConnection, type TunnelSocket } from "../exit/dialler.ts";
import { PROTOCOL_TCP, PROTOCOL_UDP } from "../wire/inner.ts";
import { CommandError } from "./help.ts";
import { addressBytes, parseAddress } from "../wire/address.ts";

/** Names to addresses, through the tunnel. Throws when nobody answers. */
export type Resolve = (name: string) => Promise<string[]>;

export interface Forward {
  /** Port here, on 127.0.0.1. */
  port: number;
  host: string;
  hostPort: number;
}

const VERSION = 5;
const NO_AUTHENTICATION = 0, NO_METHOD = 0xff;
const CONNECT = 1, UDP_ASSOCIATE = 3;
const IPV4 = 1, NAME = 3, IPV6 = 4;
// Replies, RFC 1928 §6.
const SUCCEEDED = 0, FAILURE = 1, NETWORK_UNREACHABLE = 3, HOST_UNREACHABLE = 4, REFUSED = 5, TIMED_OUT = 6;
const BAD_COMMAND = 7, BAD_ADDRESS = 8;
const REPLY_OF = {
  unreachable: NETWORK_UNREACHABLE,
  refused: REFUSED,
  timeout: TIMED_OUT,
  full: FAILURE,
  broken: FAILURE,
};

const GREETING_MS = 10_000;
const CLIENTS_MAX = 1024;
const CHUNK_BYTES = 65536;
const NAMES_MAX = 256;

export interface Doors {
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
export function serveSocks(dialler: Dialler, resolve: Resolve, host: string, port: number): Doors {
  return listen(
    host,
    port,
    "--socks",
    (client, inner) => serveClient(client, inner, dialler, resolve, host),
  );
}

/** Forwards a port of 127.0.0.1. Throws CommandError when it is taken. */
export function forward(dialler: Dialler, resolve: Resolve, { port, host, hostPort }: Forward): Doors {
  return listen("127.0.0.1", port, "-L", async (client, inner) => {
    const connection = await dial(dialler, resolve, host, hostPort);
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
  const accept = async () => {
    for await (const client of listener) {
      if (clients.size >= CLIENTS_MAX) {
        client.close();
        continue;
      }
      clients.add(client);
      client.setNoDelay(true);
      // Whatever ends a client ends only that client.
      serve(client, inner).catch(() => {}).finally(() => {
        clients.delete(client);
        shut(client);
      });
    }
  };
  accept().catch(() => {});
  return {
    innerPort: (protocol, port) => inner.get(portKey(protocol, port)),
    close() {
      listener.close();
      clients.forEach(shut);
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
  dialler: Dialler,
  resolve: Resolve,
  host: string,
): Promise<void> {
  const timer = setTimeout(() => shut(client), GREETING_MS);
  const reader = new Reader(client);
  const [version, methods] = await reader.bytes(2);
  const offered = await reader.bytes(methods);
  if (version !== VERSION || !offered.includes(NO_AUTHENTICATION)) {
    await writeAll(client, Uint8Array.of(VERSION, NO_METHOD));
    return;
  }
  await writeAll(client, Uint8Array.of(VERSION, NO_AUTHENTICATION));
  const [, command] = await reader.bytes(3);
  const target = await readTarget((count) => reader.bytes(count));
  clearTimeout(timer);
  if (target === undefined) return await reply(client, BAD_ADDRESS);
  if (command === UDP_ASSOCIATE) return await associate(client, inner, dialler, resolve, host);
  if (command !== CONNECT) return await reply(client, BAD_COMMAND);
  let connection: TunnelConnection;
  try {
    connection = await dial(dialler, resolve, target.host, target.port);
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

interface Target {
  host: string;
  port: number;
}

/** Address type, address and port (RFC 1928 §5); undefined for an unknown type. */
async function readTarget(
  take: (count: number) => Promise<Uint8Array> | Uint8Array,
): Promise<Target | undefined> {
  const [type] = await take(1);
  let host: string;
  if (type === IPV4) host = (await take(4)).join(".");
  else if (type === IPV6) {
    const bytes = await take(16);
    host = Array.from({ length: 8 }, (_, i) => (bytes[2 * i] << 8 | bytes[2 * i + 1]).toString(16)).join(":");
  } else if (type === NAME) {
    const [length] = await take(1);
    host = String.fromCharCode(...await take(length));
  } else return undefined;
  const [high, low] = await take(2);
  return { host, port: high << 8 | low };
}

async function reply(client: Deno.TcpConn, code: number, host = "0.0.0.0", port = 0): Promise<void> {
  await writeAll(client, Uint8Array.of(VERSION, code, 0, ...encodeTarget(host, port)));
}

/** The inverse of `readTarget`, for addresses. */
function encodeTarget(address: string, port: number): number[] {
  const bytes = addressBytes(parseAddress(address)!);
  return [bytes.length === 4 ? IPV4 : IPV6, ...bytes, port >> 8, port & 255];
}

/** Connects to the first address of the name that answers. */
async function dial(
  dialler: Dialler,
  resolve: Resolve,
  host: string,
  port: number,
): Promise<TunnelConnection> {
  const addresses = await resolve(host);
  let failure: unknown = new DialError("unreachable", `${host} has no address`);
  for (const address of addresses) {
    try {
      return await dialler.connect(address, port);
    } catch (error) {
      failure = error;
    }
  }
  throw failure;
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
  } finally {
    inner.delete(key);
    connection.close();
    shut(client);
  }
}

/**
 * UDP ASSOCIATE (RFC 1928 §7): a port here for the program's datagrams, each with its target in front, until its
 * connection ends. Only the first sender is served, and fragments are refused.
 */
async function associate(
  client: Deno.TcpConn,
  inner: InnerPorts,
  dialler: Dialler,
  resolve: Resolve,
  host: string,
): Promise<void> {
  const outer = Deno.listenDatagram({ transport: "udp", hostname: host, port: 0 });
  let program: Deno.NetAddr | undefined;
  let socket: TunnelSocket | undefined;
  try {
    socket = dialler.listen(({ address, port, data }) => {
      if (!program) return;
      const head = Uint8Array.of(0, 0, 0, ...encodeTarget(address, port));
      const whole = new Uint8Array(head.length + data.length);
      whole.set(head);
      whole.set(data, head.length);
      outer.send(whole, program).catch(() => {}); // the program's own loss
    });
    const { port } = outer.addr as Deno.NetAddr;
    await reply(client, SUCCEEDED, host, port);
    const tunnel = socket;
    const names = new Map<string, string>();
    const carry = async () => {
      const buffer = new Uint8Array(CHUNK_BYTES);
      for (;;) {
        const [data, from] = await outer.receive(buffer);
        const sender = from as Deno.NetAddr;
        if (!program) {
          program = sender;
          inner.set(portKey(PROTOCOL_UDP, sender.port), tunnel.port);
        }
        if (sender.port !== program.port || sender.hostname !== program.hostname) continue;
        const datagram = await readDatagram(data);
        if (!datagram) continue;
        const { target, payload } = datagram;
        let address = parseAddress(target.host) ? target.host : names.get(target.host);
        if (address === undefined) {
          [address] = await resolve(target.host).catch(() => []);
          if (address === undefined) continue;
          if (names.size >= NAMES_MAX) names.clear();
          names.set(target.host, address);
        }
        tunnel.send(payload, address, target.port);
      }
    };
    carry().catch(() => {}); // ends with the socket
    const rest = new Uint8Array(64);
    while (await client.read(rest) !== null);
  } finally {
    if (program) inner.delete(portKey(PROTOCOL_UDP, program.port));
    socket?.close();
    outer.close();
  }
}

/** A datagram's target and payload; undefined when it is malformed or a fragment. */
async function readDatagram(data: Uint8Array): Promise<{ target: Target; payload: Uint8Array } | undefined> {
  if (data.length < 4 || data[2] !== 0) return undefined;
  let at = 3;
  try {
    const target = await readTarget((count) => {
      if (at + count > data.length) throw new RangeError("cut off");
      at += count;
      return data.subarray(at - count, at);
    });
    return target && { target, payload: data.subarray(at) };
  } catch (error) {
    if (error instanceof RangeError) return undefined;
    throw error;
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
