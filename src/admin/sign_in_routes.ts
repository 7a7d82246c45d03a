/**
 * Signing in on the page with the token, for a cookie, and out again. Invariant: the right token always signs in, however often others
 * behind the same address failed; only wrong tokens are counted and made to wait; the answer never has the token, and a request from
 * another site's page is refused before anything is counted.
 */
import type { Context, Hono } from "hono";
import { readJson, refuse } from "./answers.ts";
import type { AdminDeps } from "./deps.ts";
import { isSameSecret, judgeOrigin } from "./guard.ts";
import { described } from "./openapi.ts";
import { TokenBody } from "./shapes.ts";
import { cookieOf, setCookie, type SignIns } from "./sign_in.ts";

/** To be added before the guard. */
export function addSignIn(app: Hono, deps: AdminDeps, signIns: SignIns): void {
  app.post("/v1/sign-in", described("POST /v1/sign-in"), async (c) => {
    const foreign = judgeOrigin(c.req.raw);
    if (foreign !== undefined) return refuse(c, foreign.status, foreign.field, foreign.message);
    const source = sourceOf(c);
    const body = await readJson(c, TokenBody);
    if (body instanceof Response) return body;
    const token = deps.adminToken();
    if (!isSameSecret(body.token, token)) {
      const tooMany = refuseTooMany(c, signIns, source);
      if (tooMany !== undefined) return tooMany;
      signIns.failed(source);
      deps.noteEvent("sign_in_failed", source);
      return refuse(c, 401, "token", "this is not the relay's admin token");
    }
    deps.noteEvent("signed_in", source);
    c.header("Set-Cookie", setCookie(signIns.begin(token), isSecure(c)));
    return c.body(null, 204);
  });
  app.post("/v1/sign-out", described("POST /v1/sign-out"), (c) => {
    const foreign = judgeOrigin(c.req.raw);
    if (foreign !== undefined) return refuse(c, foreign.status, foreign.field, foreign.message);
    const cookie = cookieOf(c.req.header("Cookie") ?? null);
    if (cookie !== undefined) signIns.end(cookie);
    c.header("Set-Cookie", setCookie(undefined, isSecure(c)));
    return c.body(null, 204);
  });
}

/** The address that the request's connection comes from; a proxy's, where there is one. */
function sourceOf(c: Context): string {
  const { incoming } = (c.env ?? {}) as { incoming?: { socket?: { remoteAddress?: string } } };
  return incoming?.socket?.remoteAddress ?? "unknown";
}

/** The refusal of a wrong token from a source that has failed too often; undefined for any other source. */
function refuseTooMany(c: Context, signIns: SignIns, source: string): Response | undefined {
  const waitS = signIns.waitS(source);
  if (waitS === 0) return undefined;
  c.header("Retry-After", String(waitS));
  return refuse(c, 429, "token", `too many failed attempts; try again in ${waitS} s`);
}

/** Whether a proxy in front took the request over TLS. Who makes this up for itself gets a stricter cookie. */
function isSecure(c: Context): boolean {
  return c.req.header("X-Forwarded-Proto")?.toLowerCase() === "https";
}
