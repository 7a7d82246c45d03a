/**
 * How an OxTunnel session gets its next epoch (PROTOCOL §15): one request and one answer, in parts that may come in
 * any order and more than once, make new keys with X25519 and, where both ends accepted it, ML-KEM-768. Invariant: the
 * chain is replaced by its successor's in the same step that makes the keys, and everything secret is overwritten
 * then. Sends nothing and knows no time: the session says when to ask, repeat, and that an epoch has come into use.
 * Keeps PROTOCOL R60, R62, R63, R64 and R65.
 */
import { deriveKeys, hash } from "../../codec/hash.ts";
import type { Primitives } from "../../codec/kernels.ts";
import {
  ML_KEM_MESSAGE_BYTES,
  ML_KEM_SEED_BYTES,
  mlKemDecapsulate,
  mlKemEncapsulate,
  mlKemGenerate,
} from "../../codec/ml_kem.ts";
import {
  KEY_ANSWER,
  KEY_ANSWER_HYBRID_BYTES,
  KEY_CLASSIC_BYTES,
  KEY_PART_AT,
  KEY_PART_BYTES,
  KEY_REQUEST,
  KEY_REQUEST_HYBRID_BYTES,
  keyPartBytes,
  readKeyEpoch,
  readKeyOffset,
  readKeyRole,
  readKeyTotalBytes,
} from "../../wire/control.ts";
import { type EpochSecrets, epochSecrets } from "./handshake.ts";

const NEXT_LABEL = new TextEncoder().encode("ox next!");
const X25519_BYTES = KEY_CLASSIC_BYTES;
const SECRET_BYTES = 32;
const EMPTY = new Uint8Array(0);

export interface KeyExchangeOptions {
  primitives: Primitives;
  random: (bytes: Uint8Array) => void;
  /** Whether this end began the handshake: its request wins over another that is under way. */
  isInitiator: boolean;
  /** Whether both ends accepted ML-KEM; the first exchange then has it. */
  isHybrid: boolean;
  /** The chain of epoch 0, taken over. Secret. */
  chain: Uint8Array;
}

export class KeyExchange {
  /** The newest epoch that both ends are known to have. */
  epoch = 0;
  /** This end has asked for `epoch + 1` and has no answer. */
  isAsking = false;
  /** This end has the keys of `epoch + 1`, and nothing has opened under them. */
  isUnconfirmed = false;
  /** Bit i is set when part i of `message` is to be sent. */
  partsToSend = 0;
  /** What this end sends, a request or an answer. */
  message: Uint8Array = EMPTY;
  /** Messages of the other end that were computed with, those that made no keys included. */
  computed = 0;
  readonly #o: KeyExchangeOptions;
  #chain: Uint8Array;
  #isHybridDone = false;
  #privateKey: Uint8Array = EMPTY;
  #kemSecretKey: Uint8Array = EMPTY;
  /** The other end's message as it comes, in a buffer of one size. */
  readonly #gathered = new Uint8Array(KEY_REQUEST_HYBRID_BYTES);
  #gatheredRole = KEY_REQUEST;
  #gatheredTotal = 0;
  #gatheredParts = 0;

  constructor(options: KeyExchangeOptions) {
    this.#o = options;
    this.#chain = options.chain;
  }

  /** The role of `message`, KEY_REQUEST or KEY_ANSWER. */
  get role(): number {
    return this.isAsking ? KEY_REQUEST : KEY_ANSWER;
  }

