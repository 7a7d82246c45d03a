/**
 * Files that survive kill -9, a crash and a full disk: replaced whole under a lock or not at all. Invariant:
 * under its final name a file is always complete, and once `replaceFile` returns the file is on the disk; files made by root
 * belong to the directory's owner, whose relay must read them; a refusal of the system becomes a sentence. Does not know
 * the files' contents.
 */
import { lchown } from "node:fs/promises";
import { dirname } from "node:path";
import { fileError } from "./file_errors.ts";

/** Makes the directory (mode 0700) when it is missing. Throws CommandError. */
export async function makeStateDirectory(directory: string): Promise<void> {
  await explained(directory, "made", () => Deno.mkdir(directory, { recursive: true, mode: 0o700 }));
}

/**
 * Runs `action` while holding the lock file exclusively, waiting for other processes (and other callers in
 * this one). The kernel drops the lock when its holder dies, however it dies. Throws CommandError, or what `action` does.
 */
export async function withLock<T>(lockFile: string, action: () => Promise<T>): Promise<T> {
  using file = await explained(lockFile, "opened", () => openOwn(lockFile));
  await explained(lockFile, "locked", async () => {
    await giveToOwner(lockFile);
    await file.lock(true);
  });
  return await action();
}

/**
 * Replaces a file's text, mode 0600. The caller holds the lock that guards the file, so the temporary file's
 * name needs no randomness and one left by a crash can be removed. On any error the old file is whole. Throws CommandError.
 */
export async function replaceFile(path: string, text: string): Promise<void> {
  await explained(path, "written, so it is as it was before", async () => {
    const temporary = `${path}.tmp`;
    await removeIfPresent(temporary);
    try {
      using file = await Deno.open(temporary, { write: true, createNew: true, mode: 0o600 });
      await fill(file, temporary, new TextEncoder().encode(text));
      await Deno.rename(temporary, path);
    } catch (error) {
      await removeIfPresent(temporary);
      throw error;
    }
    await syncDirectoryOf(path);
  });
}

/** A file's new name is durable only once its directory is. */
async function syncDirectoryOf(path: string): Promise<void> {
  await unlessUnreadable(async () => {
    using directory = await Deno.open(dirname(path), { read: true });
    await directory.sync();
  });
}

/** An installed command that writes a file to "/" may read nothing else there; such a file is its maker's, and its name soon durable. */
async function unlessUnreadable<T>(read: () => Promise<T>): Promise<T | undefined> {
  try {
    return await read();
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) return undefined;
    throw error;
  }
}

/** Gives a file another name in its directory. Throws CommandError. */
export async function moveFile(from: string, to: string): Promise<void> {
  await explained(from, `moved to ${to}`, () => Deno.rename(from, to));
}

/**
 * Makes a file, mode 0600, that must not exist yet; on any error it is not there. It gets its name by link(2), which refuses a name
 * that is taken, once it is whole: kill -9 leaves it whole or not there, with a temporary file beside it that the next call removes.
 * On a file system without links (FAT) it is written under its name. On the disk on return. Throws CommandError.
 */
export async function createFile(path: string, bytes: Uint8Array): Promise<void> {
  await explained(path, "made, and nothing is left of it", async () => {
    const temporary = `${path}.new.tmp`;
    using file = await openLocked(temporary);
    try {
      await fill(file, temporary, bytes);
      try {
        await Deno.link(temporary, path);
      } catch (error) {
        if (!NO_LINKS.includes((error as { code?: string }).code ?? "")) throw error;
        await writeNew(path, bytes);
      }
    } finally {
      // Before the lock is released, so that nobody else's is removed.
      await removeIfPresent(temporary);
    }
    await syncDirectoryOf(path);
  });
}

/** What link(2) says where the file system has no links, or the system allows none. */
const NO_LINKS = ["EPERM", "EOPNOTSUPP", "ENOTSUP", "ENOSYS", "EMLINK"];

async function writeNew(path: string, bytes: Uint8Array): Promise<void> {
  using file = await Deno.open(path, { write: true, createNew: true, mode: 0o600 });
  try {
    await fill(file, path, bytes);
  } catch (error) {
    await removeIfPresent(path);
    throw error;
  }
}

/**
 * Makes a temporary file and locks it. One that is there is removed once its lock can be had, as its maker has died then: what
 * another process still writes is neither removed nor mixed with this.
 */
async function openLocked(path: string): Promise<Deno.FsFile> {
  for (;;) {
    const { file, isNew } = await openOrMake(path);
    if (file === undefined) continue;
    try {
      await file.lock(true);
      const [held, named] = [await file.stat(), await Deno.lstat(path).catch(() => undefined)];
      const isNamed = named?.ino === held.ino && named?.dev === held.dev;
      if (isNew && isNamed) return file;
      if (isNamed) await removeIfPresent(path);
    } catch (error) {
      file.close();
      throw error;
    }
    file.close();
  }
}

/** The file is undefined when it was removed between the two attempts. What is no file, a link above all, is refused. */
async function openOrMake(path: string): Promise<{ file: Deno.FsFile | undefined; isNew: boolean }> {
  try {
    return { file: await Deno.open(path, { write: true, createNew: true, mode: 0o600 }), isNew: true };
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
    try {
      if (!(await Deno.lstat(path)).isFile) throw error;
      return { file: await Deno.open(path, { write: true }), isNew: false };
    } catch (second) {
      if (second instanceof Deno.errors.NotFound) return { file: undefined, isNew: false };
      throw second;
    }
  }
}

/** Gives a new file to its directory's owner and writes the bytes, which are on the disk on return. */
async function fill(file: Deno.FsFile, path: string, bytes: Uint8Array): Promise<void> {
  await giveToOwner(path);
  for (let written = 0; written < bytes.length;) written += await file.write(bytes.subarray(written));
  await file.sync();
}

/** A file's text, or undefined when there is none. Throws CommandError. */
export async function readIfPresent(path: string): Promise<string | undefined> {
  try {
    return await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw fileError(error, path, "read");
  }
}

/**
 * As root, gives a file to the owner of its directory. Changes a link itself and never its target, which would let the
 * directory's owner take over any file.
 */
async function giveToOwner(path: string): Promise<void> {
  const home = await unlessUnreadable(() => Deno.stat(dirname(path)));
  const made = await Deno.lstat(path);
  if (home === undefined || home.uid === null || (made.uid === home.uid && made.gid === home.gid)) return;
  try {
    await lchown(path, home.uid, home.gid!);
  } catch {
    // Not root: the file stays this user's; a later reader without access reports it.
  }
}

/**
 * Opens a file for writing, mode 0600 when it is made. Does not follow a link: the directory may belong to another
 * user, who could make root create any file by a link.
 */
async function openOwn(path: string): Promise<Deno.FsFile> {
  try {
    return await Deno.open(path, { write: true, createNew: true, mode: 0o600 });
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
    return await Deno.open(path, { write: true });
  }
}

async function explained<T>(path: string, what: string, act: () => Promise<T>): Promise<T> {
  try {
    return await act();
  } catch (error) {
    throw fileError(error, path, what);
  }
}

/** Removes a file, if there is one. Throws CommandError. */
export async function removeIfPresent(path: string): Promise<void> {
  try {
    await Deno.remove(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw fileError(error, path, "removed");
  }
}
