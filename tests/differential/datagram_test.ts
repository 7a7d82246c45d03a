/**
 * The kernels of OxTunnel's data against each other: native by AWS-LC, native by libipsec-mb, portable, and @noble/ciphers
 * datagram by datagram, on bursts in which sessions of all AEADs and both phases are mixed, and on hostile ones. Published
 * vectors run in tests/vectors. Where the library cannot be loaded its tests are skipped aloud.
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { ecb, gcm } from "@noble/ciphers/aes.js";
import { chacha20, chacha20poly1305 } from "@noble/ciphers/chacha.js";
import { loadNative } from "../../ffi/native.ts";
import { PortableDatagramAead } from "../../src/codec/datagram_portable.ts";
import { type DatagramAead, MASK_STRIDE } from "../../src/codec/kernels.ts";
import { ALGORITHM, IMPLEMENTATION, implementationOf, NativeDatagramAead } from "../../src/codec/native.ts";
import { DROP } from "../../src/metrics.ts";
import { Arena, packetStart } from "../../src/vector/arena.ts";
import {
  Burst,
  BURST_CAPACITY,
  HELD,
  OPENED,
  TO_EXIT,
  TO_OPEN,
  TO_OPEN_DATAGRAM,
  TO_PARSE,
  TO_SEAL,
  TO_SEAL_DATAGRAM,
  TO_TRANSMIT,
  TO_UNPROTECT,
} from "../../src/vector/burst.ts";
import { AEAD_AES_256_GCM, AEAD_AES_256_GMAC, AEAD_CHACHA20_POLY1305 } from "../../src/wire/parameters.ts";
import { OX_TAG_BYTES, unprotectHeader, writeShortHeader } from "../../src/wire/oxtunnel.ts";
import { Random } from "../kit/random.ts";
import { isEmulated } from "../kit/requires.ts";
import { assertSameBursts, assertSameBytes, copyOf } from "./bursts.ts";

const ROWS = 32;

/** What a row may not be, in a burst over the arena; row 5 is erased, and the phase of row 6 retired. */
const REFUSED: [what: string, set: (burst: Burst) => void][] = [
  ["an erased row", (burst) => burst.session[0] = 5],
  ["a retired phase", (burst) => burst.session[0] = 6],
  ["the row after the last", (burst) => burst.session[0] = ROWS],
  ["half of the highest row", (burst) => burst.session[0] = 0x80000000],
  ["no session", (burst) => burst.session[0] = 0xffffffff],
  ["an offset past the arena", (burst) => burst.offset[0] = burst.arena.bytes.length],
  ["the highest offset", (burst) => burst.offset[0] = 0xffffffff],
  ["a row over the arena's end", (burst) => burst.offset[0] = burst.arena.bytes.length - 100],
  ["a huge length", (burst) => burst.length[0] = 0xffffffff],
  ["a length that wraps", (burst) => burst.length[0] = 0xffffffff - packetStart(0) + 1],
  ["a negative counter", (burst) => burst.counter[0] = -1],
  ["a broken counter", (burst) => burst.counter[0] = 0.5],
  ["2^53", (burst) => burst.counter[0] = 2 ** 53],
  ["infinity", (burst) => burst.counter[0] = Infinity],
  ["not a number", (burst) => burst.counter[0] = NaN],
  ["path 8", (burst) => burst.phase[0] = 16],
  ["phase 255", (burst) => burst.phase[0] = 255],
  ["no header", (burst) => burst.headerBytes[0] = 0],
  ["5 bytes of header", (burst) => burst.headerBytes[0] = 5],
  ["10 bytes of header", (burst) => burst.headerBytes[0] = 10],
];

/** The longest plaintext that fits behind the headroom with its tag. */
const MAX_BYTES = 1952;
const SIZES = [0, 1, 15, 16, 17, 63, 64, 65, 1420, MAX_BYTES];
const COUNTERS = [0, 1, 255, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 48 - 1, 2 ** 53 - 1];
const AEADS = [AEAD_CHACHA20_POLY1305, AEAD_AES_256_GCM, AEAD_AES_256_GMAC];

