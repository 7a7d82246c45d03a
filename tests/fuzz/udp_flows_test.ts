/**
 * Hostile UDP into the userspace exit's native flows: lying lengths, fragments, extension headers, cut packets, any
 * address. Invariant under test: no crash, every row has an outcome or is left as it was, no more flows than allowed,
 * and a genuine datagram is still answered afterwards.
 */
import { assert, assertEquals, assertLessOrEqual } from "@std/assert";
import fc from "fast-check";
import { loadNative } from "../../ffi/native.ts";
import { UdpFlows } from "../../src/exit/userspace/udp_flows.ts";
import { DROP } from "../../src/metrics.ts";
import { Arena } from "../../src/vector/arena.ts";
import { Burst, DONE, TO_EXIT } from "../../src/vector/burst.ts";
import { innerLength, PROTOCOL_UDP, writeIpv4Header } from "../../src/wire/inner.ts";

const options = {
  numRuns: Number(Deno.env.get("FUZZ_RUNS") ?? 500),
  seed: Number(Deno.env.get("FUZZ_SEED") ?? 20260101),
};
const MAX_FLOWS = 40;
const LOOPBACK = 0x7f000001;
const OUTCOMES = new Set([TO_EXIT, DONE, DROP.malformed_inner, DROP.exit_full, DROP.exit_error]);

/** A packet to loopback, IPv4 or IPv6, of these header fields; then single bytes of it are overwritten. */
const packets = fc.record({
  v6: fc.boolean(),
  source: fc.integer({ min: 0, max: 15 }),
  port: fc.integer({ min: 0, max: 65535 }),
  total: fc.oneof(fc.constant(undefined), fc.integer({ min: 0, max: 65535 })),
  size: fc.oneof(fc.constant(undefined), fc.integer({ min: 0, max: 65535 })),
  cut: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 60 })),
  body: fc.uint8Array({ maxLength: 1300 }),
  edits: fc.array(fc.tuple(fc.integer({ min: 0, max: 60 }), fc.integer({ min: 0, max: 255 })), {
    maxLength: 3,
  }),
}).map(({ v6, source, port, total, size, cut, body, edits }) => {
  const header = v6 ? 40 : 20;
  const bytes = new Uint8Array(header + 8 + body.length);
  const view = new DataView(bytes.buffer);
  if (v6) {
    bytes[0] = 0x60;
    view.setUint16(4, total ?? 8 + body.length);
    bytes[6] = PROTOCOL_UDP;
    bytes[23] = source;
    bytes[39] = 1;
  } else {
    writeIpv4Header(view, 0, total ?? bytes.length, 0, 0, PROTOCOL_UDP, 0x0a420000 + source, LOOPBACK);
  }
  view.setUint16(header, port);
  view.setUint16(header + 2, 9);
  view.setUint16(header + 4, size ?? 8 + body.length);
  bytes.set(body, header + 8);
  for (const [at, value] of edits) if (at < bytes.length) bytes[at] = value;
  // Whatever it has become, it goes nowhere but to this host.
  if (bytes[0] >> 4 === 4) view.setUint32(16, LOOPBACK);
  else if (bytes[0] >> 4 === 6 && bytes.length >= 40) bytes.fill(0, 24, 39).fill(1, 39, 40);
  return bytes.subarray(0, Math.max(1, bytes.length - cut));
});

Deno.test("fuzz: hostile UDP packets crash nothing and take no more than their share", async () => {
  const native = loadNative();
  assert(typeof native !== "string", String(native));
  const server = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
  const flows = new UdpFlows({
    native,
    mtu: 1280,
    maxFlows: MAX_FLOWS,
    timeoutUs: 120e6,
    emit: () => {},
    onLost: () => {},
    log: () => {},
  });
  const burst = new Burst(new Arena(512));
  try {
    fc.assert(
      fc.property(fc.array(packets, { minLength: 1, maxLength: 40 }), (batch) => {
        for (const packet of batch) {
          burst.bytes.set(packet, burst.offset[burst.grow(packet.length, TO_EXIT)]);
          const view = new DataView(packet.buffer, packet.byteOffset, packet.length);
          const whole = innerLength(view, 0, packet.length);
          if (whole > 0) flows.send(packet.slice(0, whole), 0, 0);
        }
        flows.sendBurst(burst, 0);
        for (let row = 0; row < burst.count; row++) {
          assert(OUTCOMES.has(burst.next[row]), `${burst.next[row]}`);
        }
        assertLessOrEqual(flows.size, MAX_FLOWS);
        burst.release();
        flows.poll();
        flows.receive(burst, 256);
        burst.release();
      }),
      options,
    );
    const genuine = new Uint8Array(30);
    const view = new DataView(genuine.buffer);
    writeIpv4Header(view, 0, 30, 0, 0, PROTOCOL_UDP, 0x0a420001, LOOPBACK);
    view.setUint16(20, 40001);
    view.setUint16(22, (server.addr as Deno.NetAddr).port);
    view.setUint16(24, 10);
    assertEquals(flows.send(genuine, 0, 0), DONE);
    const [payload, from] = await server.receive();
    assertEquals(payload.length, 2);
    await server.send(payload, from);
    flows.poll();
    flows.receive(burst, 256);
    assertEquals(burst.count, 1);
    burst.release();
  } finally {
    flows.close();
    server.close();
  }
});
