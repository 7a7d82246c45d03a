/**
 * The admin interface's listener. Invariant: a port that cannot be had is one sentence that names metrics_listen,
 * and the relay's data path never waits for HTTP. Knows no routes.
 */
import type { Logger } from "@logtape/logtape";
import { ConfigError, type Endpoint, formatEndpoint } from "../config.ts";
import type { createAdmin } from "./mod.ts";

/**
 * Starts listening; `shutdown()` of the result ends it gracefully. Throws ConfigError when the address is taken,
 * not this machine's, or reserved for root.
 */
export function serveAdmin(
  app: ReturnType<typeof createAdmin>,
  listen: Endpoint,
  log: Logger,
): Deno.HttpServer<Deno.NetAddr> {
  try {
    return Deno.serve({
      hostname: listen.host,
      port: listen.port,
      onListen: ({ hostname, port }) => {
        const address = formatEndpoint({ host: hostname, port });
        log.info("metrics, health and dashboard at {url}", { url: `http://${address}/` });
      },
      onError: (error) => {
        log.error("an HTTP request failed: {error}", { error });
        return new Response(null, { status: 500 });
      },
    }, (request, info) => app.fetch(request, info));
  } catch (error) {
    throw new ConfigError(explain(error, formatEndpoint(listen)), { cause: error });
  }
}

function explain(error: unknown, address: string): string {
  if (error instanceof Deno.errors.AddrInUse) {
    return `metrics_listen: ${address} is taken by another program (a second relay?); ` +
      "stop that one or choose another port";
  }
  if (error instanceof Deno.errors.AddrNotAvailable) {
    return `metrics_listen: ${address} is no address of this machine; choose one of its own, or 127.0.0.1`;
  }
  if (error instanceof Deno.errors.PermissionDenied) {
    return `metrics_listen: ${address} needs root; choose a port of 1024 or more`;
  }
  throw error;
}
