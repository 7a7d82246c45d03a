/**
 * The configuration: TOML text and environment in, one deep-frozen Config out; every key's bounds live here and its default in
 * config/defaults.ts. Invariant: a Config that `parseConfig` returns is fully checked, so its users check nothing. Reads no file
 * and no environment itself, and makes nothing (keys, the "auto" prefix) that depends on the machine. Long because every key
 * has its line in the schema and in the join of file and defaults, side by side.
 */
import * as v from "valibot";
import {
  formatAddress,
  isIpv4,
  parseAddress,
  parsePrefix,
  prefixContains,
  prefixesOverlap,
  prefixLength,
} from "./wire/address.ts";
import { deepFreeze, DEFAULTS, FLY_DEFAULTS } from "./config/defaults.ts";
import {
  type Config,
  ConfigError,
  CONGESTION_ALGORITHMS,
  type Endpoint,
  type Environment,
  type FallbackConfig,
  IO_WAYS,
  REPAIR_PREDICTOR_NAMES,
  REPAIR_SCHEME_NAMES,
} from "./config/shape.ts";
import { isTable, nearest, parseToml, placeOfSection } from "./config/text.ts";
import { HEADER_METHODS } from "./wire/parameters.ts";
import { toTomlKeys } from "./config/toml_keys.ts";
import {
  decimal,
  endpoint,
  expected,
  flag,
  list,
  networks,
  oneOf,
  parseEndpoint,
  prefix,
  ROLLOUT_ENTRIES,
  show,
  text,
  wholeNumber,
} from "./config/values.ts";
import { CLASS_RULES_MAX } from "./control/class_rules.ts";
import { readClassRule } from "./control/rule_text.ts";
import { rangesOf, RFC_1918 } from "./wire/special_ranges.ts";

export { DEFAULTS } from "./config/defaults.ts";
export * from "./config/shape.ts";
export { nearest } from "./config/text.ts";
export { formatEndpoint, parseEndpoint } from "./config/values.ts";
const MTU_MIN_IPV6 = 1280; // RFC 8200 section 5
const PRIVATE_IPV4 = RFC_1918.map((range) => parsePrefix(range)!);
/** What no entry of `allow` may open. */
const NEVER_ROUTABLE = rangesOf("never");

const tunnelIpv4 = prefix(
  'a private network (RFC 1918) of /8 to /29 such as "10.66.0.0/16"',
  (one) =>
    prefixLength(one) >= 8 && prefixLength(one) <= 29 &&
    PRIVATE_IPV4.some((range) => one.bits >= range.bits && prefixContains(range, one.address)),
);

const ULA = 'a unique local /64 such as "fd12:3456:789a::/64", "auto" or "off"';
const tunnelIpv6 = v.union([
  v.picklist(["auto", "off"]),
  prefix(ULA, ({ address, bits }) => !isIpv4(address) && bits === 64 && address[0] >>> 24 === 0xfd),
], expected(ULA));

// A token is a secret: its message shows nothing of what was found.
const adminToken = v.pipe(
  v.string("expected a string of at least 16 characters without spaces"),
  v.regex(/^[\x21-\x7e]{16,512}$/, "expected 16 to 512 printable characters without spaces"),
);

const DESTINATION_ENTRIES = {
  allow_loopback: v.optional(flag),
  allow_link_local: v.optional(flag),
  allow_private: v.optional(flag),
  allow_peers: v.optional(flag),
  allow_speedtest: v.optional(flag),
  port_mappings: v.optional(wholeNumber(0, 256)),
  allow: v.optional(networks(
    "192.168.1.0/24",
    256,
    prefix(
      'a network such as "192.168.1.0/24" or "fd00::/8" apart from 0.0.0.0/8, 224.0.0.0/3, ::/128 and ff00::/8',
      (entry) => !NEVER_ROUTABLE.some((range) => prefixesOverlap(range, entry)),
    ),
  )),
  deny: v.optional(networks("203.0.113.0/24", 256, prefix('a network such as "203.0.113.0/24"', () => true))),
};

