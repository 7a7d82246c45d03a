/**
 * ROHC of a session (PROTOCOL §13, §14): what compresses packets, what restores them, and the control frame by which one
 * end asks the other to begin a context anew. Invariant: references advance by what the other end's reports say of
 * datagrams, so that acknowledgments cost no byte; feedback changes nothing but how much of a header this end's own packets
 * tell; contexts go back to their budget when the session ends.
 * Keeps PROTOCOL R117.
 */
import type { ContextBudget } from "../../../codec/headers/expander.ts";
import { RohcReceiver } from "../../../codec/headers/rohc_receiver.ts";
import { RohcSender } from "../../../codec/headers/rohc_sender.ts";
import type { Burst } from "../../../vector/burst.ts";
import { CONTROL_ROHC, ROHC_FRAME_BYTES_MAX, writeControl } from "../../../wire/control.ts";
import { FRAME_HEAD_BYTES } from "../../../wire/frame.ts";
import { FEATURE_HEADER_COMPRESSION, FEATURE_ROHC } from "../../../wire/parameters.ts";
import type { Report } from "../../../wire/report.ts";
import type { SessionContext, Subject } from "./subject.ts";

/** The two halves of a session's ROHC. */
export interface Rohc {
  readonly sender: RohcSender;
  readonly receiver: RohcReceiver;
}

export class RohcChannel implements Subject {
  readonly dueUs = Infinity;
  /** Undefined where the ends have not agreed to ROHC. */
  readonly rohc: Rohc | undefined;
  #report: Report | undefined;
  readonly #isReported = (counter: number) => this.#report!.has(counter);

  /** @param budget undefined where this end makes no headers small. */
  constructor(session: SessionContext, budget: ContextBudget | undefined) {
    const agreed = session.features & (FEATURE_ROHC | FEATURE_HEADER_COMPRESSION);
    if (budget === undefined || agreed !== FEATURE_ROHC) return;
    const said = () => session.speak();
    this.rohc = { sender: new RohcSender(), receiver: new RohcReceiver(budget, said) };
  }

  hasWord(): boolean {
    return this.rohc !== undefined && this.rohc.receiver.hasComplaints;
  }

  write({ bytes, view }: Burst, at: number, room: number): number {
    const most = Math.min(ROHC_FRAME_BYTES_MAX, room - FRAME_HEAD_BYTES) - 1;
    const from = at + FRAME_HEAD_BYTES + 1;
    const written = most <= 0 ? 0 : this.rohc!.receiver.writeFeedback(bytes, from, most);
    if (written === 0) return 0;
    writeControl(view, at, CONTROL_ROHC, 1 + written);
    return FRAME_HEAD_BYTES + 1 + written;
  }

  handleTimeout(): void {}

  takes(kind: number): boolean {
    return kind === CONTROL_ROHC;
  }

  onControl({ bytes }: Burst, _row: number, at: number, length: number, nowUs: number): void {
    this.rohc?.sender.takeFeedback(bytes, at + 1, length - 1, nowUs);
  }

  onReport(report: Report, nowUs: number): void {
    if (this.rohc === undefined) return;
    this.#report = report;
    this.rohc.sender.reported(this.#isReported, nowUs);
  }

  wipe(): void {
    this.rohc?.receiver.end();
  }
}
