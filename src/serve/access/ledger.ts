/**
 * What each peer has received and sent, over restarts: totals, this month's, and the rate of the last seconds. Invariant: the file is
 * written whole, at most once in WRITE_MS and at the end, so that kill -9 loses the counts of at most WRITE_MS; a file that cannot
 * be read is kept aside and never written over; totals never go down; a clock that goes back begins no new month, and one that was ahead
 * and is set right holds up none. Keyed by public key, so a new name changes nothing. A disk that refuses costs the counts of a restart and nothing else. Bars nobody.
 */
import { join } from "node:path";
import { makeStateDirectory, moveFile, readIfPresent, replaceFile, withLock } from "../../process/durable.ts";
import { CommandError } from "../../process/help.ts";
import { isKeyText } from "../../process/keys_text.ts";
import type { PeerTraffic, PeerUsage } from "../../session/peer_record.ts";

/** The shortest time between two writes of the file, milliseconds. */
export const WRITE_MS = 10_000;
/** Over how long a rate is averaged, milliseconds. */
const RATE_MS = 2000;
/** The most peers that are counted; of more, those that are no peers any more are forgotten, the oldest first. */
const ENTRIES_MAX = 65_536;
const VERSION = 1;

interface Entry extends PeerUsage {
  /** Bytes of the window that began at `sinceMs`, and the rates of the window before, bits a second. */
  windowReceived: number;
  windowSent: number;
  sinceMs: number;
  receivedBps: number;
  sentBps: number;
}

type Row = [received: number, sent: number, monthReceived: number, monthSent: number];

/** "2026-11" of a wall-clock time in milliseconds since 1970. */
const monthOf = (wallMs: number) => new Date(wallMs).toISOString().slice(0, 7);

export class TrafficLedger {
  readonly path: string;
  readonly #stateDir: string;
  readonly #say: (message: string) => void;
  readonly #entries = new Map<string, Entry>();
  /** The month of the counts, and the one that the wall clock shows: earlier where it was set back meanwhile. */
  #month = "";
  #clockMonth = "";
  #isChanged = false;
  /** Whether what is stored was read: else it must stay. */
  #mayWrite = true;
  #wroteAtMs = -Infinity;
  #isFailing = false;
  #writing: Promise<void> = Promise.resolve();

  /** @param say gets a sentence when the file cannot be read or written. */
  private constructor(stateDir: string, say: (message: string) => void) {
    this.#stateDir = stateDir;
    this.path = join(stateDir, "traffic.json");
    this.#say = say;
  }

  /** Reads the file; one that is damaged is moved aside. `wallMs`: the wall clock, milliseconds since 1970. */
  static async open(
    stateDir: string,
    wallMs: number,
    say: (message: string) => void,
  ): Promise<TrafficLedger> {
    const ledger = new TrafficLedger(stateDir, say);
    try {
      await ledger.#read();
    } catch (error) {
      if (!(error instanceof CommandError)) throw error;
      ledger.#mayWrite = false;
      say(`the peers' traffic is counted from zero and not stored: ${error.message}`);
    }
    ledger.turnMonth(wallMs);
    return ledger;
  }

