// Hot path.
/**
 * Byte patterns compiled into columns, and the search for the first one that matches a payload. Invariant: nothing beyond the
 * payload's length or its first 64 bytes is read, a search allocates nothing, and compiled patterns do not change. The patterns
 * are data: applications.ts has the project's own, rule_text.ts reads a configuration's.
 */

/** Bytes of a payload that patterns may look at. */
export const LOOK_BYTES = 64;

/** A parsed pattern; `app` is a number of the caller's choice. */
export interface Pattern {
  readonly app: number;
  readonly points: number;
  readonly bytes: string;
  readonly at?: number;
  readonly min?: number;
  readonly max?: number;
  readonly ports?: readonly [from: number, to: number];
  readonly length?: {
    readonly at: number;
    readonly plus: number;
    readonly mask?: number;
    readonly isLittle?: boolean;
  };
}

const NO_FIELD = 255;
const BYTES_MAX = 65_535;

export class Signatures {
  /** Of the pattern that `find` found: its number, `app` and `points`. */
  readonly app: Uint8Array;
  readonly points: Uint8Array;
  readonly #min: Uint16Array;
  readonly #max: Uint16Array;
  readonly #portFrom: Uint16Array;
  readonly #portTo: Uint16Array;
  readonly #lengthAt: Uint8Array;
  readonly #lengthPlus: Uint8Array;
  readonly #lengthMask: Uint16Array;
  readonly #lengthLittle: Uint8Array;
  /** Tests of pattern i are those from #from[i] up to #from[i + 1]. */
  readonly #from: Uint16Array;
  readonly #offset: Uint8Array;
  /** Which bytes pass a test: 8 words of bits. */
  readonly #bits: Uint32Array;
  /** Ports that some pattern wants, a bit each. */
  readonly #wanted = new Uint32Array(2048);
  /**
   * Patterns that may fit a payload by its first byte b are #first[#bucket[b]] up to #first[#bucket[b + 1]]; those of them that
   * want no port, 256 buckets further on.
   */
  readonly #bucket: Uint16Array;
  readonly #first: Uint16Array;

  /** Throws SyntaxError, with the pattern's text, for a malformed pattern or one that looks beyond 64 bytes. */
  constructor(patterns: readonly Pattern[]) {
    const count = patterns.length;
    this.app = Uint8Array.from(patterns, appOf);
    this.points = Uint8Array.from(patterns, pointsOf);
    this.#min = new Uint16Array(count);
    this.#max = new Uint16Array(count);
    this.#portFrom = new Uint16Array(count);
    this.#portTo = new Uint16Array(count);
    this.#lengthAt = new Uint8Array(count);
    this.#lengthPlus = new Uint8Array(count);
    this.#lengthMask = new Uint16Array(count);
    this.#lengthLittle = new Uint8Array(count);
    this.#from = new Uint16Array(count + 1);
    const offsets: number[] = [], bits: number[] = [];
    for (let i = 0; i < count; i++) {
      this.#from[i] = offsets.length;
      readTests(patterns[i], offsets, bits);
      this.#setBounds(i, patterns[i], offsets);
    }
    this.#from[count] = offsets.length;
    this.#offset = Uint8Array.from(offsets);
    this.#bits = Uint32Array.from(bits);
    const first: number[] = [];
    this.#bucket = new Uint16Array(513);
    for (let bucket = 0; bucket < 512; bucket++) {
      this.#bucket[bucket] = first.length;
      for (let i = 0; i < count; i++) {
        if (this.#mayBegin(i, bucket & 255) && (bucket < 256 || patterns[i].ports === undefined)) {
          first.push(i);
        }
      }
    }
    this.#bucket[512] = first.length;
    this.#first = Uint16Array.from(first);
  }

