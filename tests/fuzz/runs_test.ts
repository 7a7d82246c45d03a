/**
 * What is decided once for a run of packets is what each of them would have got alone: a burst that mixes sessions,
 * destinations, keepalives, forgeries, replays and senders comes to the same packets, datagrams, counts and endpoints
 * as its rows one at a time. FUZZ_SEED and FUZZ_RUNS choose the run; a failure prints its seed.
 */
import { assertEquals, assertGreater } from "@std/assert";
import fc from "fast-check";
import { DROP_REASONS } from "../../src/metrics.ts";
import type { Relay } from "../../src/relay.ts";
import { Burst, BURST_CAPACITY, TO_EXIT, TO_PARSE, TO_TRANSMIT, TO_TUNNEL } from "../../src/vector/burst.ts";
import { formatEndpoint } from "../../src/wire/address.ts";
import { type Host, payload, splitEndpoint, udpPacket, World } from "../sim/world.ts";

const runs = {
  numRuns: Math.min(Number(Deno.env.get("FUZZ_RUNS") ?? 500), 2000) / 5,
  seed: Number(Deno.env.get("FUZZ_SEED") ?? 20260101),
};
const CLIENTS = 3;
/** What the relay takes apart: outside, a peer, another, nobody's, denied, itself, a name that is nobody's. */
const DESTINATIONS = ["8.8.8.8", "10.66.0.3", "10.66.0.4", "10.66.0.99", "127.0.0.1", "10.66.0.1", "9.9.9.9"];

/** One thing that may come in, in terms that both relays understand. */
interface Arrival {
  client: number;
  /** Place in DESTINATIONS, or none for a keepalive. */
  to?: number;
  kind: "fresh" | "forged" | "replayed" | "spoofed" | "unknown" | "dying";
  /** Which of its client's two addresses it comes from. */
  from: number;
  /** It and as many more of the same. */
  repeat: number;
}

const arrival: fc.Arbitrary<Arrival> = fc.record({
  client: fc.nat(CLIENTS - 1),
  to: fc.option(fc.nat(DESTINATIONS.length - 1), { nil: undefined, freq: 9 }),
  kind: fc.constantFrom(
    "fresh",
    "fresh",
    "fresh",
    "fresh",
    "forged",
    "replayed",
    "spoofed",
    "unknown",
    "dying",
  ),
  from: fc.constantFrom(0, 0, 0, 1),
  repeat: fc.nat(3),
});

interface Setting {
  world: World;
  server: Host<Relay>;
  clients: Host[];
  sent: Uint8Array[];
}

/** A relay in session with its clients; what these send from here on is kept and not carried. */
function setting(): Setting {
  const world = new World(11);
  const server = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1", ipv6: "fd66::1" });
  const clients = Array.from({ length: CLIENTS }, (_, i) => {
    return world.client(`198.51.100.${i}:5555`, server, { ipv4: `10.66.0.${2 + i}` });
  });
  clients.forEach((client, i) => client.send(udpPacket(`10.66.0.${2 + i}`, "8.8.8.8", payload(i))));
  world.runFor(1_000_000);
  const sent: Uint8Array[] = [];
  world.tap = (_from, _to, bytes) => void sent.push(bytes.slice());
  return { world, server, clients, sent };
}

const WANTS_KEEPALIVE = 2;

/** Lets a client send an empty packet, as it does by itself when it has only received for a while. */
function keepalive(client: Host): void {
  // deno-lint-ignore no-explicit-any
  (client.core as any).associations.want(0, WANTS_KEEPALIVE);
  client.tick();
}

/** The datagrams that the arrivals stand for, and where they come from. */
function datagrams({ clients, sent }: Setting, arrivals: readonly Arrival[]): [Uint8Array, string][] {
  const out: [Uint8Array, string][] = [];
  for (const { client, to, kind, from, repeat } of arrivals) {
    for (let i = 0; i <= repeat && out.length < BURST_CAPACITY; i++) {
      const own = `10.66.0.${2 + client}`;
      const packet = udpPacket(
        kind === "spoofed" ? "10.66.0.77" : own,
        DESTINATIONS[to ?? 0],
        payload(out.length),
      );
      if (kind === "dying") packet[8] = 1; // hops
      sent.length = 0;
      if (to === undefined) keepalive(clients[client]);
      else clients[client].send(packet);
      let datagram = sent[0];
      if (kind === "forged") datagram[datagram.length - 1] ^= 1;
      if (kind === "unknown") datagram[5] ^= 1;
      if (kind === "replayed" && out.length > 0) [datagram] = out[out.length - 1];
      out.push([datagram, `198.51.100.${client + 100 * from}:5555`]);
    }
  }
  return out;
}

