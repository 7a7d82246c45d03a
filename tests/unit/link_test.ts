/**
 * The link of `connect` over its own plane and real sockets on loopback, against a relay in this process: what its
 * datagrams are, as who stands between them sees it. Needs no native library and no device.
 */
import { assert, assertEquals, assertGreater } from "@std/assert";
import type { Invitation } from "../../src/connect/invitation.ts";
import { Link } from "../../src/connect/link/mod.ts";
import { LocalPlane } from "../../src/connect/link/local_plane.ts";
import type { LinkPlane } from "../../src/connect/link/plane.ts";
import type { Servers } from "../../src/connect/servers.ts";
import { portableSuite } from "../../src/codec/suite.ts";
import { DEFAULTS } from "../../src/config.ts";
import { Driver } from "../../src/io/driver.ts";
import { UdpPort } from "../../src/io/udp.ts";
import { DROP, Metrics } from "../../src/metrics.ts";
import { Arena } from "../../src/vector/arena.ts";
import { PacketExit } from "../kit/fakes.ts";
import { udpPacket } from "../kit/packets.ts";
import { idleRelay } from "./idle_relay.ts";

const INITIATION = 0xc1;
/** Bytes of early data that are its tag alone, or none. */
const NO_EARLY_MAX = 16;
const MOVES_MAX = 10, PATIENCE_MS = 30_000;

/** An address of the relay: carries datagrams to and fro, and notes the client's. */
function door(relayPort: number) {
  const listen = () => Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
  const near = listen(), far = listen();
  const relay: Deno.NetAddr = { transport: "udp", hostname: "127.0.0.1", port: relayPort };
  const seen: Uint8Array[] = [];
  let client: Deno.Addr = relay;
  const carrying = [
    (async () => {
      for await (const [bytes, from] of near) {
        client = from;
        seen.push(bytes.slice());
        await far.send(bytes, relay);
      }
    })(),
    (async () => {
      for await (const [bytes] of far) await near.send(bytes, client);
    })(),
  ];
  const close = async () => {
    near.close();
    far.close();
    await Promise.allSettled(carrying);
  };
  return { port: (near.addr as Deno.NetAddr).port, seen, close };
}

