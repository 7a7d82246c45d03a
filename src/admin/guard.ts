/**
 * Who may use /v1: the bearer of the token, or, while no token is set, programs of this machine. Invariant: a web
 * page of another site gets nothing, neither by sending requests from the operator's browser (Origin) nor by
 * giving its own name a loopback address (Host). Knows nothing of the routes behind it.
 */
import { createHash, timingSafeEqual } from "node:crypto";

/** What the decision needs of a request. */
export interface Caller {
  /** Remote IP address of the TCP connection, without brackets. */
  readonly remoteAddress: string;
  readonly headers: Headers;
}

/** Why a request is refused: HTTP status, the header at fault and a sentence with the remedy. */
export interface Denial {
  readonly status: 401 | 403;
  readonly field: string;
  readonly message: string;
}

/** Judges a request for /v1. Returns undefined when it may pass. */
export function judge(
  { remoteAddress, headers }: Caller,
  adminToken: string | undefined,
): Denial | undefined {
  const host = headers.get("host") ?? "";
  const origin = headers.get("origin");
  if (origin !== null && hostOf(origin) !== host.toLowerCase()) {
    return { status: 403, field: "Origin", message: "pages of other sites may not use the admin interface" };
  }
  if (adminToken !== undefined) {
    if (isSameSecret(headers.get("authorization") ?? "", `Bearer ${adminToken}`)) return undefined;
    return {
      status: 401,
      field: "Authorization",
      message:
        'send "Authorization: Bearer TOKEN" with the token that OXRELAY_ADMIN_TOKEN or admin_token sets',
    };
  }
  const remedy = "to use it from elsewhere, set OXRELAY_ADMIN_TOKEN and send it as a bearer token";
  // A proxy on this machine connects from loopback for whoever asks it.
  for (const field of ["Forwarded", "X-Forwarded-For"]) {
    if (headers.has(field)) {
      return { status: 403, field, message: `without a token only direct requests are served; ${remedy}` };
    }
  }
  if (!isLoopbackAddress(remoteAddress)) {
    return {
      status: 403,
      field: "remote address",
      message: `without a token only this machine is served; ${remedy}`,
    };
  }
  if (!isLoopbackHost(host)) {
    return {
      status: 403,
      field: "Host",
      message: "without a token the admin interface is served under localhost, 127.0.0.1 and [::1] only",
    };
  }
  return undefined;
}

/** Whether two texts are equal, in a time that tells nothing of where they differ. */
function isSameSecret(given: string, expected: string): boolean {
  const digest = (text: string) => createHash("sha256").update(text).digest();
  return timingSafeEqual(digest(given), digest(expected));
}

function hostOf(origin: string): string | undefined {
  return URL.canParse(origin) ? new URL(origin).host : undefined;
}

/** 127.0.0.0/8, ::1, and IPv4 loopback as a dual-stack socket shows it. */
function isLoopbackAddress(address: string): boolean {
  return address === "::1" || /^(::ffff:)?127\.\d+\.\d+\.\d+$/i.test(address);
}

function isLoopbackHost(host: string): boolean {
  return /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?$/i.test(host);
}
