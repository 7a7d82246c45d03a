/**
 * Which of a name's addresses a connection is made to (RFC 8305, "happy eyeballs"): IPv6 and IPv4 in turn, another one
 * a quarter of a second after the last or as soon as one has failed, and the first that answers is taken. Invariant: at
 * most ten addresses are tried, and every attempt but the taken one is given up. Knows nothing of what connects.
 */

/** RFC 8305 §5, Connection Attempt Delay. */
const ATTEMPT_DELAY_MS = 250;
/** RFC 8305 §3, Resolution Delay: so long IPv4 waits for the name's answer about IPv6. */
const RESOLUTION_DELAY_MS = 50;
const TRIED_MAX = 10;

/** Gives `found` a name's addresses as they become known, and resolves once there are no more. Throws when there is none. */
export type Addresses = (found: (addresses: readonly string[]) => void) => Promise<void>;

interface Closable {
  close(): void;
}

/** A connection to the first address that takes one. Throws what the last attempt failed with, or what `addresses` threw. */
export function connectFirst<Connection extends Closable>(
  addresses: Addresses,
  attempt: (address: string, signal: AbortSignal) => Promise<Connection>,
): Promise<Connection> {
  return new Race(attempt).run(addresses);
}

class Race<Connection extends Closable> {
  readonly #attempt: (address: string, signal: AbortSignal) => Promise<Connection>;
  readonly #outcome = Promise.withResolvers<Connection>();
  readonly #losers = new Map<string, AbortController>();
  readonly #ipv6: string[] = [];
  readonly #ipv4: string[] = [];
  #isIpv6Next = true;
  #tried = 0;
  #isResolved = false;
  #isOver = false;
  /** Nothing is begun while this runs. */
  #timer: ReturnType<typeof setTimeout> | undefined;
  #failure: unknown = new Error("the name has no address");

  constructor(attempt: (address: string, signal: AbortSignal) => Promise<Connection>) {
    this.#attempt = attempt;
  }

  run(addresses: Addresses): Promise<Connection> {
    addresses((found) => this.#add(found)).then(
      () => this.#resolved(),
      (error) => {
        if (this.#tried === 0 && this.#ipv4.length + this.#ipv6.length === 0) this.#failure = error;
        this.#resolved();
      },
    );
    return this.#outcome.promise;
  }

  #add(found: readonly string[]): void {
    for (const address of found) (address.includes(":") ? this.#ipv6 : this.#ipv4).push(address);
    if (this.#tried > 0 || this.#ipv6.length > 0) this.#next();
    else this.#hold(RESOLUTION_DELAY_MS);
  }

  #resolved(): void {
    this.#isResolved = true;
    if (this.#tried === 0) this.#release();
    this.#next();
  }

  /** Begins what may begin now, and ends the race when nothing is left that could win it. */
  #next(): void {
    if (this.#isOver) return;
    const isMore = this.#tried < TRIED_MAX && this.#ipv4.length + this.#ipv6.length > 0;
    if (!isMore) {
      if (this.#isResolved && this.#losers.size === 0) this.#end(() => this.#outcome.reject(this.#failure));
      return;
    }
    if (this.#timer !== undefined && this.#losers.size > 0) return;
    const [first, second] = this.#isIpv6Next ? [this.#ipv6, this.#ipv4] : [this.#ipv4, this.#ipv6];
    this.#isIpv6Next = !this.#isIpv6Next;
    this.#begin((first.shift() ?? second.shift())!);
  }

  #begin(address: string): void {
    this.#tried++;
    const controller = new AbortController();
    const place = `${this.#tried} ${address}`;
    this.#losers.set(place, controller);
    this.#hold(ATTEMPT_DELAY_MS);
    this.#attempt(address, controller.signal).then((connection) => {
      this.#losers.delete(place);
      if (this.#isOver) connection.close(); // made before it heard that another one had been
      else this.#end(() => this.#outcome.resolve(connection));
    }, (error) => {
      this.#losers.delete(place);
      this.#failure = error;
      this.#release();
      this.#next();
    });
  }

  #hold(ms: number): void {
    this.#release();
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#next();
    }, ms);
  }

  #release(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #end(settle: () => void): void {
    this.#isOver = true;
    this.#release();
    settle();
    for (const loser of this.#losers.values()) loser.abort();
  }
}