type Kernel = DatagramAead & { close?(): void };
type Make = (rows: number) => Kernel;
const makePortable: Make = (rows) => new PortableDatagramAead(rows, DROP.forged);

const KERNELS: [name: string, make: Make][] = [["portable", makePortable]];
const native = loadNative();
if (typeof native === "string") {
  console.error(`SKIPPED native, tests/differential/datagram_test.ts: ${native}`);
} else {
  for (const choice of [IMPLEMENTATION.awsLc, IMPLEMENTATION.ipsecMb]) {
    const [by, forAes] = [ALGORITHM.chacha20Poly1305, ALGORITHM.aes256Gcm]
      .map((algorithm) => implementationOf(native, algorithm, choice));
    if (by === undefined || forAes === undefined) {
      console.error(`SKIPPED native ${choice}: this processor lacks the instructions`);
      continue;
    }
    KERNELS.push([`native, ${by}`, (rows) => new NativeDatagramAead(native, rows, DROP.forged, choice)]);
  }
}

/** Both ends' keys of a session: the same number for ours to send and theirs to receive. */
interface Secrets {
  aead: number;
  /** Protection, phase 0, phase 1. */
  send: Uint8Array[];
  receive: Uint8Array[];
}

function randomSecrets(random: Random): Secrets[] {
  const fresh = () => {
    const key = new Uint8Array(32);
    random.fill(key);
    return key;
  };
  return Array.from({ length: ROWS }, () => ({
    aead: AEADS[random.u32() % 3],
    send: [fresh(), fresh(), fresh()],
    receive: [fresh(), fresh(), fresh()],
  }));
}

function install(kernel: Kernel, secrets: Secrets[], isOtherEnd = false): Kernel {
  secrets.forEach(({ aead, ...keys }, row) => {
    const [send, receive] = isOtherEnd ? [keys.receive, keys.send] : [keys.send, keys.receive];
    kernel.begin(row, aead, send[0], receive[0]);
    kernel.install(row, 0, send[1], receive[1]);
    kernel.install(row, 1, send[2], receive[2]);
  });
  return kernel;
}

/** A burst over the whole of its arena, every byte random but for the headers, rows of several steps. */
function randomBurst(random: Random): Burst {
  const burst = new Burst(new Arena(BURST_CAPACITY));
  random.fill(burst.bytes);
  const others = [TO_PARSE, TO_EXIT, HELD, OPENED, TO_TRANSMIT, TO_OPEN, TO_SEAL, DROP.forged];
  const count = 1 + random.u32() % BURST_CAPACITY;
  for (let row = 0; row < count; row++) {
    const length = SIZES[random.u32() % 20] ?? random.u32() % (MAX_BYTES + 1);
    const isOther = random.u32() % 8 === 0;
    burst.push(row, length, isOther ? others[random.u32() % others.length] : TO_SEAL_DATAGRAM);
    burst.session[row] = random.u32() % ROWS;
    burst.counter[row] = COUNTERS[random.u32() % 16] ?? random.u32() * 2 ** 16 + random.u32() % 2 ** 16;
    burst.phase[row] = random.u32() % 3 === 0 ? random.u32() % 16 : random.u32() % 2; // phase and path
    const counterBytes = 1 + random.u32() % 4;
    const at = burst.offset[row] - 5 - counterBytes;
    burst.headerBytes[row] = writeShortHeader(
      burst.view,
      at,
      burst.phase[row] & 1,
      random.u32(),
      burst.counter[row],
      counterBytes,
    );
  }
  return burst;
}

