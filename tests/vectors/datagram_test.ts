/**
 * Published vectors and this protocol's own examples against every kernel of OxTunnel's data: the masks of RFC 9001
 * A.5 (ChaCha20) and FIPS 197 C.3 (AES-256), and the whole datagrams of PROTOCOL §21.
 */
import { assertEquals } from "@std/assert";
import { loadNative } from "../../ffi/native.ts";
import { PortableDatagramAead } from "../../src/codec/datagram_portable.ts";
import { type DatagramAead, MASK_STRIDE } from "../../src/codec/kernels.ts";
import { ALGORITHM, IMPLEMENTATION, implementationOf, NativeDatagramAead } from "../../src/codec/native.ts";
import { DROP } from "../../src/metrics.ts";
import { Arena } from "../../src/vector/arena.ts";
import {
  Burst,
  BURST_CAPACITY,
  OPENED,
  TO_OPEN_DATAGRAM,
  TO_SEAL_DATAGRAM,
  TO_TRANSMIT,
  TO_UNPROTECT,
} from "../../src/vector/burst.ts";
import { AEAD_AES_256_GCM, AEAD_AES_256_GMAC, AEAD_CHACHA20_POLY1305 } from "../../src/wire/parameters.ts";
import { unprotectHeader, writeShortHeader } from "../../src/wire/oxtunnel.ts";

const hex = (text: string) => Uint8Array.fromHex(text.replaceAll(" ", ""));
const range = (from: number) => Uint8Array.from({ length: 32 }, (_, i) => from + i);

/** Masks of published samples; AES's is the whole block's beginning, as RFC 9001 §5.4.3 takes it. */
const MASKS = [
  {
    aead: AEAD_CHACHA20_POLY1305,
    key: "25a282b9e82f06f21f488917a4fc8f1b73573685608597d0efcb076b0ab7a7a4",
    sample: "5e5cd55c41f69080575d7999c25a5bfb",
    mask: "aefefe7d03",
  },
  {
    aead: AEAD_AES_256_GCM,
    key: "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
    sample: "00112233445566778899aabbccddeeff",
    mask: "8ea2b7ca51",
  },
];
MASKS.push({ ...MASKS[1], aead: AEAD_AES_256_GMAC });

/** PROTOCOL §21: key 00 01 …, protect key 20 21 …, phase 0, id 0x0badcafe, counter 300 in 2 bytes. */
const DATAGRAMS = [
  { aead: AEAD_AES_256_GCM, datagram: "6d fecaad0b 7211 284bcf93 c78b2e531d09e9f1e22ec3e47b255fa4" },
  { aead: AEAD_CHACHA20_POLY1305, datagram: "66 fecaad0b 0d89 75c3b4a6 7c232fdd080459691782ebb779928b4a" },
  { aead: AEAD_AES_256_GMAC, datagram: "54 fecaad0b a4c7 45000004 28d7d65347872c94cb495100f08b4059" },
];
/** The same on path 1. */
const ON_PATH_1 = [
  { aead: AEAD_AES_256_GCM, datagram: "5f fecaad0b 64bc a6042962 98584b9fde44b9385f52122e49f46a83" },
  { aead: AEAD_CHACHA20_POLY1305, datagram: "5a fecaad0b 5284 0606d284 d48569cdd68ff7a77a612889aeefbb94" },
  { aead: AEAD_AES_256_GMAC, datagram: "55 fecaad0b beb6 45000004 91538e198de38f3fa3db11688c04aebc" },
];
const PLAINTEXT = hex("45000004");

const KERNELS: [name: string, make: (rows: number) => DatagramAead][] = [
  ["portable", (rows) => new PortableDatagramAead(rows, DROP.forged)],
];
const native = loadNative();
if (typeof native === "string") console.error(`SKIPPED tests/vectors/datagram_test.ts, native: ${native}`);
else {
  for (const choice of [IMPLEMENTATION.awsLc, IMPLEMENTATION.ipsecMb]) {
    // libipsec-mb needs other instructions for each cipher; a kernel has both.
    const [by, forAes] = [ALGORITHM.chacha20Poly1305, ALGORITHM.aes256Gcm]
      .map((algorithm) => implementationOf(native, algorithm, choice));
    if (by === undefined || forAes === undefined) {
      console.error(`SKIPPED datagram by ${choice}: this processor lacks the instructions`);
      continue;
    }
    KERNELS.push([`native, ${by}`, (rows) => new NativeDatagramAead(native, rows, DROP.forged, choice)]);
  }
}

for (const [name, make] of KERNELS) {
  Deno.test(`datagram, ${name}: published masks`, () => {
    // In every place of the batches that masks are made in, and next to rows of the other AEADs.
    const kernel = make(MASKS.length), burst = new Burst(new Arena(BURST_CAPACITY));
    MASKS.forEach(({ aead, key }, session) => kernel.begin(session, aead, new Uint8Array(32), hex(key)));
    for (let row = 0; row < 61; row++) {
      const session = row % MASKS.length, { sample } = MASKS[session];
      burst.session[burst.grow(22, TO_UNPROTECT)] = session;
      burst.bytes.set(hex(sample), burst.offset[row] + 6);
    }
    const masks = new Uint8Array(MASK_STRIDE * BURST_CAPACITY).fill(0xaa);
    kernel.masks(burst, masks);
    for (let row = 0; row < 61; row++) {
      const at = MASK_STRIDE * row;
      assertEquals(
        masks.subarray(at, at + 8).toHex(),
        `${MASKS[row % MASKS.length].mask}000000`,
        `row ${row}`,
      );
    }
    assertEquals(masks[MASK_STRIDE * 61], 0xaa);
  });

  Deno.test(`datagram, ${name}: the protocol's own examples`, () => {
    const all = [
      ...DATAGRAMS.map((one) => ({ ...one, path: 0 })),
      ...ON_PATH_1.map((one) => ({ ...one, path: 1 })),
    ];
    for (const { aead, datagram, path } of all) {
      const kernel = make(1), burst = new Burst(new Arena(1)), { view, bytes } = burst;
      kernel.begin(0, aead, range(32), range(32));
      kernel.install(0, 0, range(0), range(0));
      burst.grow(PLAINTEXT.length, TO_SEAL_DATAGRAM);
      const start = burst.offset[0];
      bytes.set(PLAINTEXT, start);
      burst.headerBytes[0] = writeShortHeader(view, start - 7, 0, 0x0badcafe, 300, 2);
      burst.session[0] = 0;
      burst.phase[0] = path << 1;
      burst.counter[0] = 300;
      kernel.seal(burst);
      assertEquals(burst.next[0], TO_TRANSMIT);
      const sealed = bytes.subarray(burst.offset[0], burst.offset[0] + burst.length[0]);
      assertEquals(sealed.toHex(), hex(datagram).toHex());

      burst.next[0] = TO_UNPROTECT;
      const masks = new Uint8Array(MASK_STRIDE * BURST_CAPACITY);
      kernel.masks(burst, masks);
      unprotectHeader(view, burst.offset[0], masks, 0);
      burst.next[0] = TO_OPEN_DATAGRAM;
      kernel.open(burst);
      assertEquals([burst.next[0], burst.offset[0], burst.length[0]], [OPENED, start, PLAINTEXT.length]);
      assertEquals(bytes.subarray(start, start + PLAINTEXT.length), PLAINTEXT);
    }
  });
}
