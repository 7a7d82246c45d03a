// Hot path.
/**
 * The receiving half of short packets (PROTOCOL §13) for one session: the definitions that came, and the packets that are
 * rebuilt from them. Invariant: of each context's number the last two definitions are kept, and a short packet belongs to
 * the newest one that came in an earlier datagram; memory is bounded by the numbers and by a budget that all sessions
 * share. A definition without room is read as a packet, and not acknowledged.
 * Keeps PROTOCOL R107 and R108.
 */
import { ANCHOR_ENTRY } from "../../wire/contexts.ts";
import { KeptAnchors } from "./anchors.ts";
import { CONTEXTS_MAX, DEFINITION_BYTES, SHORT_NUMBERS } from "./shrinker.ts";
import { LINE_BYTES, PROFILE_RTP, Template } from "./template.ts";

const NO_ANCHOR = -1;

/** Contexts that the sessions of a Worker may have together. */
export class ContextBudget {
  left: number;

  constructor(readonly contexts: number) {
    this.left = contexts;
  }
}

/** One definition, from the datagram on that brought it first. */
class Definition {
  readonly template = new Template();
  /** Of RTP alone. */
  anchors: KeptAnchors | undefined;
  generation = -1;
  counter = 0;
}

class Context {
  current = new Definition();
  previous = new Definition();
}

export class Expander {
  readonly #contexts: (Context | undefined)[] = new Array(CONTEXTS_MAX);
  readonly #budget: ContextBudget;
  readonly #said: () => void;
  #taken = 0;
  /** Definitions to acknowledge: number and generation, in turn; and how many of the octets are in use. */
  readonly acknowledgments = new Uint8Array(2 * CONTEXTS_MAX);
  acknowledgmentBytes = 0;
  /** Whether there are anchors to acknowledge; and by context the generation and the last octet of the newest. */
  hasAnchors = false;
  readonly #anchorDue = new Int32Array(CONTEXTS_MAX).fill(NO_ANCHOR);
  /** Of the short packet that `find` has found: its template, where its fields are, and where its payload. */
  template!: Template;
  fieldsAt = 0;
  payloadAt = 0;

  /** @param said called when there is something to acknowledge. */
  constructor(budget: ContextBudget, said: () => void) {
    this.#budget = budget;
    this.#said = said;
  }

  /** The first `bytes` octets of the acknowledgments have been sent. */
  acknowledged(bytes: number): void {
    this.acknowledgments.copyWithin(0, bytes, this.acknowledgmentBytes);
    this.acknowledgmentBytes -= bytes;
  }

  /** Octets in front of the packet in the definition of `length` octets at `at`; 0 if there is no packet. */
  static definitionBytes(view: DataView, at: number, length: number): number {
    const isRtp = (view.getUint8(at) & 3) === PROFILE_RTP;
    const bytes = DEFINITION_BYTES + (isRtp ? LINE_BYTES : 0);
    return bytes < length ? bytes : 0;
  }

  /**
   * Takes the definition at `at`, whose packet of `packetBytes` octets at `packetAt` is a whole one; `counter` is its
   * datagram's.
   */
  define(view: DataView, at: number, packetAt: number, packetBytes: number, counter: number): void {
    const number = view.getUint8(at + 1), generation = view.getUint8(at + 2);
    if (number >= CONTEXTS_MAX) return;
    const context = this.#contexts[number] ?? this.#take(number);
    if (context === undefined) return;
    const { current } = context;
    if (current.generation === generation) {
      current.counter = Math.min(current.counter, counter);
      this.#acknowledge(number, generation);
      return;
    }
    // What comes late from the definition before last changes nothing.
    if (current.generation >= 0 && counter <= current.counter) return;
    const { previous } = context;
    previous.generation = -1;
    if (!previous.template.define(view, packetAt, packetBytes, view.getUint8(at) & 0x0f)) return;
    if (previous.template.profile === PROFILE_RTP) {
      previous.template.readLine(view, at + DEFINITION_BYTES);
      previous.anchors ??= new KeptAnchors();
      previous.anchors.reset(previous.template.lineNumber, counter);
      this.#anchorDue[number] = NO_ANCHOR;
    }
    previous.generation = generation;
    previous.counter = counter;
    context.previous = current;
    context.current = previous;
    this.#acknowledge(number, generation);
  }

