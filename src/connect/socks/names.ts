/**
 * Names that programs hand to the proxy, looked up once for all who ask at the same time and remembered for a while,
 * failures too (RFC 2308 §7), so that a name which nobody answers for costs its askers nothing but their own patience.
 * Invariant: names that are known and lookups under way are bounded. Asks nobody itself.
 */
import { parseAddress } from "../../wire/address.ts";

/**
 * Gives `found` a name's addresses, a family at a time as it answers; resolves once all have. Throws when no resolver
 * answers.
 */
export type Lookup = (name: string, found: (addresses: readonly string[]) => void) => Promise<void>;

const KNOWN_MS = 60_000;
const FAILED_MS = 5_000;
const KNOWN_MAX = 1024;
const LOOKUPS_MAX = 128;

interface Name {
  addresses: string[];
  askers: ((addresses: readonly string[]) => void)[];
  /** Resolves or rejects when the lookup ends. */
  whole: Promise<void>;
  /** When it is forgotten, performance.now(); Infinity while it is looked up. */
  untilMs: number;
}

export class Names {
  readonly #lookup: Lookup;
  readonly #nowMs: () => number;
  /** In the order of their first question. */
  readonly #names = new Map<string, Name>();
  #lookups = 0;

  constructor(lookup: Lookup, nowMs: () => number = () => performance.now()) {
    this.#lookup = lookup;
    this.#nowMs = nowMs;
  }

  /** Gives `found` what is known of a name at once, and the rest as it comes. Throws as `Lookup` does; an address is its own. */
  async addresses(name: string, found: (addresses: readonly string[]) => void): Promise<void> {
    if (parseAddress(name) !== undefined) return found([name]);
    const known = this.#known(name) ?? this.#ask(name);
    if (known.addresses.length > 0) found([...known.addresses]);
    if (known.untilMs === Infinity) known.askers.push(found);
    await known.whole;
  }

  #known(name: string): Name | undefined {
    const known = this.#names.get(name.toLowerCase());
    return known !== undefined && known.untilMs > this.#nowMs() ? known : undefined;
  }

  #ask(name: string): Name {
    if (this.#lookups >= LOOKUPS_MAX) throw new Error("too many names are being looked up");
    this.#makeRoom();
    const asked: Name = { addresses: [], askers: [], whole: Promise.resolve(), untilMs: Infinity };
    this.#lookups++;
    asked.whole = this.#lookup(name, (addresses) => {
      asked.addresses.push(...addresses);
      for (const asker of asked.askers) asker(addresses);
    }).finally(() => {
      this.#lookups--;
      asked.askers = [];
      asked.untilMs = this.#nowMs() + (asked.addresses.length > 0 ? KNOWN_MS : FAILED_MS);
    });
    asked.whole.catch(() => {}); // whoever asked hears of it
    this.#names.delete(name.toLowerCase());
    this.#names.set(name.toLowerCase(), asked);
    return asked;
  }

  #makeRoom(): void {
    if (this.#names.size < KNOWN_MAX) return;
    for (const [name, { untilMs }] of this.#names) {
      if (untilMs === Infinity) continue;
      this.#names.delete(name);
      return;
    }
  }
}
