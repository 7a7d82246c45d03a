/**
 * Peers' forwards as the exits have them: every port of every family on its own, with the peer that it leads to. Invariant: only
 * an address that is a peer's alone is forwarded to. Opens nothing.
 */
import type { PortForward, RefusedForward } from "../exit/forward.ts";
import { formatForward, FORWARD_FORM, parseForward } from "../process/forward_text.ts";
import { CommandError } from "../process/help.ts";
import { keyFromText } from "../process/keys_text.ts";
import type { PeerRecord } from "../session/peer_record.ts";
import { ownerOf } from "../session/peers.ts";

/** A forward, and whose it is. */
export interface PeerForward extends PortForward {
  peer: string;
  publicKey: string;
}

export type RefusedPeerForward = RefusedForward<PeerForward>;

/** A peer's single addresses: its first of each family. */
export function soleAddresses({ allowedIps }: Pick<PeerRecord, "allowedIps">): string[] {
  const sole = (suffix: string) =>
    allowedIps.find((prefix) => prefix.endsWith(suffix))?.slice(0, -suffix.length);
  const v4 = allowedIps.some((prefix) => prefix.includes(".") && prefix.endsWith("/32"))
    ? sole("/32")
    : undefined;
  return [v4, sole("/128")].filter((address) => address !== undefined);
}

/** All forwards that the peers' records have; their texts must have been checked. */
export function forwardsOf(peers: readonly PeerRecord[]): PeerForward[] {
  return peers.flatMap((record) => {
    const { name: peer, publicKey, forwards = [] } = record;
    if (forwards.length === 0) return [];
    const addresses = soleAddresses(record);
    return forwards.flatMap((text) => {
      const { protocol, low, high, inner } = parseForward(text)!;
      return Array.from({ length: high - low + 1 }, (_, i) =>
        addresses.map((address) => ({
          protocol,
          outer: low + i,
          address,
          port: inner + i,
          peer,
          publicKey,
        }))).flat();
    });
  });
}

/**
 * Ports that are lent, without those that `met` a record: of its outer port, whatever the family, or to its place. Together they
 * could not be opened at all.
 */
export function besideRecords(
  records: readonly PortForward[],
  leased: readonly PeerForward[],
): { kept: PeerForward[]; met: PeerForward[] } {
  const outers = new Set(records.map(({ protocol, outer }) => `${protocol} ${outer}`));
  const places = new Set(records.map(({ protocol, address, port }) => `${protocol} ${address} ${port}`));
  const { kept = [], met = [] } = Object.groupBy(
    leased,
    ({ protocol, outer, address, port }) =>
      outers.has(`${protocol} ${outer}`) || places.has(`${protocol} ${address} ${port}`) ? "met" : "kept",
  );
  return { kept, met };
}

/** Those whose peers the Worker owns. */
export function forwardsOfWorker(
  forwards: readonly PeerForward[],
  worker: number,
  workers: number,
): PeerForward[] {
  return forwards.filter(({ publicKey }) => {
    const key = keyFromText(publicKey);
    return key !== undefined && ownerOf(key, workers) === worker;
  });
}

/** Why forwards are not open, each port once, as sentences. */
export function describeRefused(refused: readonly RefusedPeerForward[]): string[] {
  const sentences = refused.map(({ forward: { protocol, outer, peer }, reason }) =>
    `${protocol}:${outer} of peer "${peer}" is not forwarded: ${protocol.toUpperCase()} port ${outer} ${reason}`
  );
  return [...new Set(sentences)];
}

/** The record with more forwards. Throws CommandError for a text that is none, or a peer without an address of its own. */
export function withForwards(record: PeerRecord, more: readonly string[]): PeerRecord {
  if (soleAddresses(record).length === 0) {
    throw new CommandError(`peer "${record.name}" has networks and no single address to forward to`);
  }
  const texts = more.map((text) => {
    const forward = parseForward(text);
    if (forward === undefined) throw new CommandError(`"${text}" is no forward; expected ${FORWARD_FORM}`);
    return formatForward(forward);
  });
  return { ...record, forwards: [...new Set([...record.forwards ?? [], ...texts])] };
}

/** The record without some of its forwards. Throws CommandError for one that it does not have. */
export function withoutForwards(record: PeerRecord, gone: readonly string[]): PeerRecord {
  const { forwards = [], ...rest } = record;
  for (const text of gone) {
    if (!forwards.includes(text)) {
      throw new CommandError(
        `peer "${record.name}" has no forward ${text}; it has ${forwards.join(", ") || "none"}`,
      );
    }
  }
  const left = forwards.filter((text) => !gone.includes(text));
  return left.length > 0 ? { ...rest, forwards: left } : rest;
}
