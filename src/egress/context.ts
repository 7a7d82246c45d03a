/**
 * The context of egress's steps. Holds references only; has no behaviour.
 */
import type { Aead, DatagramAead, Lz4 } from "../codec/kernels.ts";
import type { FlowTable } from "../control/flows.ts";
import type { Metrics } from "../metrics.ts";
import type { Associations } from "../session/associations.ts";
import type { PeerTable } from "../session/peers.ts";
import type { SessionTable } from "../session/table.ts";
import type { InnerAcks } from "../session/wireguard/inner_acks.ts";
import type { LineFigures } from "../queue/line_figures.ts";
import type { Queues } from "../queue/queues.ts";
import type { TurnQueue } from "../queue/turn_queue.ts";
import type { Batches } from "./batches.ts";
import type { EntropyTest } from "./entropy.ts";

export interface EgressContext {
  readonly table: SessionTable;
  readonly peers: PeerTable;
  readonly associations: Associations;
  readonly aead: Aead;
  /** Undefined without OxTunnel. */
  readonly datagramAead: DatagramAead | undefined;
  readonly metrics: Metrics;
  /** Undefined where batching is switched off. */
  readonly batches: Batches | undefined;
  /** Undefined where no rates are found. */
  readonly innerAcks: InnerAcks | undefined;
  /** Undefined where no packet waits for its line. */
  readonly queues: Queues | undefined;
  /** Packets for the tunnel that wait for this thread; undefined where none is sorted. */
  readonly toTunnel: TurnQueue | undefined;
  readonly figures: LineFigures;
  /** Whether several peers may send packets to each other; else every packet is this host's own. */
  readonly isRelay: boolean;
  /** Largest inner packet, bytes. */
  readonly mtu: number;
  readonly ownIpv4: Uint32Array;
  readonly ownIpv6: Uint32Array | undefined;
  readonly flows: FlowTable;
  /** Undefined without compression. Packets of fewer bytes than the threshold, at least 64, are not compressed. */
  compression: { lz4: Lz4; thresholdBytes: number; entropy: EntropyTest } | undefined;
  /** Longer packets keep their headers. */
  readonly shortenedBytesMax: number;
  /** Scratch space for an address, or for a flow's name. */
  readonly words: Uint32Array;
  /** Scratch space for two addresses. */
  readonly ends: Uint32Array;
}
