/**
 * OxTunnel's handshake against a second implementation, written here straight from PROTOCOL §10 over the noble
 * packages: the same fixed keys give the same bytes and the same secrets, for every implementation of the
 * primitives. Held besides: a changed byte anywhere, the other protocol's prologue or a wrong preshared key ends it.
 */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { chacha20poly1305 } from "@noble/ciphers/chacha.js";
import { x25519 } from "@noble/curves/ed25519.js";
import { blake2s } from "@noble/hashes/blake2.js";
import { hkdf } from "@noble/hashes/hkdf.js";
import { loadNative } from "../../ffi/native.ts";
import type { Primitives } from "../../src/codec/kernels.ts";
import { nativePrimitives } from "../../src/codec/native.ts";
import { noble } from "../../src/codec/noble.ts";
import { nodeCrypto } from "../../src/codec/node_crypto.ts";
import { createInitiation, openInitiation } from "../../src/session/wireguard/handshake.ts";
import { tai64n } from "../../src/wire/timestamp.ts";
import {
  consumeOxResponse,
  createOxInitiation,
  createOxResponse,
  epochSecrets,
  openOxInitiation,
  openOxPayload,
  oxResponseBytes,
  takeOxEarlyData,
} from "../../src/session/oxtunnel/handshake.ts";
import { Random } from "../kit/random.ts";

const native = loadNative();
const IMPLEMENTATIONS: Primitives[] = [
  nodeCrypto,
  noble,
  ...(typeof native === "string" ? [] : [nativePrimitives(native)]),
];
const ascii = (text: string) => new TextEncoder().encode(text);
const join = (...parts: Uint8Array[]) => Uint8Array.from(parts.flatMap((part) => [...part]));
const H = (...parts: Uint8Array[]): Uint8Array => blake2s(join(...parts));
/** KDFn: RFC 5869 with the chaining key as salt and no info. */
const KDF = (key: Uint8Array, input: Uint8Array, n: number): Uint8Array[] => {
  const out = hkdf(blake2s, input, key, new Uint8Array(0), 32 * n);
  return Array.from({ length: n }, (_, i) => out.slice(32 * i, 32 * i + 32));
};
const seal = (key: Uint8Array, text: Uint8Array, h: Uint8Array) =>
  chacha20poly1305(key, new Uint8Array(12), h).encrypt(text);

const fixed = (first: number) => Uint8Array.from({ length: 32 }, (_, i) => (first + 7 * i) & 255);
const KEYS = {
  initiator: fixed(1),
  responder: fixed(60),
  initiatorEphemeral: fixed(120),
  responderEphemeral: fixed(180),
  psk: fixed(240),
};
const SENDER = 0x10aabbcc, ANSWERER = 0x20ddeeff;
const TIMESTAMP = tai64n(1_700_000_000_250_000);
const PARAMETERS = Uint8Array.of(0x01, 4, 0x41, 0, 0, 0, 0x81, 1, 1);
const ANSWER = Uint8Array.of(0x81, 1, 1, 0x04, 2, 0x8c, 5);
const LENGTH = 512;

