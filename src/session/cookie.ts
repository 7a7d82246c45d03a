/**
 * MAC1, MAC2 and cookies (PROTOCOL §4, §10; whitepaper §5.3, §5.4.4, §5.4.7): the proof that a handshake message was
 * made for this key and, under load, that its sender receives at its address. Each protocol has labels of its own.
 * Invariant: checking allocates nothing whose size a sender controls and keeps no state per sender. Does not decide when
 * cookies are asked for.
 */
import { equalSecrets, hash, mac, openCookie, sealCookie } from "../codec/hash.ts";
import {
  COOKIE_NONCE_AT,
  COOKIE_REPLY_BYTES,
  COOKIE_SEALED_AT,
  MAC_BYTES,
  TYPE_COOKIE_REPLY,
} from "../wire/wireguard.ts";
import { KIND_COOKIE_REPLY, OXTUNNEL_VERSION } from "../wire/oxtunnel.ts";

const text = new TextEncoder();

/** What keeps one protocol's MACs and cookies from holding in the other (PROTOCOL §10). */
export interface CookieProtocol {
  readonly mac1Label: Uint8Array;
  readonly cookieLabel: Uint8Array;
  /** The first four bytes of a cookie reply; its other fields lie in the same places. */
  readonly replyHeader: Uint8Array;
}

export const WIREGUARD_COOKIES: CookieProtocol = {
  mac1Label: text.encode("mac1----"),
  cookieLabel: text.encode("cookie--"),
  replyHeader: Uint8Array.of(TYPE_COOKIE_REPLY, 0, 0, 0),
};

export const OXTUNNEL_COOKIES: CookieProtocol = {
  mac1Label: text.encode("ox-mac1-"),
  cookieLabel: text.encode("ox-cook-"),
  replyHeader: Uint8Array.of(KIND_COOKIE_REPLY, OXTUNNEL_VERSION, 0, 0),
};

/** The key of MAC1 for messages to the owner of `publicKey`. */
export function mac1Key(publicKey: Uint8Array, protocol = WIREGUARD_COOKIES): Uint8Array {
  return hash(protocol.mac1Label, publicKey);
}

/** The key under which the owner of `publicKey` seals its cookie replies. */
export function cookieKey(publicKey: Uint8Array, protocol = WIREGUARD_COOKIES): Uint8Array {
  return hash(protocol.cookieLabel, publicKey);
}

/** The receiving side: checks MACs and hands out cookies. */
export class CookieChecker {
  readonly #mac1Key: Uint8Array;
  readonly #cookieKey: Uint8Array;
  readonly #secret = new Uint8Array(32);
  readonly #source = new Uint8Array(18);
  #secretMadeUs = -Infinity;

  constructor(
    publicKey: Uint8Array,
    readonly random: (bytes: Uint8Array) => void,
    readonly lifeUs: number,
    readonly protocol = WIREGUARD_COOKIES,
  ) {
    this.#mac1Key = mac1Key(publicKey, protocol);
    this.#cookieKey = cookieKey(publicKey, protocol);
  }

