/**
 * Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s as WireGuard frames it (PROTOCOL §3; whitepaper §5.4): the four steps
 * of one handshake as functions over message bytes. Invariant: nothing outside the returned values changes, so
 * that an unauthenticated message leaves no trace. Does not know peers, indices' owners or time.
 * Keeps PROTOCOL R9.
 */
import type { Primitives } from "../codec/kernels.ts";
import { deriveKeys, hash } from "../codec/hash.ts";
import {
  INITIATION_EPHEMERAL_AT,
  INITIATION_STATIC_AT,
  INITIATION_TIMESTAMP_AT,
  RESPONSE_EMPTY_AT,
  RESPONSE_EPHEMERAL_AT,
  RESPONSE_MAC1_AT,
  TYPE_INITIATION,
  TYPE_RESPONSE,
} from "../wire/wireguard.ts";

const text = new TextEncoder();
const INITIAL_KEY = hash(text.encode("Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"));
const INITIAL_HASH = hash(INITIAL_KEY, text.encode("WireGuard v1 zx2c4 Jason@zx2c4.com"));
const NOTHING = new Uint8Array(0);

/** What an end keeps between the two messages. Secret; wipe with `wipeHandshake`. */
export interface HandshakeState {
  chainingKey: Uint8Array;
  hash: Uint8Array;
  /** Initiator: own ephemeral private key. Responder: the initiator's ephemeral public key. */
  ephemeral: Uint8Array;
}

/** The two transport keys of a finished handshake, named from this end. Secret. */
export interface TransportKeys {
  sendKey: Uint8Array;
  receiveKey: Uint8Array;
}

