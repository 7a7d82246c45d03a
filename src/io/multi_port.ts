/**
 * A client's port with several doors: a socket for each interface. Door 0 is bound to none at first, so that the system
 * chooses its way, and has an interface like the others while one is opened for it. A row's door is the last word of its `local` column, in both directions; the other words are zeros.
 * Invariant: what one interface refuses concerns its door alone, and is told when it begins and when it ends; a row for a door
 * that is closed is counted as refused. Doors come and go at run time, and the descriptor that a thread waits for stays the
 * same. Chooses no interface and no path.
 */
import { libc, O_CLOEXEC } from "../../ffi/mod.ts";
import type { Native } from "../../ffi/native.ts";
import { Readable } from "../../ffi/readable.ts";
import { type Burst, BURST_CAPACITY, DONE, TO_TRANSMIT } from "../vector/burst.ts";
import { openBound } from "./bound_socket.ts";
import { MmsgPort } from "./mmsg.ts";
import type { NativePort } from "./native_udp.ts";
import type { Port, PortWait } from "./port.ts";

/** Door numbers are below this. */
export const DOORS_MAX = 8;
/** Where a row's `local` column has the door. */
export const DOOR_WORD = 3;
/** Rows that another door sends wait as this step, which no other code sees. */
const WAITS_FOR_DOOR = 31;
// linux/eventpoll.h; struct epoll_event is packed on x86-64 alone, and only its first word is used.
const EPOLL_CTL_ADD = 1, EPOLLIN = 1, EPOLL_EVENT_BYTES = 16;

export interface MultiPortOptions {
  native: Native;
  /** "::", or "0.0.0.0" on a system without IPv6. */
  host: string;
  /** Whether to use UDP_GRO and UDP_SEGMENT where the kernel has them. */
  offload?: boolean;
  /** Counts datagrams that were refused, by any door or by none. */
  onRefused: (datagrams: number) => void;
  /** The interface of this door refuses all that it is given, or takes it again. Called when that changes. */
  onFailing?: (door: number, isFailing: boolean) => void;
}

export class MultiPort implements Port {
  readonly description: string;
  readonly localPort: number;
  /** Polls readable when any door's socket does. */
  readonly descriptor: number;
  readonly wait: PortWait;
  readonly #o: MultiPortOptions;
  /** Bound to no interface; door 0 where that has none. */
  readonly #free: NativePort;
  /** By number, those that have an interface. */
  readonly #doors: (NativePort | undefined)[] = new Array(DOORS_MAX).fill(undefined);
  /** What each door has refused since its last transmission began. */
  readonly #refused = new Uint32Array(DOORS_MAX);
  readonly #isFailing = new Uint8Array(DOORS_MAX);
  /** The door that is asked first next time, so that a busy one cannot fill every burst. */
  #first = 0;
  #readable: Readable | undefined;
  #closed = false;

