/**
 * `serve`: opens sockets and device, starts the data-plane Workers, serves metrics and admin, follows signals.
 * Invariant: the main thread owns configuration and peers, Workers own packets; a Worker that fails or stalls shows in
 * /healthz, and one that failed is replaced. Moves no packet itself.
 */
import project from "../../deno.json" with { type: "json" };
import { createAdmin } from "../admin/mod.ts";
import { sum } from "../admin/prometheus.ts";
import { type AdminServer, serveAdmin } from "../admin/server.ts";
import { diffConfig, type Environment, formatEndpoint, redactConfig, reloadedConfig } from "../config.ts";
import { adminUrl, loadAdminToken } from "./admin_token.ts";
import { descriptorLimit, fallbackShare, openDescriptors, shareDescriptors } from "./descriptors.ts";
import { Doors } from "./doors.ts";
import { CommandError, loadConfig, readCommandLine, readEnvironment } from "../process/help.ts";
import { loadIdentity, resolveTunnelIpv6 } from "./identity.ts";
import { generatePrivateKey, keyToText, publicKeyOf } from "../process/keys_text.ts";
import { LivePeers } from "./live_peers.ts";
import { logger, setLevel, setupLogging } from "../process/logging.ts";
import { giveBackMemorySoon } from "../process/memory.ts";
import type { ReadyMessage } from "./worker_handle.ts";
import { DataPlanes } from "./worker_pool.ts";
import { loadAllPeers, openStore } from "./store.ts";

const HEALTH_MS = 500;

const HELP =
  `Runs the relay until SIGTERM or Ctrl-C. SIGHUP reloads peers, certificate and the keys marked "(reload)".

  deno task serve
  deno task serve --config oxrelay.toml

  --config FILE   the configuration (default: OXRELAY_CONFIG, else oxrelay.toml if that file exists)
`;

/** What is wrong with the relay, looked at often enough to tell a loop that stands still from one that idles. */
class Health {
  readonly #timer: ReturnType<typeof setInterval>;

  constructor(readonly planes: DataPlanes) {
    this.#timer = setInterval(() => planes.faults(), HEALTH_MS);
  }

  check(): { ok: boolean; reasons: string[] } {
    const reasons = this.planes.faults();
    return { ok: reasons.length === 0, reasons };
  }

