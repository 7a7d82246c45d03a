/**
 * Reports about a path (PROTOCOL §14): which of the other end's datagrams arrived, sent alone or in front of a packet that
 * leaves; and what the other end reports, which the other subjects hear of. Invariant: a report repeats the last counters
 * of the report before, in case that one was lost, and grows no larger than its room. Does not decide when a report
 * is due: session/oxtunnel/sessions.ts does.
 */
import { HEADROOM, SLOT_BYTES, TAILROOM } from "../../../vector/arena.ts";
import type { Burst } from "../../../vector/burst.ts";
import { CONTROL_REPORT, REPORT_BITMAP_MAX_BYTES, REPORT_MAX_BYTES } from "../../../wire/control.ts";
import { FRAME_HEAD_BYTES } from "../../../wire/frame.ts";
import { SHORT_HEADER_MAX_BYTES } from "../../../wire/oxtunnel.ts";
import type { SessionContext, Subject } from "./subject.ts";

/** Counters of the report before that a report repeats, in case that one was lost. */
const OVERLAP = 32;
/** A report's frame without bitmap and sections but for ECN's. */
const FIXED_BYTES = FRAME_HEAD_BYTES + 15 + 12;
const PLAIN_BYTES_MAX = FIXED_BYTES + REPORT_BITMAP_MAX_BYTES;
const FRAME_BYTES_MAX = FRAME_HEAD_BYTES + REPORT_MAX_BYTES;

export class Reports implements Subject {
  readonly dueUs = Infinity;
  /** Datagrams that the other end has accepted of those up to `acknowledged`, modulo 2^32, as its last report says. */
  reportedReceived = 0;
  readonly #session: SessionContext;
  /** The highest counter of this end's last report; -1 before the first. */
  #reportedHighest = -1;

  constructor(session: SessionContext) {
    this.#session = session;
  }

  hasWord(): boolean {
    return this.#session.isReportDue;
  }

  write({ view }: Burst, at: number, room: number, nowUs: number): number {
    if (room < PLAIN_BYTES_MAX) return 0;
    this.#fill(PLAIN_BYTES_MAX, Math.min(FRAME_BYTES_MAX, room), nowUs);
    return this.#session.sessions.report.write(view, at);
  }

  /** Writes a report in front of the packet in `row` where the datagram, of `mtu` bytes of plaintext, has room for it. */
  prepend(burst: Burst, row: number, mtu: number, nowUs: number): void {
    const { offset, length, slot, bytes: arena } = burst;
    // A batch has taken some of the headroom.
    const room = offset[row] - slot[row] * SLOT_BYTES - SHORT_HEADER_MAX_BYTES;
    const budget = Math.min(HEADROOM - SHORT_HEADER_MAX_BYTES, room, mtu - length[row]);
    if (budget < FIXED_BYTES + 1) return;
    const behind = (slot[row] + 1) * SLOT_BYTES - TAILROOM - offset[row] - length[row];
    this.#fill(budget, Math.min(mtu - length[row], room + behind), nowUs);
    const { report } = this.#session.sessions, { frameBytes } = report;
    if (frameBytes > room) {
      // Sections of a session that repairs need more than the headroom: the rest moves back.
      arena.copyWithin(offset[row] + frameBytes - room, offset[row], offset[row] + length[row]);
      offset[row] += frameBytes - room;
    }
    offset[row] -= frameBytes;
    length[row] += frameBytes;
    report.write(burst.view, offset[row]);
  }

  handleTimeout(): void {}

  takes(kind: number): boolean {
    return kind === CONTROL_REPORT;
  }

  onControl({ view }: Burst, _row: number, at: number, _length: number, nowUs: number): void {
    const { path, sessions, host } = this.#session, { report } = sessions;
    report.read(view, at);
    if (report.highest >= host.shared.paths.acknowledged[path]) this.reportedReceived = report.received;
    sessions.acknowledge(path, report.highest);
    this.#session.reported(report, nowUs);
  }

  /** @param bytesMax what the frame may take without sections of its own, and @param sectionsMax with them. */
  #fill(bytesMax: number, sectionsMax: number, nowUs: number): void {
    const { sessions, path, host } = this.#session, { report } = sessions;
    const { table: { replay }, paths: { ecn } } = host.shared;
    const highest = replay.highest[path];
    report.highest = highest;
    report.delayUs = nowUs - sessions.arrivedUs[path];
    report.received = replay.accepted(path) >>> 0;
    const heard = Math.min(highest, highest - this.#reportedHighest + OVERLAP);
    const counters = Math.min(heard, 8 * REPORT_BITMAP_MAX_BYTES); // before the shift: a peer may jump by 2^31
    report.bitmapBytes = Math.min(REPORT_BITMAP_MAX_BYTES, bytesMax - FIXED_BYTES, (counters + 7) >> 3);
    replay.bitmap(path, report.bitmap, report.bitmapBytes);
    const marks = 4 * path;
    report.ect1 = ecn[marks + 1];
    report.ect0 = ecn[marks + 2];
    report.congestionExperienced = ecn[marks + 3];
    report.hasEcn = (report.ect0 | report.ect1 | report.congestionExperienced) !== 0;
    report.hasQuality = report.hasClock = false;
    report.arrivalCount = 0;
    this.#session.repair?.fillReport(report, sectionsMax - report.frameBytes, this.#reportedHighest, nowUs);
    this.#reportedHighest = highest;
    this.#session.isReportDue = false;
    sessions.reported(path, nowUs);
  }
}
