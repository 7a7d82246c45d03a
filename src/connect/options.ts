/**
 * What `connect` is told, on its command line and in the texts that it reads. Invariant: everything is checked before anything
 * on this machine is changed, and a mistake is named with its remedy and without its secrets. Only reads.
 */
import {
  type Config,
  CONGESTION_ALGORITHMS,
  DEFAULTS,
  type Endpoint,
  parseConfig,
  parseEndpoint,
  type RepairConfig,
} from "../config.ts";
import { CLASS_NAMES } from "../control/rule_text.ts";
import { CLASS_BULK } from "../control/traffic_class.ts";
import { formatPrefix, outermost, parsePrefix, prefixContains, prefixLength } from "../wire/address.ts";
import { run } from "../exit/child.ts";
import type { Scope } from "../exit/tun/client_rules.ts";
import { CommandError, UsageError } from "../process/help.ts";
import { RATE_MAX_BPS, RATE_MIN_BPS } from "../control/told_rates.ts";
import {
  ENDPOINTS_MAX,
  type Invitation,
  INVITATION_SCHEME,
  parseInvitation,
  TEXT_MAX,
  tooLong,
} from "./invitation.ts";
import type { PathWishes } from "./link/doors.ts";
import { isInterfaceName } from "./link/interfaces.ts";
import type { Forward } from "./socks/mod.ts";

const DEFAULT_FILE = "oxrelay-connect.conf";
/** Characters of a line that Linux takes from a terminal; the rest of a longer one is lost (N_TTY, canonical mode). */
const TYPED_MAX = 4095;
const READ_BYTES = 16_384;
/** Paths of a session at a time (PROTOCOL R111). */
const PATHS_NAMED_MAX = 4;
const TRUSTED_BITS_MIN = 8;

/** Which packets go in, as --include, --exclude, --only-user and --only-cgroup say. Throws UsageError. */
export async function readScope(values: Record<string, string | undefined>): Promise<Scope> {
  const user = values["only-user"], cgroup = values["only-cgroup"];
  if (user !== undefined && cgroup !== undefined) {
    throw new UsageError("--only-user and --only-cgroup exclude each other");
  }
  if (cgroup !== undefined && !/^[A-Za-z0-9_.@:/-]{1,200}$/.test(cgroup)) {
    throw new UsageError('--only-cgroup: expected a path such as "games.slice"');
  }
  return {
    include: prefixes("include", values.include),
    exclude: prefixes("exclude", values.exclude),
    uid: user === undefined ? undefined : await userId(user),
    cgroup,
  };
}

/** Throws UsageError when --include names what the relay does not carry for this device, and so would be lost. */
export function checkIncluded({ include }: Scope, { routes }: Invitation): void {
  if (routes.length === 0) return;
  const carried = routes.map((route) => parsePrefix(route)!);
  for (const text of include) {
    const prefix = parsePrefix(text)!;
    if (carried.some((one) => one.bits <= prefix.bits && prefixContains(one, prefix.address))) continue;
    throw new UsageError(`--include: ${text} is not among the config's AllowedIPs, so nobody would carry it`);
  }
}

/**
 * The networks that --trusted lists. Throws UsageError, also for what trusts nearly everything.
 */
export function readTrusted(text: string | undefined): string[] {
  return prefixes("trusted", text).map((network) => {
    if (prefixLength(parsePrefix(network)!) >= TRUSTED_BITS_MIN) return network;
    throw new UsageError(`--trusted: ${network} is too wide; the smallest prefix is /${TRUSTED_BITS_MIN}`);
  });
}

/**
 * How this end repairs losses, as --repair says in the words of a relay's [repair] with commas between them; not at all when
 * `isOff`. Throws UsageError or ConfigError.
 */
export function readRepair(text: string | undefined, isOff: boolean): RepairConfig {
  if (isOff && text !== undefined) throw new UsageError("--repair and --no-repair exclude each other");
  if (isOff) return { ...DEFAULTS.repair, enabled: false };
  const lines = (text ?? "").split(",").filter((word) => word !== "").map((word) => {
    const [, key, value] = /^([a-z_]{1,40})=([a-z0-9.]{1,40})$/.exec(word) ?? [];
    if (value === undefined) {
      throw new UsageError(
        `--repair: expected words such as budget_percent=50, found "${word.slice(0, 80)}"`,
      );
    }
    return `${key} = ${/^(\d+(\.\d+)?|true|false)$/.test(value) ? value : `"${value}"`}`;
  });
  return parseConfig(["[repair]", ...lines].join("\n"), "--repair", {}).repair;
}

/**
 * A rate as --up and --down say: 10M, 900k or bits a second, from 64 kbit/s to 100 Gbit/s. In bytes a second. Throws
 * UsageError.
 */
