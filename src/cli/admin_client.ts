/**
 * Talks to a running relay's admin interface on this machine. Invariant: no relay, a refused token and a broken
 * answer each become one sentence with a remedy. Never logs the token.
 */
import { type Config, formatEndpoint } from "../config.ts";
import { readAdminToken } from "./admin_token.ts";
import { CommandError } from "./help.ts";

const TIMEOUT_MS = 5000;
const REPLY_BYTES_MAX = 16 << 20;

/** Nobody listens where the relay's admin interface should be. */
export class NoRelayError extends CommandError {
  constructor(url: string) {
    super(`no relay is running here (nothing answers at ${url}); start one with: deno task serve`);
  }
}

/** The base URL at which this machine reaches the relay's admin interface; wildcards become loopback. */
export function adminUrl({ metricsListen: { host, port } }: Config): string {
  const reachable = host === "::" ? "::1" : host === "0.0.0.0" ? "127.0.0.1" : host;
  return `http://${formatEndpoint({ host: reachable, port })}`;
}

/** What the relay refused to do, in its own words. */
export class RefusedError extends CommandError {
  constructor(readonly status: number, readonly field: string, message: string) {
    super(message);
  }
}

/**
 * Sends one request and returns the JSON of the answer, undefined of an empty one. Throws NoRelayError, RefusedError for
 * what the relay itself declined, or CommandError.
 */
export async function askRelay(
  config: Config,
  method: "GET" | "POST" | "DELETE",
  path: string,
): Promise<unknown> {
  const url = adminUrl(config);
  const token = await readAdminToken(config);
  const headers: HeadersInit = token === undefined ? {} : { authorization: `Bearer ${token}` };
  let response: Response;
  let text: string;
  try {
    response = await fetch(url + path, { method, headers, signal: AbortSignal.timeout(TIMEOUT_MS) });
    text = await readBounded(response);
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable || error instanceof CommandError) throw error;
    if (error instanceof DOMException && error.name === "TimeoutError") {
      throw new CommandError(
        `the relay at ${url} did not answer within ${TIMEOUT_MS / 1000} s; look at its log`,
      );
    }
    throw new NoRelayError(url);
  }
  if (response.status === 401 || response.status === 403) {
    throw new CommandError(
      `the relay at ${url} refused the token (HTTP ${response.status}); set OXRELAY_ADMIN_TOKEN to the one it ` +
        "was started with, or use its state_dir",
    );
  }
  if (response.status === 204) return undefined;
  let answer: unknown;
  try {
    answer = JSON.parse(text);
  } catch {
    // Falls through: an answer that is not JSON comes from some other program.
  }
  if (response.ok && answer !== undefined) return answer;
  const { field, message } = (answer as { error?: { field?: unknown; message?: unknown } })?.error ?? {};
  if (typeof field === "string" && typeof message === "string") {
    throw new RefusedError(response.status, field, message);
  }
  throw new CommandError(
    `${url}${path} answered HTTP ${response.status}, not as a relay does; is metrics_listen another program's?`,
  );
}

async function readBounded(response: Response): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of response.body ?? []) {
    text += decoder.decode(chunk, { stream: true });
    if (text.length > REPLY_BYTES_MAX) throw new CommandError("the relay's answer is too long to be one");
  }
  return text;
}
