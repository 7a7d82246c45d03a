/**
 * The base headers of the TCP profile (RFC 6846 8.3): rnd_1 to rnd_8 where the innermost identification follows no
 * rule, seq_1 to seq_8 where it counts, and co_common for everything. One table says which bits stand where; reading
 * gives the bits, which the decompressor decodes against its context.
 */
import type { ByteReader } from "../bytes.ts";

/** Fields of a base header. */
export const FIELD = {
  SEQUENCE: 0,
  SEQUENCE_SCALED: 1,
  ACKNOWLEDGMENT: 2,
  ACKNOWLEDGMENT_SCALED: 3,
  MSN: 4,
  PUSH: 5,
  CRC: 6,
  ID: 7,
  WINDOW: 8,
  RSF: 9,
  LIST: 10,
  TTL: 11,
  ECN_USED: 12,
} as const;
const FIELDS = 13;

/** One field: which, how many bits, and how far its interpretation interval reaches below the reference. */
export type Part = readonly [field: number, bits: number, shift: number];
export interface Format {
  /** The first octet's bits that name the format. */
  prefix: number;
  prefixBits: number;
  parts: readonly Part[];
}

const MSN: Part = [FIELD.MSN, 4, 4];
const PUSH: Part = [FIELD.PUSH, 1, 0];
const CRC3: Part = [FIELD.CRC, 3, 0];
const CRC7: Part = [FIELD.CRC, 7, 0];
const TAIL: readonly Part[] = [MSN, PUSH, CRC3];
const SCALED_SEQUENCE: Part = [FIELD.SEQUENCE_SCALED, 4, 7];
const SCALED_ACKNOWLEDGMENT: Part = [FIELD.ACKNOWLEDGMENT_SCALED, 4, 3];
const ACKNOWLEDGMENT_16: Part = [FIELD.ACKNOWLEDGMENT, 16, 16383];
const RSF: Part = [FIELD.RSF, 2, 0];
const LIST: Part = [FIELD.LIST, 1, 0];
const TTL: Part = [FIELD.TTL, 3, 3];
const ECN_USED: Part = [FIELD.ECN_USED, 1, 0];
const ID_4: Part = [FIELD.ID, 4, 3];
const ID_7: Part = [FIELD.ID, 7, 3];

export const RND: readonly Format[] = [
  { prefix: 0b101110, prefixBits: 6, parts: [[FIELD.SEQUENCE, 18, 65535], ...TAIL] },
  { prefix: 0b1100, prefixBits: 4, parts: [SCALED_SEQUENCE, ...TAIL] },
  { prefix: 0b0, prefixBits: 1, parts: [[FIELD.ACKNOWLEDGMENT, 15, 8191], ...TAIL] },
  { prefix: 0b1101, prefixBits: 4, parts: [SCALED_ACKNOWLEDGMENT, ...TAIL] },
  {
    prefix: 0b100,
    prefixBits: 3,
    parts: [PUSH, MSN, CRC3, [FIELD.SEQUENCE, 14, 8191], [FIELD.ACKNOWLEDGMENT, 15, 8191]],
  },
  { prefix: 0b1010, prefixBits: 4, parts: [CRC3, PUSH, ACKNOWLEDGMENT_16, MSN, SCALED_SEQUENCE] },
  {
    prefix: 0b101111,
    prefixBits: 6,
    parts: [[FIELD.ACKNOWLEDGMENT, 18, 65535], [FIELD.WINDOW, 16, 0], ...TAIL],
  },
  {
    prefix: 0b10110,
    prefixBits: 5,
    parts: [RSF, LIST, CRC7, MSN, PUSH, TTL, ECN_USED, [FIELD.SEQUENCE, 16, 65535], ACKNOWLEDGMENT_16],
  },
];

export const SEQ: readonly Format[] = [
  { prefix: 0b1010, prefixBits: 4, parts: [ID_4, [FIELD.SEQUENCE, 16, 32767], ...TAIL] },
  { prefix: 0b11010, prefixBits: 5, parts: [ID_7, SCALED_SEQUENCE, ...TAIL] },
  { prefix: 0b1001, prefixBits: 4, parts: [ID_4, ACKNOWLEDGMENT_16, ...TAIL] },
  { prefix: 0b0, prefixBits: 1, parts: [SCALED_ACKNOWLEDGMENT, [FIELD.ID, 3, 1], ...TAIL] },
  { prefix: 0b1000, prefixBits: 4, parts: [ID_4, ACKNOWLEDGMENT_16, [FIELD.SEQUENCE, 16, 32767], ...TAIL] },
  { prefix: 0b11011, prefixBits: 5, parts: [SCALED_SEQUENCE, ID_7, ACKNOWLEDGMENT_16, ...TAIL] },
  {
    prefix: 0b1100,
    prefixBits: 4,
    parts: [[FIELD.WINDOW, 15, 16383], [FIELD.ID, 5, 3], [FIELD.ACKNOWLEDGMENT, 16, 32767], ...TAIL],
  },
  {
    prefix: 0b1011,
    prefixBits: 4,
    parts: [
      ID_4,
      LIST,
      CRC7,
      MSN,
      PUSH,
      TTL,
      ECN_USED,
      [FIELD.ACKNOWLEDGMENT, 15, 8191],
      RSF,
      [FIELD.SEQUENCE, 14, 8191],
    ],
  },
];

/** The bits of one base header. */
export class BaseHeader {
  readonly value = new Uint32Array(FIELDS);
  readonly bits = new Uint8Array(FIELDS);
  readonly shift = new Uint32Array(FIELDS);

  clear(): void {
    this.bits.fill(0);
  }

  set(field: number, value: number, bits: number, shift: number): void {
    this.value[field] = value;
    this.bits[field] = bits;
    this.shift[field] = shift;
  }

  has(field: number): boolean {
    return this.bits[field] !== 0;
  }

  /** A flag of one bit; false if the format has none. */
  flag(field: number): boolean {
    return this.bits[field] !== 0 && this.value[field] !== 0;
  }
}

/** Reads an rnd or seq header whose first octet is `first`; false if no format fits. */
export function readBaseHeader(
  reader: ByteReader,
  first: number,
  isSequential: boolean,
  into: BaseHeader,
): boolean {
  into.clear();
  for (const format of isSequential ? SEQ : RND) {
    if (first >> (8 - format.prefixBits) !== format.prefix) continue;
    let octet = first;
    let left = 8 - format.prefixBits;
    for (const [field, bits, shift] of format.parts) {
      let value = 0;
      for (let missing = bits; missing > 0;) {
        if (left === 0) {
          octet = reader.u8();
          left = 8;
        }
        const taken = Math.min(missing, left);
        value = value * 2 ** taken + ((octet >> (left - taken)) & (2 ** taken - 1));
        left -= taken;
        missing -= taken;
      }
      into.set(field, value, bits, shift);
    }
    return !reader.failed;
  }
  return false;
}
