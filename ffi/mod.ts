/**
 * The only door to native code: one table of C functions, loaded once. For now that is the C library, for the
 * TUN device and ping sockets, which Deno has no call for. Invariant: every pointer that crosses is to memory
 * that the caller keeps alive for the call. Holds no logic of its own.
 */

/** `open` flags and others of Linux on x86-64 and arm64 (asm-generic). */
export const O_RDONLY = 0, O_WRONLY = 1, O_RDWR = 2, O_NONBLOCK = 0o4000, O_CLOEXEC = 0o2000000;
export const POLLIN = 1, POLLERR = 8, POLLHUP = 16, POLLNVAL = 32;
export const EPERM = 1, EINTR = 4, EAGAIN = 11, EACCES = 13;

const LIBRARIES: Record<string, string> = {
  x86_64: "/lib/x86_64-linux-gnu/libc.so.6",
  aarch64: "/lib/aarch64-linux-gnu/libc.so.6",
};

const SYMBOLS = {
  open: { parameters: ["buffer", "i32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  ioctl: { parameters: ["i32", "u64", "buffer"], result: "i32" },
  // Offsets into the arena travel as pointers made once; lengths as usize, given as BigInt constants (8 ns).
  read: { parameters: ["i32", "pointer", "usize"], result: "isize" },
  write: { parameters: ["i32", "buffer", "usize"], result: "isize" },
  writeAt: { name: "write", parameters: ["i32", "pointer", "usize"], result: "isize" },
  poll: { parameters: ["buffer", "u64", "i32"], result: "i32", nonblocking: true },
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  sendto: { parameters: ["i32", "buffer", "usize", "i32", "buffer", "u32"], result: "isize" },
  recvfrom: { parameters: ["i32", "buffer", "usize", "i32", "buffer", "buffer"], result: "isize" },
  errnoLocation: { name: "__errno_location", parameters: [], result: "pointer" },
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
    loaded = Deno.dlopen(path, SYMBOLS).symbols;
  } catch (error) {
    throw new Error(
      `${path} cannot be loaded (glibc is needed, musl will not do): ${(error as Error).message}`,
    );
  }
  return loaded;
}

/** The calling thread's errno after a call that returned -1. */
export function errno(): number {
  const at = libc().errnoLocation();
  return at === null ? 0 : new Deno.UnsafePointerView(at).getInt32();
}

/** A path or name as a C string. */
export function cString(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(`${text}\0`);
}