/** A slip of a prefix must not trust the world. */
const TRUSTED_BITS_MIN = 8;
const pathOf = (what: string) => text(`the path of ${what}`, (value) => /^[^\0]{1,1024}$/.test(value));

const FALLBACK_ENTRIES = {
  listen: v.optional(endpoint("0.0.0.0:443")),
  certificate: v.optional(pathOf("a file")),
  private_key: v.optional(pathOf("a file")),
  public_endpoint: v.optional(
    text('"host:port" such as "relay.example.com:443"', (value) => parseEndpoint(value) !== undefined),
  ),
};

const REPAIR_ENTRIES = {
  enabled: v.optional(flag),
  budget_percent: v.optional(wholeNumber(1, 100)),
  game_deadline_ms: v.optional(wholeNumber(10, 1000)),
  voice_deadline_ms: v.optional(wholeNumber(10, 1000)),
  scheme: v.optional(oneOf(...REPAIR_SCHEME_NAMES)),
  share_percent: v.optional(wholeNumber(1, 100)),
  traffic_aware: v.optional(flag),
  proactive: v.optional(flag),
  predictor: v.optional(oneOf(...REPAIR_PREDICTOR_NAMES)),
  requests: v.optional(flag),
  target_percent: v.optional(decimal(0.01, 10)),
};

const QUEUES_ENTRIES = {
  rate_per_peer_mbit: v.optional(wholeNumber(1, 100_000)),
  target_ms: v.optional(wholeNumber(1, 100)),
  interval_ms: v.optional(wholeNumber(10, 1000)),
  ecn: v.optional(flag),
  packets: v.optional(wholeNumber(64, 4096)),
};

const HEADERS_ENTRIES = {
  enabled: v.optional(flag),
  bulk: v.optional(flag),
  contexts: v.optional(wholeNumber(64, 65_536)),
  methods: v.optional(v.pipe(
    list('a list of methods such as ["rohc", "elided"]'),
    v.minLength(1, "expected at least one method"),
    v.maxLength(
      HEADER_METHODS.length,
      (issue) => `expected ${HEADER_METHODS.length} methods, found ${issue.input.length}`,
    ),
    v.array(oneOf(...HEADER_METHODS)),
  )),
};

const CLASSES_ENTRIES = {
  rules: v.optional(v.pipe(
    list('a list of rules such as ["game port=27015-27030"]'),
    v.maxLength(
      CLASS_RULES_MAX,
      (issue) => `expected at most ${CLASS_RULES_MAX} rules, found ${issue.input.length}`,
    ),
    v.array(v.pipe(
      v.string(expected('a rule such as "game port=27015-27030"')),
      v.rawCheck(({ dataset, addIssue }) => {
        const mistake = dataset.typed ? mistakeInRule(dataset.value) : undefined;
        if (mistake !== undefined) addIssue({ message: mistake });
      }),
    )),
  )),
  applications_in_metrics: v.optional(flag),
};

/** What is wrong with a rule of the relay's, in words. */
function mistakeInRule(text: string): string | undefined {
  try {
    const { program } = readClassRule(text, parsePrefix);
    return program === undefined
      ? undefined
      : `${show(text)}: a relay sees no programs; give this one to connect --rule`;
  } catch (error) {
    if (error instanceof SyntaxError) return error.message;
    throw error;
  }
}

const SECTIONS = {
  classes: CLASSES_ENTRIES,
  destinations: DESTINATION_ENTRIES,
  fallback: FALLBACK_ENTRIES,
  repair: REPAIR_ENTRIES,
  queues: QUEUES_ENTRIES,
  rollout_percent: ROLLOUT_ENTRIES,
  headers: HEADERS_ENTRIES,
};
const sectionOf = (key: string): object | undefined => (SECTIONS as Record<string, object>)[key];

