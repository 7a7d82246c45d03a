// Hot path.
/**
 * What of an inner packet names its flow and tells its class: addresses, ports, marks, and little more. Invariant: nothing
 * beyond the packet's length is read, and both directions of a flow have one name. Keeps nothing but the last packet's.
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

/** Of the TCP flags, all but ACK and what ECN needs: FIN, SYN, RST, PSH, URG. */
const TCP_FLAGS_BUT_ACK = 0x2f;
const TCP_HEADER_BYTES = 20;

/** Reads one packet at a time. */
export class FlowReader {
  /** IP protocol number. */
  protocol = 0;
  /** The far end's port and the near end's, 16 bits each; 0 where there are none, or where they are not in sight. */
  ports = 0;
  /** TOS or traffic class byte. */
  tos = 0;
  /** Words that name the flow, 4 or 10. */
  wordCount = 0;
  /** TCP that carries no data and no flag but ACK and ECN's, or whose header is cut off (RFC 9293 §3.1, RFC 3168 §6.1). */
  isAck = false;
  /** The first byte of UDP's payload; -1 without one. */
  firstByte = -1;

  /**
   * Reads the packet of `bytes` at `at` and writes the name of its flow to `words`: far address, near address, ports,
   * protocol. The far end sends a packet that goes into the tunnel, and is sent one that `comesOut`. False when there is no whole IP header.
   */
  read(view: DataView, at: number, bytes: number, words: Uint32Array, comesOut: boolean): boolean {
    if (bytes < IPV4_HEADER_BYTES) return false;
    const first = view.getUint32(at);
    let transport: number;
    if (first >>> 28 === 4) {
      this.tos = first >> 16 & 255;
      this.protocol = view.getUint8(at + 9);
      // A fragment is of its addresses' flow: only the first one has ports.
      transport = (view.getUint16(at + 6) & 0x3fff) !== 0 ? 0 : at + (first >> 24 & 15) * 4;
      words[0] = view.getUint32(comesOut ? at + 16 : at + 12);
      words[1] = view.getUint32(comesOut ? at + 12 : at + 16);
      this.wordCount = 4;
    } else {
      if (bytes < IPV6_HEADER_BYTES) return false;
      this.tos = first >> 20 & 255;
      this.protocol = view.getUint8(at + 6);
      transport = at + IPV6_HEADER_BYTES;
      if (this.protocol !== PROTOCOL_TCP && this.protocol !== PROTOCOL_UDP) {
        transport = isFragment(view, at, bytes) ? 0 : transportAt(view, at, bytes);
        this.protocol = protocolOf(view, at, bytes);
      }
      const far = comesOut ? at + 24 : at + 8, near = comesOut ? at + 8 : at + 24;
      for (let i = 0; i < 4; i++) {
        words[i] = view.getUint32(far + 4 * i);
        words[4 + i] = view.getUint32(near + 4 * i);
      }
      this.wordCount = 10;
    }
    this.#readTransport(view, transport, transport === 0 ? 0 : at + bytes - transport, comesOut);
    words[this.wordCount - 2] = this.ports;
    words[this.wordCount - 1] = this.protocol;
    return true;
  }

  /** @param room bytes from `transport` to the packet's end; 0 for a fragment. */
  #readTransport(view: DataView, transport: number, room: number, comesOut: boolean): void {
    const { protocol } = this;
    this.ports = 0;
    this.isAck = false;
    this.firstByte = -1;
    if (protocol === PROTOCOL_TCP) {
      this.isAck = room < TCP_HEADER_BYTES || acknowledgesOnly(view, transport, room);
    } else if (protocol === PROTOCOL_UDP) {
      if (room > UDP_HEADER_BYTES) this.firstByte = view.getUint8(transport + UDP_HEADER_BYTES);
    } else return;
    if (room < 4) return;
    const ports = view.getInt32(transport);
    this.ports = comesOut ? ports << 16 | ports >>> 16 : ports;
  }
}

function acknowledgesOnly(view: DataView, transport: number, room: number): boolean {
  const offsetAndFlags = view.getUint16(transport + 12);
  return (offsetAndFlags >> 12) * 4 === room && (offsetAndFlags & TCP_FLAGS_BUT_ACK) === 0;
}
