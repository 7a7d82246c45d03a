/**
 * OxTunnel over TLS, for clients to whom UDP is blocked: accepts connections in the main thread, where an event loop
 * serves them, and carries their datagrams to the Workers and back. Invariant: connections are bounded as fallback_crowd.ts
 * says, from before their TLS handshake, and a handshake has its time; a certificate that cannot be read never ends the one
 * in use. The tunnel's security does not rest on TLS: it authenticates itself.
 * Keeps PROTOCOL R88.
 */
import { createPrivateKey, X509Certificate } from "node:crypto";
import type { Socket } from "node:net";
import { createSecureContext, type SecureContext, TLSSocket } from "node:tls";
import { type Config, type FallbackConfig, formatEndpoint as formatEndpointOf } from "../config.ts";
import { acceptAll } from "../io/accept.ts";
import { monotonicUs } from "../io/driver.ts";
import { Mailbox, type Mailboxes } from "../io/mailbox.ts";
import { PulledSocket, SocketStream } from "../io/socket_stream.ts";
import { StreamPort } from "../io/stream_port.ts";
import { pumpStreams } from "../io/stream_pump.ts";
import { Metrics } from "../metrics.ts";
import { Admission } from "../session/admission.ts";
import { formatEndpoint, isIpv4, parseAddress } from "../wire/address.ts";
import { streamNumberOf } from "../wire/stream.ts";
import { Crowd, crowdLimits, type Visitor } from "./fallback_crowd.ts";
import { CommandError } from "../process/help.ts";
import { logger, redactAddress } from "../process/logging.ts";

const CONNECTIONS_MAX = 1024;
const PROVEN_MS = 10_000;
/** As long as a key lives (PROTOCOL §15): a session that is used is answered more often. */
const IDLE_MS = 180_000;
const SWEEP_MS = 1000;
/** The first piece that is read of a connection: most of a client's first message. */
const FIRST_BYTES = 2048;

/** A connection from before its TLS handshake until it is closed. */
interface Guest extends Visitor {
  words: Uint32Array;
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
  readonly #crowd: Crowd<Guest>;
  /** Those past their TLS handshake, by their number. */
  readonly #guests = new Map<number, Guest>();
  readonly #listener: Deno.TcpListener;
  readonly #accepting: Promise<void>;
  #isAcceptFailing = false;
  #material: TlsMaterial;
  #context: SecureContext;

  /**
   * Listens at once. `mailboxes` has one behind those of the Workers; `share` is how many connections there are descriptors
   * for. Throws CommandError.
   */
  static async open(
    config: Config,
    fallback: FallbackConfig,
    mailboxes: Mailboxes,
    share = CONNECTIONS_MAX,
  ): Promise<FallbackDoor> {
    const material = await readMaterial(fallback);
    const context = contextOf(fallback, material);
    const crowd = new Crowd<Guest>(crowdLimits(Math.min(share, CONNECTIONS_MAX)));
    return new FallbackDoor(config, fallback, mailboxes, crowd, material, context, listen(fallback));
  }

