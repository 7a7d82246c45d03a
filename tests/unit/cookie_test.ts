/**
 * MAC1, MAC2 and cookies (whitepaper §5.3, §5.4.4, §5.4.7) between a checker and jars. Invariant under test: what is
 * accepted was made for this key, by someone who received at this address and port, while the secret lived, and
 * has no bit changed; a naive model keeps which cookie is good. FUZZ_SEED and FUZZ_RUNS choose the run.
 */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import fc from "fast-check";
import { hash, mac } from "../../src/codec/hash.ts";
import {
  CookieChecker,
  CookieJar,
  cookieKey,
  mac1Key,
  OXTUNNEL_COOKIES,
  WIREGUARD_COOKIES,
} from "../../src/session/cookie.ts";
import { WIREGUARD_LIMITS } from "../../src/session/limits.ts";
import { parseAddress } from "../../src/wire/address.ts";
import {
  COOKIE_NONCE_AT,
  COOKIE_REPLY_BYTES,
  INITIATION_BYTES,
  INITIATION_MAC1_AT,
  MAC_BYTES,
  RESPONSE_BYTES,
  RESPONSE_MAC1_AT,
} from "../../src/wire/wireguard.ts";
import { Random } from "../kit/random.ts";

const options = {
  numRuns: Number(Deno.env.get("FUZZ_RUNS") ?? 200),
  seed: Number(Deno.env.get("FUZZ_SEED") ?? 20260101),
};

const SECOND = 1_000_000;
const LIFE_US = WIREGUARD_LIMITS.cookieUs;
const RECEIVER = 0xdeadbeef;

const random = new Random(options.seed);
const bytes = (length: number) => {
  const fresh = new Uint8Array(length);
  random.fill(fresh);
  return fresh;
};

interface Source {
  words: Uint32Array;
  port: number;
}

/** Sources that differ in one bit or in the port alone. */
const SOURCES: readonly Source[] = [
  ["198.51.100.7", 5555],
  ["198.51.100.7", 5554],
  ["198.51.100.6", 5555],
  ["70.51.100.7", 5555],
  ["::198.51.100.7", 5555],
  ["2001:db8::7", 5555],
  ["2001:db8::7", 5555 ^ 0x8000],
  ["2001:db8:8000::7", 5555],
].map(([text, port]) => ({
  words: Uint32Array.of(7, ...parseAddress(text as string)!),
  port: port as number,
}));

const LAYOUTS = [[INITIATION_BYTES, INITIATION_MAC1_AT], [RESPONSE_BYTES, RESPONSE_MAC1_AT]] as const;

class Setting {
  readonly publicKey = bytes(32);
  readonly checker = new CookieChecker(this.publicKey, (fresh) => random.fill(fresh), LIFE_US);
  readonly jar = new CookieJar(this.publicKey, LIFE_US);

  /** A fresh signed message. */
  signed([length, mac1At]: readonly [number, number], nowUs: number): Uint8Array {
    const message = bytes(length);
    this.jar.sign(message, mac1At, nowUs);
    return message;
  }

  /** The reply to a signed message from the source. */
  reply(message: Uint8Array, mac1At: number, { words, port }: Source, nowUs: number): Uint8Array {
    const answer = message.slice();
    this.checker.reply(answer, mac1At, RECEIVER, words, 1, port, nowUs);
    return answer.subarray(0, COOKIE_REPLY_BYTES);
  }

  /** Gets a cookie for the source into the jar. */
  obtain(source: Source, nowUs: number): void {
    const reply = this.reply(this.signed(LAYOUTS[0], nowUs), INITIATION_MAC1_AT, source, nowUs);
    assertEquals(this.jar.accept(reply, nowUs), true);
  }

  proves(message: Uint8Array, mac1At: number, { words, port }: Source, nowUs: number): boolean {
    return this.checker.hasMac2(message, mac1At, words, 1, port, nowUs);
  }
}

