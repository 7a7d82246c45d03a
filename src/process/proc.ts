/**
 * Reads processes and sockets from Linux's /proc, through the C library, because Deno opens no file there without all
 * permissions. Invariant: each read is bounded and uses the same few buffers; an entry that is gone, or belongs to another
 * user, reads as empty. Changes nothing.
 */
import { cString, libc, O_CLOEXEC } from "../../ffi/mod.ts";

const LINK_BYTES = 512;
const CHUNK_BYTES = 32_768;
/** Offsets in struct linux_dirent64 of an entry's length and its name. */
const ENTRY_LENGTH_AT = 16, ENTRY_NAME_AT = 19;
const SOCKET = "socket:[";
const NEWLINE = 10, ZERO = 48, NINE = 57;

const path = new Uint8Array(64);
const link = new Uint8Array(LINK_BYTES);
const chunk = new Uint8Array(CHUNK_BYTES);
const view = new DataView(chunk.buffer);
const encoder = new TextEncoder(), decoder = new TextDecoder();
const socketBytes = cString(SOCKET);

/** The path as a C string, in a buffer that the next call overwrites. */
function pathBytes(text: string): Uint8Array<ArrayBuffer> {
  const { written } = encoder.encodeInto(text, path);
  path[Math.min(written, path.length - 1)] = 0;
  return path;
}

/** The entries of a directory whose names are numbers, up to `max` of them, in no order. */
export function numbersIn(directory: string, max: number): number[] {
  const numbers: number[] = [];
  const fd = libc().open(pathBytes(directory), O_CLOEXEC);
  if (fd < 0) return numbers;
  for (;;) {
    const bytes = Number(libc().getdents64(fd, chunk, BigInt(CHUNK_BYTES)));
    for (let at = 0; at < bytes && numbers.length < max; at += view.getUint16(at + ENTRY_LENGTH_AT, true)) {
      const number = numberAt(chunk, at + ENTRY_NAME_AT, bytes);
      if (number >= 0) numbers.push(number);
    }
    if (bytes <= 0 || numbers.length >= max) break;
  }
  libc().close(fd);
  return numbers;
}

/** The first line of a file, without its end; undefined when it cannot be read. */
export function firstLine(file: string): string | undefined {
  const fd = libc().open(pathBytes(file), O_CLOEXEC);
  if (fd < 0) return undefined;
  const bytes = Number(libc().read(fd, chunk, BigInt(LINK_BYTES)));
  libc().close(fd);
  if (bytes < 0) return undefined;
  const end = chunk.indexOf(NEWLINE);
  return decoder.decode(chunk.subarray(0, end < 0 || end > bytes ? bytes : end));
}

/** The last part of a link's target path; undefined when the link cannot be read. */
export function linkedName(file: string): string | undefined {
  const bytes = Number(libc().readlink(pathBytes(file), link, BigInt(LINK_BYTES)));
  if (bytes < 0) return undefined;
  return decoder.decode(link.subarray(0, bytes)).replace(/ \(deleted\)$/, "").replace(/^.*\//, "");
}

/** The inode of the socket behind a descriptor of /proc/PID/fd; 0 for any other descriptor. */
export function socketInode(file: string): number {
  const bytes = Number(libc().readlink(pathBytes(file), link, BigInt(LINK_BYTES)));
  if (bytes <= SOCKET.length) return 0;
  for (let i = 0; i < SOCKET.length; i++) if (link[i] !== socketBytes[i]) return 0;
  return Math.max(0, numberAt(link, SOCKET.length, bytes));
}

/** Calls `each` for every whole line of a file except the first: in `bytes` from `start` to `end`. Reads up to `maxBytes`. */
export function eachLine(
  file: string,
  maxBytes: number,
  each: (bytes: Uint8Array, start: number, end: number) => void,
): void {
  const fd = libc().open(pathBytes(file), O_CLOEXEC);
  if (fd < 0) return;
  let isFirst = true, kept = 0;
  for (let total = 0; total < maxBytes;) {
    const room = chunk.subarray(kept);
    const got = Number(libc().read(fd, room, BigInt(room.length)));
    if (got <= 0) break;
    total += got;
    const bytes = kept + got;
    let start = 0;
    for (let end = chunk.indexOf(NEWLINE); end >= 0 && end < bytes; end = chunk.indexOf(NEWLINE, start)) {
      if (!isFirst) each(chunk, start, end);
      isFirst = false;
      start = end + 1;
    }
    chunk.copyWithin(0, start, bytes);
    kept = bytes - start;
    if (kept === CHUNK_BYTES) break; // no line is so long
  }
  libc().close(fd);
}

/** The number at `at`, which a non-digit before `end` must follow; -1 when there is none. */
export function numberAt(bytes: Uint8Array, at: number, end: number): number {
  let number = 0, i = at;
  for (; i < end && bytes[i] >= ZERO && bytes[i] <= NINE; i++) number = 10 * number + bytes[i] - ZERO;
  return i === at ? -1 : number;
}