export function wipeHandshake(state: HandshakeState): void {
  state.chainingKey.fill(0);
  state.ephemeral.fill(0);
  state.hash.fill(0);
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

function replaceKey(state: HandshakeState, chainingKey: Uint8Array): void {
  state.chainingKey.fill(0);
  state.chainingKey = chainingKey;
}

/** HASH(public key of the responder) mixed into the start of every transcript with it. */
function start(responderStatic: Uint8Array): HandshakeState {
  return {
    chainingKey: new Uint8Array(INITIAL_KEY),
    hash: hash(INITIAL_HASH, responderStatic),
    ephemeral: NOTHING,
  };
}

/**
 * Writes an initiation (type, ephemeral, static, timestamp; not the indices and MACs) to `message`, 148 bytes.
 * @param staticSecret X25519 of both static keys.
 * @param ephemeralPrivate 32 fresh random bytes; kept in the state.
 * @param timestamp 12 bytes of TAI64N.
 * Returns undefined when the peer's key is a low-order point.
 */
export function createInitiation(
  primitives: Primitives,
  message: Uint8Array,
  staticPublic: Uint8Array,
  peerStatic: Uint8Array,
  staticSecret: Uint8Array,
  ephemeralPrivate: Uint8Array,
  timestamp: Uint8Array,
): HandshakeState | undefined {
  const state = start(peerStatic);
  const ephemeralPublic = primitives.publicKey(ephemeralPrivate);
  message.fill(0, 0, 4);
  message[0] = TYPE_INITIATION;
  message.set(ephemeralPublic, INITIATION_EPHEMERAL_AT);
  mix(state, ephemeralPublic);
  state.hash = hash(state.hash, ephemeralPublic);

  const ephemeralSecret = primitives.sharedSecret(ephemeralPrivate, peerStatic);
  if (!ephemeralSecret) return undefined;
  const staticKey = mixToKey(state, ephemeralSecret);
  const sealedStatic = primitives.seal(staticKey, 0, staticPublic, state.hash);
  message.set(sealedStatic, INITIATION_STATIC_AT);
  state.hash = hash(state.hash, sealedStatic);

  const timestampKey = mixToKey(state, staticSecret);
  const sealedTimestamp = primitives.seal(timestampKey, 0, timestamp, state.hash);
  message.set(sealedTimestamp, INITIATION_TIMESTAMP_AT);
  state.hash = hash(state.hash, sealedTimestamp);

  ephemeralSecret.fill(0);
  staticKey.fill(0);
  timestampKey.fill(0);
  state.ephemeral = ephemeralPrivate;
  return state;
}

/** An initiation whose static key has been opened, but whose timestamp has not yet proved it. */
export interface OpenedInitiation {
  state: HandshakeState;
  peerStatic: Uint8Array;
}

/** Opens the initiator's static key, or returns undefined. One X25519. The caller looks the peer up. */
export function openInitiation(
  primitives: Primitives,
  message: Uint8Array,
  staticPrivate: Uint8Array,
  staticPublic: Uint8Array,
): OpenedInitiation | undefined {
  const state = start(staticPublic);
  const ephemeral = message.slice(INITIATION_EPHEMERAL_AT, INITIATION_STATIC_AT);
  mix(state, ephemeral);
  state.hash = hash(state.hash, ephemeral);
  const secret = primitives.sharedSecret(staticPrivate, ephemeral);
  if (!secret) {
    wipeHandshake(state);
    return undefined;
  }
  const key = mixToKey(state, secret);
  secret.fill(0);
  const sealed = message.slice(INITIATION_STATIC_AT, INITIATION_TIMESTAMP_AT);
  const peerStatic = primitives.open(key, 0, sealed, state.hash);
  key.fill(0);
  if (!peerStatic) {
    wipeHandshake(state);
    return undefined;
  }
  state.hash = hash(state.hash, sealed);
  state.ephemeral = ephemeral;
  return { state, peerStatic: new Uint8Array(peerStatic) };
}

/** Opens the timestamp with the static secret of the peer that was found: this authenticates the initiation. */
export function openTimestamp(
  primitives: Primitives,
  message: Uint8Array,
  opened: OpenedInitiation,
  staticSecret: Uint8Array,
): Uint8Array | undefined {
  const { state } = opened;
  const key = mixToKey(state, staticSecret);
  const sealed = message.slice(INITIATION_TIMESTAMP_AT, INITIATION_TIMESTAMP_AT + 28);
  const timestamp = primitives.open(key, 0, sealed, state.hash);
  key.fill(0);
  if (!timestamp) return undefined;
  state.hash = hash(state.hash, sealed);
  return new Uint8Array(timestamp);
}

/**
 * Writes a response (type, ephemeral, empty; not the indices and MACs) to `message`, 92 bytes, and returns the
 * responder's transport keys. The state is wiped.
 */
export function createResponse(
  primitives: Primitives,
  message: Uint8Array,
  opened: OpenedInitiation,
  presharedKey: Uint8Array,
  ephemeralPrivate: Uint8Array,
): TransportKeys | undefined {
  const { state, peerStatic } = opened;
  const ephemeralPublic = primitives.publicKey(ephemeralPrivate);
  message.fill(0, 0, 4);
  message[0] = TYPE_RESPONSE;
  message.set(ephemeralPublic, RESPONSE_EPHEMERAL_AT);
  state.hash = hash(state.hash, ephemeralPublic);
  mix(state, ephemeralPublic);
  const ephemeralSecret = primitives.sharedSecret(ephemeralPrivate, state.ephemeral);
  const staticSecret = primitives.sharedSecret(ephemeralPrivate, peerStatic);
  ephemeralPrivate.fill(0);
  if (!ephemeralSecret || !staticSecret) {
    ephemeralSecret?.fill(0);
    staticSecret?.fill(0);
    return undefined; // the caller wipes the state
  }
  mix(state, ephemeralSecret);
  mix(state, staticSecret);
  ephemeralSecret.fill(0);
  staticSecret.fill(0);
  const key = mixPresharedKey(state, presharedKey);
  message.set(primitives.seal(key, 0, NOTHING, state.hash), RESPONSE_EMPTY_AT);
  key.fill(0);
  const [receiveKey, sendKey] = deriveKeys(state.chainingKey, NOTHING, 2);
  wipeHandshake(state);
  return { sendKey, receiveKey };
}

/**
 * Verifies a response against the state of the initiation that it answers; undefined, with the state untouched,
 * when it is not authentic. On success the state is wiped.
 */
export function consumeResponse(
  primitives: Primitives,
  message: Uint8Array,
  kept: HandshakeState,
  staticPrivate: Uint8Array,
  presharedKey: Uint8Array,
): TransportKeys | undefined {
  const state: HandshakeState = { ...kept, chainingKey: kept.chainingKey.slice() };
  const ephemeral = message.slice(RESPONSE_EPHEMERAL_AT, RESPONSE_EMPTY_AT);
  state.hash = hash(state.hash, ephemeral);
  mix(state, ephemeral);
  const ephemeralSecret = primitives.sharedSecret(kept.ephemeral, ephemeral);
  const staticSecret = primitives.sharedSecret(staticPrivate, ephemeral);
  if (!ephemeralSecret || !staticSecret) {
    ephemeralSecret?.fill(0);
    staticSecret?.fill(0);
    state.chainingKey.fill(0);
    return undefined;
  }
  mix(state, ephemeralSecret);
  mix(state, staticSecret);
  ephemeralSecret.fill(0);
  staticSecret.fill(0);
  const key = mixPresharedKey(state, presharedKey);
  const empty = primitives.open(key, 0, message.slice(RESPONSE_EMPTY_AT, RESPONSE_MAC1_AT), state.hash);
  key.fill(0);
  if (!empty) {
    state.chainingKey.fill(0);
    return undefined;
  }
  const [sendKey, receiveKey] = deriveKeys(state.chainingKey, NOTHING, 2);
  state.chainingKey.fill(0);
  wipeHandshake(kept);
  return { sendKey, receiveKey };
}

function mixPresharedKey(state: HandshakeState, presharedKey: Uint8Array): Uint8Array {
  const [chainingKey, temporary, key] = deriveKeys(state.chainingKey, presharedKey, 3);
  replaceKey(state, chainingKey);
  state.hash = hash(state.hash, temporary);
  temporary.fill(0);
  return key;
}

/** TAI64N of a Unix time in microseconds: 12 bytes, big-endian, in the order of time (whitepaper §5.1). */
export function tai64n(unixUs: number): Uint8Array {
  const out = new Uint8Array(12);
  const view = new DataView(out.buffer);
  const seconds = Math.floor(unixUs / 1_000_000);
  // 2^62 + 10 s: the label's base and TAI's offset at the Unix epoch.
  view.setUint32(0, 0x40000000 + Math.floor((seconds + 10) / 4294967296));
  view.setUint32(4, (seconds + 10) >>> 0);
  view.setUint32(8, Math.floor(unixUs - seconds * 1_000_000) * 1000);
  return out;
}

/** Whether timestamp `a` is later than `b`, both 12 bytes; they are not secret. */
export function isLater(a: Uint8Array, b: Uint8Array): boolean {
  for (let i = 0; i < 12; i++) {
    if (a[i] !== b[i]) return a[i] > b[i];
  }
  return false;
}
