/**
 * A relay and two clients through random courses of packets, silence, loss, duplication, corruption, replays, roaming
 * and removal, on a virtual clock. Invariant under test: no exception, no nonce used twice, no session or slot that
 * nobody owns, each packet delivered at most once, to its own peer; when the network heals, so does every
 * association. FUZZ_SEED and FUZZ_RUNS choose the run.
 */
import { assert, assertEquals, assertGreater } from "@std/assert";
import fc from "fast-check";
import type { Client } from "../../src/client.ts";
import { PortableDatagramAead } from "../../src/codec/datagram_portable.ts";
import type { Primitives } from "../../src/codec/kernels.ts";
import { nodeCrypto } from "../../src/codec/node_crypto.ts";
import { DROP } from "../../src/metrics.ts";
import type { Relay } from "../../src/relay.ts";
import { type Limits, WIREGUARD_LIMITS } from "../../src/session/limits.ts";
import { type Burst, TO_SEAL_DATAGRAM } from "../../src/vector/burst.ts";
import { TYPE_INITIATION } from "../../src/wire/wireguard.ts";
import { CLEAN, dial, type Host, World } from "../kit/world.ts";
import { udpPacket } from "../kit/packets.ts";

const options = {
  numRuns: Number(Deno.env.get("FUZZ_RUNS") ?? 80),
  seed: Number(Deno.env.get("FUZZ_SEED") ?? 20260101),
};

const SECOND = 1_000_000;
const SLOTS = 1024;
const INTERNET = "8.8.8.8";
const CLIENTS = ["10.66.0.2", "10.66.0.3"];
const EPOCHS = 3;

const CHANNELS = [
  CLEAN,
  { ...CLEAN, loss: 1 },
  { ...CLEAN, loss: 0.3, duplicate: 0.3, jitterUs: 60_000 },
  { ...CLEAN, corrupt: 0.2, duplicate: 0.5 },
  { ...CLEAN, delayUs: 3 * SECOND, jitterUs: 9 * SECOND, duplicate: 0.2 },
];

/** Keys that wear out after a few packets, beside the real ones. */
const LIMITS: Limits[] = [
  WIREGUARD_LIMITS,
  { ...WIREGUARD_LIMITS, rekeyAfterMessages: 5, rekeyAfterDatagrams: 5, stagedPackets: 4 },
];

const who = fc.nat(CLIENTS.length - 1);
const command = fc.oneof(
  { weight: 6, arbitrary: fc.record({ verb: fc.constant("up" as const), who, count: fc.nat(9) }) },
  { weight: 6, arbitrary: fc.record({ verb: fc.constant("down" as const), who, count: fc.nat(9) }) },
  {
    weight: 8,
    arbitrary: fc.record({
      verb: fc.constant("wait" as const),
      // Around every timer of the whitepaper's §6.
      us: fc.oneof(
        fc.nat(100_000),
        fc.nat(20 * SECOND),
        fc.constantFrom(5, 10, 15, 90, 120, 165, 180, 181, 400).map((s) => s * SECOND),
      ),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ verb: fc.constant("channel" as const), channel: fc.constantFrom(...CHANNELS) }),
  },
  { weight: 2, arbitrary: fc.record({ verb: fc.constant("dial" as const), who }) },
  {
    weight: 2,
    arbitrary: fc.record({
      verb: fc.constant("roam" as const),
      who,
      port: fc.integer({ min: 1, max: 65535 }),
    }),
  },
  { weight: 4, arbitrary: fc.record({ verb: fc.constant("replay" as const), which: fc.nat() }) },
  { weight: 3, arbitrary: fc.record({ verb: fc.constant("remove" as const), who }) },
);

type Command = typeof command extends fc.Arbitrary<infer T> ? T : never;

/** node:crypto that throws when a key seals twice under one counter. */
function watchNonces(): Primitives {
  const used = new Set<string>();
  return {
    ...nodeCrypto,
    seal(key, counter, plaintext, associated) {
      const nonce = `${key.join()}:${counter}`;
      assert(!used.has(nonce), `counter ${counter} was used twice under one key`);
      used.add(nonce);
      return nodeCrypto.seal(key, counter, plaintext, associated);
    },
  };
}

/** The portable kernel of OxTunnel's data, throwing on the same. */
class WatchedDatagrams extends PortableDatagramAead {
  readonly #keys = new Map<string, string>();
  readonly #used = new Set<string>();

  override install(row: number, phase: number, sendKey: Uint8Array, receiveKey: Uint8Array): void {
    this.#keys.set(`${row}:${phase}`, sendKey.join());
    super.install(row, phase, sendKey, receiveKey);
  }

