/**
 * What `connect --priority` says: CLASS=[PROTOCOL:][ADDRESS][:PORT] of the far end, or app=NAME:CLASS of a program here.
 * Invariant: a mistake is named with an example, before anything on this machine is changed. Only reads.
 */
import { parseEndpoint } from "../config.ts";
import { CLASS_RULES_MAX, type ClassRule } from "../control/class_rules.ts";
import { CLASS_NAMES, readClassRule } from "../control/rule_text.ts";
import { HINTS_MAX, type OwnHint } from "../session/oxtunnel/hints.ts";
import { isIpv4, parseAddress, parsePrefix } from "../wire/address.ts";
import { PROTOCOL_TCP, PROTOCOL_UDP } from "../wire/inner.ts";
import { APP_HINTS_MAX } from "./app_hints.ts";
import type { AppPriority } from "./app_sockets.ts";
import { UsageError } from "../process/help.ts";

const CLASSES: Record<string, number | undefined> = Object.fromEntries(
  CLASS_NAMES.map((name, trafficClass) => [name, trafficClass]),
);
const PROTOCOLS: Record<string, number> = { tcp: PROTOCOL_TCP, udp: PROTOCOL_UDP };

const APP = "app=";

/** As --priority says of far ends, the first that fits first. Throws UsageError. */
export function readPriorities(texts: readonly string[]): OwnHint[] {
  const ofFarEnds = texts.filter((text) => !text.startsWith(APP));
  const max = ofFarEnds.length < texts.length ? HINTS_MAX - APP_HINTS_MAX : HINTS_MAX;
  if (ofFarEnds.length > max) {
    throw new UsageError(`--priority: at most ${max}, found ${ofFarEnds.length}`);
  }
  return ofFarEnds.map(readPriority);
}

/** As --priority says of programs, the first that fits first. Throws UsageError. */
export function readAppPriorities(texts: readonly string[]): AppPriority[] {
  const apps = texts.filter((text) => text.startsWith(APP)).map(readAppPriority);
  if (apps.length > APP_HINTS_MAX) {
    throw new UsageError(`--priority: at most ${APP_HINTS_MAX} programs, found ${apps.length}`);
  }
  return apps;
}

function readAppPriority(text: string): AppPriority {
  const [, name, className] = /^app=([^=:/]{1,64})[:=](\w{1,20})$/.exec(text) ?? [];
  const trafficClass = Object.hasOwn(CLASSES, className) ? CLASSES[className] : undefined;
  if (trafficClass !== undefined) return { name, trafficClass };
  throw new UsageError(
    `--priority: expected the name of a program and one of ${
      Object.keys(CLASSES).join(", ")
    }, such as app=csgo:game, found "${text.slice(0, 60)}"`,
  );
}

function readPriority(text: string): OwnHint {
  const [, className, protocol, rest = ""] = /^(\w{1,20})=(?:(tcp|udp)(?::|$))?(.{0,60})$/.exec(text) ?? [];
  const trafficClass = Object.hasOwn(CLASSES, className) ? CLASSES[className] : undefined;
  const far = readFarEnd(rest);
  if (trafficClass === undefined || !far || (protocol === undefined && rest === "")) {
    throw new UsageError(
      `--priority: expected ${
        Object.keys(CLASSES).join(", ")
      } for a protocol, an address or a port, such as ` +
        `game=udp:27015 or bulk=tcp:203.0.113.5:443, found "${text.slice(0, 60)}"`,
    );
  }
  return {
    trafficClass,
    protocol: protocol === undefined ? 0 : PROTOCOLS[protocol],
    clientPort: 0,
    remotePort: far.port,
    client: parseAddress(isIpv4(far.address) ? "0.0.0.0" : "::")!,
    remote: far.address,
  };
}

/** "443", ":443", "203.0.113.5", "203.0.113.5:443", "2001:db8::5", "[2001:db8::5]:443", or nothing for any. */
function readFarEnd(text: string): { address: Uint32Array; port: number } | undefined {
  const [, port] = /^:?([1-9]\d{0,4})$/.exec(text) ?? [];
  const endpoint = parseEndpoint(text) ??
    { host: port === undefined && text !== "" ? text : "::", port: Number(port ?? 0) };
  const address = parseAddress(endpoint.host);
  return address && endpoint.port <= 65535 ? { address, port: endpoint.port } : undefined;
}

/** As --rule says, the first that fits first. Throws UsageError. */
export function readRules(texts: readonly string[]): ClassRule[] {
  if (texts.length > CLASS_RULES_MAX) {
    throw new UsageError(`--rule: at most ${CLASS_RULES_MAX}, found ${texts.length}`);
  }
  return texts.map((text) => {
    try {
      return readClassRule(text, parsePrefix);
    } catch (error) {
      if (error instanceof SyntaxError) throw new UsageError(`--rule: ${error.message}`);
      throw error;
    }
  });
}

/** The programs that rules name, as --priority has them. Throws UsageError. */
export function programsOf(rules: readonly ClassRule[]): AppPriority[] {
  const apps = rules.filter(({ program }) => program !== undefined)
    .map(({ program, trafficClass }) => ({ name: program!, trafficClass }));
  if (apps.length > APP_HINTS_MAX) {
    throw new UsageError(`--rule: at most ${APP_HINTS_MAX} programs, found ${apps.length}`);
  }
  return apps;
}
