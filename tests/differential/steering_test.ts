/**
 * The kernel's steering by itself: datagrams of every kind to a group of sockets arrive at the Worker that their receiver
 * index names, everything else by its source; and a port that a group holds is nobody else's.
 */
import { assert, assertEquals } from "@std/assert";
import { libc } from "../../ffi/mod.ts";
import { loadNative } from "../../ffi/native.ts";
import { MmsgPort } from "../../src/io/mmsg.ts";
import { Arena } from "../../src/vector/arena.ts";
import { Burst } from "../../src/vector/burst.ts";

const WORKERS = 3;
const EADDRINUSE = 98;
const native = loadNative();

Deno.test({
  name: "steering: a datagram arrives where its receiver index says, or where its source belongs",
  ignore: typeof native === "string",
  async fn() {
    if (typeof native === "string") return;
    for (
      const [host, target, source] of [["127.0.0.1", "127.0.0.1", "127.0.0.1"], [
        "::",
        "127.0.0.1",
        "127.0.0.1",
      ], [
        "::",
        "::1",
        "::1",
      ]]
    ) {
      const name = new TextEncoder().encode(host);
      const sockets = new Int32Array(WORKERS);
      assertEquals(native.ox_udp_bind(name, name.length, 0, WORKERS, sockets), 0);
      const ports = [...sockets].map((socket) =>
        new MmsgPort({ native, host, port: 0, socket, onRefused: () => {} })
      );
      const [{ localPort }] = ports;
      assert(ports.every((port) => port.localPort === localPort));
      for (const workers of [1, WORKERS]) {
        const more = new Int32Array(workers);
        assertEquals(native.ox_udp_bind(name, name.length, localPort, workers, more), -EADDRINUSE);
      }

      const burst = new Burst(new Arena(512));
      const sender = Deno.listenDatagram({ transport: "udp", hostname: source, port: 0 });
      /** The Workers that got something, after these first bytes of a datagram were sent. */
      const arrivals = async (start: number[]) => {
        const datagram = new Uint8Array(148);
        datagram.set(start);
        await sender.send(datagram, { transport: "udp", hostname: target, port: localPort });
        const found: number[] = [];
        for (let patience = 0; found.length === 0 && patience < 100; patience++) {
          await new Promise((resolve) => setTimeout(resolve, 1));
          ports.forEach((port, worker) => {
            for (let left = port.receive(burst); left > 0; left--) found.push(worker);
            burst.release();
          });
        }
        return found;
      };
      const index = [0xaa, 0xbb, 0xcc];
      const home = await arrivals([1, 0, 0, 0, ...index, 0x00]);
      assertEquals(home.length, 1);
      for (let worker = 0; worker < WORKERS; worker++) {
        const named = (worker << 4) | 7;
        assertEquals(await arrivals([4, 0, 0, 0, ...index, named]), [worker], "data");
        assertEquals(await arrivals([3, 0, 0, 0, ...index, named]), [worker], "cookie reply");
        assertEquals(await arrivals([2, 0, 0, 0, ...index, 0xff, ...index, named]), [worker], "response");
        assertEquals(await arrivals([1, 0, 0, 0, ...index, named]), home, "initiation");
        assertEquals(await arrivals([0x40 | worker, ...index, named]), [worker], "OxTunnel's data");
        assertEquals(await arrivals([0x7f, ...index, named]), [worker], "OxTunnel's data, protected");
        assertEquals(await arrivals([0xc3, 1, 0, 0, ...index, named]), [worker], "OxTunnel's cookie reply");
        assertEquals(
          await arrivals([0xc2, 1, 0, 0, ...index, 0xff, ...index, named]),
          [worker],
          "its response",
        );
        assertEquals(await arrivals([0xc1, 1, 0, 0, ...index, named]), home, "its initiation");
      }
      assertEquals((await arrivals([4, 0, 0, 0, ...index, WORKERS << 4])).length, 1, "an index of no Worker");
      assertEquals((await arrivals([9])).length, 1, "nothing known");
      sender.close();
      for (const port of ports) await port.close();
      sockets.forEach((socket) => libc().close(socket));
    }
  },
});
