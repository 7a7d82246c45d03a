/**
 * OxTunnel over TLS, for clients to whom UDP is blocked: accepts connections in the main thread, where an event loop
 * serves them, and carries their datagrams to the Workers and back. Invariant: connections are bounded, in all, of one
 * source, and while nothing authentic has come from them; a certificate that cannot be read never ends the one in use.
 * The tunnel's security does not rest on TLS: it authenticates itself.
 * Keeps PROTOCOL R88.
 */
import { createPrivateKey, X509Certificate } from "node:crypto";
import type { Socket } from "node:net";
import { createServer, type Server, type TlsOptions, type TLSSocket } from "node:tls";
import { type Config, type FallbackConfig, formatEndpoint } from "../config.ts";
import { monotonicUs } from "../io/driver.ts";
import { Mailbox, type Mailboxes } from "../io/mailbox.ts";
import { SocketStream } from "../io/socket_stream.ts";
import { StreamPort } from "../io/stream_port.ts";
import { pumpStreams } from "../io/stream_pump.ts";
import { Metrics } from "../metrics.ts";
import { Admission } from "../session/admission.ts";
import { formatAddress, isIpv4, parseAddress } from "../wire/address.ts";
import { streamNumberOf } from "../wire/stream.ts";
import { CommandError } from "./help.ts";
import { logger, redactAddress } from "./logging.ts";

const CONNECTIONS_MAX = 1024, UNPROVEN_MAX = 256, OF_ONE_SOURCE_MAX = 16;
const PROVEN_MS = 10_000;
/** As long as a key lives (PROTOCOL §15): a session that is used is answered more often. */
const IDLE_MS = 180_000;
const SWEEP_MS = 1000;

interface Source {
  words: Uint32Array;
  /** What is counted together: an IPv4 address or an IPv6 /64. */
  key: string;
  text: string;
}

export class FallbackDoor {
  readonly description: string;
  /** What was lost here. */
  readonly metrics = new Metrics();
  readonly #config: FallbackConfig;
  readonly #port: StreamPort;
  readonly #admission: Admission;
  readonly #endPump: () => Promise<void>;
  readonly #sweeping: ReturnType<typeof setInterval>;
  /** Where each connection comes from. */
  readonly #sources = new Map<number, Source>();
  readonly #ofOne = new Map<string, number>();
  /** All connections, those in their TLS handshake too. */
  readonly #sockets = new Set<Socket>();
  readonly #server: Server;
  #material: TlsMaterial;

  /** Listens at once. `mailboxes` has one behind those of the Workers. Throws CommandError. */
  static async open(config: Config, fallback: FallbackConfig, mailboxes: Mailboxes): Promise<FallbackDoor> {
    const material = await readMaterial(fallback);
    const server = serverOf(fallback, material);
    await listen(server, fallback);
    return new FallbackDoor(config, fallback, mailboxes, material, server);
  }

