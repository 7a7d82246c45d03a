/**
 * The userspace exit: no privilege, ordinary sockets. UDP is mapped and filtered endpoint-independently, pings
 * go through ping sockets where the system allows them, TCP through the native library where there is one, and
 * every other packet is answered at once with a TCP reset or ICMP "administratively prohibited", so that no client waits.
 * With the native library all sockets are behind one descriptor. Invariant: flows and their memory are bounded, and an
 * answer reaches only the inner source that owns the socket on which the answer arrived.
 */
import type { Native } from "../../../ffi/native.ts";
import { Readable } from "../../../ffi/readable.ts";
import { DROP, type Metrics } from "../../metrics.ts";
import { type Burst, BURST_CAPACITY, DONE, TO_EXIT, TO_HAIRPIN, TO_TUNNEL } from "../../vector/burst.ts";
import { formatAddress, isIpv4, parseAddress, parsePrefix, prefixContains } from "../../wire/address.ts";
import { isToPort, PORT_CONTROL_PORT } from "../../wire/port_control.ts";
import {
  emitIcmpError,
  ICMP_ADMIN_PROHIBITED,
  ICMP_PROTOCOL_UNREACHABLE,
  ICMP_REASSEMBLY_EXCEEDED,
  ICMP_TIME_EXCEEDED,
} from "../../wire/icmp.ts";
import {
  emitTcpReset,
  hasRouteLeft,
  IPV6_HEADER_BYTES,
  ipVersion,
  isFragment,
  isTo,
  PROTOCOL_ICMP,
  PROTOCOL_ICMPV6,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  protocolOf,
  readDestination,
  readSource,
  transportAt,
  UDP_HEADER_BYTES,
} from "../../wire/inner.ts";
import type { ControlDatagram, Exit, InnerAddress } from "../exit.ts";
import type { PortForward, RefusedForward } from "../forward.ts";
import { Asked } from "../mapping/asked.ts";
import { UserspaceForwards } from "./forwards.ts";
import { fragment } from "./fragmentation.ts";
import { IcmpNat } from "./icmp_nat.ts";
import { Reassembly } from "./reassembly.ts";
import { TcpSplice } from "./tcp_splice.ts";
import { UdpFlows } from "./udp_flows.ts";
import { UdpNat } from "./udp_nat.ts";
import { buildUdp } from "./udp_packet.ts";

export interface UserspaceOptions {
  ipv4: InnerAddress;
  ipv6?: InnerAddress;
  mtu: number;
  metrics: Metrics;
  /** The library for TCP and bursts of UDP, or the reason for its absence. */
  native: Native | string;
  log: (level: "debug" | "info" | "warning" | "error", message: string) => void;
  /**
   * Descriptors for UDP's flows, and the same number for TCP's; when absent, by the process's limit. One peer may hold a
   * quarter of the flows.
   */
  maxFlows?: number;
  /** Idle time after which a mapping ends, seconds; RFC 4787 REQ-5 asks for 120 or more. */
  udpTimeoutS?: number;
}

/** Inner packets that may wait for the driver; further ones are dropped, as in a router's queue. */
const QUEUE_MAX = 1024;
/** Flows where the limit on open files allows them. A TCP flow has buffers of its own. */
const UDP_FLOWS_MAX = 32768, PORTABLE_FLOWS_MAX = 4096, TCP_FLOWS_MAX = 4096;
/** The largest ICMP error. */
const ERROR_BYTES_MAX = 1280;
/** Rows of a burst for UDP and for the queue, so that each kind of traffic leaves room for the others. */
const UDP_ROWS = 128, QUEUE_ROWS = 64;

/** Opens the exit. Except for pings, sockets are opened only when a packet needs one. */
export function openUserspace(options: UserspaceOptions): Exit {
  return new UserspaceExit(options);
}

