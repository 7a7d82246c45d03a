/**
 * Oxrelay's own native library (ffi/src, built into ffi/prebuilt): its table of functions, and the handles under which
 * it knows bursts and arenas. Invariant: nothing is called before version, processor and memory layout agree with
 * this tree. Chooses nothing: who wants native code asks, and gets a reason where there is none.
 */
import { fileURLToPath } from "node:url";
import { HEADROOM, MAX_PACKET_BYTES, SLOT_BYTES, TAILROOM } from "../src/vector/arena.ts";
import type { Arena } from "../src/vector/arena.ts";
import {
  type Burst,
  BURST_CAPACITY,
  BURST_LAYOUT,
  OPENED,
  TO_EXIT,
  TO_OPEN,
  TO_OPEN_DATAGRAM,
  TO_PARSE,
  TO_SEAL,
  TO_SEAL_DATAGRAM,
  TO_TRANSMIT,
  TO_TUNNEL,
  TO_UNPROTECT,
} from "../src/vector/burst.ts";
import { openLibrary } from "./mod.ts";

/** The ABI that this table describes. */
const ABI = 2;

/** One line per exported function, as ffi/src declares it. i32 results below zero are -errno. */
const SYMBOLS = {
  ox_abi: { parameters: [], result: "u32" },
  ox_cpu: { parameters: [], result: "i32" },
  ox_layout: { parameters: ["buffer", "u32"], result: "i32" },
  ox_source_hash: { parameters: ["buffer"], result: "i32" },
  ox_arena_register: { parameters: ["buffer", "u32"], result: "i32" },
  ox_arena_release: { parameters: ["u32"], result: "i32" },
  ox_large_pages: { parameters: ["buffer", "u32"], result: "i32" },
  ox_burst_register: { parameters: ["buffer", "u32", "u32"], result: "i32" },
  ox_burst_release: { parameters: ["u32"], result: "i32" },
  ox_udp_open: { parameters: ["buffer", "u32", "u32", "u32"], result: "i32" },
  ox_udp_adopt: { parameters: ["i32", "u32"], result: "i32" },
  ox_udp_bind: { parameters: ["buffer", "u32", "u32", "u32", "buffer"], result: "i32" },
  ox_port_close: { parameters: ["u32"], result: "i32" },
  ox_port_describe: { parameters: ["u32", "buffer"], result: "i32" },
  ox_port_watch: { parameters: ["u32", "i32"], result: "i32" },
  ox_port_wait: { parameters: ["u32", "u32"], result: "i32" },
  ox_port_receive: { parameters: ["u32", "u32", "u32", "u32"], result: "i32" },
  ox_port_transmit: { parameters: ["u32", "u32", "u32", "u32"], result: "i32" },
  ox_port_refused: { parameters: ["u32"], result: "i32" },
  ox_steer_new: { parameters: [], result: "i32" },
  ox_steer_attach: { parameters: ["u32", "i32"], result: "i32" },
  ox_steer_set: { parameters: ["u32", "buffer", "u32", "u32"], result: "i32" },
  ox_steer_release: { parameters: ["u32"], result: "i32" },
  ox_tun_open: { parameters: ["i32"], result: "i32" },
  ox_tun_read_by: { parameters: ["u32", "u32"], result: "i32" },
  ox_tun_close: { parameters: ["u32"], result: "i32" },
  ox_tun_receive: { parameters: ["u32", "u32", "u32", "u32", "u32"], result: "i32" },
  ox_tun_send: { parameters: ["u32", "u32", "u32", "u32", "u32"], result: "i32" },
  ox_tcp_open: { parameters: ["u32", "u32"], result: "i32" },
  ox_tcp_close: { parameters: ["u32"], result: "i32" },
  ox_tcp_descriptor: { parameters: ["u32"], result: "i32" },
  ox_tcp_flows: { parameters: ["u32"], result: "i32" },
  ox_tcp_crowded: { parameters: ["u32"], result: "i32" },
  ox_tcp_kilobytes: { parameters: ["u32", "u32"], result: "i32" },
  ox_tcp_shift_clock: { parameters: ["u32"], result: "i32" },
  ox_tcp_send: { parameters: ["u32", "u32", "u32", "u32", "u32"], result: "i32" },
  ox_tcp_turn: { parameters: ["u32"], result: "i32" },
  ox_tcp_receive: { parameters: ["u32", "u32", "u32", "u32"], result: "i32" },
  ox_flow_limit: { parameters: [], result: "i32" },
  ox_tcp_forget: { parameters: ["u32", "buffer", "u32"], result: "i32" },
  ox_flows_forget: { parameters: ["u32", "buffer", "u32"], result: "i32" },
  ox_flows_open: { parameters: ["buffer"], result: "i32" },
  ox_flows_close: { parameters: ["u32"], result: "i32" },
  ox_flows_descriptor: { parameters: ["u32"], result: "i32" },
  ox_flows_watch: { parameters: ["u32", "i32"], result: "i32" },
  ox_flows_count: { parameters: ["u32"], result: "i32" },
  ox_flows_expire: { parameters: ["u32", "u32"], result: "i32" },
  ox_flows_send: { parameters: ["u32", "u32", "u32", "u32"], result: "i32" },
  ox_flows_send_one: { parameters: ["u32", "buffer", "u32", "u32", "u32", "u32"], result: "i32" },
  ox_flows_poll: { parameters: ["u32"], result: "i32" },
  ox_flows_receive: { parameters: ["u32", "u32", "u32", "u32"], result: "i32" },
  ox_flows_large: { parameters: ["u32", "buffer", "u32"], result: "i32" },
  ox_flows_lost: { parameters: ["u32"], result: "i32" },
  ox_flows_pin: { parameters: ["u32", "buffer", "u32", "u32"], result: "i32" },
  ox_flows_unpin: { parameters: ["u32", "buffer", "u32"], result: "i32" },
  ox_tcp_listen: { parameters: ["u32", "buffer", "u32", "u32"], result: "i32" },
  ox_tcp_unlisten: { parameters: ["u32", "u32", "u32"], result: "i32" },
  ox_dial_open: { parameters: ["u32", "buffer", "u32"], result: "i32" },
  ox_dial_close: { parameters: ["u32"], result: "i32" },
  ox_dial_call: { parameters: ["u32", "buffer", "u32"], result: "i32" },
  ox_dial_state: { parameters: ["u32", "u32"], result: "i32" },
  ox_dial_read: { parameters: ["u32", "u32", "buffer", "u32"], result: "i32" },
  ox_dial_write: { parameters: ["u32", "u32", "buffer", "u32"], result: "i32" },
  ox_dial_finish: { parameters: ["u32", "u32"], result: "i32" },
  ox_dial_release: { parameters: ["u32", "u32"], result: "i32" },
  ox_dial_shrink: { parameters: ["u32", "u32", "u32"], result: "i32" },
  ox_dial_news: { parameters: ["u32", "buffer", "u32"], result: "i32" },
  ox_dial_send: { parameters: ["u32", "u32", "u32", "u32"], result: "i32" },
  ox_dial_turn: { parameters: ["u32"], result: "i32" },
  ox_dial_next_ms: { parameters: ["u32"], result: "i32" },
  ox_dial_receive: { parameters: ["u32", "u32", "u32", "u32"], result: "i32" },
  ox_has_fast_aes: { parameters: [], result: "i32" },
  ox_aead_implementation: { parameters: ["u32", "u32"], result: "i32" },
  ox_keys_new: { parameters: ["u32", "u32", "u32"], result: "i32" },
  ox_keys_locked: { parameters: ["u32"], result: "i32" },
  ox_keys_release: { parameters: ["u32"], result: "i32" },
  ox_keys_install: { parameters: ["u32", "u32", "buffer", "buffer"], result: "i32" },
  ox_keys_erase: { parameters: ["u32", "u32"], result: "i32" },
  ox_seal: { parameters: ["u32", "u32", "u32", "u32"], result: "i32" },
  ox_open: { parameters: ["u32", "u32", "u32", "u32"], result: "i32" },
  ox_datagram_new: { parameters: ["u32", "u32"], result: "i32" },
  ox_datagram_locked: { parameters: ["u32"], result: "i32" },
  ox_datagram_release: { parameters: ["u32"], result: "i32" },
  ox_datagram_begin: { parameters: ["u32", "u32", "u32", "buffer", "buffer"], result: "i32" },
  ox_datagram_install: { parameters: ["u32", "u32", "u32", "buffer", "buffer"], result: "i32" },
  ox_datagram_retire: { parameters: ["u32", "u32", "u32"], result: "i32" },
  ox_datagram_erase: { parameters: ["u32", "u32"], result: "i32" },
  ox_datagram_masks: { parameters: ["u32", "u32", "u32", "buffer"], result: "i32" },
  ox_datagram_open: { parameters: ["u32", "u32", "u32", "u32"], result: "i32" },
  ox_datagram_seal: { parameters: ["u32", "u32", "u32", "u32"], result: "i32" },
  ox_aead_once: {
    parameters: ["u32", "u32", "u32", "buffer", "buffer", "buffer", "u32", "buffer", "u32"],
    result: "i32",
  },
  ox_blake2s: { parameters: ["buffer", "u32", "buffer"], result: "i32" },
  ox_blake2s_mac: { parameters: ["buffer", "u32", "buffer", "u32", "buffer"], result: "i32" },
  ox_derive_keys: { parameters: ["buffer", "buffer", "u32", "u32", "buffer"], result: "i32" },
  ox_x25519_public: { parameters: ["buffer", "buffer"], result: "i32" },
  ox_x25519_shared: { parameters: ["buffer", "buffer", "buffer"], result: "i32" },
  ox_gf256_implementation: { parameters: ["u32"], result: "i32" },
  ox_gf256_multiply: { parameters: ["buffer", "u32", "u32", "u32", "u32"], result: "i32" },
  ox_gf256_copy: { parameters: ["buffer", "u32", "u32", "buffer", "u32", "u32", "u32"], result: "i32" },
  ox_lz4_compress: { parameters: ["buffer", "u32", "buffer", "u32"], result: "i32" },
  ox_lz4_decompress: { parameters: ["buffer", "u32", "buffer", "u32"], result: "i32" },
  ox_lz4_pack: { parameters: ["u32", "u32", "u32", "u32", "u32", "u32"], result: "i32" },
  ox_lz4_unpack: { parameters: ["u32", "u32", "u32", "u32", "u32"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

/** The native library's functions. Handles are valid only on the thread (Worker) that got them. */
export type Native = Deno.DynamicLibrary<typeof SYMBOLS>["symbols"];

/** What ox_layout must write, in its order (LAYOUT in ffi/src/layout.rs). */
const LAYOUT = [
  BURST_CAPACITY,
  BURST_LAYOUT.counter,
  BURST_LAYOUT.slot,
  BURST_LAYOUT.offset,
  BURST_LAYOUT.length,
  BURST_LAYOUT.session,
  BURST_LAYOUT.peer,
  BURST_LAYOUT.address,
  BURST_LAYOUT.local,
  BURST_LAYOUT.port,
  BURST_LAYOUT.next,
  BURST_LAYOUT.ecn,
  BURST_LAYOUT.headerBytes,
  BURST_LAYOUT.phase,
  BURST_LAYOUT.bytes,
  SLOT_BYTES,
  HEADROOM,
  TAILROOM,
  MAX_PACKET_BYTES,
  TO_PARSE,
  TO_OPEN,
  OPENED,
  TO_EXIT,
  TO_TUNNEL,
  TO_SEAL,
  TO_TRANSMIT,
  TO_UNPROTECT,
  TO_OPEN_DATAGRAM,
  TO_SEAL_DATAGRAM,
];

/** Those that ffi/build.sh builds for. */
const TARGETS: readonly string[] = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"];

let loaded: Native | undefined;

/** The native library, or the reason why there is none here, as a sentence without a full stop. Never throws. */
export function loadNative(): Native | string {
  if (loaded) return loaded;
  const { target } = Deno.build;
  const path = fileURLToPath(new URL(`./prebuilt/${target}/liboxrelay.so`, import.meta.url));
  let native: Native;
  try {
    native = openLibrary(path, SYMBOLS);
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) return `--allow-ffi does not name ${path}`;
    if (!TARGETS.includes(target)) return `no native library is built for ${target}`;
    return `the native library cannot be loaded: ${(error as Error).message}`;
  }
  if (native.ox_abi() !== ABI) {
    return `the native library has ABI ${native.ox_abi()}, this program needs ${ABI}; run \`deno task build:native\``;
  }
  if (native.ox_cpu() !== 0) return "this processor lacks instructions of x86-64-v2 (SSE4.2, POPCNT)";
  const layout = new Uint32Array(LAYOUT.length);
  const agrees = native.ox_layout(layout, layout.length) === LAYOUT.length &&
    LAYOUT.every((value, i) => value === layout[i]);
  if (!agrees) return "the native library lays bursts out differently; run `deno task build:native`";
  return loaded = native;
}

/** A handle or count, or an Error that says which call the library refused. */
export function checked(result: number, call: string): number {
  if (result < 0) throw new Error(`${call} failed: errno ${-result}`);
  return result;
}

const forgotten = new FinalizationRegistry<() => void>((release) => release());

/** Calls `release`, which must not refer to `owner`, once `owner` is collected: its handle then goes too. */
export function releaseWithOwner(owner: object, release: () => void): void {
  forgotten.register(owner, release, owner);
}

/** Undoes `releaseWithOwner`, for an owner that has released its handle itself. */
export function keepFromReleasing(owner: object): void {
  forgotten.unregister(owner);
}

// The library holds pointers, not references: when an object is gone, so is its memory.
const handles = new WeakMap<Arena | Burst, number>();

/** The handle of an arena, which is registered when it is first asked for and released when it is collected. */
export function arenaHandle(native: Native, arena: Arena): number {
  let handle = handles.get(arena);
  if (handle === undefined) {
    const registered = checked(
      native.ox_arena_register(arena.bytes, arena.bytes.length),
      "ox_arena_register",
    );
    releaseWithOwner(arena, () => native.ox_arena_release(registered));
    handles.set(arena, handle = registered);
  }
  return handle;
}

/** The same for a burst. Costs a map look-up: callers on the hot path remember the last one. */
export function burstHandle(native: Native, burst: Burst): number {
  let handle = handles.get(burst);
  if (handle === undefined) {
    const arena = arenaHandle(native, burst.arena);
    const registered = checked(
      native.ox_burst_register(burst.block, BURST_LAYOUT.bytes, arena),
      "ox_burst_register",
    );
    releaseWithOwner(burst, () => native.ox_burst_release(registered));
    handles.set(burst, handle = registered);
  }
  return handle;
}