  private constructor(
    config: Config,
    fallback: FallbackConfig,
    mailboxes: Mailboxes,
    crowd: Crowd<Guest>,
    material: TlsMaterial,
    context: SecureContext,
    listener: Deno.TcpListener,
  ) {
    this.#config = fallback;
    this.#crowd = crowd;
    this.#material = material;
    this.#context = context;
    this.#listener = listener;
    this.description = `${formatEndpointOf(fallback.listen)}/tcp`;
    const onDrop = (code: number) => this.metrics.drop(code);
    this.#port = new StreamPort({
      description: this.description,
      localPort: fallback.listen.port,
      onDrop,
      admits: (number) => this.#admits(number),
      onProven: (number) => this.#crowd.prove(this.#guests.get(number)!),
      onClosed: (number) => this.#guests.delete(number),
      provenMs: PROVEN_MS,
      idleMs: IDLE_MS,
    });
    const [seed] = crypto.getRandomValues(new Uint32Array(1));
    this.#admission = new Admission(Infinity, config.rateLimitPerIp, seed);
    const mailbox = new Mailbox(config.workers, mailboxes, onDrop);
    this.#endPump = pumpStreams(this.#port, mailbox, config.workers);
    this.#sweeping = setInterval(() => this.#port.sweep(), SWEEP_MS);
    this.#accepting = acceptAll(listener, (conn) => {
      this.#isAcceptFailing = false;
      this.#admit(conn);
    }, ({ message }) => {
      // Once for each time that it begins: descriptors may be short for long.
      if (!this.#isAcceptFailing) logger("fallback").warn("{message}", { message });
      this.#isAcceptFailing = true;
    });
  }

  /** An endpoint's text for people: a connection's as where it comes from, any other as it is. */
  named(endpoint: string | undefined): string | undefined {
    const number = endpoint === undefined ? undefined : streamNumberOf(endpoint);
    return number === undefined ? endpoint : `${this.#guests.get(number)?.text ?? "closed"} (TLS)`;
  }

  /** Takes over what a reload may change: the limit of a source, and the files' contents. Throws CommandError. */
  async tune(config: Config): Promise<void> {
    this.#admission.ratePerSecond = config.rateLimitPerIp;
    const material = await readMaterial(this.#config);
    if (material.cert === this.#material.cert && material.key === this.#material.key) return;
    this.#context = contextOf(this.#config, material); // connections that are open stay
    this.#material = material;
    logger("fallback").info("the new certificate is in use");
  }

  async close(): Promise<void> {
    clearInterval(this.#sweeping);
    this.#listener.close();
    this.#crowd.close();
    this.#port.close();
    await this.#accepting;
    await this.#endPump();
  }

  /**
   * Bounds connections from before their TLS handshake, which has its time, until they are closed. What TLS takes of memory is
   * for those that begin it: whoever opens many connections and says nothing has a descriptor and a small buffer of each.
   */
  #admit(conn: Deno.TcpConn): void {
    let end = () => closeQuietly(conn);
    const guest = guestOf(conn.remoteAddr, () => end());
    if (guest === undefined || !this.#crowd.enter(guest)) {
      closeQuietly(conn);
      return;
    }
    const patience = setTimeout(guest.close, PROVEN_MS);
    const left = () => {
      clearTimeout(patience);
      this.#crowd.leave(guest);
    };
    const first = new Uint8Array(FIRST_BYTES);
    conn.read(first).then((count) => {
      if (count === null) throw new Error("it said nothing");
      const tcp = new PulledSocket(conn, first.subarray(0, count));
      end = () => tcp.destroy();
      tcp.on("error", () => {}); // its close says enough
      tcp.on("close", left);
      this.#greet(tcp, guest, patience);
    }).catch(() => {
      closeQuietly(conn);
      left();
    });
  }

  #greet(tcp: PulledSocket, guest: Guest, patience: ReturnType<typeof setTimeout>): void {
    const options = { isServer: true, secureContext: this.#context };
    const tls = new TLSSocket(tcp as unknown as Socket, options);
    tls.on("error", guest.close);
    tcp.on("close", () => tls.destroy()); // it would keep its memory until somebody collects it
    tls.on("secure", () => {
      clearTimeout(patience);
      if (tcp.destroyed) return;
      this.#guests.set(this.#port.add(new SocketStream(tls, tcp)), guest);
      logger("fallback").debug("a connection from {from}", { from: redactAddress(guest.text) });
    });
  }

  /** A connection has proven its source; so `rate_limit_per_ip` holds for it always (PROTOCOL R12). */
  #admits(number: number): boolean {
    const guest = this.#guests.get(number);
    return guest !== undefined && this.#admission.take(guest.words, 0, monotonicUs());
  }
}

interface TlsMaterial {
  cert: string;
  key: string;
}

/** Who connects from there; undefined for what is no address. */
function guestOf({ hostname, port }: Deno.NetAddr, close: () => void): Guest | undefined {
  const words = parseAddress(hostname);
  if (words === undefined) return undefined;
  const [a, b, , d] = words;
  const [source, holder, network] = isIpv4(words)
    ? [`${d}`, `${d}`, `${d >>> 8}/24`]
    : [`${a},${b}`, `${a},${b >>> 8}/56`, `${a},${b >>> 16}/48`];
  return { words, source, holder, network, text: formatEndpoint(words, 0, port), close };
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

/** What TLS handshakes need. Throws CommandError when the files are of no use. */
function contextOf({ certificate }: FallbackConfig, material: TlsMaterial): SecureContext {
  try {
    new X509Certificate(material.cert);
    const key = createPrivateKey(material.key);
    if (!new X509Certificate(material.cert).checkPrivateKey(key)) {
      throw new Error("they do not belong together");
    }
    return createSecureContext(material);
  } catch (error) {
    throw new CommandError(
      `fallback.certificate: ${certificate} and its private key cannot be used: ${(error as Error).message}`,
    );
  }
}

function closeQuietly(conn: Deno.TcpConn): void {
  try {
    conn.close();
  } catch {
    // It has ended by itself.
  }
}

function listen({ listen: { host, port } }: FallbackConfig): Deno.TcpListener {
  const where = `TCP ${formatEndpointOf({ host, port })}`;
  try {
    return Deno.listen({ hostname: host, port });
  } catch (error) {
    throw new CommandError(
      error instanceof Deno.errors.AddrInUse
        ? `fallback.listen: ${where} is taken: a web server? set another port`
        : error instanceof Deno.errors.PermissionDenied
        ? `fallback.listen: ${where} is not allowed: ports below 1024 need root or CAP_NET_BIND_SERVICE; or set another`
        : `fallback.listen: cannot listen on ${where}: ${(error as Error).message}`,
    );
  }
}
