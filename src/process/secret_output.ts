/**
 * Standard output as a place for secrets: `peer add > laptop.conf` makes a file that the shell opens to everybody. Invariant: a
 * regular file is closed to other users before a secret is written to it, or a sentence says that it is not. Writes nothing to it.
 */
import { fchmodSync, fstatSync } from "node:fs";

const STDOUT = 1;
const OTHERS = 0o077, OWN = 0o600;

/** Closes standard output to other users where it is a file that they may read; returns what a person should know. */
export function closeStandardOutput(): string | undefined {
  try {
    const stat = fstatSync(STDOUT);
    if (!stat.isFile() || (stat.mode & OTHERS) === 0) return undefined;
    fchmodSync(STDOUT, OWN);
    return "The file holds a secret, so its mode is 0600 now: only you may read it.";
  } catch (error) {
    return `Other users may be able to read the file, which holds a secret: ${(error as Error).message}`;
  }
}
