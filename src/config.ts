/**
 * The configuration: TOML text and environment in, one deep-frozen Config out; every limit and default lives
 * here. Invariant: a Config that `parseConfig` returns is fully checked, so its users check nothing. Reads no file
 * and no environment itself, and makes nothing (keys, the "auto" prefix) that depends on the machine.
 */
// The standard library's parser accepts two pairs on a line and repeated keys.
import { parse, TomlError } from "smol-toml";
import * as v from "valibot";
import {
  formatAddress,
  formatPrefix,
  isIpv4,
  parseAddress,
  parseInterface,
  parsePrefix,
  type Prefix,
  prefixContains,
  prefixesOverlap,
  prefixLength,
} from "./wire/address.ts";
import { CLASS_RULES_MAX } from "./control/class_rules.ts";
import { readClassRule } from "./control/rule_text.ts";
import { rangesOf, RFC_1918 } from "./wire/special_ranges.ts";

/** Where to bind: a host name or address without brackets, and a port of 1 to 65535. */
export interface Endpoint {
  readonly host: string;
  readonly port: number;
}

/** Which inner destinations are open besides the public internet. */
export interface Destinations {
  readonly allowLoopback: boolean;
  readonly allowLinkLocal: boolean;
  readonly allowPrivate: boolean;
  readonly allowPeers: boolean;
  /** Whether the relay's own inner address answers speedtests. */
  readonly allowSpeedtest: boolean;
  /** Prefixes opened one by one, "192.168.1.0/24", host bits zero. */
  readonly allow: readonly string[];
  /** Prefixes closed to every client, whatever else opens them. */
  readonly deny: readonly string[];
}

/** OxTunnel over TLS, where UDP is blocked. */
export interface FallbackConfig {
  readonly listen: Endpoint;
  /** Files in PEM: the certificate with its chain, and its private key. */
  readonly certificate: string;
  readonly privateKey: string;
  /** "host:port" as clients reach it, the host as the certificate names it. */
  readonly publicEndpoint?: string;
}

/** The ways to move outer datagrams, as the key `io` names them. */
export const IO_WAYS = ["portable", "io_uring", "mmsg"] as const;

/** What `repair.scheme` and `repair.predictor` may name (repair/redundancy.ts, repair/prediction/predictor.ts). */
export const REPAIR_SCHEME_NAMES = ["auto", "copy", "spaced", "window", "block"] as const;
export const REPAIR_PREDICTOR_NAMES = ["default", "ewma", "hmm", "delay", "logistic", "lstm"] as const;

/** Loss repair for OxTunnel's games and calls. */
export interface RepairConfig {
  readonly enabled: boolean;
  /** Bytes of repair for a hundred bytes protected, at most. */
  readonly budgetPercent: number;
  /** As many at all times, whatever the path does. */
  readonly sharePercent?: number;
  readonly scheme: (typeof REPAIR_SCHEME_NAMES)[number];
  /** Whether classes are treated by what they are, or all like a game. */
  readonly trafficAware: boolean;
  /** Whether repair rises with losses that are predicted, and what predicts them. */
  readonly proactive: boolean;
  readonly predictor: (typeof REPAIR_PREDICTOR_NAMES)[number];
  /** How late a packet is still of use. */
  readonly gameDeadlineMs: number;
  readonly voiceDeadlineMs: number;
}

/** What `congestion_algorithm` may name. */
export const CONGESTION_ALGORITHMS = ["bbr_v3", "none"] as const;

/** Where packets to a peer wait when its line is slower than they come. */
export interface QueuesConfig {
  /** Mbit/s that each peer is sent at most, IP and UDP headers counted; absent for as much as comes. */
  readonly ratePerPeerMbit?: number;
  /** CoDel's target and interval (RFC 8289). */
  readonly targetMs: number;
  readonly intervalMs: number;
  /** Whether packets of flows that understand ECN are marked instead of dropped. */
  readonly ecn: boolean;
  /** Packets that may wait for all peers of a Worker together. */
  readonly packets: number;
}