const ENTRIES = {
  listen: v.optional(endpoint("[::]:4433")),
  public_endpoint: v.optional(
    text('"host:port" such as "relay.example.com:4433"', (value) => parseEndpoint(value) !== undefined),
  ),
  max_connections: v.optional(wholeNumber(1, 250_000)),
  rate_limit_per_ip: v.optional(wholeNumber(1, 1000)),
  exit: v.optional(oneOf("auto", "tun", "userspace")),
  kernels: v.optional(oneOf("auto", "portable", "native")),
  io: v.optional(oneOf("auto", ...IO_WAYS)),
  tun_name: v.optional(
    text(
      "a letter and up to 14 more of a-z, 0-9, _ and -, not all, default or lo",
      (value) => /^[a-z][a-z0-9_-]{0,14}$/.test(value) && !["all", "default", "lo"].includes(value),
    ),
  ),
  tunnel_ipv4: v.optional(tunnelIpv4),
  tunnel_ipv6: v.optional(tunnelIpv6),
  enable_compression: v.optional(flag),
  enable_rohc: v.optional(flag),
  compression_threshold: v.optional(wholeNumber(64, 1500)),
  mtu: v.optional(wholeNumber(576, 1500)),
  enable_batching: v.optional(flag),
  enable_multipath: v.optional(flag),
  go_first: v.optional(flag),
  batch_wait_us: v.optional(wholeNumber(0, 1000)),
  dns: v.optional(v.pipe(
    list('a list of addresses such as ["1.1.1.1"]'),
    v.maxLength(8, (issue) => `expected at most 8 addresses, found ${issue.input.length}`),
    v.array(v.pipe(
      text('an IP address such as "1.1.1.1"', (value) => parseAddress(value) !== undefined),
      v.transform((value) => formatAddress(parseAddress(value)!)),
    )),
  )),
  destinations: v.optional(v.strictObject(DESTINATION_ENTRIES)),
  classes: v.optional(v.strictObject(CLASSES_ENTRIES)),
  repair: v.optional(v.strictObject(REPAIR_ENTRIES)),
  enable_priority_scheduler: v.optional(flag),
  congestion_algorithm: v.optional(oneOf(...CONGESTION_ALGORITHMS)),
  queues: v.optional(v.strictObject(QUEUES_ENTRIES)),
  rollout_percent: v.optional(v.strictObject(ROLLOUT_ENTRIES)),
  headers: v.optional(v.strictObject(HEADERS_ENTRIES)),
  trusted: v.optional(networks(
    "127.0.0.0/8",
    64,
    prefix(
      `a network of /${TRUSTED_BITS_MIN} or smaller such as "127.0.0.0/8"`,
      (one) => prefixLength(one) >= TRUSTED_BITS_MIN,
    ),
  )),
  fallback: v.optional(v.strictObject(FALLBACK_ENTRIES)),
  metrics_listen: v.optional(endpoint("127.0.0.1:9090")),
  devices_in_metrics: v.optional(wholeNumber(0, 1000)),
  admin_token: v.optional(adminToken),
  workers: v.optional(wholeNumber(1, 16)),
  cpus: v.optional(v.pipe(
    list("a list of processor numbers such as [0, 1]"),
    v.maxLength(16, (issue) => `expected at most 16 processors, found ${issue.input.length}`),
    v.array(wholeNumber(0, 1023)),
  )),
  log_level: v.optional(oneOf("debug", "info", "warning", "error")),
  log_format: v.optional(oneOf("text", "json")),
  state_dir: v.optional(pathOf("a directory")),
};

const SCHEMA = v.strictObject(ENTRIES);
type FromFile = v.InferOutput<typeof SCHEMA>;

/** Every key of the file, a section's as "destinations.allow". */
export const CONFIG_KEYS: readonly string[] = Object.keys(ENTRIES).flatMap((key) => {
  const section = sectionOf(key);
  return section === undefined ? [key] : Object.keys(section).map((inner) => `${key}.${inner}`);
});

/** The keys that a running relay takes over on reload; the others need a restart. */
export const RELOADABLE_KEYS: readonly string[] = [
  "log_level",
  "rate_limit_per_ip",
  "devices_in_metrics",
  "max_connections",
  "destinations",
  "classes",
  "dns",
  "admin_token",
  "public_endpoint",
  "enable_compression",
  "compression_threshold",
  "rollout_percent",
];

