/** CE in inner headers, against checksums computed anew. */
import { assertEquals } from "@std/assert";
import { markCe } from "../../src/wire/ecn.ts";
import { foldSum, sumWords } from "../../src/wire/inner.ts";

Deno.test("ecn: CE is set where the ends understand it, and the checksum follows", () => {
  for (let tos = 0; tos < 256; tos++) {
    const view = new DataView(new ArrayBuffer(20));
    view.setUint16(0, 0x4500 | tos);
    for (
      const [at, word] of [[2, 1400], [4, 0xbeef ^ tos << 3], [8, 0x4011], [12, 0x0a42], [14, 2], [
        16,
        0x0808,
      ]]
    ) {
      view.setUint16(at, word);
    }
    view.setUint16(10, foldSum(sumWords(view, 0, 20, 0)));
    const ecn = tos & 3;
    assertEquals(markCe(view, 0), ecn !== 0);
    assertEquals(view.getUint8(1), ecn === 0 ? tos : tos | 3);
    assertEquals(sumWords(view, 0, 20, 0) % 0xffff, 0, `the checksum of TOS ${tos}`);
  }
});

Deno.test("ecn: IPv6's field lies across two bytes", () => {
  for (let trafficClass = 0; trafficClass < 256; trafficClass++) {
    const view = new DataView(new ArrayBuffer(40));
    view.setUint32(0, 0x60000000 | trafficClass << 20 | 0xabcde);
    const ecn = trafficClass & 3;
    assertEquals(markCe(view, 0), ecn !== 0);
    assertEquals(
      view.getUint32(0) >>> 0,
      (0x60000000 | (ecn === 0 ? trafficClass : trafficClass | 3) << 20 | 0xabcde) >>> 0,
    );
  }
});
