/**
 * Everything at once in the deterministic world: batches, LZ4, early data, sizes of paths, paths that move to streams and
 * back, rotations, trusted links, and sessions and peers that end while something of theirs is held. Held: what arrives is
 * what was sent; no slot and no session row is lost; nothing readable goes where nobody listed it. A failure names its seed.
 */
import { assert, assertEquals, assertGreater } from "@std/assert";
import type { Client } from "../../src/client.ts";
import { PortableLz4 } from "../../src/codec/lz4.ts";
import type { Relay } from "../../src/relay.ts";
import { WIREGUARD_LIMITS } from "../../src/session/limits.ts";
import { CLASS_BULK, CLASS_DEFAULT } from "../../src/control/traffic_class.ts";
import { CLEAN, CLOSED, dial, type Host, World } from "../kit/world.ts";
import { Random } from "../kit/random.ts";
import { udpPacket } from "../kit/packets.ts";

const MS = 1000, SECOND = 1_000_000;
const SEED = Number(Deno.env.get("SIM_SEED") ?? 1);
const CLIENTS = 4, STEPS = 800;
const FAR = "8.8.8.8";
const HEADER_BYTES = 28, NUMBER_BYTES = 4;
const NEAR = ["192.0.2.0/24", "198.51.100.0/24"];
/** What anyone can read who sees it; no packet comes without. */
const MARK = new TextEncoder().encode("~readable~");

function isReadable(bytes: Uint8Array): boolean {
  for (let at = bytes.indexOf(MARK[0]); at >= 0; at = bytes.indexOf(MARK[0], at + 1)) {
    if (MARK.every((byte, i) => bytes[at + i] === byte)) return true;
  }
  return false;
}

/** A readable packet of some length that bears its number. */
function numbered(random: Random, number: number, from: string, to: string): Uint8Array {
  const payload = new Uint8Array(
    NUMBER_BYTES + MARK.length + random.u32() % (random.u32() & 3 ? 200 : 1370),
  );
  if (random.u32() & 1) random.fill(payload);
  new DataView(payload.buffer).setUint32(0, number);
  payload.set(MARK, NUMBER_BYTES);
  return udpPacket(from, to, payload);
}

interface Change {
  world: World;
  relay: Host<Relay>;
  client: Host<Client>;
  random: Random;
  path: { mtu: number };
  /** What the client is called and may use when it is added anew. */
  name: string;
  inner: string;
}

const CHANGES = 7;

/** What happens to a client, its path or the time, of CHANGES kinds. */
function change(kind: number, { world, relay, client, random, path, name, inner }: Change): void {
  switch (kind) {
    case 0:
      path.mtu = 1240 + random.u32() % 261;
      break;
    case 1: {
      const network = random.u32() % 3, n = random.u32() % 200;
      client.endpoint = network === 0
        ? `[100::${1 + n}]:443`
        : `${network === 1 ? "198.51.100" : "203.0.113"}.${1 + n}:7`;
      if (random.u32() & 1) client.core.moved();
      break;
    }
    case 2:
      dial(client, relay);
      break;
    case 3:
      client.core.disconnect(world.nowUs);
      client.tick();
      break;
    case 4:
      relay.core.removePeer(client.publicKey);
      relay.core.addPeer({
        name,
        publicKey: client.publicKey,
        allowedIps: [`${inner}/32`],
      });
      break;
    case 5:
      world.channel = {
        ...CLEAN,
        delayUs: 5 * MS,
        jitterUs: random.u32() % 3 ? 0 : 10 * MS,
        loss: (random.u32() % 3) / 20,
      };
      break;
    case 6:
      world.runFor(random.u32() % 4 ? SECOND : 200 * SECOND);
      break;
  }
}