  stop(): void {
    clearInterval(this.#timer);
  }
}

/** Divides WireGuard's session times for tests; anything but a number of 1 or more is refused. */
function readTimeScale(): number {
  const text = Deno.env.get("OXRELAY_TEST_TIME_SCALE");
  if (text === undefined || text === "") return 1;
  const scale = Number(text);
  if (!(scale >= 1 && Number.isFinite(scale))) {
    throw new CommandError(`OXRELAY_TEST_TIME_SCALE: expected a number of 1 or more, got "${text}"`);
  }
  return scale;
}

/** Runs the relay; resolves with the exit code when it has stopped. */
export async function serve(args: string[]): Promise<number> {
  const line = readCommandLine(args, { values: ["config"], flags: [], words: [0, 0] });
  if (line.flags.help) {
    console.log(HELP);
    return 0;
  }
  const env: Environment = readEnvironment();
  const configPath = line.values.config;
  let { config } = await loadConfig(configPath, env);
  setupLogging({ level: config.logLevel, format: config.logFormat });
  const log = logger("serve");

  const identity = await loadIdentity(config, env);
  const tunnelIpv6 = resolveTunnelIpv6(config, identity.publicKey);
  const sayClosed = (message: string) => log.warn("{message}", { message });
  let adminToken = await loadAdminToken(config, sayClosed);
  const peers = await loadAllPeers(config, env);
  const startedAt = new Date();

  const stopped = Promise.withResolvers<number>();
  // From here on: a signal during the start must not leave the host half changed.
  const onStop = () => stopped.resolve(0);
  let onReload: () => void = () => log.warn("the relay is still starting: send SIGHUP again later");
  const onHangup = () => onReload();
  Deno.addSignalListener("SIGTERM", onStop);
  Deno.addSignalListener("SIGINT", onStop);
  Deno.addSignalListener("SIGHUP", onHangup);
  const timeScale = readTimeScale();
  const descriptors = descriptorLimit();
  const doors = await Doors.open(config, tunnelIpv6, descriptors && fallbackShare(descriptors));
  if (config.trusted.length > 0) {
    log.warn("OxTunnel may go without encryption in {networks} (trusted)", {
      networks: config.trusted.join(", "),
    });
  }
  const shares = descriptors === undefined ? undefined : shareDescriptors({
    limit: descriptors,
    open: openDescriptors(),
    workers: config.workers,
    hasFallback: config.fallback !== undefined,
  });
  if (shares?.isTight) {
    log.warn("{limit} file descriptors are too few to be of much use; raise ulimit -n", {
      limit: descriptors,
    });
  }
  const planes = new DataPlanes(config.workers, doors);
  let ready: ReadyMessage;
  try {
    ready = await planes.start({
      config,
      privateKey: identity.privateKey,
      tunnelIpv6,
      peers,
      maxFlows: shares?.flowsOfWorker,
      timeScale,
      failAfterMs: Number(Deno.env.get("OXRELAY_TEST_FAIL_AFTER_MS") || NaN) || undefined,
    });
  } catch (error) {
    await planes.stop();
    throw error;
  }
  const say = (message: string) => log.error("{message}", { message });
  ready.failed.forEach(say);
  giveBackMemorySoon();

  const health = new Health(planes);
  let draining = false;
  const livePeers = new LivePeers(
    openStore(config, env, identity),
    planes,
  );
  const reload = async () => {
    let applied: string[] = [], needsRestart: string[] = [];
    const { added, removed, failed, total } = await livePeers.reload(async () => {
      const { config: next } = await loadConfig(configPath, env);
      ({ reloadable: applied, needsRestart } = diffConfig(config, next));
      const merged = reloadedConfig(config, next);
      // Not those of a state_dir that needs a restart to be used.
      const records = await loadAllPeers(merged, env);
      adminToken = await loadAdminToken(merged, sayClosed);
      config = merged;
      setLevel(config.logLevel);
      await planes.tune(config);
      return records;
    });
    failed.forEach(say);
    const summary = `${total} peers (${added.length} added, ${removed.length} removed)` +
      (applied.length ? `; changed ${applied.join(", ")}` : "") +
      (needsRestart.length ? `; ${needsRestart.join(", ")} need a restart` : "");
    log.info("reloaded: {summary}", { summary });
    return { peers: { added, removed, total }, config: { applied, needsRestart } };
  };

  const app = createAdmin({
    metrics: [...planes.metrics, ...(doors.fallback ? [doors.fallback.metrics] : [])],
    status: () => ({
      name: "oxrelay",
      version: project.version,
      startedAt,
      exit: ready.exit,
      listen: ready.listen,
    }),
    peers: async () => (await planes.snapshot()).peers,
    sessions: async () => (await planes.snapshot()).sessions,
    applications: async () => (await planes.snapshot()).applications,
    applicationsInMetrics: () => config.classes.applicationsInMetrics,
    config: () => redactConfig(config),
    adminToken: () => adminToken,
    url: () => adminUrl(config),
    reload,
    addPeer: async ({ publicKey, ...peer }) => {
      const made = publicKey === undefined ? generatePrivateKey() : undefined;
      const { presharedKey: _, ...record } = await livePeers.add({
        ...peer,
        publicKey: publicKey ?? keyToText(publicKeyOf(made!)),
        created: new Date().toISOString(),
      });
      return made ? { ...record, privateKey: keyToText(made) } : record;
    },
    removePeer: (name) => livePeers.remove(name),
    health: () => health.check(),
    ready: () => {
      const { reasons } = health.check();
      if (draining) reasons.push("it is stopping");
      if (sum(planes.metrics, (metrics) => metrics.get("connections")) >= config.maxConnections) {
        reasons.push(`max_connections (${config.maxConnections}) is reached`);
      }
      return { ok: reasons.length === 0, reasons };
    },
  });
  let server: AdminServer;
  try {
    server = serveAdmin(app, config.metricsListen, logger("admin"), {
      connectionsMax: shares?.adminConnections,
    });
  } catch (error) {
    health.stop();
    await planes.stop();
    throw error;
  }

  onReload = () => void reload().catch((error) => say(`reload refused: ${error.message}`));

  console.error(
    `Oxrelay ${project.version}
  listening on  ${ready.listen} (WireGuard and OxTunnel)
${
      doors.fallback
        ? `  fallback      ${doors.fallback.description} (OxTunnel over TLS)\n`
        : ""
    }  exit          ${ready.exit} (${doors.exitReason})
  public key    ${keyToText(identity.publicKey)}
  peers         ${peers.length}
  metrics       http://${formatEndpoint(config.metricsListen)}/metrics
` + (peers.length === 0 ? "Next: let a device connect with\n  deno task peer add phone\n" : ""),
  );

  const code = await stopped.promise;
  draining = true;
  log.info("stopping");
  health.stop();
  await planes.stop();
  await server.shutdown();
  // Only now: npx, deno task and a terminal each pass the signal on, and a second one must not cut the clean-up short.
  Deno.removeSignalListener("SIGTERM", onStop);
  Deno.removeSignalListener("SIGINT", onStop);
  Deno.removeSignalListener("SIGHUP", onHangup);
  identity.privateKey.fill(0);
  log.info("stopped");
  return code;
}
