/**
 * Lets a test open sockets in another network namespace. Invariant: the thread is back in its own when `inNamespace` returns.
 * Makes no namespace: namespaces.ts does.
 */
import { assert, assertEquals } from "@std/assert";
import { cString, libc, O_CLOEXEC, openLibrary } from "../../ffi/mod.ts";

const LIBC = "/lib/x86_64-linux-gnu/libc.so.6";

/** Runs `act` with this thread in a network namespace; a socket stays in the one where it was opened. */
export function inNamespace<T>(name: string, act: () => T): T {
  const { setns } = openLibrary(LIBC, { setns: { parameters: ["i32", "i32"], result: "i32" } });
  const [there, here] = [`/run/netns/${name}`, "/proc/thread-self/ns/net"].map((path) => {
    const fd = libc().open(cString(path), O_CLOEXEC);
    assert(fd >= 0, path);
    return fd;
  });
  try {
    assertEquals(setns(there, 0), 0);
    return act();
  } finally {
    assertEquals(setns(here, 0), 0);
    for (const fd of [there, here]) libc().close(fd);
  }
}
