/**
 * Errors about files, as sentences with path and remedy instead of a stack. Invariant: only a refusal of the system becomes a
 * sentence; a defect of the program, and a refusal of Deno's permissions, stay as they are. Repairs nothing.
 */
import { CommandError } from "./help.ts";

/** Errors of the system (errno), and their meaning for the user. */
const MEANINGS: Record<string, string> = {
  EACCES: "this user may not; run it as the user that it belongs to, or change its owner",
  EDQUOT: "this user's share of the disk is used up; free some space",
  EEXIST: "something of that name is there already",
  EIO: "the disk failed",
  EISDIR: "it is a directory, and should be a file; move it away",
  EMFILE: "this process has no file descriptor left; raise ulimit -n",
  ENAMETOOLONG: "its name is too long",
  ENFILE: "the system has no file descriptor left",
  ENOENT: "it, or a directory on the way to it, is not there",
  ENOSPC: "the disk is full; free some space",
  ENOTDIR: "something on the way to it is no directory",
  EPERM: "this user may not; run it as the user that it belongs to, or change its owner",
  EROFS: "its file system is read-only; make it writable, or choose another place (state_dir, --out)",
};

/** The system's refusal as a CommandError about `path`; any other error unchanged. `what` is "read" or a similar participle. */
export function fileError(error: unknown, path: string, what: string): Error {
  if (!(error instanceof Error)) return new Error(String(error));
  const { code } = error as Error & { code?: string };
  if (error instanceof Deno.errors.NotCapable || error instanceof CommandError || code === undefined) {
    return error;
  }
  const meaning = MEANINGS[code] ?? error.message;
  return new CommandError(`${path}: cannot be ${what}: ${meaning} (${code})`, { cause: error });
}
