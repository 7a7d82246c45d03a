/**
 * Deletes connections of the kernel's conntrack table by their mark, with one netlink message for all
 * (linux/netfilter/nfnetlink_conntrack.h). Invariant: a connection without the mark is never touched. Lists and makes none.
 */
import { libc, O_CLOEXEC } from "../../../ffi/mod.ts";

const AF_NETLINK = 16, SOCK_RAW = 3, NETLINK_NETFILTER = 12;
const MSG_DONTWAIT = 0x40;
/** NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE. */
const CT_DELETE = 0x0102;
const NLM_F_REQUEST = 1, NLM_F_ACK = 4;
const NLMSG_ERROR = 2;
const CTA_MARK = 8, CTA_MARK_MASK = 21;
const MESSAGE_BYTES = 36, ADDRESS_BYTES = 12, ATTRIBUTE_BYTES = 8;

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
    const message = deletion(mark, mask);
    const kernel = new Uint8Array(ADDRESS_BYTES);
    new DataView(kernel.buffer).setUint16(0, AF_NETLINK, true);
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

/** struct nlmsghdr in the machine's order (little-endian), struct nfgenmsg, and two attributes in network order. */
function deletion(mark: number, mask: number): Uint8Array<ArrayBuffer> {
  const message = new Uint8Array(MESSAGE_BYTES);
  const view = new DataView(message.buffer);
  view.setUint32(0, MESSAGE_BYTES, true);
  view.setUint16(4, CT_DELETE, true);
  view.setUint16(6, NLM_F_REQUEST | NLM_F_ACK, true);
  for (const [i, [type, value]] of [[CTA_MARK, mark], [CTA_MARK_MASK, mask]].entries()) {
    const at = 20 + ATTRIBUTE_BYTES * i;
    view.setUint16(at, ATTRIBUTE_BYTES, true);
    view.setUint16(at + 2, type, true);
    view.setUint32(at + 4, value);
  }
  return message;
}
