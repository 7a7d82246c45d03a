/**
 * The userspace exit: no privilege, ordinary sockets. UDP is mapped and filtered endpoint-independently, pings
 * go through ping sockets where the system allows them, TCP through the native library where there is one, and
 * everything else is answered at once with a TCP reset or ICMP "administratively prohibited", so that nothing hangs.
 * With the native library all sockets are behind one descriptor. Invariant: flows and their memory are bounded, and an
 * answer reaches only the inner source that owns the socket it came to.
 */
import type { Native } from "../../ffi/native.ts";
import { Readable } from "../../ffi/readable.ts";
import { DROP, type Metrics } from "../metrics.ts";
import { type Burst, BURST_CAPACITY, DONE, TO_EXIT, TO_TUNNEL } from "../vector/burst.ts";
import { parseAddress } from "../wire/address.ts";
import {
  emitAdminProhibited,
  emitTcpReset,
  ipVersion,
  isFragment,
  PROTOCOL_ICMP,
  PROTOCOL_ICMPV6,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  protocolOf,
} from "../wire/inner.ts";
import type { Exit } from "./exit.ts";
import { fragment } from "./fragmentation.ts";
import { IcmpNat } from "./icmp_nat.ts";
import { Reassembly } from "./reassembly.ts";
import { TcpSplice } from "./tcp_splice.ts";
import type { InnerAddress } from "./tun_host.ts";
import { UdpFlows } from "./udp_flows.ts";
import { UdpNat } from "./udp_nat.ts";

export interface UserspaceOptions {
  ipv4: InnerAddress;
  ipv6?: InnerAddress;
  mtu: number;
  metrics: Metrics;
  /** What carries TCP, and UDP by bursts, or the reason why nothing does. */
  native: Native | string;
  log: (level: "debug" | "info" | "warning" | "error", message: string) => void;
  /** Most flows (sockets) at once of UDP, and of TCP; one inner address may hold a quarter of them. */
  maxFlows?: number;
  /** Idle time after which a mapping ends, seconds; RFC 4787 REQ-5 asks for 120 or more. */
  udpTimeoutS?: number;
}

/** Inner packets that wait to be taken; the rest is dropped, as a router's queue would. */
const QUEUE_MAX = 1024;
/** Flows where the system's limit on open files does not ask for fewer. A TCP flow has buffers of its own. */
const UDP_FLOWS_MAX = 32768, PORTABLE_FLOWS_MAX = 4096, TCP_FLOWS_MAX = 4096;
/** Rows of a burst that UDP and the queue may take, so that each kind of traffic leaves room for the others. */
const UDP_ROWS = 128, QUEUE_ROWS = 64;

/** Opens the exit. Opens no socket until a packet needs one, but for pings. */
export function openUserspace(options: UserspaceOptions): Exit {
  return new UserspaceExit(options);
}

class UserspaceExit implements Exit {
  readonly name = "userspace";
  readonly description: string;
  readonly #metrics: Metrics;
  readonly descriptor: number | undefined;
  readonly processDescriptors: readonly number[];
  readonly #udp: UdpNat | UdpFlows;
  readonly #flows: UdpFlows | undefined;
  readonly #icmp: IcmpNat;
  readonly #tcp: TcpSplice | undefined;
  readonly #reassembly = new Reassembly();
  readonly #gateway4: Uint32Array;
  readonly #gateway6: Uint32Array;
  readonly #queue: Uint8Array[] = [];
  #identification = crypto.getRandomValues(new Uint32Array(1))[0];
  readonly #pingsReady: number = 0;
  #wake: () => void = () => {};
  #readable: Readable | undefined;

