/**
 * Talks to a running relay's admin interface on this machine. Invariant: the token goes over no proxy, and only to
 * a listener that has proved to know the token itself; no relay, a refused token and a broken
 * answer each become one sentence with a remedy. Never logs the token, follows no redirect.
 */
import { randomBytes } from "node:crypto";
import { isSameSecret, proofOf } from "../admin/guard.ts";
import type { Config } from "../config.ts";
import { findAdminUrl } from "../serve/admin_address.ts";
import { readAdminToken } from "../serve/admin_token.ts";
import { CommandError } from "../process/help.ts";

const TIMEOUT_MS = 5000;
const REPLY_BYTES_MAX = 16 << 20;
const NONCE_BYTES = 32;
const HEAD_BYTES_MAX = 16 << 10, READ_BYTES = 64 << 10;
const NO_ANSWER = "what answers where the relay should is no relay; is metrics_listen another program's?";

/** Nobody listens where the relay's admin interface should be. */
export class NoRelayError extends CommandError {
  constructor(url: string) {
    super(`no relay is running here (nothing answers at ${url}); start one with: deno task serve`);
  }
}

/** What the relay refused to do, in its own words. */
export class RefusedError extends CommandError {
  constructor(readonly status: number, readonly field: string, message: string) {
    super(message);
  }
}

interface Answer {
  status: number;
  text: string;
}

/**
 * One connection, without any proxy, that asks in HTTP/1.0, whose answers need no decoding: they end by Content-Length
 * or with the connection.
 */
class OneConnection {
  readonly #tcp: Deno.TcpConn;
  readonly #host: string;
  #unread = new Uint8Array(0);

  private constructor(tcp: Deno.TcpConn, host: string) {
    this.#tcp = tcp;
    this.#host = host;
  }

  static async open(url: string, signal: AbortSignal): Promise<OneConnection> {
    const { host, hostname, port } = new URL(url);
    const address = { hostname: hostname.replace(/^\[|\]$/g, ""), port: Number(port || 80), signal };
    const tcp = await Deno.connect(address);
    signal.addEventListener("abort", () => closed(tcp));
    return new OneConnection(tcp, host);
  }