/** A row's datagram as @noble/ciphers makes it. */
function sealedByNoble(burst: Burst, row: number, { aead, send: [protect, ...keys] }: Secrets): Uint8Array {
  const { bytes, offset, length, headerBytes, counter, phase } = burst;
  const header = bytes.slice(offset[row] - headerBytes[row], offset[row]);
  const plaintext = bytes.slice(offset[row], offset[row] + length[row]);
  const nonce = new Uint8Array(12);
  new DataView(nonce.buffer).setUint32(0, phase[row] >> 1, true);
  new DataView(nonce.buffer).setBigUint64(4, BigInt(counter[row]), true);
  const key = keys[phase[row] & 1];
  const sealed = aead === AEAD_CHACHA20_POLY1305
    ? chacha20poly1305(key, nonce, header).encrypt(plaintext)
    : aead === AEAD_AES_256_GCM
    ? gcm(key, nonce, header).encrypt(plaintext)
    : new Uint8Array([
      ...plaintext,
      ...gcm(key, nonce, new Uint8Array([...header, ...plaintext])).encrypt(new Uint8Array(0)),
    ]);
  const sample = sealed.slice(-16);
  const blockCounter = new DataView(sample.buffer).getUint32(0, true);
  const mask = aead === AEAD_CHACHA20_POLY1305
    ? chacha20(protect, sample.slice(4), new Uint8Array(5), undefined, blockCounter)
    : ecb(protect, { disablePadding: true }).encrypt(sample);
  header[0] ^= mask[0] & 0x3f;
  for (let i = 5; i < header.length; i++) header[i] ^= mask[i - 4];
  return new Uint8Array([...header, ...sealed]);
}

/** Takes the protection off rows that were sealed, and leaves them to be opened. */
function unprotect(burst: Burst, kernel: Kernel, isSealed: (row: number) => boolean): void {
  const masks = new Uint8Array(MASK_STRIDE * BURST_CAPACITY);
  for (let row = 0; row < burst.count; row++) if (isSealed(row)) burst.next[row] = TO_UNPROTECT;
  kernel.masks(burst, masks);
  for (let row = 0; row < burst.count; row++) {
    if (burst.next[row] !== TO_UNPROTECT) continue;
    unprotectHeader(burst.view, burst.offset[row], masks, MASK_STRIDE * row);
    burst.next[row] = TO_OPEN_DATAGRAM;
  }
}

Deno.test("datagram: the portable kernel seals as @noble/ciphers does", () => {
  const random = new Random(31), secrets = randomSecrets(random);
  const kernel = install(makePortable(ROWS), secrets);
  const seen = new Set<number>();
  for (let round = 0; round < 3; round++) {
    const burst = randomBurst(random), plain = copyOf(burst);
    kernel.seal(burst);
    for (let row = 0; row < burst.count; row++) {
      if (plain.next[row] !== TO_SEAL_DATAGRAM) continue;
      assertEquals(burst.next[row], TO_TRANSMIT);
      const session = secrets[plain.session[row]];
      const datagram = burst.bytes.subarray(burst.offset[row], burst.offset[row] + burst.length[row]);
      assertSameBytes(datagram, sealedByNoble(plain, row, session), `round ${round}, row ${row}`);
      seen.add(session.aead * 16 + (plain.phase[row] & 1) * 8 + plain.headerBytes[row] - 6);
    }
  }
  assertEquals(seen.size, 3 * 2 * 4, "every AEAD and phase with every length of header");
});

