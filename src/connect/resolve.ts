/**
 * Host names to addresses by a query to a resolver through the tunnel (RFC 1035 §4): the client's stub, for programs that
 * hand names to its proxy. Invariant: an answer counts only from the resolver that was asked, for the question that was
 * asked, and nothing in it is followed beyond its own length. Keeps no cache: names.ts does.
 */
import type { Dialler, TunnelDatagram } from "../exit/userspace/dialler.ts";
import { formatAddress, parseAddress } from "../wire/address.ts";

/** Where resolvers listen. */
export const RESOLVER_PORT = 53;
/** Types of records (RFC 1035 §3.2.2, RFC 3596). */
export const TYPE_A = 1, TYPE_AAAA = 28;
const CLASS_IN = 1;
const HEADER_BYTES = 12;
const ANSWERS_MAX = 64;
const TRY_MS = 2000;
const TRIES = 2;

/**
 * Asks for the addresses of a name and gives each family's to `found` as its answer arrives, so that a slow answer about one does
 * not delay the other. Resolves when no more will come; `found` is not called for a name without an address that the tunnel can reach.
 * Throws when no resolver answers.
 */
export async function resolveThrough(
  dialler: Pick<Dialler, "listen">,
  resolvers: readonly string[],
  name: string,
  families: { ipv4: boolean; ipv6: boolean },
  found: (addresses: readonly string[]) => void,
): Promise<void> {
  if (parseAddress(name) !== undefined) return found([name]);
  const types = [...(families.ipv4 ? [TYPE_A] : []), ...(families.ipv6 ? [TYPE_AAAA] : [])];
  for (let turn = 0; turn < TRIES; turn++) {
    for (const resolver of resolvers) {
      const answers = await Promise.all(types.map(async (type) => {
        const answer = await ask(dialler, resolver, name, type);
        if (answer !== undefined && answer.length > 0) found(answer);
        return answer;
      }));
      if (answers.some((answer) => answer !== undefined)) return;
    }
  }
  throw new Error(`no resolver answers (${resolvers.join(", ") || "none is configured"})`);
}

/** One question; undefined when nobody answered it, the resolver failed, or there is none at its address. */
function ask(
  dialler: Pick<Dialler, "listen">,
  resolver: string,
  name: string,
  type: number,
): Promise<string[] | undefined> {
  const id = crypto.getRandomValues(new Uint16Array(1))[0];
  const query = encodeQuery(id, name, type);
  if (!query) return Promise.resolve([]);
  const { promise, resolve } = Promise.withResolvers<string[] | undefined>();
  const from = formatAddress(parseAddress(resolver)!);
  const socket = dialler.listen(({ address, port, data }: TunnelDatagram) => {
    if (address !== from || port !== RESOLVER_PORT) return;
    const answer = decodeAnswer(data, query, type);
    if (answer !== "other") resolve(answer);
  }, () => resolve(undefined));
  const timer = setTimeout(() => resolve(undefined), TRY_MS);
  if (!socket.send(query, resolver, RESOLVER_PORT)) resolve(undefined);
  return promise.finally(() => {
    clearTimeout(timer);
    socket.close();
  });
}

/** A query for recursion, or undefined when the name is none (RFC 1035 §2.3.4: labels to 63, in all to 255 bytes). */
export function encodeQuery(id: number, name: string, type: number): Uint8Array<ArrayBuffer> | undefined {
  const labels = name.replace(/\.$/, "").split(".");
  const isName = name.length <= 253 && labels.every((label) => /^[A-Za-z0-9_-]{1,63}$/.test(label));
  if (!isName) return undefined;
  const bytes = new Uint8Array(HEADER_BYTES + labels.join(".").length + 2 + 4);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, id);
  view.setUint16(2, 0x0100);
  view.setUint16(4, 1);
  let at = HEADER_BYTES;
  for (const label of labels) {
    bytes[at++] = label.length;
    bytes.set(new TextEncoder().encode(label), at);
    at += label.length;
  }
  view.setUint16(at + 1, type);
  view.setUint16(at + 3, CLASS_IN);
  return bytes;
}

/**
 * The addresses in an answer to `query`; undefined when the resolver says that it failed, "other" when it answers
 * another question.
 */
export function decodeAnswer(
  data: Uint8Array<ArrayBuffer>,
  query: Uint8Array<ArrayBuffer>,
  type: number,
): string[] | undefined | "other" {
  const view = new DataView(data.buffer, data.byteOffset, data.length);
  if (data.length < query.length || view.getUint16(0) !== new DataView(query.buffer).getUint16(0)) {
    return "other";
  }
  const flags = view.getUint16(2);
  if ((flags & 0x8000) === 0 || view.getUint16(4) !== 1) return "other";
  for (let i = HEADER_BYTES; i < query.length; i++) {
    // Names are compared without regard to case; the lengths and types in between have no letters to confuse.
    if (lower(data[i]) !== lower(query[i])) return "other";
  }
  const code = flags & 15;
  if (code === 3) return [];
  if (code !== 0) return undefined;
  const addresses: string[] = [];
  let at = query.length;
  for (let left = Math.min(ANSWERS_MAX, view.getUint16(6)); left > 0; left--) {
    at = skipName(data, at);
    if (at + 10 > data.length) break;
    const length = view.getUint16(at + 8), kind = view.getUint16(at);
    at += 10;
    if (at + length > data.length) break;
    const bytes = data.subarray(at, at + length);
    if (kind === type && type === TYPE_A && length === 4) addresses.push(bytes.join("."));
    if (kind === type && type === TYPE_AAAA && length === 16) {
      addresses.push(Array.from({ length: 8 }, (_, i) => view.getUint16(at + 2 * i).toString(16)).join(":"));
    }
    at += length;
  }
  return addresses;
}

function lower(byte: number): number {
  return byte >= 65 && byte <= 90 ? byte + 32 : byte;
}

/** Where the name at `at` ends; beyond the data when it does not. */
function skipName(data: Uint8Array, at: number): number {
  while (at < data.length) {
    const length = data[at];
    if (length === 0) return at + 1;
    if (length >= 0xc0) return at + 2;
    at += 1 + length;
  }
  return at + data.length;
}