  override seal(burst: Burst): void {
    for (let row = 0; row < burst.count; row++) {
      if (burst.next[row] !== TO_SEAL_DATAGRAM) continue;
      const nonce = `${this.#keys.get(`${burst.session[row]}:${burst.phase[row]}`)}:${burst.counter[row]}`;
      assert(!this.#used.has(nonce), `counter ${burst.counter[row]} was used twice under one key`);
      this.#used.add(nonce);
    }
    super.seal(burst);
  }
}

type Protocol = "wireguard" | "oxtunnel";
/** Rows that an OxTunnel session has for its connection ids. */
const IDS_MAX = 12;

class Course {
  readonly world: World;
  readonly server: Host<Relay>;
  readonly clients: Host<Client>[];
  readonly #seen: { from: string; to: string; bytes: Uint8Array }[] = [];
  #packets = 0;

  constructor(seed: number, limits: Limits, readonly protocol: Protocol = "wireguard") {
    this.world = new World(seed);
    this.world.limits = limits;
    this.world.protocol = protocol;
    this.world.tap = (from, to, bytes) => {
      this.#seen.push({ from, to, bytes: bytes.slice() });
      return bytes;
    };
    const primitives = watchNonces();
    const makeDatagramAead = (rows: number) => new WatchedDatagrams(rows, DROP.forged);
    // ML-KEM takes milliseconds, and is no matter of courses.
    const kernels = { primitives, makeDatagramAead, features: 0 };
    this.server = this.world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1", ...kernels });
    this.clients = CLIENTS.map((ipv4, i) =>
      this.world.client(`198.51.100.${7 + i}:5555`, this.server, { ipv4, ...kernels, keepaliveS: i * 25 })
    );
  }

