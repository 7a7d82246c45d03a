/**
 * A client's changes to its host that lead packets into the tunnel: the device's addresses, policy routing, one nftables
 * table, resolvers (texts: client_rules.ts, resolv_conf.ts). Invariant: of the host's own settings only /etc/resolv.conf is
 * changed, which then holds its old text as comments; rules and routes bear this program's protocol number and the table its
 * name, so that the next start finds and undoes what a killed client left; the device and its routes disappear with the
 * process. Moves no packet.
 */
import { libc } from "../../../ffi/mod.ts";
import type { Native } from "../../../ffi/native.ts";
import { parseAddress, parsePrefix, prefixContains } from "../../wire/address.ts";
import { run } from "../child.ts";
import {
  CLIENT_DEVICE,
  clientRules,
  type ClientRulesOptions,
  DNS_PORT,
  familyOf,
  hasFamily,
  isSelective,
  led,
  type OuterEndpoint,
  OUTSIDE,
  OUTSIDE_S,
  PRIORITY,
  PROTOCOL,
  routeBatch,
  ROUTES,
  type Scope,
  TABLE,
} from "./client_rules.ts";
import { listeningPorts } from "./listening.ts";
import { openQueues } from "./mod.ts";
import { writeSysctl } from "./host.ts";
import {
  isReplaced,
  originalResolvConf,
  outsideResolvers,
  readResolvConf,
  replacedResolvConf,
  RESOLV_CONF,
  usesStub,
  writeResolvConf,
} from "./resolv_conf.ts";

export interface ClientHostOptions {
  /** "10.66.0.2/32", one or more. */
  addresses: readonly string[];
  /** Destinations that the relay carries, as prefixes of which none contains another; all of both families when empty. */
  routes: readonly string[];
  /** Inner MTU, bytes. */
  mtu: number;
  /** Resolvers to ask through the tunnel; empty to keep the system's resolvers. */
  dns: readonly string[];
  /** Search domains. */
  search: readonly string[];
  scope: Scope;
  /** Whether packets in the tunnel's scope are blocked everywhere else, also without a tunnel. */
  killSwitch: boolean;
  native: Native | string;
  log: (level: "info" | "warning", message: string) => void;
}

/** By its path: Deno warns at start about an allowed program that is not on PATH. */
const RESOLVECTL = "/usr/bin/resolvectl";

const IPV6_MTU_MIN = 1280; // RFC 8200 §5

/** A client's device, and what leads packets into the device. */
export class ClientHost {
  readonly #o: ClientHostOptions;
  #descriptor: number | undefined;
  #usesResolved = false;
  #hasRules = false;
  /** TCP ports on which programs listened at start, as text. */
  readonly #listening = listeningPorts("tcp").map(String);
  /** The addresses that this system accepted, with prefix lengths. */
  #addresses: string[] = [];
  #relays: readonly OuterEndpoint[] | undefined;
  /** Settled when the last requested change is done: changes of rules and routes run one by one. */
  #turn: Promise<void> = Promise.resolve();
  /** The device's. */
  #mtu: number;

  private constructor(options: ClientHostOptions) {
    this.#o = options;
    this.#mtu = options.mtu;
  }