  private constructor(
    config: Config,
    fallback: FallbackConfig,
    mailboxes: Mailboxes,
    material: TlsMaterial,
    server: Server,
  ) {
    this.#config = fallback;
    this.#material = material;
    this.#server = server;
    this.description = `${formatEndpoint(fallback.listen)}/tcp`;
    const onDrop = (code: number) => this.metrics.drop(code);
    this.#port = new StreamPort({
      description: this.description,
      localPort: fallback.listen.port,
      onDrop,
      admits: (number) => this.#admits(number),
      onClosed: (number) => this.#sources.delete(number),
      provenMs: PROVEN_MS,
      idleMs: IDLE_MS,
    });
    const [seed] = crypto.getRandomValues(new Uint32Array(1));
    this.#admission = new Admission(Infinity, config.rateLimitPerIp, seed);
    const mailbox = new Mailbox(config.workers, mailboxes, onDrop);
    this.#endPump = pumpStreams(this.#port, mailbox, config.workers);
    this.#sweeping = setInterval(() => this.#port.sweep(), SWEEP_MS);
    server.on("connection", (socket: Socket) => this.#admit(socket));
    server.on("secureConnection", (socket: TLSSocket) => this.#take(socket));
    server.on("tlsClientError", (_, socket) => socket.destroy());
  }

  /** An endpoint's text for people: a connection's as where it comes from, any other as it is. */
  named(endpoint: string | undefined): string | undefined {
    const number = endpoint === undefined ? undefined : streamNumberOf(endpoint);
    return number === undefined ? endpoint : `${this.#sources.get(number)?.text ?? "closed"} (TLS)`;
  }

  /** Takes over what a reload may change: the limit of a source, and the files' contents. Throws CommandError. */
  async tune(config: Config): Promise<void> {
    this.#admission.ratePerSecond = config.rateLimitPerIp;
    const material = await readMaterial(this.#config);
    if (material.cert === this.#material.cert && material.key === this.#material.key) return;
    serverOf(this.#config, material); // throws what would be wrong
    this.#server.setSecureContext(material); // connections that are open stay
    this.#material = material;
    logger("fallback").info("the new certificate is in use");
  }

  async close(): Promise<void> {
    clearInterval(this.#sweeping);
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const socket of this.#sockets) socket.destroy();
    this.#port.close();
    await closed;
    await this.#endPump();
  }

  /** Bounds connections from before their TLS handshake until they are closed. */
  #admit(socket: Socket): void {
    socket.on("error", () => {}); // its close says enough
    const source = sourceOf(socket);
    const ofOne = source === undefined ? 0 : this.#ofOne.get(source.key) ?? 0;
    const unproven = this.#sockets.size - this.#port.count + this.#port.unproven;
    const isFull = this.#sockets.size >= CONNECTIONS_MAX || unproven >= UNPROVEN_MAX;
    if (source === undefined || isFull || ofOne >= OF_ONE_SOURCE_MAX) {
      socket.destroy();
      return;
    }
    this.#ofOne.set(source.key, ofOne + 1);
    this.#sockets.add(socket);
    socket.on("close", () => {
      this.#sockets.delete(socket);
      const left = this.#ofOne.get(source.key)! - 1;
      if (left > 0) this.#ofOne.set(source.key, left);
      else this.#ofOne.delete(source.key);
    });
  }

  /** After the TLS handshake. */
  #take(socket: TLSSocket): void {
    const source = sourceOf(socket);
    if (source === undefined) {
      socket.destroy();
      return;
    }
    this.#sources.set(this.#port.add(new SocketStream(socket)), source);
    logger("fallback").debug("a connection from {from}", { from: redactAddress(source.text) });
  }

  /** A connection has proven its source; so `rate_limit_per_ip` holds for it always (PROTOCOL R12). */
  #admits(number: number): boolean {
    const source = this.#sources.get(number);
    return source !== undefined && this.#admission.take(source.words, 0, monotonicUs());
  }
}

interface TlsMaterial {
  cert: string;
  key: string;
}

function sourceOf({ remoteAddress = "", remotePort: port }: Socket): Source | undefined {
  const words = parseAddress(remoteAddress);
  if (words === undefined) return undefined;
  const text = formatAddress(words);
  return {
    words,
    key: isIpv4(words) ? text : words.slice(0, 2).join(),
    text: isIpv4(words) ? `${text}:${port}` : `[${text}]:${port}`,
  };
}

async function readMaterial({ certificate, privateKey }: FallbackConfig): Promise<TlsMaterial> {
  const read = async (key: string, path: string) => {
    try {
      return await Deno.readTextFile(path);
    } catch (error) {
      const why = error instanceof Deno.errors.NotFound
        ? "there is no such file"
        : error instanceof Deno.errors.NotCapable
        ? "this task reads its own folder and /data only; put the file there"
        : (error as Error).message;
      throw new CommandError(`fallback.${key}: ${path}: ${why}`);
    }
  };
  return { cert: await read("certificate", certificate), key: await read("private_key", privateKey) };
}

/** A server that listens nowhere yet. Throws CommandError when the files are of no use. */
function serverOf({ certificate }: FallbackConfig, material: TlsMaterial): Server {
  try {
    new X509Certificate(material.cert);
    const key = createPrivateKey(material.key);
    if (!new X509Certificate(material.cert).checkPrivateKey(key)) {
      throw new Error("they do not belong together");
    }
    return createServer({ ...material, handshakeTimeout: PROVEN_MS, noDelay: true } as TlsOptions);
  } catch (error) {
    throw new CommandError(
      `fallback.certificate: ${certificate} and its private key cannot be used: ${(error as Error).message}`,
    );
  }
}

async function listen(server: Server, { listen: { host, port } }: FallbackConfig): Promise<void> {
  const where = `TCP ${formatEndpoint({ host, port })}`;
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once("error", reject);
  server.listen(port, host, () => resolve());
  try {
    await promise;
  } catch (error) {
    const { code, message } = error as Error & { code?: string };
    throw new CommandError(
      code === "EADDRINUSE"
        ? `fallback.listen: ${where} is taken: a web server? set another port`
        : code === "EACCES"
        ? `fallback.listen: ${where} is not allowed: ports below 1024 need root or CAP_NET_BIND_SERVICE; or set another`
        : `fallback.listen: cannot listen on ${where}: ${message}`,
    );
  }
  server.off("error", reject);
  server.on("error", ({ message }: Error) => logger("fallback").warn("{message}", { message }));
}
