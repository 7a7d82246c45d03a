/**
 * What a subject of an OxTunnel session is, and what the subjects of a session share. A subject is one matter that the two
 * ends settle by control frames: the round trip, reports, key exchanges and so on. Invariant: each subject keeps its own
 * state and sends nothing itself: the session asks the subjects in the order of its list, and gives them room in a
 * datagram. The file has types alone, so that no subject imports the session.
 */
import type { PathRate } from "../../../rate/path_rate.ts";
import type { SessionRepair } from "../../../repair/session_repair.ts";
import type { Burst } from "../../../vector/burst.ts";
import type { Report } from "../../../wire/report.ts";
import type { OxHost } from "../host.ts";
import type { OxSessions } from "../sessions.ts";

/** One subject of a session's control frames: four members that every subject has, and optional ones. */
export interface Subject {
  /** When `handleTimeout` is due, microseconds on the core's clock; Infinity for never. */
  readonly dueUs: number;
  /** Whether the subject has a frame to write now. */
  hasWord(nowUs: number): boolean;
  /**
   * Writes frames at `at` of the arena, in the datagram of the burst's last row: at most `room` bytes, of which the caller
   * gives an empty datagram enough for any frame. Returns the bytes written. What finds no room waits.
   */
  write(burst: Burst, at: number, room: number, nowUs: number): number;
  /** Runs the subject's timers. Called when `dueUs` is `nowUs` or earlier. */
  handleTimeout(nowUs: number): void;

  /** Whether the subject shares no datagram with others. Such subjects are last in the list. */
  readonly isAlone?: boolean;
  /** Whether the other end reports the datagrams of a subject that shares none (PROTOCOL §14). */
  readonly isReported?: boolean;

  /** Whether the subject obeys control frames of this kind, CONTROL_*. No two subjects obey one kind. */
  takes?(kind: number): boolean;
  /**
   * Obeys the control frame of a kind that the subject takes. The body of `length` bytes at `at` has the length of its kind
   * (`controlFits`); `row` is its datagram's.
   */
  onControl?(burst: Burst, row: number, at: number, length: number, nowUs: number): void;

  /** The first datagram of the other end has opened. */
  onOpened?(nowUs: number): void;
  /** A new epoch of keys is in use at both ends. */
  onEpoch?(nowUs: number): void;
  /** This end sends over another path from now on. */
  onNewPath?(): void;
  /** The other end has answered what this end sent at `sentUs`, whole microseconds on the core's clock. */
  onAnswer?(sentUs: number): void;
  /** The other end has reported. The report's fields change after the call. */
  onReport?(report: Report, nowUs: number): void;
  /** This end closes the session. */
  onClose?(): void;
  /** The session has ended: overwrites secrets and frees rows and memory. The subject writes nothing from now on. */
  wipe?(): void;
}

/**
 * What the subjects of one session, or of one further path of it, share: whose session it is, what both ends agreed on, and how
 * to reach the others.
 */
export interface SessionContext {
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
  /** The path that the subjects are about, a row of the tables of sessions and paths; and its number, 0 to 7. */
  readonly path: number;
  readonly pathNumber: number;
  /** The columns of all sessions. */
  readonly sessions: OxSessions;
  /** Tables, timers and the parts that both protocols share. */
  readonly host: OxHost;
  /** Loss repair in both directions; undefined where the ends have not agreed to it. */
  readonly repair: SessionRepair | undefined;
  /** How fast the path that bulk takes takes what this end sends; undefined until a transfer asks for it. */
  pathRate: PathRate | undefined;
  /** The number of the newest epoch of keys that both ends have. */
  readonly epoch: number;
  /** Smoothed round trip of the path, microseconds; -1 before the first pong. */
  rttUs: number;
  /** The same, or the handshake's round trip before the first pong; -1 without either. */
  readonly roundTripUs: number;
  /** Whether a report goes with the next datagram that has room for one. */
  isReportDue: boolean;
  /** Whether the session's end is set, so that nothing puts it off. */
  isEnding: boolean;

  /** Has `pollTransmit` called for the session. */
  speak(): void;
  /** Has `handleTimeout` called at `dueUs` or before. */
  hasten(dueUs: number): void;
  /** Has a ping sent on the path. */
  ping(): void;
  /** Nothing came on the path since data went out, nor did pings that followed help. Returns whether to ask again. */
  onDead(): boolean;
  /** Tells every subject of an answer: `Subject.onAnswer`. */
  answered(sentUs: number): void;
  /** Tells every subject of a report: `Subject.onReport`. */
  reported(report: Report, nowUs: number): void;
}