  /** Throws what the system says, or CommandError of what is no answer. */
  async ask(
    method: string,
    path: string,
    headers: Record<string, string> = {},
    body: string = "",
  ): Promise<Answer> {
    const length = new TextEncoder().encode(body).length;
    const all = { host: this.#host, connection: "close", "content-length": `${length}`, ...headers };
    const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`).join("");
    const bytes = new TextEncoder().encode(`${method} ${path} HTTP/1.0\r\n${lines}\r\n${body}`);
    for (let sent = 0; sent < bytes.length;) sent += await this.#tcp.write(bytes.subarray(sent));
    const latin1 = new TextDecoder("latin1");
    let end: number;
    while ((end = latin1.decode(this.#unread).indexOf("\r\n\r\n")) < 0) {
      if (this.#unread.length > HEAD_BYTES_MAX || !await this.#read()) throw new CommandError(NO_ANSWER);
    }
    const head = latin1.decode(this.#unread.subarray(0, end));
    const status = Number(/^HTTP\/1\.[01] (\d{3})/.exec(head)?.[1] ?? 0);
    this.#unread = this.#unread.slice(end + 4);
    const told = /^content-length: *(\d+) *$/im.exec(head)?.[1];
    const expected = status === 204 ? 0 : Number(told ?? Infinity);
    while (this.#unread.length < expected && await this.#read()) {
      if (this.#unread.length > REPLY_BYTES_MAX) throw new CommandError(NO_ANSWER);
    }
    const text = new TextDecoder().decode(this.#unread.subarray(0, Math.min(expected, this.#unread.length)));
    this.#unread = this.#unread.slice(expected);
    return { status, text };
  }

  close(): void {
    closed(this.#tcp);
  }

  /** False at the end. */
  async #read(): Promise<boolean> {
    const more = new Uint8Array(READ_BYTES);
    const length = await this.#tcp.read(more);
    if (length === null) return false;
    const unread = new Uint8Array(this.#unread.length + length);
    unread.set(this.#unread);
    unread.set(more.subarray(0, length), this.#unread.length);
    this.#unread = unread;
    return true;
  }
}

function closed(tcp: Deno.TcpConn): void {
  try {
    tcp.close();
  } catch {
    // It is closed already.
  }
}

/**
 * Sends one request, with `body` as JSON if there is one, and returns the JSON of the answer, undefined of an empty one; of /healthz
 * also the reasons of a relay that is not well (HTTP 503). Throws
 * NoRelayError, RefusedError for what the relay itself declined, or CommandError.
 */
export async function askRelay(
  config: Config,
  method: "GET" | "POST" | "PATCH" | "DELETE",
  path: string,
  body?: unknown,
  timeoutMs = TIMEOUT_MS,
): Promise<unknown> {
  const url = await findAdminUrl(config);
  const token = await readAdminToken(config);
  const signal = AbortSignal.timeout(timeoutMs);
  let first: OneConnection | undefined, second: OneConnection | undefined;
  let answer: Answer;
  try {
    const nonce = randomBytes(NONCE_BYTES).toString("base64url");
    // Who proves on the first what is asked only now that both are open has been listening for the second, too.
    first = await OneConnection.open(url, signal);
    second = await OneConnection.open(url, signal);
    const hello = await first.ask("GET", `/v1/hello?nonce=${nonce}`);
    if (token === undefined || !proves(hello.text, proofOf(token, url, nonce))) {
      throw new CommandError(
        `whoever answers at ${url} does not prove to know the admin token, so nothing was asked; set ` +
          "OXRELAY_ADMIN_TOKEN to the one that the relay was started with, or use its state_dir; if no relay runs, " +
          "look which program listens there: ss -ltnp",
      );
    }
    const authorization = `Bearer ${token}`;
    answer = body === undefined ? await second.ask(method, path, { authorization }) : await second.ask(
      method,
      path,
      { authorization, "content-type": "application/json" },
      JSON.stringify(body),
    );
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable || error instanceof CommandError) throw error;
    if (signal.aborted) {
      throw new CommandError(
        `the relay at ${url} did not answer within ${timeoutMs / 1000} s; look at its log`,
      );
    }
    if (error instanceof Deno.errors.ConnectionRefused) throw new NoRelayError(url);
    const { message } = error as Error;
    throw new CommandError(`the relay at ${url} cannot be asked: ${message}`, { cause: error });
  } finally {
    first?.close();
    second?.close();
  }
  return judged(answer, url + path);
}

/** What an answer says. Throws RefusedError or CommandError. */
function judged({ status, text }: Answer, url: string): unknown {
  if (status === 401 || status === 403) {
    throw new CommandError(
      `the relay at ${
        new URL(url).origin
      } refused the token (HTTP ${status}); set OXRELAY_ADMIN_TOKEN to the one it ` +
        "was started with, or use its state_dir",
    );
  }
  if (status === 204) return undefined;
  let answer: unknown;
  try {
    answer = JSON.parse(text);
  } catch {
    // Falls through: an answer that is not JSON comes from some other program.
  }
  if (status >= 200 && status < 300 && answer !== undefined) return answer;
  // A relay that is not well says so by 503, with the reasons.
  if (status === 503 && new URL(url).pathname === "/healthz" && isHealth(answer)) return answer;
  const { field, message } = (answer as { error?: { field?: unknown; message?: unknown } })?.error ?? {};
  if (typeof field === "string" && typeof message === "string") {
    throw new RefusedError(status, field, message);
  }
  throw new CommandError(
    `${url} answered HTTP ${status}, not as a relay does; is metrics_listen another program's?`,
  );
}

function isHealth(answer: unknown): boolean {
  const { ok, reasons } = (answer ?? {}) as { ok?: unknown; reasons?: unknown };
  return ok === false && Array.isArray(reasons) && reasons.every((reason) => typeof reason === "string");
}

/** Whether the answer to a hello has this proof. */
function proves(text: string, expected: string): boolean {
  try {
    const { proof } = JSON.parse(text) as { proof?: unknown };
    return typeof proof === "string" && isSameSecret(proof, expected);
  } catch {
    return false;
  }
}
