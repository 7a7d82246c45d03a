/**
 * Everything that OxTunnel does, at once and in any order: batches, compression, hints, early data, paths that change and
 * shrink, keys that run out, clients that leave in the midst of it, over a network that loses, repeats and spoils. Held:
 * whoever is left carries packets again afterwards, and no buffer, session or waiting packet is left over. Failures name
 * their seed.
 */
import { assert, assertEquals } from "@std/assert";
import { Client, type Upstream } from "../../src/client.ts";
import { PortableLz4 } from "../../src/codec/lz4.ts";
import { CLASS_BULK, CLASS_COUNT, CLASS_GAME } from "../../src/control/traffic_class.ts";
import type { Relay } from "../../src/relay.ts";
import { scaledLimits } from "../../src/session/limits.ts";
import { CLOSED, Host, World } from "../kit/world.ts";
import { Random } from "../kit/random.ts";
import { udpPacket } from "../kit/packets.ts";

const MS = 1000, SECOND = 1_000_000;
const SEED = Number(Deno.env.get("SIM_SEED") ?? 1);
const SEEDS = 3, STEPS = 500;
const OUTER_HEADERS = 28;
const RELAY = "192.0.2.1", INNERS = ["10.66.0.2", "10.66.0.3", "10.66.0.4"], FAR = "8.8.8.8";

interface Device {
  inner: string;
  host: Host<Client>;
  privateKey: Uint8Array;
}

class Scene {
  readonly world: World;
  readonly relay: Host<Relay>;
  readonly devices: Device[];
  /** All that ever were. */
  readonly hosts: Host[];
  readonly #random: Random;
  readonly #lz4 = new PortableLz4();
  readonly #trusted: string[];
  #mtu = 1500;
  #moves = 0;

