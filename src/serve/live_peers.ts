/**
 * The peers of a running relay, where the store and the relay workers meet. Invariant: a removal cuts the peer off first and
 * stores then, and what was cut off stays so while the disk refuses, whatever is read from it; changes happen one after
 * the other, each as a whole, so that no older list overtakes a newer one and what is served is what is stored. Reads no
 * configuration.
 */
import { Refusal } from "../admin/mod.ts";
import type { PeerRecord } from "../session/peer_record.ts";
import { CommandError } from "../process/help.ts";
import { describeRefused } from "./forwards.ts";
import type { PeersReport } from "./messages.ts";
import type { PeerStore } from "./store.ts";
import type { WorkerPool } from "./worker_pool.ts";

/** Where the peers are served: `peers` is what the relay workers were last told. */
type Pool = Pick<WorkerPool, "peers" | "setPeers">;

type Store = Pick<PeerStore, "load" | "add" | "edit" | "remove" | "others">;

/** What tells a record from a later one of the same key. */
const identityOf = ({ publicKey, created }: PeerRecord) => `${publicKey} ${created}`;

/** Runs what it is given one after the other. */
class Turns {
  #last: Promise<unknown> = Promise.resolve();

  take<T>(act: () => Promise<T>): Promise<T> {
    const result = this.#last.then(act);
    this.#last = result.catch(() => {});
    return result;
  }
}

export class LivePeers {
  readonly #store: Store;
  readonly #pool: Pool;
  /** Cut off while a restart, or a reload, would still read them: the names by what `identityOf` says. */
  readonly #cutOff = new Map<string, string>();
  /** Whole additions and removals, which may wait for the store's lock. */
  readonly #changes = new Turns();
  /** What is said to the workers; within a change or without one, so that a cut waits for no store. */
  readonly #telling = new Turns();

  constructor(store: Store, pool: Pool) {
    this.#store = store;
    this.#pool = pool;
  }

  /** Serves what `load` reads, without those that were cut off. */
  async reload(load: () => Promise<readonly PeerRecord[]>): Promise<PeersReport & { total: number }> {
    if (this.#cutOff.size > 0) await this.#changes.take(() => this.#storeAgain());
    return await this.#telling.take(async () => {
      const peers = (await load()).filter((peer) => !this.#cutOff.has(identityOf(peer)));
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
      const record = await this.#store.add(peer).catch((error) => {
        if (!(error instanceof CommandError)) throw error;
        // An error of the system is its cause: what refuses is then the disk, and not the peer.
        const field = error.cause === "publicKey"
          ? "publicKey"
          : error.cause instanceof Error
          ? "store"
          : "name";
        throw new Refusal(field, error.message);
      });
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
        if (error instanceof Refusal || !(error instanceof CommandError)) throw error;
        throw new Refusal(error.cause instanceof Error ? "store" : field, error.message);
      });
      const refused = await this.#telling.take(() => this.#serve(record, field));
      if (refused === undefined) return record;
      await this.#store.edit(name, () => before!);
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
      const { failed, refused = [] } = await this.#pool.setPeers([...others, record]);
      const own = describeRefused(refused.filter(({ forward }) => forward.publicKey === record.publicKey));
      const reasons = [...failed, ...own];
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
      if (isStored) await this.#store.remove(name);
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
