/**
 * Files that survive kill -9, a crash and a full disk: replaced whole under a lock or not at all. Invariant:
 * under its final name a file is always complete, and once `replaceFile` returns it is on the disk. Knows
 * nothing of what the files mean.
 */
import { dirname } from "node:path";

/** Makes the directory (mode 0700) when it is missing. */
export async function makeStateDirectory(directory: string): Promise<void> {
  await Deno.mkdir(directory, { recursive: true, mode: 0o700 });
}

/**
 * Runs `action` while holding the lock file exclusively, waiting for other processes (and other callers in
 * this one). The kernel drops the lock when its holder dies, however it dies.
 */
export async function withLock<T>(lockFile: string, action: () => Promise<T>): Promise<T> {
  using file = await Deno.open(lockFile, { write: true, create: true, mode: 0o600 });
  await file.lock(true);
  return await action();
}

/**
 * Replaces a file's text, mode 0600. The caller holds the lock that guards the file, so the temporary file's
 * name needs no randomness and one left by a crash is ours to remove. On any error the old file is whole.
 */
export async function replaceFile(path: string, text: string): Promise<void> {
  const temporary = `${path}.tmp`;
  await removeIfPresent(temporary);
  try {
    using file = await Deno.open(temporary, { write: true, createNew: true, mode: 0o600 });
    const bytes = new TextEncoder().encode(text);
    for (let written = 0; written < bytes.length;) written += await file.write(bytes.subarray(written));
    await file.sync();
    await Deno.rename(temporary, path);
  } catch (error) {
    await removeIfPresent(temporary);
    throw error;
  }
  // The rename itself is durable only once the directory is.
  using directory = await Deno.open(dirname(path), { read: true });
  await directory.sync();
}

/** A file's text, or undefined when there is none. */
export async function readIfPresent(path: string): Promise<string | undefined> {
  try {
    return await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

async function removeIfPresent(path: string): Promise<void> {
  try {
    await Deno.remove(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}