  /** Finds what rebuilds the short packet of `length` octets at `at` in the datagram with `counter`; false if nothing does. */
  find(view: DataView, at: number, length: number, counter: number): boolean {
    let number = view.getUint8(at) & 0x0f, bytes = 1;
    if (number === SHORT_NUMBERS) {
      if (length < 2) return false;
      number += view.getUint8(at + 1);
      bytes = 2;
    }
    const context = number < CONTEXTS_MAX ? this.#contexts[number] : undefined;
    if (context === undefined) return false;
    const definition = context.current.counter < counter ? context.current : context.previous;
    if (definition.generation < 0 || definition.counter >= counter) return false;
    const { template } = definition;
    const fieldBytes = template.fieldBytes(view, at + bytes, length - bytes);
    if (fieldBytes < 0) return false;
    if (
      template.profile === PROFILE_RTP && !this.#isAnchored(view, at + bytes, definition, number, counter)
    ) {
      return false;
    }
    this.template = template;
    this.fieldsAt = at + bytes;
    this.payloadAt = at + bytes + fieldBytes;
    return true;
  }

  /** Whether RTP's number can be read; notes an anchor, and what is to be said of it. */
  #isAnchored(
    view: DataView,
    fieldsAt: number,
    { template, anchors, generation }: Definition,
    number: number,
    counter: number,
  ): boolean {
    if (template.isSeven(view, fieldsAt)) {
      template.anchor = anchors!.before(counter);
      return template.anchor >= 0;
    }
    const anchor = template.anchorIn(view, fieldsAt);
    if (anchor < 0) return true;
    anchors!.add(anchor, counter);
    this.#anchorDue[number] = generation << 8 | (anchor & 0xff);
    this.hasAnchors = true;
    return true;
  }

  /** Writes acknowledgments of anchors, three octets each, from `at` on, as many as `room` octets take; gives the octets. */
  writeAnchors(into: Uint8Array, at: number, room: number): number {
    let bytes = 0;
    this.hasAnchors = false;
    for (let number = 0; number < CONTEXTS_MAX; number++) {
      const due = this.#anchorDue[number];
      if (due === NO_ANCHOR) continue;
      if (bytes + 3 > room) {
        this.hasAnchors = true;
        break;
      }
      into[at + bytes] = ANCHOR_ENTRY | number;
      into[at + bytes + 1] = due >> 8;
      into[at + bytes + 2] = due & 0xff;
      bytes += 3;
      this.#anchorDue[number] = NO_ANCHOR;
    }
    return bytes;
  }

  /** Contexts that are defined. */
  get known(): number {
    return this.#taken;
  }

  /** Gives the session's contexts back. */
  end(): void {
    this.#budget.left += this.#taken;
    this.#taken = 0;
    this.#contexts.fill(undefined);
  }

  #take(number: number): Context | undefined {
    if (this.#budget.left === 0) return undefined;
    this.#budget.left--;
    this.#taken++;
    return this.#contexts[number] = new Context();
  }

  #acknowledge(number: number, generation: number): void {
    const { acknowledgments } = this;
    for (let i = 0; i < this.acknowledgmentBytes; i += 2) {
      if (acknowledgments[i] !== number) continue;
      acknowledgments[i + 1] = generation;
      return;
    }
    acknowledgments[this.acknowledgmentBytes++] = number;
    acknowledgments[this.acknowledgmentBytes++] = generation;
    this.#said();
  }
}
