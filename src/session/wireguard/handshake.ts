/**
 * WireGuard's handshake (PROTOCOL §3; whitepaper §5.4) on top of noise.ts: its identifier, message types, timestamp
 * and transport keys. Invariant: nothing outside the returned values changes, so that an unauthenticated message
 * leaves no trace. Does not know peers, indices' owners or time.
 * Keeps PROTOCOL R9.
 */
import type { Primitives } from "../../codec/kernels.ts";
import { deriveKeys, hash } from "../../codec/hash.ts";
import { TIMESTAMP_BYTES } from "../../wire/timestamp.ts";
import { TYPE_INITIATION, TYPE_RESPONSE } from "../../wire/wireguard.ts";
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

export { type HandshakeState, type OpenedInitiation, wipeHandshake } from "../noise.ts";

const NOTHING = new Uint8Array(0);
const WIREGUARD: Transcript = {
  initialHash: hash(INITIAL_KEY, new TextEncoder().encode("WireGuard v1 zx2c4 Jason@zx2c4.com")),
  bindsHeaders: false,
};

/** The two transport keys of a finished handshake, named from this end. Secret. */
export interface TransportKeys {
  sendKey: Uint8Array;
  receiveKey: Uint8Array;
}

function writeType(message: Uint8Array, type: number): void {
  message.fill(0, 0, 4);
  message[0] = type;
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
  writeType(message, TYPE_INITIATION);
  return writeInitiation(
    WIREGUARD,
    primitives,
    message,
    staticPublic,
    peerStatic,
    staticSecret,
    ephemeralPrivate,
    timestamp,
  );
}

/** Opens the initiator's static key, or returns undefined. One X25519. The caller looks the peer up. */
export function openInitiation(
  primitives: Primitives,
  message: Uint8Array,
  staticPrivate: Uint8Array,
  staticPublic: Uint8Array,
): OpenedInitiation | undefined {
  return readInitiation(WIREGUARD, primitives, message, staticPrivate, staticPublic);
}

/** Opens the timestamp with the static secret of the peer that was found: this authenticates the initiation. */
export function openTimestamp(
  primitives: Primitives,
  message: Uint8Array,
  opened: OpenedInitiation,
  staticSecret: Uint8Array,
): Uint8Array | undefined {
  return readInitiationPayload(primitives, message, opened, staticSecret, TIMESTAMP_BYTES);
}

/**
 * Writes a response (type, ephemeral, empty; not the indices and MACs) to `message`, 92 bytes, and returns the
 * responder's transport keys. The state is wiped, except when undefined is returned for a low-order point.
 */
export function createResponse(
  primitives: Primitives,
  message: Uint8Array,
  opened: OpenedInitiation,
  presharedKey: Uint8Array,
  ephemeralPrivate: Uint8Array,
): TransportKeys | undefined {
  writeType(message, TYPE_RESPONSE);
  if (!writeResponse(WIREGUARD, primitives, message, opened, presharedKey, ephemeralPrivate, NOTHING)) {
    return undefined;
  }
  const [receiveKey, sendKey] = deriveKeys(opened.state.chainingKey, NOTHING, 2);
  wipeHandshake(opened.state);
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
  const read = readResponse(WIREGUARD, primitives, message, kept, staticPrivate, presharedKey, 0);
  if (!read) return undefined;
  const [sendKey, receiveKey] = deriveKeys(read.state.chainingKey, NOTHING, 2);
  wipeHandshake(read.state);
  wipeHandshake(kept);
  return { sendKey, receiveKey };
}
