/**
 * Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s (Noise revision 34 §7.5, §9.4): the steps of one handshake as functions over
 * message bytes, for both protocols of the port, whose messages have their fields in the same places. Invariant:
 * nothing outside the returned values changes, so that an unauthenticated message leaves no trace. Does not know
 * peers, indices' owners, time, or what payloads mean.
 * Keeps PROTOCOL R9.
 */
import type { Primitives } from "../codec/kernels.ts";
import { deriveKeys, hash } from "../codec/hash.ts";

const text = new TextEncoder();
/** The first chaining key: HASH of Noise's name for all this. */
export const INITIAL_KEY = hash(text.encode("Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"));

// Offsets of fields, the same in both protocols.
const INITIATION_EPHEMERAL_AT = 8;
const INITIATION_STATIC_AT = 40;
const INITIATION_PAYLOAD_AT = 88;
const RESPONSE_EPHEMERAL_AT = 12;
const RESPONSE_PAYLOAD_AT = 44;
const TAG_BYTES = 16;
const NOTHING = new Uint8Array(0);

/** `count` random bytes in an array of their own, as a handshake's ephemeral private key is. */
export function freshBytes(random: (bytes: Uint8Array) => void, count: number): Uint8Array {
  const bytes = new Uint8Array(count);
  random(bytes);
  return bytes;
}

/** What tells two protocols' transcripts apart. */
export interface Transcript {
  /** The hash before the responder's public key, with the protocol's prologue in it. */
  readonly initialHash: Uint8Array;
  /** Whether each message's bytes in front of its ephemeral key enter the hash first. */
  readonly bindsHeaders: boolean;
}

/** What an end keeps between the two messages. Secret; wipe with `wipeHandshake`. */
export interface HandshakeState {
  chainingKey: Uint8Array;
  hash: Uint8Array;
  /** Initiator: own ephemeral private key. Responder: the initiator's ephemeral public key. */
  ephemeral: Uint8Array;
}

export function wipeHandshake(state: HandshakeState): void {
  state.chainingKey.fill(0);
  state.ephemeral.fill(0);
  state.hash.fill(0);
}

function start(
  transcript: Transcript,
  responderStatic: Uint8Array,
  message: Uint8Array,
): HandshakeState {
  const state = {
    chainingKey: new Uint8Array(INITIAL_KEY),
    hash: hash(transcript.initialHash, responderStatic),
    ephemeral: NOTHING,
  };
  mixHeader(state, transcript, message, INITIATION_EPHEMERAL_AT);
  return state;
}

function mixHeader(
  state: HandshakeState,
  { bindsHeaders }: Transcript,
  message: Uint8Array,
  end: number,
): void {
  if (bindsHeaders) state.hash = hash(state.hash, message.subarray(0, end));
}

function mix(state: HandshakeState, input: Uint8Array): void {
  const [chainingKey] = deriveKeys(state.chainingKey, input, 1);
  replaceKey(state, chainingKey);
}

function mixToKey(state: HandshakeState, input: Uint8Array): Uint8Array {
  const [chainingKey, key] = deriveKeys(state.chainingKey, input, 2);
  replaceKey(state, chainingKey);
  return key;
}

function mixPresharedKey(state: HandshakeState, presharedKey: Uint8Array): Uint8Array {
  const [chainingKey, temporary, key] = deriveKeys(state.chainingKey, presharedKey, 3);
  replaceKey(state, chainingKey);
  state.hash = hash(state.hash, temporary);
  temporary.fill(0);
  return key;
}

function replaceKey(state: HandshakeState, chainingKey: Uint8Array): void {
  state.chainingKey.fill(0);
  state.chainingKey = chainingKey;
}

/** Seals one field under `key`, writes it, takes it into the hash and wipes the key. */
function sealInto(
  primitives: Primitives,
  state: HandshakeState,
  key: Uint8Array,
  plaintext: Uint8Array,
  message: Uint8Array,
  at: number,
): void {
  const sealed = primitives.seal(key, 0, plaintext, state.hash);
  key.fill(0);
  message.set(sealed, at);
  state.hash = hash(state.hash, sealed);
}

/** The plaintext of one field, taken into the hash, or undefined. Wipes the key. */
function openFrom(
  primitives: Primitives,
  state: HandshakeState,
  key: Uint8Array,
  message: Uint8Array,
  at: number,
  plaintextBytes: number,
): Uint8Array | undefined {
  const sealed = message.slice(at, at + plaintextBytes + TAG_BYTES);
  const plaintext = primitives.open(key, 0, sealed, state.hash);
  key.fill(0);
  if (!plaintext) return undefined;
  state.hash = hash(state.hash, sealed);
  return new Uint8Array(plaintext);
}

/**
 * Writes an initiation from its ephemeral key to its sealed payload; what is in front of them is there already, and
 * the MACs are not written.
 * @param staticSecret X25519 of both static keys.
 * @param ephemeralPrivate 32 fresh random bytes; kept in the state.
 * Returns undefined when the peer's key is a low-order point.
 */
export function writeInitiation(
  transcript: Transcript,
  primitives: Primitives,
  message: Uint8Array,
  staticPublic: Uint8Array,
  peerStatic: Uint8Array,
  staticSecret: Uint8Array,
  ephemeralPrivate: Uint8Array,
  payload: Uint8Array,
): HandshakeState | undefined {
  const state = start(transcript, peerStatic, message);
  const ephemeralPublic = primitives.publicKey(ephemeralPrivate);
  message.set(ephemeralPublic, INITIATION_EPHEMERAL_AT);
  mix(state, ephemeralPublic);
  state.hash = hash(state.hash, ephemeralPublic);
  const secret = primitives.sharedSecret(ephemeralPrivate, peerStatic);
  if (!secret) return undefined;
  const staticKey = mixToKey(state, secret);
  secret.fill(0);
  sealInto(primitives, state, staticKey, staticPublic, message, INITIATION_STATIC_AT);
  sealInto(primitives, state, mixToKey(state, staticSecret), payload, message, INITIATION_PAYLOAD_AT);
  state.ephemeral = ephemeralPrivate;
  return state;
}

