/**
 * OxTunnel's handshake (PROTOCOL §10) on top of noise.ts: its prologue, clear headers, payloads and secrets. Invariant:
 * nothing outside the returned values changes, so that an unauthenticated message leaves no trace; a message is
 * written with its clear header first, since the hash begins with it. Does not read parameters, nor know peers or
 * time.
 * Keeps PROTOCOL R26 and R32.
 */
import type { Primitives } from "../../codec/kernels.ts";
import { deriveKeys, hash } from "../../codec/hash.ts";
import {
  initiationPayloadBytes,
  KIND_INITIATION,
  KIND_RESPONSE,
  OX_RESPONSE_MIN_BYTES,
  OX_RESPONSE_RECEIVER_AT,
  OX_SENDER_AT,
  OX_TAG_BYTES,
  OX_TIMESTAMP_BYTES,
  oxMac1At,
  readEarlyBytes,
  writeLongHeader,
} from "../../wire/oxtunnel.ts";
import {
  type HandshakeState,
  INITIAL_KEY,
  type OpenedInitiation,
  readInitiation,
  readInitiationPayload,
  readResponse,
  type Transcript,
  wipeHandshake,
  writeInitiation,
  writeResponse,
} from "../noise.ts";

const text = new TextEncoder();
const OXTUNNEL: Transcript = {
  initialHash: hash(INITIAL_KEY, text.encode("OxTunnel 1")),
  bindsHeaders: true,
};
const EPOCH_LABEL = text.encode("ox epoch");
const KEYS_LABEL = text.encode("ox keys");
const HEADER_LABEL = text.encode("ox header");
const EARLY_LABEL = text.encode("ox early");

/** The keys of one epoch, named from this end, and what the next epoch's are made from. All secret. */
export interface EpochSecrets {
  sendKey: Uint8Array;
  receiveKey: Uint8Array;
  chain: Uint8Array;
}

/** What a finished handshake yields. All secret. */
export interface SessionSecrets extends EpochSecrets {
  sendProtect: Uint8Array;
  receiveProtect: Uint8Array;
}

export function wipeSecrets(secrets: SessionSecrets): void {
  for (const bytes of Object.values(secrets)) bytes.fill(0);
}

/** The keys of an epoch from its secret (PROTOCOL §10, §15); `secret` is wiped. */
export function epochSecrets(secret: Uint8Array, isInitiator: boolean): EpochSecrets {
  const [ofInitiator, ofResponder, chain] = deriveKeys(secret, KEYS_LABEL, 3);
  secret.fill(0);
  return isInitiator
    ? { sendKey: ofInitiator, receiveKey: ofResponder, chain }
    : { sendKey: ofResponder, receiveKey: ofInitiator, chain };
}

/** The session's first secrets from a handshake's last state, which is wiped. */
function sessionSecrets(state: HandshakeState, isInitiator: boolean): SessionSecrets {
  const input = new Uint8Array(EPOCH_LABEL.length + state.hash.length);
  input.set(EPOCH_LABEL);
  input.set(state.hash, EPOCH_LABEL.length);
  const [secret] = deriveKeys(state.chainingKey, input, 1);
  wipeHandshake(state);
  input.fill(0);
  const [ofInitiator, ofResponder] = deriveKeys(secret, HEADER_LABEL, 2);
  const protect = isInitiator
    ? { sendProtect: ofInitiator, receiveProtect: ofResponder }
    : { sendProtect: ofResponder, receiveProtect: ofInitiator };
  return { ...epochSecrets(secret, isInitiator), ...protect };
}

function viewOf(message: Uint8Array): DataView {
  return new DataView(message.buffer, message.byteOffset, message.byteLength);
}

/** The key of early data (PROTOCOL §16), from the state after the initiation's payload; the caller wipes it. */
function earlyKey({ chainingKey }: HandshakeState, ticketSecret: Uint8Array): Uint8Array {
  const input = new Uint8Array(EARLY_LABEL.length + ticketSecret.length);
  input.set(EARLY_LABEL);
  input.set(ticketSecret, EARLY_LABEL.length);
  const [key] = deriveKeys(chainingKey, input, 1);
  input.fill(0);
  return key;
}

/**
 * Writes an initiation, all but its MACs. `message` is as long as it shall be, 512 to 1200 bytes, and has room for all.
 * @param staticSecret X25519 of both static keys.
 * @param ephemeralPrivate 32 fresh random bytes; kept in the state.
 * @param timestamp 12 bytes of TAI64N.
 * @param parameters as writeParameters made them; padded with zeros to the message's length.
 * @param early a plaintext of 1 byte and more, and the secret of the ticket among the parameters.
 * Returns undefined when the peer's key is a low-order point.
 */
