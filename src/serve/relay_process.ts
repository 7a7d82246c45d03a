/**
 * A relay in this process: its doors, Workers, peers and admin interface as one that starts, reloads and stops. Invariant: the
 * main thread owns configuration and peers, Workers own packets; what was opened is closed again, whether the start fails
 * half-way or the relay stops; a Worker that fails or stalls shows in /healthz. Follows no signal and prints only log lines.
 */
import project from "../../deno.json" with { type: "json" };
import { type AdminDeps, createAdmin, type Health, type ReloadReport } from "../admin/mod.ts";
import { sum } from "../admin/prometheus.ts";
import { type AdminServer, serveAdmin } from "../admin/server.ts";
import {
  type Config,
  diffConfig,
  type Endpoint,
  type Environment,
  formatEndpoint,
  parseEndpoint,
  redactConfig,
  reloadedConfig,
} from "../config.ts";
import type { Metrics } from "../metrics.ts";
import { CommandError, loadConfig } from "../process/help.ts";
import { keyToText } from "../process/keys_text.ts";
import { logger, setLevel } from "../process/logging.ts";
import { giveBackMemorySoon } from "../process/memory.ts";
import type { PeerRecord } from "../session/peer_record.ts";
import { Access } from "./access/mod.ts";
import { adminUrl, forgetAdminAddress, openAdmin, storeAdminAddress } from "./admin_address.ts";
import { loadAdminToken } from "./admin_token.ts";
import { descriptorLimit, fallbackShare, openDescriptors, shareDescriptors } from "./descriptors.ts";
import { Doors } from "./doors.ts";
import { type Identity, loadIdentity, networkOf, resolveTunnelIpv6 } from "./identity.ts";
import { loadAllPeers } from "./store.ts";
import { hostOne } from "../wire/address.ts";
import { PortControl } from "./port_control.ts";
import type { ReadyMessage } from "./worker_handle.ts";
import { WorkerPool } from "./worker_pool.ts";

/** How often the Workers' loops are looked at: often enough to tell one that stands still from one that idles. */
const HEALTH_MS = 500;
/** How long a device's reply to a ping is waited for; a phone that sleeps takes a second or so. */
const PING_MS = 2000;

const sayClosed = (message: string) => logger("serve").warn("{message}", { message });
const say = (message: string) => logger("serve").error("{message}", { message });

/** What a relay is started with. */
export interface RelaySetup {
  config: Config;
  /** Where the configuration is read again from; undefined for the default file. */
  configPath: string | undefined;
  env: Environment;
  identity: Identity;
  adminToken: string;
  peers: PeerRecord[];
}

/** Reads everything that a relay is started with. Throws ConfigError or CommandError. */
export async function readSetup(
  config: Config,
  configPath: string | undefined,
  env: Environment,
): Promise<RelaySetup> {
  const identity = await loadIdentity(config, env);
  const adminToken = await loadAdminToken(config, sayClosed);
  return { config, configPath, env, identity, adminToken, peers: await loadAllPeers(config, env) };
}

export class RelayProcess {
  readonly #configPath: string | undefined;
  readonly #env: Environment;
  readonly #identity: Identity;
  readonly #startedAt = new Date();
  readonly #doors: Doors;
  readonly #pool: WorkerPool;
  readonly #ready: ReadyMessage;
  readonly #access: Access;
  readonly #portControl: PortControl;
  readonly #looking: ReturnType<typeof setInterval>;
  #server: AdminServer | undefined;
  #config: Config;
  #adminToken: string;
  #isDraining = false;

  /** Opens doors, starts Workers and serves the admin interface. Throws CommandError, with everything closed again. */
  static async start(setup: RelaySetup): Promise<RelayProcess> {
    const { config, identity } = setup;
    const timeScale = readTimeScale();
    const tunnelIpv6 = resolveTunnelIpv6(config, identity.publicKey);
    const descriptors = descriptorLimit();
    const doors = await Doors.open(config, tunnelIpv6, descriptors && fallbackShare(descriptors));
    warnOfTrusted(config);
    const shares = sharesOf(descriptors, config);
    const pool = new WorkerPool(config.workers, doors);
    let relay: RelayProcess | undefined;
    try {
      const access = await Access.open({
        ...setup,
        config: () => relay === undefined ? config : relay.#config,
        pool,
      });
      const ready = await pool.start({
        config,
        privateKey: identity.privateKey,
        tunnelIpv6,
        peers: access.admitted,
        maxFlows: shares?.flowsOfWorker,
        timeScale,
        failAfterMs: Number(Deno.env.get("OXRELAY_TEST_FAIL_AFTER_MS") || NaN) || undefined,
      });
      ready.failed.forEach(say);
      giveBackMemorySoon();
      relay = new RelayProcess(setup, doors, pool, ready, access);
      await relay.#serveAdmin(shares?.adminConnections);
      return relay;
    } catch (error) {
      if (relay) await relay.stop();
      else await pool.stop();
      throw error;
    }
  }