  /** Opens door 0, bound to no interface. Throws where a native port cannot be opened. */
  constructor(options: MultiPortOptions) {
    this.#o = options;
    const descriptor = libc().epoll_create1(O_CLOEXEC);
    if (descriptor < 0) throw new Error("no file descriptor is left for several paths; raise ulimit -n");
    this.descriptor = descriptor;
    this.wait = { by: "descriptor", descriptor };
    try {
      const { native, host, offload } = options;
      const port = new MmsgPort({ native, host, port: 0, offload, onRefused: this.#refusalsOf(0) });
      this.#watch(port);
      this.#free = port;
      this.description = port.description;
      this.localPort = port.localPort;
    } catch (error) {
      libc().close(descriptor);
      throw error;
    }
  }

  /**
   * Opens a door, 0 to DOORS_MAX - 1, through an interface, whose own addresses are for systems that bind to no device. A
   * door that was open under this number is closed. Returns what people may want to know of it. Throws a sentence.
   */
  open(door: number, device: string, addresses: readonly string[]): string {
    if (!(door >= 0 && door < DOORS_MAX)) throw new Error(`door ${door}: 0 to ${DOORS_MAX - 1} there are`);
    this.shut(door);
    const { descriptor, binding } = openBound(device, addresses);
    const { native, offload } = this.#o;
    try {
      // The port has a descriptor of its own.
      const onRefused = this.#refusalsOf(door);
      const port = new MmsgPort({ native, host: device, port: 0, socket: descriptor, offload, onRefused });
      this.#watch(port);
      this.#doors[door] = port;
      return `${port.description}, bound to the ${binding}`;
    } finally {
      libc().close(descriptor);
    }
  }

  /**
   * Closes a door, which may be closed already; the system chooses the way of door 0 then. What it had received and nobody has
   * taken is lost.
   */
  shut(door: number): void {
    const port = this.#doors[door];
    if (port === undefined) return;
    this.#doors[door] = undefined;
    this.#isFailing[door] = 0;
    // A closed socket leaves the epoll set by itself. Nobody waits for a door alone, so this ends at once.
    void port.close();
  }

  receive(burst: Burst): number {
    if (this.#closed) return 0;
    const from = burst.count, first = this.#first;
    this.#first = (first + 1) % DOORS_MAX;
    this.#free.receive(burst);
    burst.local.fill(0, 4 * from, 4 * burst.count);
    for (let i = 0; i < DOORS_MAX && burst.count < BURST_CAPACITY; i++) {
      const door = (first + i) % DOORS_MAX, port = this.#doors[door];
      if (port === undefined) continue;
      const before = burst.count;
      port.receive(burst);
      const { local, count } = burst;
      local.fill(0, 4 * before, 4 * count);
      for (let row = before; row < count; row++) local[4 * row + DOOR_WORD] = door;
    }
    this.#readable?.taken();
    return burst.count - from;
  }

  transmit(burst: Burst): void {
    if (this.#closed) return;
    const { next, local, count } = burst;
    let doors = 0;
    for (let row = 0; row < count; row++) {
      if (next[row] !== TO_TRANSMIT) continue;
      // A number that no door can have is nobody's.
      doors |= 1 << Math.min(local[4 * row + DOOR_WORD], DOORS_MAX);
    }
    if (doors === 1) return this.#send(0, burst);
    for (let row = 0; row < count; row++) {
      if (next[row] === TO_TRANSMIT) next[row] = WAITS_FOR_DOOR;
    }
    for (let door = 0; doors >> door !== 0; door++) {
      if ((doors >> door & 1) === 0) continue;
      for (let row = 0; row < count; row++) {
        if (next[row] !== WAITS_FOR_DOOR || Math.min(local[4 * row + DOOR_WORD], DOORS_MAX) !== door) {
          continue;
        }
        next[row] = TO_TRANSMIT;
        local[4 * row + DOOR_WORD] = 0; // the interface chooses the address
      }
      this.#send(door, burst);
    }
  }

  onReadable(wake: () => void): void {
    this.#readable ??= new Readable(this.descriptor, wake);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#readable?.close();
    for (const port of [this.#free, ...this.#doors]) await port?.close();
    libc().close(this.descriptor);
  }

  /** Sends the rows that are TO_TRANSMIT through one door. */
  #send(door: number, burst: Burst): void {
    const { next, count } = burst;
    const port = this.#doors[door] ?? (door === 0 ? this.#free : undefined);
    let rows = 0;
    for (let row = 0; row < count; row++) {
      if (next[row] !== TO_TRANSMIT) continue;
      rows++;
      if (port === undefined) next[row] = DONE;
    }
    if (port === undefined) return this.#o.onRefused(rows);
    this.#refused[door] = 0;
    port.transmit(burst);
    const isFailing = this.#refused[door] >= rows;
    if (isFailing === (this.#isFailing[door] === 1)) return;
    this.#isFailing[door] = isFailing ? 1 : 0;
    this.#o.onFailing?.(door, isFailing);
  }

  #refusalsOf(door: number): (datagrams: number) => void {
    return (datagrams) => {
      this.#refused[door] += datagrams;
      this.#o.onRefused(datagrams);
    };
  }

  #watch(port: NativePort): void {
    const event = new Uint8Array(EPOLL_EVENT_BYTES);
    new DataView(event.buffer).setUint32(0, EPOLLIN, true);
    if (libc().epoll_ctl(this.descriptor, EPOLL_CTL_ADD, port.descriptor, event) !== 0) {
      void port.close();
      throw new Error("a socket cannot be waited for together with others (epoll_ctl)");
    }
  }
}
