/**
 * Published test vectors against every implementation of the primitives. Origins: RFC 7693 appendix B (BLAKE2s),
 * RFC 7748 §5.2 and §6.1 (X25519), RFC 8439 §2.8.2 (AEAD, through the kernels' counter nonce), the XChaCha20-Poly1305
 * draft (draft-irtf-cfrg-xchacha §A.3.1). What has no vector in the kernels' shape is compared between twins.
 */
import { assertEquals, assertNotEquals } from "@std/assert";
import { chacha20poly1305, xchacha20poly1305 } from "@noble/ciphers/chacha.js";
import { createHmac } from "node:crypto";
import { equalSecrets, hash, keyedHash, mac, openCookie, sealCookie } from "../../src/codec/hash.ts";
import type { Primitives } from "../../src/codec/kernels.ts";
import { noble } from "../../src/codec/noble.ts";
import { nodeCrypto } from "../../src/codec/node_crypto.ts";
import {
  consumeResponse,
  createInitiation,
  createResponse,
  isLater,
  openInitiation,
  openTimestamp,
  tai64n,
} from "../../src/session/handshake.ts";
import { Random } from "../sim/world.ts";

const hex = (text: string) => Uint8Array.fromHex(text.replaceAll(/\s/g, ""));
const ascii = (text: string) => new TextEncoder().encode(text);
const IMPLEMENTATIONS: Primitives[] = [nodeCrypto, noble];
const NOTHING = new Uint8Array(0);

Deno.test("RFC 7693 appendix B: BLAKE2s-256 of abc", () => {
  assertEquals(
    hash(ascii("abc")).toHex(),
    "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982",
  );
  assertEquals(hash(ascii("a"), ascii("bc")), hash(ascii("abc")));
});

Deno.test("HMAC-BLAKE2s agrees with OpenSSL's", () => {
  const random = new Random(1);
  for (let length = 0; length < 200; length += 13) {
    const key = new Uint8Array(32), input = new Uint8Array(length);
    random.fill(key);
    random.fill(input);
    const expected = createHmac("blake2s256", key).update(input).digest();
    assertEquals(keyedHash(key, input), new Uint8Array(expected));
  }
});

for (const primitives of IMPLEMENTATIONS) {
  Deno.test(`${primitives.name}: RFC 7748 §5.2, scalar multiplication`, () => {
    const shared = primitives.sharedSecret(
      hex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4"),
      hex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c"),
    );
    assertEquals(shared?.toHex(), "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552");
  });

  Deno.test(`${primitives.name}: RFC 7748 §6.1, Diffie-Hellman`, () => {
    const alice = hex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
    const bob = hex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
    const alicePublic = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a";
    const bobPublic = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f";
    assertEquals(primitives.publicKey(alice).toHex(), alicePublic);
    assertEquals(primitives.publicKey(bob).toHex(), bobPublic);
    const secret = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742";
    assertEquals(primitives.sharedSecret(alice, hex(bobPublic))?.toHex(), secret);
    assertEquals(primitives.sharedSecret(bob, hex(alicePublic))?.toHex(), secret);
  });

  Deno.test(`${primitives.name}: low-order points give no secret`, () => {
    const key = new Uint8Array(32).fill(7);
    // RFC 7748 §7: the all-zero check; 0 and 1 are points of small order.
    for (const first of [0, 1]) {
      const point = new Uint8Array(32);
      point[0] = first;
      assertEquals(primitives.sharedSecret(key, point), undefined);
    }
  });

  Deno.test(`${primitives.name}: the AEAD is RFC 8439's with a nonce of zeros and a counter`, () => {
    const random = new Random(2);
    for (const counter of [0, 1, 255, 2 ** 32 - 1, 2 ** 32, 2 ** 53 - 1]) {
      for (const length of [0, 1, 16, 63, 64, 65, 1420]) {
        const key = new Uint8Array(32),
          plaintext = new Uint8Array(length),
          associated = new Uint8Array(length % 37);
        for (const bytes of [key, plaintext, associated]) random.fill(bytes);
        const nonce = new Uint8Array(12);
        new DataView(nonce.buffer).setBigUint64(4, BigInt(counter), true);
        const expected = chacha20poly1305(key, nonce, associated).encrypt(plaintext);
        const sealed = primitives.seal(key, counter, plaintext, associated);
        assertEquals(sealed, expected);
        assertEquals(new Uint8Array(primitives.open(key, counter, sealed, associated)!), plaintext);
        sealed[random.u32() % sealed.length] ^= 1 << (random.u32() & 7);
        assertEquals(primitives.open(key, counter, sealed, associated), undefined);
      }
    }
    assertEquals(primitives.open(new Uint8Array(32), 0, new Uint8Array(15), NOTHING), undefined);
  });
}

