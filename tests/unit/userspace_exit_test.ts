/**
 * The userspace exit against real sockets on loopback: how it maps and filters, what it bounds, how it cuts and
 * joins fragments, and how it refuses. Whether loopback may be reached at all is decided elsewhere, before an exit
 * sees a packet. Pings need the system's consent and are tried in a namespace (tests/system/tun_exit_test.ts).
 * Long because all cases share one exit with its far ends.
 */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { libc, POLLIN } from "../../ffi/mod.ts";
import { loadNative } from "../../ffi/native.ts";
import type { Exit } from "../../src/exit/exit.ts";
import { fragment } from "../../src/exit/userspace/fragmentation.ts";
import { Reassembly } from "../../src/exit/userspace/reassembly.ts";
import { openUserspace, type UserspaceOptions } from "../../src/exit/userspace/mod.ts";
import { DROP, Metrics } from "../../src/metrics.ts";
import { Arena, NONE } from "../../src/vector/arena.ts";
import { Burst, DONE, TO_EXIT, TO_TUNNEL } from "../../src/vector/burst.ts";
import { formatAddress, isIpv4, parseAddress, parsePrefix } from "../../src/wire/address.ts";
import {
  foldSum,
  innerLength,
  isFragment,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  protocolOf,
  readDestination,
  readSource,
  sumWords,
  transportAt,
  transportChecksum,
  writeIpv4Header,
  writeIpv6Header,
} from "../../src/wire/inner.ts";
import { requires } from "../kit/requires.ts";

const ALICE = "10.66.0.2", BOB = "10.66.0.3";
const ALICE_V6 = "fd66::2";
const LOOPBACK = "127.0.0.1";
const GATEWAY = "10.66.0.1";
const MTU = 1280;
const WAIT_MS = 3000;
/** Long enough for an answer on loopback to have arrived if there were one. */
const SILENCE_MS = 150;

interface Datagram {
  source: string;
  sourcePort: number;
  destination: string;
  destinationPort: number;
  payload: Uint8Array;
}

/** An inner packet of any transport, headers and the transport's checksum at `checksumAt` filled in. */
function packetOf(from: string, to: string, protocol: number, segment: Uint8Array, checksumAt: number) {
  const source = parseAddress(from)!, destination = parseAddress(to)!;
  const v4 = isIpv4(source);
  const header = v4 ? 20 : 40;
  const packet = new Uint8Array(header + segment.length);
  const view = new DataView(packet.buffer);
  packet.set(segment, header);
  if (v4) writeIpv4Header(view, 0, packet.length, 7, 0, protocol, source[3], destination[3]);
  else writeIpv6Header(view, 0, segment.length, protocol, source, 0, destination, 0);
  view.setUint16(header + checksumAt, transportChecksum(view, 0, header, segment.length, protocol));
  return packet;
}

function udp(from: string, fromPort: number, to: string, toPort: number, payload: Uint8Array | string) {
  const bytes = typeof payload === "string" ? new TextEncoder().encode(payload) : payload;
  const segment = new Uint8Array(8 + bytes.length);
  const view = new DataView(segment.buffer);
  view.setUint16(0, fromPort);
  view.setUint16(2, toPort);
  view.setUint16(4, segment.length);
  segment.set(bytes, 8);
  return packetOf(from, to, PROTOCOL_UDP, segment, 6);
}

/** Reads a whole inner UDP packet, both checksums verified the way a receiver does (RFC 1071: the sum is zero). */
function parseUdp(packet: Uint8Array): Datagram {
  const view = new DataView(packet.buffer, packet.byteOffset, packet.length);
  assertEquals(innerLength(view, 0, packet.length), packet.length);
  assertEquals(protocolOf(view, 0, packet.length), PROTOCOL_UDP);
  const at = transportAt(view, 0, packet.length);
  if (packet[0] >> 4 === 4) assertEquals(foldSum(sumWords(view, 0, at, 0)), 0);
  assertEquals(transportChecksum(view, 0, at, packet.length - at, PROTOCOL_UDP), 0);
  assertEquals(view.getUint16(at + 4), packet.length - at);
  const words = new Uint32Array(8);
  readSource(view, 0, words, 0);
  readDestination(view, 0, words, 4);
  return {
    source: formatAddress(words, 0),
    destination: formatAddress(words, 4),
    sourcePort: view.getUint16(at),
    destinationPort: view.getUint16(at + 2),
    payload: packet.slice(at + 8),
  };
}

/** An exit with its burst, driven by hand and by a clock of the test's own. */
class Bench {
  readonly metrics = new Metrics();
  readonly arena = new Arena(512);
  readonly burst = new Burst(this.arena);
  readonly exit: Exit;
  nowUs = 0;

  constructor(options: Partial<UserspaceOptions> = {}) {
    this.exit = openUserspace({
      ipv4: { address: GATEWAY, prefix: 16 },
      ipv6: { address: "fd66::1", prefix: 64 },
      mtu: MTU,
      metrics: this.metrics,
      native: "this bench does without",
      log: () => {},
      ...options,
    });
  }

  /** Sends one packet; returns what became of its row, and the packet that it was turned into, if any. */
  send(packet: Uint8Array, peer = NONE): { next: number; answer: Uint8Array | undefined } {
    const { burst } = this;
    const row = burst.grow(packet.length, TO_EXIT);
    assert(row >= 0);
    burst.peer[row] = peer;
    burst.bytes.set(packet, burst.offset[row]);
    this.exit.send(burst, this.nowUs);
    const next = burst.next[row];
    const at = burst.offset[row];
    const answer = next === TO_TUNNEL ? burst.bytes.slice(at, at + burst.length[row]) : undefined;
    burst.release();
    return { next, answer };
  }

  /** Sends packets as one burst; returns what became of the rows. */
  sendAll(packets: Uint8Array[]): number[] {
    const { burst } = this;
    for (const packet of packets) burst.bytes.set(packet, burst.offset[burst.grow(packet.length, TO_EXIT)]);
    this.exit.send(burst, this.nowUs);
    const outcomes = [...burst.next.subarray(0, burst.count)];
    burst.release();
    return outcomes;
  }

  /** Takes what waits. */
  take(): Uint8Array[] {
    const { burst } = this;
    this.exit.receive(burst, this.nowUs);
    const packets = [];
    for (let row = 0; row < burst.count; row++) {
      assertEquals(burst.next[row], TO_TUNNEL);
      packets.push(burst.bytes.slice(burst.offset[row], burst.offset[row] + burst.length[row]));
    }
    burst.release();
    return packets;
  }

