/**
 * What `doctor` finds wrong with a relay's host, from facts that host_facts.ts gathers. Invariant: each finding that is no "ok" has
 * what was found and, where one line mends it, that very line; nothing is guessed where a fact is missing. Reads nothing itself.
 */
import type { Config } from "../../config.ts";
import { isGlobal } from "../../wire/special_ranges.ts";
import { parseAddress } from "../../wire/address.ts";
import { passageOf } from "./firewall.ts";

/** Facts about a host; a field that could not be read is undefined. */
export interface HostFacts {
  /** Whether the process may change networks (CAP_NET_ADMIN). */
  isAdmin: boolean | undefined;
  /** Sysctls by name, "net.core.rmem_max", as text. */
  sysctls: Record<string, string | undefined>;
  /** Which programs run. */
  programs: Record<"ip" | "nft", boolean>;
  hasTunDevice: boolean;
  /** What `nft list ruleset` prints. */
  ruleset: string | undefined;
  /** UDP and TCP ports that something listens on. */
  udpPorts: number[];
  tcpPorts: number[];
  /** Addresses of the interfaces, as text. */
  addresses: string[];
  descriptors: number | undefined;
  /** Why the native library does not run; undefined when it does. */
  nativeObstacle: string | undefined;
  availableBytes: number | undefined;
  /** Mode of the file with the private key; undefined when there is none. */
  keyMode: number | undefined;
  /** Why the stored peers cannot be used; undefined when they can. */
  peersMistake: string | undefined;
  /** When the fallback's certificate ends, milliseconds since 1970, or why it cannot be read; undefined without a fallback. */
  certificateEndMs: number | string | undefined;
  /** What the running relay says; undefined when none answers. */
  relay: { exit: string; reasons: string[] } | undefined;
  /** Why a relay that may be running could not be asked; undefined when it was asked, or when nothing listens there. */
  relayMistake: string | undefined;
}

export interface Finding {
  subject: string;
  state: "ok" | "warn" | "fail" | "unknown";
  text: string;
  /** The line that mends it, for a shell as root unless it says otherwise. */
  line?: string;
}

/** The buffers that the relay asks for its socket, bytes (ffi/src/port/udp.rs). */
export const SOCKET_BUFFER_BYTES = 8 << 20;
const CONNTRACK_MIN = 65_536, CONNTRACK_FULL = 0.8;
const DESCRIPTORS_MIN = 4096;
const MEMORY_MIN_BYTES = 128 << 20;
const CERTIFICATE_SOON_MS = 14 * 86_400_000;

/** Every check, in the order in which a packet meets them. `nowMs` is milliseconds since 1970. */
export function findingsOf(facts: HostFacts, config: Config, nowMs: number): Finding[] {
  return [
    ofRelay(facts, config),
    ...ofPorts(facts, config),
    ofFirewall(facts, config),
    ofAddress(facts, config),
    ofExit(facts, config),
    ...ofForwarding(facts, config),
    ...ofBuffers(facts),
    ofConntrack(facts, config),
    ofPings(facts, config),
    ofDescriptors(facts),
    ofLibrary(facts),
    ofMemory(facts),
    ...ofState(facts, config),
    ...ofCertificate(facts, nowMs),
  ].filter((one) => one !== undefined);
}

function ofRelay({ relay, relayMistake }: HostFacts, { listen }: Config): Finding {
  if (relayMistake !== undefined) return { subject: "relay", state: "unknown", text: relayMistake };
  if (relay === undefined) {
    const text = "none answers here; what depends on a running one is not checked";
    return { subject: "relay", state: "unknown", text, line: "deno task serve" };
  }
  const { exit, reasons } = relay;
  if (reasons.length > 0) return { subject: "relay", state: "fail", text: reasons.join("; ") };
  return { subject: "relay", state: "ok", text: `runs, listens on UDP ${listen.port}, exit ${exit}` };
}

function ofPorts(
  { relay, relayMistake, udpPorts, tcpPorts }: HostFacts,
  { listen, fallback }: Config,
): Finding[] {
  const isStopped = relay === undefined;
  const findings: Finding[] = [];
  const check = (protocol: string, ports: number[], port: number, key: string) => {
    const isOpen = ports.includes(port);
    const subject = `${protocol} ${port}`;
    if (relayMistake !== undefined) {
      const text = isOpen
        ? "somebody has the port, and whether a relay runs is not known"
        : "nobody has the port, and whether a relay runs is not known";
      findings.push({ subject, state: "unknown", text });
    } else if (isStopped && isOpen) {
      const text = `another program has the port; stop it, or set ${key} to another`;
      findings.push({ subject, state: "fail", text, line: `ss -lnp sport = ${port}` });
    } else if (!isStopped && !isOpen) {
      findings.push({ subject, state: "fail", text: "the relay does not listen there" });
    } else findings.push({ subject, state: "ok", text: isStopped ? "is free" : "the relay listens" });
  };
  check("UDP", udpPorts, listen.port, "listen");
  if (fallback !== undefined) check("TCP", tcpPorts, fallback.listen.port, "[fallback] listen");
  return findings;
}

