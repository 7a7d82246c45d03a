/**
 * Outer UDP through the native library (ffi/src/port), with the kernel's segmentation offloads: one native call moves a
 * burst. What the ports by recvmmsg and by io_uring have in common; a subclass says which of the two it is. Invariant:
 * every row that it fills owns its slot, and after `transmit` the port holds no reference. Linux only.
 */
import { burstHandle, checked, type Native } from "../../ffi/native.ts";
import { Readable } from "../../ffi/readable.ts";
import { type Burst, BURST_CAPACITY, DONE, FEW_ROWS, TO_PARSE } from "../vector/burst.ts";
import type { Port, PortWait } from "./port.ts";

/** Options of ox_udp_open, bits. */
export const OFFLOAD = 1, URING = 2, UNDEFERRED = 4;
const EADDRINUSE = 98;

export interface NativePortOptions {
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

export abstract class NativePort implements Port {
  readonly description: string;
  readonly localPort: number;
  /** Polls readable when `receive` would find something. */
  readonly descriptor: number;
  readonly wait: PortWait;
  readonly #native: Native;
  readonly #handle: number;
  readonly #onRefused: (datagrams: number) => void;
  #readable: Readable | undefined;
  #closed = false;

  /**
   * Binds at once. `way` is bits of ox_udp_open. Throws Deno.errors.AddrInUse when the port is taken, and an Error
   * with the errno otherwise.
   */
  constructor(
    name: string,
    way: number,
    { native, host, port, socket, offload = true, onRefused }: NativePortOptions,
  ) {
    const hostBytes = new TextEncoder().encode(host);
    const options = way | (offload ? OFFLOAD : 0);
    const handle = socket === undefined
      ? native.ox_udp_open(hostBytes, hostBytes.length, port, options)
      : native.ox_udp_adopt(socket, options);
    if (handle === -EADDRINUSE) throw new Deno.errors.AddrInUse(`UDP ${host}:${port}`);
    this.#handle = checked(handle, "ox_udp_open");
    this.#native = native;
    this.#onRefused = onRefused;
    const about = new Uint32Array(4);
    checked(native.ox_port_describe(this.#handle, about), "ox_port_describe");
    [this.descriptor, this.localPort] = about;
    this.wait = { by: "descriptor", descriptor: this.descriptor };
    const shown = host.includes(":") ? `[${host}]` : host;
    const offloads = about[3] === 1 ? " with GSO and GRO" : "";
    this.description = `${shown}:${this.localPort}/udp (${name}${offloads}, ${
      about[2] >> 10
    } KB receive buffer)`;
  }

  /** What the native library knows it by. */
  protected get handle(): number {
    return this.#handle;
  }

  receive(burst: Burst): number {
    if (this.#closed) return 0;
    let received = this.#fill(burst, FEW_ROWS);
    if (received === FEW_ROWS) received += this.#fill(burst, BURST_CAPACITY);
    this.#countRefused();
    this.#readable?.taken();
    return received;
  }

  transmit(burst: Burst): void {
    if (this.#closed) return;
    this.#native.ox_port_transmit(this.#handle, burstHandle(this.#native, burst), burst.count, DONE);
    this.#countRefused();
  }

  onReadable(wake: () => void): void {
    this.#readable ??= new Readable(this.descriptor, wake);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#readable?.close();
    this.#native.ox_port_close(this.#handle);
  }

  /** Adds `rows` rows at most; returns how many. */
  #fill(burst: Burst, rows: number): number {
    const from = burst.count;
    burst.growTo(from + rows, TO_PARSE);
    const handle = burstHandle(this.#native, burst);
    const filled = this.#native.ox_port_receive(this.#handle, handle, from, burst.count);
    burst.shrink(from + Math.max(0, filled));
    return burst.count - from;
  }

  #countRefused(): void {
    const refused = this.#native.ox_port_refused(this.#handle);
    if (refused > 0) this.#onRefused(refused);
  }
}