/**
 * Reads TOML text into a checked, deep-frozen Config. `file` only names the source in messages. Of `env`,
 * FLY_APP_NAME changes defaults, OXRELAY_STATE_DIR and OXRELAY_ADMIN_TOKEN win over the file.
 * Throws ConfigError with one line per mistake.
 */
export function parseConfig(text: string, file: string, env: Environment): Config {
  const config = configOf(checkedFile(text, file), file, env);
  const conflict = conflictIn(config);
  if (conflict !== undefined) throw new ConfigError(`${file}: ${conflict}`);
  return deepFreeze(config);
}

/** What the file says, each key checked for itself. Throws ConfigError with all mistakes. */
function checkedFile(text: string, file: string): FromFile {
  const raw = parseToml(text, file);
  const mistakes = unknownKeys(raw, Object.keys(ENTRIES), "");
  for (const [name, section] of Object.entries(SECTIONS)) {
    const table = raw[name];
    if (isTable(table)) mistakes.push(...unknownKeys(table, Object.keys(section), `${name}.`));
    else if (table !== undefined) {
      const what = `expected a table: put [${name}] on a line of its own, found ${show(table)}`;
      mistakes.push(`${placeOfSection(text, name)}${name}: ${what}`);
      delete raw[name];
    }
  }
  const result = v.safeParse(SCHEMA, raw, { abortPipeEarly: true });
  if (!result.success) {
    for (const issue of result.issues) {
      // Unknown keys have been reported above, with the nearest known one.
      if (issue.expected !== "never") mistakes.push(`${v.getDotPath(issue)}: ${issue.message}`);
    }
  }
  if (mistakes.length > 0 || !result.success) {
    throw new ConfigError(mistakes.map((mistake) => `${file}: ${mistake}`).join("\n"));
  }
  return result.output;
}

/** The file's values over the environment's and the defaults. Throws ConfigError. */
function configOf(fromFile: FromFile, file: string, env: Environment): Config {
  const base = env.FLY_APP_NAME ? FLY_DEFAULTS : DEFAULTS;
  const publicEndpoint = fromFile.public_endpoint;
  const fallback = fallbackOf(fromFile.fallback ?? {}, file);
  const adminToken = tokenFrom(env) ?? fromFile.admin_token;
  return {
    listen: fromFile.listen ?? base.listen,
    ...(publicEndpoint === undefined ? {} : { publicEndpoint }),
    maxConnections: fromFile.max_connections ?? base.maxConnections,
    rateLimitPerIp: fromFile.rate_limit_per_ip ?? base.rateLimitPerIp,
    exit: fromFile.exit ?? base.exit,
    kernels: fromFile.kernels ?? base.kernels,
    io: fromFile.io ?? base.io,
    tunName: fromFile.tun_name ?? base.tunName,
    tunnelIpv4: fromFile.tunnel_ipv4 ?? base.tunnelIpv4,
    tunnelIpv6: fromFile.tunnel_ipv6 ?? base.tunnelIpv6,
    enableCompression: fromFile.enable_compression ?? base.enableCompression,
    enableRohc: fromFile.enable_rohc ?? base.enableRohc,
    compressionThreshold: fromFile.compression_threshold ?? base.compressionThreshold,
    mtu: fromFile.mtu ?? base.mtu,
    enableBatching: fromFile.enable_batching ?? base.enableBatching,
    enableMultipath: fromFile.enable_multipath ?? base.enableMultipath,
    goFirst: fromFile.go_first ?? base.goFirst,
    batchWaitUs: fromFile.batch_wait_us ?? base.batchWaitUs,
    dns: [...fromFile.dns ?? base.dns],
    classes: {
      rules: [...fromFile.classes?.rules ?? base.classes.rules],
      applicationsInMetrics: fromFile.classes?.applications_in_metrics ?? base.classes.applicationsInMetrics,
    },
    destinations: destinationsOf(fromFile.destinations ?? {}, base.destinations),
    repair: repairOf(fromFile.repair ?? {}, base.repair),
    enablePriorityScheduler: fromFile.enable_priority_scheduler ?? base.enablePriorityScheduler,
    congestionAlgorithm: fromFile.congestion_algorithm ?? base.congestionAlgorithm,
    queues: queuesOf(fromFile.queues ?? {}, base.queues),
    rolloutPercent: { ...base.rolloutPercent, ...fromFile.rollout_percent },
    headers: { ...base.headers, ...fromFile.headers },
    trusted: [...fromFile.trusted ?? base.trusted],
    ...(fallback === undefined ? {} : { fallback }),
    metricsListen: fromFile.metrics_listen ?? base.metricsListen,
    devicesInMetrics: fromFile.devices_in_metrics ?? base.devicesInMetrics,
    ...(adminToken === undefined ? {} : { adminToken }),
    workers: fromFile.workers ?? base.workers,
    cpus: [...fromFile.cpus ?? base.cpus],
    logLevel: fromFile.log_level ?? base.logLevel,
    logFormat: fromFile.log_format ?? base.logFormat,
    stateDir: env.OXRELAY_STATE_DIR || (fromFile.state_dir ?? base.stateDir),
  };
}