  /** The next `count` packets, or a failure. */
  async receive(count = 1): Promise<Uint8Array[]> {
    const packets: Uint8Array[] = [];
    const end = performance.now() + WAIT_MS;
    while (packets.length < count) {
      assert(performance.now() < end, `${packets.length} of ${count} packets came back`);
      packets.push(...this.take());
      if (packets.length < count) await pause(2);
    }
    return packets;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.exit.close();
    assertEquals(this.arena.free, this.arena.slotCount, "every slot came back");
    this.burst.release();
  }
}

/** A server on loopback that remembers who asked; `answer` gives the payload to send back. */
class Server {
  readonly socket: Deno.DatagramConn;
  readonly asked: { port: number; payload: Uint8Array }[] = [];
  readonly #reading: Promise<void>;

  constructor(answer: (payload: Uint8Array) => Uint8Array | undefined, hostname = LOOPBACK) {
    this.socket = Deno.listenDatagram({ transport: "udp", hostname, port: 0 });
    this.#reading = this.#serve(answer);
  }

  async #serve(answer: (payload: Uint8Array) => Uint8Array | undefined): Promise<void> {
    for await (const [payload, from] of this.socket) {
      this.asked.push({ port: (from as Deno.NetAddr).port, payload });
      const reply = answer(payload);
      if (reply) await this.socket.send(reply, from);
    }
  }

  get port(): number {
    return (this.socket.addr as Deno.NetAddr).port;
  }

  /** Waits until `count` datagrams have been asked in all. */
  async heard(count: number): Promise<void> {
    const end = performance.now() + WAIT_MS;
    while (this.asked.length < count) {
      assert(performance.now() < end, `the server heard ${this.asked.length} of ${count} datagrams`);
      await pause(2);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.socket.close();
    await this.#reading;
  }
}

const echo = (payload: Uint8Array) => payload.slice();
const silent = () => undefined;

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** A UDP port that is free at this moment, so that tests neither collide nor depend on luck. */
function freePort(): number {
  const socket = Deno.listenDatagram({ transport: "udp", hostname: "0.0.0.0", port: 0 });
  const { port } = socket.addr as Deno.NetAddr;
  socket.close();
  return port;
}

function pattern(length: number, seed: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (i * 31 + (i >> 8) * 7 + seed) & 255);
}

const native = loadNative();
const nativeTests = { ignore: typeof native === "string" };
if (nativeTests.ignore) console.error(`SKIPPED tests/unit/userspace_exit_test.ts, native: ${native}`);
/** Both implementations of UDP: Deno's sockets, and the native library where there is one. */
const KINDS: [string, UserspaceOptions["native"]][] = [["portable", "this bench does without"]];
if (typeof native !== "string") KINDS.push(["native", native]);