/** All features were used, nothing came out broken, and in the end every slot and row is free. */
function judge(world: World, relay: Host<Relay>): void {
  const used = [
    "packets_batched",
    "packets_held",
    "packets_compressed",
    "epochs_made",
    "size_probes_sent",
    "roamed",
  ];
  for (const name of used) assertGreater(relay.metrics.get(name as "roamed"), 0, name);
  for (const { metrics } of world.hosts) {
    for (const reason of ["malformed_inner", "forged", "bad_length", "arena_full"] as const) {
      assertEquals(metrics.dropped(reason), 0, reason);
    }
  }
  world.runFor(600 * SECOND);
  for (const { core, arena } of world.hosts) {
    core.close();
    assertEquals(arena.free, arena.slotCount, "slots");
    // deno-lint-ignore no-explicit-any
    assertEquals((core as any).table.count, 0, "rows");
  }
}

Deno.test(`mixed: all features at once lose no slot and change no packet (seed ${SEED})`, () => {
  const random = new Random(SEED ^ 0x5eed);
  const world = new World(SEED);
  world.protocol = "oxtunnel";
  world.limits = { ...WIREGUARD_LIMITS, rekeyAfterUs: 3 * SECOND, graceUs: SECOND };
  const path = { mtu: 1500 };
  let number = 0, arrived = 0;
  const sent = new Map<number, string>();
  const text = (packet: Uint8Array) => packet.subarray(HEADER_BYTES).toHex();
  world.tap = (from, to, bytes) => {
    const isStream = from.startsWith("[100:") || to.startsWith("[100:");
    // A client whose address has changed unnoticed cannot know.
    if (isReadable(bytes)) assert(/^(192\.0\.2\.|198\.51\.100\.)/.test(to), `${from} ${to}`);
    return isStream || bytes.length + HEADER_BYTES <= path.mtu ? bytes : undefined;
  };
  const lz4 = new PortableLz4(), destinations = { ...CLOSED, allowPeers: true };
  const relay = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1", lz4, trusted: NEAR, destinations });
  const clients = Array.from({ length: CLIENTS }, (_, i) =>
    world.client(`203.0.113.${i + 1}:5555`, relay, {
      ipv4: `10.66.0.${i + 2}`,
      lz4: i % 2 ? lz4 : undefined,
      trusted: i % 2 ? NEAR : undefined,
    }));
  const inner = (i: number) => `10.66.0.${i + 2}`;

  const packet = (from: string, to: string) => {
    const made = numbered(random, ++number, from, to);
    sent.set(number, text(made));
    return made;
  };
  const burstOf = (from: () => string, to: () => string) =>
    Array.from({ length: 1 + random.u32() % (random.u32() & 7 ? 3 : 60) }, () => packet(from(), to()));
  const take = (host: Host) => {
    for (const one of host.delivered.splice(0)) {
      const isWhole = one[9] === 17 && ((one[6] << 8 | one[7]) & 0x3fff) === 0;
      if (!isWhole) continue;
      const id = new DataView(one.buffer, one.byteOffset).getUint32(HEADER_BYTES);
      assertEquals(text(one), sent.get(id), `packet ${id}`);
      arrived++;
    }
  };
  for (let step = 0; step < STEPS; step++) {
    const i = random.u32() % CLIENTS, client = clients[i];
    const trafficClass = random.u32() & 1 ? CLASS_BULK : CLASS_DEFAULT;
    const kind = random.u32() % 40;
    if (kind < CHANGES) {
      change(kind, { world, relay, client, random, path, name: `c${i}-${step}`, inner: inner(i) });
    } else {
      // Trains at a pace at which company comes in time, so that the next thing happens while some is held.
      const isTrain = random.u32() % 4 === 0;
      const isUp = random.u32() % 2 === 0;
      const near = () => inner(isTrain ? i : random.u32() % CLIENTS);
      for (let left = isTrain ? 20 : 1; left > 0; left--) {
        if (isUp) {
          client.sendBurst(burstOf(() => inner(i), () => random.u32() & 1 ? FAR : near()), trafficClass);
        } else relay.sendBurst(burstOf(() => FAR, near), trafficClass);
        if (isTrain && left > 1) world.runFor(100);
      }
      if (isTrain) continue;
    }
    world.runFor(random.u32() % 3 ? random.u32() % 2000 : random.u32() % (50 * MS));
    for (const host of world.hosts) take(host);
  }
  assertGreater(arrived, number / 3);
  judge(world, relay);
});