/** Chains of others that drop what comes in. */
function ofFirewall({ ruleset }: HostFacts, { listen: { port } }: Config): Finding {
  const subject = "firewall";
  if (ruleset === undefined) {
    return {
      subject,
      state: "unknown",
      text: "its rules cannot be read; run this as root",
      line: "sudo deno task doctor",
    };
  }
  const { state, table, chain } = passageOf(ruleset, port);
  if (state === "none") return { subject, state: "ok", text: "nftables has no chain of hook input" };
  if (state === "open") return { subject, state: "ok", text: `UDP ${port} is accepted` };
  if (state === "unknown") {
    const text =
      `rules that match more than UDP and the port decide in chain ${chain} of table ${table}; read them`;
    return { subject, state, text, line: `nft list chain ${table} ${chain}` };
  }
  return {
    subject,
    state: "fail",
    text: `chain ${chain} of table ${table} drops new packets to UDP ${port}`,
    line: `nft insert rule ${table} ${chain} udp dport ${port} accept`,
  };
}

function ofAddress({ addresses }: HostFacts, { publicEndpoint, listen }: Config): Finding {
  const subject = "address";
  const hasPublic = addresses.map(parseAddress).some((address) => address !== undefined && isGlobal(address));
  if (hasPublic) return { subject, state: "ok", text: "this machine has a public address" };
  if (publicEndpoint !== undefined) {
    return {
      subject,
      state: "ok",
      text: `private only; the router must pass UDP of ${publicEndpoint} on to port ${listen.port}`,
    };
  }
  const text =
    `private only: forward UDP ${listen.port} at the router to this machine, and say its public address in the config`;
  return {
    subject,
    state: "warn",
    text,
    line: `public_endpoint = "PUBLIC.ADDRESS:${listen.port}"    (in oxrelay.toml)`,
  };
}

function ofExit({ isAdmin, programs, hasTunDevice, relay }: HostFacts, { exit }: Config): Finding {
  const subject = "exit";
  if (relay?.exit.startsWith("tun")) return { subject, state: "ok", text: "tun" };
  if (exit === "userspace") return { subject, state: "ok", text: "userspace, as configured" };
  const state = exit === "tun" ? "fail" : "warn";
  const lost = "the tun exit, which carries every protocol, cannot be used";
  if (!programs.ip) {
    return { subject, state, text: `${lost}: ip is missing`, line: "apt-get install iproute2" };
  }
  if (!programs.nft) {
    return { subject, state, text: `${lost}: nft is missing`, line: "apt-get install nftables" };
  }
  if (!hasTunDevice) {
    return { subject, state, text: `${lost}: /dev/net/tun is missing or closed`, line: "modprobe tun" };
  }
  if (isAdmin === false) {
    return { subject, state, text: `${lost}: it needs root or CAP_NET_ADMIN`, line: "sudo deno task serve" };
  }
  return { subject, state: isAdmin === undefined ? "unknown" : "ok", text: "tun can be used" };
}

function ofForwarding({ sysctls, relay }: HostFacts, { tunnelIpv6 }: Config): Finding[] {
  // A relay with the tun exit switches it on; where it is off all the same, it may not.
  if (!relay?.exit.startsWith("tun")) return [];
  const keys = ["net.ipv4.ip_forward", ...(tunnelIpv6 === "off" ? [] : ["net.ipv6.conf.all.forwarding"])];
  return keys.map((key): Finding => {
    const subject = "forwarding";
    if (sysctls[key] === undefined) return { subject, state: "unknown", text: `${key} cannot be read` };
    if (sysctls[key] !== "0") return { subject, state: "ok", text: `${key} is on` };
    return {
      subject,
      state: "fail",
      text: `${key} is off, so nothing leaves the tun exit`,
      line: `sysctl -w ${key}=1`,
    };
  });
}

function ofBuffers({ sysctls, isAdmin }: HostFacts): Finding[] {
  return ["net.core.rmem_max", "net.core.wmem_max"].map((key): Finding => {
    const subject = "buffers", bytes = Number(sysctls[key]);
    if (sysctls[key] === undefined) return { subject, state: "unknown", text: `${key} cannot be read` };
    // SO_RCVBUFFORCE passes the limit with the privilege (socket(7)).
    if (isAdmin === true) {
      return { subject, state: "ok", text: `${key} does not bound a relay with CAP_NET_ADMIN` };
    }
    if (bytes >= SOCKET_BUFFER_BYTES) return { subject, state: "ok", text: `${key} is ${bytes}` };
    const text =
      `${key} is ${bytes}: bursts of packets are lost that a relay without CAP_NET_ADMIN has no room for`;
    return { subject, state: "warn", text, line: `sysctl -w ${key}=${SOCKET_BUFFER_BYTES}` };
  });
}

