/**
 * What the paths of a session ask of it and of each other: types alone, so that session.ts, path_set.ts and further_path.ts make no
 * circle.
 */
import type { Burst } from "../../vector/burst.ts";
import type { Report } from "../../wire/report.ts";
import type { CopyWindow } from "./copy_window.ts";
import type { RoundTrip } from "./subjects/round_trip.ts";
import type { SessionContext, Subject } from "./subjects/subject.ts";

/** A path of a session, the first or a further one. */
export interface AnyPath extends Pick<SessionContext, "path" | "repair" | "roundTripUs"> {
  readonly pingIntervalUs: number;
  readonly roundTrip: RoundTrip;
  copies: CopyWindow | undefined;
  ping(): void;
}

/** The session as its paths see it: its first path, and what all share. */
export interface SessionOfPaths extends SessionContext, AnyPath {
  /** The path that bulk takes. */
  readonly bulkPath: number;
  readonly reportIntervalUs: number;
  /** Nothing has opened yet. */
  readonly isNew: boolean;
  readonly rate: { onMoved(): void; onReport(report: Report, nowUs: number): void };
  /** As `SessionContext.onDead`, for a further path. */
  onFurtherDead(): boolean;
  /** Adds datagrams with what the subjects have to send to the burst, on the path; false when the burst was full before. */
  say(burst: Burst, path: AnyPath, subjects: readonly Subject[], nowUs: number): boolean;
}

/** What a further path asks of the session's paths. */
export interface PathOwners<Path> {
  /** Figures of the path have changed, or whether it can be used. */
  changed(): void;
  onIdUsed(path: Path, row: number): void;
  close(number: number): void;
}
