/**
 * A session between UDP and a connection, in the deterministic world: it moves when the other way has answered and not
 * before, loses nothing that both ways carry, shows no id on two ways, and asking in vain costs it nothing.
 */
import { assert, assertEquals, assertGreater } from "@std/assert";
import type { Client } from "../../src/client.ts";
import type { Relay } from "../../src/relay.ts";
import { STREAM_PORT_NUMBER, streamNumberOf } from "../../src/wire/stream.ts";
import { type Host, World } from "../kit/world.ts";
import { udpPacket } from "../kit/packets.ts";

const MS = 1000;
const SEED = Number(Deno.env.get("SIM_SEED") ?? 1);
/** The same connection as each end numbers it. */
const AT_CLIENT = "100::1", AT_RELAY = "[100::7]:443";
const UDP = ["192.0.2.1", 4433] as const;

function packet(from: string, to: string, n: number): Uint8Array {
  const payload = new Uint8Array(60);
  new DataView(payload.buffer).setUint32(0, n);
  return udpPacket(from, to, payload);
}

const numbers = (host: Host) => host.delivered.map((one) => new DataView(one.buffer).getUint32(28));

/** Relay and client between whom UDP may be blocked and a connection be open, with packets both ways each 5 ms. */
class Scene {
  readonly world = new World(SEED);
  readonly server: Host<Relay>;
  readonly client: Host<Client>;
  isUdpBlocked = false;
  isStreamOpen = true;
  /** Ids that datagrams were sent to, by way and direction. */
  readonly ids = new Map<string, Set<number>>();
  sent = 0;
  #stream: { to: Host; bytes: Uint8Array; from: string; atUs: number }[] = [];

  constructor() {
    const { world } = this;
    world.protocol = "oxtunnel";

    this.server = world.relay(UDP.join(":"), { ipv4: "10.66.0.1" });
    this.client = world.client("198.51.100.7:5555", this.server, { ipv4: "10.66.0.2" });
    world.tap = (from, to, bytes) => this.#carry(from, to, bytes);
    this.run(1000, 0);
    this.client.send(packet("10.66.0.2", "8.8.8.8", 0)); // by which the relay knows the session to stand
    this.run(200, 0);
    this.run(200);
  }

  #carry(from: string, to: string, bytes: Uint8Array): Uint8Array | undefined {
    const isUp = from !== this.server.endpoint;
    const isStream = streamNumberOf(to) !== undefined;
    if ((bytes[0] & 0xc0) === 0x40) {
      const way = `${isStream ? "TLS" : "UDP"} ${isUp ? "up" : "down"}`;
      if (!this.ids.has(way)) this.ids.set(way, new Set());
      this.ids.get(way)!.add(new DataView(bytes.buffer, bytes.byteOffset).getUint32(1, true));
    }
    if (!isStream) return this.isUdpBlocked ? undefined : bytes;
    if (!this.isStreamOpen) return undefined;
    const atUs = this.world.nowUs + 25 * MS;
    const view = isUp ? AT_RELAY : `[${AT_CLIENT}]:${STREAM_PORT_NUMBER}`;
    this.#stream.push({ to: isUp ? this.server : this.client, bytes: bytes.slice(), from: view, atUs });
    return undefined;
  }

  run(ms: number, everyMs = 5): void {
    for (let i = 0; i < ms; i++) {
      if (everyMs > 0 && i % everyMs === 0) {
        this.sent++;
        this.client.send(packet("10.66.0.2", "8.8.8.8", this.sent));
        this.server.send(packet("8.8.8.8", "10.66.0.2", this.sent));
      }
      this.world.runFor(MS);
      const due = this.#stream.filter(({ atUs }) => atUs <= this.world.nowUs);
      this.#stream = this.#stream.filter(({ atUs }) => atUs > this.world.nowUs);
      for (const { to, bytes, from } of due) to.receive(bytes, from);
    }
  }

  reach(address: string, port: number): void {
    this.client.core.reach(address, port, this.world.nowUs);
    this.client.tick();
  }

  /** Where each end sends to: TLS or UDP. */
  get ways(): string[] {
    return [this.client, this.server].map(({ core }) =>
      streamNumberOf(core.peerSnapshots(this.world.nowUs)[0].endpoint!) === undefined ? "UDP" : "TLS"
    );
  }
}

