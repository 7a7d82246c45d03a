/**
 * Who may use the relay, for how long and how much, as the page and /v1 ask for it: peers with their limits, traffic, one-time links, events
 * and history, over the store and the Workers. Invariant: everything that changes a peer goes through live_peers.ts, and is noted as an
 * event; the texts that hold a private key are made for one answer and kept nowhere. Opens no port.
 */
import { type AdminDeps, Refusal } from "../../admin/mod.ts";
import type { NewPeer, NewPeerAnswer } from "../../admin/mod.ts";
import { chooseEndpoint, renderClientConfig } from "../../cli/client_config.ts";
import { invitedFallback } from "../../cli/fallback_invited.ts";
import type { Config, Environment } from "../../config.ts";
import { formatInvitation, parseInvitation } from "../../connect/invitation.ts";
import { every } from "../../io/every.ts";
import { DROP_REASONS, type Metrics } from "../../metrics.ts";
import { CommandError, UsageError } from "../../process/help.ts";
import { generatePrivateKey, keyToText, publicKeyOf } from "../../process/keys_text.ts";
import { logger, redactAddress } from "../../process/logging.ts";
import type { BarReason, PeerRecord, PeerSnapshot } from "../../session/peer_record.ts";
import { withForwards, withoutForwards } from "../forwards.ts";
import type { Identity } from "../identity.ts";
import { LivePeers } from "../live_peers.ts";
import { openStore } from "../store.ts";
import type { WorkerPool } from "../worker_pool.ts";
import { BarredPool, BARS_MS } from "./bars.ts";
import { EventLog } from "./event_log.ts";
import { History } from "./history.ts";
import { TrafficLedger } from "./ledger.ts";
import { Links } from "./links.ts";

const LINK_MS = 86_400_000;

const wallMs = () => Date.now();
const say = (message: string) => logger("peers").warn("{message}", { message });

export interface AccessSetup {
  /** Asked each time: a reload may have changed it. */
  readonly config: () => Config;
  readonly env: Environment;
  readonly identity: Identity;
  readonly peers: readonly PeerRecord[];
  readonly pool: WorkerPool;
}

/** What the admin interface needs of this. */
type Served = Pick<
  AdminDeps,
  | "peers"
  | "peerCount"
  | "keptOut"
  | "applications"
  | "addPeer"
  | "changePeer"
  | "removePeer"
  | "restorePeer"
  | "addForwards"
  | "removeForward"
  | "links"
  | "makeLink"
  | "revokeLink"
  | "redeemLink"
  | "events"
  | "noteEvent"
  | "history"
>;

export class Access {
  readonly livePeers: LivePeers;
  readonly #o: AccessSetup;
  readonly #ledger: TrafficLedger;
  readonly #bars: BarredPool;
  readonly #links: Links;
  readonly #events = new EventLog(wallMs);
  readonly #history = new History();
  #stopTimer = () => {};

  /** Reads traffic and links from the state directory; the peers are those that the pool is to be started with. */
  static async open(setup: AccessSetup): Promise<Access> {
    const { stateDir } = setup.config();
    const ledger = await TrafficLedger.open(stateDir, wallMs(), say);
    return new Access(setup, ledger, await Links.open(stateDir, wallMs, say));
  }

