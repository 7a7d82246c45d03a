/**
 * A peer of a relay that says over OxTunnel whatever a test wants: it makes the handshake by the functions of
 * session/oxtunnel/handshake.ts and then seals any plaintext and opens any datagram. It keeps no rules and repeats nothing.
 */
import { assert } from "@std/assert";
import { PortableDatagramAead } from "../../src/codec/datagram_portable.ts";
import { MASK_STRIDE } from "../../src/codec/kernels.ts";
import { nodeCrypto } from "../../src/codec/node_crypto.ts";
import type { Relay } from "../../src/relay.ts";
import { base64 } from "../../src/session/peers.ts";
import { CookieJar, OXTUNNEL_COOKIES } from "../../src/session/cookie.ts";
import { consumeOxResponse, createOxInitiation } from "../../src/session/oxtunnel/handshake.ts";
import { Arena } from "../../src/vector/arena.ts";
import { tai64n } from "../../src/wire/timestamp.ts";
import {
  Burst,
  BURST_CAPACITY,
  OPENED,
  TO_OPEN_DATAGRAM,
  TO_SEAL_DATAGRAM,
  TO_TRANSMIT,
  TO_UNPROTECT,
} from "../../src/vector/burst.ts";
import {
  keyPhase,
  oxMac1At,
  readTruncatedCounter,
  recoverCounter,
  shortHeaderBytes,
  unprotectHeader,
  writeShortHeader,
} from "../../src/wire/oxtunnel.ts";
import { type Parameters, readParameters, writeParameters } from "../../src/wire/parameters.ts";
import type { Host, World } from "./world.ts";

const FORGED = 99;
const SENDER = 0x01020304;

/** The session itself: bytes in and bytes out, over whatever carries them. */
export class RawSession {
  told: Parameters = {};
  relayId = 0;
  counter = 0;
  /** Of the session's further paths, by their numbers: the relay's id for it, and the next counter. */
  readonly paths = new Map<number, { id: number; counter: number }>();
  readonly #aead = new PortableDatagramAead(1, FORGED);
  readonly #burst = new Burst(new Arena(1));
  #highest = -1;

  /** @param fill fills bytes at random. */
  constructor(
    readonly privateKey: Uint8Array,
    readonly relayKey: Uint8Array,
    readonly fill: (bytes: Uint8Array) => void,
  ) {}

  /** The message that begins the handshake, and what takes the relay's response to it. */
  initiate(
    offer: Parameters,
    nowUs: number,
  ): { message: Uint8Array; finish: (response: Uint8Array) => void } {
    const parameters = new Uint8Array(300);
    const end = writeParameters(parameters, 0, offer);
    const message = new Uint8Array(512);
    const secret = nodeCrypto.sharedSecret(this.privateKey, this.relayKey)!;
    const ephemeral = new Uint8Array(32);
    this.fill(ephemeral);
    const own = nodeCrypto.publicKey(this.privateKey);
    const state = createOxInitiation(
      nodeCrypto,
      message,
      SENDER,
      own,
      this.relayKey,
      secret,
      ephemeral,
      tai64n(nowUs),
      parameters.subarray(0, end),
    )!;
    const jar = new CookieJar(this.relayKey, 1e9, undefined, 0, OXTUNNEL_COOKIES);
    jar.sign(message, oxMac1At(message.length), nowUs);
    const finish = (response: Uint8Array) => {
      const result = consumeOxResponse(nodeCrypto, response, state, this.privateKey, new Uint8Array(32))!;
      assert(result, "the relay's response opens");
      this.told = readParameters(result.parameters, 0, result.parameters.length)!;
      this.relayId = new DataView(response.buffer, response.byteOffset).getUint32(4, true);
      const { sendProtect, receiveProtect, sendKey, receiveKey } = result.secrets;
      this.#aead.begin(0, this.told.aeads?.[0] ?? 1, sendProtect, receiveProtect);
      this.#aead.install(0, 0, sendKey, receiveKey);
    };
    return { message, finish };
  }

