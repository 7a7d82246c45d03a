/**
 * A client's side of the tunnel without privilege: TCP connections and UDP sockets of this program's own, whose packets go
 * into the tunnel. TCP lives in the native library or in WebAssembly (dial_kernel.ts); call.ts is one connection as its user sees it.
 * Invariant: waiting data is bounded, in each direction and for each socket, and `close` ends everything that is open.
 * Reaches only the tunnel.
 */
import type { Native } from "../../../ffi/native.ts";
import { type Burst, BURST_CAPACITY, DONE, TO_EXIT, TO_TUNNEL } from "../../vector/burst.ts";
import { formatAddress, isIpv4, parseAddress } from "../../wire/address.ts";
import { type IcmpError, readIcmpError } from "../../wire/icmp_error.ts";
import { emitIcmpError, ICMP_PORT_UNREACHABLE, ICMP_PROTOCOL_UNREACHABLE } from "../../wire/icmp.ts";
import {
  IPV4_HEADER_BYTES,
  IPV6_HEADER_BYTES,
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
  transportChecksum,
  UDP_HEADER_BYTES,
} from "../../wire/inner.ts";
import type { Exit } from "../exit.ts";
import { Call, DialError, type DialReason, type TunnelConnection } from "./call.ts";
import { type DialKernel, nativeDial, WasmDial } from "./dial_kernel.ts";
import { fragment } from "./fragmentation.ts";
import { Reassembly } from "./reassembly.ts";
import { buildUdp } from "./udp_packet.ts";

export interface DiallerOptions {
  /** The native library, or why it is absent: TCP is WebAssembly then. */
  native: Native | string;
  /** Own inner addresses, as text: at most one of each family. */
  addresses: readonly string[];
  /** Inner MTU, bytes. */
  mtu: number;
}

/** A datagram that came through the tunnel. */
export interface TunnelDatagram {
  address: string;
  port: number;
  data: Uint8Array<ArrayBuffer>;
}

/** A UDP port in the tunnel. */
export interface TunnelSocket {
  readonly port: number;
  /** Sends to an address. False when the tunnel has no address of that family, or no room. */
  send(data: Uint8Array, address: string, port: number): boolean;
  close(): void;
}

const EINVAL = 22, ENETUNREACH = 101;
const CONNECT_MS = 15_000;
/** Inner packets that may wait for the driver; further UDP packets are dropped. */
const QUEUE_MAX = 512;
const SOCKETS_MAX = 1024;
const PORT_FIRST = 49152;
const DATAGRAM_MAX = 65507;

/** The smallest possible path sizes, bytes (RFC 791, RFC 8200 §5). */
const PATH_MIN_IPV4 = 576, PATH_MIN_IPV6 = 1280;
/** The most destinations whose smaller path size is remembered. */
const PATHS_MAX = 256;

interface Listener {
  receive: (datagram: TunnelDatagram) => void;
  failed: (reason: DialReason) => void;
}

export class Dialler implements Exit {
  readonly name = "userspace";
  readonly description = "userspace: TCP and UDP of this program's own";
  readonly #tcp: DialKernel;
  readonly #own4: Uint32Array | undefined;
  readonly #own6: Uint32Array | undefined;
  readonly #mtu: number;
  readonly #calls = new Map<number, Call>();
  readonly #sockets = new Map<number, Listener>();
  /** Largest packet by destination, where that is less than the tunnel's. */
  readonly #paths = new Map<string, number>();
  readonly #queue: Uint8Array[] = [];
  readonly #reassembly = new Reassembly();
  readonly #news = new Uint16Array(BURST_CAPACITY);
  readonly #words = new Uint32Array(8);
  #identification = crypto.getRandomValues(new Uint32Array(1))[0];
  #wake: () => void = () => {};
  #woken = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #timerDueMs = Infinity;
  #closed = false;

  constructor({ native, addresses, mtu }: DiallerOptions) {
    this.#mtu = mtu;
    const own = addresses.map((text) => parseAddress(text)!);
    this.#own4 = own.find((words) => isIpv4(words));
    this.#own6 = own.find((words) => !isIpv4(words));
    const words = new Uint32Array(4 * own.length);
    own.forEach((address, i) => words.set(address, 4 * i));
    this.#tcp = typeof native === "string" ? new WasmDial(mtu, words) : nativeDial(native, mtu, words);
  }

  get flowCount(): number {
    return this.#calls.size + this.#sockets.size;
  }

  onReadable(wake: () => void): void {
    this.#wake = wake;
  }