  #setBounds(i: number, { min = 1, max = BYTES_MAX, ports, length }: Pattern, offsets: number[]): void {
    let needed = min;
    for (let test = this.#from[i]; test < offsets.length; test++) {
      needed = Math.max(needed, offsets[test] + 1);
    }
    this.#lengthAt[i] = length === undefined ? NO_FIELD : length.at;
    if (length !== undefined) {
      needed = Math.max(needed, length.at + 2);
      this.#lengthPlus[i] = length.plus;
      this.#lengthMask[i] = length.mask ?? 0xffff;
      this.#lengthLittle[i] = length.isLittle === true ? 1 : 0;
    }
    this.#min[i] = needed;
    this.#max[i] = max;
    this.#portFrom[i] = ports === undefined ? 0 : ports[0];
    this.#portTo[i] = ports === undefined ? BYTES_MAX : ports[1];
    if (ports === undefined) return;
    for (let port = ports[0]; port <= ports[1]; port++) this.#wanted[port >> 5] |= 1 << (port & 31);
  }

  #isWanted(port: number): boolean {
    return (this.#wanted[port >> 5] >>> (port & 31) & 1) === 1;
  }

  #mayBegin(i: number, byte: number): boolean {
    for (let test = this.#from[i]; test < this.#from[i + 1]; test++) {
      if (this.#offset[test] === 0 && !this.#passes(test, byte)) return false;
    }
    return true;
  }

  #passes(test: number, byte: number): boolean {
    return (this.#bits[8 * test + (byte >> 5)] >>> (byte & 31) & 1) === 1;
  }

  /** The number of the first pattern that fits the payload of `bytes` (1 or more) at `at`, or -1. */
  find(view: DataView, at: number, bytes: number, portA: number, portB: number): number {
    const bucket = view.getUint8(at) + (this.#isWanted(portA) || this.#isWanted(portB) ? 0 : 256);
    const end = this.#bucket[bucket + 1];
    for (let place = this.#bucket[bucket]; place < end; place++) {
      const i = this.#first[place];
      if (this.#fits(i, view, at, bytes, portA, portB)) return i;
    }
    return -1;
  }

  #fits(i: number, view: DataView, at: number, bytes: number, portA: number, portB: number): boolean {
    if (bytes < this.#min[i] || bytes > this.#max[i]) return false;
    const from = this.#portFrom[i], to = this.#portTo[i];
    if ((portA < from || portA > to) && (portB < from || portB > to)) return false;
    const field = this.#lengthAt[i];
    if (field !== NO_FIELD) {
      const said = view.getUint16(at + field, this.#lengthLittle[i] === 1) & this.#lengthMask[i];
      if (said + this.#lengthPlus[i] !== bytes) return false;
    }
    const end = this.#from[i + 1];
    for (let test = this.#from[i]; test < end; test++) {
      if (!this.#passes(test, view.getUint8(at + this.#offset[test]))) return false;
    }
    return true;
  }
}

function appOf(pattern: Pattern): number {
  return pattern.app;
}

function pointsOf(pattern: Pattern): number {
  return pattern.points;
}

/**
 * Appends a pattern's tests, one for each byte that is not free: its offset, and eight words of the bytes that pass. The test
 * that the fewest payloads pass comes first; tests for zeros, which are common in payloads, come last.
 */
function readTests({ bytes, at = 0 }: Pattern, offsets: number[], bits: number[]): void {
  const nibbles = readNibbles(bytes);
  if (at + nibbles.length / 2 > LOOK_BYTES) {
    throw new SyntaxError(`the pattern "${bytes}" looks beyond ${LOOK_BYTES} bytes`);
  }
  const tests: number[] = [];
  for (let i = 0; i < nibbles.length; i += 2) {
    if (nibbles[i] !== 0xffff || nibbles[i + 1] !== 0xffff) tests.push(i);
  }
  sortByCommonness(nibbles, tests);
  for (let i = 0; i < tests.length; i++) {
    const place = bits.length;
    offsets.push(at + tests[i] / 2);
    bits.push(0, 0, 0, 0, 0, 0, 0, 0);
    for (let byte = 0; byte < 256; byte++) {
      if (passes(nibbles, tests[i], byte)) bits[place + (byte >> 5)] |= 1 << (byte & 31);
    }
  }
}

/** In place; for the start of the program, and short. */
function sortByCommonness(nibbles: number[], tests: number[]): void {
  for (let i = 1; i < tests.length; i++) {
    for (let j = i; j > 0 && commonness(nibbles, tests[j]) < commonness(nibbles, tests[j - 1]); j--) {
      const test = tests[j];
      tests[j] = tests[j - 1];
      tests[j - 1] = test;
    }
  }
}

function passes(nibbles: number[], i: number, byte: number): boolean {
  return (nibbles[i] >> (byte >> 4) & nibbles[i + 1] >> (byte & 15) & 1) === 1;
}

/** How many bytes pass the test, of which 0 counts as a hundred. */
function commonness(nibbles: number[], i: number): number {
  let count = passes(nibbles, i, 0) ? 100 : 0;
  for (let byte = 1; byte < 256; byte++) if (passes(nibbles, i, byte)) count++;
  return count;
}

/** For each hex digit of a pattern the digits that fit, as 16 bits. Throws SyntaxError. */
export function readNibbles(text: string): number[] {
  const tokens = text.replace(/\s/g, "").match(/\[[0-9a-fA-F-]+\]|[0-9a-fA-F.]|[^]/g) ?? [];
  const nibbles: number[] = [];
  for (let i = 0; i < tokens.length; i++) nibbles.push(readNibble(tokens[i], text));
  // Half a byte at the end leaves its other half free.
  if (nibbles.length % 2 === 1) nibbles.push(0xffff);
  return nibbles;
}

function readNibble(token: string, text: string): number {
  if (token === ".") return 0xffff;
  if (token.length === 1) {
    const digit = parseInt(token, 16);
    if (Number.isNaN(digit)) throw new SyntaxError(`"${token}" in the pattern "${text}" is no hex digit`);
    return 1 << digit;
  }
  const ranges = token.match(/[0-9a-fA-F]-[0-9a-fA-F]|[0-9a-fA-F]|-/g)!;
  let set = 0;
  for (let i = 0; i < ranges.length; i++) {
    if (ranges[i] === "-") {
      throw new SyntaxError(`"${token}" in the pattern "${text}" is no set of hex digits`);
    }
    const from = parseInt(ranges[i][0], 16), to = parseInt(ranges[i][ranges[i].length - 1], 16);
    for (let digit = from; digit <= to; digit++) set |= 1 << digit;
  }
  return set;
}
