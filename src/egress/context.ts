/**
 * What the nodes of egress work with. Holds references only; it has no behaviour.
 */
import type { Aead, DatagramAead, Lz4 } from "../codec/kernels.ts";
import type { FlowTable } from "../control/flows.ts";
import type { Metrics } from "../metrics.ts";
import type { Associations } from "../session/associations.ts";
import type { PeerTable } from "../session/peers.ts";
import type { SessionTable } from "../session/table.ts";
import type { Queues } from "../queue/queues.ts";
import type { Batches } from "./batches.ts";
import type { EntropyTest } from "./entropy.ts";

export interface EgressContext {
  readonly table: SessionTable;
  readonly peers: PeerTable;
  readonly associations: Associations;
  readonly aead: Aead;
  /** Undefined where OxTunnel is not spoken. */
  readonly datagramAead: DatagramAead | undefined;
  readonly metrics: Metrics;
  /** Undefined where batching is switched off. */
  readonly batches: Batches | undefined;
  /** Undefined where no packet is to wait for its line. */
  readonly queues: Queues | undefined;
  /** Whether peers are behind it whose packets may be for each other; else every packet is this host's own. */
  readonly isRelay: boolean;
  /** Largest inner packet, bytes. */
  readonly mtu: number;
  readonly ownIpv4: Uint32Array;
  readonly ownIpv6: Uint32Array | undefined;
  readonly flows: FlowTable;
  /** Undefined where nothing is to be compressed. Packets of fewer bytes than the threshold, at least 64, never are. */
  compression: { lz4: Lz4; thresholdBytes: number; entropy: EntropyTest } | undefined;
  /** Scratch for an address, or for what names a flow. */
  readonly words: Uint32Array;
  /** Scratch for two addresses. */
  readonly ends: Uint32Array;
}
