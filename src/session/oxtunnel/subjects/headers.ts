/**
 * Header contexts of a session (PROTOCOL §13, §14): what shortens packets, what rebuilds them, and the control frame by
 * which one end says which definitions have come. Invariant: an acknowledgment changes nothing but which of this end's own
 * definitions may be used; contexts go back to their budget when the session ends.
 */
import { type ContextBudget, Expander } from "../../../codec/headers/expander.ts";
import { Shrinker } from "../../../codec/headers/shrinker.ts";
import type { Burst } from "../../../vector/burst.ts";
import { CONTEXTS_FRAME_BYTES_MAX, CONTROL_CONTEXTS, writeContexts } from "../../../wire/control.ts";
import { FRAME_HEAD_BYTES } from "../../../wire/frame.ts";
import { FEATURE_HEADER_COMPRESSION } from "../../../wire/parameters.ts";
import type { SessionContext, Subject } from "./subject.ts";

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

  /** @param budget undefined where this end offers no short packets. */
  constructor(session: SessionContext, budget: ContextBudget | undefined) {
    this.#session = session;
    if (budget === undefined || (session.features & FEATURE_HEADER_COMPRESSION) === 0) return;
    const said = () => session.speak();
    this.headers = { shrinker: new Shrinker(session.host.bytes(1)[0]), expander: new Expander(budget, said) };
  }

  hasWord(): boolean {
    return this.headers !== undefined && this.headers.expander.acknowledgmentBytes > 0;
  }

  write({ view }: Burst, at: number, room: number): number {
    const { expander } = this.headers!;
    const most = Math.min(CONTEXTS_FRAME_BYTES_MAX, room - FRAME_HEAD_BYTES) - 1 & ~1;
    const bytes = Math.min(expander.acknowledgmentBytes, most);
    if (bytes < 2) return 0;
    const written = writeContexts(view, at, expander.acknowledgments, bytes);
    expander.acknowledged(bytes);
    return written;
  }

  handleTimeout(): void {}

  takes(kind: number): boolean {
    return kind === CONTROL_CONTEXTS;
  }

  onControl({ view }: Burst, _row: number, at: number, length: number): void {
    for (let i = at + 1; i + 1 < at + length; i += 2) {
      this.headers?.shrinker.acknowledged(view.getUint8(i), view.getUint8(i + 1));
    }
  }

  wipe(): void {
    this.headers?.expander.end();
  }
}
