/**
 * Returns the memory of starting to the system: loading and compiling the program allocates and frees about 10 MB outside
 * V8's heap, which the C library keeps. Invariant: called while few packets are carried, because it takes a few
 * milliseconds. Frees nothing that is in use.
 */
import { libc } from "../../ffi/mod.ts";

/** The time after which the program has freed the memory of starting. */
const SETTLED_MS = 3000;

/** Returns that memory to the system after a delay (malloc_trim(3)); without glibc does nothing. */
export function giveBackMemorySoon(): void {
  Deno.unrefTimer(setTimeout(() => {
    try {
      libc().malloc_trim(0n);
    } catch {
      // Another C library, or no FFI: the memory stays allocated.
    }
  }, SETTLED_MS));
}
