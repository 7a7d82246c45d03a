/**
 * Outer UDP over recvmmsg and sendmmsg with the kernel's segmentation offloads (ffi/src/mmsg.rs): one native call
 * moves a burst. Invariant: every row that it fills owns its slot, and after `transmit` it holds no reference.
 * Linux only, with the native library.
 */
import { burstHandle, checked, type Native } from "../../ffi/native.ts";
import { Readable } from "../../ffi/readable.ts";
import { type Burst, BURST_CAPACITY, DONE, TO_PARSE } from "../vector/burst.ts";
import type { Port } from "./port.ts";

const EADDRINUSE = 98;

export interface MmsgPortOptions {
  native: Native;
  /** Host name or address without brackets. */
  host: string;
  port: number;
  /** A socket that is bound there already and stays the caller's; without it the port binds one of its own. */
  socket?: number;
  /** Whether to use UDP_GRO and UDP_SEGMENT where the kernel has them. */
  offload?: boolean;
  /** Counts datagrams that were refused: too long for a slot, or not taken by the kernel. */
  onRefused: (datagrams: number) => void;
}

export class MmsgPort implements Port {
  readonly description: string;
  readonly localPort: number;
  readonly descriptor: number;
  readonly #native: Native;
  readonly #handle: number;
  readonly #onRefused: (datagrams: number) => void;
  #readable: Readable | undefined;
  #closed = false;

  /** Binds at once. Throws Deno.errors.AddrInUse when the port is taken, and an Error with the errno otherwise. */
  constructor({ native, host, port, socket, offload = true, onRefused }: MmsgPortOptions) {
    const name = new TextEncoder().encode(host);
    const handle = socket === undefined
      ? native.ox_udp_open(name, name.length, port, offload ? 1 : 0)
      : native.ox_udp_adopt(socket, offload ? 1 : 0);
    if (handle === -EADDRINUSE) throw new Deno.errors.AddrInUse(`UDP ${host}:${port}`);
    this.#handle = checked(handle, "ox_udp_open");
    this.#native = native;
    this.#onRefused = onRefused;
    const about = new Uint32Array(4);
    checked(native.ox_udp_describe(this.#handle, about), "ox_udp_describe");
    [this.descriptor, this.localPort] = about;
    const shown = host.includes(":") ? `[${host}]` : host;
    const offloads = about[3] === 1 ? " with GSO and GRO" : "";
    this.description = `${shown}:${this.localPort}/udp (mmsg${offloads}, ${
      about[2] >> 10
    } KB receive buffer)`;
  }

  receive(burst: Burst): number {
    if (this.#closed) return 0;
    const from = burst.count;
    while (burst.count < BURST_CAPACITY && burst.grow(0, TO_PARSE) >= 0);
    const handle = burstHandle(this.#native, burst);
    const filled = this.#native.ox_udp_receive(this.#handle, handle, from, burst.count);
    burst.shrink(from + Math.max(0, filled));
    this.#countRefused();
    this.#readable?.taken();
    return burst.count - from;
  }

  transmit(burst: Burst): void {
    if (this.#closed) return;
    this.#native.ox_udp_transmit(this.#handle, burstHandle(this.#native, burst), burst.count, DONE);
    this.#countRefused();
  }

  onReadable(wake: () => void): void {
    this.#readable ??= new Readable(this.descriptor, wake);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#readable?.close();
    this.#native.ox_udp_close(this.#handle);
  }

  #countRefused(): void {
    const refused = this.#native.ox_udp_refused(this.#handle);
    if (refused > 0) this.#onRefused(refused);
  }
}