for (const [kind, native] of KINDS) {
  const open = (options: Partial<UserspaceOptions> = {}) => new Bench({ native, ...options });

  Deno.test(`userspace, ${kind}: an answer comes back to the source that asked`, async () => {
    await using server = new Server(echo);
    await using bench = open();
    assertEquals(bench.send(udp(ALICE, 40001, LOOPBACK, server.port, "hello")).next, DONE);
    const [packet] = await bench.receive();
    const answer = parseUdp(packet);
    assertEquals(new TextDecoder().decode(answer.payload), "hello");
    assertEquals([answer.source, answer.sourcePort], [LOOPBACK, server.port]);
    assertEquals([answer.destination, answer.destinationPort], [ALICE, 40001]);
  });

  Deno.test(`userspace, ${kind}: a peer's requests for ports are passed on 32 times a second, and another's still`, async () => {
    await using bench = open();
    const asked: string[] = [];
    bench.exit.onPortControl!(({ address }) => asked.push(address));
    const ask = (from: string, peer: number) => bench.send(udp(from, 40001, GATEWAY, 5351, "ask"), peer).next;
    for (let i = 0; i < 100; i++) assertEquals(ask(ALICE, 1), DONE);
    assertEquals(asked.length, 32);
    ask(BOB, 2);
    assertEquals(asked.at(-1), BOB);
    bench.nowUs = 1e6;
    ask(ALICE, 1);
    assertEquals(asked.at(-1), ALICE);
  });

  Deno.test(`userspace, ${kind}: an empty datagram is a datagram`, async () => {
    await using server = new Server(echo);
    await using bench = open();
    bench.send(udp(ALICE, 40001, LOOPBACK, server.port, ""));
    const [packet] = await bench.receive();
    assertEquals(parseUdp(packet).payload.length, 0);
  });

  Deno.test(`userspace, ${kind}: one source port keeps one outer port for every destination`, async () => {
    await using first = new Server(echo);
    await using second = new Server(echo);
    await using bench = open();
    bench.send(udp(ALICE, 40001, LOOPBACK, first.port, "a"));
    bench.send(udp(ALICE, 40001, LOOPBACK, second.port, "b"));
    await bench.receive(2);
    assertEquals(first.asked[0].port, second.asked[0].port);
    assertEquals(bench.exit.flowCount, 1);
  });

  Deno.test(`userspace, ${kind}: the outer port is the inner one where it is free`, async () => {
    await using server = new Server(silent);
    await using bench = open();
    const port = freePort();
    bench.send(udp(ALICE, port, LOOPBACK, server.port, "a"));
    bench.send(udp(BOB, port, LOOPBACK, server.port, "b"));
    await server.heard(2);
    const ports = new Map(server.asked.map(({ port, payload }) => [String.fromCharCode(payload[0]), port]));
    assertEquals(ports.get("a"), port);
    assertNotEquals(ports.get("b"), port);
  });

  Deno.test(`userspace, ${kind}: a host that was never asked may answer an open mapping, and no other source sees it`, async () => {
    await using server = new Server(silent);
    await using stranger = new Server(silent);
    await using bench = open();
    bench.send(udp(ALICE, 40001, LOOPBACK, server.port, "open"));
    bench.send(udp(BOB, 40002, LOOPBACK, server.port, "other"));
    await server.heard(2);
    const mapped = server.asked.find(({ payload }) => payload.length === 4)!.port;
    await stranger.socket.send(new TextEncoder().encode("knock"), {
      transport: "udp",
      hostname: LOOPBACK,
      port: mapped,
    });
    const [packet] = await bench.receive();
    const knock = parseUdp(packet);
    assertEquals([knock.source, knock.sourcePort], [LOOPBACK, stranger.port]);
    assertEquals([knock.destination, knock.destinationPort], [ALICE, 40001]);
    await pause(SILENCE_MS);
    assertEquals(bench.take().length, 0);
  });

  Deno.test(`userspace, ${kind}: a forwarded port is its source's for all far ends, and neither idle time nor others' flows end it`, async () => {
    await using server = new Server(silent);
    await using taken = new Server(silent);
    await using stranger = new Server(silent);
    await using bench = open({ maxFlows: 4 });
    bench.send(udp(ALICE, 40001, LOOPBACK, server.port, "open"));
    await server.heard(1);
    const outer = freePort();
    const forward = { protocol: "udp" as const, outer, address: ALICE, port: 40001 };
    const other = { ...forward, outer: taken.port, port: 40002 };
    const refused = bench.exit.setForwards!([forward, other]);
    assertEquals(refused.map(({ forward }) => forward), [other]);
    assert(refused[0].reason.startsWith("is in use"), refused[0].reason);
    const knock = async () => {
      await stranger.socket.send(new TextEncoder().encode("knock"), {
        transport: "udp",
        hostname: LOOPBACK,
        port: outer,
      });
    };
    await knock();
    await pause(SILENCE_MS);
    assertEquals(bench.take().length, 0, "programs of this host reach only who has spoken to them");
    bench.send(udp(ALICE, 40001, LOOPBACK, server.port, "again"));
    await server.heard(2);
    assertEquals(server.asked[1].port, outer, "in place of the mapping that it had");
    for (let port = 1; port <= 8; port++) bench.send(udp(BOB, 41000 + port, LOOPBACK, server.port, "x"));
    bench.nowUs += 1e9;
    bench.exit.handleTimeout(bench.nowUs);
    assertEquals(bench.exit.flowCount, 1);
    await knock();
    const [packet] = await bench.receive();
    const came = parseUdp(packet);
    assertEquals([came.destination, came.destinationPort, came.sourcePort], [ALICE, 40001, stranger.port]);
    assertEquals(bench.exit.setForwards!([{ ...forward, port: 40003 }]), [], "it may lead elsewhere at once");
    bench.exit.forget!([`${ALICE}/32`]);
    assertEquals(bench.exit.flowCount, 0);
  });

  Deno.test(`userspace, ${kind}: a forward takes its own peer's port over, and no other's`, async () => {
    await using server = new Server(silent);
    await using bench = open();
    const port = freePort();
    const send = (from: string, payload: string) =>
      bench.send(udp(from, port, LOOPBACK, server.port, payload));
    send(BOB, "bob");
    await server.heard(1);
    assertEquals(server.asked[0].port, port, "a port that is free is kept");
    const forward = { protocol: "udp" as const, outer: port, address: ALICE, port: 40001 };
    const refused = bench.exit.setForwards!([forward]);
    assertEquals(refused.map(({ forward }) => forward), [forward]);
    assert(refused[0].reason.startsWith("is in use"), refused[0].reason);
    const answered = async () => {
      await server.socket.send(new TextEncoder().encode("answer"), {
        transport: "udp",
        hostname: LOOPBACK,
        port,
      });
      const { destination, destinationPort } = parseUdp((await bench.receive())[0]);
      return [destination, destinationPort];
    };
    assertEquals(await answered(), [BOB, port]);
    bench.exit.forget!([`${BOB}/32`]);
    await pause(SILENCE_MS); // the system has the port back
    send(ALICE, "alice");
    await server.heard(2);
    assertEquals(server.asked[1].port, port);
    assertEquals(bench.exit.setForwards!([{ ...forward, port }]), [], "the mapping's own port");
    send(ALICE, "again");
    await server.heard(3);
    assertEquals([server.asked[2].port, bench.exit.flowCount], [port, 1]);
    assertEquals(await answered(), [ALICE, port]);
    bench.exit.setForwards!([]);
    await pause(SILENCE_MS);
    send(ALICE, "alice");
    await server.heard(4);
    assertEquals(bench.exit.setForwards!([forward]), [], "a port of the same peer, for another of its own");
    bench.send(udp(ALICE, 40001, LOOPBACK, server.port, "moved"));
    await server.heard(5);
    assertEquals(server.asked[4].port, port);
    assertEquals(await answered(), [ALICE, 40001]);
  });

  Deno.test(`userspace, ${kind}: a removed peer's mappings end with it, and a host that still answers reaches nobody`, async () => {
    await using server = new Server(silent);
    await using bench = open();
    bench.send(udp(ALICE, 40001, LOOPBACK, server.port, "alice"));
    bench.send(udp(BOB, 40002, LOOPBACK, server.port, "bob"));
    await server.heard(2);
    assertEquals(bench.exit.flowCount, 2);
    bench.exit.forget!([`${ALICE}/32`, "fd66::2/128"]);
    assertEquals(bench.exit.flowCount, 1);
    for (const { port, payload } of server.asked) {
      await server.socket.send(payload, { transport: "udp", hostname: LOOPBACK, port });
    }
    const [packet] = await bench.receive();
    assertEquals([parseUdp(packet).destination, parseUdp(packet).destinationPort], [BOB, 40002]);
    await pause(SILENCE_MS);
    assertEquals(bench.take().length, 0, "what came for the one who is gone is for nobody");
    // Whoever has the address next begins with nothing of the one before.
    bench.send(udp(ALICE, 40001, LOOPBACK, server.port, "heir"));
    assertEquals(bench.exit.flowCount, 2);
    bench.exit.forget!(["10.66.0.0/16"]);
    assertEquals(bench.exit.flowCount, 0);
  });

  Deno.test(`userspace, ${kind}: programs of this host reach nobody who has not asked one of them`, async () => {
    await using stranger = new Server(silent);
    await using bench = open();
    const port = freePort();
    const mapped = { transport: "udp" as const, hostname: LOOPBACK, port };
    bench.send(udp(ALICE, port, "192.0.2.1", 9, "to the world"));
    assertEquals(bench.exit.flowCount, 1);
    await stranger.socket.send(new TextEncoder().encode("knock"), mapped);
    await pause(SILENCE_MS);
    // A router may say that the world is not there.
    const isUdp = (packet: Uint8Array) => packet[9] === PROTOCOL_UDP;
    assertEquals(bench.take().filter(isUdp).length, 0);
    bench.send(udp(ALICE, port, LOOPBACK, stranger.port, "to this host"));
    await stranger.socket.send(new TextEncoder().encode("welcome"), mapped);
    const [welcome] = (await bench.receive()).filter(isUdp);
    assertEquals(new TextDecoder().decode(parseUdp(welcome).payload), "welcome");
  });

  Deno.test(`userspace, ${kind}: sources that use the same port and query number get their own answers`, async () => {
    // A resolver's answer differs by who asked only in what was asked; all else collides on purpose.
    await using resolver = new Server((query) => Uint8Array.of(query[0], query[1], query[2], 0xaa));
    await using bench = open();
    const sources = Array.from({ length: 32 }, (_, i) => `10.66.1.${i + 1}`);
    for (let round = 0; round < 4; round++) {
      sources.forEach((source, i) => {
        bench.send(udp(source, 5353, LOOPBACK, resolver.port, Uint8Array.of(0x12, 0x34, i)));
      });
      const answers = (await bench.receive(sources.length)).map(parseUdp);
      for (const { destination, destinationPort, payload } of answers) {
        assertEquals(destinationPort, 5353);
        assertEquals(destination, sources[payload[2]]);
      }
      assertEquals(new Set(answers.map(({ destination }) => destination)).size, sources.length);
    }
  });

  Deno.test(`userspace, ${kind}: a mapping ends after its idle time, and only what goes out keeps it`, async () => {
    await using server = new Server(silent);
    await using bench = open({ udpTimeoutS: 120 });
    const send = (payload: string) => bench.send(udp(ALICE, 40001, LOOPBACK, server.port, payload));
    send("1");
    await server.heard(1);
    bench.nowUs = 119e6;
    bench.exit.handleTimeout(bench.nowUs);
    assertEquals(bench.exit.flowCount, 1);
    send("2");
    bench.nowUs = 238e6;
    bench.exit.handleTimeout(bench.nowUs);
    assertEquals(bench.exit.flowCount, 1, "the packet at 119 s began the time anew");
    await server.heard(2);
    const to = { transport: "udp" as const, hostname: LOOPBACK, port: server.asked[0].port };
    await server.socket.send(Uint8Array.of(1), to);
    await bench.receive();
    bench.nowUs = 239e6;
    bench.exit.handleTimeout(bench.nowUs);
    assertEquals(bench.exit.flowCount, 0, "a packet from outside keeps nothing open");
    await server.socket.send(Uint8Array.of(2), to);
    await pause(SILENCE_MS);
    assertEquals(bench.take().length, 0);
  });

  Deno.test(`userspace, ${kind}: flows are bounded in all, and one source takes no more than a quarter`, async () => {
    await using server = new Server(silent);
    await using bench = open({ maxFlows: 16 });
    bench.send(udp(BOB, 50000, LOOPBACK, server.port, "bob"));
    await server.heard(1);
    const bob = server.asked[0].port;
    for (let i = 0; i < 40; i++) {
      bench.nowUs += 1000;
      bench.send(udp(ALICE, 41000 + i, LOOPBACK, server.port, "alice"));
      assert(bench.exit.flowCount <= 5, "one of Bob's and four of Alice's");
    }
    assertEquals(bench.exit.flowCount, 5);
    await server.socket.send(Uint8Array.of(9), { transport: "udp", hostname: LOOPBACK, port: bob });
    const [packet] = await bench.receive();
    assertEquals(parseUdp(packet).destination, BOB, "the greed of one did not cost the other its mapping");
    for (let i = 0; i < 40; i++) bench.send(udp(`10.66.2.${i + 1}`, 42000, LOOPBACK, server.port, "more"));
    assertEquals(bench.exit.flowCount, 16);
  });

  Deno.test(`userspace, ${kind}: all addresses of a peer together hold no more than a quarter of the flows`, async () => {
    await using server = new Server(silent);
    await using bench = open({ maxFlows: 16 });
    bench.send(udp(BOB, 50000, LOOPBACK, server.port, "bob"), 2);
    for (let i = 0; i < 20; i++) {
      bench.nowUs += 1000;
      bench.send(udp(i % 2 ? ALICE : `10.66.2.${i + 1}`, 44000 + i, LOOPBACK, server.port, "alice"), 1);
      assert(bench.exit.flowCount <= 5, "one of Bob's and four of Alice's");
    }
    assertEquals(bench.exit.flowCount, 5);
  });

  Deno.test(`userspace, ${kind}: the mapping that makes room is the one idle for longest`, async () => {
    await using server = new Server(silent);
    await using bench = open({ maxFlows: 16 });
    const send = (port: number) => bench.send(udp(ALICE, port, LOOPBACK, server.port, "x"));
    const game = freePort();
    send(game);
    await server.heard(1);
    const outer = server.asked[0].port;
    for (let i = 0; i < 10; i++) {
      send(43000 + i);
      send(game);
    }
    await server.heard(21);
    const outers = server.asked.filter(({ port }) => port === outer);
    assertEquals(outers.length, 11, "the busy mapping outlived ten others");
  });

  for (const [family, source, hostname] of [["IPv4", ALICE, LOOPBACK], ["IPv6", ALICE_V6, "::1"]] as const) {
    Deno.test(`userspace, ${kind}: ${family} datagrams beyond the MTU are cut and joined both ways`, async () => {
      await using server = new Server(echo, hostname);
      await using bench = open();
      const largest = kind === "native" ? [65507] : [];
      for (const size of [1, 1231, 1232, 1233, 1252, 1253, 4096, 8192, ...largest]) {
        const payload = pattern(size, size);
        const before = server.asked.length;
        const outgoing = fragment(udp(source, 40001, hostname, server.port, payload), MTU, size);
        // The last fragment first: order is not promised.
        for (const piece of outgoing.reverse()) {
          assert(piece.length <= MTU);
          assertEquals(bench.send(piece).next, DONE);
        }
        await server.heard(before + 1);
        assertEquals(server.asked[before].payload, payload, `${size} bytes went out whole`);
        const incoming = await bench.receive(outgoing.length);
        for (const piece of incoming) assert(piece.length <= MTU);
        const joiner = new Reassembly();
        const wholes = incoming.map((piece) =>
          isFragment(new DataView(piece.buffer), 0, piece.length) ? joiner.add(piece, 0) : piece
        ).filter((whole) => whole !== undefined);
        assertEquals(wholes.length, 1);
        const answer = wholes[0];
        if (family === "IPv4") { // the joined header is new, and its checksum is the receiver's business no more
          const view = new DataView(answer.buffer);
          view.setUint16(10, 0);
          view.setUint16(10, foldSum(sumWords(view, 0, 20, 0)));
        }
        assertEquals(parseUdp(answer).payload, payload, `${size} bytes came back whole`);
        assertEquals(parseUdp(answer).destination, source);
      }
    });
  }

  // The native library carries whatever UDP has.
  if (kind === "portable") {
    Deno.test(`userspace, ${kind}: an answer too long to carry is dropped and counted, never cut short`, async () => {
      await using server = new Server((query) => pattern(query.length === 1 ? 8193 : 4, 0));
      await using bench = open();
      bench.send(udp(ALICE, 40001, LOOPBACK, server.port, "1"));
      await server.heard(1);
      bench.send(udp(ALICE, 40001, LOOPBACK, server.port, "22"));
      const [packet] = await bench.receive();
      assertEquals(parseUdp(packet).payload.length, 4);
      await pause(SILENCE_MS);
      assertEquals(bench.take().length, 0);
      assertEquals(bench.metrics.dropped("exit_full"), 1);
    });
  }

  Deno.test(`userspace, ${kind}: a UDP header that lies about its length is malformed`, async () => {
    await using bench = open();
    for (const size of [0, 7, 14, 65535]) {
      const packet = udp(ALICE, 40001, LOOPBACK, 9, "12345");
      new DataView(packet.buffer).setUint16(24, size);
      assertEquals(bench.send(packet).next, DROP.malformed_inner, `${size}`);
    }
    assertEquals(bench.exit.flowCount, 0);
  });

  Deno.test(`userspace, ${kind}: a full arena leaves answers waiting and loses none`, async () => {
    await using server = new Server(echo);
    await using bench = open();
    const slots: number[] = [];
    for (let slot = bench.arena.take(); slot !== NONE; slot = bench.arena.take()) slots.push(slot);
    bench.arena.release(slots.pop()!);
    bench.send(udp(ALICE, 40001, LOOPBACK, server.port, "wait"));
    const held = bench.arena.take();
    await server.heard(1);
    await pause(SILENCE_MS);
    assertEquals(bench.take().length, 0);
    for (const slot of [held, ...slots]) bench.arena.release(slot);
    assertEquals((await bench.receive()).length, 1);
  });
}

