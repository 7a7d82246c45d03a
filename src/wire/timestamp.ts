/**
 * The timestamp of a handshake's initiation, TAI64N (whitepaper §5.1), which both protocols carry: a greater one is a
 * later one. Invariant: byte order is order in time. Reads no clock.
 */
export const TIMESTAMP_BYTES = 12;

/** TAI64N of a Unix time in microseconds: 12 bytes, big-endian, in the order of time (whitepaper §5.1). */
export function tai64n(unixUs: number): Uint8Array {
  const out = new Uint8Array(TIMESTAMP_BYTES);
  const view = new DataView(out.buffer);
  const seconds = Math.floor(unixUs / 1_000_000);
  // 2^62 + 10 s: the label's base and TAI's offset at the Unix epoch.
  view.setUint32(0, 0x40000000 + Math.floor((seconds + 10) / 4294967296));
  view.setUint32(4, (seconds + 10) >>> 0);
  view.setUint32(8, Math.floor(unixUs - seconds * 1_000_000) * 1000);
  return out;
}

/** Whether timestamp `a` is later than `b`, both 12 bytes; they are not secret. */
export function isLater(a: Uint8Array, b: Uint8Array): boolean {
  for (let i = 0; i < TIMESTAMP_BYTES; i++) {
    if (a[i] !== b[i]) return a[i] > b[i];
  }
  return false;
}
