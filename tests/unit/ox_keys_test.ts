/**
 * The key exchange inside a session (PROTOCOL §15): both ends derive the keys that the text gives, with and without
 * ML-KEM, whatever order the parts come in, how often, and whoever asks first.
 */
import { assert, assertEquals } from "@std/assert";
import { mlKemDecapsulate, mlKemEncapsulate, mlKemGenerate } from "../../src/codec/ml_kem.ts";
import { deriveKeys, hash } from "../../src/codec/hash.ts";
import { nodeCrypto } from "../../src/codec/node_crypto.ts";
import { epochSecrets } from "../../src/session/oxtunnel/handshake.ts";
import { KeyExchange } from "../../src/session/oxtunnel/keys.ts";
import { KEY_PART_BYTES, keyPartBytes, writeKeyExchange } from "../../src/wire/control.ts";
import { FRAME_HEAD_BYTES } from "../../src/wire/frame.ts";
import { Random } from "../kit/random.ts";

const CHAIN = new Uint8Array(32).fill(5);
const random = new Random(20260101);

function ends(isHybrid: boolean, chain = CHAIN) {
  return [true, false].map((isInitiator) =>
    new KeyExchange({
      primitives: nodeCrypto,
      random: (bytes) => random.fill(bytes),
      isInitiator,
      isHybrid,
      chain: chain.slice(),
    })
  );
}

/** The parts that an end has to send, as control frames' bodies. */
function partsOf(end: KeyExchange): DataView[] {
  const parts: DataView[] = [];
  for (let offset = 0; offset < end.message.length; offset += KEY_PART_BYTES) {
    const view = new DataView(new ArrayBuffer(600));
    const body = writeKeyExchange(view, 0, end.role, end.epoch + 1, end.message.length, offset);
    const bytes = keyPartBytes(end.message.length, offset);
    for (let i = 0; i < bytes; i++) view.setUint8(body + i, end.message[offset + i]);
    parts.push(view);
  }
  end.partsToSend = 0;
  return parts;
}

const take = (end: KeyExchange, parts: DataView[], mayBegin = true) =>
  parts.map((view) => end.onPart(view, FRAME_HEAD_BYTES, mayBegin)).find((keys) => keys);

Deno.test("key exchange: three epochs, the first with ML-KEM, parts out of order and twice", () => {
  const [a, b] = ends(true);
  const sizes: number[][] = [];
  for (let epoch = 1; epoch <= 3; epoch++) {
    const [asking, answering] = epoch % 2 === 1 ? [a, b] : [b, a];
    asking.ask();
    const request = partsOf(asking);
    const theirs = take(answering, [...request].reverse())!;
    assertEquals(take(answering, request), undefined, "the request again");
    assert(answering.partsToSend !== 0, "has the same answer sent again");
    const answer = partsOf(answering);
    const ours = take(asking, [...answer, ...answer].reverse())!;
    assertEquals([ours.sendKey, ours.receiveKey, ours.chain], [
      theirs.receiveKey,
      theirs.sendKey,
      theirs.chain,
    ]);
    sizes.push([request.length, answer.length]);
    a.confirm();
    b.confirm();
    assertEquals([a.epoch, b.epoch], [epoch, epoch]);
  }
  assertEquals(sizes, [[3, 3], [1, 1], [1, 1]]);
});

Deno.test("key exchange: the keys are those of the text", () => {
  for (const isHybrid of [false, true]) {
    const [a, b] = ends(isHybrid);
    const privateKey = new Uint8Array(32).fill(3), seed = new Uint8Array(64).fill(4);
    const kem = mlKemGenerate(seed);
    const publicKey = nodeCrypto.publicKey(privateKey);
    a.ask();
    // A request of our own, whose secrets are known here, in place of the one that was made.
    const request = isHybrid ? Uint8Array.of(...publicKey, ...kem.publicKey) : publicKey;
    a.message = request;
    const theirs = take(b, partsOf(a))!;
    const answer = b.message;
    const x25519 = nodeCrypto.sharedSecret(privateKey, answer.subarray(0, 32))!;
    const shared = isHybrid ? mlKemDecapsulate(answer.subarray(32), kem.secretKey) : new Uint8Array(0);
    const label = new TextEncoder().encode("ox next!");
    const input = Uint8Array.of(...label, ...x25519, ...shared, ...hash(request, answer));
    const expected = epochSecrets(deriveKeys(CHAIN, input, 1)[0], false);
    assertEquals(theirs, expected);
  }
});

Deno.test("key exchange: each chain is overwritten when the next one is made, and the last with the session (PROTOCOL R62)", () => {
  const chains: Uint8Array[] = [CHAIN.slice(), CHAIN.slice()];
  const [a, b] = chains.map((chain, i) =>
    new KeyExchange({
      primitives: nodeCrypto,
      random: (bytes) => random.fill(bytes),
      isInitiator: i === 0,
      isHybrid: false,
      chain,
    })
  );
  const zero = new Uint8Array(32);
  for (let epoch = 1; epoch <= 2; epoch++) {
    a.ask();
    const theirs = take(b, partsOf(a))!;
    assertEquals(chains[1], zero, "who answered");
    const ours = take(a, partsOf(b))!;
    assertEquals(chains[0], zero, "who asked");
    a.confirm();
    b.confirm();
    chains.splice(0, 2, ours.chain, theirs.chain);
    assert(ours.chain.some((byte) => byte !== 0));
  }
  a.wipe();
  b.wipe();
  assertEquals(chains, [zero, zero]);
});

Deno.test("key exchange: of two requests under way the initiator's wins", () => {
  const [a, b] = ends(false);
  a.ask();
  b.ask();
  const ofA = partsOf(a), ofB = partsOf(b);
  assertEquals(take(a, ofB), undefined);
  const theirs = take(b, ofA)!;
  assert(!b.isAsking && b.isUnconfirmed);
  const ours = take(a, partsOf(b))!;
  assertEquals(ours.sendKey, theirs.receiveKey);
});

Deno.test("key exchange: nothing is answered too early, for another epoch, or with a low-order point", () => {
  const [a, b] = ends(false);
  a.ask();
  const request = partsOf(a);
  assertEquals(take(b, request, false), undefined, "the last epoch's keys are still there");
  a.epoch = 4;
  assertEquals(take(b, partsOf(a)), undefined, "epoch 5 after epoch 0");
  a.epoch = 0;
  a.message = new Uint8Array(32);
  assertEquals(take(b, partsOf(a)), undefined, "a point of low order");
  assertEquals([b.isUnconfirmed, b.message.length], [false, 0]);
  assert(take(b, request), "and the true request is still answered");
});

Deno.test("key exchange: ML-KEM is refused where it was not accepted, and what is no public key anywhere", () => {
  const [a] = ends(true), [, plain] = ends(false), [, hybrid] = ends(true);
  a.ask();
  assertEquals(take(plain, partsOf(a)), undefined);
  a.message = Uint8Array.of(...a.message.subarray(0, 32), ...new Uint8Array(1184).fill(255));
  assertEquals(take(hybrid, partsOf(a)), undefined);
  assertEquals(mlKemEncapsulate(new Uint8Array(1184).fill(255), new Uint8Array(32)), undefined);
});
