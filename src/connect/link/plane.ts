/**
 * A plane as the link has it: what carries a client's packets, wherever it runs. Invariant: what crosses this interface is plain
 * data, so that a plane may be in a Worker. Types and numbers alone.
 */
import type { Config, RepairConfig } from "../../config.ts";
import type { ClassRule } from "../../control/class_rules.ts";
import type { ClassCount } from "../../metrics.ts";
import type { HintedFlows, OwnHint } from "../../session/oxtunnel/hints.ts";
import type { LatencyFigures, PeerSnapshot } from "../../session/peer_record.ts";
import type { Vitals } from "../../session/vitals.ts";
import type { HeaderMethod } from "../../wire/parameters.ts";
import type { DoorPlan, PathWishes } from "./doors.ts";
import type { ElidedHeaders, InnerTotals } from "./counts.ts";

/** Mailboxes of the fallback over TLS: of the client's one plane, and of the thread that serves the connection. */
export const PLANE_MAILBOX = 0, STREAMS_MAILBOX = 1;

/** How the relay is seen from a plane. */
export interface PlaneState {
  relay: PeerSnapshot;
  /** Why the relay refused the last handshake (REFUSED_*), until the next one begins. */
  refused?: number;
  /** Packets for the relay and handshakes begun, which it ought to answer. */
  asked: number;
  /** How the present OxTunnel session fares. */
  vitals?: Vitals;
  inner: InnerTotals;
  /** What was sent so far: datagrams with the bytes of UDP payload in them. */
  cost: { datagrams: number; datagramBytes: number };
  /** The largest inner packet that the path takes, bytes; absent while that is searched for. */
  innerMtu?: number;
  /** The relay's own inner IPv4 address, where the relay has told that (OxTunnel). */
  relay4?: string;
  /** Whether the path takes not even datagrams of 1200 bytes. */
  isNarrow: boolean;
  /** Lost packets that repair brought back so far. */
  repaired: number;
  /** OxTunnel's packets to the relay and from it so far, by class in the order of CLASS_LABELS. */
  classesUp: ClassCount[];
  classesDown: ClassCount[];
  /** Flows of the last ten seconds that are recognised, by what they are. */
  applications: Record<string, number>;
  /** How long packets took in this process in the last half minute. */
  latency: LatencyFigures;
  /** Doors whose interfaces take nothing now. */
  failingDoors: number[];
  /** Packets to the relay that went without the headers that it knows, so far. */
  headers: ElidedHeaders;
}

/** What carries a client's packets, in this thread (`LocalPlane`) or in a Worker (`PlaneWorkerHandle`). */
export interface LinkPlane {
  /** Names the relay's address, first or anew, and starts a handshake, with the first packet where it can carry one. */
  connect(address: string, port: number): void;
  /** Takes the session to another address of the relay once that has answered; without a session it is `connect`. */
  reach(address: string, port: number): void;
  /** This host has another address or network: an OxTunnel session goes on there. */
  moved(): void;
  /** The interfaces of this host that lead to the relay, from now on; none for the system's choice. */
  setDoors(doors: readonly DoorPlan[]): void;
  /** Wishes a class (CLASS_*) for flows; undefined takes the wish back. One more than 64 is ignored. */
  hint(flows: HintedFlows, trafficClass: number | undefined): void;
  /** @param ping whether to ask the relay for its distance, to be seen at the next look. */
  look(ping: boolean): Promise<PlaneState>;
  close(): Promise<void>;
}

/** What the person wishes for its packets in OxTunnel. */
export interface PlaneWishes {
  /** The first that fits first. */
  priorities: OwnHint[];
  /** What flows are, by rules without programs, at this end. */
  rules: ClassRule[];
  compression: boolean;
  /** How headers of packets are made small, best first; empty where they are not. */
  headers: readonly HeaderMethod[];
  /** Whether packets share datagrams; not so for measurements alone. */
  batching: boolean;
  /** Whether the thread that moves packets goes before ordinary programs while it is light, where the system allows it. */
  goesFirst: boolean;
  /** What this line takes up and down, bytes a second with IP and UDP headers; undefined where nobody said. */
  upBytesPerS?: number;
  downBytesPerS?: number;
  /** What finds the rate of the way up. */
  congestionAlgorithm: Config["congestionAlgorithm"];
  /** Several paths at once; undefined for the one that the system chooses. */
  paths?: PathWishes;
  /** How losses of games and calls are repaired on the way up, and whether at all. */
  repair: RepairConfig;
}