/** PROTOCOL §10, line by line. */
function fromTheText(early?: { plaintext: Uint8Array; ticketSecret: Uint8Array }) {
  const { initiator, responder, initiatorEphemeral, responderEphemeral, psk } = KEYS;
  const S = x25519.getPublicKey(initiator), R = x25519.getPublicKey(responder);
  const E = x25519.getPublicKey(initiatorEphemeral), F = x25519.getPublicKey(responderEphemeral);
  let ck: Uint8Array = H(ascii("Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s")), k: Uint8Array, t: Uint8Array;
  let h = H(H(ck, ascii("OxTunnel 1")), R);
  const earlyBytes = early ? early.plaintext.length + 16 : 0;
  const header = Uint8Array.of(0xc1, 1, earlyBytes & 255, earlyBytes >> 8, 0xcc, 0xbb, 0xaa, 0x10);
  h = H(h, header);
  [ck] = KDF(ck, E, 1);
  h = H(h, E);
  [ck, k] = KDF(ck, x25519.getSharedSecret(initiatorEphemeral, R), 2);
  const sealedStatic = seal(k, S, h);
  h = H(h, sealedStatic);
  [ck, k] = KDF(ck, x25519.getSharedSecret(initiator, R), 2);
  const payload = new Uint8Array(LENGTH - 88 - 16 - 32 - earlyBytes);
  payload.set(join(TIMESTAMP, PARAMETERS));
  const sealedPayload = seal(k, payload, h);
  h = H(h, sealedPayload);
  let sealedEarly = new Uint8Array(0);
  if (early) {
    sealedEarly = Uint8Array.from(
      seal(KDF(ck, join(ascii("ox early"), early.ticketSecret), 1)[0], early.plaintext, h),
    );
    h = H(h, sealedEarly);
  }
  const initiation = join(header, E, sealedStatic, sealedPayload, sealedEarly);

  const answer = Uint8Array.of(0xc2, 1, 0, 0, 0xff, 0xee, 0xdd, 0x20, 0xcc, 0xbb, 0xaa, 0x10);
  h = H(h, answer);
  h = H(h, F);
  [ck] = KDF(ck, F, 1);
  [ck] = KDF(ck, x25519.getSharedSecret(responderEphemeral, E), 1);
  [ck] = KDF(ck, x25519.getSharedSecret(responderEphemeral, S), 1);
  [ck, t, k] = KDF(ck, psk, 3);
  h = H(h, t);
  const sealedAnswer = seal(k, ANSWER, h);
  h = H(h, sealedAnswer);
  const [secret] = KDF(ck, join(ascii("ox epoch"), h), 1);
  const [sendI, sendR, chain] = KDF(secret, ascii("ox keys"), 3);
  const [protectI, protectR] = KDF(secret, ascii("ox header"), 2);
  return { initiation, response: join(answer, F, sealedAnswer), sendI, sendR, chain, protectI, protectR };
}

const EARLY = { plaintext: Uint8Array.of(0x80, 1, 0x45, 0, 7), ticketSecret: fixed(77) };

function begin(primitives: Primitives, early?: typeof EARLY) {
  const message = new Uint8Array(LENGTH);
  const { initiator, responder, initiatorEphemeral } = KEYS;
  const S = primitives.publicKey(initiator), R = primitives.publicKey(responder);
  const staticSecret = primitives.sharedSecret(initiator, R)!;
  const ephemeral = initiatorEphemeral.slice();
  const state = createOxInitiation(
    primitives,
    message,
    SENDER,
    S,
    R,
    staticSecret,
    ephemeral,
    TIMESTAMP,
    PARAMETERS,
    early,
  )!;
  return { message, state, S, R, staticSecret };
}

function answer(primitives: Primitives, message: Uint8Array, psk = KEYS.psk, ticketSecret?: Uint8Array) {
  const { responder, responderEphemeral } = KEYS;
  const R = primitives.publicKey(responder);
  const opened = openOxInitiation(primitives, message, responder, R);
  if (!opened) return undefined;
  const staticSecret = primitives.sharedSecret(responder, opened.peerStatic)!;
  const payload = openOxPayload(primitives, message, opened, staticSecret);
  if (!payload) return undefined;
  const early = takeOxEarlyData(primitives, message, opened, ticketSecret);
  const response = new Uint8Array(oxResponseBytes(ANSWER.length));
  const secrets = createOxResponse(
    primitives,
    response,
    ANSWERER,
    SENDER,
    opened,
    psk,
    responderEphemeral.slice(),
    ANSWER,
  )!;
  return { response, secrets, payload, early, state: opened.state };
}

for (const primitives of IMPLEMENTATIONS) {
  Deno.test(`${primitives.name}: OxTunnel's handshake is what the text says`, () => {
    const expected = fromTheText();
    const { message, state } = begin(primitives);
    assertEquals(message.slice(0, LENGTH - 32), expected.initiation);
    const { response, secrets, payload, state: responderState } = answer(primitives, message)!;
    assertEquals(payload.slice(0, 12 + PARAMETERS.length), join(TIMESTAMP, PARAMETERS));
    assertEquals(response.slice(0, -32), expected.response);
    assertEquals(secrets, {
      sendKey: expected.sendR,
      receiveKey: expected.sendI,
      chain: expected.chain,
      sendProtect: expected.protectR,
      receiveProtect: expected.protectI,
    });
    assertEquals(responderState.chainingKey, new Uint8Array(32), "the responder's state is wiped");
    const finished = consumeOxResponse(primitives, response, state, KEYS.initiator, KEYS.psk)!;
    assertEquals(finished.parameters, ANSWER);
    assertEquals(finished.secrets, {
      sendKey: expected.sendI,
      receiveKey: expected.sendR,
      chain: expected.chain,
      sendProtect: expected.protectI,
      receiveProtect: expected.protectR,
    });
    for (const secret of [state.chainingKey, state.hash, state.ephemeral]) {
      assertEquals(secret, new Uint8Array(32), "the initiator's state is wiped");
    }
  });
}