  private constructor(setup: AccessSetup, ledger: TrafficLedger, links: Links) {
    this.#o = setup;
    this.#ledger = ledger;
    this.#links = links;
    this.#bars = new BarredPool(setup.pool, setup.peers, {
      ledger,
      wallMs,
      onChange: (peer, barred) => this.#noteBar(peer, barred),
      onFault: ({ message }) => say(`a limit of a peer could not be carried out: ${message}`),
    });
    this.livePeers = new LivePeers(openStore(setup.config(), setup.env, setup.identity), this.#bars);
    setup.pool.listen(
      (event) => this.#events.noteTunnel(event),
      (traffic) => this.#bars.addTraffic(traffic, performance.now()),
    );
  }

  /** The peers with their bars, for the start of the Workers. */
  get admitted() {
    return this.#bars.admitted;
  }

  /** Begins to look at dates and volumes, and to keep history. */
  watch(metrics: readonly Metrics[]): void {
    this.#stopTimer = every(BARS_MS, () => {
      this.#bars.look();
      this.#history.take(totalsOf(metrics), performance.now(), wallMs());
      void this.#ledger.save(performance.now(), this.#publicKeys());
    }, ({ message }) => say(message));
  }

  /** Stores what was counted; the Workers must have ended. */
  async close(): Promise<void> {
    this.#stopTimer();
    await this.#ledger.flush(this.#publicKeys());
  }

  get served(): Served {
    return {
      peers: (maxAgeMs) => this.#rows(maxAgeMs),
      peerCount: () => this.#bars.peers.length,
      keptOut: () => this.#bars.keptOut,
      applications: (maxAgeMs) => this.#o.pool.applications(maxAgeMs),
      addPeer: (peer) => this.#add(peer),
      changePeer: (name, change) => this.#change(name, change),
      removePeer: async (name) => this.#noted(await this.livePeers.remove(name), "removed", name),
      restorePeer: async (name) =>
        this.#noted(await this.livePeers.restore(name) !== undefined, "restored", name),
      addForwards: (name, forwards) => this.#addForwards(name, forwards),
      removeForward: (name, forward) => this.#removeForward(name, forward),
      links: () => this.#links.list(),
      makeLink: (link) => this.#makeLink(link),
      revokeLink: async (id) => {
        const link = await this.#links.revoke(id);
        return this.#noted(link !== undefined, "link_revoked", link?.name ?? "");
      },
      redeemLink: (token) =>
        this.#links.redeem(token, async (peer) => {
          const added = await this.#addUnreserved(peer);
          this.#events.note("link_used", peer.name);
          return added;
        }),
      events: (after) => this.#events.after(after),
      noteEvent: (kind, source) => this.#events.note(kind, "", redactAddress(source)),
      history: (span) => this.#history.of(span),
    };
  }

  #publicKeys(): Set<string> {
    return new Set(this.#bars.peers.map(({ publicKey }) => publicKey));
  }

  #noted(isDone: boolean, kind: Parameters<EventLog["note"]>[0], name: string): boolean {
    if (isDone) this.#events.note(kind, name);
    return isDone;
  }

  #noteBar({ name }: PeerRecord, barred: BarReason | undefined): void {
    this.#events.note(barred ?? "admitted", name);
    const why = barred === "expired" ? "its date has come" : "it has used up the volume of this month";
    if (barred === undefined) logger("peers").info("{name} may connect again", { name });
    else logger("peers").info("{name} is kept out: {why}", { name, why });
  }

  async #rows(maxAgeMs: number) {
    const { peers } = await this.#o.pool.seenPeers(maxAgeMs);
    const live = new Map(peers.map((peer) => [peer.publicKey, peer]));
    const nowMs = performance.now();
    return this.#bars.peers.map((record) => this.#row(record, live.get(record.publicKey), nowMs));
  }

  #row({ presharedKey, ...record }: PeerRecord, live: PeerSnapshot | undefined, nowMs: number) {
    const { publicKey } = record;
    const connected = live?.connected === true;
    return {
      connected,
      bytesReceived: 0,
      bytesSent: 0,
      drops: 0,
      ...live,
      ...record,
      disabled: record.disabled === true,
      hasPresharedKey: presharedKey !== undefined,
      state: this.#bars.barOf(publicKey) ?? (connected ? "connected" as const : "offline" as const),
      usage: this.#ledger.of(publicKey),
      ...this.#ledger.rates(publicKey, nowMs),
    };
  }

  async #add(peer: NewPeer): Promise<NewPeerAnswer> {
    if (this.#links.reserves(peer.name)) {
      throw new Refusal("name", `a one-time link for "${peer.name}" waits; revoke it or choose another name`);
    }
    const added = await this.#addUnreserved(peer);
    this.#events.note("added", peer.name);
    return added;
  }

  async #addUnreserved({ publicKey, endpoint, ...peer }: NewPeer): Promise<NewPeerAnswer> {
    const created = new Date(wallMs()).toISOString();
    if (publicKey !== undefined) {
      const { presharedKey: _, ...record } = await this.livePeers.add({ ...peer, publicKey, created });
      return record;
    }
    // Before anything is stored: a private key that no text can be made of would be lost.
    const texts = await this.#texts(endpoint);
    const privateKey = generatePrivateKey();
    try {
      const record = await this.livePeers.add({
        ...peer,
        publicKey: keyToText(publicKeyOf(privateKey)),
        created,
      });
      const { presharedKey: _, ...shown } = record;
      return { ...shown, privateKey: keyToText(privateKey), ...texts(record, keyToText(privateKey)) };
    } finally {
      privateKey.fill(0);
    }
  }

  /** Chooses what a new device is told of this relay; returns the function that makes its texts. Throws Refusal. */
  async #texts(wanted: string | undefined) {
    const config = this.#o.config();
    const endpoint = this.#endpoint(wanted);
    const fallback = await (config.fallback && invitedFallback(config.fallback, endpoint.text))?.catch(
      ({ message }: Error) => {
        throw new Refusal("fallback", message);
      },
    );
    const relayPublicKey = keyToText(this.#o.identity.publicKey);
    return (record: PeerRecord, privateKey: string) => {
      const text = renderClientConfig({
        record,
        privateKey,
        relayPublicKey,
        endpoint: endpoint.text,
        config,
      });
      const invitation = formatInvitation({ ...parseInvitation(text, "the new config"), fallback });
      const note = endpoint.note === undefined ? {} : {
        note:
          `The device is told to reach this relay at ${endpoint.text}, an address of this machine. If devices need ` +
          "another, set public_endpoint in the relay's configuration, or name the endpoint when you add the device.",
      };
      return { config: text, invitation, ...note };
    };
  }

  #endpoint(wanted: string | undefined) {
    try {
      return chooseEndpoint(wanted, this.#o.config(), this.#o.env, Deno.networkInterfaces);
    } catch (error) {
      if (!(error instanceof UsageError || error instanceof CommandError)) throw error;
      const reason = wanted === undefined
        ? "this machine has no address that a device could reach: set public_endpoint in the relay's configuration, or name " +
          "the endpoint here"
        : 'expected "host:port" such as "relay.example.com:4433"';
      throw new Refusal("endpoint", reason);
    }
  }

  async #change(name: string, change: Parameters<AdminDeps["changePeer"]>[1]): Promise<boolean> {
    const wanted = change.name ?? name;
    if (wanted !== name && this.#links.reserves(wanted)) {
      throw new Refusal("name", `a one-time link for "${wanted}" waits; revoke it or choose another name`);
    }
    if (await this.livePeers.change(name, change) === undefined) return false;
    if (wanted !== name) this.#events.note("renamed", wanted, name);
    if (change.disabled !== undefined) this.#events.note(change.disabled ? "disabled" : "admitted", wanted);
    const isMore = Object.keys(change).some((key) => key !== "name" && key !== "disabled");
    if (isMore) this.#events.note("changed", wanted);
    return true;
  }

  async #addForwards(name: string, forwards: string[]) {
    const edited = await this.livePeers.edit(name, "forwards", (peer) => withForwards(peer, forwards));
    if (edited === undefined) return undefined;
    const { presharedKey: _, ...record } = edited;
    this.#events.note("changed", name);
    return record;
  }

  async #removeForward(name: string, forward: string): Promise<boolean> {
    const has = this.#bars.peers.some((peer) => peer.name === name && peer.forwards?.includes(forward));
    if (!has) return false;
    await this.livePeers.edit(name, "forwards", (peer) => withoutForwards(peer, [forward]));
    this.#events.note("changed", name);
    return true;
  }

  async #makeLink({ linkExpires, ...peer }: Parameters<AdminDeps["makeLink"]>[0]) {
    if (this.#bars.peers.some(({ name }) => name === peer.name)) {
      throw new Refusal("name", `peer "${peer.name}" exists; choose another name`);
    }
    const expires = linkExpires ?? new Date(wallMs() + LINK_MS).toISOString();
    if (Date.parse(expires) <= wallMs()) throw new Refusal("linkExpires", "this time has passed");
    const link = await this.#links.make(peer, expires);
    this.#events.note("link_made", peer.name);
    return link;
  }
}

function totalsOf(metrics: readonly Metrics[]) {
  const sumOf = (read: (one: Metrics) => number) => metrics.reduce((total, one) => total + read(one), 0);
  return {
    bytesReceived: sumOf((one) => one.get("bytes_received")),
    bytesSent: sumOf((one) => one.get("bytes_sent")),
    connections: sumOf((one) => one.get("connections")),
    drops: sumOf((one) => DROP_REASONS.reduce((total, [label]) => total + one.dropped(label), 0)),
  };
}
