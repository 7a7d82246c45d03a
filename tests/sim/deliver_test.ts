/**
 * What the relay does with a peer's inner packets, over both protocols and both families: it believes no source that is not the
 * peer's, and answers as a host does at its own inner address. Each failure names its seed.
 */
import { assertEquals } from "@std/assert";
import type { Upstream } from "../../src/client.ts";
import type { DestinationRules } from "../../src/ingress/policy.ts";
import { foldSum, sumWords, transportChecksum } from "../../src/wire/inner.ts";
import { CLOSED, dial, type Host, World } from "../kit/world.ts";
import { ipv6Packet, udpPacket } from "../kit/packets.ts";

const SECOND = 1_000_000;
const SEED = Number(Deno.env.get("SIM_SEED") ?? 1);
const PROTOCOLS: Upstream["protocol"][] = ["wireguard", "oxtunnel"];
const FAR = "2001:4860::8888";

/** A relay with two clients, each of both families, with sessions up. */
function two(protocol: Upstream["protocol"], destinations?: DestinationRules) {
  const world = new World(SEED);
  world.protocol = protocol;
  const relay = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1", ipv6: "fd00::1", destinations });
  const clients = [2, 3].map((host) =>
    world.client(`198.51.100.${host}:5555`, relay, { ipv4: `10.66.0.${host}` })
  );
  relay.core.replacePeers(clients.map(({ publicKey }, i) => ({
    name: `c${i}`,
    publicKey,
    allowedIps: [`10.66.0.${i + 2}/32`, i === 0 ? "fd00::2/128" : "fd00:0:0:0:3::/80"],
    created: "",
  })));
  for (const client of clients) dial(client, relay);
  world.runFor(SECOND);
  return { world, relay, clients };
}

const udp = () => {
  const segment = new Uint8Array(12);
  segment.set([0x9c, 0x40, 0x1e, 0x61, 0, 12]);
  return segment;
};

for (const protocol of PROTOCOLS) {
  Deno.test(`deliver, ${protocol}: an IPv6 source is believed from the peer that may have it and from no other (seed ${SEED})`, () => {
    const { world, relay, clients: [one, other] } = two(protocol);
    const sources: [Host, string, boolean][] = [
      [one, "fd00::2", true],
      [one, "fd00::3:0:0:7", false], // the other's
      [one, "fd00::1", false], // the relay's own
      [one, "fd00::9", false], // nobody's
      [one, "2001:db8::2", false], // outside of the tunnel
      [one, "fd00::2:0:0:2", false], // one bit group from its own
      [one, "::", false],
      [other, "fd00::3:0:0:7", true],
      [other, "fd00::3:0:1:7", true],
      [other, "fd00::4:0:0:7", false],
      [other, "fd00::2", false],
    ];
    let spoofed = relay.metrics.dropped("spoofed_inner");
    for (const [client, source, isBelieved] of sources) {
      relay.delivered.length = 0;
      client.send(ipv6Packet(source, FAR, udp()));
      world.runFor(SECOND);
      assertEquals(relay.delivered.length, isBelieved ? 1 : 0, `${source} of ${client.endpoint}`);
      if (!isBelieved) spoofed++;
      assertEquals(relay.metrics.dropped("spoofed_inner"), spoofed, `${source} is counted`);
    }
  });

  Deno.test(`deliver, ${protocol}: the relay's own inner address refuses TCP, UDP and what it does not speak, at once (seed ${SEED})`, () => {
    const { world, clients: [client] } = two(protocol);
    const answer = (packet: Uint8Array): Uint8Array | undefined => {
      client.delivered.length = 0;
      client.send(packet);
      world.runFor(SECOND);
      return client.delivered[0];
    };
    /** The same segment to the relay's address of either family. */
    const both = (protocol: number, segment: Uint8Array) => {
      const v4 = udpPacket("10.66.0.2", "10.66.0.1", segment.slice(8));
      v4.set(segment, 20);
      v4[9] = protocol;
      const view = new DataView(v4.buffer);
      view.setUint16(10, 0);
      view.setUint16(10, foldSum(sumWords(view, 0, 20, 0)));
      const v6 = ipv6Packet("fd00::2", "fd00::1", segment);
      v6[6] = protocol;
      return [answer(v4), answer(v6)];
    };
    const icmp = (v4: number[], v6: number[], answers: (Uint8Array | undefined)[]) => {
      const [four, six] = answers;
      assertEquals([four?.[9], four?.[20], four?.[21], four?.[15]], [1, ...v4, 1]);
      assertEquals([six?.[6], six?.[40], six?.[41], six?.[23]], [58, ...v6, 1]);
      const view4 = new DataView(four!.buffer), view6 = new DataView(six!.buffer);
      assertEquals(foldSum(sumWords(view4, 20, four!.length - 20, 0)), 0);
      assertEquals(transportChecksum(view6, 0, 40, six!.length - 40, 58), 0);
    };
    const syn = new Uint8Array(20);
    syn.set([0x9c, 0x40, 0x00, 0x50, 0, 0, 0, 7, 0, 0, 0, 0, 0x50, 0x02]);
    const [reset4, reset6] = both(6, syn);
    // RST and ACK of the SYN, with the ports changed over.
    for (const [reset, at] of [[reset4, 20], [reset6, 40]] as const) {
      const view = new DataView(reset!.buffer);
      assertEquals([view.getUint32(at), view.getUint32(at + 8), view.getUint8(at + 13)], [
        0x00509c40,
        8,
        0x14,
      ]);
    }
    icmp([3, 3], [1, 4], both(17, udp()));
    icmp([3, 2], [4, 1], both(132, udp()));
    const timestamp = new Uint8Array(20);
    timestamp[0] = 13;
    assertEquals(both(1, timestamp)[0], undefined, "ICMP that asks for nothing that it says");
    const rst = syn.slice();
    rst[13] = 4;
    assertEquals(both(6, rst), [undefined, undefined], "no answer to a reset");
  });
}