  /**
   * Makes the device, up and with its addresses, without leading packets into it. Undoes what an earlier client left, except
   * a closed kill switch when this client closes one too. Throws a sentence.
   */
  static async open(options: ClientHostOptions): Promise<ClientHost> {
    const host = new ClientHost(options);
    const remedy = "if another connect runs here, stop it; there can be one";
    [host.#descriptor] = openQueues(CLIENT_DEVICE, options.native, 1, remedy);
    try {
      await undo(options.killSwitch);
      await run("ip", ["link", "set", "dev", CLIENT_DEVICE, "mtu", String(options.mtu), "up"]);
      await host.#addAddresses();
      // Answers arrive by the tunnel although the unmarked route back is another.
      writeSysctl(`net/ipv4/conf/${CLIENT_DEVICE}/rp_filter`, "2");
      // A selected program that asks a resolver on loopback gets its answer from the tunnel. No other packet reaches loopback:
      // the rules accept only packets to the device's own addresses.
      if (isSelective(options.scope)) writeSysctl(`net/ipv4/conf/${CLIENT_DEVICE}/route_localnet`, "1");
    } catch (error) {
      await host.close();
      throw error;
    }
    return host;
  }

  /** Without IPv6 (by a setting, or a kernel without it) only the IPv4 addresses are used. */
  async #addAddresses(): Promise<void> {
    let refusal: Error | undefined;
    for (const address of this.#o.addresses) {
      const more = familyOf(address) === "-6" ? ["nodad"] : [];
      try {
        await run("ip", ["addr", "add", address, "dev", CLIENT_DEVICE, ...more]);
        this.#addresses.push(address);
      } catch (error) {
        refusal = error as Error;
        if (familyOf(address) === "-4") throw refusal;
      }
    }
    if (refusal === undefined) return;
    if (this.#addresses.length === 0) throw refusal;
    this.#o.log("warning", `IPv6 is off on this system, so it stays off in the tunnel: ${refusal.message}`);
  }

  /** The device's queue. */
  get descriptor(): number {
    return this.#descriptor!;
  }

  /** Leads the scope's packets into the tunnel, and packets to the relays past it. Call again when a relay has moved. */
  route(relays: readonly OuterEndpoint[]): Promise<void> {
    return this.#inTurn(() => this.#route(relays));
  }

  async #route(relays: readonly OuterEndpoint[]): Promise<void> {
    this.#relays = relays;
    await this.#applyRules(relays);
    await deleteRules();
    for (const family of ["-4", "-6"] as const) {
      const batch = routeBatch(this.#rules, family, relays);
      try {
        await run("ip", [family, "-batch", "-"], batch);
      } catch (error) {
        // A system without IPv6 has no such packets.
        if (family === "-4" || hasFamily(this.#rules, "-6")) throw error;
      }
    }
    await this.#resolve();
  }

  /** Gives the device the MTU of the path, at most the negotiated one. With IPv6 at least 1280, below which Linux ends IPv6. */
  async setMtu(mtu: number): Promise<void> {
    const least = hasFamily(this.#rules, "-6") ? IPV6_MTU_MIN : 0;
    const fitting = Math.max(least, Math.min(this.#o.mtu, mtu));
    if (fitting === this.#mtu) return;
    try {
      await run("ip", ["link", "set", "dev", CLIENT_DEVICE, "mtu", String(fitting)]);
      this.#mtu = fitting;
    } catch (error) {
      // Packets that do not fit are then fragmented, or their senders told, one by one.
      this.#o.log("warning", `the MTU stays ${this.#mtu}: ${(error as Error).message}`);
    }
  }

  /** Closes the kill switch before there is a tunnel. */
  shut(relays: readonly OuterEndpoint[]): Promise<void> {
    return this.#inTurn(() => this.#applyRules(relays));
  }

  /**
   * Lets UDP from `port` of this host to these resolvers' port 53 past the tunnel and past the kill switch while the action
   * runs, so that the name of a relay that moved can be resolved.
   */
  async letOut<T>(resolvers: readonly string[], port: number, action: () => Promise<T>): Promise<T> {
    const rules = resolvers.flatMap((resolver) =>
      [`sport ${port} dport ${DNS_PORT}`, `sport ${DNS_PORT} dport ${port}`].map((ports) => ({
        family: familyOf(resolver),
        line:
          `priority ${PRIORITY.relay} to ${resolver} ipproto udp ${ports} lookup main protocol ${PROTOCOL}`,
      }))
    );
    const each = async (verb: "add" | "del") => {
      for (const { family, line } of rules) {
        await run("ip", [family, "rule", verb, ...line.split(" ")]).catch(() => {});
      }
    };
    await this.#inTurn(async () => {
      await each("add");
      // Where no kill switch is closed there is no such set. The element goes by itself.
      const element = `{ ${port} timeout ${OUTSIDE_S}s }`;
      await run("nft", ["add", "element", "inet", TABLE, OUTSIDE, element]).catch(() => {});
    });
    try {
      return await action();
    } finally {
      await this.#inTurn(() => each("del"));
    }
  }

  /** The resolvers that this system uses outside the tunnel, as text. */
  outsideResolvers(): string[] {
    return outsideResolvers();
  }

  /** Whether the client's rules were flushed, as by a firewall that loads its own ruleset; then restores them. */
  guard(): Promise<void> {
    return this.#inTurn(() => this.#guard());
  }

  async #guard(): Promise<void> {
    if (this.#relays === undefined) return;
    const listed = await run("nft", ["list", "table", "inet", TABLE]).catch(() => undefined);
    if (listed !== undefined) return;
    await this.#applyRules(this.#relays);
    this.#o.log(
      "warning",
      `the rules of ${CLIENT_DEVICE} were gone (nft flush ruleset?) and have been put back`,
    );
  }

  /**
   * Undoes everything. A kill switch that an earlier client left closed stays closed if this client was to close one and ended
   * before. Safe to call twice; call after the last use of the device.
   */
  close(): Promise<void> {
    return this.#inTurn(() => this.#close());
  }

  async #close(): Promise<void> {
    if (this.#usesResolved) await run(RESOLVECTL, ["revert", CLIENT_DEVICE]).catch(() => {});
    await undo(this.#o.killSwitch && !this.#hasRules);
    libc().close(this.descriptor);
    this.#descriptor = undefined;
  }

  /** Runs the change after all earlier ones; does nothing once everything is undone. */
  #inTurn(action: () => Promise<void>): Promise<void> {
    const done = this.#turn.then(() => this.#descriptor === undefined ? undefined : action());
    this.#turn = done.catch(() => {});
    return done;
  }

  get #rules(): ClientRulesOptions {
    return { ...this.#o, addresses: this.#addresses, listening: this.#listening };
  }

  async #applyRules(relays: readonly OuterEndpoint[]): Promise<void> {
    try {
      await run("nft", ["-f", "-"], clientRules(this.#rules, relays));
      this.#hasRules = true;
    } catch (error) {
      const { cgroup } = this.#o.scope;
      if (cgroup === undefined) throw error;
      throw new Error(
        `--only-cgroup ${cgroup}: expected an existing cgroup v2 (${(error as Error).message})`,
      );
    }
  }

  /** Makes the system resolve through the tunnel, unless only some destinations go in; a user or cgroup has rules instead. */
  async #resolve(): Promise<void> {
    const { search, scope } = this.#o;
    if (this.#o.dns.length === 0 || scope.include.length > 0 || isSelective(this.#o.scope)) return;
    const dns = this.#o.dns.filter((address) =>
      led(this.#o, familyOf(address)).some((led) => prefixContains(parsePrefix(led)!, parseAddress(address)!))
    );
    if (dns.length === 0) {
      this.#o.log(
        "warning",
        "no resolver of the config is among its AllowedIPs, so names are resolved as before",
      );
      return;
    }
    const now = readResolvConf();
    if (now === undefined) {
      this.#o.log(
        "warning",
        `${RESOLV_CONF} cannot be read, so names are resolved as before, outside of the tunnel`,
      );
      return;
    }
    if (usesStub(now)) {
      try {
        await run(RESOLVECTL, ["dns", CLIENT_DEVICE, ...dns]);
        await run(RESOLVECTL, ["domain", CLIENT_DEVICE, "~.", ...search]);
        this.#usesResolved = true;
        return;
      } catch {
        // A configured stub that does not run: the file is used.
      }
    }
    if (isReplaced(now)) return; // the relay has moved, the file is ours already
    if (!writeResolvConf(replacedResolvConf(now, dns, search))) {
      this.#o.log(
        "warning",
        `${RESOLV_CONF} cannot be written, so names are resolved as before, outside of the tunnel`,
      );
    }
  }
}

/** Undoes what a killed client left behind, including its closed kill switch unless that is to stay. */
export async function undo(keepKillSwitch: boolean): Promise<void> {
  const now = readResolvConf();
  const before = now === undefined ? undefined : originalResolvConf(now);
  if (before !== undefined) writeResolvConf(before);
  await deleteRules();
  if (!keepKillSwitch) await run("nft", ["delete", "table", "inet", TABLE]).catch(() => {});
}

/** Whether a killed client has left its kill switch closed. */
export async function isShut(): Promise<boolean> {
  const listed = await run("nft", ["list", "chain", "inet", TABLE, "output"]).catch(() => "");
  return listed.includes("admin-prohibited");
}

async function deleteRules(): Promise<void> {
  for (const family of ["-4", "-6"]) {
    await run("ip", [family, "rule", "flush", "protocol", String(PROTOCOL)]).catch(() => {});
    await run("ip", [family, "route", "flush", "table", String(ROUTES)]).catch(() => {});
  }
}