for (const primitives of IMPLEMENTATIONS) {
  Deno.test(`${primitives.name}: OxTunnel's early data is what the text says, taken or not`, () => {
    const expected = fromTheText(EARLY);
    const { message, state } = begin(primitives, EARLY);
    assertEquals(message.slice(0, LENGTH - 32), expected.initiation);
    for (const [secret, text] of [[EARLY.ticketSecret, EARLY.plaintext], [fixed(78)], [undefined]]) {
      const { response, secrets, early } = answer(primitives, message, KEYS.psk, secret)!;
      assertEquals(early && new Uint8Array(early), text);
      assertEquals(response.slice(0, -32), expected.response, "it is in the transcript all the same");
      assertEquals(secrets.chain, expected.chain);
    }
    const changed = message.slice();
    changed[LENGTH - 33] ^= 1;
    const { response, early } = answer(primitives, changed, KEYS.psk, EARLY.ticketSecret)!;
    assertEquals(early, undefined);
    assertEquals(consumeOxResponse(primitives, response, state, KEYS.initiator, KEYS.psk), undefined);
  });
}

Deno.test("OxTunnel's handshake: fixed keys give these bytes for ever", () => {
  assertEquals(
    H(fromTheText(EARLY).initiation).toHex(),
    "dc1a3b44b10e657563262fa6699983543ed7057f989e46d14cfb71041bb73808",
  );
  const { initiation, response, chain } = fromTheText();
  assertEquals(H(initiation).toHex(), "6536717174f40415718feaf27ceff4bf6bdf16e5581e8421692e83a8b8a5df2d");
  assertEquals(H(response).toHex(), "ab8353ebdae708f81b877fc4a0a8e2462d14ed58c854619335922ec7f46bea49");
  assertEquals(chain.toHex(), "754a94513edec9f5c41b42d64bda528c1ec35ba5d6d67b686bde39d73bf0f401");
});

Deno.test("OxTunnel's handshake: a bit that changed anywhere ends it", () => {
  const { message, state } = begin(nodeCrypto);
  const { response } = answer(nodeCrypto, message)!;
  const random = new Random(3);
  for (let at = 0; at < LENGTH - 32; at += at < 100 ? 1 : 17) {
    // The length of early data decides where fields lie, and is bound all the same.
    if (at === 2 || at === 3) continue;
    const changed = message.slice();
    changed[at] ^= 1 << (random.u32() & 7);
    assertEquals(answer(nodeCrypto, changed), undefined, `initiation, byte ${at}`);
  }
  for (let at = 0; at < response.length - 32; at++) {
    const changed = response.slice();
    changed[at] ^= 1 << (random.u32() & 7);
    const finished = consumeOxResponse(nodeCrypto, changed, state, KEYS.initiator, KEYS.psk);
    assertEquals(finished, undefined, `response, byte ${at}`);
  }
  assert(
    consumeOxResponse(nodeCrypto, response, state, KEYS.initiator, KEYS.psk),
    "and the true one still ends it",
  );
});

Deno.test("OxTunnel's handshake: a wrong preshared key, or WireGuard's transcript, leads nowhere", () => {
  const { message, state, S, R, staticSecret } = begin(nodeCrypto);
  const { response } = answer(nodeCrypto, message, fixed(9))!;
  assertEquals(consumeOxResponse(nodeCrypto, response, state, KEYS.initiator, KEYS.psk), undefined);
  assertEquals(openInitiation(nodeCrypto, message, KEYS.responder, R), undefined);
  const other = new Uint8Array(LENGTH);
  createInitiation(nodeCrypto, other, S, R, staticSecret, KEYS.initiatorEphemeral.slice(), TIMESTAMP);
  assertEquals(openOxInitiation(nodeCrypto, other, KEYS.responder, R), undefined);
});

Deno.test("OxTunnel's epochs: both ends derive the same keys, and the secret is wiped", () => {
  const secret = fixed(33);
  const [sendI, sendR, chain] = KDF(secret, ascii("ox keys"), 3);
  assertEquals(epochSecrets(secret.slice(), true), { sendKey: sendI, receiveKey: sendR, chain });
  assertEquals(epochSecrets(secret, false), { sendKey: sendR, receiveKey: sendI, chain });
  assertEquals(secret, new Uint8Array(32));
  assertNotEquals(sendI, sendR);
});
