// Hot path.
/**
 * The ECN field of inner packets (RFC 3168): marks congestion in packets of ECN-capable ends. Invariant: only the field and,
 * with IPv4, the header's checksum change; a wrong checksum stays wrong. Does not decide when to mark.
 */
const NOT_ECT = 0, CE = 3, ECN_MASK = 3;

/**
 * Sets CE in the IPv4 or IPv6 packet at `at`, whose whole IP header must be present. False for a packet whose ends are not
 * ECN-capable; the caller drops such a packet instead (RFC 3168 §5).
 */
export function markCe(view: DataView, at: number): boolean {
  if (view.getUint8(at) >> 4 === 6) {
    // The traffic class lies across the first two bytes.
    const word = view.getUint16(at), ecn = word >> 4 & ECN_MASK;
    if (ecn === NOT_ECT) return false;
    view.setUint16(at, word | CE << 4);
    return true;
  }
  const tos = view.getUint8(at + 1), ecn = tos & ECN_MASK;
  if (ecn === NOT_ECT) return false;
  if (ecn === CE) return true;
  view.setUint8(at + 1, tos | CE);
  // RFC 1624: the word rises by the difference, so the checksum, its complement, falls by as much.
  const sum = (~view.getUint16(at + 10) & 0xffff) + (CE - ecn);
  view.setUint16(at + 10, ~((sum & 0xffff) + (sum >>> 16)) & 0xffff);
  return true;
}
