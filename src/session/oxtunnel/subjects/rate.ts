/**
 * The rate of the path that a session's bulk takes, found while transfers go there: each report goes to the `PathRate` (rate/path_rate.ts) that
 * the session has from its first transfer on, and then to the pool. Invariant: the session gives its `PathRate` back when the
 * path is idle, when another one is taken, and at the end. Over a stream, TCP finds the rate. Writes nothing, and holds no packet
 * back: queues do.
 */
import type { Report } from "../../../wire/report.ts";
import { isStreamAddress } from "../../../wire/stream.ts";
import type { SessionContext, Subject } from "./subject.ts";

/** Share of the rate of the path before that a path begins with when bulk moves to it. */
const BEFORE_SHARE = 0.5;

export class RateFinder implements Subject {
  /** When it is time to see whether the path is idle, or Infinity. */
  dueUs = Infinity;
  readonly #session: SessionContext & { readonly bulkPath: number };
  #nowUs = 0;
  /** The rate that was found last on another path of the session, bytes a second; 0 for none. */
  #before = 0;
  /** The network of the path whose rate was taken last, "" before: the path in use may be another one when the rate is given back. */
  #taken = "";

  constructor(session: SessionContext & { readonly bulkPath: number }) {
    this.#session = session;
  }

  /** Has the rate found from now on, if the pool has room for one more. */
  find(nowUs: number): void {
    const { peer, bulkPath, host, sessions: { rates } } = this.#session;
    if (rates === undefined || isStreamAddress(host.shared.paths.address, 4 * bulkPath)) return;
    if (this.#session.pathRate === undefined) {
      this.#taken = this.#network;
      const pathRate = this.#session.pathRate = rates.take(peer, nowUs, this.#taken);
      if (pathRate !== undefined && pathRate.startBytesPerS === 0) {
        pathRate.startBytesPerS = BEFORE_SHARE * this.#before;
      }
    }
    this.#nowUs = nowUs;
    this.#look();
  }

  hasWord(): boolean {
    return false;
  }

  write(): number {
    return 0;
  }

  handleTimeout(nowUs: number): void {
    this.#nowUs = nowUs;
    if (this.#session.pathRate?.isIdle(nowUs)) this.wipe();
    this.#look();
  }

  #look(): void {
    const { pathRate } = this.#session;
    this.dueUs = pathRate === undefined ? Infinity : pathRate.idleUs;
    this.#session.hasten(this.dueUs);
  }

  onReport(report: Report, nowUs: number): void {
    const { peer, pathRate, repair, sessions: { rates } } = this.#session;
    this.#nowUs = nowUs;
    if (pathRate === undefined || rates === undefined) return;
    pathRate.lossAhead = rates.isForesighted(peer) ? repair?.lossAhead ?? 0 : 0;
    pathRate.onReport(report, nowUs);
    rates.reported(peer, pathRate, nowUs);
  }

  /**
   * Bulk takes another path: its rate is found from below that of the one before, because a queue that is full at once looks like
   * the length of the path.
   */
  onMoved(): void {
    const before = this.#session.pathRate?.foundBytesPerS ?? 0;
    if (before > 0) this.#before = before;
    this.onNewPath();
  }

  onNewPath(): void {
    const { isInitiator, peer, sessions: { rates } } = this.#session;
    this.wipe();
    // A client's path is named by its relay's address, which says nothing of the network that the client is in.
    if (isInitiator) rates?.forgetNetworks(peer);
  }

  /** The other end's network, /24 or /48, by which its rate is known again. */
  get #network(): string {
    const { bulkPath, host } = this.#session, { address } = host.shared.paths, at = 4 * bulkPath;
    const isIpv4 = address[at] === 0 && address[at + 1] === 0 && address[at + 2] === 0xffff;
    return isIpv4 ? `${address[at + 3] >>> 8}` : `${address[at]}:${address[at + 1] >>> 16}`;
  }

  wipe(): void {
    const { peer, pathRate, sessions: { rates } } = this.#session;
    if (pathRate === undefined) return;
    rates!.give(peer, pathRate, this.#nowUs, this.#taken);
    this.#session.pathRate = undefined;
    this.dueUs = Infinity;
  }
}
