/**
 * Moves inner packets between a burst and a TUN device's descriptor: in bulk through the native library, or with one
 * system call each. Invariant: a row is written once and marked, and a packet that was read owns its slot. Opens no device.
 */
import { libc } from "../../../ffi/mod.ts";
import { burstHandle, checked, type Native } from "../../../ffi/native.ts";
import { DROP } from "../../metrics.ts";
import { type Arena, MAX_PACKET_BYTES, NONE, packetStart } from "../../vector/arena.ts";
import { type Burst, BURST_CAPACITY, DONE, FEW_ROWS, TO_EXIT, TO_TUNNEL } from "../../vector/burst.ts";

const MAX_PACKET = BigInt(MAX_PACKET_BYTES);

/** A way to move packets between a burst and the device. */
export interface Packets {
  /** Writes the TO_EXIT rows. */
  send(burst: Burst): void;
  /** Adds the device's packets, without waiting; returns the rows added. */
  receive(burst: Burst): number;
  /** The native handle of the device (ox_tun_open); absent where the library does not know it. */
  readonly device?: number;
  close(): void;
}

/** Super-packets, split and joined by the native library (ffi/src/tun). */
export class BulkPackets implements Packets {
  readonly #native: Native;
  readonly device: number;

  constructor(native: Native, fd: number) {
    this.#native = native;
    this.device = checked(native.ox_tun_open(fd), "ox_tun_open");
  }

  send(burst: Burst): void {
    const handle = burstHandle(this.#native, burst);
    this.#native.ox_tun_send(this.device, handle, burst.count, DONE, DROP.exit_error);
  }

  receive(burst: Burst): number {
    const received = this.#fill(burst, FEW_ROWS);
    return received < FEW_ROWS ? received : received + this.#fill(burst, BURST_CAPACITY);
  }

  close(): void {
    this.#native.ox_tun_close(this.device);
  }

  /** Adds up to `rows` rows; returns their number. */
  #fill(burst: Burst, rows: number): number {
    const from = burst.count;
    burst.growTo(from + rows, TO_TUNNEL);
    const handle = burstHandle(this.#native, burst);
    const filled = this.#native.ox_tun_receive(this.device, handle, from, burst.count, MAX_PACKET_BYTES);
    burst.shrink(from + Math.max(0, filled));
    return burst.count - from;
  }
}

/** One system call for each packet. */
export class SinglePackets implements Packets {
  readonly #fd: number;
  #arena: Arena | undefined;
  #views: Uint8Array<ArrayBuffer>[] = [];

  constructor(fd: number) {
    this.#fd = fd;
  }

  send(burst: Burst): void {
    const { count, next, slot, offset, length, bytes } = burst;
    const views = this.#slotViews(burst.arena);
    const { write } = libc();
    for (let row = 0; row < count; row++) {
      if (next[row] !== TO_EXIT) continue;
      const at = offset[row];
      const own = views[slot[row]];
      const packet = own.byteOffset === at ? own : bytes.subarray(at, at + length[row]);
      next[row] = Number(write(this.#fd, packet, BigInt(length[row]))) < 0 ? DROP.exit_error : DONE;
    }
  }

  receive(burst: Burst): number {
    const views = this.#slotViews(burst.arena);
    const { read } = libc();
    const before = burst.count;
    while (burst.count < BURST_CAPACITY) {
      const slot = burst.arena.take();
      if (slot === NONE) break;
      const length = Number(read(this.#fd, views[slot], MAX_PACKET));
      if (length <= 0) {
        burst.arena.release(slot);
        break;
      }
      burst.push(slot, length, TO_TUNNEL);
    }
    return burst.count - before;
  }

  close(): void {}

  /** One view per slot, made once. */
  #slotViews(arena: Arena): Uint8Array<ArrayBuffer>[] {
    if (this.#arena !== arena) {
      this.#arena = arena;
      this.#views = Array.from({ length: arena.slotCount }, (_, slot) => {
        const start = packetStart(slot);
        return arena.bytes.subarray(start, start + MAX_PACKET_BYTES);
      });
    }
    return this.#views;
  }
}
