/**
 * Header contexts of a session (PROTOCOL §13, §14): what shortens packets, what rebuilds them, and the control frame by
 * which one end says which definitions have come. Invariant: an acknowledgment changes nothing but which of this end's own
 * definitions may be used; contexts go back to their budget when the session ends.
 */
import { type ContextBudget, Expander } from "../../../codec/headers/expander.ts";
import { Shrinker } from "../../../codec/headers/shrinker.ts";
import { SLOT_BYTES } from "../../../vector/arena.ts";
import type { Burst } from "../../../vector/burst.ts";
import { ANCHOR_ENTRY } from "../../../wire/contexts.ts";
import { CONTEXTS_FRAME_BYTES_MAX, CONTROL_CONTEXTS, writeContexts } from "../../../wire/control.ts";
import { FRAME_HEAD_BYTES } from "../../../wire/frame.ts";
import { SHORT_HEADER_MAX_BYTES } from "../../../wire/oxtunnel.ts";
import { FEATURE_HEADER_COMPRESSION } from "../../../wire/parameters.ts";
import type { SessionContext, Subject } from "./subject.ts";

/** A frame with acknowledgments of anchors that travels in front of a packet: with four of them. */
const ANCHORS_BYTES_MAX = FRAME_HEAD_BYTES + 1 + 12;

/** The two halves of a session's short packets. */
export interface Headers {
  readonly shrinker: Shrinker;
  readonly expander: Expander;
}

export class HeaderContexts implements Subject {
  readonly dueUs = Infinity;
  /** Undefined where the ends have not agreed to short packets. */
  readonly headers: Headers | undefined;
  readonly #session: SessionContext;
  readonly #said = new Uint8Array(CONTEXTS_FRAME_BYTES_MAX - 1);

  /** @param budget undefined where this end offers no short packets. */
  constructor(session: SessionContext, budget: ContextBudget | undefined) {
    this.#session = session;
    if (budget === undefined || (session.features & FEATURE_HEADER_COMPRESSION) === 0) return;
    const said = () => session.speak();
    this.headers = { shrinker: new Shrinker(session.host.bytes(1)[0]), expander: new Expander(budget, said) };
  }

  hasWord(): boolean {
    if (this.headers === undefined) return false;
    const { expander } = this.headers;
    // Anchors wait for a report, in front of a packet or alone.
    return expander.acknowledgmentBytes > 0 || (expander.hasAnchors && this.#session.isReportDue);
  }

  write({ view }: Burst, at: number, room: number): number {
    const { expander } = this.headers!, said = this.#said;
    const most = Math.min(said.length, room - FRAME_HEAD_BYTES - 1);
    let bytes = Math.max(0, Math.min(expander.acknowledgmentBytes, most & ~1));
    for (let i = 0; i < bytes; i++) said[i] = expander.acknowledgments[i];
    expander.acknowledged(bytes);
    if (expander.hasAnchors) bytes += expander.writeAnchors(said, bytes, most - bytes);
    return bytes === 0 ? 0 : writeContexts(view, at, said, bytes);
  }

  /** Writes acknowledgments of anchors in front of the packet in `row`, where the datagram of `mtu` bytes has room. */
  prepend(burst: Burst, row: number, mtu: number): void {
    if (this.headers === undefined || !this.headers.expander.hasAnchors) return;
    const { offset, length, slot, view } = burst;
    const front = offset[row] - slot[row] * SLOT_BYTES - SHORT_HEADER_MAX_BYTES;
    const room = Math.min(front, mtu - length[row], ANCHORS_BYTES_MAX) - FRAME_HEAD_BYTES - 1;
    const bytes = this.headers.expander.writeAnchors(this.#said, 0, room);
    if (bytes === 0) return;
    offset[row] -= FRAME_HEAD_BYTES + 1 + bytes;
    length[row] += FRAME_HEAD_BYTES + 1 + bytes;
    writeContexts(view, offset[row], this.#said, bytes);
  }

  handleTimeout(): void {}

  takes(kind: number): boolean {
    return kind === CONTROL_CONTEXTS;
  }

  onControl({ view }: Burst, _row: number, at: number, length: number): void {
    const end = at + length;
    for (let i = at + 1; i < end;) {
      const number = view.getUint8(i), generation = view.getUint8(i + 1);
      if (number < ANCHOR_ENTRY) {
        this.headers?.shrinker.acknowledged(number, generation);
        i += 2;
      } else {
        this.headers?.shrinker.anchored(number & ~ANCHOR_ENTRY, generation, view.getUint8(i + 2));
        i += 3;
      }
    }
  }

  wipe(): void {
    this.headers?.expander.end();
  }
}
