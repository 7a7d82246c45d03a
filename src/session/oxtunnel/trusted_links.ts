/**
 * The networks that the operator trusts with secrecy, though not with integrity (PROTOCOL §18): where AEAD 3 may be
 * offered, chosen and used. Invariant: empty unless the operator listed them. Says nothing about inner addresses.
 * Keeps PROTOCOL R77.
 */
import { NONE } from "../../vector/arena.ts";
import { parsePrefix } from "../../wire/address.ts";
import { PrefixTable } from "../../vector/prefix_table.ts";

export class TrustedLinks {
  readonly #networks = new PrefixTable();

  /** @param prefixes outer networks as "address/bits"; throws when one is none. */
  constructor(prefixes: readonly string[]) {
    for (const text of prefixes) {
      const prefix = parsePrefix(text);
      if (!prefix) throw new Error(`trusted: "${text}" is not an IP prefix`);
      this.#networks.set(prefix.address, prefix.bits, 1);
    }
  }

  /** Whether the outer address, four words at `at`, is in one of them. */
  has(words: Uint32Array, at: number): boolean {
    return this.#networks.lookup(words, at) !== NONE;
  }
}
