/**
 * What is decided once for a run of packets is what each of them would have got alone: a burst of WireGuard's that mixes
 * sessions, keys, destinations, keepalives, forgeries, replays and senders gives the same packets, datagrams, peers,
 * counts and deadlines as its rows one at a time. Both ways run the same code, so what is wrong for one packet alone is
 * other tests' to find. FUZZ_SEED and FUZZ_RUNS choose the run; a failure prints its seed.
 */
import { assertEquals, assertGreater } from "@std/assert";
import fc from "fast-check";
import { COUNTER, DROP_REASONS } from "../../src/metrics.ts";
import type { Client } from "../../src/client.ts";
import type { Relay } from "../../src/relay.ts";
import { Burst, BURST_CAPACITY, TO_EXIT, TO_PARSE, TO_TRANSMIT, TO_TUNNEL } from "../../src/vector/burst.ts";
import { formatEndpoint, parseAddress } from "../../src/wire/address.ts";
import { readType, TYPE_DATA } from "../../src/wire/wireguard.ts";
import { CLOSED, dial, type Host, World } from "../kit/world.ts";
import { ipv6Packet, payload, splitEndpoint, udpPacket } from "../kit/packets.ts";

const runs = {
  numRuns: Math.ceil(Math.min(Number(Deno.env.get("FUZZ_RUNS") ?? 500), 2000) / 5),
  seed: Number(Deno.env.get("FUZZ_SEED") ?? 20260101),
};
const CLIENTS = 3;
/** What the relay takes apart: outside, peers, nobody's, denied, its own; and an IPv4 address in IPv6's clothes. */
const DESTINATIONS = [
  ...["8.8.8.8", "9.9.9.9", "10.66.0.3", "10.66.0.4", "10.66.0.99", "127.0.0.1", "10.66.0.1"],
  ...[
    "2001:4860::8",
    "2001:4860::9",
    "fd66::3",
    "fd66::4",
    "fe80::1",
    "fd66::1",
    "::ffff:8.8.8.8",
    "::ffff:9.9.9.9",
  ],
];

/** One thing that may come in, in terms that both relays understand. */
interface Arrival {
  client: number;
  /** Place in DESTINATIONS, or none for a keepalive. */
  to?: number;
  kind: "fresh" | "old" | "proof" | "forged" | "replayed" | "spoofed" | "unknown" | "dying";
  /** Which of its client's two addresses it comes from. */
  from: number;
  /** It and as many more of the same. */
  repeat: number;
}

const arrival: fc.Arbitrary<Arrival> = fc.record({
  client: fc.nat(CLIENTS - 1),
  to: fc.option(fc.nat(DESTINATIONS.length - 1), { nil: undefined, freq: 9 }),
  kind: fc.constantFrom(
    ...[
      "fresh",
      "fresh",
      "fresh",
      "fresh",
      "old",
      "proof",
      "forged",
      "replayed",
      "spoofed",
      "unknown",
      "dying",
    ] as const,
  ),
  from: fc.constantFrom(0, 0, 0, 1),
  repeat: fc.nat(3),
});

interface Setting {
  world: World;
  server: Host<Relay>;
  clients: Host<Client>[];
  sent: Uint8Array[];
  /** Datagrams of each client under the key before its last, which the relay still takes. */
  old: Uint8Array[][];
  /** The first one under a client's last key, where that is new. */
  proof: Uint8Array[][];
}

const own = (client: number, version: number) =>
  version === 4 ? `10.66.0.${2 + client}` : `fd66::${2 + client}`;

/** A packet of either version. */
function inner(source: string, destination: string, body: Uint8Array): Uint8Array {
  return (destination.includes(":") ? ipv6Packet : udpPacket)(source, destination, body);
}

/**
 * A relay and its clients. With `isRenewed` the first has shaken hands anew and not yet used it, so that its next packet
 * proves the key; nothing is ever sent to it before, as what a burst sends leaves under the keys that the burst has proven.
 * What clients send from here on is kept and not carried.
 */
function setting(isRenewed: boolean): Setting {
  const world = new World(11);
  const destinations = { ...CLOSED, allowPeers: true };
  const server = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1", ipv6: "fd66::1", destinations });
  const clients = Array.from({ length: CLIENTS }, (_, i) => {
    return world.client(`198.51.100.${i}:5555`, server, { ipv4: own(i, 4), ipv6: own(i, 6) });
  });
  server.core.replacePeers(clients.map(({ publicKey }, i) => {
    return { name: `c${i}`, publicKey, allowedIps: [`${own(i, 4)}/32`, `${own(i, 6)}/128`], created: "" };
  }));
  clients.forEach((client, i) => client.send(inner(own(i, 4), "8.8.8.8", payload(i))));
  world.runFor(1_000_000);
  const sent: Uint8Array[] = [];
  world.tap = (_from, _to, bytes) => void sent.push(bytes.slice());
  const old = clients.map((client, i) => {
    sent.length = 0;
    for (let n = 0; n < 8; n++) client.send(inner(own(i, 4), "8.8.8.8", payload(n)));
    return [...sent];
  });
  world.runFor(6_000_000); // no handshake follows another sooner
  const proof = clients.map((): Uint8Array[] => []);
  world.tap = (from, _to, bytes) => {
    if (readType(new DataView(bytes.slice().buffer), 0) !== TYPE_DATA) return bytes;
    proof[clients.findIndex(({ endpoint }) => endpoint === from)]?.push(bytes.slice());
  };
  if (isRenewed) dial(clients[0], server);
  world.runFor(1_000_000);
  sent.length = 0;
  world.tap = (_from, _to, bytes) => void sent.push(bytes.slice());
  return { world, server, clients, sent, old, proof };
}

