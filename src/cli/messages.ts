/**
 * What the main thread and the data-plane Worker say to each other: plain data, no behaviour. The private key
 * crosses once, in `start`.
 */
import type { Config } from "../config.ts";
import type { PeerRecord, PeerSnapshot, SessionSnapshot } from "../session/peer_record.ts";
import type { TunnelEvent } from "../tunnel.ts";

export type ToWorker =
  | {
    type: "start";
    config: Config;
    privateKey: Uint8Array;
    tunnelIpv6: string | undefined;
    peers: PeerRecord[];
    counters: SharedArrayBuffer;
    /** Divides WireGuard's session times; 1 outside tests. */
    timeScale: number;
    /** For tests: when the Worker dies, milliseconds after its start. */
    failAfterMs?: number;
  }
  | { type: "peers"; id: number; peers: PeerRecord[] }
  | { type: "tune"; id: number; config: Config }
  | { type: "snapshot"; id: number }
  | { type: "fault"; id: number }
  | { type: "stop" };

export interface PeersReport {
  added: string[];
  removed: string[];
  failed: string[];
}

export interface Snapshot {
  peers: PeerSnapshot[];
  sessions: SessionSnapshot[];
}

export type FromWorker =
  | {
    type: "ready";
    listen: string;
    exit: string;
    exitReason: string;
    failed: string[];
    /** Descriptors that outlive the Worker unless somebody closes them. */
    descriptors: number[];
  }
  | { type: "failed"; message: string }
  | { type: "log"; level: "debug" | "info" | "warning" | "error"; area: string; message: string }
  | { type: "event"; event: TunnelEvent }
  | { type: "reply"; id: number; value: PeersReport | Snapshot | { fault: string | undefined } | null }
  | { type: "error"; id: number; message: string }
  | { type: "stopped" };
