/**
 * The peers on disk: `peers.json` in the state directory, and the addresses leased to them. Invariant: an
 * operation that has returned survives kill -9 and power loss, one that has not leaves the old file whole,
 * and two processes that change the store at once lose nothing. Tells no relay.
 */
import { createHash } from "node:crypto";
import { join } from "node:path";
import type { Config, Environment } from "../config.ts";
import type { PeerRecord } from "../session/peer_record.ts";
import { makeStateDirectory, readIfPresent, replaceFile, withLock } from "../process/durable.ts";
import { CommandError } from "../process/help.ts";
import { type Identity, loadIdentity, resolveTunnelIpv6 } from "./identity.ts";
import {
  firstDuplicate,
  formatPeers,
  parsePeers,
  recordMistake,
  RELEASED_MAX,
  type Stored,
} from "./peers_file.ts";
import { keyToText, unusableKey } from "../process/keys_text.ts";
import {
  type Address,
  formatAddress,
  formatPrefix,
  hostOne,
  isIpv4,
  parseAddress,
  parsePrefix,
  prefixContains,
} from "../wire/address.ts";

export interface StoreOptions {
  readonly stateDir: string;
  /** "10.66.0.0/16"; the relay itself is host 1. */
  readonly tunnelIpv4: string;
  /** "fd…::/64", or undefined when IPv6 is off in the tunnel. */
  readonly tunnelIpv6?: string;
  /** Peers from elsewhere, whose names, keys and addresses are taken. */
  readonly others?: readonly PeerRecord[];
  /** The relay's public key, which no peer may have. */
  readonly relayKey?: string;
}

export class PeerStore {
  readonly path: string;
  readonly #options: StoreOptions;
  readonly #lockFile: string;
  /** What the file held when it was last read or written, by the SHA-256 of its text: a relay adds without checking all again. */
  #known: { digest: string; stored: Stored } | undefined;

  constructor(options: StoreOptions) {
    this.path = join(options.stateDir, "peers.json");
    this.#lockFile = join(options.stateDir, "peers.lock");
    this.#options = options;
  }

  /** Peers from elsewhere, which are not stored here. */
  get others(): readonly PeerRecord[] {
    return this.#options.others ?? [];
  }

