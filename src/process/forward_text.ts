/**
 * Port forwards as text, "udp:27015" or "tcp:8000-8010:9000": what strangers may open to a peer, by which ports of the relay's
 * host. Invariant: one forward has one normal text, ports are 1 to 65535, and a peer's forwards name no outer port twice. Knows
 * no peer and opens nothing.
 */

/** A range of ports of the relay's host (outer), and the peer's port for the first of them. */
export interface Forward {
  protocol: "udp" | "tcp";
  low: number;
  high: number;
  /** The peer's port for `low`; the others follow one by one. */
  inner: number;
}

/** Ports that all forwards of one peer may have together, and those of all peers. */
export const PEER_PORTS_MAX = 256, ALL_PORTS_MAX = 4096;
/** What a forward looks like, for messages. */
export const FORWARD_FORM = '"udp:27015", "tcp:8000-8010" or, with other ports at the peer, "udp:27015:3074"';
const FORM = /^(udp|tcp):(\d{1,5})(?:-(\d{1,5}))?(?::(\d{1,5}))?$/;
const PORT_MAX = 65535;

/** Reads a forward; undefined when it is none, or has a port outside 1 to 65535 or a range that runs backwards. */
export function parseForward(text: string): Forward | undefined {
  const found = FORM.exec(text);
  if (found === null) return undefined;
  const low = Number(found[2]), high = Number(found[3] ?? found[2]), inner = Number(found[4] ?? found[2]);
  if (low < 1 || inner < 1 || high < low || high > PORT_MAX || inner + high - low > PORT_MAX) {
    return undefined;
  }
  return { protocol: found[1] as Forward["protocol"], low, high, inner };
}

/** The normal text of a forward. */
export function formatForward({ protocol, low, high, inner }: Forward): string {
  return `${protocol}:${low}${high === low ? "" : `-${high}`}${inner === low ? "" : `:${inner}`}`;
}

/** Whether two forwards have an outer port in common. */
export function forwardsMeet(one: Forward, other: Forward): boolean {
  return one.protocol === other.protocol && one.low <= other.high && other.low <= one.high;
}

/** Whether two forwards of one peer lead to a port of the peer's in common, which has one port outside (RFC 4787 REQ-1). */
export function forwardsMeetInside(one: Forward, other: Forward): boolean {
  const last = ({ low, high, inner }: Forward) => inner + high - low;
  return one.protocol === other.protocol && one.inner <= last(other) && other.inner <= last(one);
}

/** How many ports the forwards have together. */
export function countPorts(forwards: readonly Forward[]): number {
  return forwards.reduce((sum, { low, high }) => sum + high - low + 1, 0);
}

/**
 * Which two peers have a forward of the same outer port, or that there are too many ports in all, as a sentence; undefined when
 * neither is so. The texts must have been checked.
 */
export function forwardsInConflict(
  peers: readonly { name: string; forwards?: readonly string[] }[],
): string | undefined {
  const seen: { name: string; text: string; forward: Forward }[] = [];
  for (const { name, forwards } of peers) {
    for (const text of forwards ?? []) {
      const forward = parseForward(text)!;
      const other = seen.find((one) => forwardsMeet(one.forward, forward));
      if (other !== undefined) {
        return `${text} of peer "${name}" meets ${other.text} of peer "${other.name}"`;
      }
      seen.push({ name, text, forward });
    }
  }
  const ports = countPorts(seen.map(({ forward }) => forward));
  return ports > ALL_PORTS_MAX
    ? `all forwards have ${ports} ports together; ${ALL_PORTS_MAX} are the limit`
    : undefined;
}