async function until(condition: () => boolean | Promise<boolean>, what: string): Promise<void> {
  const endMs = performance.now() + PATIENCE_MS;
  while (!await condition()) {
    assert(performance.now() < endMs, `${what}: not in ${PATIENCE_MS} ms`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Nothing but the protocol. */
const PLAIN = {
  priorities: [],
  rules: [],
  compression: false,
  headers: [],
  batching: false,
  goesFirst: false,
  congestionAlgorithm: "none" as const,
  repair: { ...DEFAULTS.repair, enabled: false },
};

/** What the relay gave the client, with its endpoint on loopback. */
function invitationOf(privateKey: Uint8Array, relayPublicKey: Uint8Array, port: number): Invitation {
  return {
    privateKey: privateKey.toBase64(),
    relayPublicKey: relayPublicKey.toBase64(),
    endpoint: { host: "127.0.0.1", port },
    addresses: ["10.66.0.2/32"],
    routes: [],
    dns: [],
    mtu: 1280,
    keepaliveS: 25,
    protocol: "oxtunnel",
  };
}

/** One relay that is at the port of the moment; a round says once that it has moved. */
function serversAt(port: () => number, takeMove: () => boolean): Servers {
  return {
    address: "127.0.0.1",
    get endpoint() {
      return { host: "127.0.0.1", port: port() };
    },
    outer: [],
    statuses: [],
    follow: () => Promise.resolve(false),
    round: () => Promise.resolve(takeMove()),
  } as unknown as Servers;
}

async function keyPair(): Promise<{ privateKey: Uint8Array; publicKey: Uint8Array }> {
  const keys = await crypto.subtle.generateKey({ name: "X25519" }, true, ["deriveBits"]) as CryptoKeyPair;
  return {
    privateKey: new Uint8Array(await crypto.subtle.exportKey("pkcs8", keys.privateKey)).slice(-32),
    publicKey: new Uint8Array(await crypto.subtle.exportKey("raw", keys.publicKey)),
  };
}

/** The plane, with something to be done just after it is told where to connect. */
function sendingFirst(plane: LocalPlane, onConnect: () => void): LinkPlane {
  return {
    connect: (address, port) => {
      plane.connect(address, port);
      onConnect();
    },
    reach: (address, port) => plane.reach(address, port),
    setDoors: () => {},
    moved: () => plane.moved(),
    hint: () => {},
    look: (ping) => plane.look(ping),
    close: () => plane.close(),
  };
}

Deno.test("link: once a relay has given a ticket, the first packet to where it has moved goes with the initiation", async () => {
  const arena = new Arena(1024), metrics = new Metrics();
  const relay = idleRelay(arena, metrics, {
    makeDatagramAead: portableSuite({ forged: DROP.forged }).crypto.makeDatagramAead,
  });
  const udp = new UdpPort({ host: "127.0.0.1", port: 0, arena, onDrop: () => {} });
  /** The first byte of each payload that came out. */
  const came: number[] = [];
  const outside = new PacketExit((burst, row) => came.push(burst.bytes[burst.offset[row] + 28]));
  const inside = new PacketExit();
  const driver = new Driver(arena, relay, udp, outside, metrics);
  driver.start();
  const doors = [door(udp.localPort), door(udp.localPort)];

  const { privateKey, publicKey } = await keyPair();
  relay.addPeer({ name: "laptop", publicKey: publicKey.toBase64(), allowedIps: ["10.66.0.2/32"] });
  const invitation = invitationOf(privateKey, relay.publicKey, doors[0].port);
  const plane = new LocalPlane(invitation, inside, "this test needs no library", PLAIN);
  assertGreater(plane.warmedUp, 0, "the compiler knows the routes before the first packet comes");
  let at = 0, hasMoved = false, packet = 0;
  const servers = serversAt(() => doors[at].port, () => {
    const had = hasMoved;
    hasMoved = false;
    return had;
  });
  const observed = sendingFirst(plane, () => {
    if (packet > 0) inside.put(udpPacket("10.66.0.2", "8.8.8.8", Uint8Array.of(packet)));
    packet = 0; // a handshake that is tried again has nothing more
  });
  const link = new Link({
    servers,
    plane: observed,
    ownDevice: "",
    isWatched: false,
    say: () => {},
    onMoved: () => Promise.resolve(),
    onMtu: () => Promise.resolve(),
  });
  try {
    await until(() => doors[0].seen.length > 0, "the first initiation");
    assertEquals([doors[0].seen[0][0], doors[0].seen[0][2], doors[0].seen[0][3]], [INITIATION, 0, 0]);
    const first: number[] = [];
    for (let move = 1; first.every((bytes) => bytes <= NO_EARLY_MAX) && move <= MOVES_MAX; move++) {
      await until(async () => await link.tend() === "connected", "the session");
      // The relay gives its ticket when the second key exchange is over; who moves before that moves once more.
      await new Promise((resolve) => setTimeout(resolve, 250 * move));
      at = move % 2;
      const { seen } = doors[at];
      seen.length = 0;
      packet = move;
      hasMoved = true;
      await until(async () => (await link.tend(), seen.length > 0), "an initiation to where it has moved");
      const [initiation] = seen;
      assertEquals(initiation[0], INITIATION);
      first.push(initiation[2] | (initiation[3] << 8));
      await until(() => came.includes(move), "the packet");
    }
    assertGreater(first.at(-1)!, NO_EARLY_MAX, `in ${first.length} moves none carried a packet`);
    assertEquals(came, first.map((_, i) => i + 1), "each came once");
  } finally {
    await link.close();
    await driver.stop();
    relay.close();
    await udp.close();
    for (const one of doors) await one.close();
  }
});
