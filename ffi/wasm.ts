/**
 * The client's TCP as WebAssembly (ffi/wasm, built into ffi/prebuilt/wasm32): the module's functions over its own memory, for systems
 * without the native library. Invariant: each instance has its memory to itself. Needs no permission.
 */
// As text: it is a part of the program then, wherever that is installed, and no file that needs a permission.
import base64 from "./prebuilt/wasm32/oxdial.wasm.base64" with { type: "text" };

/** Numbers alone cross: addresses are places in `memory`. Results below zero are -errno, Linux's. */
export interface DialModule {
  memory: WebAssembly.Memory;
  /** Where the slots (0), lengths (1) and steps (2) of the one burst lie. */
  ox_place(what: number): number;
  ox_memory(bytes: number): number;
  ox_dial_open(mtu: number, addresses: number, count: number): number;
  ox_dial_close(handle: number): number;
  ox_dial_call(handle: number, address: number, port: number): number;
  ox_dial_state(handle: number, call: number): number;
  ox_dial_read(handle: number, call: number, to: number, length: number): number;
  ox_dial_write(handle: number, call: number, from: number, length: number): number;
  ox_dial_finish(handle: number, call: number): number;
  ox_dial_release(handle: number, call: number): number;
  ox_dial_shrink(handle: number, call: number, mtu: number): number;
  ox_dial_news(handle: number, to: number, room: number): number;
  ox_dial_send(handle: number, burst: number, count: number, done: number): number;
  ox_dial_turn(handle: number): number;
  ox_dial_next_ms(handle: number): number;
  ox_dial_receive(handle: number, burst: number, from: number, to: number): number;
}

let compiled: WebAssembly.Module | undefined;

/** A new instance of the module. */
export function openDialModule(): DialModule {
  compiled ??= new WebAssembly.Module(Uint8Array.fromBase64(base64));
  const random = new Uint32Array(1);
  const { exports } = new WebAssembly.Instance(compiled, {
    host: {
      now_us: () => performance.now() * 1000,
      random: () => crypto.getRandomValues(random)[0],
    },
  });
  return exports as unknown as DialModule;
}