  constructor(options: UserspaceOptions) {
    this.#metrics = options.metrics;
    this.#gateway4 = parseAddress(options.ipv4.address)!;
    this.#gateway6 = parseAddress(options.ipv6?.address ?? "::1")!;
    const emit = (packet: Uint8Array) => {
      const pieces = fragment(packet, options.mtu, this.#identification++);
      if (this.#queue.length + pieces.length > QUEUE_MAX) {
        options.metrics.drop(DROP.exit_full);
        return;
      }
      this.#queue.push(...pieces);
      this.#wake();
    };
    const { native, mtu, log, maxFlows } = options;
    const timeoutUs = (options.udpTimeoutS ?? 120) * 1e6;
    this.#icmp = new IcmpNat({ emit, log });
    this.processDescriptors = this.#icmp.descriptors;
    if (typeof native === "string") {
      log("info", `TCP is refused by this exit: ${native}`);
      this.#udp = new UdpNat({ maxFlows: maxFlows ?? PORTABLE_FLOWS_MAX, timeoutUs, emit, log });
      this.#icmp.watch();
    } else {
      const limit = native.ox_flow_limit();
      this.#udp = this.#flows = new UdpFlows({
        native,
        mtu,
        maxFlows: maxFlows ?? Math.min(UDP_FLOWS_MAX, limit),
        timeoutUs,
        emit,
        onLost: (datagrams) => options.metrics.drop(DROP.exit_full, datagrams),
        log,
      });
      this.#tcp = new TcpSplice({
        native,
        mtu,
        maxFlows: maxFlows ?? Math.min(TCP_FLOWS_MAX, limit),
        onCrowded: (connections) =>
          log("warning", `no room for more TCP: ${connections} connections were ended if idle, or refused`),
      });
      this.descriptor = this.#flows.descriptor;
      this.#flows.watch(this.#tcp.descriptor);
      for (const ping of this.processDescriptors) this.#pingsReady |= this.#flows.watch(ping);
    }
    const carried = ["UDP", ...(this.#tcp ? ["TCP"] : []), ...(this.#icmp.available ? ["ping"] : [])];
    this.description = `userspace: ${carried.join(", ")}`;
  }

  get flowCount(): number {
    return this.#udp.size + (this.#tcp?.size ?? 0);
  }

  onReadable(wake: () => void): void {
    this.#wake = wake;
    if (this.descriptor !== undefined) this.#readable ??= new Readable(this.descriptor, wake);
  }

  send(burst: Burst, nowUs: number): void {
    const { count, next, offset, length, bytes, view } = burst;
    this.#tcp?.send(burst);
    this.#flows?.sendBurst(burst, nowUs);
    let isMended = false;
    for (let row = 0; row < count; row++) {
      if (next[row] !== TO_EXIT) continue;
      const at = offset[row];
      const protocol = protocolOf(view, at, length[row]);
      // Only a tunnel whose path shrank cuts TCP.
      if (protocol === PROTOCOL_TCP && this.#tcp && isFragment(view, at, length[row])) {
        if (this.#reassembly.addRow(burst, row, nowUs)) isMended = true;
        else next[row] = DONE;
        continue;
      }
      if (protocol === PROTOCOL_UDP || protocol === PROTOCOL_ICMP || protocol === PROTOCOL_ICMPV6) {
        const packet = bytes.subarray(at, at + length[row]);
        const outcome = isFragment(view, at, length[row])
          ? this.#sendFragment(packet, protocol, nowUs)
          : this.#sendWhole(packet, protocol, nowUs);
        if (outcome !== DROP.unsupported) {
          next[row] = outcome;
          continue;
        }
      }
      this.#refuse(burst, row, protocol);
    }
    if (isMended) this.#tcp!.send(burst);
  }

  receive(burst: Burst): number {
    const before = burst.count;
    if (this.#flows) {
      if ((this.#flows.poll() & this.#pingsReady) !== 0) this.#icmp.read();
      this.#flows.receive(burst, UDP_ROWS);
    }
    this.#takeQueued(burst);
    this.#tcp?.receive(burst);
    if (burst.count < BURST_CAPACITY) this.#readable?.taken();
    return burst.count - before;
  }

  handleTimeout(nowUs: number): void {
    this.#udp.expire(nowUs);
    this.#tcp?.handleTimeout(nowUs);
    this.#icmp.expire(nowUs);
    this.#reassembly.expire(nowUs);
  }

  async close(): Promise<void> {
    await this.#readable?.close();
    this.#udp.close();
    this.#tcp?.close();
    await this.#icmp.close();
  }

  #takeQueued(burst: Burst): void {
    const rows = this.#flows ? QUEUE_ROWS : BURST_CAPACITY;
    for (let i = 0; i < rows && this.#queue.length > 0; i++) {
      const packet = this.#queue[0];
      const row = burst.grow(packet.length, TO_TUNNEL);
      if (row < 0) break;
      burst.bytes.set(packet, burst.offset[row]);
      this.#queue.shift();
    }
  }

  #sendFragment(packet: Uint8Array<ArrayBuffer>, protocol: number, nowUs: number): number {
    const whole = this.#reassembly.add(packet, nowUs);
    return whole === undefined ? DONE : this.#sendWhole(whole, protocol, nowUs);
  }

  #sendWhole(packet: Uint8Array<ArrayBuffer>, protocol: number, nowUs: number): number {
    return protocol === PROTOCOL_UDP ? this.#udp.send(packet, nowUs) : this.#icmp.send(packet, nowUs);
  }

  /** Turns the packet into the answer that lets its sender give up at once. */
  #refuse(burst: Burst, row: number, protocol: number): void {
    const { bytes, view, offset, length, next } = burst;
    const at = offset[row];
    this.#metrics.drop(DROP.unsupported);
    const gateway = ipVersion(view, at) === 4 ? this.#gateway4 : this.#gateway6;
    length[row] = protocol === PROTOCOL_TCP
      ? emitTcpReset(view, at, length[row])
      : emitAdminProhibited(bytes, view, at, length[row], gateway);
    next[row] = length[row] === 0 ? DONE : TO_TUNNEL;
  }
}