  /** The stored peers, oldest first; none when the file is missing. Throws CommandError on a damaged file. */
  async load(): Promise<PeerRecord[]> {
    return (await this.#load()).peers;
  }

  async #load(): Promise<Stored> {
    const text = await readIfPresent(this.path);
    if (text === undefined) return { peers: [], released: [] };
    const digest = digestOf(text);
    if (this.#known?.digest === digest) return this.#known.stored;
    const result = parsePeers(text);
    if ("peers" in result) {
      this.#known = { digest, stored: result };
      return result;
    }
    throw new CommandError(
      `${this.path}: cannot be used: ${result.mistake}. Nothing was changed: repair it, restore a backup, or ` +
        `move it away to start without peers: mv ${this.path} ${this.path}.damaged`,
    );
  }

  /**
   * Stores a peer with the lowest addresses that nobody ever had, or else those given back longest ago, and returns it once it is on the disk. Throws CommandError
   * when its name or key is taken, no address is free, or the disk refuses.
   */
  async add(
    peer: Omit<PeerRecord, "allowedIps">,
  ): Promise<PeerRecord> {
    return await this.#change(({ peers, released }) => {
      const all = [...peers, ...this.others];
      if (all.some(({ name }) => name === peer.name)) {
        throw new CommandError(
          `peer "${peer.name}" exists; choose another name, or remove it first: peer remove ${peer.name}`,
        );
      }
      const sameKey = all.find(({ publicKey }) => publicKey === peer.publicKey);
      if (sameKey !== undefined) {
        throw new CommandError(`peer "${sameKey.name}" has this public key already`, { cause: "publicKey" });
      }
      const { publicKey } = peer;
      const mistake = unusableKey(publicKey, this.#options.relayKey);
      if (mistake !== undefined) {
        throw new CommandError(`peer "${peer.name}": public key: ${mistake}`, { cause: "publicKey" });
      }
      const record: PeerRecord = { ...peer, allowedIps: this.#lease(all, released) };
      const wrong = recordMistake(record);
      if (wrong !== undefined) {
        throw new CommandError(`peer "${peer.name}": ${wrong.place}: ${wrong.message}`);
      }
      const left = released.filter((prefix) => !record.allowedIps.includes(prefix));
      return { peers: [...peers, record], released: left, result: record };
    });
  }

  /**
   * Replaces a stored peer by what `edit` makes of it, and returns that once it is on the disk. The key and the addresses must stay.
   * Throws CommandError when there is none of that name, the new record cannot be used, or the disk refuses.
   */
  async edit(name: string, edit: (record: PeerRecord) => PeerRecord): Promise<PeerRecord> {
    return await this.#change(({ peers, released }) => {
      const before = this.#stored(peers, name);
      const record = edit(structuredClone(before));
      if (record.name !== name && [...peers, ...this.others].some((peer) => peer.name === record.name)) {
        throw new CommandError(`peer "${record.name}" exists; choose another name`, { cause: "name" });
      }
      const wrong = recordMistake(record);
      if (wrong !== undefined) {
        throw new CommandError(`peer "${name}": ${wrong.place}: ${wrong.message}`, { cause: wrong.place });
      }
      const edited = peers.map((peer) => peer === before ? record : peer);
      const keys = new Set(edited.map(({ publicKey }) => publicKey));
      const others = this.others.filter(({ publicKey }) => !keys.has(publicKey));
      const twice = firstDuplicate([...edited, ...others]);
      if (twice !== undefined) throw new CommandError(twice);
      return { peers: edited, released, result: record };
    });
  }

  /** Stores a removed peer again as it was. Throws CommandError when its name, key or a prefix is another's now, or the disk refuses. */
  async restore(record: PeerRecord): Promise<PeerRecord> {
    return await this.#change(({ peers, released }) => {
      const twice = firstDuplicate([...peers, ...this.others, record]);
      if (twice !== undefined) throw new CommandError(`${twice}; it cannot be restored`, { cause: "name" });
      const left = released.filter((prefix) => !record.allowedIps.includes(prefix));
      return { peers: [...peers, record], released: left, result: record };
    });
  }

  /** The stored peer of that name. Throws CommandError when there is none. */
  #stored(peers: readonly PeerRecord[], name: string): PeerRecord {
    const record = peers.find((peer) => peer.name === name);
    if (record !== undefined) return record;
    throw new CommandError(
      this.others.some((peer) => peer.name === name)
        ? `peer "${name}" comes from OXRELAY_PEERS; change it there`
        : `there is no peer "${name}"; see: peer list`,
    );
  }

  /** Removes a peer and returns what was stored of it. Throws CommandError when there is none of that name. */
  async remove(name: string): Promise<PeerRecord> {
    return await this.#change(({ peers, released }) => {
      const record = this.#stored(peers, name);
      return {
        peers: peers.filter((peer) => peer !== record),
        released: [...released.filter((prefix) => !record.allowedIps.includes(prefix)), ...record.allowedIps],
        result: record,
      };
    });
  }

  /**
   * Stores peers with the addresses that they have, all or none, oldest first; those that are stored exactly so are passed over.
   * Returns how many were added. Throws CommandError when one cannot be stored.
   */
  async addAll(records: readonly PeerRecord[]): Promise<number> {
    return await this.#change(({ peers, released }) => {
      const known = new Set(peers.map(identityOf));
      const fresh = records.filter((record) => !known.has(identityOf(record)));
      for (const record of fresh) {
        const mistake = recordMistake(record);
        if (mistake !== undefined) {
          throw new CommandError(`peer "${record.name}": ${mistake.place}: ${mistake.message}`);
        }
        const unusable = unusableKey(record.publicKey, this.#options.relayKey);
        if (unusable !== undefined) throw new CommandError(`peer "${record.name}": public key: ${unusable}`);
      }
      const all = [...peers, ...fresh];
      const twice = firstDuplicate([...all, ...this.others]);
      if (twice !== undefined) throw new CommandError(`${twice}; nothing was changed`);
      const taken = new Set(fresh.flatMap(({ allowedIps }) => allowedIps));
      return { peers: all, released: released.filter((prefix) => !taken.has(prefix)), result: fresh.length };
    });
  }

  async #change<T>(change: (stored: Stored) => Stored & { result: T }): Promise<T> {
    await makeStateDirectory(this.#options.stateDir);
    return await withLock(this.#lockFile, async () => {
      const { peers, released, result } = change(await this.#load());
      const stored = { peers, released: released.slice(-RELEASED_MAX) };
      const text = formatPeers(stored);
      await replaceFile(this.path, text);
      this.#known = { digest: digestOf(text), stored };
      return result;
    });
  }

  /**
   * The addresses of the lowest host number that is free and was never given, or else of the one given back longest ago: the internet
   * still sends to a removed peer's for a while. 0 is the network, 1 the relay, the last one the broadcast.
   */
  #lease(peers: readonly PeerRecord[], released: readonly string[]): string[] {
    const taken = new Set(peers.flatMap(({ allowedIps }) => allowedIps));
    const since = new Map(released.map((prefix, i) => [prefix, i]));
    const { address, bits } = parsePrefix(this.#options.tunnelIpv4)!;
    const hosts = 2 ** (128 - bits);
    const tunnelIpv6 = this.#options.tunnelIpv6 === undefined
      ? undefined
      : parsePrefix(this.#options.tunnelIpv6)!;
    let oldest: string[] | undefined, oldestSince = Infinity;
    for (let host = 2; host < hosts - 1; host++) {
      const leased = [`${formatAddress(plusHost(address, host))}/32`];
      if (taken.has(leased[0])) continue;
      if (tunnelIpv6) leased.push(`${formatAddress(plusHost(tunnelIpv6.address, host))}/128`);
      if (leased.some((prefix) => taken.has(prefix))) continue;
      const given = Math.max(...leased.map((prefix) => since.get(prefix) ?? -1));
      if (given < 0) return leased;
      if (given < oldestSince) [oldest, oldestSince] = [leased, given];
    }
    if (oldest !== undefined) return oldest;
    throw new CommandError(
      `no address is free in tunnel_ipv4 ${this.#options.tunnelIpv4}; remove a peer or choose a larger network`,
    );
  }
}

