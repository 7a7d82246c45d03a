/**
 * The receiving half of ROHC in one session (PROTOCOL §13): packets of codec/rohc to IP packets. Invariant: a packet is
 * decompressed by what packets in earlier datagrams said, whatever came since; contexts are 16 at most, of a budget that all
 * sessions share, and of fixed size, for lists of headers are not taken. What cannot be read is dropped, and the other
 * end is asked to begin anew, at most once in a few datagrams.
 * Keeps PROTOCOL R116 and R117.
 */
import { ByteWriter } from "../rohc/bytes.ts";
import { Decompressor } from "../rohc/decompressor.ts";
import { type FeedbackKind, writeFeedback } from "../rohc/feedback.ts";
import { MAX_SMALL_CID, writeFeedbackHeader } from "../rohc/framing.ts";
import { PROFILE } from "../rohc/headers.ts";
import { RESULT } from "../rohc/results.ts";
import type { ContextBudget } from "./expander.ts";
import { asRohc } from "./rohc_sender.ts";

/** Packets of a context by which a late one may be overtaken, and still be read. */
export const ROHC_DEPTH = 16;
/** What a context takes out of the budget: about as many bytes as that many contexts of short packets. */
export const ROHC_COST = 16;
const CONTEXTS = MAX_SMALL_CID + 1;
/** Datagrams until a context's next complaint. */
const PATIENCE = 8;
const OUTPUT_BYTES = 2048;
const MODE_OPTIMISTIC = 2;
const NOTHING = 0, NACK = 1, STATIC_NACK = 2, REJECT = 3;
const KINDS: readonly FeedbackKind[] = ["ack", "nack", "static-nack", "static-nack"];
/** Octets of one feedback, its head and an option included, at most. */
const FEEDBACK_BYTES_MAX = 9;

export class RohcReceiver {
  readonly #budget: ContextBudget;
  readonly #said: () => void;
  readonly #decompressor: Decompressor;
  /** By context: what is to be said of it, and the counter of the datagram that was complained of last. */
  readonly #complaints = new Uint8Array(CONTEXTS);
  readonly #complainedOf = new Float64Array(CONTEXTS).fill(-Infinity);
  readonly #writer = new ByteWriter();
  #taken = 0;
  /** The packet that `decompress` restored, and its length. */
  readonly output = new Uint8Array(OUTPUT_BYTES);
  readonly view = new DataView(this.output.buffer);
  length = 0;
  /** Whether there is something to say. */
  hasComplaints = false;

  /** @param said called when there is something to say. */
  constructor(budget: ContextBudget, said: () => void) {
    this.#budget = budget;
    this.#said = said;
    const mayKeep = () => {
      if (budget.left < ROHC_COST) return false;
      budget.left -= ROHC_COST;
      this.#taken += ROHC_COST;
      return true;
    };
    this.#decompressor = new Decompressor({ largeCids: false, depth: ROHC_DEPTH, lists: false, mayKeep });
  }

  /**
   * Restores the packet of `length` octets at `at`, from the datagram with `counter`, into `output`; false if it cannot be
   * read. Its first octet changes.
   */
  decompress(arena: Uint8Array, at: number, length: number, counter: number): boolean {
    const decompressor = this.#decompressor;
    const cid = arena[at] & 0x0f;
    arena[at] = asRohc(arena[at]);
    // Of context 0 the octet is padding, over which no checksum goes.
    const from = cid === 0 ? at + 1 : at;
    const result = decompressor.decompressAt(arena, from, at + length, this.output, counter);
    if (result === RESULT.PACKET) {
      this.length = decompressor.length;
      if (decompressor.wasRefused) this.#complain(cid, REJECT, counter);
      return true;
    }
    // A packet that others overtook by far is lost, and no sign that anything is wrong.
    if (counter <= decompressor.newestOf(cid)) return false;
    if (result === RESULT.NO_CONTEXT) this.#complain(cid, STATIC_NACK, counter);
    else if (result === RESULT.BAD_CRC || result === RESULT.STATIC_CONTEXT) {
      this.#complain(cid, NACK, counter);
    }
    return false;
  }

  /** Writes what is to be said as ROHC feedback into `into` from `at` on, `room` octets at most; gives the octets. */
  writeFeedback(into: Uint8Array, at: number, room: number): number {
    const writer = this.#writer.over(into, at);
    this.hasComplaints = false;
    for (let cid = 0; cid < CONTEXTS; cid++) {
      const complaint = this.#complaints[cid];
      if (complaint === NOTHING) continue;
      if (writer.position - at + FEEDBACK_BYTES_MAX > room) {
        this.hasComplaints = true;
        break;
      }
      this.#complaints[cid] = NOTHING;
      const feedback = writeFeedback(
        {
          cid,
          kind: KINDS[complaint],
          sequence: 0,
          isTcp: this.#decompressor.profileOf(cid) === PROFILE.TCP,
          isRejected: complaint === REJECT,
        },
        MODE_OPTIMISTIC,
        false,
      );
      writeFeedbackHeader(writer, feedback.length);
      writer.copy(feedback, 0, feedback.length);
    }
    return writer.position - at;
  }

  /** Gives the session's contexts back. */
  end(): void {
    this.#budget.left += this.#taken;
    this.#taken = 0;
  }

  #complain(cid: number, complaint: number, counter: number): void {
    if (counter < this.#complainedOf[cid] + PATIENCE) return;
    this.#complainedOf[cid] = counter;
    this.#complaints[cid] = Math.max(this.#complaints[cid], complaint);
    this.hasComplaints = true;
    this.#said();
  }
}