class UserspaceExit implements Exit {
  readonly name = "userspace";
  readonly description: string;
  readonly hairpins: boolean;
  readonly #metrics: Metrics;
  readonly descriptor: number | undefined;
  readonly processDescriptors: readonly number[];
  readonly #udp: UdpNat | UdpFlows;
  readonly #flows: UdpFlows | undefined;
  readonly #icmp: IcmpNat;
  readonly #tcp: TcpSplice | undefined;
  readonly #reassembly: Reassembly;
  readonly #forwards: UserspaceForwards;
  readonly #gateway4: Uint32Array;
  readonly #gateway6: Uint32Array;
  readonly #queue: Uint8Array[] = [];
  readonly #asked = new Asked<number>();
  #identification = crypto.getRandomValues(new Uint32Array(1))[0];
  readonly #pingsReady: number = 0;
  #wake: () => void = () => {};
  #takeControl: (datagram: ControlDatagram) => void = () => {};
  readonly #emit: (packet: Uint8Array) => void;
  #readable: Readable | undefined;

  constructor(options: UserspaceOptions) {
    this.#metrics = options.metrics;
    this.hairpins = typeof options.native !== "string";
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
    this.#emit = emit;
    this.#reassembly = new Reassembly((expired) => {
      options.metrics.drop(DROP.unassembled);
      const error = expired && this.#errorAbout(expired, ICMP_REASSEMBLY_EXCEEDED);
      if (error) emit(error);
    });
    const { native, mtu, log, maxFlows } = options;
    const onLost = (datagrams: number) => options.metrics.drop(DROP.exit_full, datagrams);
    const timeoutUs = (options.udpTimeoutS ?? 120) * 1e6;
    this.#icmp = new IcmpNat({ emit, log });
    this.processDescriptors = this.#icmp.descriptors;
    if (typeof native === "string") {
      log("info", `TCP is refused by this exit: ${native}`);
      this.#udp = new UdpNat({
        maxFlows: Math.min(PORTABLE_FLOWS_MAX, maxFlows ?? Infinity),
        timeoutUs,
        emit,
        onLost,
        log,
      });
      this.#icmp.watch();
    } else {
      const limit = maxFlows ?? native.ox_flow_limit();
      this.#udp = this.#flows = new UdpFlows({
        native,
        mtu,
        maxFlows: Math.min(UDP_FLOWS_MAX, limit),
        timeoutUs,
        emit,
        onLost,
        log,
      });
      this.#tcp = new TcpSplice({
        native,
        mtu,
        maxFlows: Math.min(TCP_FLOWS_MAX, limit),
        onCrowded: (connections) =>
          log("warning", `no room for more TCP: ${connections} connections were ended if idle, or refused`),
      });
      this.descriptor = this.#flows.descriptor;
      this.#flows.watch(this.#tcp.descriptor);
      for (const ping of this.processDescriptors) this.#pingsReady |= this.#flows.watch(ping);
    }
    const udp = this.#udp, tcp = this.#tcp;
    this.#forwards = new UserspaceForwards({
      udp: { open: (forward) => udp.pin(forward), close: (forward) => udp.unpin(forward) },
      tcp: tcp && { open: (forward) => tcp.listen(forward), close: (forward) => tcp.unlisten(forward) },
    });
    const carried = ["UDP", ...(this.#tcp ? ["TCP"] : []), ...(this.#icmp.available ? ["ping"] : [])];
    this.description = `userspace (open NAT): ${carried.join(", ")}`;
  }

  get flowCount(): number {
    return this.#udp.size + (this.#tcp?.size ?? 0);
  }

  onReadable(wake: () => void): void {
    this.#wake = wake;
    if (this.descriptor !== undefined) this.#readable ??= new Readable(this.descriptor, wake);
  }

  send(burst: Burst, nowUs: number): void {
    const { count, next, offset, length, bytes, view, peer } = burst;
    this.#spendHops(burst, nowUs);
    this.#tcp?.send(burst);
    this.#flows?.sendBurst(burst, nowUs);
    let isMended = false;
    for (let row = 0; row < count; row++) {
      if (next[row] === TO_HAIRPIN) this.#answer(burst, row, DROP.denied, ICMP_ADMIN_PROHIBITED);
      if (next[row] !== TO_EXIT) continue;
      const at = offset[row];
      const protocol = protocolOf(view, at, length[row]);
      // No policy has judged its final destination.
      if (ipVersion(view, at) === 6 && hasRouteLeft(view, at, length[row])) {
        this.#answer(burst, row, DROP.unsupported, ICMP_ADMIN_PROHIBITED);
        continue;
      }
      if (protocol === PROTOCOL_TCP && this.#tcp) {
        // Only a tunnel whose path shrank cuts TCP.
        if (isFragment(view, at, length[row])) {
          if (this.#reassembly.addRow(burst, row, nowUs)) isMended = true;
          else next[row] = DONE;
          continue;
        }
        if (dropExtensions(burst, row)) {
          isMended = true;
          continue;
        }
      }
      if (protocol === PROTOCOL_UDP || protocol === PROTOCOL_ICMP || protocol === PROTOCOL_ICMPV6) {
        const packet = bytes.subarray(at, at + length[row]);
        const outcome = isFragment(view, at, length[row])
          ? this.#sendFragment(packet, protocol, peer[row], nowUs)
          : this.#sendWhole(packet, protocol, peer[row], nowUs);
        if (outcome !== DROP.unsupported) {
          next[row] = outcome;
          continue;
        }
      }
      this.#refuse(burst, row, protocol);
    }
    if (!isMended) return;
    this.#tcp!.send(burst);
    for (let row = 0; row < count; row++) if (next[row] === TO_EXIT) this.#refuse(burst, row, PROTOCOL_TCP);
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

  forget(prefixes: readonly string[]): void {
    const gone = prefixes.flatMap((text) => parsePrefix(text) ?? []);
    const to = new Uint32Array(4);
    for (const prefix of gone) {
      this.#forwards.forget(prefix);
      this.#udp.forget(prefix);
      this.#tcp?.forget(prefix);
      this.#icmp.forget(prefix);
      this.#reassembly.forget(prefix);
    }
    const kept = this.#queue.filter((packet) => {
      readDestination(new DataView(packet.buffer, packet.byteOffset, packet.length), 0, to, 0);
      return !gone.some((prefix) => prefixContains(prefix, to));
    });
    this.#queue.splice(0, Infinity, ...kept);
  }

  setForwards(wanted: readonly PortForward[]): RefusedForward[] {
    return this.#forwards.set(wanted);
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

  #sendFragment(packet: Uint8Array<ArrayBuffer>, protocol: number, peer: number, nowUs: number): number {
    const whole = this.#reassembly.add(packet, nowUs, peer);
    return whole === undefined ? DONE : this.#sendWhole(whole, protocol, peer, nowUs);
  }

  #sendWhole(packet: Uint8Array<ArrayBuffer>, protocol: number, peer: number, nowUs: number): number {
    return (protocol === PROTOCOL_UDP ? this.#udp : this.#icmp).send(packet, peer, nowUs);
  }

  /** Turns the packet into the refusal (TCP reset or ICMP) for its sender. */
  #refuse(burst: Burst, row: number, protocol: number): void {
    if (protocol === PROTOCOL_TCP) {
      const { view, offset, length, next } = burst;
      this.#metrics.drop(DROP.unsupported);
      length[row] = emitTcpReset(view, offset[row], length[row]);
      next[row] = length[row] === 0 ? DONE : TO_TUNNEL;
      return;
    }
    const isOfPing = protocol === PROTOCOL_ICMP || protocol === PROTOCOL_ICMPV6;
    this.#answer(burst, row, DROP.unsupported, isOfPing ? ICMP_ADMIN_PROHIBITED : ICMP_PROTOCOL_UNREACHABLE);
  }

  onPortControl(take: (datagram: ControlDatagram) => void): void {
    this.#takeControl = take;
  }

  answerPortControl({ address, port, payload }: ControlDatagram): void {
    const to = parseAddress(address);
    if (to === undefined) return;
    const from = isIpv4(to) ? this.#gateway4 : this.#gateway6;
    this.#emit(buildUdp(from, PORT_CONTROL_PORT, to, port, payload));
  }

  /** Gives a row for the relay's own port of port control to who answers there. False for any other row. */
  #isControl(burst: Burst, row: number, nowUs: number): boolean {
    const { view, bytes, offset, length } = burst;
    const at = offset[row], whole = length[row];
    if (!isTo(view, at, ipVersion(view, at) === 4 ? this.#gateway4 : this.#gateway6)) return false;
    if (
      protocolOf(view, at, whole) !== PROTOCOL_UDP || isFragment(view, at, whole) ||
      !isToPort(view, at, whole, PORT_CONTROL_PORT)
    ) return false;
    const segment = transportAt(view, at, whole);
    // Here, where it is known who sends: what is too much takes no time of the thread that answers.
    if (!this.#asked.may(burst.peer[row], nowUs / 1e6)) return true;
    const words = new Uint32Array(4);
    readSource(view, at, words, 0);
    this.#takeControl({
      address: formatAddress(words),
      port: view.getUint16(segment),
      payload: bytes.slice(segment + UDP_HEADER_BYTES, at + whole),
    });
    return true;
  }

  /** Answers packets whose TTL or hop limit ends here, as a router does (RFC 1812 §5.3.1, RFC 8200 §3); decrements the others. */
  #spendHops(burst: Burst, nowUs: number): void {
    const { count, next, offset, bytes } = burst;
    for (let row = 0; row < count; row++) {
      if (next[row] !== TO_EXIT && next[row] !== TO_HAIRPIN) continue;
      const at = offset[row];
      const hops = bytes[at] >> 4 === 4 ? bytes[at + 8] : bytes[at + 7];
      // To the relay itself it takes no hop.
      if (next[row] === TO_EXIT && this.#isControl(burst, row, nowUs)) next[row] = DONE;
      else if (hops <= 1) this.#answer(burst, row, DROP.hop_limit, ICMP_TIME_EXCEEDED);
    }
  }

  /** The ICMP error, an ICMP_*, about a packet outside the arena; undefined when none may be sent. */
  #errorAbout(packet: Uint8Array, error: number): Uint8Array | undefined {
    const bytes = new Uint8Array(ERROR_BYTES_MAX);
    const quoted = Math.min(packet.length, ERROR_BYTES_MAX - IPV6_HEADER_BYTES - 8);
    bytes.set(packet.subarray(0, quoted));
    const gateway = packet[0] >> 4 === 4 ? this.#gateway4 : this.#gateway6;
    const length = emitIcmpError(bytes, new DataView(bytes.buffer), 0, quoted, gateway, error);
    return length > 0 ? bytes.subarray(0, length) : undefined;
  }

  #answer(burst: Burst, row: number, reason: number, error: number): void {
    const { bytes, view, offset, length, next } = burst;
    const at = offset[row];
    this.#metrics.drop(reason);
    const gateway = ipVersion(view, at) === 4 ? this.#gateway4 : this.#gateway6;
    length[row] = emitIcmpError(bytes, view, at, length[row], gateway, error);
    next[row] = length[row] === 0 ? DONE : TO_TUNNEL;
  }
}

/**
 * Removes the extension headers of a whole IPv6 packet, which do not concern an endpoint of its TCP connection (RFC 8200 §4.2).
 * False where there are none.
 */
function dropExtensions({ bytes, view, offset, length }: Burst, row: number): boolean {
  const at = offset[row];
  const segment = transportAt(view, at, length[row]);
  const extra = segment - at - IPV6_HEADER_BYTES;
  if (ipVersion(view, at) !== 6 || segment === 0 || extra <= 0) return false;
  bytes.copyWithin(at + extra, at, at + IPV6_HEADER_BYTES);
  view.setUint8(at + extra + 6, PROTOCOL_TCP);
  view.setUint16(at + extra + 4, length[row] - extra - IPV6_HEADER_BYTES);
  offset[row] += extra;
  length[row] -= extra;
  return true;
}
