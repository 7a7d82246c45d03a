/**
 * Memory that starting left behind: loading and compiling the program takes and frees some 10 MB outside V8's heap, which the
 * C library keeps. Invariant: called when nothing is being carried yet or rarely is; it takes a few milliseconds. Frees
 * nothing that is in use.
 */
import { libc } from "../../ffi/mod.ts";

/** How long after it works the program has freed what it started with. */
const SETTLED_MS = 3000;

/** Gives it back to the system once starting has settled (malloc_trim(3)); without glibc it does nothing. */
export function giveBackMemorySoon(): void {
  Deno.unrefTimer(setTimeout(() => {
    try {
      libc().malloc_trim(0n);
    } catch {
      // Another C library, or no FFI: the memory stays, as everything else does.
    }
  }, SETTLED_MS));
}
