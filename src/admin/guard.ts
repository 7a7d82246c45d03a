/**
 * The guard of /v1: admits a request that bears the token, or the page's cookie (sign_in.ts), and proves to a client that the relay
 * knows the token before the client sends the token. Invariant: the source address of a request proves nothing, because a proxy on this machine
 * and every local user connect from loopback; a web page of another site is refused, even with the token. Knows no routes.
 */
import { createHash, createHmac, timingSafeEqual } from "node:crypto";

/** Why a request is refused: HTTP status, the header at fault and a sentence with the remedy. */
export interface Denial {
  readonly status: 401 | 403;
  readonly field: string;
  readonly message: string;
}

/**
 * Judges a request for /v1. Returns undefined when it may pass. The request's URL has the authority that it was sent
 * to: HTTP/1's Host, or HTTP/2's `:authority`, which needs no Host beside it (RFC 9113 section 8.3.1).
 * @param hasSession whether its cookie is a session's. By cookie alone, what changes something must say that it comes from the relay's
 * own page, as browsers do: SameSite leaves pages of other ports of this host.
 */
export function judge(
  request: Pick<Request, "method" | "url" | "headers">,
  token: string,
  hasSession = false,
): Denial | undefined {
  const { method, headers } = request;
  const foreign = judgeOrigin(request);
  if (foreign !== undefined) return foreign;
  if (hasSession && (method === "GET" || headers.get("origin") !== null)) return undefined;
  // The scheme's name is compared without case (RFC 9110 section 11.1).
  const given = /^bearer +(\S+)$/i.exec(headers.get("authorization") ?? "")?.[1];
  if (given !== undefined && isSameSecret(given, token)) return undefined;
  return {
    status: 401,
    field: "Authorization",
    message:
      'send "Authorization: Bearer TOKEN" with the token that OXRELAY_ADMIN_TOKEN or admin_token sets, or, ' +
      "without either, the one in the file admin.token in the relay's state directory",
  };
}

/** Refuses pages of other sites; undefined for any other request. */
export function judgeOrigin({ url, headers }: Pick<Request, "url" | "headers">): Denial | undefined {
  const origin = headers.get("origin");
  if (origin === null || hostOf(origin) === hostOf(url)) return undefined;
  return {
    status: 403,
    field: "Origin",
    message: "pages of other sites may not use the admin interface, or the proxy in front does not pass Host",
  };
}

/** The form of a nonce: 32 bytes in base64url, chosen by the client and used once. */
export const NONCE = /^[A-Za-z0-9_-]{43}$/;

/**
 * The proof that the relay at `url` knows the token (HMAC-SHA256, RFC 2104), in base64url. The proof is useless for
 * another nonce, and for a program that listens elsewhere and passes the nonce on to the relay. It allows guesses at the token
 * to be tested offline.
 */
export function proofOf(token: string, url: string, nonce: string): string {
  return createHmac("sha256", token).update(`oxrelay admin hello\n${url}\n${nonce}`).digest("base64url");
}

/** Whether two texts are equal, in a time that does not depend on where they differ. */
export function isSameSecret(given: string, expected: string): boolean {
  const digest = (text: string) => createHash("sha256").update(text).digest();
  return timingSafeEqual(digest(given), digest(expected));
}

function hostOf(url: string): string | undefined {
  return URL.canParse(url) ? new URL(url).host : undefined;
}
