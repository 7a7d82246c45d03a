/**
 * What each protocol adds to an inner packet on the wire, in bytes: IPv4 and UDP, header and tag (PROTOCOL §12; WireGuard whitepaper
 * §5.4.6). Invariant: of a lone packet without padding; constants only.
 */
export const OXTUNNEL_BYTES = 28 + 9 + 16, WIREGUARD_BYTES = 28 + 16 + 16;
