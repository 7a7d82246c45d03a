/**
 * Which peers are kept out at this moment: the disabled, the expired, and those that have used up their volume. Stands between the
 * records (live_peers.ts) and the Workers (worker_pool.ts). Invariant: the Workers know the bars of all peers whenever they know the
 * peers, and a bar that begins or ends is told within BARS_MS of the moment, or at once where traffic brought it about; changes are told one
 * after the other, and one that failed again each second until it is carried out. Stores nothing.
 */
import type { AdmittedPeer, BarReason, PeerRecord, PeerTraffic } from "../../session/peer_record.ts";
import type { RefusedPeerForward } from "../forwards.ts";
import type { PeersReport } from "../messages.ts";
import { Turns } from "./turns.ts";
import type { TrafficLedger } from "./ledger.ts";

/** How often dates and volumes are looked at, milliseconds. */
export const BARS_MS = 250;
/** How long after a failure the Workers are told again, milliseconds. */
export const AGAIN_MS = 1000;

/** What has changed, and which forwards could not be opened. */
type Report = PeersReport & { refused?: RefusedPeerForward[] };

/** Where the peers are served. */
interface Pool {
  setPeers(peers: readonly AdmittedPeer[]): Promise<Report>;
}

export interface BarsOptions {
  readonly ledger: TrafficLedger;
  /** The wall clock, milliseconds since 1970. */
  readonly wallMs: () => number;
  /** A monotonic clock, milliseconds. */
  readonly nowMs?: () => number;
  /** Told of each bar that begins or ends of itself; undefined for none any more. */
  readonly onChange: (peer: PeerRecord, barred: BarReason | undefined) => void;
  /** Told when a change that came of itself could not be carried out, once until one is. */
  readonly onFault: (error: Error) => void;
}

/** Why the peer may not connect now; undefined when it may. `monthBytes` is its traffic of this month in both directions. */
export function barOf(
  { disabled, expires, monthlyBytes }: PeerRecord,
  monthBytes: number,
  wallMs: number,
): BarReason | undefined {
  if (disabled) return "disabled";
  if (expires !== undefined && Date.parse(expires) <= wallMs) return "expired";
  return monthlyBytes !== undefined && monthBytes >= monthlyBytes ? "volume" : undefined;
}

export class BarredPool {
  readonly #pool: Pool;
  readonly #o: BarsOptions;
  readonly #telling = new Turns();
  #records: readonly PeerRecord[];
  #bars = new Map<string, BarReason>();
  readonly #nowMs: () => number;
  /** When the Workers were last told in vain; undefined when they know all. */
  #failedAtMs: number | undefined;
  #isFaultTold = false;
  #isTellingAgain = false;

  /** @param records the peers that the pool is started with, as `admitted` gives them. */
  constructor(pool: Pool, records: readonly PeerRecord[], options: BarsOptions) {
    this.#pool = pool;
    this.#records = records;
    this.#o = options;
    this.#nowMs = options.nowMs ?? (() => performance.now());
    this.#bars = this.#judge();
  }

  /** The records of all peers that the Workers know. */
  get peers(): readonly PeerRecord[] {
    return this.#records;
  }

  /** The same with the bars of this moment. */
  get admitted(): AdmittedPeer[] {
    return this.#records.map((record) => {
      const barred = this.#bars.get(record.publicKey);
      return barred === undefined ? record : { ...record, barred };
    });
  }

  /** Those that may not connect, and why. */
  get keptOut(): { name: string; reason: BarReason }[] {
    return this.#records.flatMap(({ name, publicKey }) => {
      const reason = this.#bars.get(publicKey);
      return reason === undefined ? [] : [{ name, reason }];
    });
  }

  barOf(publicKey: string): BarReason | undefined {
    return this.#bars.get(publicKey);
  }

  /** Makes the Workers' peers equal to `records`, with their bars. Rejects as the pool does. */
  setPeers(records: readonly PeerRecord[]): Promise<Report> {
    return this.#telling.take(() => {
      this.#records = [...records];
      this.#bars = this.#judge();
      return this.#tell();
    });
  }

  /** Tells the Workers how things stand. Rejects as the pool does, and is then due again. */
  async #tell(): Promise<Report> {
    try {
      const report = await this.#pool.setPeers(this.admitted);
      this.#failedAtMs = undefined;
      this.#isFaultTold = false;
      return report;
    } catch (error) {
      this.#failedAtMs = this.#nowMs();
      throw error;
    }
  }

  get #isDueAgain(): boolean {
    return this.#failedAtMs !== undefined && this.#nowMs() - this.#failedAtMs >= AGAIN_MS;
  }

  /** Counts traffic, and bars at once whose volume it has used up. `nowMs` is the monotonic clock's. */
  addTraffic(traffic: PeerTraffic, nowMs: number): void {
    this.#o.ledger.add(traffic, nowMs);
    this.look();
  }

  /** Looks at dates and volumes, and tells the Workers what has changed, or what they could not be told before. */
  look(): void {
    this.#o.ledger.turnMonth(this.#o.wallMs());
    const isAgain = this.#isDueAgain && !this.#isTellingAgain;
    if (!isAgain && this.#changed(this.#judge()).length === 0) return;
    if (isAgain) this.#isTellingAgain = true;
    this.#telling.take(async () => {
      if (isAgain) this.#isTellingAgain = false;
      const bars = this.#judge();
      const changed = this.#changed(bars);
      if (changed.length === 0 && !this.#isDueAgain) return; // somebody has told it meanwhile
      this.#bars = bars;
      for (const peer of changed) this.#o.onChange(peer, bars.get(peer.publicKey));
      await this.#tell();
    }).catch((error: Error) => {
      if (!this.#isFaultTold) this.#o.onFault(error);
      this.#isFaultTold = true;
    });
  }

  #changed(bars: ReadonlyMap<string, BarReason>): PeerRecord[] {
    return this.#records.filter(({ publicKey }) => bars.get(publicKey) !== this.#bars.get(publicKey));
  }

  #judge(): Map<string, BarReason> {
    const wallMs = this.#o.wallMs();
    const bars = new Map<string, BarReason>();
    for (const record of this.#records) {
      // Most peers have no limit of any kind, and need no look at the ledger.
      if (!record.disabled && record.expires === undefined && record.monthlyBytes === undefined) continue;
      const { monthReceived, monthSent } = this.#o.ledger.of(record.publicKey);
      const barred = barOf(record, monthReceived + monthSent, wallMs);
      if (barred !== undefined) bars.set(record.publicKey, barred);
    }
    return bars;
  }
}
