/**
 * `serve`: starts the data-plane Worker, serves metrics and admin, follows signals. Invariant: the main thread
 * owns configuration and peers, the Worker owns packets; a Worker that fails or stalls shows in /healthz and in
 * the exit code. Moves no packet itself.
 */
import project from "../../deno.json" with { type: "json" };
import { getLogger } from "@logtape/logtape";
import { createAdmin, Refusal } from "../admin/mod.ts";
import { serveAdmin } from "../admin/server.ts";
import { type Config, diffConfig, type Environment, formatEndpoint, redactConfig } from "../config.ts";
import { Metrics } from "../metrics.ts";
import { CommandError, loadConfig, readCommandLine, readEnvironment } from "./help.ts";
import { loadIdentity, resolveTunnelIpv6 } from "./identity.ts";
import { generatePrivateKey, keyToText, publicKeyOf } from "./keys_text.ts";
import { redactAddress, setLevel, setupLogging, sparingWarning } from "./logging.ts";
import type { FromWorker, PeersReport, Snapshot, ToWorker } from "./messages.ts";
import type { TunnelEvent } from "../tunnel.ts";
import { loadAllPeers, peersFromEnvironment, PeerStore } from "./store.ts";

const REPLY_TIMEOUT_MS = 3000;
const STOP_TIMEOUT_MS = 5000;
const STALL_MS = 2000;
const HEALTH_MS = 500;

const logger = (area: string) => getLogger(["oxrelay", area]);

const REFUSALS_MS = 10_000;
const warnOfRefusal = sparingWarning(logger("peers"), REFUSALS_MS);

/** Says what happened to a peer; a roaming one at debug level, as it may do so with every packet. */
function logEvent({ kind, peer, endpoint }: TunnelEvent): void {
  const from = redactAddress(endpoint);
  if (kind === "refused") {
    warnOfRefusal("{peer} was refused: max_connections is reached; raise it, or wait until a client leaves", {
      peer,
    });
  } else if (kind === "connected") logger("peers").info("{peer} connected from {from}", { peer, from });
  else if (kind === "roamed") logger("peers").debug("{peer} moved to {from}", { peer, from });
  else logger("peers").info("{peer} is gone: its session ended", { peer });
}

const HELP = `Runs the relay until it gets SIGTERM or Ctrl-C. SIGHUP re-reads peers and the reloadable keys.

  deno task serve
  deno task serve --config oxrelay.toml

  --config FILE   the configuration; without it oxrelay.toml, if there is one
`;

/** The data-plane Worker seen from the main thread: requests with replies, and what it last said of itself. */
class DataPlane {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, (value: PeersReport | Snapshot | null) => void>();
  #lastId = 0;
  #fatal: string | undefined;
  #onStopped: () => void = () => {};

  constructor() {
    this.#worker = new Worker(new URL("./dataplane.ts", import.meta.url), { type: "module" });
  }

  /** What ended the Worker, if something did. */
  get fatal(): string | undefined {
    return this.#fatal;
  }

