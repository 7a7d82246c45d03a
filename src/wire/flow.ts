// Hot path.
/**
 * The fields of an inner packet that name its flow and hint at its class: addresses, ports, DSCP, flags. Invariant: nothing
 * beyond the packet's length is read, and both directions of a flow have one name. Keeps only the last packet's fields.
 */
import {
  IPV4_HEADER_BYTES,
  IPV6_HEADER_BYTES,
  isFragment,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  protocolOf,
  transportAt,
  UDP_HEADER_BYTES,
} from "./inner.ts";

/** The TCP flags except ACK and those of ECN: FIN, SYN, RST, PSH, URG. */
const TCP_FLAGS_BUT_ACK = 0x2f;
const TCP_HEADER_BYTES = 20;

/** Reads one packet at a time. */
export class FlowReader {
  /** IP protocol number. */
  protocol = 0;
  /** The far end's port and the near end's, 16 bits each; 0 for a protocol without ports, or where the header is not present. */
  ports = 0;
  /** Words that name the flow, 4 or 10. */
  wordCount = 0;
  /** The flow is that of the packet before, so its name is not written. IPv4 only; for IPv6 the caller compares. */
  isSame = false;
  /** TOS or traffic class byte. `look` sets this and the fields below. */
  tos = 0;
  /** TCP that carries no data and no flag but ACK and ECN's, or whose header is cut off (RFC 9293 §3.1, RFC 3168 §6.1). */
  isAck = false;
  /** Where the packet begins. */
  packetAt = 0;
  /** Where UDP's payload begins, and its bytes in the packet; 0 without one. */
  payloadAt = 0;
  payloadBytes = 0;
  #far = 0;
  #near = 0;
  /** Where the transport header begins, and bytes from there to the packet's end; 0 for a fragment. */
  #transport = 0;
  #room = 0;

  /** Forgets the last packet, so that the next flow's name is written. */
  begin(): void {
    this.wordCount = 0;
  }

  /**
   * Reads the flow of the packet of `bytes` at `at` and, unless `isSame`, writes its name to `words`: far address, near
   * address, ports, protocol. The far end is the source of a packet that goes into the tunnel, and the destination of one
   * that `comesOut`. False when the IP header is not whole.
   */
  read(view: DataView, at: number, bytes: number, words: Uint32Array, comesOut: boolean): boolean {
    if (bytes < IPV4_HEADER_BYTES) return false;
    if (view.getUint8(at) >> 4 !== 4) return this.#readIpv6(view, at, bytes, words, comesOut);
    const protocol = view.getUint8(at + 9);
    const far = view.getInt32(comesOut ? at + 16 : at + 12),
      near = view.getInt32(comesOut ? at + 12 : at + 16);
    // A fragment belongs to the flow of its addresses: only the first fragment has ports.
    const isWhole = (view.getUint16(at + 6) & 0x3fff) === 0;
    const transport = isWhole ? at + (view.getUint8(at) & 15) * 4 : at;
    const ports = this.#readPorts(view, protocol, transport, isWhole ? at + bytes - transport : 0, comesOut);
    this.isSame = this.wordCount === 4 && ports === this.ports && far === this.#far && near === this.#near &&
      protocol === this.protocol;
    if (this.isSame) return true;
    this.ports = ports;
    this.protocol = protocol;
    this.wordCount = 4;
    words[0] = this.#far = far;
    words[1] = this.#near = near;
    words[2] = ports;
    words[3] = protocol;
    return true;
  }

  #readIpv6(view: DataView, at: number, bytes: number, words: Uint32Array, comesOut: boolean): boolean {
    if (bytes < IPV6_HEADER_BYTES) return false;
    let protocol = view.getUint8(at + 6), transport = at + IPV6_HEADER_BYTES;
    if (protocol !== PROTOCOL_TCP && protocol !== PROTOCOL_UDP) {
      transport = isFragment(view, at, bytes) ? 0 : transportAt(view, at, bytes);
      protocol = protocolOf(view, at, bytes);
    }
    const room = transport === 0 ? 0 : at + bytes - transport;
    const ports = this.#readPorts(view, protocol, transport, room, comesOut);
    const far = comesOut ? at + 24 : at + 8, near = comesOut ? at + 8 : at + 24;
    this.isSame = false;
    this.ports = ports;
    this.protocol = protocol;
    this.wordCount = 10;
    for (let i = 0; i < 4; i++) {
      words[i] = view.getUint32(far + 4 * i);
      words[4 + i] = view.getUint32(near + 4 * i);
    }
    words[8] = ports;
    words[9] = protocol;
    return true;
  }

  #readPorts(view: DataView, protocol: number, transport: number, room: number, comesOut: boolean): number {
    this.#transport = transport;
    this.#room = room;
    if (room < 4 || (protocol !== PROTOCOL_TCP && protocol !== PROTOCOL_UDP)) return 0;
    const ports = view.getInt32(transport);
    return comesOut ? ports << 16 | ports >>> 16 : ports;
  }

  /** Reads the rest of the packet at `at` that was read last: `tos`, `isAck`, and where it and its payload are. */
  look(view: DataView, at: number): void {
    this.packetAt = at;
    this.tos = view.getUint16(at) >> (view.getUint8(at) >> 4 === 4 ? 0 : 4) & 255;
    const { protocol } = this, transport = this.#transport, room = this.#room;
    this.isAck = protocol === PROTOCOL_TCP &&
      (room < TCP_HEADER_BYTES || acknowledgesOnly(view, transport, room));
    const isUdp = protocol === PROTOCOL_UDP && room > UDP_HEADER_BYTES;
    this.payloadAt = transport + UDP_HEADER_BYTES;
    this.payloadBytes = isUdp ? room - UDP_HEADER_BYTES : 0;
  }
}

function acknowledgesOnly(view: DataView, transport: number, room: number): boolean {
  const offsetAndFlags = view.getUint16(transport + 12);
  return (offsetAndFlags >> 12) * 4 === room && (offsetAndFlags & TCP_FLAGS_BUT_ACK) === 0;
}
