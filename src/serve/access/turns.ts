/**
 * Actions that are carried out one after the other, whatever becomes of each. Invariant: an action begins when the one before has
 * ended, and its failure is its caller's alone.
 */
export class Turns {
  #last: Promise<unknown> = Promise.resolve();

  /** Runs `act` after all that was given before; settles as it does. */
  take<T>(act: () => Promise<T>): Promise<T> {
    const result = this.#last.then(act);
    this.#last = result.catch(() => {});
    return result;
  }
}