/** One section of the file over the defaults, here and below. */
function destinationsOf(
  said: NonNullable<FromFile["destinations"]>,
  base: Config["destinations"],
): Config["destinations"] {
  return {
    allowLoopback: said.allow_loopback ?? base.allowLoopback,
    allowLinkLocal: said.allow_link_local ?? base.allowLinkLocal,
    allowPrivate: said.allow_private ?? base.allowPrivate,
    allowPeers: said.allow_peers ?? base.allowPeers,
    allowSpeedtest: said.allow_speedtest ?? base.allowSpeedtest,
    portMappings: said.port_mappings ?? base.portMappings,
    allow: [...said.allow ?? base.allow],
    deny: [...said.deny ?? base.deny],
  };
}

function repairOf(said: NonNullable<FromFile["repair"]>, base: Config["repair"]): Config["repair"] {
  const sharePercent = said.share_percent ?? base.sharePercent;
  return {
    enabled: said.enabled ?? base.enabled,
    budgetPercent: said.budget_percent ?? base.budgetPercent,
    gameDeadlineMs: said.game_deadline_ms ?? base.gameDeadlineMs,
    voiceDeadlineMs: said.voice_deadline_ms ?? base.voiceDeadlineMs,
    scheme: said.scheme ?? base.scheme,
    ...(sharePercent === undefined ? {} : { sharePercent }),
    trafficAware: said.traffic_aware ?? base.trafficAware,
    proactive: said.proactive ?? base.proactive,
    predictor: said.predictor ?? base.predictor,
    requests: said.requests ?? base.requests,
    targetPercent: said.target_percent ?? base.targetPercent,
  };
}

function queuesOf(said: NonNullable<FromFile["queues"]>, base: Config["queues"]): Config["queues"] {
  const ratePerPeerMbit = said.rate_per_peer_mbit ?? base.ratePerPeerMbit;
  return {
    ...(ratePerPeerMbit === undefined ? {} : { ratePerPeerMbit }),
    targetMs: said.target_ms ?? base.targetMs,
    intervalMs: said.interval_ms ?? base.intervalMs,
    ecn: said.ecn ?? base.ecn,
    packets: said.packets ?? base.packets,
  };
}

/** What of the values does not go together, with a remedy; undefined where all do. */
function conflictIn(config: Config): string | undefined {
  if (new Set(config.headers.methods).size < config.headers.methods.length) {
    return `headers.methods: expected each method once, found ${show(config.headers.methods)}`;
  }
  if (config.tunnelIpv6 !== "off" && config.mtu < MTU_MIN_IPV6) {
    return (`mtu: expected at least ${MTU_MIN_IPV6} with IPv6 in the tunnel, found ${config.mtu}; ` +
      `set mtu = ${MTU_MIN_IPV6} or tunnel_ipv6 = "off"`);
  }
  if (config.cpus.length > 0 && config.cpus.length !== config.workers) {
    return (`cpus: expected one processor for each of ${config.workers} workers, found ${config.cpus.length}; ` +
      `name ${config.workers}, or set cpus = []`);
  }
  if (new Set(config.cpus).size < config.cpus.length) {
    return `cpus: expected each processor once, found ${show(config.cpus)}`;
  }
  if (config.workers > 1 && config.io === "portable") {
    return `workers: expected 1 with portable io, found ${config.workers}; set workers = 1 or io = "auto"`;
  }
  if (config.repair.sharePercent !== undefined && config.repair.sharePercent > config.repair.budgetPercent) {
    return (`repair.share_percent: expected at most budget_percent (${config.repair.budgetPercent}), found ` +
      `${config.repair.sharePercent}; raise budget_percent or lower it`);
  }
}