  /** A datagram with this plaintext, under epoch 0. @param flags reserved bits to set. @param number of the path. */
  seal(plaintext: Uint8Array, flags = 0, number = 0): Uint8Array {
    const path = this.paths.get(number);
    const burst = this.#burst;
    const row = burst.grow(plaintext.length, TO_SEAL_DATAGRAM);
    burst.bytes.set(plaintext, burst.offset[row]);
    burst.session[row] = 0;
    burst.phase[row] = number << 1;
    burst.counter[row] = path?.counter ?? this.counter;
    burst.headerBytes[row] = 9;
    const at = burst.offset[row] - 9;
    writeShortHeader(burst.view, at, 0, path?.id ?? this.relayId, burst.counter[row], 4);
    if (path === undefined) this.counter++;
    else path.counter++;
    burst.bytes[at] |= flags;
    this.#aead.seal(burst);
    assert(burst.next[row] === TO_TRANSMIT);
    const sealed = burst.bytes.slice(burst.offset[row], burst.offset[row] + burst.length[row]);
    burst.release();
    return sealed;
  }

  /** The plaintext of a datagram from the relay, or undefined when it is none of epoch 0's. @param path its number. */
  open(bytes: Uint8Array, path = 0): Uint8Array | undefined {
    const burst = this.#burst;
    const row = burst.grow(bytes.length, TO_UNPROTECT);
    burst.bytes.set(bytes, burst.offset[row]);
    burst.session[row] = 0;
    const masks = new Uint8Array(MASK_STRIDE * BURST_CAPACITY);
    this.#aead.masks(burst, masks);
    const flags = unprotectHeader(burst.view, burst.offset[row], masks, MASK_STRIDE * row);
    burst.headerBytes[row] = shortHeaderBytes(flags);
    burst.phase[row] = keyPhase(flags) | path << 1;
    const truncated = readTruncatedCounter(burst.view, burst.offset[row]);
    burst.counter[row] = recoverCounter(
      truncated,
      burst.headerBytes[row] - 5,
      path === 0 ? this.#highest : -1,
    );
    burst.next[row] = TO_OPEN_DATAGRAM;
    this.#aead.open(burst);
    const opened = burst.next[row] === OPENED;
    const plaintext = burst.bytes.slice(burst.offset[row], burst.offset[row] + burst.length[row]);
    if (opened && path === 0) this.#highest = Math.max(this.#highest, burst.counter[row]);
    burst.release();
    return opened ? plaintext : undefined;
  }
}

export class RawPeer extends RawSession {
  /** Every datagram that the relay sent to one of this peer's addresses, with the address. */
  readonly heard: { to: string; bytes: Uint8Array }[] = [];
  readonly publicKey: string;

  constructor(readonly world: World, readonly relay: Host<Relay>, readonly endpoint: string, ipv4: string) {
    const privateKey = new Uint8Array(32);
    world.random.fill(privateKey);
    super(privateKey, relay.core.publicKey, (bytes) => world.random.fill(bytes));
    this.publicKey = base64(nodeCrypto.publicKey(privateKey));
    relay.core.addPeer({ name: `raw-${endpoint}`, publicKey: this.publicKey, allowedIps: [`${ipv4}/32`] });
    const others = world.tap;
    world.tap = (from, to, bytes) => {
      if (from === relay.endpoint) this.heard.push({ to, bytes: bytes.slice() });
      return others ? others(from, to, bytes) : bytes;
    };
  }

  /** Makes the handshake; the relay's response comes at once, since nothing is carried to here. */
  connect(offer: Parameters = { features: 0, aeads: [1], connectionIds: [5, 6, 7] }): void {
    const { message, finish } = this.initiate(offer, 1_800_000_000_000_000 + this.world.nowUs);
    this.relay.receive(message, this.endpoint);
    finish(this.heard.pop()!.bytes);
  }

  send(plaintext: Uint8Array, from = this.endpoint, path = 0): void {
    this.relay.receive(this.seal(plaintext, 0, path), from);
  }
}