function flipped(message: Uint8Array, bit: number): Uint8Array {
  const copy = message.slice();
  copy[bit >> 3] ^= 1 << (bit & 7);
  return copy;
}

Deno.test("cookie: the MACs are the whitepaper's", () => {
  const setting = new Setting();
  const source = SOURCES[0];
  for (const [length, mac1At] of LAYOUTS) {
    const message = setting.signed([length, mac1At], 0);
    assertEquals(
      message.slice(mac1At, mac1At + MAC_BYTES),
      mac(mac1Key(setting.publicKey), message.subarray(0, mac1At)),
    );
    // Without a cookie MAC2 is zero and proves nothing.
    assertEquals(message.slice(mac1At + MAC_BYTES), new Uint8Array(MAC_BYTES));
    assertEquals(setting.proves(message, mac1At, source, 0), false);
    const reply = setting.reply(message, mac1At, source, 0);
    assertEquals([...reply.subarray(0, COOKIE_NONCE_AT)], [3, 0, 0, 0, 0xef, 0xbe, 0xad, 0xde]);
    assertNotEquals(reply, setting.reply(message, mac1At, source, 0), "a nonce was used twice");
  }
  assertNotEquals(mac1Key(setting.publicKey), cookieKey(setting.publicKey));
});

Deno.test("cookie: no bit of a message can change under MAC1 and MAC2, and no other key's MAC1 passes", () => {
  const setting = new Setting();
  setting.obtain(SOURCES[0], 0);
  const other = new CookieChecker(bytes(32), (fresh) => random.fill(fresh), LIFE_US);
  for (const [length, mac1At] of LAYOUTS) {
    const message = setting.signed([length, mac1At], SECOND);
    assert(setting.checker.hasMac1(message, mac1At) && setting.proves(message, mac1At, SOURCES[0], SECOND));
    assertEquals(other.hasMac1(message, mac1At), false);
    for (let bit = 0; bit < 8 * length; bit++) {
      const forged = flipped(message, bit);
      assertEquals([bit, setting.proves(forged, mac1At, SOURCES[0], SECOND)], [bit, false]);
      // MAC1 ends where MAC2 begins.
      assertEquals([bit, setting.checker.hasMac1(forged, mac1At)], [bit, bit >= 8 * (mac1At + MAC_BYTES)]);
    }
  }
});

Deno.test("cookie: a reply is taken once, unchanged, by whoever asked, for the last message only", () => {
  const setting = new Setting();
  const message = setting.signed(LAYOUTS[0], 0);
  const reply = setting.reply(message, INITIATION_MAC1_AT, SOURCES[0], 0);
  // Type and receiver index are not sealed; they found their way here.
  for (let bit = 8 * COOKIE_NONCE_AT; bit < 8 * COOKIE_REPLY_BYTES; bit++) {
    assertEquals([bit, setting.jar.accept(flipped(reply, bit), 0)], [bit, false]);
  }
  const stranger = new CookieJar(bytes(32), LIFE_US);
  stranger.sign(message.slice(), INITIATION_MAC1_AT, 0);
  assertEquals(stranger.accept(reply, 0), false);
  const silent = new CookieJar(setting.publicKey, LIFE_US);
  assertEquals(silent.accept(reply, 0), false);
  assertEquals([setting.jar.accept(reply, 0), setting.jar.accept(reply, 0)], [true, false]);

  const first = setting.reply(setting.signed(LAYOUTS[0], 0), INITIATION_MAC1_AT, SOURCES[0], 0);
  setting.signed(LAYOUTS[0], 0);
  assertEquals(setting.jar.accept(first, 0), false);
});

Deno.test("cookie: it holds for one address and one port", () => {
  for (const source of SOURCES) {
    const setting = new Setting();
    setting.obtain(source, 0);
    const message = setting.signed(LAYOUTS[0], 0);
    const proves = SOURCES.map((other) => setting.proves(message, INITIATION_MAC1_AT, other, 0));
    assertEquals(proves, SOURCES.map((other) => other === source));
  }
});