  /** Sends a numbered packet one way between a client's address and the internet; returns its number. */
  send(isUp: boolean, who: number): number {
    const payload = new Uint8Array(4);
    new DataView(payload.buffer).setUint32(0, ++this.#packets);
    if (isUp) this.clients[who].send(udpPacket(CLIENTS[who], INTERNET, payload));
    else this.server.send(udpPacket(INTERNET, CLIENTS[who], payload));
    return this.#packets;
  }

  do(command: Command): void {
    const { world, server, clients } = this;
    switch (command.verb) {
      case "up":
      case "down":
        for (let i = 0; i < command.count; i++) this.send(command.verb === "up", command.who);
        break;
      case "wait":
        world.runFor(command.us);
        break;
      case "channel":
        world.channel = command.channel;
        break;
      case "dial":
        dial(clients[command.who], server);
        break;
      case "roam":
        clients[command.who].endpoint = `198.51.100.${7 + command.who}:${command.port}`;
        break;
      case "replay": {
        const { from, to, bytes } = this.#seen[command.which % this.#seen.length];
        const host = world.hosts.find(({ endpoint }) => endpoint === to);
        if (!host) break;
        // A client goes where an answer that it had not seen comes from, as WireGuard does, and would stay there.
        const source = host === server ? "203.0.113.66:666" : from;
        // The first may be news, as when the original was lost. The second is none, however late.
        host.receive(bytes, source);
        world.runFor(2 * world.limits.initiationIntervalUs);
        const before = this.#effects(host);
        host.receive(bytes, source);
        assertEquals(this.#effects(host), before, "a replayed datagram had an effect");
        break;
      }
      case "remove": {
        const { publicKey, endpoint } = clients[command.who];
        assertEquals(server.core.removePeer(publicKey), true);
        server.core.addPeer({ name: endpoint, publicKey, allowedIps: [`${CLIENTS[command.who]}/32`] });
      }
    }
  }

  #effects({ metrics, delivered }: Host): number[] {
    return [metrics.get("handshake_responses"), metrics.get("handshakes_completed"), delivered.length];
  }

  /** Numbers of the packets that reached the host's exit. */
  delivered(host: Host): number[] {
    return host.delivered.map((packet) => new DataView(packet.buffer).getUint32(28));
  }

  check(): void {
    const { world, server, clients } = this;
    for (const host of [server, ...clients]) {
      host.tick();
      const peers = host.core.peerSnapshots(world.nowUs);
      const epochs = host.core.sessionSnapshots(world.nowUs);
      const rows = host.metrics.get("sessions");
      // Every row of the table is an epoch of a peer or the one handshake that it has begun.
      const rowsEach = this.protocol === "oxtunnel" ? IDS_MAX : 1;
      assert(
        epochs.length <= rows && rows <= rowsEach * (epochs.length + peers.length),
        `${rows} rows, ${epochs.length} epochs`,
      );
      assert(epochs.length <= EPOCHS * peers.length);
      // An OxTunnel session outlives its epochs.
      const { rejectAfterUs, sessionUs } = world.limits;
      const lifeUs = this.protocol === "oxtunnel" ? sessionUs : rejectAfterUs;
      const isLive = ({ ageS }: { ageS: number }) => ageS < lifeUs / SECOND;
      assertEquals(epochs.filter((epoch) => !isLive(epoch)), []);
      assertEquals(host.metrics.get("connections"), peers.filter(({ connected }) => connected).length);
      const waiting = SLOTS - host.arena.free;
      assert(waiting <= peers.length * world.limits.stagedPackets, `${waiting} slots are out`);
      const numbers = this.delivered(host);
      assertEquals(new Set(numbers).size, numbers.length, "a packet was delivered twice");
    }
    clients.forEach((client, who) => {
      const to = Uint8Array.from(CLIENTS[who].split("."), Number);
      for (const packet of client.delivered) assertEquals(packet.slice(16, 20), to);
    });
  }

  /** Ends everything; nothing may be left, whatever still arrives. */
  close(): void {
    const { world, server, clients } = this;
    for (const host of [server, ...clients]) host.core.close();
    world.runFor(20 * SECOND);
    for (const host of [server, ...clients]) {
      host.tick();
      assertEquals(host.arena.free, SLOTS);
      assertEquals([host.metrics.get("sessions"), host.metrics.get("connections")], [0, 0]);
      assertEquals(host.core.pollTimeout(), Infinity);
      // All free, and none of them twice.
      assertEquals(new Set(Array.from({ length: SLOTS }, () => host.arena.take())).size, SLOTS);
    }
  }
}

const course = fc.tuple(
  fc.nat(0xffffffff),
  fc.constantFrom(...LIMITS),
  fc.constantFrom<Protocol>("wireguard", "oxtunnel"),
  fc.array(command, { minLength: 1, maxLength: 60, size: "max" }),
);

Deno.test("associations: any course of events keeps every invariant, and heals", () => {
  let delivered = 0, sent = 0;
  fc.assert(
    fc.property(course, ([seed, limits, protocol, commands]) => {
      const run = new Course(seed, limits, protocol);
      for (const command of commands) {
        run.do(command);
        run.check();
      }
      run.world.channel = CLEAN;
      // What is still on its way from a session that has ended would pass for an answer.
      run.world.runFor(13 * SECOND);
      CLIENTS.forEach((_, who) => run.send(true, who));
      // Nobody dials: a lost session is noticed by silence (15 s), a lost handshake tried again (5 s).
      run.world.runFor(45 * SECOND);
      run.check();
      for (const host of run.world.hosts) {
        assertEquals(host.arena.free, SLOTS, "a packet waits for no session");
      }
      const last = CLIENTS.flatMap((_, who) => [run.send(true, who), run.send(false, who)]);
      // A session is up, so one way is enough.
      run.world.runFor(CLEAN.delayUs);
      run.check();
      const numbers = [run.server, ...run.clients].flatMap((host) => run.delivered(host));
      assertEquals(
        last.filter((number) => !numbers.includes(number)),
        [],
        "the network healed, an association did not",
      );
      delivered += numbers.length;
      sent += last.at(-1)!;
      run.close();
    }),
    options,
  );
  // Enough packets must have arrived, or all this was about nothing.
  assertGreater(delivered / sent, 0.2);
});

Deno.test("associations: closing in mid-course leaves nothing behind", () => {
  fc.assert(
    fc.property(course, ([seed, limits, protocol, commands]) => {
      const run = new Course(seed, limits, protocol);
      commands.forEach((command) => run.do(command));
      run.close();
    }),
    options,
  );
});

Deno.test("associations: keys that have carried their messages are replaced, and no packet is lost", () => {
  const run = new Course(options.seed, LIMITS[1]);
  for (let i = 0; i < 60; i++) {
    run.send(true, 0);
    run.world.runFor(SECOND);
    run.check();
  }
  assertEquals(run.server.delivered.length, 60);
  // One a key's age of six messages; never more than one in five seconds.
  const [completed, sessions] = [run.clients[0].metrics.get("handshakes_completed"), 60 / 6];
  assert(
    completed >= sessions - 1 && completed <= sessions + 2,
    `${completed} handshakes for ${sessions} keys`,
  );
  run.close();
});

Deno.test("associations: a worn-out key seals nothing more, and what then waits goes under the next", () => {
  const share = 12;
  const run = new Course(options.seed, { ...WIREGUARD_LIMITS, rejectAfterMessages: share });
  run.world.runFor(6 * SECOND);
  for (let i = 0; i < 20; i++) run.send(true, 0);
  run.world.runFor(CLEAN.delayUs);
  // The handshake's own keepalive was the first of them.
  assertEquals(run.server.delivered.length, share - 1);
  run.world.runFor(SECOND);
  assertEquals(run.delivered(run.server), Array.from({ length: 20 }, (_, i) => i + 1));
  run.close();
});

Deno.test("associations: what waits for a client goes as soon as the client itself comes back", () => {
  const run = new Course(options.seed, WIREGUARD_LIMITS);
  run.world.runFor(200 * SECOND);
  assertEquals(run.server.core.peerSnapshots(run.world.nowUs)[0].connected, false);
  // The client's NAT has closed: the relay's own initiations are lost.
  run.world.tap = (from, _to, bytes) =>
    from === run.server.endpoint && bytes[0] === TYPE_INITIATION ? undefined : bytes;
  const number = run.send(false, 0);
  run.world.runFor(8 * SECOND);
  assertEquals(run.delivered(run.clients[0]), []);
  dial(run.clients[0], run.server);
  // Initiation, response, confirmation, packet.
  run.world.runFor(4 * CLEAN.delayUs);
  assertEquals(run.delivered(run.clients[0]), [number]);
  run.close();
});