  private constructor(
    setup: RelaySetup,
    doors: Doors,
    pool: WorkerPool,
    ready: ReadyMessage,
    access: Access,
  ) {
    this.#config = setup.config;
    this.#configPath = setup.configPath;
    this.#env = setup.env;
    this.#identity = setup.identity;
    this.#adminToken = setup.adminToken;
    this.#doors = doors;
    this.#pool = pool;
    this.#ready = ready;
    this.#access = access;
    access.watch(this.#metrics);
    const { ipv4, ipv6 } = tunnelAddresses(setup);
    this.#portControl = new PortControl({
      pool,
      most: () => this.#config.destinations.portMappings,
      listen: doors.device ? [ipv4, ...(ipv6 === undefined ? [] : [ipv6])] : [],
      outside: () => outsideAddresses(this.#config),
    });
    this.#looking = setInterval(() => pool.faults(), HEALTH_MS);
  }

  /** What a person wants to know of a relay that has started, in a few lines. */
  describe(): string {
    const { fallback, exitReason } = this.#doors;
    const count = this.#pool.peers.length;
    return `Oxrelay ${project.version}
  listening on  ${this.#ready.listen} (WireGuard and OxTunnel)
${
      fallback
        ? `  fallback      ${fallback.description} (OxTunnel over TLS)\n`
        : ""
    }  exit          ${this.#ready.exit} (${exitReason})
  public key    ${keyToText(this.#identity.publicKey)}
  peers         ${count}
  metrics       http://${formatEndpoint(this.#adminListen)}/metrics
` + (count === 0 ? "Next: let a device connect with\n  deno task peer add phone\n" : "");
  }

