/**
 * The relay's ticket keys by themselves: what they seal opens for twelve hours, across one change of keys, for one place
 * among the peers, and for nobody after they were overwritten.
 */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { nodeCrypto } from "../../src/codec/node_crypto.ts";
import { OWN_TICKET_BYTES, TICKET_LIFE_US, TicketKeys } from "../../src/session/oxtunnel/tickets.ts";
import { type Peer, PeerTable } from "../../src/session/peers.ts";
import { Random } from "../kit/random.ts";

const HOUR = 3_600_000_000;
const SECRET = Uint8Array.from({ length: 32 }, (_, i) => i);

function addPeer(peers: PeerTable, number: number): Peer {
  const publicKey = new Uint8Array(32).fill(number);
  return peers.add({
    name: `${number}`,
    publicKeyText: publicKey.toBase64(),
    publicKey,
    presharedKey: new Uint8Array(32),
    staticSecret: new Uint8Array(32),
    allowedIps: [],
    cookieLifeUs: 1,
    persistentKeepaliveUs: 0,
  });
}

function setting() {
  const peers = new PeerTable(4);
  for (let i = 0; i < 2; i++) addPeer(peers, i + 1);
  const random = new Random(1);
  /** The memory that keys were drawn into. */
  const drawn: Uint8Array[] = [];
  const keys = new TicketKeys(nodeCrypto, (bytes) => {
    random.fill(bytes);
    drawn.push(bytes);
  });
  return { peers, keys, drawn };
}

Deno.test("ticket keys: a ticket opens for its peer until it expires, whenever it was sealed", () => {
  for (const sealedUs of [0, 1, 6 * HOUR, 12 * HOUR - 1, 12 * HOUR, 30 * HOUR]) {
    const { peers, keys } = setting();
    // The first one sets the clock of the keys.
    keys.seal(SECRET, peers, 1, 0);
    const ticket = keys.seal(SECRET, peers, 0, sealedUs);
    assertEquals(ticket.length, OWN_TICKET_BYTES);
    const open = (id: number, nowUs: number) => keys.open(ticket, peers, id, nowUs);
    assertEquals(open(0, sealedUs), SECRET);
    assertEquals(open(1, sealedUs), undefined, "another's");
    assertEquals(open(0, sealedUs + TICKET_LIFE_US - 1), SECRET);
    assertEquals(open(0, sealedUs + TICKET_LIFE_US), undefined);
  }
});

Deno.test("ticket keys: a ticket is worth nothing to another key, in another place, and to the same one after it was removed", () => {
  const { peers, keys } = setting();
  const ticket = keys.seal(SECRET, peers, 0, 0);
  /** Opens it in a table to which these keys were added, and from which the first may have been removed and added again. */
  const open = (numbers: number[], id: number, isRemoved = false) => {
    const others = new PeerTable(4);
    const added = numbers.map((number) => addPeer(others, number));
    if (isRemoved) {
      others.remove(added[0]);
      addPeer(others, numbers[0]);
    }
    return keys.open(ticket, others, id, 0);
  };
  assertEquals(open([1], 0), SECRET);
  assertEquals(open([2], 0), undefined, "another key in its place");
  assertEquals(open([2, 1], 1), undefined, "its key in another place");
  assertEquals(open([1], 0, true), undefined, "removed and added again");
});

Deno.test("ticket keys: the time alone changes them, and what no ticket can need is overwritten", () => {
  const { peers, keys, drawn } = setting();
  assertEquals([keys.dueUs, drawn.length], [Infinity, 0], "no key before the first ticket");
  const first = keys.seal(SECRET, peers, 0, 0);
  const initial = drawn[0].slice();
  assertEquals(keys.dueUs, 12 * HOUR);
  keys.rotate(12 * HOUR);
  assertEquals([drawn[0], drawn.length, keys.dueUs], [initial, 2, 24 * HOUR]);
  assertNotEquals(drawn[1], initial);
  keys.rotate(24 * HOUR);
  assertNotEquals(drawn[0], initial);
  assertEquals(keys.open(first, peers, 0, 1), undefined, "its key is gone, whatever the clock says");
  // Asleep for days: both are.
  const [a, b] = drawn.slice(0, 2).map((key) => key.slice());
  keys.rotate(200 * HOUR);
  assert(drawn.slice(0, 2).every((key) => key.toHex() !== a.toHex() && key.toHex() !== b.toHex()));
  const last = keys.seal(SECRET, peers, 0, 200 * HOUR);
  keys.wipe();
  for (const key of drawn) assertEquals(key, new Uint8Array(32));
  assertEquals(keys.open(last, peers, 0, 200 * HOUR), undefined);
});