export function createOxInitiation(
  primitives: Primitives,
  message: Uint8Array,
  sender: number,
  staticPublic: Uint8Array,
  peerStatic: Uint8Array,
  staticSecret: Uint8Array,
  ephemeralPrivate: Uint8Array,
  timestamp: Uint8Array,
  parameters: Uint8Array,
  early?: { plaintext: Uint8Array; ticketSecret: Uint8Array },
): HandshakeState | undefined {
  const view = viewOf(message);
  const earlyBytes = early === undefined ? 0 : early.plaintext.length + OX_TAG_BYTES;
  writeLongHeader(view, 0, KIND_INITIATION, earlyBytes);
  view.setUint32(OX_SENDER_AT, sender, true);
  const payload = new Uint8Array(OX_TIMESTAMP_BYTES + initiationPayloadBytes(view, 0, message.length));
  payload.set(timestamp);
  payload.set(parameters, OX_TIMESTAMP_BYTES);
  const state = writeInitiation(
    OXTUNNEL,
    primitives,
    message,
    staticPublic,
    peerStatic,
    staticSecret,
    ephemeralPrivate,
    payload,
  );
  if (!state || !early) return state;
  const key = earlyKey(state, early.ticketSecret);
  const sealed = primitives.seal(key, 0, early.plaintext, state.hash);
  key.fill(0);
  message.set(sealed, oxMac1At(message.length) - earlyBytes);
  state.hash = hash(state.hash, sealed);
  return state;
}

/** Opens the initiator's static key, or returns undefined. One X25519. The caller looks the peer up. */
export function openOxInitiation(
  primitives: Primitives,
  message: Uint8Array,
  staticPrivate: Uint8Array,
  staticPublic: Uint8Array,
): OpenedInitiation | undefined {
  return readInitiation(OXTUNNEL, primitives, message, staticPrivate, staticPublic);
}

/**
 * Opens the payload, timestamp and parameters, with the static secret of the peer that was found: this authenticates
 * the initiation.
 */
export function openOxPayload(
  primitives: Primitives,
  message: Uint8Array,
  opened: OpenedInitiation,
  staticSecret: Uint8Array,
): Uint8Array | undefined {
  const view = viewOf(message);
  const bytes = OX_TIMESTAMP_BYTES + initiationPayloadBytes(view, 0, message.length);
  return readInitiationPayload(primitives, message, opened, staticSecret, bytes);
}

/**
 * Takes an initiation's early data into the transcript, which the response confirms, and returns its plaintext when it
 * opens under this ticket's secret. To be called once, behind `openOxPayload`; without a secret nothing is opened.
 */
export function takeOxEarlyData(
  primitives: Primitives,
  message: Uint8Array,
  { state }: OpenedInitiation,
  ticketSecret: Uint8Array | undefined,
): Uint8Array | undefined {
  const end = oxMac1At(message.length), earlyBytes = readEarlyBytes(viewOf(message), 0);
  if (earlyBytes === 0) return undefined;
  const sealed = message.slice(end - earlyBytes, end);
  let plaintext: Uint8Array | undefined;
  if (ticketSecret) {
    const key = earlyKey(state, ticketSecret);
    plaintext = primitives.open(key, 0, sealed, state.hash);
    key.fill(0);
  }
  state.hash = hash(state.hash, sealed);
  return plaintext;
}

/** Length of a response, bytes, whose parameters take `parameterBytes`. */
export function oxResponseBytes(parameterBytes: number): number {
  return OX_RESPONSE_MIN_BYTES + parameterBytes;
}

/**
 * Writes a response, all but its MACs, to `message`, which is `oxResponseBytes` long, and returns the responder's
 * secrets. The state is wiped, except when undefined is returned for a low-order point.
 * @param ephemeralPrivate 32 fresh random bytes; wiped.
 */
export function createOxResponse(
  primitives: Primitives,
  message: Uint8Array,
  sender: number,
  receiver: number,
  opened: OpenedInitiation,
  presharedKey: Uint8Array,
  ephemeralPrivate: Uint8Array,
  parameters: Uint8Array,
): SessionSecrets | undefined {
  const view = viewOf(message);
  writeLongHeader(view, 0, KIND_RESPONSE, 0);
  view.setUint32(OX_SENDER_AT, sender, true);
  view.setUint32(OX_RESPONSE_RECEIVER_AT, receiver, true);
  const written = writeResponse(
    OXTUNNEL,
    primitives,
    message,
    opened,
    presharedKey,
    ephemeralPrivate,
    parameters,
  );
  return written ? sessionSecrets(opened.state, false) : undefined;
}

/**
 * Verifies a response against the state of the initiation that it answers; undefined, with the state untouched,
 * when it is not authentic. On success the state is wiped.
 */
export function consumeOxResponse(
  primitives: Primitives,
  message: Uint8Array,
  kept: HandshakeState,
  staticPrivate: Uint8Array,
  presharedKey: Uint8Array,
): { secrets: SessionSecrets; parameters: Uint8Array } | undefined {
  const payloadBytes = message.length - OX_RESPONSE_MIN_BYTES;
  const read = readResponse(
    OXTUNNEL,
    primitives,
    message,
    kept,
    staticPrivate,
    presharedKey,
    payloadBytes,
  );
  if (!read) return undefined;
  wipeHandshake(kept);
  return { secrets: sessionSecrets(read.state, true), parameters: read.payload };
}
