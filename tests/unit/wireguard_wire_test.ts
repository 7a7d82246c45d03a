/**
 * WireGuard's data messages to the byte, by numbers that do not come from the code: reserved bytes, counters beyond 2^53, padding
 * to 16 bytes that stays within the MTU and shows nothing of what was in memory before.
 */
import { assert, assertEquals } from "@std/assert";
import { Burst, TO_PARSE } from "../../src/vector/burst.ts";
import { parseAddress } from "../../src/wire/address.ts";
import { innerLength } from "../../src/wire/inner.ts";
import { paddedLength, readCounter, readType } from "../../src/wire/wireguard.ts";
import { udpPacket } from "../kit/packets.ts";
import { World } from "../kit/world.ts";

const HEADER_AND_TAG = 32;

Deno.test("wireguard: a message whose reserved bytes are not zero is of no type (PROTOCOL R2)", () => {
  for (const type of [1, 2, 3, 4]) {
    const view = new DataView(Uint8Array.of(type, 0, 0, 0).buffer);
    assertEquals(readType(view, 0), type);
    for (const at of [1, 2, 3]) {
      const reserved = new DataView(view.buffer.slice(0));
      reserved.setUint8(at, 1);
      assertEquals(readType(reserved, 0), 0, `type ${type}, byte ${at}`);
    }
  }
  assertEquals(readType(new DataView(Uint8Array.of(5, 0, 0, 0).buffer), 0), 0);
});

Deno.test("wireguard: a counter is a number up to 2^53 - 1, and beyond that none", () => {
  const view = new DataView(new ArrayBuffer(16));
  for (const [counter, read] of [[0n, 0], [2n ** 32n, 2 ** 32], [2n ** 53n - 1n, 2 ** 53 - 1]] as const) {
    view.setBigUint64(8, counter, true);
    assertEquals(readCounter(view, 0), read);
  }
  for (const counter of [2n ** 53n, 2n ** 64n - 1n]) {
    view.setBigUint64(8, counter, true);
    assertEquals(readCounter(view, 0), -1);
  }
});

Deno.test("wireguard: plaintexts grow to a multiple of 16, but not beyond the MTU (whitepaper 5.4.6)", () => {
  const lengths = [[0, 0], [1, 16], [16, 16], [17, 32], [1408, 1408], [1409, 1420], [1420, 1420], [
    1421,
    1424,
  ]];
  for (const [length, padded] of lengths) assertEquals(paddedLength(length, 1420), padded, String(length));
});

Deno.test("wireguard: on the wire padding is there, within the MTU, and zero whatever its slot held", () => {
  const world = new World(3);
  const server = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1" });
  const client = world.client("198.51.100.7:5555", server, { ipv4: "10.66.0.2" });
  client.send(udpPacket("10.66.0.2", "8.8.8.8", new Uint8Array(4)));
  world.runFor(1_000_000);
  for (const [bytes, wire] of [[29, 32], [32, 32], [33, 48], [1409, 1420], [1420, 1420]]) {
    let datagram: Uint8Array | undefined;
    world.tap = (from, _to, seen) => {
      if (from === server.endpoint) datagram = seen.slice();
      return undefined;
    };
    server.arena.bytes.fill(0xff);
    server.send(udpPacket("8.8.8.8", "10.66.0.2", new Uint8Array(bytes - 28)));
    assert(datagram);
    assertEquals(datagram.length, wire + HEADER_AND_TAG, `a packet of ${bytes} bytes`);
    const burst = new Burst(client.arena);
    const row = burst.grow(datagram.length, TO_PARSE);
    burst.bytes.set(datagram, burst.offset[row]);
    burst.address.set(parseAddress("192.0.2.1")!, 4 * row);
    burst.port[row] = 4433;
    client.core.ingest(burst, world.nowUs);
    const at = burst.offset[row];
    assertEquals(innerLength(burst.view, at, wire), bytes);
    assertEquals(burst.bytes.slice(at + bytes, at + wire), new Uint8Array(wire - bytes), "padding");
    burst.release();
  }
});