/** What a relay made of its rows, in their order; without addresses, which follow the last packet of a burst. */
function take(server: Host<Relay>, nowUs: number, rows: readonly [Uint8Array, string][]): string[] {
  const burst = new Burst(server.arena);
  for (const [bytes, from] of rows) {
    const row = burst.grow(bytes.length, TO_PARSE);
    burst.bytes.set(bytes, burst.offset[row]);
    const { address, port } = splitEndpoint(from);
    burst.address.set(address, 4 * row);
    burst.port[row] = port;
  }
  server.core.ingest(burst, nowUs);
  const out: string[] = [];
  for (let row = 0; row < burst.count; row++) {
    const leaves = burst.next[row] === TO_EXIT || burst.next[row] === TO_TRANSMIT;
    const bytes = burst.bytes.subarray(burst.offset[row], burst.offset[row] + burst.length[row]);
    out.push(leaves ? `${burst.next[row]} ${bytes.toHex()}` : `${burst.next[row]}`);
  }
  burst.release();
  return out;
}

function state({ world, server }: Setting) {
  const { metrics } = server;
  return {
    peers: server.core.peerSnapshots(world.nowUs),
    sessions: server.core.sessionSnapshots(world.nowUs),
    drops: DROP_REASONS.map(([reason]) => [reason, metrics.dropped(reason)]),
    toExit: metrics.get("packets_to_exit"),
    between: metrics.get("packets_between_peers"),
    free: server.arena.free,
    dueUs: server.core.pollTimeout(),
  };
}

Deno.test("fuzz: a burst from the tunnel comes to what its datagrams come to one by one", () => {
  let carried = 0;
  fc.assert(
    fc.property(fc.array(arrival, { minLength: 1, maxLength: 60 }), (arrivals) => {
      const whole = setting(), single = setting();
      const rows = datagrams(whole, arrivals);
      datagrams(single, arrivals);
      const atOnce = take(whole.server, whole.world.nowUs, rows);
      const oneByOne = rows.flatMap((row) => take(single.server, single.world.nowUs, [row]));
      assertEquals(atOnce, oneByOne);
      assertEquals(state(whole), state(single));
      carried += atOnce.filter((text) => text.includes(" ")).length;
    }),
    runs,
  );
  assertGreater(carried, runs.numRuns);
});

Deno.test("fuzz: a burst from the exit comes to what its packets come to one by one", () => {
  const inner = fc.tuple(fc.nat(CLIENTS + 1), fc.constantFrom(20, 200, 1500), fc.nat(3));
  fc.assert(
    fc.property(fc.array(inner, { minLength: 1, maxLength: 40 }), (packets) => {
      const whole = setting(), single = setting();
      const rows = packets.flatMap(([to, bytes, repeat]) =>
        Array.from({ length: repeat + 1 }, (_, i) => {
          return udpPacket("8.8.8.8", `10.66.0.${2 + to}`, new Uint8Array(bytes + i));
        })
      );
      const give = ({ server, world }: Setting, some: readonly Uint8Array[]) => {
        const burst = new Burst(server.arena);
        for (const packet of some) {
          burst.bytes.set(packet, burst.offset[burst.grow(packet.length, TO_TUNNEL)]);
        }
        server.core.ingestInner(burst, world.nowUs);
        const out = Array.from({ length: burst.count }, (_, row) => {
          const to = burst.next[row] === TO_TRANSMIT
            ? formatEndpoint(burst.address, 4 * row, burst.port[row])
            : "";
          const bytes = burst.bytes.subarray(burst.offset[row], burst.offset[row] + burst.length[row]);
          return `${burst.next[row]} ${to} ${bytes.toHex()}`;
        });
        burst.release();
        return out;
      };
      assertEquals(give(whole, rows), rows.flatMap((row) => give(single, [row])));
      assertEquals(state(whole), state(single));
    }),
    runs,
  );
});
