/**
 * What a subject of an OxTunnel session is, and what the subjects share. A subject is one matter that the session has with
 * the other end by control frames: the round trip, reports, key exchanges and so on. Invariant: each subject keeps its own
 * state, and sends nothing itself: the session asks the subjects in the order of its list and gives them room. What is
 * here is types alone, so that no subject depends on the session, nor on what is around the session.
 */
import type { DatagramAead } from "../../../codec/kernels.ts";
import type { Burst } from "../../../vector/burst.ts";
import type { Limits } from "../../limits.ts";
import type { Paths } from "../../paths.ts";
import type { PeerTable } from "../../peers.ts";
import type { Report } from "../../../wire/control.ts";
import type { SessionTable } from "../../table.ts";
import type { ControlBudget } from "../control_budget.ts";
import type { Hints } from "../hints.ts";
import type { TicketKeys } from "../tickets.ts";

/** One matter of a session. The session calls the four verbs; the optional ones say what else the subject hears of. */
export interface Subject {
  /** When the subject wants a turn (`handleTimeout`), microseconds on the core's clock; Infinity for never. */
  readonly dueUs: number;
  /** Whether what the subject writes shares its datagram with no other subject. Such subjects are last in the list. */
  readonly isAlone?: boolean;
  /** Whether the subject has something to write now. */
  hasWord(nowUs: number): boolean;
  /**
   * Writes frames from `at` on into the burst's last row, at most `room` bytes, and returns the bytes written. When an empty
   * datagram has no room for what waits, the subject drops what waits, so that it does not wait for ever.
   */
  write(burst: Burst, at: number, room: number, nowUs: number): number;
  /** Does what is due; called when `dueUs` is `nowUs` or earlier. */
  handleTimeout(nowUs: number): void;
  /** Whether the subject obeys control frames of this kind (CONTROL_*); no two subjects obey one kind. */
  takes?(kind: number): boolean;
  /**
   * Obeys the control frame whose body of `length` bytes at `at` has the length of its kind (`controlFits`). `row` is its
   * datagram's. Called for kinds that the subject takes.
   */
  onControl?(burst: Burst, row: number, at: number, length: number, nowUs: number): void;
  /** The session is open: its first datagram has opened here. */
  onOpened?(nowUs: number): void;
  /** A new epoch is in use at both ends. */
  onEpoch?(nowUs: number): void;
  /** What goes out takes another path from now on. */
  onNewPath?(): void;
  /** The other end has answered something that was sent at `sentUs`, whole microseconds. */
  onAnswer?(sentUs: number): void;
  /** The other end reports; `report` is good during the call. */
  onReport?(report: Report, nowUs: number): void;
  /** This end closes the session: only the close is sent from now on. */
  onClose?(): void;
  /** The session's keys and the subject's secrets are overwritten, rows are given back, and nothing is written any more. */
  wipe?(): void;
}

/** What the subjects of one session share: its identity, what both ends agreed on, and the way to each other. */
export interface SharedSession {
  /** Row of the session table. */
  readonly row: number;
  /** Id of the other end in the peer table. */
  readonly peer: number;
  /** Whether this end began the handshake. */
  readonly isInitiator: boolean;
  /** AEAD_*, as both ends agreed. */
  readonly aead: number;
  /** FEATURE_* bits that both ends accepted. */
  readonly features: number;
  /** The path in use, a row of the table of paths. */
  readonly path: number;
  readonly sessions: SessionColumns;
  readonly around: Surroundings;
  /** Smoothed round trip of the path in use, microseconds; -1 before the first pong. */
  rttUs: number;
  /** The same, or the handshake's round trip before the first pong; -1 without either. */
  readonly roundTripUs: number;
  /** The number of the newest epoch that both ends have. */
  readonly epoch: number;
  /** Whether the session's end is set: nothing puts it off. */
  isEnding: boolean;
  /** The next datagram that goes to the other end by itself, or has room, carries a report. */
  isReportDue: boolean;
  /** Has the session's `pollTransmit` called. */
  speak(): void;
  /** Has `handleTimeout` called at `dueUs` or before. */
  hasten(dueUs: number): void;
  /** Has a ping sent. */
  ping(): void;
  /** The other end has answered something that was sent at `sentUs`, whole microseconds: the subjects hear of it. */
  answered(sentUs: number): void;
  /** The other end has reported: the subjects hear of it. */
  reported(report: Report, nowUs: number): void;
  /** Adds what repair has to say to a report (`fillSections`): at most `bytesMax` bytes, after a report up to `reported`. */
  fillReport(report: Report, bytesMax: number, reported: number, nowUs: number): void;
}

/** What a session and its subjects use of all OxTunnel sessions' columns (sessions.ts), by the session's row. */
export interface SessionColumns {
  readonly sendPhase: Uint8Array;
  readonly awaitedPhase: Uint8Array;
  /** When the next ping is due, or Infinity; and pings that nothing followed. */
  readonly pingAtUs: Float64Array;
  readonly unanswered: Uint8Array;
  readonly datagramAead: DatagramAead;
  readonly budget: ControlBudget;
  readonly hints: Hints;
  /** Key exchanges that may still be computed in this burst. */
  exchangesLeft: number;
  /** When the datagram with the highest counter arrived. */
  readonly arrivedUs: Float64Array;
  /** Notes that the other end has seen the counter `highest`. */
  acknowledge(session: number, highest: number): void;
  /** Notes that a report was written. */
  reported(session: number, nowUs: number): void;
  enterEpoch(session: number, phase: number, nowUs: number): void;
}

/** What the subjects use of what is around the session: tables, timers, and the other sessions of the peer. */
export interface Surroundings {
  readonly options: {
    readonly table: SessionTable;
    readonly paths: Paths;
    readonly peers: PeerTable;
    readonly limits: Limits;
    /** Adds 1, or `amount`. */
    readonly count: (name: SessionCount, amount?: number) => void;
  };
  /** Wall clock in microseconds since 1970 minus the core's clock. */
  readonly unixOffsetUs: number;
  /** `tickets` is undefined for an end that gives no tickets. */
  readonly oxtunnel: { readonly tickets: TicketKeys | undefined } | undefined;
  readonly timers: { hasten(id: number, dueUs: number): void };
  /** Fresh random bytes. */
  bytes(count: number): Uint8Array;
  /** Has `pollTransmit` called for the peer's sessions. */
  wantControl(id: number): void;
  /** Begins a handshake with the peer. */
  initiate(id: number): void;
  /** Tells that the path to the peer does not take what every path should (PROTOCOL §17). */
  noteNarrow(id: number): void;
  /** Ends the session at once: nothing is sent or opened; keys are erased on the next timer turn. */
  forget(session: { readonly row: number; readonly peer: number; isEnding: boolean }): void;
}

/** What a session counts. */
export type SessionCount = "epochs_made" | "size_probes_sent";