  /** Connects to an address; the signal aborts. Throws DialError. */
  async connect(address: string, port: number, signal?: AbortSignal): Promise<TunnelConnection> {
    const words = parseAddress(address);
    if (!words) throw new DialError("unreachable", `"${address}" is no address`);
    const id = this.#tcp.call(words, port);
    if (id === -ENETUNREACH) {
      throw new DialError("unreachable", `the tunnel has no address to reach ${address} from`);
    }
    if (id === -EINVAL) {
      throw new DialError("unreachable", `${address} port ${port} is no destination for a connection`);
    }
    if (id < 0) throw new DialError("full", `no connection to ${address}: errno ${-id}`);
    const call = new Call(
      this.#tcp,
      id,
      words,
      port,
      this.#stir,
      () => this.#calls.delete(id),
    );
    this.#calls.set(id, call);
    this.#stir();
    const giveUp = () => call.close();
    signal?.addEventListener("abort", giveUp);
    try {
      await call.opened(CONNECT_MS, `${address} port ${port}`);
      return call;
    } catch (error) {
      call.close();
      throw error;
    } finally {
      signal?.removeEventListener("abort", giveUp);
    }
  }

  /**
   * Opens a UDP port of the system's choice; `failed` is called for datagrams that ICMP reports as undelivered. Throws
   * DialError when too many are open.
   */
  listen(
    receive: (datagram: TunnelDatagram) => void,
    failed: (reason: DialReason) => void = () => {},
  ): TunnelSocket {
    if (this.#sockets.size >= SOCKETS_MAX) throw new DialError("full", "too many UDP sockets are open");
    const random = new Uint16Array(1);
    let port: number;
    do {
      port = PORT_FIRST + crypto.getRandomValues(random)[0] % (65536 - PORT_FIRST);
    } while (this.#sockets.has(port));
    this.#sockets.set(port, { receive, failed });
    return {
      port,
      send: (data, address, to) => this.#sendUdp(data, port, address, to),
      close: () => void this.#sockets.delete(port),
    };
  }

  send(burst: Burst, nowUs: number): void {
    const { count, next, offset, length, bytes, view } = burst;
    this.#tcp.send(burst);
    let isMended = false;
    for (let row = 0; row < count; row++) {
      if (next[row] !== TO_EXIT) continue;
      const at = offset[row], size = length[row];
      const protocol = protocolOf(view, at, size);
      // Only a tunnel whose path shrank cuts TCP.
      if (protocol === PROTOCOL_TCP && isFragment(view, at, size)) {
        if (this.#reassembly.addRow(burst, row, nowUs)) isMended = true;
        else next[row] = DONE;
        continue;
      }
      next[row] = DONE;
      const packet = bytes.subarray(at, at + size);
      if (protocol === PROTOCOL_UDP) {
        const whole = isFragment(view, at, size) ? this.#reassembly.add(packet, nowUs) : packet;
        if (whole !== undefined && !this.#receiveUdp(whole)) this.#refuse(burst, row, ICMP_PORT_UNREACHABLE);
      } else if (protocol === PROTOCOL_ICMP || protocol === PROTOCOL_ICMPV6) {
        const error = readIcmpError(view, at, size);
        if (error !== undefined) this.#heed(error);
      } else if (protocol !== PROTOCOL_TCP) {
        this.#refuse(burst, row, ICMP_PROTOCOL_UNREACHABLE);
      }
    }
    if (isMended) this.#tcp.send(burst);
    this.#tell();
  }

  receive(burst: Burst): number {
    const before = burst.count;
    this.#woken = false;
    while (this.#queue.length > 0 && burst.count < BURST_CAPACITY) {
      const packet = this.#queue[0];
      const row = burst.grow(packet.length, TO_TUNNEL);
      if (row < 0) break;
      burst.bytes.set(packet, burst.offset[row]);
      this.#queue.shift();
    }
    const waiting = this.#tcp.turn();
    const from = burst.count;
    while (burst.count - from < waiting && burst.count < BURST_CAPACITY && burst.grow(0, TO_TUNNEL) >= 0);
    if (burst.count > from) {
      this.#tcp.receive(burst, from);
    }
    this.#tell();
    this.#armTimer();
    return burst.count - before;
  }

  handleTimeout(nowUs: number): void {
    this.#reassembly.expire(nowUs);
  }

  close(): Promise<void> {
    if (!this.#closed) {
      this.#closed = true;
      clearTimeout(this.#timer);
      for (const call of [...this.#calls.values()]) call.close();
      this.#sockets.clear();
      this.#tcp.close();
    }
    return Promise.resolve();
  }

  /** Wakes the driver, once for everything that is done in a turn. */
  readonly #stir = () => {
    if (this.#woken || this.#closed) return;
    this.#woken = true;
    queueMicrotask(() => this.#wake());
  };

  /** Wakes the waiters of each call that has news. */
  #tell(): void {
    for (;;) {
      const count = this.#tcp.news(this.#news);
      for (let i = 0; i < count; i++) this.#calls.get(this.#news[i])?.news();
      if (count < this.#news.length) return;
    }
  }

  #armTimer(): void {
    const dueMs = performance.now() + this.#tcp.nextMs();
    if (dueMs >= this.#timerDueMs - 1) return;
    clearTimeout(this.#timer);
    this.#timerDueMs = dueMs;
    this.#timer = setTimeout(() => {
      this.#timerDueMs = Infinity;
      this.#wake();
    }, dueMs - performance.now());
  }

  #sendUdp(data: Uint8Array, port: number, address: string, to: number): boolean {
    const words = parseAddress(address);
    if (!words || data.length > DATAGRAM_MAX) return false;
    const isV4 = isIpv4(words);
    const own = isV4 ? this.#own4 : this.#own6;
    if (!own) return false;
    const header = isV4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES;
    if (header + UDP_HEADER_BYTES + data.length > 65535) return false;
    const mtu = this.#paths.size === 0 ? this.#mtu : this.#paths.get(`${words}`) ?? this.#mtu;
    const pieces = fragment(buildUdp(own, port, words, to, data), mtu, this.#identification++);
    if (this.#queue.length + pieces.length > QUEUE_MAX) return false;
    this.#queue.push(...pieces);
    this.#stir();
    return true;
  }

  /** Answers a packet to one of this end's addresses that no socket takes; `error` is an ICMP_*. */
  #refuse(burst: Burst, row: number, error: number): void {
    const { bytes, view, offset, length, next } = burst;
    const at = offset[row];
    const own = view.getUint8(at) >> 4 === 4 ? this.#own4 : this.#own6;
    if (own === undefined || !isTo(view, at, own)) return;
    length[row] = emitIcmpError(bytes, view, at, length[row], own, error);
    if (length[row] > 0) next[row] = TO_TUNNEL;
  }

  /** Handles an ICMP error about a sent packet: it fails a call that is not open yet, or lowers the path's size. */
  #heed({ reason, mtu, protocol, source, destination, sourcePort, destinationPort }: IcmpError): void {
    const own = isIpv4(source) ? this.#own4 : this.#own6;
    if (own === undefined || own.some((word, i) => word !== source[i])) return;
    const call = protocol === PROTOCOL_TCP ? this.#calls.get(sourcePort) : undefined;
    const listener = protocol === PROTOCOL_UDP ? this.#sockets.get(sourcePort) : undefined;
    if (call !== undefined && !call.isTo(destination, destinationPort)) return;
    if (call === undefined && listener === undefined) return;
    if (reason !== "too_big") {
      call?.fail(reason);
      listener?.failed(reason);
      return;
    }
    const least = isIpv4(destination) ? PATH_MIN_IPV4 : PATH_MIN_IPV6;
    const path = Math.max(least, mtu);
    if (path >= this.#mtu) return;
    if (call !== undefined) this.#tcp.shrink(sourcePort, path);
    else this.#rememberPath(`${destination}`, path);
    this.#stir();
  }

  #rememberPath(destination: string, path: number): void {
    if (this.#paths.size >= PATHS_MAX) this.#paths.clear();
    this.#paths.set(destination, path);
  }

  /** Whether the datagram belongs to an open port, or needs no answer. */
  #receiveUdp(packet: Uint8Array): boolean {
    const view = new DataView(packet.buffer, packet.byteOffset, packet.length);
    const segment = transportAt(view, 0, packet.length);
    if (segment === 0 || segment + UDP_HEADER_BYTES > packet.length) return true;
    const size = view.getUint16(segment + 4);
    if (size < UDP_HEADER_BYTES || segment + size > packet.length) return true;
    const words = this.#words;
    readSource(view, 0, words, 0);
    readDestination(view, 0, words, 4);
    const own = isIpv4(words, 4) ? this.#own4 : this.#own6;
    if (!own || own.some((word, i) => word !== words[4 + i])) return true;
    const hasSum = view.getUint16(segment + 6) !== 0;
    if (hasSum && transportChecksum(view, 0, segment, size, PROTOCOL_UDP) !== 0) return true;
    const listener = this.#sockets.get(view.getUint16(segment + 2));
    if (!listener) return false;
    listener.receive({
      address: formatAddress(words, 0),
      port: view.getUint16(segment),
      data: packet.slice(segment + UDP_HEADER_BYTES, segment + size) as Uint8Array<ArrayBuffer>,
    });
    return true;
  }
}