  /** Begins a request for the next epoch. The caller has made sure that none is under way and the last one is over. */
  ask(): void {
    const { primitives } = this.#o;
    const isHybrid = this.#o.isHybrid && !this.#isHybridDone;
    this.#privateKey = this.#bytes(SECRET_BYTES);
    const message = new Uint8Array(isHybrid ? KEY_REQUEST_HYBRID_BYTES : KEY_CLASSIC_BYTES);
    message.set(primitives.publicKey(this.#privateKey));
    if (isHybrid) {
      const seed = this.#bytes(ML_KEM_SEED_BYTES);
      const { publicKey, secretKey } = mlKemGenerate(seed);
      seed.fill(0);
      message.set(publicKey, X25519_BYTES);
      this.#kemSecretKey = secretKey;
    }
    this.isAsking = true;
    this.#say(message);
  }

  /** Has the whole message sent again. */
  repeat(): void {
    this.partsToSend = (1 << Math.ceil(this.message.length / KEY_PART_BYTES)) - 1;
  }

  /** After something has opened under `epoch + 1`: that is the epoch now. */
  confirm(): void {
    this.epoch++;
    this.isUnconfirmed = false;
    this.message = EMPTY;
    this.partsToSend = 0;
  }

  /**
   * Takes the part in the control frame whose body is at `at`. Returns the keys of `epoch + 1` when it was the last
   * one needed; the caller wipes them, the chain excepted, which stays here.
   * @param mayCompute whether the other end's message may be computed with now: a request not before the last one's
   * keys are overwritten. The other end repeats the message.
   */
  onPart(view: DataView, at: number, mayCompute: boolean): EpochSecrets | undefined {
    const role = readKeyRole(view, at), epoch = readKeyEpoch(view, at);
    if (epoch !== this.epoch + 1) return undefined;
    if (role === KEY_ANSWER) {
      return this.isAsking && mayCompute && this.#gather(view, at) ? this.#onAnswer() : undefined;
    }
    if (this.isUnconfirmed) {
      // The answer was lost, or is still on its way.
      if (this.message.length > 0) this.repeat();
      return undefined;
    }
    if (!mayCompute || (this.isAsking && this.#o.isInitiator) || !this.#gather(view, at)) return undefined;
    if (this.isAsking) this.#forgetRequest();
    return this.#onRequest();
  }

  /** Overwrites everything secret. */
  wipe(): void {
    this.#chain.fill(0);
    this.#forgetRequest();
    this.partsToSend = 0;
  }

  /** Whether the other end's message is complete with this part, which is kept. */
  #gather(view: DataView, at: number): boolean {
    const role = readKeyRole(view, at), total = readKeyTotalBytes(view, at), offset = readKeyOffset(view, at);
    if (role !== this.#gatheredRole || total !== this.#gatheredTotal) this.#gatheredParts = 0;
    this.#gatheredRole = role;
    this.#gatheredTotal = total;
    const bytes = keyPartBytes(total, offset);
    for (let i = 0; i < bytes; i++) this.#gathered[offset + i] = view.getUint8(at + KEY_PART_AT + i);
    this.#gatheredParts |= 1 << (offset / KEY_PART_BYTES);
    return this.#gatheredParts === (1 << Math.ceil(total / KEY_PART_BYTES)) - 1;
  }

  #onRequest(): EpochSecrets | undefined {
    const { primitives } = this.#o;
    const request = this.#takeGathered();
    const isHybrid = request.length === KEY_REQUEST_HYBRID_BYTES;
    if (isHybrid && !this.#o.isHybrid) return undefined;
    const privateKey = this.#bytes(SECRET_BYTES);
    const secret = primitives.sharedSecret(privateKey, request.subarray(0, X25519_BYTES));
    if (!secret) {
      privateKey.fill(0);
      return undefined;
    }
    const answer = new Uint8Array(isHybrid ? KEY_ANSWER_HYBRID_BYTES : KEY_CLASSIC_BYTES);
    answer.set(primitives.publicKey(privateKey));
    privateKey.fill(0);
    let kemSecret: Uint8Array | undefined = EMPTY;
    if (isHybrid) {
      const message = this.#bytes(ML_KEM_MESSAGE_BYTES);
      const sealed = mlKemEncapsulate(request.subarray(X25519_BYTES), message);
      message.fill(0);
      if (sealed) answer.set(sealed.ciphertext, X25519_BYTES);
      kemSecret = sealed?.secret;
    }
    const keys = this.#advance(secret, kemSecret, request, answer);
    if (keys) this.#say(answer);
    return keys;
  }

  #onAnswer(): EpochSecrets | undefined {
    const { primitives } = this.#o;
    const answer = this.#takeGathered();
    const request = this.message;
    const isHybrid = request.length === KEY_REQUEST_HYBRID_BYTES;
    if (isHybrid !== (answer.length === KEY_ANSWER_HYBRID_BYTES)) return undefined;
    const secret = primitives.sharedSecret(this.#privateKey, answer.subarray(0, X25519_BYTES));
    const kemSecret = isHybrid ? mlKemDecapsulate(answer.subarray(X25519_BYTES), this.#kemSecretKey) : EMPTY;
    const keys = this.#advance(secret, kemSecret, request, answer);
    this.#forgetRequest();
    return keys;
  }

  /** The next epoch's keys from the secrets, which are wiped; undefined, with nothing changed, without one of them. */
  #advance(
    secret: Uint8Array | undefined,
    kemSecret: Uint8Array | undefined,
    request: Uint8Array,
    answer: Uint8Array,
  ): EpochSecrets | undefined {
    if (!secret || !kemSecret) {
      secret?.fill(0);
      kemSecret?.fill(0);
      return undefined;
    }
    const transcript = hash(request, answer);
    const input = new Uint8Array(NEXT_LABEL.length + SECRET_BYTES + kemSecret.length + transcript.length);
    input.set(NEXT_LABEL);
    input.set(secret, NEXT_LABEL.length);
    input.set(kemSecret, NEXT_LABEL.length + SECRET_BYTES);
    input.set(transcript, input.length - transcript.length);
    secret.fill(0);
    kemSecret.fill(0);
    const [next] = deriveKeys(this.#chain, input, 1);
    input.fill(0);
    this.#chain.fill(0); // its successor exists
    const keys = epochSecrets(next, this.#o.isInitiator);
    this.#chain = keys.chain;
    this.#isHybridDone = true;
    this.isUnconfirmed = true;
    return keys;
  }

  #takeGathered(): Uint8Array {
    this.computed++;
    this.#gatheredParts = 0;
    return this.#gathered.slice(0, this.#gatheredTotal);
  }

  #forgetRequest(): void {
    this.isAsking = false;
    this.message = EMPTY;
    this.partsToSend = 0;
    this.#privateKey.fill(0);
    this.#kemSecretKey.fill(0);
    this.#privateKey = this.#kemSecretKey = EMPTY;
  }

  #say(message: Uint8Array): void {
    this.message = message;
    this.repeat();
  }

  #bytes(count: number): Uint8Array {
    const bytes = new Uint8Array(count);
    this.#o.random(bytes);
    return bytes;
  }
}
