/**
 * Cuts inner packets that exceed the tunnel's MTU into fragments (RFC 791 §3.2, RFC 8200 §4.5), for an exit that
 * gets whole datagrams from its sockets. Invariant: every piece fits the MTU and repeats the header of the whole.
 * Takes only packets that the exit built itself: no IPv4 options, no IPv6 extension headers.
 */
import { foldSum, IPV4_HEADER_BYTES, IPV6_HEADER_BYTES, sumWords } from "../../wire/inner.ts";

const MORE_FRAGMENTS = 0x2000;
const IPV6_FRAGMENT = 44;
const FRAGMENT_HEADER_BYTES = 8;

/** The packet itself when it fits `mtu` bytes (68 or more; IPv6: 1280 or more), else its fragments in order. */
export function fragment(whole: Uint8Array, mtu: number, identification: number): Uint8Array[] {
  if (whole.length <= mtu) return [whole];
  const v4 = whole[0] >> 4 === 4;
  const header = v4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES;
  const extra = v4 ? 0 : FRAGMENT_HEADER_BYTES;
  const step = (mtu - header - extra) & ~7;
  const body = whole.length - header;
  const pieces: Uint8Array[] = [];
  for (let at = 0; at < body; at += step) {
    const size = Math.min(step, body - at);
    const more = at + size < body;
    const piece = new Uint8Array(header + extra + size);
    const view = new DataView(piece.buffer);
    piece.set(whole.subarray(0, header));
    piece.set(whole.subarray(header + at, header + at + size), header + extra);
    if (v4) {
      view.setUint16(2, piece.length);
      view.setUint16(4, identification);
      view.setUint16(6, (more ? MORE_FRAGMENTS : 0) | (at >> 3));
      view.setUint16(10, 0);
      view.setUint16(10, foldSum(sumWords(view, 0, header, 0)));
    } else {
      view.setUint16(4, extra + size);
      view.setUint8(6, IPV6_FRAGMENT);
      view.setUint8(header, whole[6]);
      view.setUint16(header + 2, at | (more ? 1 : 0));
      view.setUint32(header + 4, identification);
    }
    pieces.push(piece);
  }
  return pieces;
}
