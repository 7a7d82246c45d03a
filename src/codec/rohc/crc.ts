/**
 * The three checksums of ROHC (RFC 5795 5.3.1.1, RFC 3095 5.9): bits enter least significant first, the register
 * begins with ones. Each call takes a register and gives the next, so that a header may be fed in parts. Tables are
 * constants; nothing is kept between calls.
 */

/** Registers before the first byte. */
export const CRC3_START = 0x7;
export const CRC7_START = 0x7f;
export const CRC8_START = 0xff;

/** x^3 + x + 1, x^7 + x^6 + x^3 + x^2 + x + 1 and x^8 + x^2 + x + 1, with the bits reversed. */
const TABLE_3 = table(0x6);
const TABLE_7 = table(0x79);
const TABLE_8 = table(0xe0);

function table(polynomial: number): Uint8Array {
  const rows = new Uint8Array(256);
  for (let byte = 0; byte < 256; byte++) {
    let register = byte;
    for (let bit = 0; bit < 8; bit++) register = register & 1 ? (register >> 1) ^ polynomial : register >> 1;
    rows[byte] = register;
  }
  return rows;
}

/** The register after `bytes[from, to)` under the 3-bit checksum. */
export function crc3(bytes: Uint8Array, from: number, to: number, register: number): number {
  for (let i = from; i < to; i++) register = TABLE_3[bytes[i] ^ register];
  return register;
}

/** The register after `bytes[from, to)` under the 7-bit checksum. */
export function crc7(bytes: Uint8Array, from: number, to: number, register: number): number {
  for (let i = from; i < to; i++) register = TABLE_7[bytes[i] ^ register];
  return register;
}

/** The register after `bytes[from, to)` under the 8-bit checksum. */
export function crc8(bytes: Uint8Array, from: number, to: number, register: number): number {
  for (let i = from; i < to; i++) register = TABLE_8[bytes[i] ^ register];
  return register;
}
