/**
 * The peers of a running relay, where the store and the data planes meet. Invariant: a removal cuts the peer off first and
 * stores then, and what was cut off stays so while the disk refuses, whatever is read from it; changes happen one after
 * the other, so that no older list overtakes a newer one. Reads no configuration.
 */
import { Refusal } from "../admin/mod.ts";
import type { PeerRecord } from "../session/peer_record.ts";
import { CommandError } from "./help.ts";
import type { PeersReport } from "./messages.ts";
import type { PeerStore } from "./store.ts";

/** Where the peers are served: every data plane of the relay. */
export interface Planes {
  /** What they were last told. */
  readonly peers: readonly PeerRecord[];
  setPeers(peers: readonly PeerRecord[]): Promise<PeersReport>;
}

/** What tells a record from a later one of the same key. */
const identityOf = ({ publicKey, created }: PeerRecord) => `${publicKey} ${created}`;

export class LivePeers {
  readonly #store: Pick<PeerStore, "load" | "add" | "remove">;
  readonly #planes: Planes;
  /** Cut off while a restart, or a reload, would still read them: the names by what `identityOf` says. */
  readonly #cutOff = new Map<string, string>();
  #turn: Promise<unknown> = Promise.resolve();

  constructor(store: Pick<PeerStore, "load" | "add" | "remove">, planes: Planes) {
    this.#store = store;
    this.#planes = planes;
  }

  /** Serves what `load` reads, without those that were cut off. */
  async reload(load: () => Promise<readonly PeerRecord[]>): Promise<PeersReport & { total: number }> {
    await this.#storeAgain();
    return await this.#inTurn(async () => {
      const peers = (await load()).filter((peer) => !this.#cutOff.has(identityOf(peer)));
      return { ...await this.#planes.setPeers(peers), total: peers.length };
    });
  }

  /** Stores a peer and serves it once it is on the disk. Throws Refusal for what the store or the relay refuses. */
  async add(peer: Parameters<PeerStore["add"]>[0]): Promise<PeerRecord> {
    const record = await this.#store.add(peer).catch((error) => {
      if (!(error instanceof CommandError)) throw error;
      throw new Refusal(error.cause === "publicKey" ? "publicKey" : "name", error.message);
    });
    const { failed } = await this.#inTurn(() => {
      // A reload between the two has brought it already.
      const others = this.#planes.peers.filter(({ publicKey }) => publicKey !== record.publicKey);
      return this.#planes.setPeers([...others, record]);
    });
    if (failed.length > 0) throw new Refusal("publicKey", failed.join("; "));
    return record;
  }

  /**
   * Cuts a peer off, then removes it from the store; false when there is none of that name. Throws Refusal with what of both
   * failed; the other one is done nevertheless.
   */
  async remove(name: string): Promise<boolean> {
    let cutFailed: string | undefined;
    const served = await this.#inTurn(async () => {
      const record = this.#planes.peers.find((peer) => peer.name === name);
      if (record === undefined) return undefined;
      this.#cutOff.set(identityOf(record), name);
      await this.#planes.setPeers(this.#planes.peers.filter((peer) => peer !== record)).catch((error) => {
        cutFailed = (error as Error).message;
      });
      return record;
    });
    const cut = cutFailed === undefined
      ? served ? "is cut off until the relay restarts" : "was not served"
      : `may be connected still, as the relay did not carry it out (${cutFailed}): restart it`;
    try {
      const isStored = (await this.#store.load()).some((peer) => peer.name === name);
      if (!isStored && served === undefined) return false;
      if (!isStored) throw new CommandError("it comes from OXRELAY_PEERS; take it out there");
      await this.#store.remove(name);
    } catch (error) {
      const { message } = error as Error;
      throw new Refusal("store", `peer "${name}" ${cut}; it could not be removed from the store: ${message}`);
    }
    if (served) await this.#inTurn(() => Promise.resolve(this.#cutOff.delete(identityOf(served))));
    if (cutFailed !== undefined) {
      throw new Refusal("relay", `peer "${name}" ${cut}; the store has removed it`);
    }
    return true;
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

  #inTurn<T>(act: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(act);
    this.#turn = result.catch(() => {});
    return result;
  }
}