Deno.test("userspace, portable: unread answers are bounded and counted", async () => {
  await using server = new Server(silent);
  await using bench = new Bench();
  bench.send(udp(ALICE, 40001, LOOPBACK, server.port, "open"));
  await server.heard(1);
  const to = { transport: "udp" as const, hostname: LOOPBACK, port: server.asked[0].port };
  for (let i = 0; i < 1500; i++) {
    await server.socket.send(Uint8Array.of(i & 255), to);
    if (i % 50 === 0) await pause(1);
  }
  const end = performance.now() + WAIT_MS;
  while (bench.metrics.dropped("exit_full") === 0 && performance.now() < end) await pause(5);
  assert(bench.metrics.dropped("exit_full") > 0);
  await pause(SILENCE_MS);
  let packets = 0;
  for (let taken = bench.take(); taken.length > 0; taken = bench.take()) packets += taken.length;
  assertEquals(packets, 1024);
});

/** One raw IPv4 fragment; offsets and sizes in bytes. */
function piece(at: number, size: number, more: boolean, identification = 1, from = ALICE): Uint8Array {
  const bytes = new Uint8Array(20 + size);
  const source = parseAddress(from)![3], destination = parseAddress(LOOPBACK)![3];
  const flags = (more ? 0x2000 : 0) | (at >> 3);
  const view = new DataView(bytes.buffer);
  writeIpv4Header(view, 0, bytes.length, identification, flags, PROTOCOL_UDP, source, destination);
  return bytes;
}

