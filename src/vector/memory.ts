/**
 * Memory for tables that packets access at scattered lines. With pages of 4 KB nearly every access would miss the TLB; so a
 * registered adviser sees each table before it is written, and may ask the system for larger pages. Invariant: the memory is
 * all zeros, and is committed only where it was written, rounded to a large page. Makes no system call itself.
 */

type Adviser = (memory: Uint32Array<ArrayBuffer>) => void;

let advise: Adviser = () => {};

/** Calls `adviser` with the memory of each later table of this thread. The adviser must not write to the memory. */
export function adviseTables(adviser: Adviser): void {
  advise = adviser;
}

/** A zeroed table of `words` u32 words. */
export function tableWords(words: number): Uint32Array<ArrayBuffer> {
  const memory = new Uint32Array(words);
  advise(memory);
  return memory;
}