const WANTS_KEEPALIVE = 2;

/** Lets a client send an empty packet, as it does by itself when it has only received for a while. */
function keepalive(client: Host): void {
  // deno-lint-ignore no-explicit-any
  (client.core as any).associations.outbox.want(0, WANTS_KEEPALIVE);
  client.tick();
}

/** The datagrams that the arrivals stand for, and where they come from. */
function datagrams(
  { clients, sent, old, proof }: Setting,
  arrivals: readonly Arrival[],
): [Uint8Array, string][] {
  const out: [Uint8Array, string][] = [];
  for (const { client, to, kind, from, repeat } of arrivals) {
    for (let i = 0; i <= repeat && out.length < BURST_CAPACITY; i++) {
      const destination = DESTINATIONS[to ?? 0], version = destination.includes(":") ? 6 : 4;
      const packet = inner(own(kind === "spoofed" ? 77 : client, version), destination, payload(out.length));
      if (kind === "dying") packet[version === 4 ? 8 : 7] = 1; // hops
      sent.length = 0;
      if (to === undefined) keepalive(clients[client]);
      else clients[client].send(packet);
      let datagram = sent[0];
      if (kind === "old") datagram = old[client].shift() ?? datagram;
      if (kind === "proof") datagram = proof[client].shift() ?? datagram;
      if (kind === "forged") datagram[datagram.length - 1] ^= 1;
      if (kind === "unknown") datagram[5] ^= 1;
      if (kind === "replayed" && out.length > 0) [datagram] = out[out.length - 1];
      out.push([datagram, `198.51.100.${client + 100 * from}:5555`]);
    }
  }
  return out;
}

const LOCAL = parseAddress("192.0.2.1")!;
/** Of bursts there are more, and where a peer was in between is not noted. */
const DIFFERENT = ["bursts", "roamed"];

/** What a relay made of its rows, in their order; without addresses, which follow the last packet of a burst. */
function take(server: Host<Relay>, nowUs: number, rows: readonly [Uint8Array, string][]): string[] {
  const burst = new Burst(server.arena);
  for (const [bytes, from] of rows) {
    const row = burst.grow(bytes.length, TO_PARSE);
    burst.bytes.set(bytes, burst.offset[row]);
    const { address, port } = splitEndpoint(from);
    burst.address.set(address, 4 * row);
    burst.port[row] = port;
    burst.local.set(LOCAL, 4 * row);
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
  const names = (Object.keys(COUNTER) as (keyof typeof COUNTER)[]).filter((name) =>
    !DIFFERENT.includes(name)
  );
  return {
    peers: server.core.peerSnapshots(world.nowUs),
    sessions: server.core.sessionSnapshots(world.nowUs),
    counts: names.map((name) => [name, metrics.get(name)]),
    drops: DROP_REASONS.map(([reason]) => [reason, metrics.dropped(reason)]),
    free: server.arena.free,
    dueUs: server.core.pollTimeout(),
  };
}

Deno.test("fuzz: a burst from the tunnel comes to what its datagrams come to one by one", () => {
  let carried = 0;
  fc.assert(
    fc.property(fc.boolean(), fc.array(arrival, { minLength: 1, maxLength: 60 }), (isRenewed, arrivals) => {
      const whole = setting(isRenewed), single = setting(isRenewed);
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
  const packet = fc.record({
    to: fc.nat(CLIENTS + 1),
    // A peer's packet that is too big, turned around, goes the same way.
    from: fc.constantFrom("8.8.8.8", "10.66.0.2"),
    bytes: fc.constantFrom(20, 200, 1500),
    repeat: fc.nat(3),
  });
  fc.assert(
    fc.property(fc.array(packet, { minLength: 1, maxLength: 40 }), (packets) => {
      const whole = setting(false), single = setting(false);
      const rows = packets.flatMap(({ to, from, bytes, repeat }) =>
        Array.from({ length: repeat + 1 }, (_, i) => udpPacket(from, own(to, 4), new Uint8Array(bytes + i)))
      );
      const give = ({ server, world }: Setting, some: readonly Uint8Array[]) => {
        const burst = new Burst(server.arena);
        for (const packet of some) {
          burst.bytes.set(packet, burst.offset[burst.grow(packet.length, TO_TUNNEL)]);
        }
        server.core.ingestInner(burst, world.nowUs);
        const out = Array.from({ length: burst.count }, (_, row) => {
          const isSent = burst.next[row] === TO_TRANSMIT;
          const to = isSent ? formatEndpoint(burst.address, 4 * row, burst.port[row]) : "";
          const bytes = burst.bytes.subarray(burst.offset[row], burst.offset[row] + burst.length[row]);
          return `${burst.next[row]} ${to} ${
            isSent ? burst.local.slice(4 * row, 4 * row + 4) : ""
          } ${bytes.toHex()}`;
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
