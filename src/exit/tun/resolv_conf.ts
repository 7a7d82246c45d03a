/**
 * The client's change to /etc/resolv.conf. Invariant: the new text holds the old one as comments, from which the old one is
 * restored exactly. Decides nothing about when.
 */
import { cString, libc, O_CLOEXEC, O_RDWR } from "../../../ffi/mod.ts";
import { formatAddress, parseAddress } from "../../wire/address.ts";
import { READ_MAX, readThrough } from "./listening.ts";

export const RESOLV_CONF = "/etc/resolv.conf";
const RESOLVED_CONF = "/run/systemd/resolve/resolv.conf";
const STUB_RESOLVER = "127.0.0.53";
const KEPT = "#oxrelay: ";

/** Whether the text leads to systemd-resolved's stub. */
export function usesStub(text: string): boolean {
  return new RegExp(`^nameserver\\s+${STUB_RESOLVER}\\s*$`, "m").test(text);
}

/** Whether the text is one of this program's. */
export function isReplaced(text: string): boolean {
  return text.includes(KEPT);
}

/** The resolvers that this system uses outside the tunnel, as text. */
export function outsideResolvers(): string[] {
  const now = readResolvConf() ?? "";
  const before = originalResolvConf(now) ?? now;
  // The resolvers behind a local stub are listed in another file.
  const text = before.includes(STUB_RESOLVER) ? readThrough(RESOLVED_CONF) ?? before : before;
  return [...text.matchAll(/^nameserver\s+(\S+)/gm)].flatMap(([, server]) => {
    const address = parseAddress(server);
    return address === undefined ? [] : [formatAddress(address)];
  });
}

/** The new text of resolv.conf, with the old one in it as comments. */
export function replacedResolvConf(
  before: string,
  dns: readonly string[],
  search: readonly string[] = [],
): string {
  const kept = before.replace(/\n$/, "").split("\n").map((line) => `${KEPT}${line}\n`);
  // glibc reads three.
  const servers = dns.slice(0, 3).map((address) => `nameserver ${address}\n`);
  return [...servers, ...(search.length > 0 ? [`search ${search.join(" ")}\n`] : []), ...kept].join("");
}

/** The text that was replaced, or undefined when this program did not write the file. */
export function originalResolvConf(text: string): string | undefined {
  const kept = text.split("\n").filter((line) => line.startsWith(KEPT));
  return kept.length === 0 ? undefined : kept.map((line) => `${line.slice(KEPT.length)}\n`).join("");
}

/**
 * The file's text, or undefined when the file cannot be read or is too long to be kept whole. Through the C library, because
 * Deno would need the permission for a link's target.
 */
export function readResolvConf(): string | undefined {
  const text = readThrough(RESOLV_CONF);
  return text === undefined || text.length >= READ_MAX ? undefined : text;
}

/**
 * Writes the file in place, because the file is often a link or a mount, which a rename would break. One write and then one
 * truncation, so that a crash between them leaves the new text whole. False when the file was not written.
 */
export function writeResolvConf(text: string): boolean {
  const fd = libc().open(cString(RESOLV_CONF), O_RDWR | O_CLOEXEC);
  if (fd < 0) return false;
  const bytes = new TextEncoder().encode(text);
  const written = Number(libc().write(fd, bytes, BigInt(bytes.length)));
  const cut = libc().ftruncate(fd, BigInt(Math.max(0, written)));
  libc().close(fd);
  return written === bytes.length && cut === 0;
}
