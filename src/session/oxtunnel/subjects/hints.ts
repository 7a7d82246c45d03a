/**
 * Hints of a session (PROTOCOL §14, hint): this end's own are told to the other end when the session opens, when they
 * change, and again before they end there; the other end's are kept in session/oxtunnel/hints.ts. Invariant: hints are told
 * in the order of their changes, and at most 128 wait. Classifies nothing.
 */
import { CLASS_DEFAULT } from "../../../control/traffic_class.ts";
import type { Burst } from "../../../vector/burst.ts";
import { CONTROL_HINT, Hint } from "../../../wire/control.ts";
import { FRAME_HEAD_BYTES } from "../../../wire/frame.ts";
import type { HintedFlows } from "../hints.ts";
import { type Reliable, ReliableSubject } from "./reliable.ts";
import type { SessionContext } from "./subject.ts";

/** How long a hint holds at the other end, seconds, and after how long it is told again, microseconds. */
const LIFE_S = 65_535, AGAIN_US = 21_600_000_000;
/** Hints that wait to be told: all of this end's own, and as many taken back. */
const WAITING_MAX = 128;
/** With IPv6 addresses. */
const FRAME_BYTES_MAX = FRAME_HEAD_BYTES + 11 + 32;

export class HintExchange extends ReliableSubject {
  /** Hints to be told, oldest first; without a class they are taken back. */
  readonly #waiting: (HintedFlows & { trafficClass?: number })[] = [];
  #againUs = Infinity;

  constructor(session: SessionContext, reliable: Reliable) {
    super(session, reliable, CONTROL_HINT, FRAME_BYTES_MAX);
  }

  /** Tells the other end of a hint, or, without a class (CLASS_*), takes it back. Nothing when too many wait. */
  tell(flows: HintedFlows, trafficClass: number | undefined): void {
    if (this.#waiting.length === WAITING_MAX) return;
    this.#waiting.push({ ...flows, trafficClass });
    this.reliable.start();
  }

  onOpened(nowUs: number): void {
    if (this.session.isInitiator) this.#tellOwn(nowUs);
  }

  /** The hints are told again when that is due. */
  onEpoch(nowUs: number): void {
    if (nowUs >= this.#againUs) this.#tellOwn(nowUs);
  }

  get isWaiting(): boolean {
    return this.#waiting.length > 0;
  }

  protected writeFrame(view: DataView, at: number, sequence: number): number {
    const [{ protocol, clientPort, remotePort, client, remote, trafficClass }] = this.#waiting;
    const hint = new Hint();
    hint.sequence = sequence;
    hint.trafficClass = trafficClass ?? CLASS_DEFAULT;
    hint.protocol = protocol;
    hint.lifetimeS = trafficClass === undefined ? 0 : LIFE_S;
    hint.clientPort = clientPort;
    hint.remotePort = remotePort;
    hint.client.set(client);
    hint.remote.set(remote);
    return hint.write(view, at);
  }

  onAcknowledged(): void {
    this.#waiting.shift();
  }

  onControl({ view }: Burst, _row: number, at: number, length: number, nowUs: number): void {
    const hint = new Hint();
    hint.read(view, at, length);
    this.session.sessions.hints.take(this.session.row, hint, nowUs);
  }

  wipe(): void {
    this.#waiting.length = 0;
  }

  #tellOwn(nowUs: number): void {
    for (const own of this.session.sessions.hints.own) this.tell(own, own.trafficClass);
    this.#againUs = nowUs + AGAIN_US;
  }
}
