/**
 * Published test vectors against every implementation of the primitives. Origins: RFC 7693 appendix B (BLAKE2s),
 * RFC 7748 §5.2 and §6.1 (X25519), RFC 8439 §2.8.2 (AEAD, through the kernels' counter nonce), the XChaCha20-Poly1305
 * draft (draft-irtf-cfrg-xchacha §A.3.1). What has no vector in the kernels' shape is compared between twins.
 */
import { loadNative } from "../../ffi/native.ts";
import { nativeBlake2s, nativePrimitives } from "../../src/codec/native.ts";
import { assertEquals, assertNotEquals } from "@std/assert";
import { chacha20poly1305, xchacha20poly1305 } from "@noble/ciphers/chacha.js";
import { createHash, createHmac } from "node:crypto";
import {
  type Blake2s,
  equalSecrets,
  hash,
  mac,
  nobleBlake2s,
  openCookie,
  sealCookie,
  useBlake2s,
} from "../../src/codec/hash.ts";
import { blake2s as noblesOwn } from "@noble/hashes/blake2.js";
import type { Primitives } from "../../src/codec/kernels.ts";
import { noble } from "../../src/codec/noble.ts";
import { nodeCrypto } from "../../src/codec/node_crypto.ts";
import {
  consumeResponse,
  createInitiation,
  createResponse,
  openInitiation,
  openTimestamp,
} from "../../src/session/wireguard/handshake.ts";
import { isLater, tai64n } from "../../src/wire/timestamp.ts";
import { Random } from "../kit/random.ts";

const hex = (text: string) => Uint8Array.fromHex(text.replaceAll(/\s/g, ""));
const ascii = (text: string) => new TextEncoder().encode(text);
const native = loadNative();
/** That the library loads where it should is kernels_test.ts's part. */
const IMPLEMENTATIONS: Primitives[] = [
  nodeCrypto,
  noble,
  ...(typeof native === "string" ? [] : [nativePrimitives(native)]),
];
const NOTHING = new Uint8Array(0);

const BLAKE2S: [string, Blake2s][] = [["noble", nobleBlake2s]];
if (typeof native !== "string") BLAKE2S.push(["native", nativeBlake2s(native)]);

for (const [name, blake2s] of BLAKE2S) {
  Deno.test(`${name}: RFC 7693 appendix B, BLAKE2s-256 of abc`, () => {
    assertEquals(
      blake2s.hash(ascii("abc")).toHex(),
      "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982",
    );
  });

  Deno.test(`${name}: hash and key derivation agree with OpenSSL's, whatever the length`, () => {
    const random = new Random(1);
    for (const length of [0, 1, 31, 32, 63, 64, 65, 127, 128, 129, 148, 1000]) {
      const key = new Uint8Array(32), input = new Uint8Array(length);
      random.fill(key);
      random.fill(input);
      assertEquals(blake2s.hash(input), new Uint8Array(createHash("blake2s256").update(input).digest()));
      // RFC 5869, written out.
      const secret = createHmac("blake2s256", key).update(input).digest();
      const expected: Uint8Array[] = [];
      for (const count of [1, 2, 3] as const) {
        const before = expected.at(-1) ?? new Uint8Array(0);
        const next = createHmac("blake2s256", secret).update(before).update(Uint8Array.of(count)).digest();
        expected.push(new Uint8Array(next));
        assertEquals(blake2s.deriveKeys(key, input, count), expected);
      }
    }
  });

  Deno.test(`${name}: keyed hashes agree with noble's, whose own vectors are BLAKE2's`, () => {
    const random = new Random(2);
    for (const keyLength of [16, 32]) {
      for (const length of [0, 1, 63, 64, 65, 116, 132, 1000]) {
        const key = new Uint8Array(keyLength), input = new Uint8Array(length);
        random.fill(key);
        random.fill(input);
        assertEquals(blake2s.mac(key, input), noblesOwn(input, { dkLen: 16, key }));
      }
    }
  });
}

