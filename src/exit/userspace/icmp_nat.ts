/**
 * Pings without privilege, through Linux's ping sockets: one socket per family, whose identifier the kernel
 * owns; so each echo request gets a sequence number of this NAT, which represents its inner source, identifier and
 * sequence. Invariant: an answer counts only for a limited time after its request, and only from the requested address.
 */
import { libc, POLLIN } from "../../../ffi/mod.ts";
import { DROP } from "../../metrics.ts";
import { DONE } from "../../vector/burst.ts";
import { type Prefix, prefixContains } from "../../wire/address.ts";
import {
  foldSum,
  IPV4_HEADER_BYTES,
  IPV6_HEADER_BYTES,
  ipVersion,
  PROTOCOL_ICMP,
  PROTOCOL_ICMPV6,
  readDestination,
  readSource,
  sumWords,
  transportAt,
  transportChecksum,
  writeIpv4Header,
  writeIpv6Header,
} from "../../wire/inner.ts";
import { ownerOf } from "./owner.ts";

const AF_INET = 2, AF_INET6 = 10;
const SOCK_DGRAM_NONBLOCK_CLOEXEC = 2 | 0o4000 | 0o2000000;
const IPPROTO_IP = 0, IP_TTL = 2, IPPROTO_IPV6 = 41, IPV6_UNICAST_HOPS = 16;
/** The most pending requests of one peer, so that it cannot use up all sequence numbers. */
const REQUESTS_PER_OWNER = 256;
const TIMEOUT_US = 10_000_000;
const POLL_MS = 200;
/** Longest answer: the largest IPv4 packet. */
const ANSWER_MAX = 65515;
/** Makes `recvfrom` return the length before truncation to the buffer. */
const MSG_TRUNC = 0x20;
const REPLY: Record<number, number> = { 4: 0, 6: 129 };
const REQUEST: Record<number, number> = { 4: 8, 6: 128 };

interface Request {
  owner: string;
  inner: Uint32Array;
  target: Uint32Array;
  identifier: number;
  sequence: number;
  sentUs: number;
}

interface Family {
  version: 4 | 6;
  fd: number;
  /** By the NAT's sequence number, in the order sent. */
  requests: Map<number, Request>;
  nextSequence: number;
  /** The hop limit of the socket's packets. */
  hops: number;
}

export interface IcmpNatOptions {
  emit: (packet: Uint8Array) => void;
  log: (level: "debug" | "info" | "warning" | "error", message: string) => void;
}

export class IcmpNat {
  readonly #emit: (packet: Uint8Array) => void;
  readonly #families: Family[] = [];
  #watching: Promise<void> | undefined;
  readonly #buffer = new Uint8Array(ANSWER_MAX);
  /** Requests that wait for an answer. */
  readonly #perOwner = new Map<string, number>();
  #closed = false;

  constructor({ emit, log }: IcmpNatOptions) {
    this.#emit = emit;
    try {
      for (
        const [version, domain, protocol] of [[4, AF_INET, PROTOCOL_ICMP], [
          6,
          AF_INET6,
          PROTOCOL_ICMPV6,
        ]] as const
      ) {
        const fd = libc().socket(domain, SOCK_DGRAM_NONBLOCK_CLOEXEC, protocol);
        if (fd >= 0) this.#families.push({ version, fd, requests: new Map(), nextSequence: 0, hops: 0 });
        else if (version === 4) {
          log(
            "info",
            `pings are refused by this system; to allow: sysctl -w net.ipv4.ping_group_range="0 2147483647"`,
          );
        }
      }
    } catch (error) {
      log("info", `pings are refused: ${(error as Error).message}`);
    }
  }

  /** The sockets' descriptors. They belong to the process: code that ends the thread without `close` must close them. */
  get descriptors(): number[] {
    return this.#families.map(({ fd }) => fd);
  }