/**
 * The store of this configuration. Without the relay's identity no peer may be added: IPv6 addresses are derived from its key,
 * which no peer may have. Throws CommandError on an OXRELAY_PEERS that cannot be used.
 */
export function openStore(
  config: Config,
  env: Environment,
  identity?: Pick<Identity, "publicKey">,
): PeerStore {
  return new PeerStore({
    stateDir: config.stateDir,
    tunnelIpv4: config.tunnelIpv4,
    tunnelIpv6: identity && resolveTunnelIpv6(config, identity.publicKey),
    relayKey: identity && keyToText(identity.publicKey),
    others: peersFromEnvironment(env),
  });
}

/** Equal for two records of one peer with the same name, key and addresses. */
function identityOf({ name, publicKey, allowedIps }: PeerRecord): string {
  return [name, publicKey, ...allowedIps].join(" ");
}

function digestOf(text: string): string {
  return createHash("sha256").update(text).digest("base64");
}

/** The network's address with a host number (below 2^24) in its last bits. */
function plusHost(network: Address, host: number): Address {
  const address = network.slice();
  address[3] |= host;
  return address;
}

/** One line for OXRELAY_PEERS. It holds the preshared keys: a secret. */
export function exportPeers(peers: readonly PeerRecord[]): string {
  return new TextEncoder().encode(JSON.stringify({ version: 1, peers })).toBase64();
}

