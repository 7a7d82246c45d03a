/**
 * What one context of the TCP profile (RFC 6846) knows: the fields of the last packet's IP and TCP headers, and the
 * references that later packets refer to. Fields only; how they travel is in chains.ts, options.ts and formats.ts. At
 * most MAX_IPS IP headers and MAX_EXTENSIONS extension headers a header; packets with more are malformed here.
 */
import { OptionList } from "./options.ts";

export const MAX_IPS = 10;
export const MAX_EXTENSIONS = 8;

/** How an IPv4 identification goes on (RFC 6846 6.1.2). */
export const ID = { SEQUENTIAL: 0, SWAPPED: 1, RANDOM: 2, ZERO: 3 } as const;

/** An IPv6 extension header: its own type, and its octets, of which the first (next header) is not used. */
export interface Extension {
  type: number;
  next: number;
  octets: Uint8Array;
}

export class TcpIp {
  version = 4;
  dscp = 0;
  ecn = 0;
  ttl = 0;
  /** The TTL of this packet alone, from an irregular chain; -1 if it is the context's. */
  ttlOnce = -1;
  /** The first header's next header: an extension's type or the transport's. */
  next = 0;
  readonly addresses = new Uint8Array(32);
  flowLabel = 0;
  df = false;
  behavior: number = ID.RANDOM;
  /** The identification as on the wire. */
  id = 0;
  /** Never changed in place once shared by `copyFrom`. */
  extensions: readonly Extension[] = [];

  /** @param mayHaveLists whether chains with extension headers are read. */
  constructor(readonly mayHaveLists = true) {}

  copyFrom(other: TcpIp): void {
    this.version = other.version;
    this.dscp = other.dscp;
    this.ecn = other.ecn;
    this.ttl = other.ttl;
    this.ttlOnce = -1;
    this.next = other.next;
    this.addresses.set(other.addresses);
    this.flowLabel = other.flowLabel;
    this.df = other.df;
    this.behavior = other.behavior;
    this.id = other.id;
    this.extensions = other.extensions;
  }

  /** What follows the header and its extension headers. */
  get protocol(): number {
    const { length } = this.extensions;
    return length === 0 ? this.next : this.extensions[length - 1].next;
  }
}

export class TcpState {
  readonly ips: TcpIp[];
  ipCount = 1;
  sourcePort = 0;
  destinationPort = 0;
  /** The compressor's own count of packets, 16 bits. */
  msn = 0;
  sequence = 0;
  sequenceScaled = 0;
  sequenceResidue = 0;
  hasScaledSequence = false;
  acknowledgment = 0;
  acknowledgmentScaled = 0;
  acknowledgmentResidue = 0;
  acknowledgmentStride = 0;
  window = 0;
  checksum = 0;
  urgentPointer = 0;
  reserved = 0;
  /** CWR and ECE. */
  ecn = 0;
  ecnUsed = false;
  urgent = false;
  acknowledges = false;
  push = false;
  /** RST, SYN, FIN. */
  rsf = 0;
  readonly options = new OptionList();

  /** @param mayHaveLists whether chains with extension headers, or more than two IP headers, are read; they are unless told. */
  constructor(readonly mayHaveLists = true) {
    this.ips = [new TcpIp(mayHaveLists)];
  }

  copyFrom(other: TcpState): void {
    this.ipCount = other.ipCount;
    for (let i = 0; i < other.ipCount; i++) this.ip(i).copyFrom(other.ips[i]);
    this.sourcePort = other.sourcePort;
    this.destinationPort = other.destinationPort;
    this.msn = other.msn;
    this.sequence = other.sequence;
    this.sequenceScaled = other.sequenceScaled;
    this.sequenceResidue = other.sequenceResidue;
    this.hasScaledSequence = other.hasScaledSequence;
    this.acknowledgment = other.acknowledgment;
    this.acknowledgmentScaled = other.acknowledgmentScaled;
    this.acknowledgmentResidue = other.acknowledgmentResidue;
    this.acknowledgmentStride = other.acknowledgmentStride;
    this.window = other.window;
    this.urgentPointer = other.urgentPointer;
    this.reserved = other.reserved;
    this.ecn = other.ecn;
    this.ecnUsed = other.ecnUsed;
    this.urgent = other.urgent;
    this.acknowledges = other.acknowledges;
    this.rsf = other.rsf;
    this.options.copyFrom(other.options);
  }

  /** The IP header at `index`, made when it is first used. */
  ip(index: number): TcpIp {
    while (this.ips.length <= index) this.ips.push(new TcpIp(this.mayHaveLists));
    return this.ips[index];
  }

  get inner(): TcpIp {
    return this.ips[this.ipCount - 1];
  }
}
