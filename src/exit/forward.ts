/**
 * A port of the relay's host that leads to one inner address, as an exit has it, and why one cannot be had. Opens nothing.
 */

/** One port of one family: what comes to `outer` goes to the inner address and port. */
export interface PortForward {
  protocol: "udp" | "tcp";
  outer: number;
  /** The inner address as text; its family is the port's. */
  address: string;
  port: number;
}

/** A forward that cannot be had, and why: the rest of a sentence that begins with the port. */
export interface RefusedForward<F extends PortForward = PortForward> {
  forward: F;
  reason: string;
}

/** What tells a host's port from all others. */
export const placeOf = ({ protocol, outer, address }: PortForward) => `${protocol} ${isV6(address)} ${outer}`;
export const isV6 = (address: string) => address.includes(":");

export const EADDRINUSE = 98;

/** Why a port cannot be bound, by its errno. */
export function bindReason(errno: number): string {
  if (errno === EADDRINUSE) {
    return "is in use by a program of the relay's host or by a connection through it (ss -lntup shows by which)";
  }
  if (errno === 13) return "may not be bound by this user: choose one from 1024 on";
  return `cannot be bound: errno ${errno}`;
}
