/**
 * The only door to native code: it opens libraries, each with one table of functions. Here is the C library's, for the
 * TUN device and ping sockets, which Deno has no call for; the table of our own is in native.ts. Invariant: every
 * pointer that crosses is to memory that the caller keeps alive for the call. Buffers cross, never raw pointers:
 * those, and errno, would need the permission to load any library.
 */

/** `open` flags and others of Linux on x86-64 and arm64 (asm-generic). */
export const O_WRONLY = 1, O_RDWR = 2, O_NONBLOCK = 0o4000, O_CLOEXEC = 0o2000000;
export const POLLIN = 1, POLLERR = 8, POLLHUP = 16, POLLNVAL = 32;

const LIBRARIES: Record<string, string> = {
  x86_64: "/lib/x86_64-linux-gnu/libc.so.6",
  aarch64: "/lib/aarch64-linux-gnu/libc.so.6",
};

const SYMBOLS = {
  open: { parameters: ["buffer", "i32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  ioctl: { parameters: ["i32", "u64", "buffer"], result: "i32" },
  read: { parameters: ["i32", "buffer", "usize"], result: "isize" },
  write: { parameters: ["i32", "buffer", "usize"], result: "isize" },
  readlink: { parameters: ["buffer", "buffer", "usize"], result: "isize" },
  getdents64: { parameters: ["i32", "buffer", "usize"], result: "isize" },
  ftruncate: { parameters: ["i32", "i64"], result: "i32" },
  poll: { parameters: ["buffer", "u64", "i32"], result: "i32", nonblocking: true },
  /** The same, but the calling thread waits: for a Worker that has nothing else to do. */
  pollBlocking: { name: "poll", parameters: ["buffer", "u64", "i32"], result: "i32" },
  /** The same to the nanosecond, by a timespec; the signal mask is null. */
  ppollBlocking: { name: "ppoll", parameters: ["buffer", "u64", "buffer", "buffer"], result: "i32" },
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  epoll_create1: { parameters: ["i32"], result: "i32" },
  epoll_ctl: { parameters: ["i32", "i32", "i32", "buffer"], result: "i32" },
  eventfd: { parameters: ["u32", "i32"], result: "i32" },
  malloc_trim: { parameters: ["usize"], result: "i32" },
  getrlimit: { parameters: ["i32", "buffer"], result: "i32" },
  clock_gettime: { parameters: ["i32", "buffer"], result: "i32" },
  sched_setscheduler: { parameters: ["i32", "i32", "buffer"], result: "i32" },
  sched_setaffinity: { parameters: ["i32", "usize", "buffer"], result: "i32" },
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
  getpeername: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  kill: { parameters: ["i32", "i32"], result: "i32" },
  connect: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  sendto: { parameters: ["i32", "buffer", "usize", "i32", "buffer", "u32"], result: "isize" },
  recvfrom: { parameters: ["i32", "buffer", "usize", "i32", "buffer", "buffer"], result: "isize" },
} as const satisfies Deno.ForeignLibraryInterface;

type Libc = Deno.DynamicLibrary<typeof SYMBOLS>["symbols"];

let loaded: Libc | undefined;

/** The C library's functions. Throws a sentence when this system has none that is known, or FFI is not allowed. */
export function libc(): Libc {
  if (loaded) return loaded;
  const path = Deno.build.os === "linux" ? LIBRARIES[Deno.build.arch] : undefined;
  if (path === undefined) {
    throw new Error(`${Deno.build.os} on ${Deno.build.arch} has no native path here; glibc on Linux does`);
  }
  try {
    loaded = openLibrary(path, SYMBOLS);
  } catch (error) {
    throw new Error(
      `${path} cannot be loaded (glibc is needed, musl will not do): ${(error as Error).message}`,
    );
  }
  return loaded;
}

/** Opens a library by its path. Throws what Deno.dlopen throws. */
export function openLibrary<Symbols extends Deno.ForeignLibraryInterface>(
  path: string,
  symbols: Symbols,
): Deno.DynamicLibrary<Symbols>["symbols"] {
  return Deno.dlopen(path, symbols).symbols;
}

/** A path or name as a C string. */
export function cString(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(`${text}\0`);
}
