/**
 * ROHC under hostile and random input: our compressor's packets through a path that loses or reorders them, and octets
 * that nobody compressed. What is restored must equal what was sent; nothing may throw or write outside its room. Copies
 * of a packet are not tried: the tunnel's replay window ends them. The same cases in every run, but for `deno task fuzz`.
 */
import { assert, assertEquals, assertGreater, assertLess } from "@std/assert";
import { Compressor } from "../../src/codec/rohc/compressor.ts";
import { Decompressor } from "../../src/codec/rohc/decompressor.ts";
import { ByteReader } from "../../src/codec/rohc/bytes.ts";
import { readFeedback, writeFeedback } from "../../src/codec/rohc/feedback.ts";
import { ipv4Checksum } from "../../src/codec/rohc/headers.ts";
import { RESULT } from "../../src/codec/rohc/results.ts";
import fc from "../kit/fast_check.ts";
import { Random } from "../kit/random.ts";

/** One flow's next packet, as a stack would make it, with fields that change at random times. */
class Flow {
  #id = 0;
  #sequence: number;
  #timestamp: number;
  #bytes = 1000;
  #got = 2000;
  #window = 501;
  #ttl = 64;
  #tos = 0;

  constructor(
    readonly port: number,
    readonly kind: "udp" | "rtp" | "esp" | "ip" | "tcp",
    readonly version: 4 | 6,
    readonly random: () => number,
    readonly idBehavior: "counts" | "swapped" | "constant" | "random",
  ) {
    this.#sequence = Math.floor(random() * 65536);
    this.#timestamp = Math.floor(random() * 2 ** 32);
    this.#id = Math.floor(random() * 65536);
  }

  next(): Uint8Array {
    const { random } = this;
    this.#sequence = (this.#sequence + (random() < 0.02 ? 3 : 1)) & 0xffff;
    this.#timestamp = (this.#timestamp + (random() < 0.03 ? 1440 : 160)) >>> 0;
    if (this.idBehavior === "random") this.#id = Math.floor(random() * 65536);
    else if (this.idBehavior !== "constant") this.#id = (this.#id + 1 + Math.floor(random() * 3)) & 0xffff;
    if (random() < 0.01) this.#ttl = 60 + Math.floor(random() * 5);
    if (random() < 0.01) this.#tos = Math.floor(random() * 4);
    const payload = Math.floor(random() * 40);
    const upper = this.#upper(payload);
    return this.version === 4 ? this.#ipv4(upper) : this.#ipv6(upper);
  }