Deno.test("cookie: before the first secret, no cookie can be computed", () => {
  const setting = new Setting();
  const message = setting.signed(LAYOUTS[0], 0);
  const { words, port } = SOURCES[0];
  const source = new Uint8Array(18);
  const view = new DataView(source.buffer);
  for (let i = 0; i < 4; i++) view.setUint32(4 * i, words[1 + i]);
  view.setUint16(16, port);
  const guess = mac(new Uint8Array(32), source);
  const mac2At = INITIATION_MAC1_AT + MAC_BYTES;
  message.set(mac(guess, message.subarray(0, mac2At)), mac2At);
  assertEquals(setting.proves(message, INITIATION_MAC1_AT, SOURCES[0], 0), false);
});

Deno.test("cookie: over any course of time, good are the cookies of the present secret while it lives", () => {
  const elapsed = fc.oneof(
    fc.constantFrom(0, 1, LIFE_US - 1, LIFE_US, LIFE_US + 1, LIFE_US / 2),
    fc.nat(LIFE_US + 10 * SECOND),
  );
  const command = fc.record({ elapsed, who: fc.nat(2), asks: fc.boolean() });
  const verdicts = [0, 0];
  fc.assert(
    fc.property(fc.array(command, { minLength: 2, maxLength: 20, size: "max" }), (commands) => {
      const setting = new Setting();
      const jars = SOURCES.slice(0, 3).map(() => new CookieJar(setting.publicKey, LIFE_US));
      // Per source: the secret that its cookie came from, and when it came. Secrets are numbered.
      const cookies: ({ secret: number; gotUs: number } | undefined)[] = [undefined, undefined, undefined];
      let secret = 0, madeUs = -Infinity, nowUs = 0;
      for (const { elapsed, who, asks } of commands) {
        nowUs += elapsed;
        const message = bytes(INITIATION_BYTES);
        jars[who].sign(message, INITIATION_MAC1_AT, nowUs);
        const cookie = cookies[who];
        // A sender forgets its cookie when it is as old as a secret may be (whitepaper §5.4.4).
        const isUsed = message.subarray(-MAC_BYTES).some((byte) => byte !== 0);
        assertEquals(isUsed, cookie !== undefined && nowUs - cookie.gotUs <= LIFE_US);
        const isGood = cookie !== undefined && cookie.secret === secret && nowUs - madeUs <= LIFE_US &&
          nowUs - cookie.gotUs <= LIFE_US;
        assertEquals(setting.proves(message, INITIATION_MAC1_AT, SOURCES[who], nowUs), isGood);
        verdicts[isGood ? 1 : 0]++;
        if (!asks) continue;
        if (nowUs - madeUs > LIFE_US) [secret, madeUs] = [secret + 1, nowUs];
        const reply = setting.reply(message, INITIATION_MAC1_AT, SOURCES[who], nowUs);
        assertEquals(jars[who].accept(reply, nowUs), true);
        cookies[who] = { secret, gotUs: nowUs };
      }
    }),
    options,
  );
  assert(Math.min(...verdicts) > 100, `too one-sided: ${verdicts}`);
});

Deno.test("cookies: the labels are those of the two protocols, and no key of one is a key of the other (PROTOCOL §4, §10)", () => {
  const publicKey = bytes(32), label = (text: string) => new TextEncoder().encode(text);
  assertEquals(mac1Key(publicKey, WIREGUARD_COOKIES), hash(label("mac1----"), publicKey));
  assertEquals(cookieKey(publicKey, WIREGUARD_COOKIES), hash(label("cookie--"), publicKey));
  assertEquals(mac1Key(publicKey, OXTUNNEL_COOKIES), hash(label("ox-mac1-"), publicKey));
  assertEquals(cookieKey(publicKey, OXTUNNEL_COOKIES), hash(label("ox-cook-"), publicKey));
});
