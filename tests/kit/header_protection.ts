/**
 * Header protection of OxTunnel's datagrams as a sender applies it (PROTOCOL §12), for tests of the side that takes it off:
 * kernels protect a burst's headers natively or in codec/datagram_portable.ts. Makes no masks.
 */

const COUNTER_AT = 5, COUNTER_LENGTH_MASK = 3, PROTECTED_FLAGS = 0x3f;

/** Covers flags and counter of the header at `at` with the five mask bytes at mask[maskAt]. */
export function protectHeader(view: DataView, at: number, mask: Uint8Array, maskAt: number): void {
  const flags = view.getUint8(at);
  for (let i = 0; i <= (flags & COUNTER_LENGTH_MASK); i++) {
    const here = at + COUNTER_AT + i;
    view.setUint8(here, view.getUint8(here) ^ mask[maskAt + 1 + i]);
  }
  view.setUint8(at, flags ^ (mask[maskAt] & PROTECTED_FLAGS));
}
