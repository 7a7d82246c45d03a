/**
 * ROHC against librohc: what that library made of its test suite's captures is restored octet for octet, for every
 * profile, with small and large context ids; its interoperability sets, of other makers, too; and its malformed packets
 * end as refusals. Deterministic; needs tar and xz.
 */
import { assert, assertEquals, assertGreaterOrEqual, assertLess } from "@std/assert";
import { Compressor } from "../../src/codec/rohc/compressor.ts";
import { Decompressor } from "../../src/codec/rohc/decompressor.ts";
import { RESULT } from "../../src/codec/rohc/results.ts";
import { requires } from "../kit/requires.ts";
import { ARCHIVE, filesBelow, payloadsOf, unpackSamples } from "../kit/rohc_samples.ts";

const NEEDS = requires({ programs: ["tar", "xz"], files: [ARCHIVE] });
const OUTPUT = new Uint8Array(70_000);

/** What is wrong with the packet that came out; undefined if nothing is. */
function faultOf(decompressor: Decompressor, packet: Uint8Array, source: Uint8Array): string | undefined {
  const result = decompressor.decompress(packet, OUTPUT);
  if (result !== RESULT.PACKET) return `result ${result}`;
  const restored = OUTPUT.subarray(0, decompressor.length);
  // Ethernet's padding behind a short packet is no part of it; captures may lack a packet's end.
  if (restored.length < Math.min(source.length, 20)) return `${restored.length} octets of ${source.length}`;
  const common = Math.min(restored.length, source.length);
  for (let i = 0; i < common; i++) if (restored[i] !== source[i]) return `octet ${i} differs`;
  return undefined;
}

Deno.test({
  name: "ROHC: what librohc compressed is restored, octet for octet",
  ...NEEDS,
  async fn() {
    using samples = await unpackSamples();
    const captures = filesBelow(`${samples.folder}/non_regression`).filter((path) =>
      /\/rohc_[^/]*_(small|large)cid\.pcap$/.test(path)
    );
    assertEquals(captures.length, 396);
    const faults: string[] = [];
    let packets = 0;
    for (const capture of captures) {
      const sources = payloadsOf(capture.replace(/[^/]*$/, "source.pcap"));
      const compressed = payloadsOf(capture);
      assertEquals(compressed.length, 2 * sources.length, capture);
      const largeCids = capture.endsWith("largecid.pcap");
      const channels = [new Decompressor({ largeCids }), new Decompressor({ largeCids })];
      for (const [i, packet] of compressed.entries()) {
        const fault = faultOf(channels[i & 1], packet, sources[i >> 1]);
        if (fault) faults.push(`${capture} packet ${i}: ${fault}`);
        packets++;
      }
    }
    assertEquals(faults, []);
    assertGreaterOrEqual(packets, 20_000);
  },
});

Deno.test({
  name: "ROHC: what compressors of other makers made is restored, octet for octet",
  ...NEEDS,
  async fn() {
    using samples = await unpackSamples();
    for (const set of ["Aeroflex-TM500-1", "Aeroflex-TM500-2", "Effnet-IPonly-rnd-ip-id-without-nbo"]) {
      const folder = `${samples.folder}/interop/inputs/${set}`;
      const sources = payloadsOf(`${folder}/ref_uncomp.pcap`);
      const decompressor = new Decompressor({ largeCids: false });
      const faults = payloadsOf(`${folder}/source_rohc.pcap`).map((packet, i) =>
        faultOf(decompressor, packet, sources[i])
      );
      assertEquals(faults.filter((fault) => fault !== undefined), [], set);
      assertEquals(faults.length, sources.length);
    }
  },
});

Deno.test({
  name: "ROHC: malformed packets are refused, and a context survives them",
  ...NEEDS,
  async fn() {
    using samples = await unpackSamples();
    const malformed = filesBelow(samples.folder).filter((path) =>
      !/interop|_(small|large)cid\.pcap$|source\.pcap$/.test(path) && path.endsWith(".pcap")
    );
    assertGreaterOrEqual(malformed.length, 80);
    const folder = `${samples.folder}/non_regression/rfc3095/inputs/ipv4/udp/rtp/voip`;
    const sources = payloadsOf(`${folder}/source.pcap`);
    for (const largeCids of [false, true]) {
      const good = payloadsOf(`${folder}/rohc_maxcontexts0_wlsb4_${largeCids ? "large" : "small"}cid.pcap`);
      const seen = new Set<number>();
      for (const path of malformed) {
        const decompressor = new Decompressor({ largeCids, maxCid: 15 });
        for (const packet of payloadsOf(path)) seen.add(decompressor.decompress(packet, OUTPUT));
      }
      assert([RESULT.MALFORMED, RESULT.NO_CONTEXT, RESULT.BAD_CRC].every((result) => seen.has(result)));
      // A flow's packets come back all the same when each is followed by a copy of it that was cut short.
      const decompressor = new Decompressor({ largeCids });
      for (let i = 0; i < 40; i++) {
        assertEquals(faultOf(decompressor, good[2 * i], sources[i]), undefined, `packet ${i}`);
        decompressor.decompress(good[2 * i].subarray(0, 2), OUTPUT);
      }
    }
  },
});

