/**
 * A TCP connection of this host broken off, so that its program sees a reset and does not take half a file for a whole one.
 * Deno has no call for that, and a lingering close would send a FIN before: connect(2) to no address resets at once
 * (AF_UNSPEC, see connect(2)). Where the C library cannot be had the connection is closed.
 */
import { libc } from "../../../ffi/mod.ts";

/** struct sockaddr with family AF_UNSPEC, 0. */
const NOWHERE = new Uint8Array(16);

/** Resets and closes. Safe to call twice. */
export function reset(connection: Deno.TcpConn): void {
  try {
    const descriptor = descriptorOf(connection);
    if (descriptor !== undefined) libc().connect(descriptor, NOWHERE, NOWHERE.length);
  } catch {
    // It ends with a FIN then.
  }
  try {
    connection.close();
  } catch {
    // It is closed already.
  }
}

/** The connection's descriptor, which Deno keeps under a symbol of its own; undefined when another has its number by now. */
function descriptorOf(connection: Deno.TcpConn): number | undefined {
  const symbol = Object.getOwnPropertySymbols(connection).find(({ description }) =>
    description === "Deno.internal.fd"
  );
  const value = symbol && (connection as unknown as Record<symbol, unknown>)[symbol];
  if (typeof value !== "number" || value < 3) return undefined;
  const name = new Uint8Array(28), length = Uint32Array.of(name.length);
  if (libc().getpeername(value, name, length) !== 0) return undefined;
  return (name[2] << 8 | name[3]) === connection.remoteAddr.port ? value : undefined;
}