  constructor(seed: number) {
    const world = this.world = new World(seed);
    this.#random = new Random(seed + 1000);
    world.protocol = "oxtunnel";
    world.limits = { ...scaledLimits(20), sessionUs: 60 * SECOND };
    world.tap = (_from, _to, bytes) => bytes.length + OUTER_HEADERS <= this.#mtu ? bytes : undefined;
    this.#trusted = this.#any([], ["198.51.100.0/24", "192.0.2.0/24"]);
    const destinations = { ...CLOSED, allowPeers: true };
    const options = { lz4: this.#lz4, trusted: this.#trusted };
    this.relay = world.relay(`${RELAY}:4433`, { ipv4: "10.66.0.1", destinations, ...options });
    this.devices = INNERS.map((inner, i) => {
      const privateKey = new Uint8Array(32);
      this.#random.fill(privateKey);
      const host = world.client(`198.51.100.${i + 7}:5555`, this.relay, {
        ipv4: inner,
        privateKey,
        ...options,
      });
      return { inner, host, privateKey };
    });
    this.hosts = [this.relay, ...this.devices.map(({ host }) => host)];
  }

  #any<T>(...choices: T[]): T {
    return choices[this.#random.u32() % choices.length];
  }

  /** Packets of one size that come together, some of which may not be cut. */
  #packets(from: string, to: () => string): Uint8Array[] {
    const payload = new Uint8Array(this.#any(4, 20, 40, 90, 500, 1300, 1392)).fill(32);
    if (this.#any(true, false)) this.#random.fill(payload);
    return Array.from({ length: this.#any(1, 1, 2, 5, 20, 60) }, () => {
      const packet = udpPacket(from, to(), payload);
      if (this.#any(true, false)) packet[6] |= 0x40; // nobody looks at the header's checksum
      return packet;
    });
  }

  step(): void {
    const { world, relay, devices } = this;
    const device = this.#any(...devices), { host, inner } = device;
    const trafficClass = this.#any(
      ...Array.from({ length: CLASS_COUNT }, (_, i) => i),
      CLASS_BULK,
      CLASS_BULK,
    );
    const up = () => this.#packets(inner, () => this.#any(...INNERS, FAR, "10.66.0.1"));
    switch (this.#any(0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 3, 4, 5, 6, 7)) {
      case 0:
        host.sendBurst(up(), trafficClass);
        break;
      case 1:
        relay.sendBurst(this.#packets(FAR, () => this.#any(...INNERS)), trafficClass);
        break;
      case 2:
        this.#mtu = this.#any(1500, 1400, 1300, 1240, 1100);
        break;
      case 3:
        world.channel = {
          ...world.channel,
          loss: this.#any(0, 0, 0.1, 0.5),
          duplicate: this.#any(0, 0.1),
          corrupt: this.#any(0, 0.05),
          jitterUs: this.#any(0, 5 * MS),
        };
        break;
      case 4:
        host.endpoint = `${this.#any("198.51.100", "203.0.113")}.99:${10_000 + ++this.#moves}`;
        if (this.#any(true, false)) host.core.moved();
        break;
      case 5:
        if (this.#any(true, false)) this.#comeBack(device);
        device.host.sendBurst(up(), trafficClass);
        break;
      case 6: {
        const any = { protocol: this.#any(0, 17), clientPort: 0, remotePort: 0 };
        const ends = { client: new Uint32Array(4), remote: new Uint32Array(4) };
        host.core.hint({ ...any, ...ends }, this.#any(undefined, CLASS_GAME, CLASS_BULK));
        break;
      }
      case 7:
        host.core.reach(RELAY, 4433, world.nowUs);
        break;
    }
    device.host.tick();
    world.runFor(this.#any(0, 50, 200, 700, 5 * MS, 30 * MS, 300 * MS, 2 * SECOND));
  }

  /** The device's client ends, with a word or without, and another takes its place with the ticket. */
  #comeBack(device: Device): void {
    const { world, relay } = this;
    const { host, inner: ipv4, privateKey } = device;
    const upstream: Upstream = { publicKey: relay.publicKey, ticket: host.core.ticket };
    if (this.#any(true, false)) {
      host.core.disconnect(world.nowUs);
      host.tick();
    }
    host.core.close();
    host.tick();
    const options = { ipv4, privateKey, trusted: this.#trusted, lz4: this.#any(this.#lz4, undefined) };
    device.host = new Host(world, host.endpoint, options, (all) => new Client(all, upstream));
    this.hosts.push(device.host);
    world.hosts.splice(world.hosts.indexOf(host), 1, device.host);
    device.host.core.connect(RELAY, 4433, world.nowUs, true);
  }

  /** The network is well again, and time goes by. */
  rest(): void {
    this.#mtu = 1500;
    this.world.channel = { ...this.world.channel, loss: 0, duplicate: 0, corrupt: 0, jitterUs: 0 };
    this.world.runFor(200 * SECOND);
  }
}

for (let seed = SEED; seed < SEED + SEEDS; seed++) {
  Deno.test(`interplay: whatever happens, packets go on and nothing is left over (seed ${seed})`, () => {
    const scene = new Scene(seed);
    const { world, relay, devices, hosts } = scene;
    for (let i = 0; i < STEPS; i++) scene.step();
    scene.rest();
    for (const { host, inner } of devices) {
      relay.delivered.length = host.delivered.length = 0;
      for (let i = 0; i < 5; i++) {
        host.send(udpPacket(inner, FAR, new Uint8Array(50)));
        world.runFor(3 * SECOND);
        relay.send(udpPacket(FAR, inner, new Uint8Array(50)));
        world.runFor(3 * SECOND);
      }
      assertEquals([relay.delivered.length, host.delivered.length], [5, 5], inner);
    }
    scene.rest();
    assert(hosts.length > devices.length + 1);
    for (const { arena, core } of hosts) {
      // deno-lint-ignore no-explicit-any
      const { associations, table } = core as any;
      assertEquals(arena.free, arena.slotCount);
      assertEquals([associations.staging.count, associations.epochs.connections, table.count], [0, 0, 0]);
    }
  });
}