/** RTP by its version, its payload type and an even port; what is taken for RTP by mistake must come back all the same. */
const isRtp = (packet: Uint8Array, udpAt: number) =>
  packet[udpAt + 8] >> 6 === 2 && (packet[udpAt + 3] & 1) === 0;

Deno.test({
  name: "ROHC: what our compressor makes of librohc's sources comes back, in fewer octets",
  ...NEEDS,
  async fn() {
    using samples = await unpackSamples();
    const buffer = new Uint8Array(70_000);
    for (const largeCids of [false, true]) {
      let before = 0, after = 0;
      for (const path of filesBelow(samples.folder).filter((path) => path.endsWith("/source.pcap"))) {
        const compressor = new Compressor({ largeCids, isRtp });
        const decompressor = new Decompressor({ largeCids });
        for (const [i, packet] of payloadsOf(path).entries()) {
          const length = compressor.compress(packet, buffer);
          assertEquals(
            decompressor.decompress(buffer.subarray(0, length), OUTPUT),
            RESULT.PACKET,
            `${path} ${i}`,
          );
          assertEquals(OUTPUT.subarray(0, decompressor.length), packet, `${path} ${i}`);
          before += packet.length;
          after += length;
        }
      }
      assertLess(after, 0.92 * before);
    }
  },
});

/** Runs tshark over packets of ROHC in Ethernet frames, and gives the fields of each frame. */
async function dissect(packets: readonly Uint8Array[], fields: readonly string[]): Promise<string[][]> {
  const path = await Deno.makeTempFile({ suffix: ".pcap" });
  try {
    await Deno.writeFile(path, pcapOf(packets));
    const args = ["-r", path, "-T", "fields", ...fields.flatMap((field) => ["-e", field])];
    const { stdout, success } = await new Deno.Command("tshark", { args, stderr: "null" }).output();
    assert(success);
    return new TextDecoder().decode(stdout).trimEnd().split("\n").map((line) => line.split("\t"));
  } finally {
    await Deno.remove(path);
  }
}

/** A pcap file of Ethernet frames with ROHC's ethertype. */
function pcapOf(packets: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const heads = 24, head = 16 + 14;
  const file = new Uint8Array(heads + packets.reduce((sum, packet) => sum + head + packet.length, 0));
  const view = new DataView(file.buffer);
  view.setUint32(0, 0xa1b2c3d4);
  view.setUint32(4, 0x00020004);
  view.setUint32(16, 65_535);
  view.setUint32(20, 1);
  let at = heads;
  for (const packet of packets) {
    view.setUint32(at + 8, 14 + packet.length);
    view.setUint32(at + 12, 14 + packet.length);
    view.setUint16(at + 16 + 12, 0x22f1);
    file.set(packet, at + head);
    at += head + packet.length;
  }
  return file;
}

Deno.test({
  name: "ROHC: tshark reads our compressor's packets without a fault, and sees their types and numbers",
  ...requires({ programs: ["tar", "xz", "tshark"], files: [ARCHIVE] }),
  async fn() {
    using samples = await unpackSamples();
    const sources = payloadsOf(
      `${samples.folder}/non_regression/rfc3095/inputs/ipv4/udp/rtp/voip/source.pcap`,
    );
    const compressor = new Compressor({ largeCids: false, isRtp });
    const packets = sources.map((packet) => {
      const buffer = new Uint8Array(2048);
      return buffer.slice(0, compressor.compress(packet, buffer));
    });
    const rows = await dissect(packets, ["_ws.malformed", "_ws.col.Info", "rohc.profile", "rohc.rtp.sn"]);
    assertEquals(rows.length, sources.length);
    assertEquals(rows.filter(([malformed]) => malformed !== ""), []);
    // IR with the source's sequence number, then mostly UO-0.
    assertEquals(rows[0].slice(1), ["IR packet", "1", String((sources[0][30] << 8) | sources[0][31])]);
    const small = rows.filter(([_, info]) => info.startsWith("UO-0")).length;
    assertGreaterOrEqual(small, 0.6 * sources.length);
  },
});
