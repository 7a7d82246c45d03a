/**
 * The end of the process that started this one, where that is npm's shell (`npx oxrelay`): npm tells the shell to end, and the shell
 * dies without telling anybody. Invariant: only a parent that OXRELAY_PARENT names is watched, so that a program in the background
 * outlives its terminal as ever. Ends nothing itself.
 */
import { every } from "../io/every.ts";

const LOOK_MS = 250;

/** Calls `act` once, when the parent that OXRELAY_PARENT names has ended; returns what ends the watch. */
export function onParentGone(act: () => void): () => void {
  const parent = Number(Deno.env.get("OXRELAY_PARENT") ?? 0);
  if (!Number.isInteger(parent) || parent <= 0) return () => {};
  const end = every(LOOK_MS, () => {
    if (Deno.ppid === parent) return;
    end();
    act();
  }, () => {});
  return end;
}