Deno.test("parts are hashed as one, and whoever is chosen hashes them", () => {
  assertEquals(hash(ascii("a"), ascii("bc")), nobleBlake2s.hash(ascii("abc")));
  assertEquals(
    mac(ascii("a".repeat(32)), ascii("a"), ascii("bc")),
    nobleBlake2s.mac(ascii("a".repeat(32)), ascii("abc")),
  );
  const mark = Uint8Array.of(1, 2, 3);
  useBlake2s({ ...nobleBlake2s, hash: () => mark });
  try {
    assertEquals(hash(ascii("abc")), mark);
  } finally {
    useBlake2s(nobleBlake2s);
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

/**
 * A whole handshake and the first packet each way, made by another implementation: noiseprotocol 0.3.1 (PyPI), as
 * Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s with WireGuard's identifier as prologue and these fixed keys.
 */
const TRANSCRIPT = {
  initiatorStatic: "2a35404b56616c77828d98a3aeb9c4cfdae5f0fb06111c27323d48535e69747f",
  responderStatic: "4f5a65707b86919ca7b2bdc8d3dee9f4ff0a15202b36414c57626d78838e99a4",
  initiatorEphemeral: "747f8a95a0abb6c1ccd7e2edf8030e19242f3a45505b66717c87929da8b3bec9",
  responderEphemeral: "99a4afbac5d0dbe6f1fc07121d28333e49545f6a75808b96a1acb7c2cdd8e3ee",
  psk: "bec9d4dfeaf5000b16212c37424d58636e79848f9aa5b0bbc6d1dce7f2fd0813",
  timestamp: "400000006553f10a00000000",
  m1:
    "5e194dceac659c21c771b5441cd96dbbdd02d8233d6f679f79d2e8c7e5c61012cde063b698879565a1bd7ef987c61360a8006d829a49d807c488997d7e796bbab0611e6285092020a4888f8714b996f84da7b1bb1fc0a42e60d4f8c4c8b910d87ae53a603d53817f6a37c666",
  m2: "77e00c77c6a67485476e799513580c3489ddb42376b8d73b1f8cf98190bb4a57c570de7c48381eaffccad877d32407ff",
  ping: "2449734a56a1df876d7389d92f45f9458abbf3ae",
  pong: "9554c6c90b1452ea5eca33daf0a400c606bb5edd",
};

for (const primitives of IMPLEMENTATIONS) {
  Deno.test(`${primitives.name}: IKpsk2 gives the transcript that another implementation gave`, () => {
    const bytes = Object.fromEntries(
      Object.entries(TRANSCRIPT).map(([name, text]) => [name, Uint8Array.fromHex(text)]),
    );
    const { initiatorStatic, responderStatic, psk, timestamp } = bytes;
    const A = primitives.publicKey(initiatorStatic), B = primitives.publicKey(responderStatic);
    const secret = primitives.sharedSecret(initiatorStatic, B)!;
    const message = new Uint8Array(148), response = new Uint8Array(92);
    const state = createInitiation(
      primitives,
      message,
      A,
      B,
      secret,
      bytes.initiatorEphemeral.slice(),
      timestamp,
    )!;
    assertEquals(message.slice(8, 116).toHex(), TRANSCRIPT.m1);
    const opened = openInitiation(primitives, message, responderStatic, B)!;
    assertEquals(openTimestamp(primitives, message, opened, secret), timestamp);
    const theirs = createResponse(primitives, response, opened, psk, bytes.responderEphemeral.slice())!;
    assertEquals(response.slice(12, 60).toHex(), TRANSCRIPT.m2);
    const ours = consumeResponse(primitives, response, state, initiatorStatic, psk)!;
    const text = (word: string) => new TextEncoder().encode(word);
    assertEquals(primitives.seal(ours.sendKey, 0, text("ping"), new Uint8Array(0)).toHex(), TRANSCRIPT.ping);
    assertEquals(
      primitives.seal(theirs.sendKey, 0, text("pong"), new Uint8Array(0)).toHex(),
      TRANSCRIPT.pong,
    );
  });
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