for (const [name, make] of KERNELS) {
  const test = (what: string, run: () => void) => Deno.test(`datagram, ${name}: ${what}`, run);

  test("seals, unprotects and opens mixed bursts byte for byte as the portable kernel", () => {
    const random = new Random(32), secrets = randomSecrets(random);
    const ours = install(make(ROWS), secrets), theirs = install(make(ROWS), secrets, true);
    const portable = install(makePortable(ROWS), secrets);
    const portableEnd = install(makePortable(ROWS), secrets, true);
    for (let round = 0; round < (isEmulated ? 1 : 8); round++) {
      const burst = randomBurst(random), plain = copyOf(burst), twin = copyOf(burst);
      const isSealed = (row: number) => plain.next[row] === TO_SEAL_DATAGRAM;
      ours.seal(burst);
      portable.seal(twin);
      assertSameBursts(burst, twin, `sealing, round ${round}`);
      assert(burst.next.subarray(0, burst.count).includes(TO_TRANSMIT));
      unprotect(burst, theirs, isSealed);
      unprotect(twin, portableEnd, isSealed);
      assertSameBursts(burst, twin, `unprotecting, round ${round}`);
      theirs.open(burst);
      portableEnd.open(twin);
      assertSameBursts(burst, twin, `opening, round ${round}`);
      for (let row = 0; row < burst.count; row++) {
        if (!isSealed(row)) continue;
        const start = plain.offset[row], end = start + plain.length[row];
        assertEquals([burst.next[row], burst.offset[row], burst.length[row]], [
          OPENED,
          start,
          plain.length[row],
        ]);
        const from = start - plain.headerBytes[row];
        assertSameBytes(burst.bytes.subarray(from, end), plain.bytes.subarray(from, end), `row ${row}`);
      }
    }
    ours.close?.();
    theirs.close?.();
  });

  test("what an attacker or a mistake changed is refused, the rest of the burst opens", () => {
    const random = new Random(33), secrets = randomSecrets(random);
    const ours = install(make(ROWS), secrets, true), portable = install(makePortable(ROWS), secrets, true);
    const sender = install(makePortable(ROWS), secrets);
    for (const kernel of [ours, portable]) {
      kernel.retire(3, 1);
      kernel.erase(4);
    }
    const damages: ((burst: Burst, row: number) => void)[] = [
      ({ bytes, offset, length }, row) => {
        const at = OX_TAG_BYTES + 6 > length[row] ? 0 : random.u32() % (length[row] - OX_TAG_BYTES);
        bytes[offset[row] + at] ^= 1 << (random.u32() & 7);
      },
      ({ bytes, offset }, row) => bytes[offset[row]] ^= 1 << (random.u32() & 7),
      ({ bytes, offset, headerBytes }, row) =>
        bytes[offset[row] + 5 + random.u32() % (headerBytes[row] - 5)] ^= 1 << (random.u32() & 7),
      ({ bytes, offset, length }, row) =>
        bytes[offset[row] + length[row] - 1 - random.u32() % OX_TAG_BYTES] ^= 1 << (random.u32() & 7),
      ({ length }, row) => length[row] -= 1 + random.u32() % length[row],
      ({ phase }, row) => phase[row] ^= 1,
      ({ phase }, row) => phase[row] ^= 2 * (1 + random.u32() % 7), // another path
      ({ phase }, row) => phase[row] = 16 + random.u32() % 240,
      ({ session }, row) => session[row] = (session[row] + 1) % ROWS,
      ({ counter }, row) => counter[row] += counter[row] === 0 ? 1 : -1,
      ({ headerBytes }, row) => headerBytes[row] = [0, 1, 5, 10, 255][random.u32() % 5],
      ({ bytes, offset, headerBytes }, row) => { // as a reader does who follows forged flags
        headerBytes[row] = 6 + (headerBytes[row] - 5) % 4;
        bytes[offset[row]] = bytes[offset[row]] & ~3 | (headerBytes[row] - 6);
      },
    ];
    for (let round = 0; round < (isEmulated ? 2 : 8); round++) {
      const burst = randomBurst(random);
      const isSealed = Array.from(burst.next, (next) => next === TO_SEAL_DATAGRAM);
      sender.seal(burst);
      unprotect(burst, portable, (row) => isSealed[row]);
      const damaged = new Set<number>();
      for (let row = 0; row < burst.count; row++) {
        if (burst.next[row] !== TO_OPEN_DATAGRAM || random.u32() % 2 === 0) continue;
        damages[random.u32() % damages.length](burst, row);
        damaged.add(row);
      }
      const sealed = copyOf(burst), twin = copyOf(burst);
      ours.open(burst);
      portable.open(twin);
      assertEquals(new Uint8Array(burst.block), new Uint8Array(twin.block), `round ${round}`);
      for (let row = 0; row < burst.count; row++) {
        if (sealed.next[row] !== TO_OPEN_DATAGRAM) continue;
        const hasKeys = sealed.session[row] !== 4 &&
          (sealed.session[row] !== 3 || (sealed.phase[row] & 1) === 0);
        const opens = hasKeys && !damaged.has(row);
        assertEquals(burst.next[row], opens ? OPENED : DROP.forged, `round ${round}, row ${row}`);
        const start = burst.offset[row], end = start + burst.length[row];
        const expected = opens ? twin : sealed;
        if (!opens) {
          // Its own bytes may be wiped, nothing else may be touched.
          burst.bytes.fill(0, start, end);
          expected.bytes.fill(0, start, end);
          twin.bytes.fill(0, start, end);
        }
        assertSameBytes(burst.bytes.subarray(start, end), expected.bytes.subarray(start, end), `row ${row}`);
      }
      assertSameBytes(burst.bytes, twin.bytes, `round ${round}`);
    }
    ours.close?.();
  });

  test("no key, no such row, place, counter, phase or header: refused, never a crash", () => {
    const secrets = randomSecrets(new Random(34)), kernel = install(make(ROWS), secrets);
    kernel.erase(5);
    kernel.retire(6, 0);
    const arena = new Arena(4);
    const masks = new Uint8Array(MASK_STRIDE * BURST_CAPACITY);
    for (const aead of AEADS) {
      const session = secrets.findIndex((secret, row) => secret.aead === aead && row > 6);
      for (const step of [TO_SEAL_DATAGRAM, TO_OPEN_DATAGRAM, TO_UNPROTECT]) {
        for (const [what, set] of REFUSED) {
          const burst = new Burst(arena);
          burst.push(0, 200, step);
          burst.session[0] = session;
          burst.counter[0] = 1;
          burst.phase[0] = 0;
          burst.headerBytes[0] = 8;
          set(burst);
          const before = copyOf(burst);
          if (step !== TO_UNPROTECT) before.next[0] = DROP.forged;
          if (step === TO_SEAL_DATAGRAM) kernel.seal(burst);
          else if (step === TO_OPEN_DATAGRAM) kernel.open(burst);
          else kernel.masks(burst, masks);
          assertSameBursts(burst, before, what);
        }
      }
      const burst = new Burst(arena);
      const push = (row: number, length: number, step: number) => {
        burst.push(row, length, step);
        burst.session[row] = session;
        burst.counter[row] = 1;
        burst.phase[row] = 0;
        burst.headerBytes[row] = 6;
      };
      push(0, 0, TO_SEAL_DATAGRAM);
      burst.offset[0] = 5;
      push(1, 6 + 15, TO_OPEN_DATAGRAM);
      push(2, 15, TO_UNPROTECT);
      push(3, 16, TO_UNPROTECT);
      kernel.seal(burst);
      assertEquals(burst.next[0], DROP.forged, "no room for the header");
      kernel.open(burst);
      assertEquals(burst.next[1], DROP.forged, "no room for the tag");
      masks.fill(0xaa);
      kernel.masks(burst, masks);
      assertEquals(masks.subarray(16, 24), new Uint8Array(8), "no sample");
      assert(masks.subarray(24, 29).some((byte) => byte !== 0xaa && byte !== 0), "a sample");
      assertEquals(masks.subarray(29, 32), new Uint8Array(3));
      assertEquals([masks[15], masks[32]], [0xaa, 0xaa], "rows of other steps keep theirs");
    }
    kernel.close?.();
  });

  test("rows that lie over each other do no more than spoil each other", () => {
    const random = new Random(35), kernel = install(make(ROWS), randomSecrets(random));
    const masks = new Uint8Array(MASK_STRIDE * BURST_CAPACITY);
    for (let round = 0; round < (isEmulated ? 2 : 30); round++) {
      const burst = randomBurst(random), before = copyOf(burst);
      const { next, offset, length, headerBytes, count } = burst;
      for (let row = 0; row < count; row++) {
        offset[row] = random.u32() % 3000;
        length[row] = random.u32() % 1000;
        headerBytes[row] = random.u32() % 12;
      }
      next.fill([TO_SEAL_DATAGRAM, TO_OPEN_DATAGRAM, TO_UNPROTECT][round % 3]);
      kernel.seal(burst);
      kernel.masks(burst, masks);
      kernel.open(burst);
      const steps = new Set(next.subarray(0, count));
      if (round % 3 === 0) assertEquals(steps, new Set([TO_TRANSMIT, DROP.forged]).intersection(steps));
      if (round % 3 === 1) assertEquals(steps, new Set([DROP.forged]));
      if (round % 3 === 2) assertEquals(steps, new Set([TO_UNPROTECT]));
      const end = 3000 + 1000 + OX_TAG_BYTES;
      assertSameBytes(burst.bytes.subarray(end), before.bytes.subarray(end), "beyond the rows");
    }
    kernel.close?.();
  });

  test("what does not authenticate leaves no plaintext behind", () => {
    const secret = new TextEncoder().encode("attack at dawn ".repeat(20)), key = new Uint8Array(32).fill(9);
    for (const aead of [AEAD_CHACHA20_POLY1305, AEAD_AES_256_GCM]) {
      const burst = new Burst(new Arena(1)), kernel = make(1);
      kernel.begin(0, aead, key, key);
      kernel.install(0, 0, key, key);
      burst.push(0, secret.length, TO_SEAL_DATAGRAM);
      burst.session[0] = burst.phase[0] = burst.counter[0] = 0;
      burst.headerBytes[0] = 6;
      burst.bytes.set(secret, burst.offset[0]);
      kernel.seal(burst);
      burst.next[0] = TO_OPEN_DATAGRAM; // still protected, so not what was sealed
      burst.bytes[burst.offset[0]] ^= 0x80;
      kernel.open(burst);
      assertEquals(burst.next[0], DROP.forged);
      const left = burst.bytes.subarray(packetStart(0), packetStart(0) + secret.length);
      assert(left.filter((byte, i) => byte === secret[i]).length < 16);
      kernel.close?.();
    }
  });

  test("a row's life: begin, epochs in turn, retire, erase, begin anew with the other AEAD", () => {
    const kernel = make(2), peer = make(2);
    const key = (fill: number) => new Uint8Array(32).fill(fill);
    const carries = (phase: number) => {
      const burst = new Burst(new Arena(1));
      burst.push(0, 100, TO_SEAL_DATAGRAM);
      burst.session[0] = burst.counter[0] = 0;
      burst.phase[0] = phase;
      burst.headerBytes[0] = writeShortHeader(burst.view, burst.offset[0] - 6, phase, 7, 0, 1);
      kernel.seal(burst);
      if (burst.next[0] !== TO_TRANSMIT) return false;
      unprotect(burst, peer, () => true);
      peer.open(burst);
      return burst.next.at(0) === OPENED;
    };
    assertThrows(() => kernel.install(0, 0, key(1), key(1)), RangeError);
    assert(!carries(0), "nothing has begun");
    for (const aead of [...AEADS, ...AEADS.toReversed()]) {
      for (const end of [kernel, peer]) end.begin(0, aead, key(8), key(8));
      assert(!carries(0) && !carries(1), "no epoch, also none from before");
      for (const end of [kernel, peer]) end.install(0, 0, key(1), key(1));
      assert(carries(0) && !carries(1));
      for (const end of [kernel, peer]) end.install(0, 1, key(2), key(2));
      assert(carries(0) && carries(1), "both epochs");
      for (const end of [kernel, peer]) end.retire(0, 0);
      assert(!carries(0) && carries(1));
      for (const end of [kernel, peer]) end.install(0, 0, key(3), key(3));
      peer.install(0, 1, key(4), key(4));
      assert(carries(0) && !carries(1), "another key");
    }
    kernel.erase(0);
    assert(!carries(0) && !carries(1));
    kernel.erase(0);
    kernel.retire(0, 0); // of a row that has nothing left: nothing to do
    for (const aead of [0, 4, 255, 256 + 1]) {
      assertThrows(() => kernel.begin(0, aead, key(1), key(1)), RangeError);
    }
    kernel.begin(1, 1, key(1), key(1));
    assertThrows(() => kernel.begin(2, 1, key(1), key(1)), RangeError);
    assertThrows(() => kernel.install(2, 0, key(1), key(1)), RangeError);
    assertThrows(() => kernel.install(1, 2, key(1), key(1)), RangeError);
    assertThrows(() => kernel.retire(1, 2), RangeError);
    assertThrows(() => kernel.retire(2, 0), RangeError);
    assertThrows(() => kernel.erase(2), RangeError);
    assertThrows(() => kernel.begin(1, 1, key(1).subarray(1), key(1)), RangeError);
    assertThrows(() => kernel.install(1, 0, key(1), key(1).subarray(1)), RangeError);
    const short = new Uint8Array(MASK_STRIDE * BURST_CAPACITY - 1);
    assertThrows(() => kernel.masks(new Burst(new Arena(1)), short), RangeError);
    kernel.close?.();
    peer.close?.();
  });
}

