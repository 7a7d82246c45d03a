/**
 * A dialler's TCP behind one interface: the native library's (ffi/src/dial.rs), or the same sources as WebAssembly where there is no
 * native library. Invariant: both are given the same numbers and say the same; `tests/unit/dial_test.ts` compares them.
 */
import { burstHandle, type Native } from "../../../ffi/native.ts";
import { type DialModule, openDialModule } from "../../../ffi/wasm.ts";
import { type Burst, DONE, TO_EXIT, TO_TUNNEL } from "../../vector/burst.ts";
import { ipVersion, PROTOCOL_TCP, protocolOf } from "../../wire/inner.ts";

/** TCP that begins here. Calls are known by their ports; results below zero are -errno, Linux's. */
export interface DialKernel {
  readonly kind: "native" | "wasm";
  /** Begins a call to an address of four words. */
  call(address: Uint32Array, port: number): number;
  /** Bits: 1 open, 2 something to read, 4 room to write, 8 the far end has ended, 16 it is over. */
  state(call: number): number;
  read(call: number, into: Uint8Array<ArrayBuffer>): number;
  write(call: number, data: Uint8Array<ArrayBuffer>): number;
  /** Ends this end's direction. */
  finish(call: number): void;
  release(call: number): void;
  /** The call's path takes packets of `mtu` bytes at most. */
  shrink(call: number, mtu: number): void;
  /** Writes the calls that have news; returns how many. */
  news(into: Uint16Array<ArrayBuffer>): number;
  /** Takes the TCP packets among the TO_EXIT rows, which become DONE. */
  send(burst: Burst): void;
  /** Does what is due; returns how many packets wait. */
  turn(): number;
  /** Milliseconds until `turn` is due, 0 to 1000. */
  nextMs(): number;
  /** Fills the rows from `from` on, which own slots, with waiting packets as TO_TUNNEL rows. */
  receive(burst: Burst, from: number): void;
  close(): void;
}

/** The native library's; `addresses` are own inner addresses, four words each. Throws when it has no room. */
export function nativeDial(native: Native, mtu: number, addresses: Uint32Array<ArrayBuffer>): DialKernel {
  const handle = native.ox_dial_open(mtu, addresses, addresses.length >> 2);
  if (handle < 0) throw new Error(`ox_dial_open: errno ${-handle}`);
  return {
    kind: "native",
    call: (address, port) => native.ox_dial_call(handle, address as Uint32Array<ArrayBuffer>, port),
    state: (call) => native.ox_dial_state(handle, call),
    read: (call, into) => native.ox_dial_read(handle, call, into, into.length),
    write: (call, data) => native.ox_dial_write(handle, call, data, data.length),
    finish: (call) => void native.ox_dial_finish(handle, call),
    release: (call) => void native.ox_dial_release(handle, call),
    shrink: (call, mtu) => void native.ox_dial_shrink(handle, call, mtu),
    news: (into) => native.ox_dial_news(handle, into, into.length),
    send: (burst) => void native.ox_dial_send(handle, burstHandle(native, burst), burst.count, DONE),
    turn: () => native.ox_dial_turn(handle),
    nextMs: () => native.ox_dial_next_ms(handle),
    receive: (burst, from) =>
      void native.ox_dial_receive(handle, burstHandle(native, burst), from, burst.count),
    close: () => void native.ox_dial_close(handle),
  };
}

/** Of a slot in the module, as in ffi/wasm/src/layout.rs. */
const SLOT_BYTES = 2048, ROWS = 256;
/** What one call of read or write moves. */
const PIECE_BYTES = 65_536;
const NEWS_MAX = 256;

/** The module's; throws when it refuses. Long calls are moved in pieces. */
export class WasmDial implements DialKernel {
  readonly kind = "wasm";
  readonly #module: DialModule = openDialModule();
  readonly #handle: number;
  readonly #slots: number;
  readonly #lengths: number;
  readonly #steps: number;
  /** Memory for what a call reads or writes. */
  readonly #piece: number;
  #buffer: ArrayBuffer | undefined;
  #bytes = new Uint8Array(0);
  #view = new DataView(new ArrayBuffer(0));

