/**
 * Ports on which programs of this host listen, from /proc, read through the C library: Deno opens no file there without
 * all permissions. Invariant: each read is bounded. Does not learn of ports that are opened later.
 */
import { cString, libc, O_CLOEXEC } from "../../../ffi/mod.ts";
import type { PortForward } from "../forward.ts";

export const READ_MAX = 65536;
/** The state of a listening socket (proc(5)): TCP_LISTEN, and for UDP that of an unconnected socket. */
const STATES = { tcp: "0A", udp: "07" };

/** Ports of sockets in this network namespace that listen, of both families, each once. */
export function listeningPorts(protocol: keyof typeof STATES): number[] {
  const lines = ["", "6"].flatMap((family) =>
    readThrough(`/proc/net/${protocol}${family}`)?.split("\n") ?? []
  );
  const pattern = new RegExp(`^ *\\d+: [0-9A-F]+:([0-9A-F]{4}) [0-9A-F]+:0000 ${STATES[protocol]} `);
  return [...new Set(lines.flatMap((line) => pattern.exec(line)?.[1] ?? []))].map((port) =>
    parseInt(port, 16)
  );
}

/** Tells of forwards whether a program of this host listens at their port now. */
export function listeners(): (forward: Pick<PortForward, "protocol" | "outer">) => boolean {
  const taken = { udp: new Set(listeningPorts("udp")), tcp: new Set(listeningPorts("tcp")) };
  return ({ protocol, outer }) => taken[protocol].has(outer);
}

/** The first 64 KiB of a file, read in parts because /proc gives parts; undefined when the file cannot be read. */
export function readThrough(path: string): string | undefined {
  const fd = libc().open(cString(path), O_CLOEXEC);
  if (fd < 0) return undefined;
  const buffer = new Uint8Array(READ_MAX);
  let length = 0, count = 1;
  while (count > 0 && length < buffer.length) {
    const rest = buffer.subarray(length);
    count = Number(libc().read(fd, rest, BigInt(rest.length)));
    if (count > 0) length += count;
  }
  libc().close(fd);
  return count < 0 ? undefined : new TextDecoder().decode(buffer.subarray(0, length));
}
