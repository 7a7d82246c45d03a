/**
 * What bounds a session of OxTunnel: how often its key requests are computed with, when it ends after a successor, that an
 * id is seen on one path, and that the other protocol does not move it. Peers here have the keys and break the rules.
 */
import { assert, assertEquals, assertGreater } from "@std/assert";
import { nodeCrypto } from "../../src/codec/node_crypto.ts";
import { NONE } from "../../src/vector/arena.ts";
import { KEY_REQUEST, writeKeyExchange } from "../../src/wire/control.ts";
import { udpPacket } from "../kit/packets.ts";
import { World } from "../kit/world.ts";
import { inside, sealed, sessionOf } from "../kit/inside.ts";

const SECOND = 1_000_000;
const packet = udpPacket("10.66.0.2", "8.8.8.8", new Uint8Array(100));

function start(options = {}) {
  const world = new World(1);
  world.protocol = "oxtunnel";
  const server = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1", ...options });
  const client = world.client("198.51.100.7:5555", server, { ipv4: "10.66.0.2" });
  client.send(packet);
  world.runFor(6 * SECOND);
  return { world, server, client };
}

Deno.test("limits: of many key requests that fail one is computed with in a grace period", () => {
  let computed = 0;
  const primitives = {
    ...nodeCrypto,
    sharedSecret(privateKey: Uint8Array, publicKey: Uint8Array) {
      computed++;
      return nodeCrypto.sharedSecret(privateKey, publicKey);
    },
  };
  const { world, server, client } = start({ primitives });
  const { epoch } = sessionOf(server);
  const requests = () =>
    sealed(client, (view, start) => {
      let at = start;
      for (let i = 0; i < 40; i++) {
        at = writeKeyExchange(view, at, KEY_REQUEST, epoch + 1, 32, 0);
        for (let j = 0; j < 32; j++) view.setUint8(at++, 0); // a point of low order
      }
      return at - start;
    });
  computed = 0;
  for (let i = 0; i < 10; i++) server.receive(requests(), client.endpoint);
  assertEquals(computed, 1);
  world.runFor(4 * SECOND);
  server.receive(requests(), client.endpoint);
  assertEquals(computed, 2);
});

Deno.test("limits: a session that has a successor ends after the grace period, key exchange or not", () => {
  const { world, server, client } = start();
  const old = [server, client].map((host) => inside(host).peers.current[0]);
  sessionOf(client).renew(world.nowUs);
  inside(client).associations.outbox.initiate(0);
  client.tick();
  world.runFor(SECOND);
  client.send(packet);
  world.runFor(5 * SECOND);
  for (const [i, host] of [server, client].entries()) {
    const { peers, associations } = inside(host);
    assert(peers.current[0] !== old[i] && peers.current[0] !== NONE);
    assertEquals(peers.previous[0], NONE);
    assertEquals(associations.oxtunnel.sessions.of[old[i]], undefined);
  }
});

Deno.test("limits: however fast a client moves, no id of the relay's is seen on two of its paths", () => {
  const { world, server, client } = start();
  const seen = new Map<string, Set<string>>();
  world.tap = (from, to, bytes) => {
    if ((bytes[0] & 0xc0) === 0x40 && to === server.endpoint) {
      const id = bytes.slice(1, 5).toHex();
      seen.set(id, (seen.get(id) ?? new Set()).add(from));
    }
    return bytes;
  };
  for (let move = 1; move <= 4; move++) {
    client.endpoint = `203.0.113.${move}:1`;
    client.core.moved();
    client.tick();
    world.runFor(15_000);
  }
  world.runFor(10 * SECOND);
  client.send(packet);
  world.runFor(SECOND);
  assertGreater(seen.size, 1);
  for (const [id, paths] of seen) assertEquals(paths.size, 1, `${id}: ${[...paths]}`);
  assertEquals(server.delivered.length, 2, "and it is served in the end");
});

Deno.test("limits: an initiation of WireGuard's does not lead an OxTunnel session's data elsewhere", () => {
  const { world, server, client } = start();
  const home = client.endpoint;
  inside(client).peers.protocol[0] = 1;
  client.endpoint = "203.0.113.99:9";
  world.runFor(10 * SECOND);
  inside(client).associations.outbox.initiate(0);
  const sent: string[] = [];
  world.tap = (from, to, bytes) => {
    if (from !== server.endpoint) return bytes;
    sent.push(`${(bytes[0] & 0xc0) === 0x40 ? "data" : bytes[0]} to ${to}`);
  };
  client.tick();
  world.runFor(100_000);
  server.send(udpPacket("8.8.8.8", "10.66.0.2", new Uint8Array(1000)));
  assert(sent.includes("2 to 203.0.113.99:9"), `${sent}`);
  assertEquals(sent.filter((one) => one.startsWith("data") && !one.endsWith(home)), []);
  assertGreater(sent.filter((one) => one === `data to ${home}`).length, 0);
});