Deno.test("reassembly: fragments that overlap or contradict each other discard the datagram", () => {
  const cases: [name: string, pieces: Uint8Array[]][] = [
    ["overlap", [piece(0, 16, true), piece(8, 16, false)]],
    ["an overlap that makes up for a hole", [
      piece(0, 16, true),
      piece(8, 8, true),
      piece(24, 8, false),
    ]],
    ["a hole, and a piece beyond the end that makes up for it", [
      piece(0, 8, true),
      piece(24, 8, true),
      piece(16, 8, false),
    ]],
    ["the end first, then a piece beyond it", [piece(8, 8, false), piece(24, 8, true), piece(0, 8, true)]],
    ["two ends", [piece(8, 8, false), piece(16, 8, false), piece(0, 8, true)]],
  ];
  for (const [name, pieces] of cases) {
    const joiner = new Reassembly();
    for (const one of pieces) assertEquals(joiner.add(one, 0), undefined, name);
  }
});

Deno.test("reassembly: waits no longer than 15 s, for no more than 128 datagrams of a source and 1024 in all", () => {
  const joiner = new Reassembly();
  joiner.add(piece(0, 8, true, 1), 0);
  joiner.expire(14.9e6);
  assertEquals(joiner.add(piece(8, 8, false, 1), 14.9e6)?.length, 36);
  joiner.add(piece(0, 8, true, 2), 0);
  joiner.expire(15e6);
  assertEquals(joiner.add(piece(8, 8, false, 2), 15e6), undefined);
  const greedy = new Reassembly();
  greedy.add(piece(0, 8, true, 7, "10.66.0.9"), 0);
  for (let i = 0; i < 1000; i++) greedy.add(piece(0, 8, true, i), 0);
  assertEquals(greedy.add(piece(8, 8, false, 872), 0)?.length, 36);
  assertEquals(
    greedy.add(piece(8, 8, false, 871), 0),
    undefined,
    "a source that has 128 loses its own oldest",
  );
  assertEquals(greedy.add(piece(8, 8, false, 7, "10.66.0.9"), 0)?.length, 36, "and nobody else's");
  const many = new Reassembly();
  for (let i = 0; i < 129; i++) many.add(piece(0, 8, true, 1, `10.66.8.${i}`), 0, 3);
  assertEquals(
    many.add(piece(8, 8, false, 1, "10.66.8.0"), 0, 3),
    undefined,
    "a peer's addresses share its 128",
  );
  assertEquals(many.add(piece(8, 8, false, 1, "10.66.8.2"), 0, 3)?.length, 36);
  const crowded = new Reassembly();
  for (let i = 0; i < 1025; i++) crowded.add(piece(0, 8, true, 1, `10.66.${i >> 8}.${i & 255}`), 0);
  assertEquals(crowded.add(piece(8, 8, false, 1, "10.66.4.0"), 0)?.length, 36);
  assertEquals(crowded.add(piece(8, 8, false, 1, "10.66.0.0"), 0), undefined, "the oldest had to go");
});

