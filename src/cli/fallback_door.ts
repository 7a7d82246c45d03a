/**
 * OxTunnel over TLS, for clients to whom UDP is blocked: accepts connections in the main thread, where an event loop
 * serves them, and carries their datagrams to the Workers and back. Invariant: connections are bounded, in all, of one
 * source, and while nothing authentic has come from them; a certificate that cannot be read never ends the one in use.
 * The tunnel's security does not rest on TLS: it authenticates itself.
 * Keeps PROTOCOL R94.
 */
import { type Config, type FallbackConfig, formatEndpoint } from "../config.ts";
import { monotonicUs } from "../io/driver.ts";
import { Mailbox, type Mailboxes } from "../io/mailbox.ts";
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
/** After the system has refused to accept. */
const PAUSE_MS = 200;

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
  #listener: Deno.TlsListener | undefined;
  #accepting: Promise<void>;
  #material: TlsMaterial;

  /** Listens at once. `mailboxes` has one behind those of the Workers. Throws CommandError. */
  static async open(config: Config, fallback: FallbackConfig, mailboxes: Mailboxes): Promise<FallbackDoor> {
    const material = await readMaterial(fallback);
    return new FallbackDoor(config, fallback, mailboxes, material, listen(fallback, material));
  }

  private constructor(
    config: Config,
    fallback: FallbackConfig,
    mailboxes: Mailboxes,
    material: TlsMaterial,
    listener: Deno.TlsListener,
  ) {
    this.#config = fallback;
    this.#material = material;
    this.#listener = listener;
    this.description = `${formatEndpoint(fallback.listen)}/tcp`;
    const onDrop = (code: number) => this.metrics.drop(code);
    this.#port = new StreamPort({
      description: this.description,
      localPort: fallback.listen.port,
      onDrop,
      admits: (number) => this.#admits(number),
      onClosed: (number) => this.#forget(number),
      provenMs: PROVEN_MS,
      idleMs: IDLE_MS,
    });
    const [seed] = crypto.getRandomValues(new Uint32Array(1));
    this.#admission = new Admission(Infinity, config.rateLimitPerIp, seed);
    const mailbox = new Mailbox(config.workers, mailboxes, onDrop);
    this.#endPump = pumpStreams(this.#port, mailbox, config.workers);
    this.#sweeping = setInterval(() => this.#port.sweep(), SWEEP_MS);
    this.#accepting = this.#accept(listener);
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
    check(this.#config, material);
    await this.#shut(); // connections that are open stay
    this.#listener = listen(this.#config, material);
    this.#material = material;
    this.#accepting = this.#accept(this.#listener);
    logger("fallback").info("the new certificate is in use");
  }

  async close(): Promise<void> {
    clearInterval(this.#sweeping);
    await this.#shut();
    this.#port.close();
    await this.#endPump();
  }

  /** Stops listening; the port is free when it resolves. */
  async #shut(): Promise<void> {
    this.#listener?.close();
    this.#listener = undefined;
    await this.#accepting;
  }

  async #accept(listener: Deno.TlsListener): Promise<void> {
    for (;;) {
      try {
        this.#take(await listener.accept());
      } catch (error) {
        if (error instanceof Deno.errors.BadResource || error instanceof Deno.errors.Interrupted) return; // closed
        // No descriptor is left, or a client went before it was accepted.
        await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
        if (this.#listener !== listener) return;
      }
    }
  }

  #take(connection: Deno.TlsConn): void {
    const source = sourceOf(connection);
    const isFull = this.#port.count >= CONNECTIONS_MAX || this.#port.unproven >= UNPROVEN_MAX;
    if (source === undefined || isFull || (this.#ofOne.get(source.key) ?? 0) >= OF_ONE_SOURCE_MAX) {
      connection.close();
      return;
    }
    this.#ofOne.set(source.key, (this.#ofOne.get(source.key) ?? 0) + 1);
    this.#sources.set(this.#port.add(connection), source);
    logger("fallback").debug("a connection from {from}", { from: redactAddress(source.text) });
  }

  #forget(number: number): void {
    const source = this.#sources.get(number);
    if (source === undefined) return;
    this.#sources.delete(number);
    const left = this.#ofOne.get(source.key)! - 1;
    if (left > 0) this.#ofOne.set(source.key, left);
    else this.#ofOne.delete(source.key);
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

function sourceOf(connection: Deno.TlsConn): Source | undefined {
  const { hostname, port } = connection.remoteAddr;
  const words = parseAddress(hostname);
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

/** Throws CommandError when a listener could not use the files. */
function check(config: FallbackConfig, material: TlsMaterial): void {
  listen({ ...config, listen: { host: "127.0.0.1", port: 0 } }, material).close();
}

function listen({ listen: { host, port }, certificate }: FallbackConfig, material: TlsMaterial) {
  try {
    return Deno.listenTls({ hostname: host, port, ...material });
  } catch (error) {
    const where = `TCP ${formatEndpoint({ host, port })}`;
    if (error instanceof Deno.errors.AddrInUse) {
      throw new CommandError(`fallback.listen: ${where} is taken: a web server? set another port`);
    }
    if (error instanceof Deno.errors.PermissionDenied) {
      throw new CommandError(
        `fallback.listen: ${where} is not allowed: ports below 1024 need root or CAP_NET_BIND_SERVICE; or set another`,
      );
    }
    const why = (error as Error).message;
    throw new CommandError(
      error instanceof Deno.errors.InvalidData || /certificate|key/i.test(why)
        ? `fallback.certificate: ${certificate} and its private key cannot be used: ${why}`
        : `fallback.listen: cannot listen on ${where}: ${why}`,
    );
  }
}
