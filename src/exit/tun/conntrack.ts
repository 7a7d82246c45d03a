/**
 * Deletes and counts connections of the kernel's conntrack table by their mark, with one netlink message for all
 * (linux/netfilter/nfnetlink_conntrack.h). Invariant: a connection without the mark is never touched nor counted, and a count
 * leaves the thread to others between pieces. Makes none.
 */
import { libc, O_CLOEXEC } from "../../../ffi/mod.ts";

const AF_NETLINK = 16, SOCK_RAW = 3, NETLINK_NETFILTER = 12;
const MSG_DONTWAIT = 0x40;
/** NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE. */
const CT_DELETE = 0x0102;
/** IPCTNL_MSG_CT_GET, and IPCTNL_MSG_CT_NEW, as which each connection of a listing arrives. */
const CT_GET = 0x0101, CT_NEW = 0x0100;
const NLM_F_REQUEST = 1, NLM_F_ACK = 4, NLM_F_DUMP = 0x300;
const NLMSG_ERROR = 2, NLMSG_DONE = 3;
const CTA_MARK = 8, CTA_MARK_MASK = 21;
const MESSAGE_BYTES = 36, ADDRESS_BYTES = 12, ATTRIBUTE_BYTES = 8;
/** A piece of a listing: the kernel fills at most this much, some hundred connections. */
const PIECE_BYTES = 32_768;
/** Pieces that are read before others have a turn. */
const PIECES_AT_ONCE = 16;

/**
 * Deletes every connection, of either family, whose mark is `mark` in the bits of `mask`, both u32 and the mask not 0.
 * The connections are deleted on return. Throws a sentence when the kernel refuses, as without CAP_NET_ADMIN.
 */
export function forgetMarked(mark: number, mask = 0xffffffff): void {
  if (mask === 0) throw new Error("a mask of 0 would delete every connection of the host");
  const { socket, sendto, recvfrom, close } = libc();
  const fd = socket(AF_NETLINK, SOCK_RAW | O_CLOEXEC, NETLINK_NETFILTER);
  if (fd < 0) throw new Error("conntrack cannot be reached: the system refuses a netlink socket");
  try {
    const kernel = kernelAddress();
    const message = request(CT_DELETE, NLM_F_ACK, mark, mask);
    if (Number(sendto(fd, message, BigInt(message.length), 0, kernel, kernel.length)) < 0) {
      throw new Error("conntrack cannot be reached: the kernel refuses the netlink message");
    }
    const answer = new Uint8Array(1024), length = new Uint8Array(4);
    length[0] = ADDRESS_BYTES;
    const size = Number(recvfrom(fd, answer, BigInt(answer.length), MSG_DONTWAIT, kernel, length));
    const view = new DataView(answer.buffer);
    if (size < 20 || view.getUint16(4, true) !== NLMSG_ERROR) {
      throw new Error("conntrack does not answer");
    }
    const errno = -view.getInt32(16, true);
    if (errno !== 0) throw new Error(`conntrack refuses to delete connections: errno ${errno}`);
  } finally {
    close(fd);
  }
}

/**
 * How many connections, of both families, have the mark in the bits of `mask`; undefined where the kernel refuses to list them, or
 * the table changes so much that the listing breaks off.
 */
export async function countMarked(mark: number, mask: number): Promise<number | undefined> {
  const { socket, sendto, recvfrom, close } = libc();
  const fd = socket(AF_NETLINK, SOCK_RAW | O_CLOEXEC, NETLINK_NETFILTER);
  if (fd < 0) return undefined;
  try {
    const kernel = kernelAddress();
    const message = request(CT_GET, NLM_F_DUMP, mark, mask);
    if (Number(sendto(fd, message, BigInt(message.length), 0, kernel, kernel.length)) < 0) return undefined;
    const piece = new Uint8Array(PIECE_BYTES), length = new Uint8Array(4);
    const view = new DataView(piece.buffer);
    let count = 0;
    for (let pieces = 1;; pieces++) {
      length[0] = ADDRESS_BYTES;
      const size = Number(recvfrom(fd, piece, BigInt(piece.length), MSG_DONTWAIT, kernel, length));
      if (size < 16) return undefined;
      for (let at = 0; at + 16 <= size; at += Math.max(16, view.getUint32(at, true) + 3 & ~3)) {
        const type = view.getUint16(at + 4, true);
        if (type === NLMSG_DONE) return count;
        if (type === NLMSG_ERROR) return undefined;
        if (type === CT_NEW) count++;
      }
      if (pieces % PIECES_AT_ONCE === 0) await new Promise((resolve) => setTimeout(resolve, 0));
    }
  } finally {
    close(fd);
  }
}

function kernelAddress(): Uint8Array<ArrayBuffer> {
  const kernel = new Uint8Array(ADDRESS_BYTES);
  new DataView(kernel.buffer).setUint16(0, AF_NETLINK, true);
  return kernel;
}

/** struct nlmsghdr in the machine's order (little-endian), struct nfgenmsg, and two attributes in network order. */
function request(type: number, flags: number, mark: number, mask: number): Uint8Array<ArrayBuffer> {
  const message = new Uint8Array(MESSAGE_BYTES);
  const view = new DataView(message.buffer);
  view.setUint32(0, MESSAGE_BYTES, true);
  view.setUint16(4, type, true);
  view.setUint16(6, NLM_F_REQUEST | flags, true);
  for (const [i, [attribute, value]] of [[CTA_MARK, mark], [CTA_MARK_MASK, mask]].entries()) {
    const at = 20 + ATTRIBUTE_BYTES * i;
    view.setUint16(at, ATTRIBUTE_BYTES, true);
    view.setUint16(at + 2, attribute, true);
    view.setUint32(at + 4, value);
  }
  return message;
}
