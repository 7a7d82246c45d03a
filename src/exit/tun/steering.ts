/**
 * Which queue of a TUN device an inner packet comes out of: the one of the Worker that owns the longest prefix around
 * its destination, by a program in the kernel (ffi/src/port/steer.rs). Invariant: the kernel's table holds the last argument
 * of `follow`, except prefixes that the kernel refused, which are logged. Where the kernel refuses the program, the device
 * spreads flows by itself, and Workers hand over the packets of others.
 */
import type { Native } from "../../../ffi/native.ts";
import { mappedBytes, parsePrefix } from "../../wire/address.ts";

const NOWHERE = 16;
const EPERM = 1;

export class TunSteering {
  readonly #native: Native;
  readonly #handle: number;
  readonly #log: (level: "warning", message: string) => void;
  #owners: ReadonlyMap<string, number> = new Map();

  /** Steers the device that `queue` belongs to; undefined, with a warning, where the kernel refuses the program. */
  static open(
    native: Native,
    queue: number,
    log: (level: "warning", message: string) => void,
  ): TunSteering | undefined {
    const handle = native.ox_steer_new();
    const result = handle < 0 ? handle : native.ox_steer_attach(handle, queue);
    if (result >= 0) return new TunSteering(native, handle, log);
    if (handle >= 0) native.ox_steer_release(handle);
    const why = result === -EPERM ? "it needs CAP_BPF" : `errno ${-result}`;
    log(
      "warning",
      `packets for clients are not steered to their Workers (${why}): expect some to be handed over`,
    );
    return undefined;
  }

  private constructor(native: Native, handle: number, log: (level: "warning", message: string) => void) {
    this.#native = native;
    this.#handle = handle;
    this.#log = log;
  }

  /** @param owners prefixes as text ("10.66.0.2/32") with their Workers, 0 to 15. Malformed prefixes are skipped. */
  follow(owners: ReadonlyMap<string, number>): void {
    for (const prefix of this.#owners.keys()) if (!owners.has(prefix)) this.#set(prefix, NOWHERE);
    const known = new Map<string, number>();
    for (const [prefix, worker] of owners) {
      if (this.#owners.get(prefix) === worker || this.#set(prefix, worker)) known.set(prefix, worker);
    }
    this.#owners = known;
  }

  close(): void {
    this.#native.ox_steer_release(this.#handle);
  }

  /** Whether the kernel accepted the change. */
  #set(text: string, worker: number): boolean {
    const prefix = parsePrefix(text);
    if (!prefix) return false;
    const result = this.#native.ox_steer_set(this.#handle, mappedBytes(prefix.address), prefix.bits, worker);
    if (result < 0) this.#log("warning", `packets for ${text} are not steered: errno ${-result}`);
    return result >= 0;
  }
}