  async #read(): Promise<void> {
    const text = await readIfPresent(this.path);
    if (text === undefined) return;
    const read = parse(text);
    if (read === undefined) {
      const aside = `${this.path}.damaged`;
      await moveFile(this.path, aside);
      return this.#say(
        `${this.path} was damaged and is now ${aside}: the peers' traffic is counted from zero`,
      );
    }
    this.#month = read.month;
    this.#clockMonth = read.clockMonth;
    for (const [publicKey, row] of read.peers) this.#entries.set(publicKey, entryOf(row));
  }

  /**
   * Begins a month where the wall clock has come to a later one; true when it did. A clock that went back and then returns to the month of
   * the counts, as at a start before the time is known, begins none.
   */
  turnMonth(wallMs: number): boolean {
    const month = monthOf(wallMs);
    if (month === this.#clockMonth) return false;
    const isNew = month > this.#clockMonth && month !== this.#month;
    this.#clockMonth = month;
    if (this.#entries.size > 0) this.#isChanged = true;
    if (!isNew) return false;
    this.#month = month;
    for (const entry of this.#entries.values()) entry.monthReceived = entry.monthSent = 0;
    return true;
  }

  /** Adds what Workers have counted. `nowMs` is the monotonic clock's. */
  add({ publicKeys, received, sent }: PeerTraffic, nowMs: number): void {
    for (const [i, publicKey] of publicKeys.entries()) {
      let entry = this.#entries.get(publicKey);
      if (entry === undefined) this.#entries.set(publicKey, entry = entryOf([0, 0, 0, 0]));
      turnWindow(entry, nowMs);
      entry.received += received[i];
      entry.sent += sent[i];
      entry.monthReceived += received[i];
      entry.monthSent += sent[i];
      entry.windowReceived += received[i];
      entry.windowSent += sent[i];
      this.#isChanged = true;
    }
  }

  of(publicKey: string): PeerUsage {
    const { received = 0, sent = 0, monthReceived = 0, monthSent = 0 } = this.#entries.get(publicKey) ?? {};
    return { received, sent, monthReceived, monthSent };
  }

  /** The rates of the last seconds, bits a second; `nowMs` is the monotonic clock's. */
  rates(publicKey: string, nowMs: number): { receivedBps: number; sentBps: number } {
    const entry = this.#entries.get(publicKey);
    if (entry === undefined) return { receivedBps: 0, sentBps: 0 };
    turnWindow(entry, nowMs);
    return { receivedBps: entry.receivedBps, sentBps: entry.sentBps };
  }

  /**
   * Writes what has changed, unless the last write was less than WRITE_MS ago. A refusal of the disk is said once until a write
   * succeeds, and the counts stay in memory. `peers` are the public keys of all peers.
   */
  async save(nowMs: number, peers: ReadonlySet<string>): Promise<void> {
    if (!this.#isChanged || nowMs - this.#wroteAtMs < WRITE_MS) return;
    this.#wroteAtMs = nowMs;
    await this.flush(peers);
  }

  /** Writes now; never rejects. */
  flush(peers: ReadonlySet<string>): Promise<void> {
    return this.#writing = this.#writing.then(() => this.#write(peers));
  }

  async #write(peers: ReadonlySet<string>): Promise<void> {
    if (!this.#isChanged || !this.#mayWrite) return;
    for (const publicKey of this.#entries.keys()) {
      if (this.#entries.size <= ENTRIES_MAX) break;
      if (!peers.has(publicKey)) this.#entries.delete(publicKey);
    }
    this.#isChanged = false;
    try {
      await makeStateDirectory(this.#stateDir);
      await withLock(`${this.path}.lock`, () => replaceFile(this.path, this.#text()));
      this.#isFailing = false;
    } catch (error) {
      this.#isChanged = true;
      if (!this.#isFailing) this.#say(`the peers' traffic is not stored: ${(error as Error).message}`);
      this.#isFailing = true;
    }
  }

  #text(): string {
    const peers = Object.fromEntries(
      [...this.#entries].map(([publicKey, entry]): [string, Row] => [
        publicKey,
        [entry.received, entry.sent, entry.monthReceived, entry.monthSent],
      ]),
    );
    const months = { month: this.#month, clockMonth: this.#clockMonth };
    return `${JSON.stringify({ version: VERSION, ...months, peers })}\n`;
  }
}

function entryOf([received, sent, monthReceived, monthSent]: Row): Entry {
  return {
    received,
    sent,
    monthReceived,
    monthSent,
    windowReceived: 0,
    windowSent: 0,
    sinceMs: -Infinity,
    receivedBps: 0,
    sentBps: 0,
  };
}

/** Ends a window that has lasted RATE_MS, and takes its rate. */
function turnWindow(entry: Entry, nowMs: number): void {
  const lastedMs = nowMs - entry.sinceMs;
  if (lastedMs < RATE_MS) return;
  // A window that nothing was added to for long says nothing about the last seconds.
  const bps = (bytes: number) => lastedMs > 2 * RATE_MS ? 0 : 8000 * bytes / lastedMs;
  entry.receivedBps = bps(entry.windowReceived);
  entry.sentBps = bps(entry.windowSent);
  entry.windowReceived = entry.windowSent = 0;
  entry.sinceMs = nowMs;
}

/** What the file says; undefined when it is damaged. */
function parse(
  text: string,
): { month: string; clockMonth: string; peers: [string, Row][] } | undefined {
  try {
    const { version, month, clockMonth = month, peers } = JSON.parse(text);
    const isCount = (value: unknown) =>
      typeof value === "number" && value >= 0 && value <= Number.MAX_SAFE_INTEGER;
    const isRow = (row: unknown): row is Row => Array.isArray(row) && row.length === 4 && row.every(isCount);
    if (version !== VERSION || ![month, clockMonth].every((text) => /^\d{4}-\d\d$/.test(text))) {
      return undefined;
    }
    const all = Object.entries(peers as Record<string, unknown>);
    if (!all.every(([publicKey, row]) => isKeyText(publicKey) && isRow(row))) return undefined;
    return { month, clockMonth, peers: all as [string, Row][] };
  } catch {
    return undefined;
  }
}