export function readRate(flag: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const [, digits, unit] = /^(\d{1,12}(?:\.\d{1,3})?)([kMG]?)$/.exec(text) ?? [];
  const bits = Number(digits) * (unit === "" ? 1 : unit === "k" ? 1e3 : unit === "M" ? 1e6 : 1e9);
  if (!(bits >= RATE_MIN_BPS && bits <= RATE_MAX_BPS)) {
    throw new UsageError(
      `--${flag}: expected a rate from 64k to 100G bits a second such as 10M, found "${text.slice(0, 40)}"`,
    );
  }
  return bits / 8;
}

/** What --congestion names, in the words of a relay's congestion_algorithm. Throws UsageError. */
export function readCongestion(name: string | undefined): Config["congestionAlgorithm"] {
  if (name === undefined) return DEFAULTS.congestionAlgorithm;
  const found = CONGESTION_ALGORITHMS.find((one) => one === name);
  if (found !== undefined) return found;
  throw new UsageError(`--congestion: expected bbr_v3 or none, found "${name.slice(0, 40)}"`);
}

/**
 * Several paths, as --paths, --redundant and --metered say; undefined without --paths. Throws UsageError.
 */
export function readPaths(values: Record<string, string | undefined>): PathWishes | undefined {
  const { paths, redundant, metered } = values;
  if (paths === undefined) {
    const of = redundant !== undefined ? "redundant" : metered !== undefined ? "metered" : undefined;
    if (of === undefined) return undefined;
    throw new UsageError(
      `--${of} is of several paths; add --paths auto, or --paths wlan0,wwan0`,
    );
  }
  const names = paths === "auto" ? undefined : interfaceNames("paths", paths);
  if (names !== undefined && names.length > PATHS_NAMED_MAX) {
    throw new UsageError(`--paths: at most ${PATHS_NAMED_MAX}, found ${names.length}`);
  }
  const meteredNames = metered === undefined ? [] : interfaceNames("metered", metered);
  const stranger = names && meteredNames.find((name) => !names.includes(name));
  if (stranger !== undefined) throw new UsageError(`--metered: ${stranger} is not among --paths ${paths}`);
  return { names, metered: meteredNames, copied: readCopied(redundant) };
}

/** Classes whose packets go on a second path too, by bit; games and calls unless something is said. */
function readCopied(text = "game,voice"): number {
  if (text === "none") return 0;
  return text.split(",").reduce((bits, name) => {
    const trafficClass = CLASS_NAMES.indexOf(name as typeof CLASS_NAMES[number]);
    if (trafficClass >= 0 && trafficClass !== CLASS_BULK) return bits | 1 << trafficClass;
    const names = CLASS_NAMES.filter((_, number) => number !== CLASS_BULK).join(", ");
    throw new UsageError(
      `--redundant: expected classes of ${names} with commas between them, or none, found "${
        name.slice(0, 40)
      }"`,
    );
  }, 0);
}

function interfaceNames(flag: string, text: string): string[] {
  const names = text.split(",");
  const wrong = names.find((name, i) => !isInterfaceName(name) || names.indexOf(name) !== i);
  if (wrong === undefined) return names;
  throw new UsageError(
    `--${flag}: expected names of interfaces with commas between them, each once, such as wlan0,wwan0, found "${
      wrong.slice(0, 40)
    }"; see: ip -br link`,
  );
}

function prefixes(flag: string, text: string | undefined): string[] {
  const read = (text ?? "").split(",").filter((one) => one !== "").map((one) => {
    const prefix = parsePrefix(one);
    if (prefix === undefined) {
      throw new UsageError(`--${flag}: "${one}" is no prefix such as 203.0.113.0/24 or 2001:db8::/32`);
    }
    return prefix;
  });
  return outermost(read).map(formatPrefix);
}

async function userId(name: string): Promise<number> {
  if (/^\d{1,10}$/.test(name)) return Number(name);
  if (/^[A-Za-z_][A-Za-z0-9_.-]{0,31}$/.test(name)) {
    return Number(
      await run("id", ["-u", name]).catch(({ message }: Error) => {
        throw new UsageError(`--only-user: there is no user "${name}" here (${message}); see: getent passwd`);
      }),
    );
  }
  throw new UsageError(`--only-user: "${name.slice(0, 32)}" is no user's name or number; see: getent passwd`);
}

/**
 * The invitation of a relay: from a word of the command line, a file, or standard input, with `protocol` in place of the
 * invitation's own where one is given. And the relay's endpoints: `servers`, each "host:port" or a list of these with commas, or
 * else the invitation's own. Throws UsageError or CommandError.
 */
