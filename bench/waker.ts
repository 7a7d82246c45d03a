/**
 * The Worker of wait_bench.ts that sends datagrams to a port again and again, far enough apart that a waiting thread has gone
 * to sleep each time. Invariant: the Worker ends, and says so, when told to. Measures nothing.
 */
/// <reference lib="deno.worker" />
import { loadNative } from "../ffi/native.ts";
import { MmsgPort } from "../src/io/mmsg.ts";
import { Arena } from "../src/vector/arena.ts";
import { Burst, TO_TRANSMIT } from "../src/vector/burst.ts";
import { parseAddress } from "../src/wire/address.ts";

/** Longer than the driver spins for. */
const PACE_MS = 0.2;
const DATAGRAM_BYTES = 200;

/** To which port of loopback, and a word that is not 0 once this is to end. */
export interface Waking {
  to: number;
  ended: Int32Array;
}

/** Sends bursts of datagrams to a port of loopback. */
export class Sender {
  readonly #port: MmsgPort;
  readonly #burst = new Burst(new Arena(64));

  constructor() {
    const native = loadNative();
    if (typeof native === "string") throw new Error(native);
    this.#port = new MmsgPort({ native, host: "127.0.0.1", port: 0, onRefused: () => {} });
  }

  send(to: number, count: number): void {
    for (let i = 0; i < count; i++) {
      const row = this.#burst.grow(DATAGRAM_BYTES, TO_TRANSMIT);
      this.#burst.address.set(parseAddress("127.0.0.1")!, 4 * row);
      this.#burst.port[row] = to;
    }
    this.#port.transmit(this.#burst);
    this.#burst.release();
  }

  close(): Promise<void> {
    return this.#port.close();
  }
}

async function wake({ data: { to, ended } }: MessageEvent<Waking>): Promise<void> {
  const sender = new Sender();
  while (Atomics.wait(ended, 0, 0, PACE_MS) === "timed-out") sender.send(to, 1);
  await sender.close();
  self.postMessage("ended");
}

if (typeof DedicatedWorkerGlobalScope !== "undefined") self.onmessage = wake;
