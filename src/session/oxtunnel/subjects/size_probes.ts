/**
 * Probes for the size of a session's path, and the replies to the other end's probes (PROTOCOL §17): sends the probes that
 * control/path_size.ts decides on, and gives it the replies, reports and pongs that arrive. Invariant: a probe is alone in
 * its datagram and comes last; a reply names the size that arrived, whatever the frame says. Decides no size.
 * Keeps PROTOCOL R83.
 */
import type { PathSize } from "../../../control/path_size.ts";
import type { Burst } from "../../../vector/burst.ts";
import { CONTROL_PROBE, CONTROL_PROBE_REPLY, readSize, writeShort } from "../../../wire/control.ts";
import { FRAME_HEAD_BYTES } from "../../../wire/frame.ts";
import { counterBytes, OX_TAG_BYTES, SHORT_HEADER_MIN_BYTES } from "../../../wire/oxtunnel.ts";
import type { Report } from "../../../wire/report.ts";
import { isStreamAddress } from "../../../wire/stream.ts";
import type { SessionContext, Subject } from "./subject.ts";

/** How long the reply to a probe may take: in round trips, at least, and while no round trip is known, microseconds. */
const PROBE_ROUND_TRIPS = 3, PROBE_US_MIN = 200_000, PROBE_US_FIRST = 1_000_000;
const REPLY_BYTES = FRAME_HEAD_BYTES + 3;

/** Answers the other end's probes. */
export class SizeReplies implements Subject {
  readonly dueUs = Infinity;
  readonly #session: SessionContext;
  /** The size of the probe that arrived last and waits for its reply, bytes of UDP payload; 0 when none does. */
  #arrived = 0;

  constructor(session: SessionContext) {
    this.#session = session;
  }

  hasWord(): boolean {
    return this.#arrived !== 0;
  }

  write({ view }: Burst, at: number, room: number): number {
    if (room < REPLY_BYTES) return 0;
    const bytes = this.#arrived;
    this.#arrived = 0;
    return writeShort(view, at, CONTROL_PROBE_REPLY, bytes);
  }

  handleTimeout(): void {}

  takes(kind: number): boolean {
    return kind === CONTROL_PROBE;
  }

  onControl({ headerBytes, length }: Burst, row: number): void {
    // What arrived is what counts, whatever the frame says.
    this.#arrived = headerBytes[row] + length[row] + OX_TAG_BYTES;
    this.#session.speak();
  }
}

/** Sends this end's probes. */
export class SizeProbes implements Subject {
  /**
   * When a probe is lost for its size, no other frame shall be lost with the probe. Probes come last: a shorter datagram
   * behind one would be of one message with the probe, which UDP_SEGMENT lets a router take or drop as a whole.
   */
  readonly isAlone = true;
  readonly #session: SessionContext;
  readonly #size: PathSize;
  #isNarrow = false;

  constructor(session: SessionContext, size: PathSize) {
    this.#session = session;
    this.#size = size;
  }

  get dueUs(): number {
    return this.#size.dueUs;
  }

  hasWord(): boolean {
    return this.#size.isDue;
  }

  /** Writes a probe, padded so that its datagram has the size that is probed, whatever `room` is. */
  write({ view, bytes }: Burst, start: number, _room: number, nowUs: number): number {
    const { path, host } = this.#session, size = this.#size;
    const { table, paths, metrics } = host.shared;
    const counter = counterBytes(table.sendCounter[path], paths.acknowledged[path]);
    const end = start + size.probed - OX_TAG_BYTES - (SHORT_HEADER_MIN_BYTES - 1 + counter);
    const at = start + writeShort(view, start, CONTROL_PROBE, size.probed);
    bytes.fill(0, at, end);
    size.onSent(table.sendCounter[path], nowUs, this.#replyUs());
    this.#session.hasten(size.dueUs);
    metrics.add("size_probes_sent", 1);
    return end - start;
  }

  handleTimeout(nowUs: number): void {
    this.#size.handleTimeout(nowUs);
    this.sizeChanged();
  }

  takes(kind: number): boolean {
    return kind === CONTROL_PROBE_REPLY;
  }

  onControl({ view }: Burst, _row: number, at: number, _length: number, nowUs: number): void {
    this.#size.onReply(readSize(view, at), nowUs);
    this.sizeChanged();
  }

  onNewPath(): void {
    const { path, host } = this.#session;
    this.#size.begin(isStreamAddress(host.shared.paths.address, 4 * path));
    this.sizeChanged();
  }

  onAnswer(sentUs: number): void {
    this.#size.onAnswer(sentUs);
    this.sizeChanged();
  }

  onReport({ highest, bitmap, bitmapBytes }: Report, nowUs: number): void {
    this.#size.onReport(highest, bitmap, bitmapBytes, nowUs);
    this.sizeChanged();
  }

  onClose(): void {
    this.#size.halt();
    this.sizeChanged();
  }

  /** Tells the columns what the path's size is now, and has a probe sent that is due. */
  sizeChanged(): void {
    const { path, peer, host } = this.#session, size = this.#size;
    const { paths } = host.shared;
    if (size.isNarrow && !this.#isNarrow) host.noteNarrow(peer);
    this.#isNarrow = size.isNarrow;
    paths.datagramBytes[path] = size.bytes;
    paths.searchAtUs[path] = size.searchAtUs;
    if (!size.isDue) return;
    if (size.isRepeat) this.#session.ping(); // what is small shows whether the size is the reason
    this.#session.speak();
  }

  #replyUs(): number {
    const { roundTripUs } = this.#session;
    return roundTripUs < 0 ? PROBE_US_FIRST : Math.max(PROBE_US_MIN, PROBE_ROUND_TRIPS * roundTripUs);
  }
}