/** The section as a whole: off without `listen`. Throws ConfigError. */
function fallbackOf(
  { listen, certificate, private_key, public_endpoint }: {
    listen?: Endpoint;
    certificate?: string;
    private_key?: string;
    public_endpoint?: string;
  },
  file: string,
): FallbackConfig | undefined {
  if (listen === undefined && certificate === undefined && private_key === undefined) return undefined;
  const missing = listen === undefined
    ? "listen"
    : certificate === undefined
    ? "certificate"
    : private_key === undefined
    ? "private_key"
    : undefined;
  if (missing !== undefined) {
    throw new ConfigError(
      `${file}: fallback.${missing}: is missing; [fallback] needs listen, certificate and private_key, or none of them`,
    );
  }
  return {
    listen: listen!,
    certificate: certificate!,
    privateKey: private_key!,
    ...(public_endpoint === undefined ? {} : { publicEndpoint: public_endpoint }),
  };
}

function tokenFrom(env: Environment): string | undefined {
  if (!env.OXRELAY_ADMIN_TOKEN) return undefined;
  const result = v.safeParse(adminToken, env.OXRELAY_ADMIN_TOKEN, { abortPipeEarly: true });
  if (result.success) return result.output;
  throw new ConfigError(`environment: OXRELAY_ADMIN_TOKEN: ${result.issues[0].message}`);
}

/** Own keys only: `constructor = 1` must not pass for a key that every object has. */
function unknownKeys(table: Record<string, unknown>, known: string[], path: string): string[] {
  return Object.keys(table).filter((key) => !known.includes(key)).map((key) => {
    const shown = path + (/^[\w-]{1,60}$/.test(key) ? key : show(key));
    const elsewhere = Object.keys(SECTIONS).find((name) => CONFIG_KEYS.includes(`${name}.${key}`));
    if (path === "" && elsewhere !== undefined) {
      return `${shown}: unknown key here; it belongs below the line [${elsewhere}]`;
    }
    if (path !== "" && CONFIG_KEYS.includes(key)) {
      return `${shown}: unknown key here; it belongs above the line [${path.slice(0, -1)}]`;
    }
    const near = nearest(key, known);
    return near === undefined
      ? `${shown}: unknown key; the keys are ${known.join(", ")}`
      : `${shown}: unknown key; did you mean "${near}"?`;
  });
}

/** What is in force after a reload: `old`, with `next`'s values of the keys that a running relay takes over. */
export function reloadedConfig(old: Config, next: Config): Config {
  const camelCase = (key: string) =>
    key.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase()) as keyof Config;
  // What the file no longer says is taken over too.
  return { ...old, ...Object.fromEntries(RELOADABLE_KEYS.map(camelCase).map((name) => [name, next[name]])) };
}

/** The TOML keys in which two configs differ, sorted into those that a reload applies and the others. */
export function diffConfig(old: Config, next: Config): { reloadable: string[]; needsRestart: string[] } {
  const [before, after] = [toTomlKeys(old), toTomlKeys(next)];
  const changed = Object.keys(ENTRIES).filter((key) =>
    JSON.stringify(before[key]) !== JSON.stringify(after[key])
  );
  return {
    reloadable: changed.filter((key) => RELOADABLE_KEYS.includes(key)),
    needsRestart: changed.filter((key) => !RELOADABLE_KEYS.includes(key)),
  };
}

/** The config under its TOML keys for showing to people: a secret appears as "(set)". */
export function redactConfig(config: Config): Record<string, unknown> {
  const shown = toTomlKeys(config);
  if (shown.admin_token !== undefined) shown.admin_token = "(set)";
  return shown;
}