Deno.test("reassembly: a source that is gone leaves no fragment, and takes nobody else's along", () => {
  let lost = 0;
  const joiner = new Reassembly(() => lost++);
  for (const from of [ALICE, BOB]) joiner.add(piece(0, 8, true, 1, from), 0);
  joiner.forget(parsePrefix(`${ALICE}/32`)!);
  assertEquals(lost, 1);
  assertEquals(joiner.add(piece(8, 8, false, 1, BOB), 0)?.length, 36);
  assertEquals(joiner.add(piece(8, 8, false, 1, ALICE), 0), undefined);
});

Deno.test("reassembly: the largest datagram that IPv4 has room for comes together, one longer never", () => {
  // A header of 20 bytes leaves a body of 65 515.
  for (const [last, length] of [[1003, 65535], [1004, undefined]] as const) {
    let lost = 0;
    const joiner = new Reassembly(() => lost++);
    for (let at = 0; at < 63 * 1024; at += 1024) {
      assertEquals(joiner.add(piece(at, 1024, true), 0), undefined);
    }
    assertEquals(joiner.add(piece(64512, last, false), 0)?.length, length);
    assertEquals(lost, length === undefined ? 1 : 0);
  }
});

Deno.test("reassembly: each datagram that is given up is told once, for its time with its first fragment", () => {
  const told: (number | undefined)[] = [];
  const joiner = new Reassembly((first) => told.push(first?.length));
  joiner.add(piece(0, 16, true, 1), 0);
  joiner.add(piece(16, 8, true, 2), 0);
  joiner.add(piece(0, 8, true, 3), 0);
  joiner.add(piece(0, 8, true, 3), 0);
  assertEquals(told, [undefined], "an overlap");
  joiner.expire(15e6);
  assertEquals(told, [undefined, 36, undefined], "one that began, and one without its beginning");
  joiner.expire(99e6);
  assertEquals(told.length, 3);
});

Deno.test("reassembly: the bytes that wait are bounded for one source, and another's stay", () => {
  let lost = 0;
  const joiner = new Reassembly(() => lost++);
  joiner.add(piece(0, 1024, true, 9, "10.66.0.9"), 0);
  // 64 KB each, and the first piece once more: 31 of them are 2 MB.
  for (let i = 0; i < 60; i++) {
    for (let at = 0; at < 64512; at += 1024) joiner.add(piece(at, 1024, true, i), 0);
  }
  assert(lost >= 28 && lost <= 30, `${lost} were given up`);
  assertEquals(joiner.add(piece(1024, 8, false, 9, "10.66.0.9"), 0)?.length, 1052);
});

function tcp(from: string, to: string, flags: number, payload = 0): Uint8Array {
  const segment = new Uint8Array(20 + payload);
  const view = new DataView(segment.buffer);
  view.setUint16(0, 50000);
  view.setUint16(2, 443);
  view.setUint32(4, 0xfffffff0);
  view.setUint32(8, 0x01020304);
  view.setUint16(12, 0x5000 | flags);
  return packetOf(from, to, PROTOCOL_TCP, segment, 16);
}

for (const [from, to] of [[ALICE, "192.0.2.1"], [ALICE_V6, "2001:db8::1"]]) {
  Deno.test(`userspace: TCP to ${to} is reset at once and counted`, async () => {
    await using bench = new Bench();
    const { answer } = bench.send(tcp(from, to, 0x02));
    assert(answer);
    const view = new DataView(answer.buffer);
    const at = transportAt(view, 0, answer.length);
    assertEquals(protocolOf(view, 0, answer.length), PROTOCOL_TCP);
    assertEquals(transportChecksum(view, 0, at, answer.length - at, PROTOCOL_TCP), 0);
    const words = new Uint32Array(8);
    readSource(view, 0, words, 0);
    readDestination(view, 0, words, 4);
    assertEquals([formatAddress(words, 0), formatAddress(words, 4)], [to, from]);
    assertEquals([view.getUint16(at), view.getUint16(at + 2)], [443, 50000]);
    assertEquals(view.getUint8(at + 13), 0x14, "RST and ACK");
    assertEquals(view.getUint32(at + 8), 0xfffffff1, "the SYN takes one sequence number");
    assertEquals(bench.metrics.dropped("unsupported"), 1);
    assertEquals(bench.send(tcp(from, to, 0x04)).next, DONE, "a reset is never answered");
  });
}

Deno.test("userspace: a protocol that it cannot carry is answered with protocol unreachable and counted", async () => {
  await using bench = new Bench();
  const sctp = packetOf(ALICE, "192.0.2.1", 132, new Uint8Array(12), 8);
  const { answer } = bench.send(sctp);
  assert(answer);
  const view = new DataView(answer.buffer);
  assertEquals([view.getUint8(20), view.getUint8(21)], [3, 2]);
  assertEquals(bench.metrics.dropped("unsupported"), 1);
  assertEquals(foldSum(sumWords(view, 20, answer.length - 20, 0)), 0);
  assertEquals(answer.slice(28), sctp, "the whole packet is quoted");
  const source = new Uint32Array(4);
  readSource(view, 0, source, 0);
  assertEquals(formatAddress(source), GATEWAY);
});

Deno.test("userspace, native: a burst of many flows and sizes leaves whole, each flow's datagrams in order", {
  ...nativeTests,
}, async () => {
  await using near = new Server(silent);
  await using far = new Server(silent);
  await using bench = new Bench({ native });
  // Runs of equal size, a shorter last one, empty ones, two destinations and three flows, interleaved.
  const sizes = [300, 300, 300, 17, 0, 300, 300, 0, 1, 400, 400, 400, 400, 5];
  const sent = new Map<string, Uint8Array[]>();
  const packets: Uint8Array[] = [];
  for (let i = 0; i < 150; i++) {
    const [source, server] = [[ALICE, BOB, "10.66.0.4"][i % 3], i % 5 === 4 ? far : near];
    const payload = pattern(sizes[Math.floor(i / 3) % sizes.length], i);
    packets.push(udp(source, 40001 + i % 3, LOOPBACK, server.port, payload));
    const key = `${i % 3} ${server.port}`;
    sent.set(key, [...sent.get(key) ?? [], payload]);
  }
  assertEquals(bench.sendAll(packets), packets.map(() => DONE));
  assertEquals(bench.exit.flowCount, 3);
  await near.heard(120);
  await far.heard(30);
  for (const server of [near, far]) {
    const heard = Map.groupBy(server.asked, ({ port }) => port);
    const expected = [0, 1, 2].map((flow) => sent.get(`${flow} ${server.port}`)!);
    for (const datagrams of heard.values()) {
      const payloads = datagrams.map(({ payload }) => payload);
      const at = expected.findIndex((one) =>
        one[0].length === payloads[0].length && one[0][0] === payloads[0][0]
      );
      assertEquals(payloads, expected[at]);
    }
    assertEquals(heard.size, 3);
  }
});

