/** Public keys with which nobody could ever connect, at every door by which a key comes in. */
import { assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { Buffer } from "node:buffer";
import { createPrivateKey, createPublicKey, diffieHellman } from "node:crypto";
import { CommandError } from "../../src/process/help.ts";
import { loadIdentity } from "../../src/serve/identity.ts";
import { parseInvitation } from "../../src/connect/invitation.ts";
import { generatePrivateKey, keyToText, publicKeyOf, unusableKey } from "../../src/process/keys_text.ts";
import { LivePeers } from "../../src/serve/live_peers.ts";
import { loadAllPeers, peersFromEnvironment, PeerStore } from "../../src/serve/store.ts";
import { Refusal } from "../../src/admin/mod.ts";
import { parseConfig } from "../../src/config.ts";
import type { PeerRecord } from "../../src/session/peer_record.ts";

const P = 2n ** 255n - 19n;
const ORDER_8 = [
  325606250916557431795983626356110631294008115727848805560023387167927233504n,
  39382357235489614581723060781553021112529911719440698176882885853963445705823n,
];
/** Every text of a point whose order divides 8 (RFC 7748 section 6.1): below 2^255, and with the bit that is ignored. */
const SMALL = [0n, 1n, P - 1n, P, P + 1n, ...ORDER_8].flatMap((u) => [u, u + 2n ** 255n]);

function bytesOf(u: bigint): Uint8Array {
  return Uint8Array.from({ length: 32 }, (_, i) => Number(u >> BigInt(8 * i) & 255n));
}

const OWN = generatePrivateKey();
const OWN_PUBLIC = keyToText(publicKeyOf(OWN));
const UNUSABLE = [...SMALL.map((u) => keyToText(bytesOf(u))), OWN_PUBLIC];

async function inDirectory(action: (stateDir: string) => Promise<void>): Promise<void> {
  const stateDir = await Deno.makeTempDir({ prefix: "oxrelay-keys-" });
  try {
    await action(stateDir);
  } finally {
    await Deno.remove(stateDir, { recursive: true });
  }
}

Deno.test("keys: those refused are exactly those with which no secret can be agreed on", () => {
  const [pkcs8, spki] = ["302e020100300506032b656e04220420", "302a300506032b656e032100"].map(
    Uint8Array.fromHex,
  );
  const secretWith = (publicKey: Uint8Array) =>
    diffieHellman({
      privateKey: createPrivateKey({ key: Buffer.from([...pkcs8, ...OWN]), format: "der", type: "pkcs8" }),
      publicKey: createPublicKey({ key: Buffer.from([...spki, ...publicKey]), format: "der", type: "spki" }),
    });
  for (const u of SMALL) {
    assertThrows(() => {
      if (secretWith(bytesOf(u)).every((byte) => byte === 0)) throw new Error("all zero");
    });
    assertMatch(unusableKey(keyToText(bytesOf(u)))!, /nobody can have this key/);
  }
  // Their neighbours are ordinary points.
  for (const u of [2n, 9n, P - 2n, P + 2n, ...ORDER_8.map((u) => u + 1n)]) {
    assertEquals(secretWith(bytesOf(u)).every((byte) => byte === 0), false);
    assertEquals(unusableKey(keyToText(bytesOf(u))), undefined);
  }
});

Deno.test("keys: the store and /v1 refuse what cannot work, the relay's own key too", async () => {
  await inDirectory(async (stateDir) => {
    const store = new PeerStore({ stateDir, tunnelIpv4: "10.66.0.0/16", relayKey: OWN_PUBLIC });
    let served: readonly PeerRecord[] = [];
    const live = new LivePeers(store, {
      get peers() {
        return served;
      },
      setPeers(peers) {
        served = peers;
        return Promise.resolve({ added: [], removed: [], failed: [] });
      },
    });
    for (const publicKey of UNUSABLE) {
      const peer = { name: "phone", publicKey, created: "2026-01-01T00:00:00.000Z" };
      await assertRejects(() => store.add(peer), CommandError, "public key: ");
      const { field } = await assertRejects(() => live.add(peer), Refusal);
      assertEquals(field, "publicKey");
    }
    assertEquals([await store.load(), served], [[], []]);
  });
});

Deno.test("keys: OXRELAY_PEERS, OXRELAY_PRIVATE_KEY and the key file refuse what cannot work", async () => {
  await inDirectory(async (stateDir) => {
    const config = parseConfig(`tunnel_ipv6 = "off"\nstate_dir = "${stateDir}"`, "f", {});
    for (const publicKey of UNUSABLE) {
      const record = { name: "phone", publicKey, allowedIps: ["10.66.0.2/32"], created: "2026" };
      const env = {
        OXRELAY_PEERS: btoa(JSON.stringify({ version: 1, peers: [record] })),
        OXRELAY_PRIVATE_KEY: keyToText(OWN),
      };
      await assertRejects(() => loadAllPeers(config, env), CommandError);
      if (publicKey !== OWN_PUBLIC) assertThrows(() => peersFromEnvironment(env), CommandError, "publicKey");
    }
    const zero = keyToText(new Uint8Array(32));
    await assertRejects(() => loadIdentity(config, { OXRELAY_PRIVATE_KEY: zero }), CommandError);
    await Deno.writeTextFile(`${stateDir}/private.key`, `${zero}\n`, { mode: 0o600 });
    await assertRejects(() => loadIdentity(config, {}), CommandError, "private.key: not a private key");
  });
});

Deno.test("keys: a config and an invitation for connect and speedtest refuse what cannot work", () => {
  const config = (privateKey: string, publicKey: string) =>
    `[Interface]\nPrivateKey = ${privateKey}\nAddress = 10.66.0.2/32\n\n[Peer]\nPublicKey = ${publicKey}\n` +
    `Endpoint = 192.0.2.1:4433\nAllowedIPs = 0.0.0.0/0\n`;
  const url = (text: string) => text.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  const line = (privateKey: string, publicKey: string) =>
    `oxrelay://192.0.2.1:4433?key=${url(privateKey)}&relay=${url(publicKey)}&address=10.66.0.2/32`;
  const other = keyToText(publicKeyOf(generatePrivateKey()));
  for (const write of [config, line]) {
    parseInvitation(write(keyToText(OWN), other), "f");
    for (const publicKey of UNUSABLE) {
      assertThrows(() => parseInvitation(write(keyToText(OWN), publicKey), "f"), CommandError, "key");
    }
    assertThrows(
      () => parseInvitation(write(keyToText(new Uint8Array(32)), other), "f"),
      CommandError,
      "zero",
    );
  }
});