for (const protocol of PROTOCOLS) {
  Deno.test(`deliver, ${protocol}: an address that [destinations] denies is reached by no peer, though allow_peers opens the others (seed ${SEED})`, () => {
    const deny = ["10.66.0.3/32", "fd00:0:0:0:3::/80"];
    for (const allowPeers of [true, false]) {
      for (const denied of [[], deny]) {
        const { world, relay, clients: [one, other] } = two(protocol, {
          ...CLOSED,
          allowPeers,
          deny: denied,
        });
        const isReached = allowPeers && denied.length === 0;
        const packets = [
          udpPacket("10.66.0.2", "10.66.0.3", Uint8Array.of(7)),
          ipv6Packet("fd00::2", "fd00::3:0:0:7", udp()),
        ];
        for (const [i, packet] of packets.entries()) {
          one.delivered.length = other.delivered.length = 0;
          one.send(packet);
          world.runFor(SECOND);
          const what = `IPv${i === 0 ? 4 : 6}, allow_peers ${allowPeers}, deny ${denied}`;
          assertEquals(other.delivered.length, isReached ? 1 : 0, what);
          assertEquals(relay.metrics.dropped("denied"), isReached ? 0 : i + 1, what);
          // ICMP says that a policy forbids it: 3/13 (RFC 1812 5.2.7.1), and 1/1 (RFC 4443 3.1).
          const said = one.delivered.map((
            bytes,
          ) => [...i === 0 ? bytes.subarray(20, 22) : bytes.subarray(40, 42)]);
          assertEquals(said, isReached ? [] : [i === 0 ? [3, 13] : [1, 1]], what);
        }
        // The other way nothing is denied.
        one.delivered.length = 0;
        other.send(udpPacket("10.66.0.3", "10.66.0.2", Uint8Array.of(8)));
        world.runFor(SECOND);
        assertEquals(one.delivered.map((bytes) => bytes[28]), allowPeers ? [8] : []);
      }
    }
  });
}

Deno.test(`deliver: a source route is refused, wherever it stands among the options, and other options pass (seed ${SEED})`, () => {
  const { world, relay, clients: [client] } = two("wireguard");
  const withOptions = (...options: number[]) => {
    const plain = udpPacket("10.66.0.2", "8.8.8.8", new Uint8Array(4));
    const packet = Uint8Array.from([...plain.subarray(0, 20), ...options, ...plain.subarray(20)]);
    const view = new DataView(packet.buffer);
    view.setUint8(0, 0x40 | (20 + options.length) / 4);
    view.setUint16(2, packet.length);
    view.setUint16(10, 0);
    view.setUint16(10, foldSum(sumWords(view, 0, 20 + options.length, 0)));
    return packet;
  };
  const cases: [number[], boolean][] = [
    [[7, 7, 4, 0, 0, 0, 0, 0], true], // record route
    [[0x94, 4, 0, 0], true], // router alert
    [[1, 1, 1, 0], true],
    [[0, 131, 7, 4], true], // behind the end of the list
    [[131, 7, 4, 10, 0, 0, 1, 0], false], // loose
    [[137, 7, 4, 10, 0, 0, 1, 0], false], // strict
    [[1, 7, 3, 131, 131, 3, 4, 0], false], // behind others
    [[7, 0, 131, 3], true], // of no length: no option behind it can be read
  ];
  let denied = relay.metrics.dropped("denied");
  for (const [options, passes] of cases) {
    relay.delivered.length = client.delivered.length = 0;
    client.send(withOptions(...options));
    world.runFor(SECOND);
    assertEquals(relay.delivered.length, passes ? 1 : 0, `options ${options}`);
    if (passes) continue;
    assertEquals(
      client.delivered.map((packet) => [packet[20], packet[21]]),
      [[3, 13]],
      "and its sender is told",
    );
    assertEquals(relay.metrics.dropped("denied"), ++denied);
  }
});
