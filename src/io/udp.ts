/**
 * Port number one: outer UDP over `Deno.listenDatagram`, on any system Deno runs on. Invariant: every datagram
 * is received into, and sent from, its arena slot; a slot in flight belongs to the port. Portable means correct,
 * not fast: one promise and one view per packet. It cannot set buffer sizes, read ECN or choose a source address.
 */
import { type Arena, HEADROOM, MAX_PACKET_BYTES, NONE, packetStart, SLOT_BYTES } from "../vector/arena.ts";
import { type Burst, BURST_CAPACITY, DONE, HELD, TO_PARSE, TO_TRANSMIT } from "../vector/burst.ts";
import { formatAddress, parseAddress } from "../wire/address.ts";
import type { Port } from "./port.ts";

/** Datagrams received and not yet taken; the rest waits in the kernel. */
const QUEUE_MAX = BURST_CAPACITY;
/** Microtask turns after which a receive that has not settled means that the socket is empty. */
const EAGER_TURNS = 4;
/** Remembered text forms of addresses; forgotten together when full, so that spoofed sources cost bounded memory. */
const NAMES_MAX = 4096;

export interface UdpPortOptions {
  host: string;
  port: number;
  arena: Arena;
  /** Counts a datagram that was refused (`port_error`) or found no buffer (`arena_full`). */
  onDrop: (reason: "port_error" | "arena_full") => void;
}

export class UdpPort implements Port {
  readonly description: string;
  readonly localPort: number;
  readonly #socket: Deno.DatagramConn;
  readonly #arena: Arena;
  readonly #onDrop: UdpPortOptions["onDrop"];
  readonly #slot = new Uint32Array(QUEUE_MAX);
  readonly #length = new Uint32Array(QUEUE_MAX);
  readonly #address = new Uint32Array(4 * QUEUE_MAX);
  readonly #port = new Uint16Array(QUEUE_MAX);
  #queued = 0;
  readonly #wordsOf = new Map<string, Uint32Array>();
  readonly #targets = new Map<string, Deno.NetAddr>();
  #wake: () => void = () => {};
  #closed = false;
  readonly #dualStack: boolean;

  /** Binds at once. Throws Deno.errors.AddrInUse when the port is taken, and what else the system says. */
  constructor({ host, port, arena, onDrop }: UdpPortOptions) {
    this.#socket = Deno.listenDatagram({ transport: "udp", hostname: host, port });
    this.#arena = arena;
    this.#onDrop = onDrop;
    const bound = this.#socket.addr as Deno.NetAddr;
    this.localPort = bound.port;
    this.#dualStack = bound.hostname.includes(":");
    this.description = `${this.#dualStack ? `[${bound.hostname}]` : bound.hostname}:${bound.port}/udp`;
    this.#pump();
  }

  onReadable(wake: () => void): void {
    this.#wake = wake;
  }

  receive(burst: Burst): number {
    const room = Math.min(this.#queued, BURST_CAPACITY - burst.count);
    for (let i = 0; i < room; i++) {
      const row = burst.push(this.#slot[i], this.#length[i], TO_PARSE);
      for (let w = 0; w < 4; w++) burst.address[4 * row + w] = this.#address[4 * i + w];
      burst.port[row] = this.#port[i];
    }
    this.#queued -= room;
    this.#slot.copyWithin(0, room);
    this.#length.copyWithin(0, room);
    this.#address.copyWithin(0, 4 * room);
    this.#port.copyWithin(0, room);
    return room;
  }

  transmit(burst: Burst): void {
    const { count, next, offset, length, slot, address, port, bytes } = burst;
    for (let row = 0; row < count; row++) {
      if (next[row] !== TO_TRANSMIT) continue;
      if (this.#closed) {
        next[row] = DONE;
        continue;
      }
      next[row] = HELD;
      const held = slot[row];
      const datagram = bytes.subarray(offset[row], offset[row] + length[row]);
      this.#socket.send(datagram, this.#target(address, 4 * row, port[row])).then(
        () => this.#arena.release(held),
        () => {
          this.#arena.release(held);
          this.#onDrop("port_error");
        },
      );
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#socket.close();
  }

  /**
   * Receives for as long as data is there; wakes the driver when the queue is full or the socket is empty, never
   * waiting to fill a burst.
   */
  async #pump(): Promise<void> {
    const spare = new Uint8Array(MAX_PACKET_BYTES + 1);
    while (!this.#closed) {
      if (this.#queued === QUEUE_MAX) {
        this.#wake();
        // One turn of the event loop, so that a flood starves neither timers nor the exit.
        await new Promise((resolve) => setTimeout(resolve, 0));
        continue;
      }
      const slot = this.#arena.take();
      const target = slot === NONE
        ? spare
        : this.#arena.bytes.subarray(packetStart(slot), (slot + 1) * SLOT_BYTES - HEADROOM / 2);
      try {
        let settled = false;
        const pending = this.#socket.receive(target).finally(() => settled = true);
        for (let turn = 0; turn < EAGER_TURNS && !settled; turn++) await undefined;
        if (!settled && this.#queued > 0) this.#wake();
        const [datagram, source] = await pending;
        if (slot === NONE) this.#onDrop("arena_full");
        else this.#enqueue(slot, datagram.length, source as Deno.NetAddr);
      } catch (error) {
        if (slot !== NONE) this.#arena.release(slot);
        if (this.#closed) return;
        this.#onDrop("port_error");
        if (!(error instanceof Deno.errors.ConnectionRefused)) {
          await new Promise((resolve) => setTimeout(resolve, 10));
        }
      }
    }
  }

  #enqueue(slot: number, length: number, source: Deno.NetAddr): void {
    const words = this.#words(source.hostname);
    // Longer than any packet that this relay makes or takes: what the slot holds is a truncated piece.
    if (words === undefined || length > MAX_PACKET_BYTES) {
      this.#arena.release(slot);
      this.#onDrop("port_error");
      return;
    }
    const at = this.#queued++;
    this.#slot[at] = slot;
    this.#length[at] = length;
    this.#address.set(words, 4 * at);
    this.#port[at] = source.port;
  }

  #words(hostname: string): Uint32Array | undefined {
    let words = this.#wordsOf.get(hostname);
    if (words === undefined) {
      words = parseAddress(hostname);
      if (words === undefined) return undefined;
      if (this.#wordsOf.size >= NAMES_MAX) this.#wordsOf.clear();
      this.#wordsOf.set(hostname, words);
    }
    return words;
  }

  #target(words: Uint32Array, at: number, port: number): Deno.NetAddr {
    const key = `${words[at]},${words[at + 1]},${words[at + 2]},${words[at + 3]},${port}`;
    let target = this.#targets.get(key);
    if (target === undefined) {
      const text = formatAddress(words, at);
      const hostname = this.#dualStack && !text.includes(":") ? `::ffff:${text}` : text;
      target = { transport: "udp", hostname, port };
      if (this.#targets.size >= NAMES_MAX) this.#targets.clear();
      this.#targets.set(key, target);
    }
    return target;
  }
}