/** What a relay's owner knows of flows better than the classifier. */
export interface ClassesConfig {
  /** As control/class_rules.ts reads them, without programs; the first that fits counts. */
  readonly rules: readonly string[];
  /** Whether /metrics says which applications are recognised. */
  readonly applicationsInMetrics: boolean;
}

export interface Config {
  readonly listen: Endpoint;
  /** "host:port" as clients reach the relay; printed into their configs. */
  readonly publicEndpoint?: string;
  /** Open sessions, 1 to 250000. */
  readonly maxConnections: number;
  /** Handshakes a second that one source address may start, 1 to 1000. */
  readonly rateLimitPerIp: number;
  readonly exit: "auto" | "tun" | "userspace";
  /** Who seals and opens packets: the native library, TypeScript, or the library where it runs. */
  readonly kernels: "auto" | "portable" | "native";
  /** How outer datagrams move: through the library by io_uring or recvmmsg, by Deno's sockets, or by the best that runs. */
  readonly io: "auto" | (typeof IO_WAYS)[number];
  /** Device name, 1 to 15 of [a-z0-9_-], the first a letter; none that Linux has a use for. */
  readonly tunName: string;
  /** Private IPv4 prefix of /8 to /29; host 1 is the relay. */
  readonly tunnelIpv4: string;
  /** A ULA /64, "auto" (from the relay's public key, RFC 4193) or "off". */
  readonly tunnelIpv6: string;
  /** Whether OxTunnel's packets that shrink are compressed (LZ4), both ways, where the client wants it too. */
  readonly enableCompression: boolean;
  /** Packets of fewer bytes are not, 64 to 1500. */
  readonly compressionThreshold: number;
  /** Bytes of an inner packet, 576 to 1500; at least 1280 unless tunnelIpv6 is "off". */
  readonly mtu: number;
  /** Whether packets to one OxTunnel client share datagrams. */
  readonly enableBatching: boolean;
  /** How long a bulk packet may wait for others, in microseconds, 0 to 1000; 0 for those that come together only. */
  readonly batchWaitUs: number;
  readonly repair: RepairConfig;
  /** Whether packets are sorted by class where they wait for their peer's line; without, nothing waits. */
  readonly enablePriorityScheduler: boolean;
  /** What finds the rate of an OxTunnel client's line by its reports. */
  readonly congestionAlgorithm: (typeof CONGESTION_ALGORITHMS)[number];
  readonly queues: QueuesConfig;
  /** Resolver addresses for client configs, at most 8. */
  readonly dns: readonly string[];
  readonly destinations: Destinations;
  readonly classes: ClassesConfig;
  /** Outer networks in which OxTunnel may go authenticated but readable, where the client's side lists them too. */
  readonly trusted: readonly string[];
  /** Absent where it is off. */
  readonly fallback?: FallbackConfig;
  /** Where metrics and admin are served. */
  readonly metricsListen: Endpoint;
  /** Bearer token of the admin interface, at least 16 characters. Secret. */
  readonly adminToken?: string;
  /** Relay workers (threads), 1 to 16, among which peers are divided. */
  readonly workers: number;
  /** The processor that each Worker keeps to, 0 to 1023, in their order; empty for none in particular. */
  readonly cpus: readonly number[];
  readonly logLevel: "debug" | "info" | "warning" | "error";
  readonly logFormat: "text" | "json";
  /** Directory of the private key and the peers. */
  readonly stateDir: string;
}

/** Environment variables by name; absent ones may be undefined. An empty value counts as absent. */
export type Environment = Record<string, string | undefined>;

/** What the program reads from its environment; the permissions of the tasks list the same names. */
export const ENVIRONMENT_NAMES = [
  "OXRELAY_CONFIG",
  "OXRELAY_STATE_DIR",
  "OXRELAY_PRIVATE_KEY",
  "OXRELAY_PEERS",
  "OXRELAY_ADMIN_TOKEN",
  "FLY_APP_NAME",
] as const;

