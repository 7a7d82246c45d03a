/**
 * What the main thread and the relay worker say to each other: plain data, no behaviour. The private key
 * crosses once, in `start`.
 */
import type { Config } from "../config.ts";
import type { Choice } from "../io/choose.ts";
import type { ControlDatagram } from "../exit/exit.ts";
import type { Mailboxes } from "../io/mailbox.ts";
import type { PeersReport } from "../relay.ts";
import type { AdmittedPeer, PeerTraffic, RelaySnapshot, SeenPeers } from "../session/peer_record.ts";
import type { TunnelEvent } from "../tunnel.ts";
import type { PeerForward, RefusedPeerForward } from "./forwards.ts";

export type { PeersReport };

export type ToWorker =
  | {
    type: "start";
    config: Config;
    privateKey: Uint8Array;
    tunnelIpv6: string | undefined;
    peers: AdmittedPeer[];
    /** This Worker's number, from 0. */
    worker: number;
    /** Counters of all Workers, in their order. */
    counters: SharedArrayBuffer[];
    /** How to move datagrams, or why only the portable way is left. */
    port: Choice | string;
    /** A bound socket that stays the main thread's; absent where the Worker binds for itself. */
    socket?: number;
    /** A queue of the TUN device, the main thread's too, and what the device is for people; absent for userspace. */
    queue?: number;
    device?: string;
    mailboxes?: Mailboxes;
    /** Where all messages that follow this one come from, and what is rung after each; absent without native code. */
    control: MessagePort;
    bell?: number;
    /** Descriptors that flows of the userspace exit may take, of UDP, and as many of TCP; absent where nobody knows. */
    maxFlows?: number;
    /** Ports of the host that lead to peers of this Worker; none where the device has them. */
    forwards?: PeerForward[];
    /** Divides WireGuard's session times; 1 outside tests. */
    timeScale: number;
    /** For tests: when the Worker dies, milliseconds after its start. */
    failAfterMs?: number;
  }
  | { type: "peers"; id: number; changed: AdmittedPeer[]; gone: string[] }
  | { type: "portControl"; answer: ControlDatagram }
  | { type: "forwards"; id: number; forwards: PeerForward[] }
  | { type: "tune"; id: number; config: Config }
  | { type: "snapshot"; id: number }
  | { type: "seenPeers"; id: number; from: number }
  /** Asks a peer for an echo, or, with the name of a request, for its round trip. */
  | { type: "ping"; id: number; publicKey: string; request?: number }
  | { type: "stop" };

export type FromWorker =
  | {
    type: "ready";
    listen: string;
    exit: string;
    failed: string[];
    /** Forwards of this Worker's peers that its exit could not open. */
    refused: RefusedPeerForward[];
    /** Descriptors that outlive the Worker unless somebody closes them. */
    descriptors: number[];
  }
  | { type: "failed"; message: string }
  | { type: "log"; level: "debug" | "info" | "warning" | "error"; area: string; message: string }
  | { type: "event"; event: TunnelEvent }
  | { type: "traffic"; traffic: PeerTraffic }
  | { type: "portControl"; request: ControlDatagram }
  | {
    type: "reply";
    id: number;
    value: PeersReport | RelaySnapshot | SeenPeers | RefusedPeerForward[] | number | null;
  }
  | { type: "error"; id: number; message: string }
  | { type: "stopped" };