  /** Starts it; resolves with what it opened, rejects with the sentence that says why not. */
  start(message: Extract<ToWorker, { type: "start" }>): Promise<Extract<FromWorker, { type: "ready" }>> {
    return new Promise((resolve, reject) => {
      let ready = false;
      const fail = (reason: string) => {
        this.#fatal = reason;
        if (!ready) reject(new CommandError(reason));
        else logger("data plane").error(reason);
      };
      this.#worker.onerror = (event) => {
        event.preventDefault(); // or the main thread dies with it
        fail(`the data plane failed: ${event.message}`);
      };
      this.#worker.onmessage = ({ data }: MessageEvent<FromWorker>) => {
        if (data.type === "ready") {
          ready = true;
          resolve(data);
        } else if (data.type === "failed") fail(data.message);
        else if (data.type === "log") logger(data.area)[data.level](data.message);
        else if (data.type === "event") logEvent(data.event);
        else if (data.type === "stopped") this.#onStopped();
        else {
          this.#waiting.get(data.id)?.(data.value);
          this.#waiting.delete(data.id);
        }
      };
      this.#worker.postMessage(message);
    });
  }

  setPeers(peers: Extract<ToWorker, { type: "peers" }>["peers"]): Promise<PeersReport> {
    return this.#ask((id) => ({ type: "peers", id, peers })) as Promise<PeersReport>;
  }

  async tune(config: Config): Promise<void> {
    await this.#ask((id) => ({ type: "tune", id, config }));
  }

  snapshot(): Promise<Snapshot> {
    return this.#ask((id) => ({ type: "snapshot", id })) as Promise<Snapshot>;
  }

  /** Closes port and exit, and returns when that is done or has taken too long. */
  async stop(): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, STOP_TIMEOUT_MS);
      this.#onStopped = () => {
        clearTimeout(timer);
        resolve();
      };
      this.#worker.postMessage({ type: "stop" } satisfies ToWorker);
    });
    this.#worker.terminate();
  }

  #ask(make: (id: number) => ToWorker): Promise<PeersReport | Snapshot | null> {
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(id);
        reject(new Error("the data plane does not answer"));
      }, REPLY_TIMEOUT_MS);
      this.#waiting.set(id, (value) => {
        clearTimeout(timer);
        resolve(value);
      });
      this.#worker.postMessage(make(id));
    });
  }
}

/** Watches whether the data plane's loop turns and its exit is up. */
class Health {
  readonly #timer: ReturnType<typeof setInterval>;
  #beats = -1;
  #beatAtMs = performance.now();
  #fault: string | undefined;

  constructor(readonly metrics: Metrics, readonly plane: DataPlane) {
    this.#timer = setInterval(() => this.#look(), HEALTH_MS);
  }