  /** Reads configuration, peers and token again, and has the Workers follow. Rejects with the sentence why not. */
  async reload(): Promise<ReloadReport> {
    let applied: string[] = [], needsRestart: string[] = [];
    const { added, removed, failed, total } = await this.#access.livePeers.reload(async () => {
      const { config: next } = await loadConfig(this.#configPath, this.#env);
      ({ reloadable: applied, needsRestart } = diffConfig(this.#config, next));
      const merged = reloadedConfig(this.#config, next);
      // Not those of a state_dir that needs a restart to be used.
      const records = await loadAllPeers(merged, this.#env);
      this.#adminToken = await loadAdminToken(merged, sayClosed);
      this.#config = merged;
      setLevel(merged.logLevel);
      await this.#pool.tune(merged);
      return records;
    });
    failed.forEach(say);
    const summary = `${total} peers (${added.length} added, ${removed.length} removed)` +
      (applied.length ? `; changed ${applied.join(", ")}` : "") +
      (needsRestart.length ? `; ${needsRestart.join(", ")} need a restart` : "");
    logger("serve").info("reloaded: {summary}", { summary });
    return { peers: { added, removed, total }, config: { applied, needsRestart } };
  }

  /**
   * Ends Workers, doors and admin interface, within STOP_MS and GRACE_MS whatever they and their clients do; the time of the
   * programs that give the host back its rules and routes comes on top.
   */
  async stop(): Promise<void> {
    this.#isDraining = true;
    clearInterval(this.#looking);
    this.#portControl.close();
    try {
      await this.#pool.stop();
      await this.#access.close();
    } finally {
      await this.#server?.shutdown();
      await forgetAdminAddress(this.#config).catch(() => {}); // the next start does, too
      this.#identity.privateKey.fill(0);
    }
  }

  async #serveAdmin(connectionsMax: number | undefined): Promise<void> {
    const app = createAdmin(this.#adminDeps());
    const open = (listen: Endpoint) => serveAdmin(app, listen, logger("admin"), { connectionsMax });
    this.#server = openAdmin(this.#config, open, sayClosed);
    await storeAdminAddress(this.#config, this.#server.addr, sayClosed);
  }

  /** Where the admin interface listens. */
  get #adminListen(): Endpoint {
    const { metricsListen } = this.#config;
    return { ...metricsListen, port: this.#server?.addr.port ?? metricsListen.port };
  }

  /** The counters of the Workers and of the door for TLS. */
  get #metrics(): Metrics[] {
    const { fallback } = this.#doors;
    return [...this.#pool.metrics, this.#doors.metrics, ...(fallback ? [fallback.metrics] : [])];
  }

  #adminDeps(): AdminDeps {
    return {
      ...this.#access.served,
      metrics: this.#metrics,
      status: () => ({
        name: "oxrelay",
        version: project.version,
        startedAt: this.#startedAt,
        exit: this.#ready.exit,
        listen: this.#ready.listen,
      }),
      snapshot: (maxAgeMs) => this.#pool.snapshot(maxAgeMs),
      applicationsInMetrics: () => this.#config.classes.applicationsInMetrics,
      devicesInMetrics: () => this.#config.devicesInMetrics,
      config: () => redactConfig(this.#config),
      adminToken: () => this.#adminToken,
      url: () => adminUrl(this.#adminListen),
      reload: () => this.reload(),
      network: () => networkOf(this.#config, this.#identity.publicKey),
      publicKey: () => keyToText(this.#identity.publicKey),
      ping: (name) => this.#ping(name),
      health: () => this.#health(),
      ready: () => this.#readiness(),
    };
  }

  /** Whether every Worker's loop turns and the device is there. */
  get isHealthy(): boolean {
    return this.#health().ok;
  }

  async #ping(name: string): Promise<number | null | false> {
    const peer = this.#pool.peers.find((peer) => peer.name === name);
    return peer === undefined ? false : await this.#pool.ping(peer.publicKey, PING_MS) ?? null;
  }

  #health(): Health {
    const reasons = this.#pool.faults();
    return { ok: reasons.length === 0, reasons };
  }

  #readiness(): Health {
    const { reasons } = this.#health();
    const { maxConnections } = this.#config;
    if (this.#isDraining) reasons.push("it is stopping");
    if (sum(this.#pool.metrics, (metrics) => metrics.get("connections")) >= maxConnections) {
      reasons.push(`max_connections (${maxConnections}) is reached`);
    }
    return { ok: reasons.length === 0, reasons };
  }
}

/** The relay's own addresses in the tunnel. */
function tunnelAddresses({ config, identity }: RelaySetup): { ipv4: string; ipv6: string | undefined } {
  const ipv6 = resolveTunnelIpv6(config, identity.publicKey);
  return { ipv4: hostOne(config.tunnelIpv4).address, ipv6: ipv6 && hostOne(ipv6).address };
}

/** Addresses by which the internet reaches this host: the configured one, then those of its interfaces, public ones first. */
function outsideAddresses({ publicEndpoint, tunName }: Config): string[] {
  const isPrivate = (address: string) =>
    /^(10|127|169\.254|192\.168|172\.(1[6-9]|2\d|3[01]))\.|^f[cde]|^::1$/.test(address);
  const own = Deno.networkInterfaces().filter(({ name }) => name !== tunName).map(({ address }) => address)
    .filter((address) => !/^127\.|^::1$|^fe80/.test(address));
  return [
    ...(publicEndpoint ? [parseEndpoint(publicEndpoint)?.host ?? ""] : []),
    ...own.filter((address) => !isPrivate(address)),
    ...own.filter(isPrivate),
  ];
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

function warnOfTrusted({ trusted }: Config): void {
  if (trusted.length === 0) return;
  logger("serve").warn("OxTunnel may go without encryption in {networks} (trusted)", {
    networks: trusted.join(", "),
  });
}

/** Who may have how many of the file descriptors that doors have left; undefined where their limit is not known. */
function sharesOf(limit: number | undefined, { workers, fallback }: Config) {
  if (limit === undefined) return undefined;
  const shares = shareDescriptors({
    limit,
    open: openDescriptors(),
    workers,
    hasFallback: fallback !== undefined,
  });
  if (shares.isTight) {
    logger("serve").warn("{limit} file descriptors are too few to be of much use; raise ulimit -n", {
      limit,
    });
  }
  return shares;
}
