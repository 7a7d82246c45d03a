/**
 * TCP without privilege: inner connections end in the native library (ffi/src/tcp.rs) and go on over ordinary
 * sockets. Invariant: the library bounds flows and their memory, and keeps packets for clients until a burst has
 * room. Carries no other protocol and answers no packet without a connection.
 */
import { burstHandle, checked, type Native } from "../../../ffi/native.ts";
import { DROP } from "../../metrics.ts";
import { type Burst, BURST_CAPACITY, DONE, TO_TUNNEL } from "../../vector/burst.ts";
import { mappedBytes, parseAddress, type Prefix } from "../../wire/address.ts";
import { isV6, type PortForward } from "../forward.ts";

/** The least time between log lines about missing room. */
const WARNING_US = 60e6;
const LOOK_US = 1e6;

export interface TcpSpliceOptions {
  native: Native;
  /** Bytes of an inner packet, 576 to 1952. */
  mtu: number;
  /** Most connections at once, 1 to 65536; one peer may hold a quarter of them. */
  maxFlows: number;
  /** Called at most once a minute when connections were ended or refused for lack of room. */
  onCrowded: (connections: number) => void;
}

export class TcpSplice {
  readonly #native: Native;
  /** The library's handle. */
  readonly handle: number;
  /** Polls readable when `receive` may find something. */
  readonly descriptor: number;
  readonly #onCrowded: (connections: number) => void;
  #lookedUs = -Infinity;
  #warnedUs = -Infinity;
  #crowded = 0;
  #closed = false;

  /** Throws when the system gives it no descriptor. */
  constructor({ native, mtu, maxFlows, onCrowded }: TcpSpliceOptions) {
    this.#native = native;
    this.#onCrowded = onCrowded;
    this.handle = checked(native.ox_tcp_open(mtu, maxFlows), "ox_tcp_open");
    this.descriptor = checked(native.ox_tcp_descriptor(this.handle), "ox_tcp_descriptor");
  }

  /** Live connections. */
  get size(): number {
    return Math.max(0, this.#native.ox_tcp_flows(this.handle));
  }

  /** Takes the TO_EXIT rows of TCP that belong to a connection or begin one; the others stay TO_EXIT. */
  send(burst: Burst): void {
    const handle = burstHandle(this.#native, burst);
    this.#native.ox_tcp_send(this.handle, handle, burst.count, DONE, DROP.exit_full);
  }

  /** Adds packets for clients as TO_TUNNEL rows until burst or arena is full or none is left. Returns the rows added. */
  receive(burst: Burst): number {
    const waiting = this.#native.ox_tcp_turn(this.handle);
    const from = burst.count;
    while (burst.count - from < waiting && burst.count < BURST_CAPACITY && burst.grow(0, TO_TUNNEL) >= 0);
    if (burst.count > from) {
      const handle = burstHandle(this.#native, burst);
      this.#native.ox_tcp_receive(this.handle, handle, from, burst.count);
    }
    return burst.count - from;
  }

  /** Reports connections that found no room. */
  handleTimeout(nowUs: number): void {
    if (this.#closed || nowUs - this.#lookedUs < LOOK_US) return;
    this.#lookedUs = nowUs;
    this.#crowded += Math.max(0, this.#native.ox_tcp_crowded(this.handle));
    if (this.#crowded === 0 || nowUs - this.#warnedUs < WARNING_US) return;
    this.#warnedUs = nowUs;
    this.#onCrowded(this.#crowded);
    this.#crowded = 0;
  }

  /** Ends the flows of every inner address in the prefix. */
  forget({ address, bits }: Prefix): void {
    this.#native.ox_tcp_forget(this.handle, mappedBytes(address), bits);
  }

  /** Has strangers' connections to a port of the host go to an inner address and port. Returns 0 or an errno. */
  listen({ address, port, outer }: PortForward): number {
    return -this.#native.ox_tcp_listen(this.handle, mappedBytes(parseAddress(address)!), port, outer);
  }

  unlisten({ address, outer }: PortForward): void {
    this.#native.ox_tcp_unlisten(this.handle, isV6(address) ? 1 : 0, outer);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#native.ox_tcp_close(this.handle);
  }
}