  #upper(payload: number): Uint8Array {
    const { random } = this;
    const body = Uint8Array.from({ length: payload }, () => Math.floor(random() * 256));
    if (this.kind === "ip") return body;
    if (this.kind === "tcp") return this.#tcp(body);
    if (this.kind === "esp") {
      const esp = new Uint8Array(8 + payload);
      const view = new DataView(esp.buffer);
      view.setUint32(0, this.port);
      view.setUint32(4, 0xffff0000 + this.#sequence);
      esp.set(body, 8);
      return esp;
    }
    const rtpBytes = this.kind === "rtp" ? 12 : 0;
    const udp = new Uint8Array(8 + rtpBytes + payload);
    const view = new DataView(udp.buffer);
    view.setUint16(0, this.port);
    view.setUint16(2, 5004);
    view.setUint16(4, udp.length);
    view.setUint16(6, this.port & 1 ? 1 + Math.floor(random() * 65535) : 0);
    udp.set(body, 8 + rtpBytes);
    if (this.kind !== "rtp") return udp;
    view.setUint8(8, 0x80);
    view.setUint8(9, 96 | (random() < 0.05 ? 0x80 : 0));
    view.setUint16(10, this.#sequence);
    view.setUint32(12, this.#timestamp);
    view.setUint32(16, 0x1234_0000 + this.port);
    return udp;
  }

  /** A segment with time stamps, and at times SACK blocks, another window, FIN or an urgent pointer. */
  #tcp(body: Uint8Array): Uint8Array {
    const { random } = this;
    const blocks = random() < 0.1 ? 1 + Math.floor(random() * 3) : 0;
    const optionBytes = 12 + (blocks > 0 ? 4 + 8 * blocks : 0);
    const tcp = new Uint8Array(20 + optionBytes + body.length);
    const view = new DataView(tcp.buffer);
    this.#bytes = (this.#bytes + body.length) >>> 0;
    if (random() < 0.4) this.#got = (this.#got + 1448) >>> 0;
    if (random() < 0.05) this.#window = Math.floor(random() * 65536);
    view.setUint16(0, this.port);
    view.setUint16(2, 443);
    view.setUint32(4, this.#bytes);
    view.setUint32(8, this.#got);
    const flags = 0x10 | (random() < 0.2 ? 0x08 : 0) | (random() < 0.01 ? 0x01 : 0) |
      (random() < 0.01 ? 0x40 : 0);
    view.setUint16(12, ((5 + optionBytes / 4) << 12) | flags);
    view.setUint16(14, this.#window);
    view.setUint16(16, Math.floor(random() * 65536));
    view.setUint32(20, 0x0101080a);
    view.setUint32(24, this.#timestamp);
    view.setUint32(28, this.#timestamp >>> 3);
    if (blocks > 0) {
      view.setUint32(32, 0x01010502 + 8 * blocks);
      for (let i = 0; i < 2 * blocks; i++) view.setUint32(36 + 4 * i, this.#got + 1448 * (i + 1));
    }
    tcp.set(body, 20 + optionBytes);
    return tcp;
  }

  #ipv4(upper: Uint8Array): Uint8Array {
    const packet = new Uint8Array(20 + upper.length);
    const view = new DataView(packet.buffer);
    view.setUint16(0, 0x4500 | this.#tos);
    view.setUint16(2, packet.length);
    view.setUint16(4, this.idBehavior === "swapped" ? ((this.#id & 0xff) << 8) | (this.#id >> 8) : this.#id);
    view.setUint16(6, 0x4000);
    view.setUint8(8, this.#ttl);
    view.setUint8(9, this.#protocol());
    packet.set([10, 0, 0, 1, 10, 0, this.port >> 8, this.port & 0xff], 12);
    view.setUint16(10, ipv4Checksum(packet, 0));
    packet.set(upper, 20);
    return packet;
  }

  #ipv6(upper: Uint8Array): Uint8Array {
    const packet = new Uint8Array(40 + upper.length);
    const view = new DataView(packet.buffer);
    view.setUint32(0, 0x60000000 | (this.#tos << 20) | 0x12345);
    view.setUint16(4, upper.length);
    view.setUint8(6, this.#protocol());
    view.setUint8(7, this.#ttl);
    packet.fill(0x20, 8, 24);
    packet.fill(0x30, 24, 40);
    packet.set(upper, 40);
    return packet;
  }

  #protocol(): number {
    return { esp: 50, ip: 1, tcp: 6, udp: 17, rtp: 17 }[this.kind];
  }
}

const KINDS = ["tcp", "udp", "rtp", "esp", "ip"] as const;
const IDS = ["counts", "swapped", "constant", "random"] as const;
const isRtp = (packet: Uint8Array, udpAt: number) =>
  packet[udpAt + 8] >> 6 === 2 && (packet[udpAt + 9] & 0x7f) === 96;

function randomFrom(seed: number): () => number {
  const random = new Random(seed);
  return () => random.real();
}

function flowsOf(random: () => number): Flow[] {
  return KINDS.flatMap((kind, k) =>
    IDS.flatMap((
      id,
      i,
    ) => [new Flow(1000 + k * 16 + i, kind, 4, random, id), new Flow(2000 + k * 16 + i, kind, 6, random, id)])
  );
}

Deno.test("ROHC: what a lossy path delivers is what was sent, or nothing", () => {
  fc.assert(
    fc.property(fc.integer(), fc.boolean(), fc.boolean(), (seed, largeCids, acknowledges) => {
      const random = randomFrom(seed);
      const flows = flowsOf(random);
      const compressor = new Compressor({ largeCids, isRtp, window: 8 });
      const decompressor = new Decompressor({ largeCids });
      const buffer = new Uint8Array(2048), output = new Uint8Array(2048);
      let lostInARow = 0, sent = 0, restored = 0, delivered = 0;
      for (let i = 0; i < 3000; i++) {
        const packet = flows[Math.floor(random() ** 2 * flows.length * 0.4)].next();
        const length = compressor.compress(packet, buffer);
        assertGreater(length, 0);
        sent++;
        // No more in a row than the window knows, as the optimistic approach asks.
        if (random() < 0.2 && lostInARow < 3) {
          lostInARow++;
          continue;
        }
        lostInARow = 0;
        const compressed = buffer.slice(0, length);
        const { cid, sequence } = compressor;
        delivered++;
        if (decompressor.decompress(compressed, output) !== RESULT.PACKET) continue;
        assertEquals(output.subarray(0, decompressor.length), packet);
        restored++;
        if (acknowledges && random() < 0.1) compressor.acknowledge(cid, sequence);
      }
      assertEquals(sent, 3000);
      assertGreater(restored, 0.99 * delivered);
    }),
    { numRuns: 8 },
  );
});

Deno.test("ROHC: packets out of order never come back as others", () => {
  const random = randomFrom(7);
  const flow = new Flow(4001, "rtp", 4, random, "counts");
  const compressor = new Compressor({ largeCids: false, isRtp });
  const decompressor = new Decompressor({ largeCids: false });
  const output = new Uint8Array(2048);
  const queue: { compressed: Uint8Array; packet: Uint8Array }[] = [];
  let restored = 0;
  for (let i = 0; i < 5000; i++) {
    const packet = flow.next();
    const buffer = new Uint8Array(2048);
    queue.push({ compressed: buffer.subarray(0, compressor.compress(packet, buffer)), packet });
    if (queue.length < 3) continue;
    const [{ compressed, packet: original }] = queue.splice(random() < 0.1 ? 1 : 0, 1);
    if (decompressor.decompress(compressed, output) !== RESULT.PACKET) continue;
    // A checksum of 3 bits lets one wrong guess of eight pass; the header behind it must be of this flow all the same.
    assertEquals(output.subarray(12, 24), original.subarray(12, 24));
    restored++;
  }
  assertGreater(restored, 4000);
});

Deno.test("ROHC: a compressor that is told of a lost context sends it again", () => {
  const random = randomFrom(3);
  const flow = new Flow(5001, "udp", 4, random, "counts");
  const compressor = new Compressor({ largeCids: true });
  const buffer = new Uint8Array(2048), output = new Uint8Array(2048);
  const compress = () => buffer.slice(0, compressor.compress(flow.next(), buffer));
  for (let i = 0; i < 100; i++) compress();
  const fresh = new Decompressor({ largeCids: true });
  assertEquals(fresh.decompress(compress(), output), RESULT.NO_CONTEXT);
  const nack = writeFeedback({ cid: 0, kind: "static-nack", sequence: compressor.sequence }, 2, true);
  const forged = nack.slice();
  forged[forged.length - 1] ^= 1;
  assertEquals(compressor.takeFeedback(forged), false);
  assertEquals(fresh.decompress(compress(), output), RESULT.NO_CONTEXT);
  assert(compressor.takeFeedback(nack));
  assertEquals(fresh.decompress(compress(), output), RESULT.PACKET);
});

Deno.test("ROHC: feedback for a TCP context has RFC 6846's form, and says what other contexts' does", () => {
  const read = (bytes: Uint8Array, isTcp: boolean) =>
    readFeedback(new ByteReader().over(bytes, 0, bytes.length), false, () => isTcp);
  for (const isTcp of [false, true]) {
    for (const isRejected of [false, true]) {
      const wish = { cid: 3, kind: "static-nack", sequence: 0x2abc, isTcp, isRejected } as const;
      const bytes = writeFeedback(wish, 2, false);
      const bits = isTcp ? 14 : 12, sequence = isTcp ? 0x2abc : 0xabc;
      assertEquals(read(bytes, isTcp), { cid: 3, kind: "static-nack", sequence, bits, isRejected });
      // Add-CID, acknowledgment type and number, checksum; of the other profiles an option's head in front of the last.
      assertEquals(bytes.length, (isTcp ? 4 : 5) + (isRejected ? 1 : 0));
      for (let at = 1; at < bytes.length; at++) {
        const forged = bytes.slice();
        forged[at] ^= 0x10;
        const said = read(forged, isTcp);
        assert(said === undefined || said.kind === "ack", `octet ${at}`);
      }
    }
  }
});

Deno.test("ROHC: an acknowledged change is not repeated", () => {
  const random = randomFrom(5);
  const lengths = (acknowledges: boolean) => {
    const flow = new Flow(5001, "udp", 6, random, "counts");
    const compressor = new Compressor({ largeCids: false, repeats: 50 });
    let heads = 0;
    for (let i = 0; i < 50; i++) {
      const packet = flow.next();
      heads += compressor.compress(packet, new Uint8Array(2048)) - packet.length + 48;
      if (acknowledges) compressor.acknowledge(compressor.cid, compressor.sequence);
    }
    return heads;
  };
  assertLess(lengths(true), 0.2 * lengths(false));
});

Deno.test("ROHC: a header that its checksum does not confirm is refused, and harms nothing", () => {
  const flow = new Flow(6001, "udp", 4, randomFrom(13), "constant");
  const compressor = new Compressor({ largeCids: false });
  const decompressor = new Decompressor({ largeCids: false });
  const buffer = new Uint8Array(2048), output = new Uint8Array(2048);
  let refused = 0;
  for (let i = 0; i < 60; i++) {
    const packet = flow.next();
    const compressed = buffer.slice(0, compressor.compress(packet, buffer));
    // UO-0 has its checksum in the lowest bits of its only octet. After three failures of eight packets it is not believed.
    const forged = compressed.slice();
    forged[0] ^= 1;
    if (i % 6 === 5 && compressed[0] < 0x80 && decompressor.decompress(forged, output) === RESULT.BAD_CRC) {
      refused++;
    }
    assertEquals(decompressor.decompress(compressed, output), RESULT.PACKET);
    assertEquals(output.subarray(0, decompressor.length), packet);
  }
  assertGreater(refused, 5);
});

Deno.test("ROHC: any octets are refused or restored, within their room", () => {
  const random = randomFrom(11);
  const seeds = flowsOf(random).map((flow) => flow.next());
  fc.assert(
    fc.property(
      fc.array(fc.uint8Array({ maxLength: 90 }), { maxLength: 30 }),
      fc.boolean(),
      fc.integer({ min: 0, max: 120 }),
      (packets, largeCids, room) => {
        const compressor = new Compressor({ largeCids, isRtp });
        const decompressor = new Decompressor({ largeCids });
        const guard = new Uint8Array(256).fill(0xa5);
        const output = guard.subarray(64, 64 + room);
        for (const [i, octets] of packets.entries()) {
          const buffer = new Uint8Array(512);
          const length = compressor.compress(seeds[i], buffer);
          // Half of them begin as real packets do.
          if (i & 1) buffer.set(octets.subarray(0, 4), Math.min(3, length));
          const result = decompressor.decompress(i & 2 ? octets : buffer.subarray(0, length), output);
          assert(result >= RESULT.PACKET && result <= RESULT.NO_ROOM);
          if (result === RESULT.PACKET) assert(decompressor.length <= room);
        }
        assert(guard.subarray(0, 64).every((octet) => octet === 0xa5));
        assert(guard.subarray(64 + room).every((octet) => octet === 0xa5));
      },
    ),
    { numRuns: 400 },
  );
});