Deno.test("userspace, native: what the system refuses is counted, and the rest of the burst leaves", {
  ...nativeTests,
}, async () => {
  await using server = new Server(silent);
  await using bench = new Bench({ native });
  const good = udp(ALICE, 40001, LOOPBACK, server.port, "good");
  const bad = udp(ALICE, 40001, "255.255.255.255", server.port, "bad");
  const none = udp(ALICE, 40001, LOOPBACK, 0, "none");
  const outcomes = bench.sendAll([good, bad, bad, bad, good, none, udp(BOB, 1, LOOPBACK, server.port, "b")]);
  const { exit_error } = DROP;
  assertEquals(outcomes, [DONE, exit_error, exit_error, exit_error, DONE, exit_error, DONE]);
  await server.heard(3);
});

Deno.test("userspace, native: unread answers are bounded by the system and counted", {
  ...nativeTests,
}, async () => {
  await using server = new Server(silent);
  await using bench = new Bench({ native });
  bench.send(udp(ALICE, 40001, LOOPBACK, server.port, "open"));
  await server.heard(1);
  const to = { transport: "udp" as const, hostname: LOOPBACK, port: server.asked[0].port };
  const drain = () => {
    let packets = 0;
    for (let taken = bench.take(); taken.length > 0; taken = bench.take()) packets += taken.length;
    return packets;
  };
  for (let i = 0; i < 5000; i++) await server.socket.send(Uint8Array.of(i & 255), to);
  const packets = drain();
  assert(packets < 5000, `${packets} waited`);
  // What was lost is known with the next datagram that is not.
  await server.socket.send(Uint8Array.of(1), to);
  await bench.receive();
  assertEquals(packets + bench.metrics.dropped("exit_full"), 5000);
});

Deno.test("userspace, native: its descriptor is readable exactly while there is something to receive", {
  ...nativeTests,
}, async () => {
  await using server = new Server(echo);
  await using bench = new Bench({ native });
  const entry = new Uint8Array(8);
  const isReadable = () => {
    const view = new DataView(entry.buffer);
    view.setInt32(0, bench.exit.descriptor!, true);
    view.setInt32(4, POLLIN, true);
    return libc().pollBlocking(entry, 1n, 0) > 0;
  };
  for (let round = 0; round < 3; round++) {
    assert(!isReadable());
    bench.send(udp(ALICE, 40001, LOOPBACK, server.port, "ask"));
    bench.send(udp(BOB, 40002, LOOPBACK, server.port, "ask"));
    await server.heard(2 * round + 2);
    await pause(SILENCE_MS);
    assert(isReadable());
    await bench.receive(2);
  }
  // A connection that nobody accepts: the answer is an RST, and what brings it is the descriptor too.
  const port = freePort();
  const syn = tcp(ALICE, LOOPBACK, 0x02);
  const view = new DataView(syn.buffer);
  view.setUint16(22, port);
  view.setUint16(36, 0);
  view.setUint16(36, transportChecksum(view, 0, 20, 20, PROTOCOL_TCP));
  assertEquals(bench.send(syn).next, DONE);
  assert(isReadable());
  assertEquals((await bench.receive()).length, 1);
  assert(!isReadable());
});

/** Runs the child with that many open files allowed. */
async function underLimit(files: number, words: string[]) {
  const child = new URL("userspace_limit_child.ts", import.meta.url).pathname;
  const library = new URL("../../ffi/prebuilt/", import.meta.url).pathname;
  const { success, stdout, stderr } = await new Deno.Command("prlimit", {
    args: [
      `--nofile=${files}:${files}`,
      Deno.execPath(),
      "run",
      "--no-prompt",
      "--unstable-net",
      "--allow-net=127.0.0.1,0.0.0.0,[::]",
      `--allow-ffi=/lib/x86_64-linux-gnu/libc.so.6,${library}x86_64-unknown-linux-gnu/liboxrelay.so`,
      child,
      ...words,
    ],
  }).output();
  assert(success, new TextDecoder().decode(stderr));
  return JSON.parse(new TextDecoder().decode(stdout));
}

const limited = {
  ignore: requires({ programs: ["prlimit"] }).ignore || nativeTests.ignore,
};

Deno.test("userspace, native: the limit on open files bounds the flows, and leaves room for the rest", {
  ...limited,
}, async () => {
  // 3/8 of 256, a quarter of that for Alice, and Bob's.
  const { flowCount, refused, kept, warnings } = await underLimit(256, ["300"]);
  assertEquals([flowCount, refused, kept, warnings], [24 + 1, [], true, []]);
});

Deno.test(
  "userspace, native: where open files run out all the same, the greediest source's idlest flow gives way",
  {
    ...limited,
  },
  async () => {
    const { flowCount, refused, kept, warnings } = await underLimit(256, ["600", "4096"]);
    assert(flowCount > 200 && flowCount < 256, `${flowCount} flows`);
    assertEquals([refused, kept], [[], true]);
    assertEquals(warnings.length, 1, "one warning says so, however many flows ran into it");
    assert(warnings[0].includes("ulimit -n"));
  },
);

/** The packet with `options` behind its IPv4 header; a multiple of four bytes. */
function withOptions(packet: Uint8Array, options: number[]): Uint8Array {
  const out = new Uint8Array(packet.length + options.length);
  out.set(packet.subarray(0, 20));
  out.set(options, 20);
  out.set(packet.subarray(20), 20 + options.length);
  const view = new DataView(out.buffer);
  view.setUint8(0, 0x45 + options.length / 4);
  view.setUint16(2, out.length);
  view.setUint16(10, 0);
  view.setUint16(10, foldSum(sumWords(view, 0, 20 + options.length, 0)));
  return out;
}

/** The packet with extension headers behind its IPv6 header: types in order, then what each says behind its first byte. */
function withExtensions(packet: Uint8Array, headers: [type: number, rest: number[]][]): Uint8Array {
  const bytes = headers.flatMap(([, rest], i) => [headers[i + 1]?.[0] ?? packet[6], ...rest]);
  const out = new Uint8Array(packet.length + bytes.length);
  out.set(packet.subarray(0, 40));
  out[6] = headers[0][0];
  new DataView(out.buffer).setUint16(4, out.length - 40);
  out.set(bytes, 40);
  out.set(packet.subarray(40), 40 + bytes.length);
  return out;
}

