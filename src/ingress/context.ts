/**
 * The context of ingress's steps: tables, kernel, counters and scratch space of one data plane. Holds references only; has
 * no behaviour.
 */
import type { Aead, DatagramAead, Lz4 } from "../codec/kernels.ts";
import type { FlowTable } from "../control/flows.ts";
import type { Metrics } from "../metrics.ts";
import type { Police } from "../queue/police.ts";
import type { LineFigures } from "../queue/line_figures.ts";
import type { TurnQueue } from "../queue/turn_queue.ts";
import type { Associations } from "../session/associations.ts";
import type { PeerTable } from "../session/peers.ts";
import type { SessionTable } from "../session/table.ts";
import type { InnerAcks } from "../session/wireguard/inner_acks.ts";
import type { FrameReader } from "../wire/frame.ts";
import type { Backlog } from "./backlog.ts";
import type { DestinationPolicy } from "./policy.ts";
import type { Pings } from "./pings.ts";
import type { Speedtest } from "./speedtest.ts";

export interface IngressContext {
  readonly table: SessionTable;
  readonly peers: PeerTable;
  readonly associations: Associations;
  readonly aead: Aead;
  /** Undefined without OxTunnel; `masks` is its scratch space. */
  readonly datagramAead: DatagramAead | undefined;
  readonly masks: Uint8Array<ArrayBuffer>;
  readonly frames: FrameReader;
  readonly backlog: Backlog;
  /** Undefined where LZ4 is never accepted. */
  lz4: Lz4 | undefined;
  readonly metrics: Metrics;
  /** Which packets exceed their peer's rate. Undefined for a client. */
  readonly police: Police | undefined;
  /** Undefined where no rates are found. */
  readonly innerAcks: InnerAcks | undefined;
  /** Packets for the exit that wait for this thread; undefined where none is sorted. */
  readonly toExit: TurnQueue | undefined;
  readonly figures: LineFigures;
  /** Undefined for a client, which delivers every packet to its own host. */
  policy: DestinationPolicy | undefined;
  /** Whether the exit sends TO_HAIRPIN rows from one client's mapping to another's. */
  readonly exitHairpins: boolean;
  /** The relay's end of speedtests. */
  readonly speedtest: Speedtest;
  /** The relay's own echo requests to peers. */
  readonly pings: Pings;
  /** Four words each: the relay's own inner addresses, which it answers itself. */
  readonly ownIpv4: Uint32Array;
  readonly ownIpv6: Uint32Array | undefined;
  /** The object that egress has too. */
  readonly flows: FlowTable;
  /** Scratch space for one address, or for a flow's name. */
  readonly words: Uint32Array;
  /** Scratch space for two addresses. */
  readonly ends: Uint32Array;
}