export async function readInvitation(
  word: string | undefined,
  file: string | undefined,
  servers: readonly string[],
  protocol: string | undefined,
): Promise<{ invitation: Invitation; endpoints: Endpoint[] }> {
  if (protocol !== undefined && protocol !== "oxtunnel" && protocol !== "wireguard") {
    throw new UsageError('--protocol: expected "oxtunnel" or "wireguard"');
  }
  const given = servers.flatMap((text) => text.split(",")).map((server) => {
    const endpoint = parseEndpoint(server.includes(":") ? server : `${server}:4433`);
    if (endpoint === undefined) {
      throw new UsageError('--server: expected "host:port" such as "relay.example.com:4433"');
    }
    return endpoint;
  });
  if (given.length > ENDPOINTS_MAX) throw new UsageError(`--server: ${ENDPOINTS_MAX} are the limit`);
  const read = await readText(word, file);
  for (const one of read.unused ?? []) console.error(one);
  const invitation = { ...read, protocol: protocol ?? read.protocol };
  if (given.length > 1 && invitation.protocol !== "oxtunnel") {
    throw new UsageError(
      "several --server are relays of one key, to be chosen among by OxTunnel's probes; add --protocol oxtunnel",
    );
  }
  // Only OxTunnel can tell which of several is near.
  const others = invitation.protocol === "oxtunnel" ? read.otherEndpoints ?? [] : [];
  return { invitation, endpoints: given.length > 0 ? given : [read.endpoint, ...others] };
}

async function readText(word: string | undefined, file: string | undefined): Promise<Invitation> {
  if (word !== undefined) {
    if (file !== undefined) throw new UsageError("an invitation and --config exclude each other");
    if (!word.startsWith(INVITATION_SCHEME)) {
      throw new UsageError(`expected an invitation ${INVITATION_SCHEME}…; for a file there is --config FILE`);
    }
    console.error(
      "Whoever lists this machine's processes can read the invitation there; --config FILE keeps it secret.",
    );
    return parseInvitation(word, "invitation");
  }
  const path = file ?? DEFAULT_FILE;
  try {
    using opened = await Deno.open(path);
    return parseInvitation(await readAll(opened, path), path);
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) {
      throw new CommandError(
        `${path}: this task reads its own folder only; give it the file so: deno task connect < ${path}`,
      );
    }
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    if (file !== undefined) throw new CommandError(`${file}: there is no such file; it is named by --config`);
  }
  const isTyped = Deno.stdin.isTerminal();
  if (isTyped) console.error("Paste the invitation, the line oxrelay://… that `peer add` printed:");
  const text = await readAll(Deno.stdin, "standard input", isTyped);
  if (text.trim() === "") {
    throw new CommandError(
      `there is no ${DEFAULT_FILE} and no invitation; on the relay, \`deno task peer add --oxtunnel NAME\` prints one`,
    );
  }
  return parseInvitation(text, "standard input");
}

/** All of a file, or of a terminal one line. Never a part of it: throws CommandError beyond TEXT_MAX bytes. */
async function readAll(
  reader: { read(into: Uint8Array): Promise<number | null> },
  source: string,
  isTyped = false,
): Promise<string> {
  const parts: Uint8Array[] = [];
  let length = 0;
  try {
    while (!(isTyped && parts.at(-1)?.includes(10))) {
      const part = new Uint8Array(READ_BYTES);
      const count = await reader.read(part);
      if (count === null) break;
      parts.push(part.subarray(0, count));
      length += count;
      if (length > TEXT_MAX) throw tooLong(source);
    }
    if (isTyped && length >= TYPED_MAX) {
      throw new CommandError(
        `a terminal takes no more than ${TYPED_MAX} characters of a line; put this one into ${DEFAULT_FILE}`,
      );
    }
    const bytes = new Uint8Array(length);
    let at = 0;
    for (const part of parts) {
      bytes.set(part, at);
      at += part.length;
    }
    parts.push(bytes);
    return new TextDecoder().decode(bytes);
  } finally {
    for (const part of parts) part.fill(0);
  }
}

/** What a client without a device listens on. */
export interface DoorOptions {
  socks: Endpoint | undefined;
  forwards: Forward[];
}

/** As --socks and -L say. Throws UsageError. */
export function readDoors(socks: string | undefined, forwards: string[]): DoorOptions {
  const endpoint = socks === undefined
    ? undefined
    : parseEndpoint(/^\d+$/.test(socks) ? `127.0.0.1:${socks}` : socks);
  if (socks !== undefined && (!endpoint || !/^(127\.[\d.]+|::1|localhost)$/.test(endpoint.host))) {
    throw new UsageError(
      `--socks: expected a port such as 1080, or a loopback address with one; whoever reaches it uses the tunnel`,
    );
  }
  return {
    socks: endpoint,
    forwards: forwards.map((text) => {
      const [, port, rest] = /^(\d{1,5}):(.+)$/.exec(text) ?? [];
      const target = rest === undefined ? undefined : parseEndpoint(rest);
      if (!target || Number(port) < 1 || Number(port) > 65535) {
        throw new UsageError(
          `-L: expected "port:host:port" such as 8080:intranet.example.com:80, found "${text}"`,
        );
      }
      return { port: Number(port), host: target.host, hostPort: target.port };
    }),
  };
}
