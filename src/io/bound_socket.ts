/**
 * A UDP socket that leaves by one interface whatever the routes say: bound to the device (SO_BINDTODEVICE, which Linux allows
 * everybody since 5.7 for a socket that is bound to none yet), or else to an address of the interface. Invariant: what is not
 * handed over is closed. Sends nothing.
 */
import { cString, libc, O_CLOEXEC, O_NONBLOCK } from "../../ffi/mod.ts";
import { type Address, isIpv4, mappedBytes, parseAddress } from "../wire/address.ts";

// Of Linux on x86-64 and arm64: asm-generic/socket.h, linux/in6.h.
const AF_INET = 2, AF_INET6 = 10, SOCK_DGRAM = 2;
const SOL_SOCKET = 1, SO_BINDTODEVICE = 25;
const IPPROTO_IPV6 = 41, IPV6_V6ONLY = 26;
const NO = new Uint8Array(4);
const SOCKADDR_IN_BYTES = 16, SOCKADDR_IN6_BYTES = 28;
const ANY: Address = new Uint32Array(4);

/** How a socket is held to its interface. */
export type Binding = "device" | "address";

/**
 * Opens the socket on a port of the system's choice, for both families where the system has both. `addresses` are the
 * interface's own, for systems that do not bind to devices: the first that can be bound counts, and its family is then the only
 * one. Returns the descriptor, which is the caller's. Throws a sentence without a full stop.
 */
export function openBound(
  device: string,
  addresses: readonly string[],
): { descriptor: number; binding: Binding } {
  const words = addresses.map((address) => parseAddress(address)).filter((one) => one !== undefined);
  for (const family of [AF_INET6, AF_INET]) {
    const descriptor = libc().socket(family, SOCK_DGRAM | O_NONBLOCK | O_CLOEXEC, 0);
    if (descriptor < 0) continue;
    libc().setsockopt(descriptor, IPPROTO_IPV6, IPV6_V6ONLY, NO, NO.length);
    const name = cString(device);
    if (libc().setsockopt(descriptor, SOL_SOCKET, SO_BINDTODEVICE, name, name.length) === 0) {
      if (bindTo(descriptor, family, ANY)) return { descriptor, binding: "device" };
    } else if (words.some((address) => bindTo(descriptor, family, address))) {
      return { descriptor, binding: "address" };
    }
    libc().close(descriptor);
  }
  throw new Error(`no socket can be bound to ${device}: the interface is gone, or it has no address`);
}

function bindTo(descriptor: number, family: number, address: Address): boolean {
  const name = new Uint8Array(family === AF_INET6 ? SOCKADDR_IN6_BYTES : SOCKADDR_IN_BYTES);
  new DataView(name.buffer).setUint16(0, family, true);
  if (family === AF_INET && address !== ANY && !isIpv4(address)) return false;
  // An IPv6 socket knows IPv4 addresses in their mapped form, as the words have them; the other has the last four bytes.
  if (family === AF_INET6) name.set(mappedBytes(address), 8);
  else name.set(mappedBytes(address).subarray(12), 4);
  return libc().bind(descriptor, name, name.length) === 0;
}