  check(): { ok: boolean; reasons: string[] } {
    const reasons: string[] = [];
    if (this.plane.fatal !== undefined) reasons.push(this.plane.fatal);
    const silentMs = performance.now() - this.#beatAtMs;
    if (silentMs > STALL_MS) {
      reasons.push(`the data plane's loop has stood still for ${Math.round(silentMs)} ms`);
    }
    if (this.#fault !== undefined) reasons.push(this.#fault);
    return { ok: reasons.length === 0, reasons };
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  async #look(): Promise<void> {
    const beats = this.metrics.get("loop_beats");
    if (beats !== this.#beats) this.#beatAtMs = performance.now();
    this.#beats = beats;
    try {
      this.#fault = (await this.plane.snapshot()).fault;
    } catch {
      // A data plane that does not answer shows as a loop that stands still.
    }
  }
}

/** Divides WireGuard's session times for tests; anything but a number of 1 or more is refused. */
function readTimeScale(): number {
  const text = Deno.env.get("OXRELAY_TEST_TIME_SCALE");
  if (text === undefined || text === "") return 1;
  const scale = Number(text);
  if (!(scale >= 1)) {
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
  const peers = await loadAllPeers(config, env);
  const metrics = new Metrics();
  const plane = new DataPlane();
  const startedAt = new Date();

  const stopped = Promise.withResolvers<number>();
  let ready: Extract<FromWorker, { type: "ready" }>;
  try {
    ready = await plane.start({
      type: "start",
      config,
      privateKey: identity.privateKey,
      tunnelIpv6,
      peers,
      counters: metrics.shared,
      timeScale: readTimeScale(),
    });
  } catch (error) {
    await plane.stop();
    throw error;
  }
  for (const failure of ready.failed) log.error(failure);

  const health = new Health(metrics, plane);
  const reload = async () => {
    const { config: next } = await loadConfig(configPath, env);
    const { reloadable, needsRestart } = diffConfig(config, next);
    const records = await loadAllPeers(next, env);
    config = { ...config, ...pick(next) };
    setLevel(config.logLevel);
    await plane.tune(config);
    const { added, removed, failed } = await plane.setPeers(records);
    for (const failure of failed) log.error(failure);
    log.info(
      `reloaded: ${records.length} peers (${added.length} added, ${removed.length} removed)` +
        (reloadable.length ? `; changed ${reloadable.join(", ")}` : "") +
        (needsRestart.length ? `; ${needsRestart.join(", ")} need a restart` : ""),
    );
    return {
      peers: { added, removed, total: records.length },
      config: { applied: reloadable, needsRestart },
    };
  };
  const store = new PeerStore({
    stateDir: config.stateDir,
    tunnelIpv4: config.tunnelIpv4,
    tunnelIpv6,
    others: peersFromEnvironment(env),
  });

  const app = createAdmin({
    metrics: [metrics],
    status: () => ({
      name: "oxrelay",
      version: project.version,
      startedAt,
      exit: ready.exit,
      listen: ready.listen,
    }),
    peers: async () => (await plane.snapshot()).peers,
    sessions: async () => (await plane.snapshot()).sessions,
    config: () => redactConfig(config),
    adminToken: () => config.adminToken,
    reload,
    addPeer: async ({ name, publicKey }) => {
      const made = publicKey === undefined ? generatePrivateKey() : undefined;
      const record = await store.add({
        name,
        publicKey: publicKey ?? keyToText(publicKeyOf(made!)),
        created: new Date().toISOString(),
      }).catch((error) => {
        throw error instanceof CommandError ? new Refusal("name", error.message) : error;
      });
      await reload();
      return made ? { ...record, privateKey: keyToText(made) } : record;
    },
    removePeer: async (name) => {
      if (!(await store.load()).some((record) => record.name === name)) return false;
      await store.remove(name);
      await reload();
      return true;
    },
    health: () => health.check(),
    ready: () => {
      const { reasons } = health.check();
      if (metrics.get("connections") >= config.maxConnections) {
        reasons.push(`max_connections (${config.maxConnections}) is reached`);
      }
      return { ok: reasons.length === 0, reasons };
    },
  });
  let server: Deno.HttpServer;
  try {
    server = serveAdmin(app, config.metricsListen, logger("admin"));
  } catch (error) {
    health.stop();
    await plane.stop();
    throw error;
  }

  const onStop = () => stopped.resolve(0);
  const onReload = () => void reload().catch((error) => log.error(`reload refused: ${error.message}`));
  Deno.addSignalListener("SIGTERM", onStop);
  Deno.addSignalListener("SIGINT", onStop);
  Deno.addSignalListener("SIGHUP", onReload);

  console.error(
    `Oxrelay ${project.version}
  listening on  ${ready.listen} (WireGuard)
  exit          ${ready.exit} (${ready.exitReason})
  public key    ${keyToText(identity.publicKey)}
  peers         ${peers.length}
  metrics       http://${formatEndpoint(config.metricsListen)}/metrics
` + (peers.length === 0 ? "Next: let a device connect with\n  deno task peer add phone\n" : ""),
  );

  const code = await stopped.promise;
  log.info("stopping");
  health.stop();
  await plane.stop();
  await server.shutdown();
  // Only now: npx, deno task and a terminal each pass the signal on, and a second one must not cut the clean-up short.
  Deno.removeSignalListener("SIGTERM", onStop);
  Deno.removeSignalListener("SIGINT", onStop);
  Deno.removeSignalListener("SIGHUP", onReload);
  log.info("stopped");
  return code;
}

/** The keys that a reload may change; the others keep the values that the relay was started with. */
function pick(next: Config): Partial<Config> {
  const { logLevel, rateLimitPerIp, maxConnections, destinations, dns, adminToken, publicEndpoint } = next;
  return { logLevel, rateLimitPerIp, maxConnections, destinations, dns, adminToken, publicEndpoint };
}