/** An initiation whose static key has been opened, but whose payload has not yet proved it. */
export interface OpenedInitiation {
  state: HandshakeState;
  peerStatic: Uint8Array;
}

/** Opens the initiator's static key, or returns undefined. One X25519. The caller looks the peer up. */
export function readInitiation(
  transcript: Transcript,
  primitives: Primitives,
  message: Uint8Array,
  staticPrivate: Uint8Array,
  staticPublic: Uint8Array,
): OpenedInitiation | undefined {
  const state = start(transcript, staticPublic, message);
  const ephemeral = message.slice(INITIATION_EPHEMERAL_AT, INITIATION_STATIC_AT);
  mix(state, ephemeral);
  state.hash = hash(state.hash, ephemeral);
  const secret = primitives.sharedSecret(staticPrivate, ephemeral);
  const key = secret && mixToKey(state, secret);
  secret?.fill(0);
  const peerStatic = key && openFrom(primitives, state, key, message, INITIATION_STATIC_AT, 32);
  if (!peerStatic) {
    wipeHandshake(state);
    return undefined;
  }
  state.ephemeral = ephemeral;
  return { state, peerStatic };
}

/**
 * Opens the payload with the static secret of the peer that was found: this authenticates the initiation. Undefined,
 * with the state left to the caller to wipe, when it does not.
 */
export function readInitiationPayload(
  primitives: Primitives,
  message: Uint8Array,
  { state }: OpenedInitiation,
  staticSecret: Uint8Array,
  payloadBytes: number,
): Uint8Array | undefined {
  const key = mixToKey(state, staticSecret);
  return openFrom(primitives, state, key, message, INITIATION_PAYLOAD_AT, payloadBytes);
}

/** Mixes in what both ephemeral keys add, wiping `own`'s secrets; false when a point was of low order (PROTOCOL R6). */
function mixSecrets(
  state: HandshakeState,
  ephemeralSecret: Uint8Array | undefined,
  staticSecret: Uint8Array | undefined,
): boolean {
  const both = ephemeralSecret !== undefined && staticSecret !== undefined;
  if (both) {
    mix(state, ephemeralSecret);
    mix(state, staticSecret);
  }
  ephemeralSecret?.fill(0);
  staticSecret?.fill(0);
  return both;
}

/**
 * Writes a response from its ephemeral key to its sealed payload, with the bytes in front of them already there, and
 * brings `opened.state` to its end. False, with the state left to the caller to wipe, for a low-order point.
 * @param ephemeralPrivate 32 fresh random bytes; wiped.
 */
export function writeResponse(
  transcript: Transcript,
  primitives: Primitives,
  message: Uint8Array,
  { state, peerStatic }: OpenedInitiation,
  presharedKey: Uint8Array,
  ephemeralPrivate: Uint8Array,
  payload: Uint8Array,
): boolean {
  const ephemeralPublic = primitives.publicKey(ephemeralPrivate);
  message.set(ephemeralPublic, RESPONSE_EPHEMERAL_AT);
  mixHeader(state, transcript, message, RESPONSE_EPHEMERAL_AT);
  state.hash = hash(state.hash, ephemeralPublic);
  mix(state, ephemeralPublic);
  const ephemeralSecret = primitives.sharedSecret(ephemeralPrivate, state.ephemeral);
  const staticSecret = primitives.sharedSecret(ephemeralPrivate, peerStatic);
  ephemeralPrivate.fill(0);
  if (!mixSecrets(state, ephemeralSecret, staticSecret)) return false;
  const key = mixPresharedKey(state, presharedKey);
  sealInto(primitives, state, key, payload, message, RESPONSE_PAYLOAD_AT);
  return true;
}

/**
 * Opens the payload of a response against the state of the initiation that it answers. The finished state, which the
 * caller wipes, is another one; `kept` stays as it is, for the response that may come after a forged one.
 */
export function readResponse(
  transcript: Transcript,
  primitives: Primitives,
  message: Uint8Array,
  kept: HandshakeState,
  staticPrivate: Uint8Array,
  presharedKey: Uint8Array,
  payloadBytes: number,
): { state: HandshakeState; payload: Uint8Array } | undefined {
  const state = { chainingKey: kept.chainingKey.slice(), hash: kept.hash, ephemeral: NOTHING };
  const ephemeral = message.slice(RESPONSE_EPHEMERAL_AT, RESPONSE_PAYLOAD_AT);
  mixHeader(state, transcript, message, RESPONSE_EPHEMERAL_AT);
  state.hash = hash(state.hash, ephemeral);
  mix(state, ephemeral);
  const ephemeralSecret = primitives.sharedSecret(kept.ephemeral, ephemeral);
  const staticSecret = primitives.sharedSecret(staticPrivate, ephemeral);
  const payload = mixSecrets(state, ephemeralSecret, staticSecret)
    ? openFrom(
      primitives,
      state,
      mixPresharedKey(state, presharedKey),
      message,
      RESPONSE_PAYLOAD_AT,
      payloadBytes,
    )
    : undefined;
  if (payload) return { state, payload };
  state.chainingKey.fill(0);
  return undefined;
}