Deno.test({
  name: "datagram, native: wrong handles, choices and sizes are refused; the first pages lock",
  ignore: typeof native === "string" || isEmulated, // qemu-user has no mlock2
  fn() {
    if (typeof native === "string") return;
    const key = new Uint8Array(32), masks = new Uint8Array(MASK_STRIDE * BURST_CAPACITY);
    for (const handle of [0, 1, 4095, 0x7fffffff, 0xffffffff]) {
      assert(native.ox_datagram_release(handle) < 0);
      assert(native.ox_datagram_locked(handle) < 0);
      assert(native.ox_datagram_begin(handle, 0, 1, key, key) < 0);
      assert(native.ox_datagram_install(handle, 0, 0, key, key) < 0);
      assert(native.ox_datagram_retire(handle, 0, 0) < 0);
      assert(native.ox_datagram_erase(handle, 0) < 0);
      assert(native.ox_datagram_masks(handle, handle, BURST_CAPACITY, masks) < 0);
      assert(native.ox_datagram_open(handle, handle, BURST_CAPACITY, DROP.forged) < 0);
      assert(native.ox_datagram_seal(handle, handle, BURST_CAPACITY, DROP.forged) < 0);
    }
    for (const [choice, rows] of [[3, 1], [0, 0], [0, 2 ** 20 + 1]]) {
      assert(native.ox_datagram_new(choice, rows) < 0, `${choice} ${rows}`);
    }
    assertThrows(() => new NativeDatagramAead(native, 0, DROP.forged));
    const kernel = new NativeDatagramAead(native, 1, DROP.forged);
    kernel.begin(0, AEAD_AES_256_GCM, key, key);
    kernel.install(0, 0, key, key);
    assert(kernel.isLocked, "a few pages can always be locked");
    const burst = new Burst(new Arena(1));
    burst.count = 0xffffffff;
    kernel.open(burst); // Rows past the capacity are not looked at.
    kernel.seal(burst);
    kernel.masks(burst, masks);
    kernel.close();
    assertThrows(() => kernel.open(burst), Error, "ox_datagram_open");
  },
});