/** The peers in OXRELAY_PEERS; none when it is unset. Throws CommandError. */
export function peersFromEnvironment(env: Environment): PeerRecord[] {
  if (!env.OXRELAY_PEERS) return [];
  let result: ReturnType<typeof parsePeers>;
  try {
    result = parsePeers(new TextDecoder().decode(Uint8Array.fromBase64(env.OXRELAY_PEERS)));
  } catch {
    result = { mistake: "it is not base64" };
  }
  if ("peers" in result) return result.peers;
  throw new CommandError(
    `environment: OXRELAY_PEERS: cannot be used: ${result.mistake}; set it to what \`peer export\` prints`,
  );
}

/**
 * Every peer that the relay serves: the stored ones, then those of OXRELAY_PEERS that are not stored under the
 * same public key. Throws CommandError when two of them claim the same name or prefix, or when a prefix is not
 * the peer's to have: it must lie inside the tunnel's IPv4 or IPv6 network, without the relay's own address.
 */
export async function loadAllPeers(config: Config, env: Environment): Promise<PeerRecord[]> {
  const { stateDir, tunnelIpv4 } = config;
  const stored = await new PeerStore({ stateDir, tunnelIpv4 }).load();
  const keys = new Set(stored.map(({ publicKey }) => publicKey));
  const peers = [...stored, ...peersFromEnvironment(env).filter(({ publicKey }) => !keys.has(publicKey))];
  const twice = firstDuplicate(peers);
  if (twice !== undefined) {
    throw new CommandError(`the stored peers and OXRELAY_PEERS do not fit together: ${twice}; remove one`);
  }
  if (peers.length === 0) return [];
  const { privateKey, publicKey: relayKey } = await loadIdentity(config, env);
  privateKey.fill(0);
  const relayText = keyToText(relayKey);
  const tunnels = {
    ipv4: tunnelOf("tunnel_ipv4", tunnelIpv4),
    ipv6: tunnelOf("tunnel_ipv6", resolveTunnelIpv6(config, relayKey)),
  };
  for (const { name, publicKey, allowedIps } of peers) {
    const mistake = unusableKey(publicKey, relayText);
    if (mistake !== undefined) {
      throw new CommandError(`peer "${name}": public key: ${mistake}; remove the peer`);
    }
    for (const allowed of allowedIps) {
      const mistake = misfit(allowed, tunnels);
      if (mistake !== undefined) throw new CommandError(`peer "${name}" has ${allowed}, ${mistake}`);
    }
  }
  return peers;
}

/** One of the tunnel's networks, read once for all peers; undefined for one that is off. */
function tunnelOf(key: string, tunnel: string | undefined) {
  if (tunnel === undefined) return undefined;
  const own = hostOne(tunnel).address;
  return { key, tunnel, network: parsePrefix(tunnel)!, own, ownAddress: parseAddress(own)! };
}

type TunnelNetwork = ReturnType<typeof tunnelOf>;

/** Why a peer cannot have the prefix, and what to do; undefined when it can. */
function misfit(allowed: string, tunnels: { ipv4: TunnelNetwork; ipv6: TunnelNetwork }): string | undefined {
  const prefix = parsePrefix(allowed)!;
  const isV4 = isIpv4(prefix.address);
  const its = isV4 ? tunnels.ipv4 : tunnels.ipv6;
  if (its === undefined) {
    return 'and tunnel_ipv6 is "off"; turn it on, or remove the peer and add it again';
  }
  const { key, tunnel, network, own, ownAddress } = its;
  if (prefix.bits < network.bits || !prefixContains(network, prefix.address)) {
    const back = isV4
      ? "set tunnel_ipv4 back, or "
      : prefix.address[0] >>> 24 === 0xfd && prefix.bits >= 64
      ? `if the relay's key has changed, set tunnel_ipv6 = "${
        formatPrefix(parsePrefix(`${formatAddress(prefix.address)}/64`)!)
      }", or `
      : "";
    return `outside ${key} ${tunnel}; ${back}remove the peer and add it again`;
  }
  if (prefixContains(prefix, ownAddress)) {
    return `which takes the relay's own address ${own}; remove the peer and add it again`;
  }
  return undefined;
}
