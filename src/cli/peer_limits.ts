/**
 * A peer's limits on the command line, for `peer add`, `peer set` and `peer link`: read, and said in words. Invariant: what is read is
 * what the store and /v1 take; "none" takes a limit away. Reads no clock and stores nothing.
 */
import { readRate } from "../connect/options.ts";
import { UsageError } from "../process/help.ts";
import type { PeerChange } from "../serve/access/peer_change.ts";
import { MONTHLY_BYTES_MAX, NOTES_CHARACTERS_MAX, type PeerRecord } from "../session/peer_record.ts";
import { formatBytes, formatRate } from "./status.ts";

/** The options beside the two of the rates. */
export const LIMIT_OPTIONS = ["expires", "volume", "notes"];

export const LIMITS_HELP =
  `  --expires WHEN        from then on the device is kept out: 30d, 12h, a day as 2026-12-31 (from its first minute on, UTC), or
                        2026-12-31T18:00Z
  --volume BYTES        the most bytes in a calendar month (UTC), both directions: 50G (of 1024³ bytes each), 900M, 2T; used up,
                        the device is kept out until the next month
  --notes TEXT          your own words, at most ${NOTES_CHARACTERS_MAX} characters; the page's search finds them`;

type Values = Record<string, string | undefined>;
type Limits = Omit<PeerChange, "name" | "disabled">;

/**
 * The limits that the options name, null for "none". `rates` has the names of the options for down and up; `wallMs` is the wall
 * clock, milliseconds since 1970. Throws UsageError.
 */
export function readLimits(values: Values, rates: { down: string; up: string }, wallMs: number): Limits {
  const limits: Limits = {
    expires: unlessNone(values.expires, (text) => readTime("expires", text, wallMs)),
    monthlyBytes: unlessNone(values.volume, readVolume),
    rateDownBps: unlessNone(values[rates.down], (text) => readBps(rates.down, text)),
    rateUpBps: unlessNone(values[rates.up], (text) => readBps(rates.up, text)),
    notes: unlessNone(values.notes, readNotes),
  };
  return Object.fromEntries(Object.entries(limits).filter(([, value]) => value !== undefined));
}

/** The limits that are set: what a peer that is made has of them. */
export function withoutNone(limits: Limits): Pick<PeerRecord, keyof Limits> {
  return Object.fromEntries(Object.entries(limits).filter(([, value]) => value !== null));
}

function unlessNone<T>(text: string | undefined, read: (text: string) => T): T | null | undefined {
  return text === undefined ? undefined : text === "none" ? null : read(text);
}

const readBps = (flag: string, text: string) => Math.round(8 * readRate(flag, text)!);

const UNIT_MS: Record<string, number> = { m: 60_000, h: 3_600_000, d: 86_400_000 };

/** "30d" from now, a day, or a time in UTC, as `Date.toISOString` writes it. Throws UsageError. */
export function readTime(flag: string, text: string, wallMs: number): string {
  const [, amount, unit] = /^(\d{1,5})([mhd])$/.exec(text) ?? [];
  if (amount !== undefined && Number(amount) > 0) {
    return new Date(wallMs + Number(amount) * UNIT_MS[unit]).toISOString();
  }
  if (/^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d{1,3})?)?Z)?$/.test(text)) {
    const time = new Date(text);
    // A 30th of February is read as a day in March.
    if (!Number.isNaN(time.getTime()) && time.toISOString().startsWith(text.slice(0, 10))) {
      return time.toISOString();
    }
  }
  throw new UsageError(
    `--${flag}: expected a time such as 30d, 12h, 2026-12-31 or 2026-12-31T18:00Z, found "${
      text.slice(0, 40)
    }"`,
  );
}

function readVolume(text: string): number {
  const [, digits, unit] = /^(\d{1,15}(?:\.\d{1,3})?)([kMGT]?)$/.exec(text) ?? [];
  const bytes = Math.round(Number(digits) * 1024 ** ["", "k", "M", "G", "T"].indexOf(unit));
  if (bytes >= 1 && bytes <= MONTHLY_BYTES_MAX) return bytes;
  throw new UsageError(
    `--volume: expected 1 to ${MONTHLY_BYTES_MAX} bytes such as 50G or 900M, found "${text.slice(0, 40)}"`,
  );
}

function readNotes(text: string): string {
  if (text.length <= NOTES_CHARACTERS_MAX) return text;
  throw new UsageError(`--notes: ${text.length} characters, of ${NOTES_CHARACTERS_MAX} at most`);
}

/** Rows of name and words for each limit of a record; `wallMs` is the wall clock. */
export function describeLimits(record: PeerRecord, wallMs: number): [name: string, words: string][] {
  const { disabled, monthlyBytes, notes } = record;
  return [
    ["kept out", disabled ? "disabled" : expiryOf(record, wallMs)],
    ["volume a month", monthlyBytes === undefined ? "no limit" : formatBytes(monthlyBytes)],
    ["rates", describeRates(record)],
    ["notes", notes ?? "none"],
  ];
}

/** Why the record alone keeps its peer out: a volume that is used up is the relay's to know. */
export function barOfRecord({ disabled, expires }: PeerRecord, wallMs: number): string | undefined {
  if (disabled) return "disabled";
  return expires !== undefined && Date.parse(expires) <= wallMs ? "expired" : undefined;
}

function expiryOf(record: PeerRecord, wallMs: number): string {
  if (record.expires === undefined) return "never";
  return `${barOfRecord(record, wallMs) === "expired" ? "expired at" : "from"} ${record.expires}`;
}

function describeRates({ rateDownBps, rateUpBps }: PeerRecord): string {
  const words = (bps: number | undefined) => bps === undefined ? "no limit" : formatRate(bps / 8);
  return `${words(rateDownBps)} down, ${words(rateUpBps)} up`;
}
