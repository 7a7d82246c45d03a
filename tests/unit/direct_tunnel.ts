/**
 * A client's dialler and the relay's userspace exit back to back, with nothing between them but their packets: what a program
 * at the SOCKS door does reaches real sockets on loopback. For tests; it encrypts nothing and knows no policy.
 */
import { loadNative, type Native } from "../../ffi/native.ts";
import { Dialler } from "../../src/exit/userspace/dialler.ts";
import type { Exit } from "../../src/exit/exit.ts";
import { openUserspace } from "../../src/exit/userspace/mod.ts";
import { Metrics } from "../../src/metrics.ts";
import { Arena } from "../../src/vector/arena.ts";
import { Burst, TO_EXIT, TO_TUNNEL } from "../../src/vector/burst.ts";

const TURN_MS = 2;
const MTU = 1280;

export class DirectTunnel {
  readonly dialler: Dialler;
  readonly metrics = new Metrics();
  /** Inner packets on their way, for tests that look at or answer them: what it returns goes on in the packet's place. */
  onPacket: (packet: Uint8Array, isUp: boolean) => Uint8Array | undefined = (packet) => packet;
  readonly #exit: Exit;
  readonly #burst = new Burst(new Arena(1024));
  readonly #timer: ReturnType<typeof setInterval>;

  /** @param of what the dialler's TCP is of: the library, or WebAssembly for a reason. */
  constructor(native: Native, of: Native | string = native) {
    const addresses = ["10.66.0.2", "fd66::2"];
    this.dialler = new Dialler({ native: of, addresses, mtu: MTU });
    this.#exit = openUserspace({
      ipv4: { address: "10.66.0.1", prefix: 16 },
      ipv6: { address: "fd66::1", prefix: 64 },
      mtu: MTU,
      metrics: this.metrics,
      native,
      log: () => {},
    });
    this.dialler.onReadable(() => this.#turn());
    this.#timer = setInterval(() => this.#turn(), TURN_MS);
  }

  /** Gives a packet to one of the ends as if the other had sent it. */
  inject(packet: Uint8Array, isUp: boolean): void {
    const burst = new Burst(new Arena(2));
    burst.bytes.set(packet, burst.offset[burst.grow(packet.length, TO_EXIT)]);
    (isUp ? this.#exit : this.dialler).send(burst, performance.now() * 1000);
    burst.release();
  }

  #turn(): void {
    this.#carry(this.dialler, this.#exit, true);
    this.#carry(this.#exit, this.dialler, false);
  }

  #carry(from: Exit, to: Exit, isUp: boolean): void {
    const burst = this.#burst, nowUs = performance.now() * 1000;
    from.receive(burst, nowUs);
    this.#pass(burst, isUp);
    to.send(burst, nowUs);
    // What was turned around goes back.
    if (this.#pass(burst, !isUp)) from.send(burst, nowUs);
    burst.release();
  }

  /** Whether anything goes on. */
  #pass(burst: Burst, isUp: boolean): boolean {
    let passed = false;
    for (let row = 0; row < burst.count; row++) {
      if (burst.next[row] !== TO_TUNNEL) continue;
      const at = burst.offset[row];
      const packet = this.onPacket(burst.bytes.slice(at, at + burst.length[row]), isUp);
      burst.next[row] = packet === undefined ? 0 : TO_EXIT;
      if (packet === undefined) continue;
      burst.bytes.set(packet, at);
      burst.length[row] = packet.length;
      passed = true;
    }
    return passed;
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.dialler.close();
    await this.#exit.close();
    this.#burst.release();
  }
}

/** The library, or the reason why it cannot be had. */
export const native = loadNative();
