/**
 * The peers of a running relay, where the store and the relay workers meet. Invariant: a removal cuts the peer off first and
 * stores then, and what was cut off stays so while the disk refuses, whatever is read from it; changes happen one after
 * the other, each as a whole, so that no older list overtakes a newer one and what is served is what is stored. Reads no
 * configuration.
 */
import { Refusal } from "../admin/mod.ts";
import type { PeerRecord } from "../session/peer_record.ts";
import { CommandError } from "../process/help.ts";
import { logger } from "../process/logging.ts";
import { describeRefused, type RefusedPeerForward } from "./forwards.ts";
import type { PeersReport } from "./messages.ts";
import { changed, type PeerChange } from "./access/peer_change.ts";
import type { PeerStore } from "./store.ts";
import { Turns } from "./access/turns.ts";

/** Where the peers are served: `peers` is what the relay workers were last told. */
interface Pool {
  readonly peers: readonly PeerRecord[];
  setPeers(peers: readonly PeerRecord[]): Promise<PeersReport & { refused?: RefusedPeerForward[] }>;
}

/** For how long a removed peer can be restored, milliseconds: what the page offers, and the time of a slow request. */
export const UNDO_MS = 12_000;
/** The most peers that can be restored; of more, those removed last. */
const UNDO_MAX = 1000;

type Store = Pick<PeerStore, "load" | "add" | "edit" | "restore" | "remove" | "others">;

/** What tells a record from a later one of the same key. */
const identityOf = ({ publicKey, created }: PeerRecord) => `${publicKey} ${created}`;

export class LivePeers {
  readonly #store: Store;
  readonly #pool: Pool;
  /** Cut off while a restart, or a reload, would still read them: the names by what `identityOf` says. */
  readonly #cutOff = new Map<string, string>();
  /** Disabled while the disk refused to store that, by what `identityOf` says. */
  readonly #keptOut = new Set<string>();
  /** What was removed a moment ago, by name, oldest first. */
  readonly #removed = new Map<string, { record: PeerRecord; untilMs: number }>();
  readonly #nowMs: () => number;
  /** Whole additions and removals, which may wait for the store's lock. */
  readonly #changes = new Turns();
  /** What is said to the workers; within a change or without one, so that a cut waits for no store. */
  readonly #telling = new Turns();

  /** @param nowMs a monotonic clock, milliseconds. */
  constructor(store: Store, pool: Pool, nowMs = () => performance.now()) {
    this.#store = store;
    this.#nowMs = nowMs;
    this.#pool = pool;
  }

