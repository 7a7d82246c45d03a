/**
 * Where the admin interface listens, and how this machine's subcommands find it. The default port is Prometheus's own default too,
 * so a relay whose metrics_listen is not configured goes on at another port where 9090 is taken, and says so. Invariant: a
 * configured address, and Fly's, which a health check asks, is used or the start fails; `admin.address` in the state directory is
 * there only while the relay may listen elsewhere than its configuration says. Knows no routes and no token.
 */
import { join } from "node:path";
import {
  type Config,
  ConfigError,
  DEFAULTS,
  type Endpoint,
  formatEndpoint,
  parseEndpoint,
} from "../config.ts";
import { makeStateDirectory, readIfPresent, removeIfPresent, replaceFile } from "../process/durable.ts";
import { CommandError } from "../process/help.ts";

/** How many ports behind the default one are tried before the system chooses one. */
const NEXT_PORTS = 9;

/** Whether no file and no environment has set metrics_listen. */
function isDefault({ metricsListen }: Config): boolean {
  return metricsListen === DEFAULTS.metricsListen;
}

function pathOf({ stateDir }: Config): string {
  return join(stateDir, "admin.address");
}

/** The base URL at which this machine reaches an admin interface that listens there; wildcards become loopback. */
export function adminUrl({ host, port }: Endpoint): string {
  const reachable = host === "::" ? "::1" : host === "0.0.0.0" ? "127.0.0.1" : host;
  return `http://${formatEndpoint({ host: reachable, port })}`;
}

/** The base URL of the running relay's admin interface, for a subcommand. Throws CommandError when the state directory cannot be read. */
export async function findAdminUrl(config: Config): Promise<string> {
  const text = isDefault(config) ? await readIfPresent(pathOf(config)) : undefined;
  // Who could write another address here could read the token; the relay proves itself all the same.
  return adminUrl(parseEndpoint(text?.trimEnd() ?? "") ?? config.metricsListen);
}

/**
 * Opens the admin interface by `open`, which listens at an endpoint and throws ConfigError with the system's error as its cause.
 * Returns what `open` made. Where the default port is taken, others are tried, and `say` gets the sentence.
 */
export function openAdmin<T extends { addr: { hostname: string; port: number } }>(
  config: Config,
  open: (listen: Endpoint) => T,
  say: (message: string) => void,
): T {
  const { host, port } = config.metricsListen;
  for (let next = port;; next = next < port + NEXT_PORTS ? next + 1 : 0) {
    try {
      const server = open({ host, port: next });
      if (next !== port) {
        const taken = formatEndpoint({ host, port });
        const other = formatEndpoint({ host, port: server.addr.port });
        say(
          `another program listens at ${taken} (Prometheus does by default), so metrics, health and the page are at ` +
            `${other} until the relay ends; metrics_listen chooses a port for good`,
        );
      }
      return server;
    } catch (error) {
      const isTaken = error instanceof ConfigError && error.cause instanceof Deno.errors.AddrInUse;
      if (!isTaken || !isDefault(config) || next === 0) throw error;
    }
  }
}

/**
 * Stores where the admin interface listens when that is not where the configuration says, and removes what an earlier start stored
 * when it is. A state directory that cannot be written costs the subcommands their way: `say` gets the reason.
 */
export async function storeAdminAddress(
  config: Config,
  { port }: { port: number },
  say: (message: string) => void,
): Promise<void> {
  try {
    if (port === config.metricsListen.port) return await forgetAdminAddress(config);
    await makeStateDirectory(config.stateDir);
    await replaceFile(pathOf(config), `${formatEndpoint({ ...config.metricsListen, port })}\n`);
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    say(`peer and status will not find this relay: ${error.message}`);
  }
}

/** Removes what `storeAdminAddress` stored. Throws CommandError. */
export async function forgetAdminAddress(config: Config): Promise<void> {
  await removeIfPresent(pathOf(config));
}