Deno.test("draft-irtf-cfrg-xchacha §A.3.1: XChaCha20-Poly1305, and cookies are made with it", () => {
  const key = Uint8Array.from({ length: 32 }, (_, i) => 0x80 + i);
  const nonce = Uint8Array.from({ length: 24 }, (_, i) => 0x40 + i);
  const associated = hex("50515253c0c1c2c3c4c5c6c7");
  const plaintext = ascii(
    "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.",
  );
  const sealed = sealCookie(key, nonce, plaintext, associated);
  assertEquals(sealed.subarray(-16).toHex(), "c0875924c1c7987947deafd8780acf49");
  assertEquals(sealed, xchacha20poly1305(key, nonce, associated).encrypt(plaintext));
  assertEquals(openCookie(key, nonce, sealed, associated), plaintext);
  sealed[3] ^= 1;
  assertEquals(openCookie(key, nonce, sealed, associated), undefined);
});

for (const [initiator, responder] of [[nodeCrypto, noble], [noble, nodeCrypto]]) {
  for (const presharedKey of [new Uint8Array(32), new Uint8Array(32).fill(9)]) {
    const how = presharedKey[0] === 0 ? "without" : "with";
    Deno.test(`IKpsk2: ${initiator.name} to ${responder.name}, ${how} a preshared key`, () => {
      const random = new Random(3);
      const fresh = () => {
        const key = new Uint8Array(32);
        random.fill(key);
        return key;
      };
      const a = fresh(), b = fresh();
      const A = initiator.publicKey(a), B = responder.publicKey(b);
      const message = new Uint8Array(148), response = new Uint8Array(92);
      const secret = initiator.sharedSecret(a, B)!;
      const state = createInitiation(
        initiator,
        message,
        A,
        B,
        secret,
        fresh(),
        tai64n(1_700_000_000_500_000),
      )!;
      const opened = openInitiation(responder, message, b, B)!;
      assertEquals(opened.peerStatic, A);
      const timestamp = openTimestamp(responder, message, opened, responder.sharedSecret(b, A)!)!;
      assertEquals(timestamp, tai64n(1_700_000_000_500_000));
      const theirs = createResponse(responder, response, opened, presharedKey, fresh())!;
      const wrong = response.slice();
      wrong[20] ^= 1;
      assertEquals(consumeResponse(initiator, wrong, state, a, presharedKey), undefined);
      assertEquals(consumeResponse(initiator, response, state, a, new Uint8Array(32).fill(1)), undefined);
      const ours = consumeResponse(initiator, response, state, a, presharedKey)!;
      assertEquals(ours.sendKey, theirs.receiveKey);
      assertEquals(ours.receiveKey, theirs.sendKey);
      assertNotEquals(ours.sendKey, ours.receiveKey);
      assertEquals(state.chainingKey, new Uint8Array(32), "the chaining key is wiped");
      assertEquals(state.ephemeral, new Uint8Array(32), "the ephemeral key is wiped");
    });
  }
}

Deno.test("TAI64N: the epoch's label, and the order of time", () => {
  assertEquals(tai64n(0).toHex(), "400000000000000a00000000");
  assertEquals(isLater(tai64n(1_000_001), tai64n(1_000_000)), true);
  assertEquals(isLater(tai64n(1_000_000), tai64n(1_000_000)), false);
  assertEquals(isLater(tai64n(1_999_999), tai64n(2_000_000)), false);
});

Deno.test("keyed hashes of 16 bytes, and comparison of secrets", () => {
  const key = new Uint8Array(32).fill(1);
  assertEquals(mac(key, ascii("ab"), ascii("c")), mac(key, ascii("abc")));
  assertEquals(mac(key, ascii("abc")).length, 16);
  assertEquals(equalSecrets(key, key.slice()), true);
  assertEquals(equalSecrets(key, new Uint8Array(32)), false);
  assertEquals(equalSecrets(key, new Uint8Array(31)), false);
});
