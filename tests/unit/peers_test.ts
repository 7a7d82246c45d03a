/**
 * The peer table's columns of keys: each peer reads its own, a peer that goes leaves nothing of its own behind, and who
 * takes its id begins anew.
 */
import { assertEquals } from "@std/assert";
import { type PeerIdentity, PeerTable } from "../../src/session/peers.ts";
import { NONE } from "../../src/vector/arena.ts";

const identity = (n: number): PeerIdentity => ({
  name: `peer-${n}`,
  publicKeyText: `key-${n}`,
  publicKey: new Uint8Array(32).fill(n),
  presharedKey: new Uint8Array(32).fill(n + 100),
  staticSecret: new Uint8Array(32).fill(n + 200),
  allowedIps: [`10.66.0.${n}/32`],
  cookieLifeUs: 120e6,
  persistentKeepaliveUs: 0,
  lastTimestamp: new Uint8Array(12).fill(n),
});

Deno.test("peer table: keys are copied, told apart, and overwritten with their peer", () => {
  const table = new PeerTable(3);
  const given = [1, 2, 3].map(identity);
  const peers = given.map((each) => table.add(each));
  given[0].staticSecret.fill(0); // the caller's copy
  peers.forEach((peer, i) => {
    const keys = [peer.publicKey, peer.presharedKey, peer.staticSecret, peer.lastTimestamp];
    assertEquals(keys.map((key) => [...new Set(key)]), [[i + 1], [i + 101], [i + 201], [i + 1]]);
  });
  const { publicKey, presharedKey, staticSecret, lastTimestamp, id } = peers[1];
  table.current[id] = 7;
  table.remove(peers[1]);
  for (const bytes of [publicKey, presharedKey, staticSecret, lastTimestamp]) {
    assertEquals(new Set(bytes), new Set([0]));
  }
  const next = table.add({ ...identity(4), lastTimestamp: undefined });
  assertEquals([next.id, table.current[id], table.keepaliveAtUs[id]], [id, NONE, Infinity]);
  assertEquals(next.lastTimestamp, new Uint8Array(12));
  assertEquals(peers[2].staticSecret, new Uint8Array(32).fill(203));
});
