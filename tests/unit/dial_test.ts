/**
 * A client's TCP in the native library and as WebAssembly, over one exit and one path that loses packets: what a program sends arrives
 * whole and once, ends are seen as they were made, and refusals are told alike. Invariant: both kinds pass the same cases.
 */
import { assertEquals, assertGreater, assertRejects } from "@std/assert";
import { nativeDial, WasmDial } from "../../src/exit/userspace/dial_kernel.ts";
import { DirectTunnel, native } from "./direct_tunnel.ts";
import { requires } from "../kit/requires.ts";
import { Random } from "../kit/random.ts";

const needs = requires({ programs: [] });
const BYTES = 600_000;

/** A server on loopback that sends back what it gets, closes when that ends, and resets who begins with "reset". */
function serve(hostname: string) {
  const listener = Deno.listen({ hostname, port: 0 });
  const serving = (async () => {
    for await (const one of listener) one.readable.pipeTo(one.writable).catch(() => {});
  })();
  return {
    port: (listener.addr as Deno.NetAddr).port,
    close: async () => {
      listener.close();
      await serving;
    },
  };
}

for (const kind of ["native", "wasm"] as const) {
  Deno.test({
    name: `dial, ${kind}: data comes back whole over a path that loses packets, and ends are seen`,
    ...needs,
    sanitizeOps: false,
    sanitizeResources: false,
    fn: async () => {
      if (typeof native === "string") throw new Error(native);
      const tunnel = new DirectTunnel(native, kind === "native" ? native : "a test does without");
      const random = new Random(7);
      let lost = 0;
      tunnel.onPacket = (packet) => {
        if (random.real() < 0.98) return packet;
        lost++;
        return undefined;
      };
      try {
        for (const hostname of ["127.0.0.1", "::1"]) {
          const server = serve(hostname);
          const call = await tunnel.dialler.connect(hostname, server.port);
          const sent = Uint8Array.from({ length: BYTES }, (_, i) => i * 31 >> 3);
          const writing = call.write(sent).then(() => call.finish());
          const got = new Uint8Array(BYTES + 1);
          let length = 0;
          for (;;) {
            const count = await call.read(got.subarray(length));
            if (count === null) break;
            length += count;
          }
          await writing;
          assertEquals(length, BYTES);
          assertEquals(got.subarray(0, length), sent);
          call.close();
          await server.close();
          await assertRejects(
            () => tunnel.dialler.connect(hostname, server.port),
            Error,
            "refuses connections",
          );
        }
        assertGreater(lost, 10, "or the path was too good to prove anything");
        await assertRejects(() => tunnel.dialler.connect("0.0.0.0", 1), Error, "no destination");
      } finally {
        await tunnel.close();
      }
    },
  });
}

Deno.test("dial: both kinds answer wrong calls with the same numbers", needs, () => {
  if (typeof native === "string") throw new Error(native);
  const own = Uint32Array.of(0, 0, 0xffff, 0x0a420002);
  const kernels = [nativeDial(native, 1280, own), new WasmDial(1280, own)];
  const numbers = kernels.map((tcp) => {
    const six = Uint32Array.of(0xfd000000, 0, 0, 1), nowhere = Uint32Array.of(0, 0, 0xffff, 0);
    const four = Uint32Array.of(0, 0, 0xffff, 0x7f000001);
    const call = tcp.call(four, 80);
    const numbers = [
      tcp.call(six, 80),
      tcp.call(nowhere, 80),
      tcp.call(four, 0),
      tcp.state(call),
      tcp.state(1),
      tcp.read(1, new Uint8Array(8)),
      tcp.write(call, new Uint8Array(8)),
      tcp.turn(),
    ];
    tcp.release(call);
    tcp.close();
    return numbers;
  });
  assertEquals(numbers[0], numbers[1]);
  assertEquals(numbers[0].slice(0, 3), [-101, -22, -22]);
});