const NOTHING = [0, 1, 4, 0, 0, 0, 0]; // an extension header of 8 bytes whose option is padding
const ROUTE_DONE = [0, 2, 0, 0, 0, 0, 0], ROUTE_LEFT = [0, 2, 1, 0, 0, 0, 0];
const ATOMIC = [0, 0, 0, 0, 0, 0, 9];

for (const [kind, native] of KINDS) {
  Deno.test(`userspace, ${kind}: UDP passes with IPv4 options, IPv6 extension headers, no checksum and as an atomic fragment`, async () => {
    await using server = new Server(echo);
    await using server6 = new Server(echo, "::1");
    await using bench = new Bench({ native });
    const plain = udp(ALICE, 40001, LOOPBACK, server.port, "plain");
    const plain6 = udp(ALICE_V6, 40001, "::1", server6.port, "plain");
    const noSum = plain.slice();
    noSum.set([0, 0], 26);
    const packets = [
      noSum,
      withOptions(plain, [1, 1, 1, 0]),
      withOptions(plain, [148, 4, 0, 0]), // router alert
      withExtensions(plain6, [[0, NOTHING]]),
      withExtensions(plain6, [[0, NOTHING], [60, NOTHING]]),
      withExtensions(plain6, [[43, ROUTE_DONE]]),
      withExtensions(plain6, [[44, ATOMIC]]),
    ];
    for (const packet of packets) {
      assertEquals(bench.send(packet).next, DONE);
      assertEquals(new TextDecoder().decode(parseUdp((await bench.receive())[0]).payload), "plain");
    }
  });
}

Deno.test(
  "userspace, native: a connection begins with a SYN that has options or extension headers in its way",
  {
    ...nativeTests,
  },
  async () => {
    for (const [from, to] of [[ALICE, LOOPBACK], [ALICE_V6, "::1"]]) {
      const listener = Deno.listen({ hostname: to, port: 0 });
      await using bench = new Bench({ native });
      const syn = tcp(from, to, 0x02);
      const view = new DataView(syn.buffer), at = to === "::1" ? 40 : 20;
      view.setUint16(at + 2, listener.addr.port);
      view.setUint16(at + 16, 0);
      view.setUint16(at + 16, transportChecksum(view, 0, at, 20, PROTOCOL_TCP));
      const packet = to === "::1"
        ? withExtensions(syn, [[0, NOTHING], [60, NOTHING]])
        : withOptions(syn, [1, 1, 1, 0]);
      assertEquals(bench.send(packet).next, DONE);
      const [answer] = await bench.receive();
      const place = transportAt(new DataView(answer.buffer), 0, answer.length);
      assertEquals(answer[place + 13], 0x12, "SYN and ACK");
      listener.close();
    }
  },
);

for (
  const [what, packet, type, code] of [
    ["UDP-Lite", packetOf(ALICE, "192.0.2.1", 136, new Uint8Array(12), 6), 3, 2],
    ["SCTP over IPv6", packetOf(ALICE_V6, "2001:db8::1", 132, new Uint8Array(12), 8), 4, 1],
    ["a number that is nobody's", packetOf(ALICE, "192.0.2.1", 253, new Uint8Array(12), 8), 3, 2],
    [
      "an IPv6 route that is still to be followed",
      withExtensions(udp(ALICE_V6, 1, "2001:db8::1", 9, "x"), [[43, ROUTE_LEFT]]),
      1,
      1,
    ],
  ] as const
) {
  Deno.test(`userspace: ${what} is refused by ICMP and counted once`, async () => {
    for (const [, native] of KINDS) {
      await using bench = new Bench({ native });
      const { answer } = bench.send(packet);
      assert(answer);
      const at = packet[0] >> 4 === 4 ? 20 : 40;
      assertEquals([answer[at], answer[at + 1]], [type, code]);
      assertEquals(bench.metrics.dropped("unsupported"), 1);
      // The place of the number that is not known here.
      if (type === 4) assertEquals(new DataView(answer.buffer).getUint32(at + 4), 6);
    }
  });
}

Deno.test("userspace: a packet whose hops end is answered by time exceeded, counted once, and goes nowhere", async () => {
  for (const [, native] of KINDS) {
    await using server = new Server(silent);
    await using bench = new Bench({ native });
    for (const [hops, isSpent] of [[0, true], [1, true], [2, false]] as const) {
      const packet = udp(ALICE, 40001, LOOPBACK, server.port, "x");
      packet[8] = hops;
      const { next, answer } = bench.send(packet);
      assertEquals(next === DONE, !isSpent);
      if (isSpent) assertEquals([answer![20], answer![21]], [11, 0]);
    }
    assertEquals(bench.metrics.dropped("hop_limit"), 2);
    await server.heard(1);
  }
});

Deno.test("userspace: fragments that do not all come are answered by time exceeded and counted", async () => {
  await using bench = new Bench();
  const pieces = fragment(udp(ALICE, 40001, LOOPBACK, 9, pattern(3000, 1)), MTU, 5);
  bench.send(pieces[0]);
  bench.send(pieces[1]);
  bench.exit.handleTimeout(16e6);
  const [error] = await bench.receive();
  assertEquals([error[9], error[20], error[21]], [1, 11, 1]);
  assertEquals(bench.metrics.dropped("unassembled"), 1);
});

Deno.test(
  "userspace, native: a closed port outside is told to the client, and the next datagram still leaves",
  {
    ...nativeTests,
  },
  async () => {
    for (const [source, host] of [[ALICE, LOOPBACK], [ALICE_V6, "::1"]]) {
      await using server = new Server(echo, host);
      await using bench = new Bench({ native });
      const closed = new Server(silent, host);
      const { port } = closed;
      await closed[Symbol.asyncDispose]();
      const packet = udp(source, 40001, host, port, "is anybody there");
      assertEquals(bench.send(packet).next, DONE);
      // What the system was told must not cost another's datagram.
      assertEquals(bench.send(udp(source, 40001, host, server.port, "you")).next, DONE);
      const answers = await bench.receive(2);
      const at = host === LOOPBACK ? 20 : 40;
      const error = answers.find((one) => one[at === 20 ? 9 : 6] !== PROTOCOL_UDP)!;
      assertEquals([error[at], error[at + 1]], at === 20 ? [3, 3] : [1, 4]);
      assertEquals(
        error.slice(at + 8 + at, at + 8 + at + 4),
        packet.slice(at, at + 4),
        "the client's own ports",
      );
      assertEquals(error.slice(at + 8 + at + 8), packet.slice(at + 8), "and what it sent");
      const answer = answers.find((one) => one !== error)!;
      assertEquals(new TextDecoder().decode(parseUdp(answer).payload), "you");
    }
  },
);
