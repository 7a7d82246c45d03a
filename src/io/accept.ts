/**
 * Accepting connections for as long as a listener is open. Invariant: nothing but the listener's own end ends the loop:
 * a process, or a machine, without descriptors or memory for another connection (EMFILE, ENFILE, ENOBUFS, ENOMEM) and a
 * connection that is gone before it is taken cost a pause, after which it is tried again. Bounds no connections: that is
 * up to who takes them.
 */

/** What the system says (errno) when it lacks descriptors or memory for now; 24, 23, 105 and 12. */
const SHORTAGES = ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"];

/** Whether something failed for want of descriptors or memory, so that the same may succeed later. */
export function isShortage(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const { code } = error as Error & { code?: string };
  return SHORTAGES.includes(code ?? "") || /\(os error (24|23|105|12)\)/.test(error.message);
}

/** How long a listener rests after an error, which a connection's end may have mended by then. */
const PAUSE_MS = 100;

/** What is needed of a listener: Deno.Listener, Deno.TlsListener and tests' own. */
export interface Acceptor<Connection> {
  accept(): Promise<Connection>;
}

/**
 * Gives `take` each connection until the listener is closed; resolves then and never rejects. `take` starts what serves
 * the connection and returns, or a promise for which the next one waits; what it throws goes to `onFault`, as does each error of accepting, ten a second at most.
 */
export async function acceptAll<Connection>(
  listener: Acceptor<Connection>,
  take: (connection: Connection) => void | Promise<void>,
  onFault: (error: Error) => void,
): Promise<void> {
  while (true) {
    try {
      await take(await listener.accept());
    } catch (error) {
      if (error instanceof Deno.errors.BadResource || error instanceof Deno.errors.Interrupted) return;
      onFault(error as Error);
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }
}
