/**
 * Wycheproof's vectors against every implementation of the AEADs and of X25519: edge cases of carries, counters and
 * tags, twisted, non-canonical and low-order points. wycheproof.json is a subset of C2SP/wycheproof testvectors_v1
 * (Apache-2.0): keys of 32, nonces of 12 and tags of 16 bytes, a few cases of every kind; `id` is its tcId there. The
 * first of chacha20Poly1305 is RFC 8439 §2.8.2, and RFC 7748 §5.2 is among x25519.
 */
import { assert, assertEquals } from "@std/assert";
import { gcm } from "@noble/ciphers/aes.js";
import { chacha20poly1305 } from "@noble/ciphers/chacha.js";
import { createCipheriv, createDecipheriv } from "node:crypto";
import { loadNative, type Native } from "../../ffi/native.ts";
import {
  ALGORITHM,
  IMPLEMENTATION,
  implementationOf,
  nativePrimitives,
  openOnce,
  sealOnce,
} from "../../src/codec/native.ts";
import type { Primitives } from "../../src/codec/kernels.ts";
import { noble } from "../../src/codec/noble.ts";
import { nodeCrypto } from "../../src/codec/node_crypto.ts";
import vectors from "./wycheproof.json" with { type: "json" };

type AeadName = "chacha20Poly1305" | "aes256Gcm";

interface OneShot {
  name: string;
  seal(key: Uint8Array, nonce: Uint8Array, plaintext: Uint8Array, associated: Uint8Array): Uint8Array;
  open(
    key: Uint8Array,
    nonce: Uint8Array,
    sealed: Uint8Array,
    associated: Uint8Array,
  ): Uint8Array | undefined;
}

const hex = (text: string) => Uint8Array.fromHex(text);

function byNode(name: AeadName): OneShot {
  const algorithm = name === "aes256Gcm" ? "aes-256-gcm" : "chacha20-poly1305";
  const options = { authTagLength: 16 };
  return {
    name: "node:crypto",
    seal(key, nonce, plaintext, associated) {
      const cipher = createCipheriv(algorithm as "chacha20-poly1305", key, nonce, options);
      cipher.setAAD(associated, { plaintextLength: plaintext.length });
      const text = plaintext.length > 0 ? cipher.update(plaintext) : new Uint8Array(0);
      cipher.final();
      return new Uint8Array([...text, ...cipher.getAuthTag()]);
    },
    open(key, nonce, sealed, associated) {
      const decipher = createDecipheriv(algorithm as "chacha20-poly1305", key, nonce, options);
      const length = sealed.length - 16;
      decipher.setAAD(associated, { plaintextLength: length });
      decipher.setAuthTag(sealed.subarray(length));
      try {
        const text = length > 0 ? decipher.update(sealed.subarray(0, length)) : new Uint8Array(0);
        decipher.final();
        return new Uint8Array(text);
      } catch {
        return undefined;
      }
    },
  };
}

function byNoble(name: AeadName): OneShot {
  const make = name === "aes256Gcm" ? gcm : chacha20poly1305;
  return {
    name: "noble",
    seal: (key, nonce, plaintext, associated) => make(key, nonce, associated).encrypt(plaintext),
    open(key, nonce, sealed, associated) {
      try {
        return make(key, nonce, associated).decrypt(sealed);
      } catch {
        return undefined;
      }
    },
  };
}

const native = loadNative();
if (typeof native === "string") console.error(`SKIPPED tests/vectors/wycheproof_test.ts, native: ${native}`);

function byNative(library: Native, name: AeadName): OneShot[] {
  return [IMPLEMENTATION.awsLc, IMPLEMENTATION.ipsecMb].flatMap((implementation) => {
    const algorithm = ALGORITHM[name];
    const by = implementationOf(library, algorithm, implementation);
    if (by === undefined) {
      console.error(`SKIPPED ${name}, native ${implementation}: this processor lacks the instructions`);
      return [];
    }
    return [{
      name: `native, ${by}`,
      seal: (key, nonce, plaintext, associated) =>
        sealOnce(library, algorithm, implementation, key, nonce, plaintext, associated),
      open: (key, nonce, sealed, associated) =>
        openOnce(library, algorithm, implementation, key, nonce, sealed, associated),
    }];
  });
}

for (const name of ["chacha20Poly1305", "aes256Gcm"] as const) {
  const natives = typeof native === "string" ? [] : byNative(native, name);
  for (const aead of [byNode(name), byNoble(name), ...natives]) {
    Deno.test(`Wycheproof: ${name} by ${aead.name}`, () => {
      for (const { id, valid, ...texts } of vectors[name]) {
        const key = hex(texts.key), nonce = hex(texts.nonce), associated = hex(texts.associated);
        const plaintext = hex(texts.plaintext), sealed = hex(texts.sealed);
        const isSame = aead.seal(key, nonce, plaintext, associated).toHex() === texts.sealed;
        assertEquals(isSame, valid, `sealing, tcId ${id}`);
        const opened = aead.open(key, nonce, sealed, associated);
        assertEquals(opened?.toHex(), valid ? texts.plaintext : undefined, `opening, tcId ${id}`);
      }
    });
  }
}

const ALL: Primitives[] = [
  nodeCrypto,
  noble,
  ...typeof native === "string" ? [] : [nativePrimitives(native)],
];
for (const primitives of ALL) {
  Deno.test(`Wycheproof: x25519 by ${primitives.name}`, () => {
    let refused = 0;
    for (const { id, private: ours, public: theirs, shared } of vectors.x25519) {
      const secret = primitives.sharedSecret(hex(ours), hex(theirs));
      // A low-order point: the vectors list its secret, a handshake refuses it.
      const expected = /^0+$/.test(shared) ? undefined : shared;
      assertEquals(secret?.toHex(), expected, `tcId ${id}`);
      if (expected === undefined) refused++;
    }
    assert(refused > 10);
  });
}