  /** Whether MAC1, at `mac1At` of the message, was made for this relay's key. */
  hasMac1(message: Uint8Array, mac1At: number): boolean {
    const expected = mac(this.#mac1Key, message.subarray(0, mac1At));
    return equalSecrets(expected, message.subarray(mac1At, mac1At + MAC_BYTES));
  }

  /** Whether MAC2 proves that the sender got a cookie at this address and port. */
  hasMac2(
    message: Uint8Array,
    mac1At: number,
    words: Uint32Array,
    at: number,
    port: number,
    nowUs: number,
  ): boolean {
    if (nowUs - this.#secretMadeUs > this.lifeUs) return false;
    const expected = mac(this.#cookie(words, at, port), message.subarray(0, mac1At + MAC_BYTES));
    return equalSecrets(expected, message.subarray(mac1At + MAC_BYTES, mac1At + 2 * MAC_BYTES));
  }

  /** Overwrites the secret: no cookie is good from now on. */
  wipe(): void {
    this.#secret.fill(0);
    this.#secretMadeUs = -Infinity;
  }

  /** Writes a cookie reply of 64 bytes over the message that it answers. */
  reply(
    message: Uint8Array,
    mac1At: number,
    receiver: number,
    words: Uint32Array,
    at: number,
    port: number,
    nowUs: number,
  ): void {
    if (nowUs - this.#secretMadeUs > this.lifeUs) {
      this.random(this.#secret);
      this.#secretMadeUs = nowUs;
    }
    const nonce = new Uint8Array(COOKIE_SEALED_AT - COOKIE_NONCE_AT);
    this.random(nonce);
    const mac1 = message.slice(mac1At, mac1At + MAC_BYTES);
    const sealed = sealCookie(this.#cookieKey, nonce, this.#cookie(words, at, port), mac1);
    message.set(this.protocol.replyHeader);
    for (let i = 0; i < 4; i++) message[4 + i] = receiver >>> (8 * i);
    message.set(nonce, COOKIE_NONCE_AT);
    message.set(sealed.subarray(0, COOKIE_REPLY_BYTES - COOKIE_SEALED_AT), COOKIE_SEALED_AT);
  }

  #cookie(words: Uint32Array, at: number, port: number): Uint8Array {
    const source = this.#source;
    for (let i = 0; i < 16; i++) source[i] = words[at + (i >> 2)] >>> (24 - 8 * (i & 3));
    source[16] = port >>> 8;
    source[17] = port & 255;
    return mac(this.#secret, source);
  }
}

// A jar's bytes: the key of MAC1, the key of cookie replies, the MAC1 last sent, the cookie.
const KEY_BYTES = 32;
const REPLY_KEY_AT = KEY_BYTES;
const LAST_MAC1_AT = 2 * KEY_BYTES;
const COOKIE_AT = LAST_MAC1_AT + MAC_BYTES;
export const JAR_BYTES = COOKIE_AT + MAC_BYTES;

/** The sending side, one per peer: signs handshake messages and remembers the peer's cookie. */
export class CookieJar {
  readonly #memory: Uint8Array;
  readonly #at: number;
  #awaiting = false;
  #cookieGotUs = -Infinity;

  /** @param memory where its JAR_BYTES bytes lie, from `at` on. */
  constructor(
    peerPublicKey: Uint8Array,
    readonly lifeUs: number,
    memory: Uint8Array = new Uint8Array(JAR_BYTES),
    at = 0,
    protocol = WIREGUARD_COOKIES,
  ) {
    this.#memory = memory;
    this.#at = at;
    memory.set(mac1Key(peerPublicKey, protocol), at);
    memory.set(cookieKey(peerPublicKey, protocol), at + REPLY_KEY_AT);
  }

  /** Writes MAC1 and MAC2 at `mac1At`; MAC2 is zero without a fresh cookie. */
  sign(message: Uint8Array, mac1At: number, nowUs: number): void {
    const mac1 = mac(this.#bytes(0, KEY_BYTES), message.subarray(0, mac1At));
    message.set(mac1, mac1At);
    this.#bytes(LAST_MAC1_AT, MAC_BYTES).set(mac1);
    this.#awaiting = true;
    const mac2At = mac1At + MAC_BYTES;
    if (nowUs - this.#cookieGotUs <= this.lifeUs) {
      message.set(mac(this.#bytes(COOKIE_AT, MAC_BYTES), message.subarray(0, mac2At)), mac2At);
    } else {
      message.fill(0, mac2At, mac2At + MAC_BYTES);
    }
  }

  /** Takes a cookie reply to the last signed message; false when it is not authentic or was not asked for. */
  accept(message: Uint8Array, nowUs: number): boolean {
    if (!this.#awaiting) return false;
    const nonce = message.slice(COOKIE_NONCE_AT, COOKIE_SEALED_AT);
    const sealed = message.slice(COOKIE_SEALED_AT, COOKIE_REPLY_BYTES);
    const key = this.#bytes(REPLY_KEY_AT, KEY_BYTES);
    const cookie = openCookie(key, nonce, sealed, this.#bytes(LAST_MAC1_AT, MAC_BYTES));
    if (!cookie) return false;
    this.#awaiting = false;
    this.#bytes(COOKIE_AT, MAC_BYTES).set(cookie);
    this.#cookieGotUs = nowUs;
    return true;
  }

  #bytes(at: number, length: number): Uint8Array {
    return this.#memory.subarray(this.#at + at, this.#at + at + length);
  }
}