  /** Waits for answers without blocking the event loop, where no other code watches the descriptors and calls `read`. */
  watch(): void {
    if (this.#families.length > 0) this.#watching ??= this.#watch();
  }

  /** Reads the answers that have arrived. */
  read(): void {
    for (const family of this.#families) this.#read(family);
  }

  /** Whether IPv4 pings can be sent. */
  get available(): boolean {
    return this.#families.some(({ version }) => version === 4);
  }

  /** Sends a whole inner echo request of a peer's row; DROP.unsupported for any other ICMP and where pings are not allowed. */
  send(packet: Uint8Array, peer: number, nowUs: number): number {
    const view = new DataView(packet.buffer, packet.byteOffset, packet.length);
    const version = ipVersion(view, 0);
    const family = this.#families.find((one) => one.version === version);
    const icmp = transportAt(view, 0, packet.length);
    if (!family || icmp === 0 || icmp + 8 > packet.length || packet[icmp] !== REQUEST[version]) {
      return DROP.unsupported;
    }
    const inner = new Uint32Array(4), target = new Uint32Array(4);
    readSource(view, 0, inner, 0);
    readDestination(view, 0, target, 0);
    const owner = ownerOf(peer, `${inner}`);
    const waiting = this.#perOwner.get(owner) ?? 0;
    if (waiting >= REQUESTS_PER_OWNER) return DROP.exit_full;
    this.#perOwner.set(owner, waiting + 1);
    const ours = family.nextSequence;
    family.nextSequence = (ours + 1) & 0xffff;
    this.#forget(family, ours);
    family.requests.set(ours, {
      owner,
      inner,
      target,
      identifier: view.getUint16(icmp + 4),
      sequence: view.getUint16(icmp + 6),
      sentUs: nowUs,
    });
    const message = packet.slice(icmp);
    new DataView(message.buffer).setUint16(6, ours);
    setHops(family, Math.max(1, packet[version === 4 ? 8 : 7] - 1));
    const address = socketAddress(version, target);
    const sent = libc().sendto(family.fd, message, BigInt(message.length), 0, address, address.length);
    return Number(sent) < 0 ? DROP.exit_error : DONE;
  }

  expire(nowUs: number): void {
    for (const family of this.#families) {
      for (const [ours, { sentUs }] of family.requests) {
        if (nowUs - sentUs < TIMEOUT_US) break;
        this.#forget(family, ours);
      }
    }
  }

  /** Drops the pending requests of every inner address in the prefix. */
  forget(prefix: Prefix): void {
    for (const family of this.#families) {
      for (const [ours, { inner }] of family.requests) {
        if (prefixContains(prefix, inner)) this.#forget(family, ours);
      }
    }
  }

  #forget(family: Family, ours: number): void {
    const request = family.requests.get(ours);
    if (!request) return;
    family.requests.delete(ours);
    const left = (this.#perOwner.get(request.owner) ?? 1) - 1;
    if (left > 0) this.#perOwner.set(request.owner, left);
    else this.#perOwner.delete(request.owner);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#watching;
    for (const { fd } of this.#families) libc().close(fd);
  }

  async #watch(): Promise<void> {
    const entries = new Uint8Array(8 * this.#families.length);
    const view = new DataView(entries.buffer);
    while (!this.#closed) {
      this.#families.forEach(({ fd }, i) => {
        view.setInt32(8 * i, fd, true);
        view.setInt32(8 * i + 4, POLLIN, true);
      });
      const ready = await libc().poll(entries, BigInt(this.#families.length), POLL_MS);
      if (ready > 0 && !this.#closed) this.read();
    }
  }

  #read(family: Family): void {
    const buffer = this.#buffer, room = BigInt(ANSWER_MAX);
    const from = new Uint8Array(28), fromLength = new Uint8Array(4);
    for (let i = 0; i < 256; i++) {
      fromLength[0] = from.length;
      const length = Number(libc().recvfrom(family.fd, buffer, room, MSG_TRUNC, from, fromLength));
      if (length < 0) return;
      if (length < 8 || length > ANSWER_MAX || buffer[0] !== REPLY[family.version]) continue;
      const view = new DataView(buffer.buffer);
      const request = family.requests.get(view.getUint16(6));
      const source = readSocketAddress(family.version, from);
      if (!request || !source.every((word, w) => word === request.target[w])) continue;
      this.#forget(family, view.getUint16(6));
      this.#answer(family.version, request, buffer.subarray(0, length));
    }
  }

  #answer(version: number, request: Request, message: Uint8Array): void {
    const header = version === 4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES;
    const packet = new Uint8Array(header + message.length);
    const view = new DataView(packet.buffer);
    packet.set(message, header);
    view.setUint16(header + 2, 0);
    view.setUint16(header + 4, request.identifier);
    view.setUint16(header + 6, request.sequence);
    if (version === 4) {
      writeIpv4Header(view, 0, packet.length, 0, 0, PROTOCOL_ICMP, request.target[3], request.inner[3]);
      view.setUint16(header + 2, foldSum(sumWords(view, header, message.length, 0)));
    } else {
      writeIpv6Header(view, 0, message.length, PROTOCOL_ICMPV6, request.target, 0, request.inner, 0);
      view.setUint16(header + 2, transportChecksum(view, 0, header, message.length, PROTOCOL_ICMPV6));
    }
    this.#emit(packet);
  }
}

/** Sets the hop limit of the socket's packets. */
function setHops(family: Family, hops: number): void {
  if (family.hops === hops) return;
  family.hops = hops;
  const [level, name] = family.version === 4 ? [IPPROTO_IP, IP_TTL] : [IPPROTO_IPV6, IPV6_UNICAST_HOPS];
  libc().setsockopt(family.fd, level, name, Int32Array.of(hops), 4);
}

/** struct sockaddr_in or sockaddr_in6 with port 0. */
function socketAddress(version: number, words: Uint32Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(version === 4 ? 16 : 28);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, version === 4 ? AF_INET : AF_INET6, true);
  if (version === 4) view.setUint32(4, words[3]);
  else for (let i = 0; i < 4; i++) view.setUint32(8 + 4 * i, words[i]);
  return bytes;
}

function readSocketAddress(version: number, bytes: Uint8Array): Uint32Array {
  const view = new DataView(bytes.buffer);
  if (version === 4) return Uint32Array.of(0, 0, 0xffff, view.getUint32(4));
  return Uint32Array.of(view.getUint32(8), view.getUint32(12), view.getUint32(16), view.getUint32(20));
}