function ofConntrack({ sysctls, relay }: HostFacts, { exit }: Config): Finding | undefined {
  if (exit === "userspace" || relay?.exit.startsWith("userspace")) return undefined;
  const subject = "conntrack", key = "net.netfilter.nf_conntrack_max";
  const max = Number(sysctls[key] ?? NaN), count = Number(sysctls["net.netfilter.nf_conntrack_count"] ?? NaN);
  if (Number.isNaN(max)) {
    return { subject, state: "unknown", text: "its table cannot be read (no rule has needed it yet)" };
  }
  if (count > CONNTRACK_FULL * max) {
    return {
      subject,
      state: "fail",
      text: `${count} of ${max} connections are in use`,
      line: `sysctl -w ${key}=${4 * max}`,
    };
  }
  if (max >= CONNTRACK_MIN) return { subject, state: "ok", text: `room for ${max} connections` };
  const text = `room for ${max} connections, which a few devices can fill`;
  return { subject, state: "warn", text, line: `sysctl -w ${key}=${4 * CONNTRACK_MIN}` };
}

function ofPings({ sysctls, relay }: HostFacts, { exit }: Config): Finding | undefined {
  if (!(exit === "userspace" || relay?.exit.startsWith("userspace"))) return undefined;
  const key = "net.ipv4.ping_group_range", found = sysctls[key];
  const [low, high] = (found ?? "").split(/\s+/).map(Number);
  const subject = "pings";
  if (found === undefined) return { subject, state: "unknown", text: `${key} cannot be read` };
  if (low <= high) return { subject, state: "ok", text: `groups ${low} to ${high} may ping` };
  const text = "the userspace exit cannot carry pings of devices: no group may open ping sockets";
  return { subject, state: "warn", text, line: `sysctl -w ${key}="0 2147483647"` };
}

function ofDescriptors({ descriptors }: HostFacts): Finding {
  const subject = "descriptors";
  if (descriptors === undefined) return { subject, state: "unknown", text: "their limit cannot be read" };
  if (descriptors >= DESCRIPTORS_MIN) {
    return { subject, state: "ok", text: `${descriptors} for this shell's processes` };
  }
  const text = `${descriptors} are few: each flow of the userspace exit takes one`;
  return { subject, state: "warn", text, line: "ulimit -n 65536    (as a service: LimitNOFILE=65536)" };
}

function ofLibrary({ nativeObstacle }: HostFacts): Finding {
  return nativeObstacle === undefined
    ? { subject: "library", state: "ok", text: "the native library runs" }
    : {
      subject: "library",
      state: "warn",
      text: `packets go one at a time, many times slower: ${nativeObstacle}`,
    };
}

function ofMemory({ availableBytes }: HostFacts): Finding {
  const subject = "memory";
  if (availableBytes === undefined) return { subject, state: "unknown", text: "cannot be read" };
  const text = `${Math.round(availableBytes / 2 ** 20)} MiB available`;
  return { subject, state: availableBytes < MEMORY_MIN_BYTES ? "warn" : "ok", text };
}

function ofState({ keyMode, peersMistake }: HostFacts, { stateDir }: Config): Finding[] {
  const subject = "state", path = `${stateDir}/private.key`;
  const key: Finding = keyMode === undefined
    ? { subject, state: "ok", text: `${path} is not there yet; the first start makes it` }
    : (keyMode & 0o077) === 0
    ? { subject, state: "ok", text: `${path} is closed to other users` }
    : { subject, state: "fail", text: `other users may read ${path}`, line: `chmod 600 ${path}` };
  const peers: Finding[] = peersMistake === undefined ? [] : [{ subject, state: "fail", text: peersMistake }];
  return [key, ...peers];
}

function ofCertificate({ certificateEndMs: end }: HostFacts, nowMs: number): Finding[] {
  const subject = "certificate";
  if (end === undefined) return [];
  if (typeof end === "string") return [{ subject, state: "fail", text: end }];
  const day = new Date(end).toISOString().slice(0, 10);
  if (end < nowMs) {
    return [{ subject, state: "fail", text: `of the fallback ended on ${day}; renew it, then send SIGHUP` }];
  }
  return [{
    subject,
    state: end - nowMs < CERTIFICATE_SOON_MS ? "warn" : "ok",
    text: `of the fallback ends on ${day}`,
  }];
}

const MARKS: Record<Finding["state"], string> = {
  ok: "ok     ",
  warn: "WARNING",
  fail: "WRONG  ",
  unknown: "unknown",
};

/** The findings for people, the line that mends one below it. */
export function renderFindings(findings: readonly Finding[], listen: Config["listen"]): string {
  const lines = findings.flatMap(({ subject, state, text, line }) => [
    `${MARKS[state]}  ${subject.padEnd(12)} ${text}`,
    ...(line === undefined || state === "ok" ? [] : [`${" ".repeat(22)} ${line}`]),
  ]);
  const wrong = findings.filter(({ state }) => state === "fail").length;
  const warned = findings.filter(({ state }) => state === "warn").length;
  return [
    ...lines,
    "",
    `${wrong} wrong, ${warned} warnings. Nothing was changed. A provider's firewall, which nobody here can see, must let ` +
    `UDP ${listen.port} in, too.`,
  ].join("\n");
}