  constructor(mtu: number, addresses: Uint32Array) {
    const { ox_place, ox_memory, ox_dial_open } = this.#module;
    [this.#slots, this.#lengths, this.#steps] = [ox_place(0), ox_place(1), ox_place(2)];
    this.#piece = ox_memory(PIECE_BYTES);
    this.#look();
    addresses.forEach((word, i) => this.#view.setUint32(this.#piece + 4 * i, word, true));
    this.#handle = ox_dial_open(mtu, this.#piece, addresses.length >> 2);
    if (this.#handle < 0) throw new Error(`ox_dial_open: errno ${-this.#handle}`);
  }

  call(address: Uint32Array, port: number): number {
    this.#look();
    for (let i = 0; i < 4; i++) this.#view.setUint32(this.#piece + 4 * i, address[i], true);
    return this.#module.ox_dial_call(this.#handle, this.#piece, port);
  }

  state(call: number): number {
    return this.#module.ox_dial_state(this.#handle, call);
  }

  read(call: number, into: Uint8Array): number {
    const room = Math.min(into.length, PIECE_BYTES);
    const count = this.#module.ox_dial_read(this.#handle, call, this.#piece, room);
    if (count > 0) {
      this.#look();
      into.set(this.#bytes.subarray(this.#piece, this.#piece + count));
    }
    return count;
  }

  write(call: number, data: Uint8Array): number {
    const piece = data.subarray(0, PIECE_BYTES);
    this.#look();
    this.#bytes.set(piece, this.#piece);
    return this.#module.ox_dial_write(this.#handle, call, this.#piece, piece.length);
  }

  finish(call: number): void {
    this.#module.ox_dial_finish(this.#handle, call);
  }

  release(call: number): void {
    this.#module.ox_dial_release(this.#handle, call);
  }

  shrink(call: number, mtu: number): void {
    this.#module.ox_dial_shrink(this.#handle, call, mtu);
  }

  news(into: Uint16Array): number {
    const count = this.#module.ox_dial_news(this.#handle, this.#piece, Math.min(into.length, NEWS_MAX));
    this.#look();
    for (let i = 0; i < count; i++) into[i] = this.#view.getUint16(this.#piece + 2 * i, true);
    return count;
  }

  send(burst: Burst): void {
    const { count, next, offset, length, bytes, view } = burst;
    this.#look();
    let last = 0;
    for (let row = 0; row < count; row++) {
      const at = offset[row], size = length[row];
      const isSent = next[row] === TO_EXIT && size <= SLOT_BYTES &&
        protocolOf(view, at, size) === PROTOCOL_TCP && ipVersion(view, at) !== 0;
      this.#bytes[this.#steps + row] = isSent ? TO_EXIT : DONE;
      if (!isSent) continue;
      this.#bytes.set(bytes.subarray(at, at + size), this.#slots + SLOT_BYTES * row);
      this.#view.setUint32(this.#lengths + 4 * row, size, true);
      last = row + 1;
    }
    if (last === 0) return;
    this.#module.ox_dial_send(this.#handle, 0, last, DONE);
    this.#look();
    for (let row = 0; row < last; row++) {
      const isTcp = next[row] === TO_EXIT && protocolOf(view, offset[row], length[row]) === PROTOCOL_TCP;
      if (isTcp && this.#bytes[this.#steps + row] === DONE) next[row] = DONE;
    }
  }

  turn(): number {
    return this.#module.ox_dial_turn(this.#handle);
  }

  nextMs(): number {
    return this.#module.ox_dial_next_ms(this.#handle);
  }

  receive(burst: Burst, from: number): void {
    const { next, offset, length, bytes } = burst;
    const rows = Math.min(ROWS, burst.count - from);
    const filled = this.#module.ox_dial_receive(this.#handle, 0, 0, rows);
    this.#look();
    for (let row = 0; row < filled; row++) {
      const size = this.#view.getUint32(this.#lengths + 4 * row, true);
      const at = this.#slots + SLOT_BYTES * row;
      bytes.set(this.#bytes.subarray(at, at + size), offset[from + row]);
      length[from + row] = size;
      next[from + row] = TO_TUNNEL;
    }
  }

  close(): void {
    this.#module.ox_dial_close(this.#handle);
  }

  /** The module's memory, which is another object after it has grown. */
  #look(): void {
    const buffer = this.#module.memory.buffer as ArrayBuffer;
    if (buffer === this.#buffer) return;
    this.#buffer = buffer;
    this.#bytes = new Uint8Array(buffer);
    this.#view = new DataView(buffer);
  }
}
