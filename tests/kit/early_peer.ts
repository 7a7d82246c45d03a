/**
 * Initiations with early data of a test's own making: any plaintext, any ticket and secret, sound MACs. Keeps no rules and
 * hears no answers.
 */
import { nodeCrypto } from "../../src/codec/node_crypto.ts";
import type { Relay } from "../../src/relay.ts";
import { CookieJar, OXTUNNEL_COOKIES } from "../../src/session/cookie.ts";
import { createOxInitiation } from "../../src/session/oxtunnel/handshake.ts";
import { tai64n } from "../../src/wire/timestamp.ts";
import { oxMac1At } from "../../src/wire/oxtunnel.ts";
import { type Parameters, writeParameters } from "../../src/wire/parameters.ts";
import type { Host, World } from "./world.ts";

export interface Early {
  plaintext: Uint8Array;
  ticketSecret: Uint8Array;
}

/** An initiation of the device with this private key, later than all that it has sent. `say.ticket` is the ticket. */
export function initiationOf(
  world: World,
  relay: Host<Relay>,
  privateKey: Uint8Array,
  say: Parameters,
  early: Early | undefined,
  bytes = 1200,
): Uint8Array {
  const parameters = new Uint8Array(300);
  const end = writeParameters(parameters, 0, { features: 0xc0, aeads: [1], ...say });
  const ephemeral = new Uint8Array(32);
  world.random.fill(ephemeral);
  const message = new Uint8Array(bytes);
  createOxInitiation(
    nodeCrypto,
    message,
    0x01020304,
    nodeCrypto.publicKey(privateKey),
    relay.core.publicKey,
    nodeCrypto.sharedSecret(privateKey, relay.core.publicKey)!,
    ephemeral,
    tai64n(1_800_000_000_000_000 + world.nowUs),
    parameters.subarray(0, end),
    early,
  );
  return signed(relay, message);
}

/** The message with the MAC1 that anyone can make who knows the relay's public key. */
export function signed(relay: Host<Relay>, message: Uint8Array): Uint8Array {
  const jar = new CookieJar(relay.core.publicKey, 1e9, undefined, 0, OXTUNNEL_COOKIES);
  jar.sign(message, oxMac1At(message.length), 0);
  return message;
}