Deno.test(`fallback: while both ways work, a session changes between them and loses nothing (seed ${SEED})`, () => {
  const scene = new Scene();
  const { client, server } = scene;
  assertEquals(scene.ways, ["UDP", "UDP"]);
  for (let turn = 1; turn <= 6; turn++) {
    const isThere = turn % 2 === 1;
    if (isThere) scene.reach(AT_CLIENT, STREAM_PORT_NUMBER);
    else scene.reach(...UDP);
    scene.run(20);
    assertEquals(scene.ways, isThere ? ["UDP", "UDP"] : ["TLS", "TLS"], "before the answer nothing changes");
    scene.run(1000);
    assertEquals(scene.ways, isThere ? ["TLS", "TLS"] : ["UDP", "UDP"], `turn ${turn}`);
    assertEquals(server.metrics.get("roamed"), turn, "once each time, and not back again");
    scene.run(4000);
  }
  scene.run(200, 0);
  for (const host of [client, server]) {
    const found = numbers(host).filter((n) => n > 0);
    assertEquals(new Set(found).size, found.length, "nothing came twice");
    const missing = Array.from({ length: scene.sent }, (_, i) => i + 1).filter((n) => !found.includes(n));
    assertEquals(missing, []);
  }
  assertEquals(server.metrics.get("handshakes_completed"), 1);
  for (const side of ["up", "down"]) {
    const [udp, tls] = ["UDP", "TLS"].map((way) => scene.ids.get(`${way} ${side}`)!);
    assertEquals([...udp].filter((id) => tls.has(id)), [], "no id is seen on both");
    assertGreater(udp.size + tls.size, 6);
  }
});

Deno.test(`fallback: under blocked UDP the session goes on over the connection (seed ${SEED})`, () => {
  const scene = new Scene();
  scene.isUdpBlocked = true;
  scene.run(500);
  const lost = scene.sent;
  scene.reach(AT_CLIENT, STREAM_PORT_NUMBER);
  scene.run(100);
  assertEquals(scene.ways, ["TLS", "TLS"]);
  const before = scene.sent;
  scene.run(500);
  scene.run(200, 0);
  for (const host of [scene.client, scene.server]) {
    assertEquals(numbers(host).filter((n) => n > before).length, scene.sent - before);
    assertGreater(numbers(host).filter((n) => n > lost).length, scene.sent - before);
  }
  assertEquals(scene.server.metrics.get("handshakes_completed"), 1);
});

Deno.test(`fallback: asking UDP in vain costs nothing, however often (seed ${SEED})`, () => {
  const scene = new Scene();
  scene.isUdpBlocked = true;
  scene.reach(AT_CLIENT, STREAM_PORT_NUMBER);
  scene.run(500);
  assertEquals(scene.ways, ["TLS", "TLS"]);
  const before = scene.sent;
  const idsBefore = scene.ids.get("UDP up")!.size;
  for (let i = 0; i < 20; i++) {
    scene.reach(...UDP);
    scene.run(2000, 20);
    assertEquals(scene.ways, ["TLS", "TLS"]);
  }
  assert(scene.ids.get("UDP up")!.size <= idsBefore + 1, "one id, as it is one address");
  scene.isUdpBlocked = false;
  scene.reach(...UDP);
  scene.run(500);
  scene.run(200, 0);
  assertEquals(scene.ways, ["UDP", "UDP"]);
  for (const host of [scene.client, scene.server]) {
    assertEquals(numbers(host).filter((n) => n > before).length, scene.sent - before);
  }
});

Deno.test(`fallback: a change of network while another way is asked loses neither (seed ${SEED})`, () => {
  const scene = new Scene();
  const { client } = scene;
  scene.reach(AT_CLIENT, STREAM_PORT_NUMBER);
  scene.run(10);
  assertEquals(scene.ways, ["UDP", "UDP"]);
  client.endpoint = "203.0.113.9:9"; // the answer is under way still
  client.core.moved();
  client.tick();
  scene.run(3000);
  const before = scene.sent;
  scene.run(500);
  scene.run(200, 0);
  for (const host of [client, scene.server]) {
    assertEquals(numbers(host).filter((n) => n > before).length, scene.sent - before);
  }
  assertEquals(scene.server.metrics.get("handshakes_completed"), 1);
  for (const [way, ids] of scene.ids) assert(!ids.has(0xffffffff), way);
});

Deno.test(`fallback: without a session at the relay the client makes one there (seed ${SEED})`, () => {
  const scene = new Scene();
  scene.isUdpBlocked = true;
  scene.client.core.connect(AT_CLIENT, STREAM_PORT_NUMBER, scene.world.nowUs);
  scene.client.tick();
  scene.run(1000);
  assertEquals(scene.ways, ["TLS", "TLS"]);
  assertEquals(scene.server.metrics.get("handshakes_completed"), 2);
});
