/**
 * Which peers are kept out at this moment: the disabled, the expired, and those that have used up their volume. Stands between the
 * records (live_peers.ts) and the Workers (worker_pool.ts). Invariant: the Workers know the bars of all peers whenever they know the
 * peers, and a bar that begins or ends is told within BARS_MS of the moment, or at once where traffic brought it about; changes are told one
 * after the other. Stores nothing.
 */
import type { AdmittedPeer, BarReason, PeerRecord, PeerTraffic } from "../../session/peer_record.ts";
import type { RefusedPeerForward } from "../forwards.ts";
import type { PeersReport } from "../messages.ts";
import { Turns } from "./turns.ts";
import type { TrafficLedger } from "./ledger.ts";

/** How often dates and volumes are looked at, milliseconds. */
export const BARS_MS = 250;

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
  /** Told of each bar that begins or ends of itself; undefined for none any more. */
  readonly onChange: (peer: PeerRecord, barred: BarReason | undefined) => void;
  /** Told when a change could not be carried out. */
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

  /** @param records the peers that the pool is started with, as `admitted` gives them. */
  constructor(pool: Pool, records: readonly PeerRecord[], options: BarsOptions) {
    this.#pool = pool;
    this.#records = records;
    this.#o = options;
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

  barOf(publicKey: string): BarReason | undefined {
    return this.#bars.get(publicKey);
  }

  /** Makes the Workers' peers equal to `records`, with their bars. Rejects as the pool does. */
  setPeers(records: readonly PeerRecord[]): Promise<Report> {
    return this.#telling.take(() => {
      this.#records = [...records];
      this.#bars = this.#judge();
      return this.#pool.setPeers(this.admitted);
    });
  }

  /** Counts traffic, and bars at once whose volume it has used up. `nowMs` is the monotonic clock's. */
  addTraffic(traffic: PeerTraffic, nowMs: number): void {
    this.#o.ledger.add(traffic, nowMs);
    this.look();
  }

  /** Looks at dates and volumes, and tells the Workers what has changed. */
  look(): void {
    this.#o.ledger.turnMonth(this.#o.wallMs());
    if (this.#changed(this.#judge()).length === 0) return;
    this.#telling.take(async () => {
      const bars = this.#judge();
      const changed = this.#changed(bars);
      if (changed.length === 0) return; // somebody has told it meanwhile
      this.#bars = bars;
      for (const peer of changed) this.#o.onChange(peer, bars.get(peer.publicKey));
      await this.#pool.setPeers(this.admitted);
    }).catch(this.#o.onFault);
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