/** A configuration that is refused. The message has one line per mistake: file, key, expected, found. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
}

/** The configuration of an empty file and an empty environment. */
export const DEFAULTS: Config = deepFreeze<Config>({
  listen: { host: "::", port: 4433 },
  maxConnections: 1000,
  rateLimitPerIp: 20,
  exit: "auto",
  kernels: "auto",
  io: "auto",
  tunName: "oxrelay0",
  tunnelIpv4: "10.66.0.0/16",
  tunnelIpv6: "auto",
  enableCompression: true,
  compressionThreshold: 256,
  mtu: 1420,
  enableBatching: true,
  batchWaitUs: 1000,
  repair: {
    enabled: true,
    budgetPercent: 25,
    gameDeadlineMs: 60,
    voiceDeadlineMs: 100,
    scheme: "auto",
    trafficAware: true,
    proactive: true,
    predictor: "default",
  },
  enablePriorityScheduler: true,
  congestionAlgorithm: "bbr_v3",
  queues: { targetMs: 5, intervalMs: 100, ecn: true, packets: 4096 },
  dns: ["1.1.1.1", "2606:4700:4700::1111"],
  classes: { rules: [], applicationsInMetrics: false },
  destinations: {
    allowLoopback: false,
    allowLinkLocal: false,
    allowPrivate: false,
    allowPeers: false,
    allowSpeedtest: true,
    allow: [],
    deny: [],
  },
  trusted: [],
  metricsListen: { host: "127.0.0.1", port: 9090 },
  workers: 1,
  cpus: [],
  logLevel: "info",
  logFormat: "text",
  stateDir: "state",
});

/**
 * Fly.io: UDP must use the address of this host name, health checks come from outside the machine, and about
 * 1300 bytes of each datagram are usable: 1240 after WireGuard, UDP and IPv4 headers. IPv6 needs 1280.
 */
const FLY_DEFAULTS: Config = deepFreeze<Config>({
  ...DEFAULTS,
  listen: { host: "fly-global-services", port: 4433 },
  metricsListen: { host: "::", port: 9090 },
  tunnelIpv6: "off",
  mtu: 1240,
});

const MTU_MIN_IPV6 = 1280; // RFC 8200 section 5
/**
 * Parses "host:port", "address:port" or "[address]:port" (port 1 to 65535), or gives undefined. The host comes
 * back without brackets, an address in its normal form.
 */
export function parseEndpoint(text: string): Endpoint | undefined {
  const match = /^(?:\[([0-9a-fA-F:.]{2,45})\]|([A-Za-z0-9._-]{1,254})):([1-9][0-9]{0,4})$/.exec(text);
  if (match === null) return undefined;
  const [, ipv6, name, digits] = match;
  const address = parseAddress(ipv6 ?? name);
  if (ipv6 === undefined ? address === undefined && !isName(name) : !ipv6.includes(":") || !address) {
    return undefined;
  }
  const port = Number(digits);
  return port <= 65535 ? { host: address ? formatAddress(address) : name, port } : undefined;
}

/**
 * A host name (RFC 1123 section 2.1) whose last label is never a number, as "10.0.0.256" is a slip. Underscores, which DNS
 * takes, and the dot of a name that is whole (RFC 1034 section 3.1) are taken.
 */
function isName(text: string): boolean {
  const name = text.replace(/\.$/, "");
  const labels = name.split(".");
  return name.length <= 253 && !/^[0-9]+$/.test(labels.at(-1)!) &&
    labels.every((label) => /^(?!-)[A-Za-z0-9_-]{1,63}$/.test(label) && !label.endsWith("-"));
}

/** The text of an endpoint, brackets added where an IPv6 address needs them. */
export function formatEndpoint({ host, port }: Endpoint): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

type Message = (issue: v.BaseIssue<unknown>) => string;

function expected(what: string): Message {
  return (issue) => `expected ${what}, found ${show(issue.input)}`;
}

