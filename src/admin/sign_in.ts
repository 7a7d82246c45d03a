/**
 * Who has signed in on the page, by cookie, and who tries too often. Invariant: the cookie is random, HttpOnly and SameSite=Strict, the
 * relay keeps its SHA-256 only, in memory, and a session ends with its time, with the token that it was begun with, or with the relay;
 * wrong tokens are bounded for each source address and for all together. Never logs a token or a cookie.
 */
import { createHash, randomBytes } from "node:crypto";

export const COOKIE = "oxrelay_session";
/** How long a session lasts, seconds. */
export const SESSION_S = 12 * 3600;
const SESSIONS_MAX = 64;
/** Failures that are free, and how long each counts, milliseconds: one source's, and everybody's together. */
const OWN_FAILURES = 5, ALL_FAILURES = 50, FAILURE_MS = 60_000;
const SOURCES_MAX = 1024;

const digestOf = (text: string) => createHash("sha256").update(text).digest("base64");

export class SignIns {
  readonly #sessions = new Map<string, { untilMs: number; token: string }>();
  readonly #failures = new Map<string, number[]>();
  #allFailures: number[] = [];
  readonly #nowMs: () => number;

  /** @param nowMs a monotonic clock, milliseconds. */
  constructor(nowMs: () => number = () => performance.now()) {
    this.#nowMs = nowMs;
  }

  /** The seconds until the source may try another token that is wrong; 0 for now. The right one needs no wait. */
  waitS(source: string): number {
    const nowMs = this.#nowMs();
    const own = recent(this.#failures.get(source) ?? [], nowMs);
    this.#allFailures = recent(this.#allFailures, nowMs);
    const bounds = [[own, OWN_FAILURES], [this.#allFailures, ALL_FAILURES]] as const;
    return Math.max(
      0,
      ...bounds.map(([failures, max]) =>
        failures.length < max ? 0 : Math.ceil((failures[failures.length - max] + FAILURE_MS - nowMs) / 1000)
      ),
    );
  }

  failed(source: string): void {
    const nowMs = this.#nowMs();
    const own = [...recent(this.#failures.get(source) ?? [], nowMs), nowMs].slice(-OWN_FAILURES);
    this.#failures.delete(source);
    this.#failures.set(source, own);
    const [oldest] = this.#failures.keys();
    if (this.#failures.size > SOURCES_MAX) this.#failures.delete(oldest);
    this.#allFailures = [...recent(this.#allFailures, nowMs), nowMs].slice(-ALL_FAILURES);
  }

  /** Begins a session under the present token; returns the cookie's value. Of too many sessions the oldest ends. */
  begin(token: string): string {
    const nowMs = this.#nowMs();
    for (const [digest, { untilMs }] of this.#sessions) {
      if (untilMs <= nowMs || this.#sessions.size >= SESSIONS_MAX) this.#sessions.delete(digest);
    }
    const value = randomBytes(32).toString("base64url");
    this.#sessions.set(digestOf(value), { untilMs: nowMs + 1000 * SESSION_S, token: digestOf(token) });
    return value;
  }

  /** Whether the cookie's value is a session's that was begun under this token and still lasts. */
  has(value: string, token: string): boolean {
    const session = this.#sessions.get(digestOf(value));
    return session !== undefined && session.untilMs > this.#nowMs() && session.token === digestOf(token);
  }

  end(value: string): void {
    this.#sessions.delete(digestOf(value));
  }
}

function recent(times: readonly number[], nowMs: number): number[] {
  return times.filter((ms) => ms > nowMs - FAILURE_MS);
}

/** The value of the page's cookie in a Cookie header (RFC 6265 section 4.2); undefined for none. */
export function cookieOf(header: string | null): string | undefined {
  return header?.match(/(?:^|;\s*)oxrelay_session=([A-Za-z0-9_-]{43})(?:;|$)/)?.[1];
}

/** The Set-Cookie header of a session, or of none any more. `isSecure`: the request came over TLS. */
export function setCookie(value: string | undefined, isSecure: boolean): string {
  return [
    `${COOKIE}=${value ?? ""}`,
    "Path=/",
    `Max-Age=${value === undefined ? 0 : SESSION_S}`,
    "HttpOnly",
    "SameSite=Strict",
    ...(isSecure ? ["Secure"] : []),
  ].join("; ");
}
