/**
 * UDP without privilege, in the native library (ffi/src/flows): the twin of udp_nat.ts that moves bursts, and the
 * one descriptor on which all of the userspace exit can be waited for. Invariant: that of udp_nat.ts. Neither reassembles
 * nor makes fragments.
 */
import { burstHandle, checked, type Native } from "../../../ffi/native.ts";
import { DROP } from "../../metrics.ts";
import { type Burst, DONE, TO_HAIRPIN, TO_TUNNEL } from "../../vector/burst.ts";
import { mappedBytes, parseAddress, type Prefix } from "../../wire/address.ts";
import { transportAt } from "../../wire/inner.ts";
import type { PortForward } from "../forward.ts";

export interface UdpFlowsOptions {
  native: Native;
  /** Bytes of an inner packet, 576 to 1936. */
  mtu: number;
  /** Most flows at once, 1 to 65536; one peer may hold a quarter of them. */
  maxFlows: number;
  timeoutUs: number;
  /** Receives an answer that exceeds the MTU, or an ICMP error, as a whole inner packet; the bytes are a copy. */
  emit: (packet: Uint8Array) => void;
  /** Counts lost datagrams from outside: too long, or more than the socket's buffer held. */
  onLost: (datagrams: number) => void;
  log: (level: "debug" | "info" | "warning" | "error", message: string) => void;
}

/** The bits of a send's result with the number of rows without a socket; the bit above says that ICMP errors wait. */
const STARVED = 0xffff;
/** Bit of `poll`: a flow has datagrams. */
const FLOWS_READY = 1;
/** The longest answer with its headers (ANSWER_BYTES_MAX in flows/set.rs). */
const LARGE_BYTES_MAX = 65507 + 48;
const WARNING_US = 60e6;

export class UdpFlows {
  /** Polls readable when `receive` would find something, or a watched descriptor is readable. */
  readonly descriptor: number;
  readonly #o: UdpFlowsOptions;
  readonly #native: Native;
  readonly #handle: number;
  readonly #large = new Uint8Array(LARGE_BYTES_MAX);
  #warnedUs = -Infinity;
  #ready = 0;
  #closed = false;

  /** Throws when the system gives it no descriptor. */
  constructor(options: UdpFlowsOptions) {
    this.#o = options;
    this.#native = options.native;
    const { mtu, maxFlows, timeoutUs } = options;
    const words = [
      mtu,
      maxFlows,
      timeoutUs / 1000,
      DONE,
      DROP.malformed_inner,
      DROP.exit_full,
      DROP.exit_error,
      TO_HAIRPIN,
    ];
    this.#handle = checked(this.#native.ox_flows_open(Uint32Array.from(words)), "ox_flows_open");
    this.descriptor = checked(this.#native.ox_flows_descriptor(this.#handle), "ox_flows_descriptor");
  }

  /** Adds a descriptor that wakes this one's waiters. Returns its bit in the result of `poll`. */
  watch(descriptor: number): number {
    return checked(this.#native.ox_flows_watch(this.#handle, descriptor), "ox_flows_watch");
  }

  /** Live flows. */
  get size(): number {
    return Math.max(0, this.#native.ox_flows_count(this.#handle));
  }

  /**
   * Sends the TO_EXIT rows of UDP; fragments and packets with extension headers stay TO_EXIT. TO_HAIRPIN rows are sent only
   * to a port of a client's mapping here, and stay otherwise.
   */
  sendBurst(burst: Burst, nowUs: number): void {
    const handle = burstHandle(this.#native, burst);
    const said = this.#native.ox_flows_send(this.#handle, handle, burst.count, milliseconds(nowUs));
    if ((said & STARVED) > 0) this.#warn(nowUs);
    if (said > STARVED) this.#emitLarge();
  }

  /** Sends the payload of a whole inner UDP packet of a peer's row; returns DONE or a drop code. */
  send(packet: Uint8Array<ArrayBuffer>, peer: number, nowUs: number): number {
    const segment = transportAt(
      new DataView(packet.buffer, packet.byteOffset, packet.length),
      0,
      packet.length,
    );
    const outcome = checked(
      this.#native.ox_flows_send_one(this.#handle, packet, packet.length, segment, peer, milliseconds(nowUs)),
      "ox_flows_send_one",
    );
    if (outcome === DROP.exit_error) this.#emitLarge();
    return outcome;
  }

  /** Asks the system what is readable: the bits of flows and of watched descriptors. Call before `receive`. */
  poll(): number {
    return this.#ready = this.#native.ox_flows_poll(this.#handle);
  }

  /** Adds up to `rows` answers that the last `poll` found; those beyond the MTU go to `emit`. */
  receive(burst: Burst, rows: number): void {
    if ((this.#ready & FLOWS_READY) === 0) return;
    const from = burst.count;
    while (burst.count - from < rows && burst.grow(0, TO_TUNNEL) >= 0);
    const handle = burstHandle(this.#native, burst);
    const filled = this.#native.ox_flows_receive(this.#handle, handle, from, burst.count);
    burst.shrink(from + Math.max(0, filled));
    const lost = this.#native.ox_flows_lost(this.#handle);
    if (lost > 0) this.#o.onLost(lost);
    this.#emitLarge();
  }

  expire(nowUs: number): void {
    this.#native.ox_flows_expire(this.#handle, milliseconds(nowUs));
  }

  /** Ends the flows of every inner address in the prefix. */
  forget({ address, bits }: Prefix): void {
    this.#native.ox_flows_forget(this.#handle, mappedBytes(address), bits);
  }

  /** As udp_nat.ts has it. */
  pin({ address, port, outer }: PortForward): number {
    return -this.#native.ox_flows_pin(this.#handle, mappedBytes(parseAddress(address)!), port, outer);
  }

  unpin({ address, port }: PortForward): void {
    this.#native.ox_flows_unpin(this.#handle, mappedBytes(parseAddress(address)!), port);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#native.ox_flows_close(this.#handle);
  }

  #emitLarge(): void {
    for (let bytes = this.#takeLarge(); bytes > 0; bytes = this.#takeLarge()) {
      this.#o.emit(this.#large.slice(0, bytes));
    }
  }

  #takeLarge(): number {
    return this.#native.ox_flows_large(this.#handle, this.#large, this.#large.length);
  }

  #warn(nowUs: number): void {
    if (nowUs - this.#warnedUs < WARNING_US) return;
    this.#warnedUs = nowUs;
    this.#o.log(
      "warning",
      "no socket for a UDP flow; idle ones give way to new ones; raise the limit on open files (ulimit -n)",
    );
  }
}

/** Time as the library takes it: whole milliseconds, modulo 2^32. */
function milliseconds(us: number): number {
  return Math.floor(us / 1000) >>> 0;
}
