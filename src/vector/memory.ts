/**
 * Memory for tables that packets reach into all over, a line here and a line there: in pages of 4 KB nearly every reach
 * would first wait for the page's address, so that whoever can ask the system for larger pages sees this memory before it
 * is written. Invariant: it is all zeros, and is committed only where it was written, give or take a large page. Knows
 * no system.
 */

type Adviser = (memory: Uint32Array<ArrayBuffer>) => void;

let advise: Adviser = () => {};

/** Shows `adviser` each table's memory that is made from here on, in this thread. It must not write there. */
export function adviseTables(adviser: Adviser): void {
  advise = adviser;
}

/** So many zeros. */
export function tableWords(words: number): Uint32Array<ArrayBuffer> {
  const memory = new Uint32Array(words);
  advise(memory);
  return memory;
}
