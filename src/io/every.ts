/**
 * A timer that goes on. Invariant: what one turn throws or rejects with (no descriptor left, a device that is gone) is
 * told and ends that turn only, where an interval of the platform's would end the thread. Starts no turn while the last
 * one is under way.
 */

/** Runs `act` each `ms` milliseconds until the returned function is called; `onFault` gets what a turn failed with. */
export function every(
  ms: number,
  act: () => void | Promise<void>,
  onFault: (error: Error) => void,
): () => void {
  let isActing = false;
  const turn = async () => {
    if (isActing) return;
    isActing = true;
    try {
      await act();
    } catch (error) {
      onFault(error as Error);
    } finally {
      isActing = false;
    }
  };
  const timer = setInterval(turn, ms);
  return () => clearInterval(timer);
}
