/**
 * `serve`: runs a relay until it is told to stop. Invariant: a signal during the start leaves the host as it was, and one during
 * the end does not cut the clean-up short; a reload that is refused ends nothing. Moves no packet itself.
 */
import type { Environment } from "../config.ts";
import { loadConfig, readCommandLine, readEnvironment } from "../process/help.ts";
import { logger, setupLogging } from "../process/logging.ts";
import { onParentGone } from "../process/parent.ts";
import { readSetup, RelayProcess } from "./relay_process.ts";
import { ServiceManager, serviceWishes } from "../process/service_manager.ts";

const HELP =
  `Runs the relay until SIGTERM or Ctrl-C. SIGHUP reloads peers, certificate and the keys marked "(reload)".

  deno task serve
  deno task serve --config oxrelay.toml

  --config FILE   the configuration (default: OXRELAY_CONFIG, else oxrelay.toml if that file exists)
`;

/** Runs the relay; resolves with the exit code when it has stopped. Throws ConfigError or CommandError. */
export async function serve(args: string[]): Promise<number> {
  const line = readCommandLine(args, { values: ["config"], flags: [], words: [0, 0] });
  if (line.flags.help) {
    console.log(HELP);
    return 0;
  }
  const env: Environment = readEnvironment();
  const configPath = line.values.config;
  const { config } = await loadConfig(configPath, env);
  setupLogging({ level: config.logLevel, format: config.logFormat });
  const log = logger("serve");
  const setup = await readSetup(config, configPath, env);

  const stopped = Promise.withResolvers<number>();
  // From here on: a signal during the start must not leave the host half changed.
  const onStop = () => stopped.resolve(0);
  let onReload: () => void = () => log.warn("the relay is still starting: send SIGHUP again later");
  const onHangup = () => onReload();
  Deno.addSignalListener("SIGTERM", onStop);
  Deno.addSignalListener("SIGINT", onStop);
  Deno.addSignalListener("SIGHUP", onHangup);
  const endWatch = onParentGone(onStop);
  const relay = await RelayProcess.start(setup);
  onReload = () =>
    void relay.reload().catch(({ message }) =>
      log.error("{message}", { message: `reload refused: ${message}` })
    );
  console.error(relay.describe());
  const manager = followServiceManager(relay, log);

  const code = await stopped.promise;
  log.info("stopping");
  endWatch();
  manager?.stopping();
  await relay.stop();
  manager?.close();
  // Only now: npx, deno task and a terminal each pass the signal on, and a second one must not cut the clean-up short.
  Deno.removeSignalListener("SIGTERM", onStop);
  Deno.removeSignalListener("SIGINT", onStop);
  Deno.removeSignalListener("SIGHUP", onHangup);
  log.info("stopped");
  return code;
}

/** Tells systemd, where it started this process, that the relay is ready, and has it hear from then on that the relay works. */
function followServiceManager(
  relay: RelayProcess,
  log: ReturnType<typeof logger>,
): ServiceManager | undefined {
  const wishes = serviceWishes({
    socket: Deno.env.get("NOTIFY_SOCKET"),
    watchdogUs: Deno.env.get("WATCHDOG_USEC"),
  });
  if (wishes === undefined) return undefined;
  try {
    const manager = new ServiceManager(wishes, () => relay.isHealthy);
    manager.ready();
    return manager;
  } catch (error) {
    log.warn("the service manager is told nothing: {message}", { message: (error as Error).message });
    return undefined;
  }
}
