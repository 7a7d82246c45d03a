/**
 * A change of a peer's record, as people ask for it. Invariant: what is not named stays as it is. Checks no value: the store does.
 */
import type { PeerRecord } from "../../session/peer_record.ts";

/** New values of a peer's fields: null takes one away, an absent or undefined one stays. */
export interface PeerChange {
  name?: string;
  disabled?: boolean;
  expires?: string | null;
  monthlyBytes?: number | null;
  rateDownBps?: number | null;
  rateUpBps?: number | null;
  notes?: string | null;
}

/** The record with the change made. */
export function changed(record: PeerRecord, { disabled, ...rest }: PeerChange): PeerRecord {
  const wanted = { ...rest, disabled: disabled === undefined ? undefined : disabled || null };
  const named = Object.entries(wanted).filter(([, value]) => value !== undefined);
  const all = Object.entries({ ...record, ...Object.fromEntries(named) });
  return Object.fromEntries(all.filter(([, value]) => value !== null)) as unknown as PeerRecord;
}