function show(value: unknown): string {
  if (typeof value === "string") {
    return JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}…` : value);
  }
  if (Array.isArray(value)) return "a list";
  if (value instanceof Date) return "a date";
  return typeof value === "object" ? "a table" : String(value);
}

function wholeNumber(min: number, max: number) {
  const message = expected(`a whole number from ${min} to ${max}`);
  return v.pipe(
    v.number(message),
    v.integer(message),
    v.minValue(min, message),
    v.maxValue(max, message),
  );
}

function text(what: string, valid: (value: string) => boolean) {
  const message = expected(what);
  return v.pipe(v.string(message), v.check(valid, message));
}

function oneOf<const T extends readonly string[]>(...choices: T) {
  return v.picklist(choices, expected(choices.map((choice) => `"${choice}"`).join(" or ")));
}

function endpoint(example: string) {
  return v.pipe(
    text(`"host:port" such as "${example}"`, (value) => parseEndpoint(value) !== undefined),
    v.transform((value) => parseEndpoint(value)!),
  );
}

/** Both prefixes and prefix lists want the network itself: a set host bit is a slip that must not pass. */
function prefix(what: string, valid: (prefix: Prefix) => boolean) {
  return v.pipe(
    text(what, (value) => {
      const parsed = value.includes("/") ? parsePrefix(value) : undefined;
      return parsed !== undefined && valid(parsed);
    }),
    v.check(
      (value) => formatPrefix(parseInterface(value)!) === formatPrefix(parsePrefix(value)!),
      (issue) => {
        const network = formatPrefix(parsePrefix(String(issue.input))!);
        return `expected a network without host bits, found ${show(issue.input)}; did you mean "${network}"?`;
      },
    ),
    // One network has one text from here on.
    v.transform((value) => formatPrefix(parsePrefix(value)!)),
  );
}

/** A list of at most `max` networks, each once. */
function networks(example: string, max: number, entry: ReturnType<typeof prefix>) {
  return v.pipe(
    list(`a list of networks such as ["${example}"]`),
    v.maxLength(max, (issue) => `expected at most ${max} networks, found ${issue.input.length}`),
    v.array(entry),
    v.check((entries) => new Set(entries).size === entries.length, (issue) => {
      const twice = issue.input.find((entry, i) => issue.input.indexOf(entry) !== i);
      return `expected each network once, found "${twice}" twice`;
    }),
  );
}

const flag = v.boolean(expected("true or false"));
const list = (what: string) => v.array(v.unknown(), expected(what));

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
};

const QUEUES_ENTRIES = {
  rate_per_peer_mbit: v.optional(wholeNumber(1, 100_000)),
  target_ms: v.optional(wholeNumber(1, 100)),
  interval_ms: v.optional(wholeNumber(10, 1000)),
  ecn: v.optional(flag),
  packets: v.optional(wholeNumber(64, 65_536)),
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
  compression_threshold: v.optional(wholeNumber(64, 1500)),
  mtu: v.optional(wholeNumber(576, 1500)),
  enable_batching: v.optional(flag),
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

/** Every key of the file, a section's as "destinations.allow". */
export const CONFIG_KEYS: readonly string[] = Object.keys(ENTRIES).flatMap((key) => {
  const section = sectionOf(key);
  return section === undefined ? [key] : Object.keys(section).map((inner) => `${key}.${inner}`);
});

/** The keys that a running relay takes over on reload; the others need a restart. */
export const RELOADABLE_KEYS: readonly string[] = [
  "log_level",
  "rate_limit_per_ip",
  "max_connections",
  "destinations",
  "classes",
  "dns",
  "admin_token",
  "public_endpoint",
  "enable_compression",
  "compression_threshold",
];

/**
 * Reads TOML text into a checked, deep-frozen Config. `file` only names the source in messages. Of `env`,
 * FLY_APP_NAME changes defaults, OXRELAY_STATE_DIR and OXRELAY_ADMIN_TOKEN win over the file.
 * Throws ConfigError with one line per mistake.
 */
export function parseConfig(text: string, file: string, env: Environment): Config {
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

  const fromFile = result.output;
  const base = env.FLY_APP_NAME ? FLY_DEFAULTS : DEFAULTS;
  const publicEndpoint = fromFile.public_endpoint;
  const fallback = fallbackOf(fromFile.fallback ?? {}, file);
  const adminToken = tokenFrom(env) ?? fromFile.admin_token;
  const sharePercent = fromFile.repair?.share_percent ?? base.repair.sharePercent;
  const ratePerPeerMbit = fromFile.queues?.rate_per_peer_mbit ?? base.queues.ratePerPeerMbit;
  const config: Config = {
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
    compressionThreshold: fromFile.compression_threshold ?? base.compressionThreshold,
    mtu: fromFile.mtu ?? base.mtu,
    enableBatching: fromFile.enable_batching ?? base.enableBatching,
    batchWaitUs: fromFile.batch_wait_us ?? base.batchWaitUs,
    dns: [...fromFile.dns ?? base.dns],
    classes: {
      rules: [...fromFile.classes?.rules ?? base.classes.rules],
      applicationsInMetrics: fromFile.classes?.applications_in_metrics ?? base.classes.applicationsInMetrics,
    },
    destinations: {
      allowLoopback: fromFile.destinations?.allow_loopback ?? base.destinations.allowLoopback,
      allowLinkLocal: fromFile.destinations?.allow_link_local ?? base.destinations.allowLinkLocal,
      allowPrivate: fromFile.destinations?.allow_private ?? base.destinations.allowPrivate,
      allowPeers: fromFile.destinations?.allow_peers ?? base.destinations.allowPeers,
      allowSpeedtest: fromFile.destinations?.allow_speedtest ?? base.destinations.allowSpeedtest,
      allow: [...fromFile.destinations?.allow ?? base.destinations.allow],
      deny: [...fromFile.destinations?.deny ?? base.destinations.deny],
    },
    repair: {
      enabled: fromFile.repair?.enabled ?? base.repair.enabled,
      budgetPercent: fromFile.repair?.budget_percent ?? base.repair.budgetPercent,
      gameDeadlineMs: fromFile.repair?.game_deadline_ms ?? base.repair.gameDeadlineMs,
      voiceDeadlineMs: fromFile.repair?.voice_deadline_ms ?? base.repair.voiceDeadlineMs,
      scheme: fromFile.repair?.scheme ?? base.repair.scheme,
      ...(sharePercent === undefined ? {} : { sharePercent }),
      trafficAware: fromFile.repair?.traffic_aware ?? base.repair.trafficAware,
      proactive: fromFile.repair?.proactive ?? base.repair.proactive,
      predictor: fromFile.repair?.predictor ?? base.repair.predictor,
    },
    enablePriorityScheduler: fromFile.enable_priority_scheduler ?? base.enablePriorityScheduler,
    congestionAlgorithm: fromFile.congestion_algorithm ?? base.congestionAlgorithm,
    queues: {
      ...(ratePerPeerMbit === undefined ? {} : { ratePerPeerMbit }),
      targetMs: fromFile.queues?.target_ms ?? base.queues.targetMs,
      intervalMs: fromFile.queues?.interval_ms ?? base.queues.intervalMs,
      ecn: fromFile.queues?.ecn ?? base.queues.ecn,
      packets: fromFile.queues?.packets ?? base.queues.packets,
    },
    trusted: [...fromFile.trusted ?? base.trusted],
    ...(fallback === undefined ? {} : { fallback }),
    metricsListen: fromFile.metrics_listen ?? base.metricsListen,
    ...(adminToken === undefined ? {} : { adminToken }),
    workers: fromFile.workers ?? base.workers,
    cpus: [...fromFile.cpus ?? base.cpus],
    logLevel: fromFile.log_level ?? base.logLevel,
    logFormat: fromFile.log_format ?? base.logFormat,
    stateDir: env.OXRELAY_STATE_DIR || (fromFile.state_dir ?? base.stateDir),
  };
  if (config.tunnelIpv6 !== "off" && config.mtu < MTU_MIN_IPV6) {
    throw new ConfigError(
      `${file}: mtu: expected at least ${MTU_MIN_IPV6} with IPv6 in the tunnel, found ${config.mtu}; ` +
        `set mtu = ${MTU_MIN_IPV6} or tunnel_ipv6 = "off"`,
    );
  }
  if (config.cpus.length > 0 && config.cpus.length !== config.workers) {
    throw new ConfigError(
      `${file}: cpus: expected one processor for each of ${config.workers} workers, found ${config.cpus.length}; ` +
        `name ${config.workers}, or set cpus = []`,
    );
  }
  if (new Set(config.cpus).size < config.cpus.length) {
    throw new ConfigError(`${file}: cpus: expected each processor once, found ${show(config.cpus)}`);
  }
  if (config.workers > 1 && config.io === "portable") {
    throw new ConfigError(
      `${file}: workers: expected 1 with portable io, found ${config.workers}; set workers = 1 or io = "auto"`,
    );
  }
  if (sharePercent !== undefined && sharePercent > config.repair.budgetPercent) {
    throw new ConfigError(
      `${file}: repair.share_percent: expected at most budget_percent (${config.repair.budgetPercent}), found ` +
        `${sharePercent}; raise budget_percent or lower it`,
    );
  }
  return deepFreeze(config);
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

/** Objects without a prototype, so that no key is one that every object has. Throws ConfigError, with the line. */
function parseToml(text: string, file: string): Record<string, unknown> {
  try {
    return parse(text);
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    // The parser quotes the line, which may hold the token: only the place and the kind are repeated.
    const what = /redefine/.test(error.message)
      ? "a key or section that stands above already; keep one of the two"
      : /end-of-line/.test(error.message)
      ? "more than one pair; each needs a line of its own"
      : 'not valid TOML; expected lines like mtu = 1420 or listen = "[::]:4433", each key once';
    throw new ConfigError(`${file}: line ${error.line}: ${what}`);
  }
}

/** "line 3: " of a section that is written otherwise than [name], or nothing where it is not found. */
function placeOfSection(text: string, name: string): string {
  const at = text.split("\n").findIndex((line) =>
    new RegExp(`^\\s*(\\[\\[\\s*"?${name}"?\\s*\\]\\]|"?${name}"?\\s*=)`).test(line)
  );
  return at < 0 ? "" : `line ${at + 1}: `;
}

function tokenFrom(env: Environment): string | undefined {
  if (!env.OXRELAY_ADMIN_TOKEN) return undefined;
  const result = v.safeParse(adminToken, env.OXRELAY_ADMIN_TOKEN, { abortPipeEarly: true });
  if (result.success) return result.output;
  throw new ConfigError(`environment: OXRELAY_ADMIN_TOKEN: ${result.issues[0].message}`);
}

function isTable(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date);
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

/** The choice with the smallest edit distance, when that is at most a third of the word (and at least 2). */
export function nearest(word: string, choices: readonly string[]): string | undefined {
  let best: string | undefined;
  let bestDistance = Math.max(2, Math.floor(word.length / 3)) + 1;
  for (const choice of choices) {
    const distance = editDistance(word.slice(0, 64), choice);
    if (distance < bestDistance) [best, bestDistance] = [choice, distance];
  }
  return best;
}

/** Levenshtein's distance, one row of the table at a time. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const above = row;
    row = [i];
    for (let j = 1; j <= b.length; j++) {
      row[j] = Math.min(row[j - 1] + 1, above[j] + 1, above[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1));
    }
  }
  return row[b.length];
}

/** A config as the file would write it: TOML keys, endpoints as text. Secrets included. */
function toTomlKeys(config: Config): Record<string, unknown> {
  const { listen, metricsListen, classes, destinations, fallback, ...rest } = config;
  return snakeCase({
    listen: formatEndpoint(listen),
    metricsListen: formatEndpoint(metricsListen),
    ...rest,
    classes: snakeCase(classes),
    destinations: snakeCase(destinations),
    ...(fallback && { fallback: snakeCase({ ...fallback, listen: formatEndpoint(fallback.listen) }) }),
  });
}

function snakeCase(object: object): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(object).map((
      [key, value],
    ) => [key.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`), value]),
  );
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

function deepFreeze<T>(value: T): T {
  if (typeof value === "object" && value !== null) {
    Object.values(value).forEach(deepFreeze);
    Object.freeze(value);
  }
  return value;
}