  /** Serves what `load` reads, without those that were cut off. */
  async reload(load: () => Promise<readonly PeerRecord[]>): Promise<PeersReport & { total: number }> {
    if (this.#cutOff.size > 0) await this.#changes.take(() => this.#storeAgain());
    return await this.#telling.take(async () => {
      const peers = (await load()).filter((peer) => !this.#cutOff.has(identityOf(peer)))
        .map((peer) => this.#asServed(peer));
      const { refused = [], ...report } = await this.#pool.setPeers(peers);
      return { ...report, failed: [...report.failed, ...describeRefused(refused)], total: peers.length };
    });
  }

  /**
   * Stores a peer and serves it once it is on the disk. Throws Refusal for what the store or the relay refuses; neither has the
   * peer then.
   */
  add(peer: Parameters<PeerStore["add"]>[0]): Promise<PeerRecord> {
    return this.#changes.take(async () => {
      const record = await this.#store.add(peer).catch((error) => refuse(error));
      const refused = await this.#telling.take(() => this.#serve(record));
      if (refused === undefined) return record;
      const { cutFailed, storeFailed } = await this.#takeOut(record.name);
      const left = [cutFailed, storeFailed].filter((reason) => reason !== undefined);
      const remedy = left.length === 0 ? "" : `; it could not be taken back whole: ${left.join("; ")}`;
      throw new Refusal(refused.field, refused.message + remedy);
    });
  }

  /**
   * Stores what `edit` makes of a peer's record and serves it; undefined when there is no peer of that name. Throws Refusal for what
   * the store, the relay or the host refuses, `field` if it is the edit's; the peer is as before then.
   */
  edit(
    name: string,
    field: string,
    edit: (record: PeerRecord) => PeerRecord,
  ): Promise<PeerRecord | undefined> {
    return this.#changes.take(async () => {
      const before = (await this.#store.load()).find((peer) => peer.name === name);
      if (before === undefined && !this.#store.others.some((peer) => peer.name === name)) return undefined;
      const record = await this.#store.edit(name, edit).catch((error) => {
        if (error instanceof Refusal) throw error;
        return refuse(error, field);
      });
      const refused = await this.#telling.take(() => this.#serve(record, field));
      if (refused === undefined) return record;
      await this.#store.edit(record.name, () => before!);
      await this.#telling.take(() => this.#serve(before!, field));
      throw new Refusal(refused.field, refused.message);
    });
  }

  /**
   * Cuts a peer off, then removes it from the store; false when there is none of that name. Throws Refusal with what of both
   * failed; the other one is done nevertheless.
   */
  async remove(name: string): Promise<boolean> {
    const first = await this.#cut(name); // now, whatever the store's lock is waiting for
    return await this.#changes.take(async () => {
      const { served, cutFailed, isStored, storeFailed } = await this.#takeOut(name, first);
      if (served === undefined && !isStored && storeFailed === undefined) return false;
      const cut = cutFailed === undefined
        ? served ? "is cut off until the relay restarts" : "was not served"
        : `may be connected still, as the relay did not carry it out (${cutFailed}): restart it`;
      if (storeFailed !== undefined) {
        throw new Refusal(
          "store",
          `peer "${name}" ${cut}; it could not be removed from the store: ${storeFailed}`,
        );
      }
      if (cutFailed !== undefined) {
        throw new Refusal("relay", `peer "${name}" ${cut}; the store does not have it any more`);
      }
      return true;
    });
  }

  /**
   * Changes a peer, in the store and in the relay; undefined when there is none of that name. One that is disabled is cut off first, as
   * in a removal, and stays so until the relay ends, even when the disk refuses. Throws Refusal with what failed.
   */
  async change(name: string, change: PeerChange): Promise<PeerRecord | undefined> {
    const kept = change.disabled ? await this.#telling.take(() => this.#keepOut(name)) : undefined;
    if (change.disabled === false) this.#letIn(name);
    try {
      const record = await this.edit(name, "name", (record) => changed(record, change));
      if (record !== undefined) this.#keptOut.delete(identityOf(record));
      return record;
    } catch (error) {
      if (kept === undefined || !(error instanceof Refusal)) throw error;
      throw new Refusal(
        error.field,
        `peer "${name}" is kept out until the relay restarts; that could not be stored: ${error.message}`,
      );
    }
  }

  /** Stores and serves a peer again that was removed less than UNDO_MS ago; undefined when there is none. Throws Refusal. */
  restore(name: string): Promise<PeerRecord | undefined> {
    return this.#changes.take(async () => {
      const removed = this.#removed.get(name);
      if (removed === undefined || removed.untilMs < this.#nowMs()) return undefined;
      const record = await this.#store.restore(removed.record).catch((error) => refuse(error));
      this.#removed.delete(name);
      const refused = await this.#telling.take(() => this.#serve(record));
      if (refused !== undefined) throw new Refusal(refused.field, `stored, but ${refused.message}`);
      return record;
    });
  }

  /** Serves the peer of that name as a disabled one from now on; undefined where it is not served, or is one already. */
  async #keepOut(name: string): Promise<PeerRecord | undefined> {
    const served = this.#pool.peers.find((peer) => peer.name === name);
    if (served === undefined || served.disabled) return undefined;
    this.#keptOut.add(identityOf(served));
    await this.#serve(served);
    return served;
  }

  #letIn(name: string): void {
    const served = this.#pool.peers.find((peer) => peer.name === name);
    if (served !== undefined) this.#keptOut.delete(identityOf(served));
  }

  /** The record as it is served: a disabled one's where the disk did not take that. */
  #asServed(record: PeerRecord): PeerRecord {
    return this.#keptOut.has(identityOf(record)) ? changed(record, { disabled: true }) : record;
  }

  #remember(record: PeerRecord): void {
    const nowMs = this.#nowMs();
    for (const [name, { untilMs }] of this.#removed) {
      if (untilMs < nowMs || this.#removed.size >= UNDO_MAX) this.#removed.delete(name);
    }
    this.#removed.delete(record.name);
    this.#removed.set(record.name, { record, untilMs: nowMs + UNDO_MS });
  }

  /** Serves one more peer; returns why not. */
  async #serve(
    record: PeerRecord,
    field = "publicKey",
  ): Promise<{ field: string; message: string } | undefined> {
    // A reload since it was stored has brought it already.
    // Who is served under a name or a prefix that the store has just given away is stored no longer.
    const others = this.#pool.peers.filter(({ name, publicKey, allowedIps }) =>
      publicKey !== record.publicKey && name !== record.name &&
      !allowedIps.some((prefix) => record.allowedIps.includes(prefix))
    );
    try {
      const { failed, refused = [] } = await this.#pool.setPeers([...others, this.#asServed(record)]);
      const own = describeRefused(refused.filter(({ forward }) => forward.publicKey === record.publicKey));
      // A port that somebody else has taken is no reason against a change of anything but the forwards.
      if (field !== "forwards") { for (const reason of own) logger("peers").warn("{reason}", { reason }); }
      const reasons = field === "forwards" ? [...failed, ...own] : failed;
      return reasons.length === 0 ? undefined : { field, message: reasons.join("; ") };
    } catch (error) {
      return { field: "relay", message: `the relay did not carry it out: ${(error as Error).message}` };
    }
  }

  /** Cuts off the peer that is served by that name, if there is one. */
  #cut(name: string): Promise<{ served?: PeerRecord; cutFailed?: string }> {
    return this.#telling.take(async () => {
      const served = this.#pool.peers.find((peer) => peer.name === name);
      if (served === undefined) return {};
      this.#cutOff.set(identityOf(served), name);
      try {
        await this.#pool.setPeers(this.#pool.peers.filter((peer) => peer !== served));
        return { served };
      } catch (error) {
        return { served, cutFailed: (error as Error).message };
      }
    });
  }

  /** Cuts off and removes from the store, within a change; an addition may have come since the `first` cut. */
  async #takeOut(name: string, first: { served?: PeerRecord; cutFailed?: string } = {}) {
    const second = await this.#cut(name);
    const served = second.served ?? first.served;
    const cutFailed = second.cutFailed ?? first.cutFailed;
    let isStored = false;
    try {
      isStored = (await this.#store.load()).some((peer) => peer.name === name);
      if (isStored) this.#remember(await this.#store.remove(name));
      else if (this.#store.others.some((peer) => peer.name === name)) {
        throw new CommandError("it comes from OXRELAY_PEERS; take it out there");
      }
    } catch (error) {
      return { served, cutFailed, isStored, storeFailed: (error as Error).message };
    }
    await this.#telling.take(() => {
      for (const one of [first.served, second.served]) if (one) this.#cutOff.delete(identityOf(one));
      return Promise.resolve();
    });
    return { served, cutFailed, isStored };
  }

  /** Removes from the store what was cut off while the disk refused; what fails again is tried at the next occasion. */
  async #storeAgain(): Promise<void> {
    for (const [identity, name] of [...this.#cutOff]) {
      try {
        const stored = (await this.#store.load()).find((peer) => identityOf(peer) === identity);
        if (stored === undefined) continue; // it comes from elsewhere
        await this.#store.remove(name);
        this.#cutOff.delete(identity);
      } catch {
        // Whoever removed the peer was told.
      }
    }
  }
}

/** Throws what the store refused as a Refusal of the field at fault; any other error as it is. */
function refuse(error: unknown, field = "name"): never {
  if (!(error instanceof CommandError)) throw error;
  // An error of the system is its cause: what refuses is then the disk, and not the peer.
  const ofDisk = error.cause instanceof Error ? "store" : field;
  throw new Refusal(typeof error.cause === "string" ? error.cause : ofDisk, error.message);
}
