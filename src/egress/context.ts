/**
 * What the nodes of egress work with. Holds references only; it has no behaviour.
 */
import type { Aead, DatagramAead } from "../codec/kernels.ts";
import type { Metrics } from "../metrics.ts";
import type { Associations } from "../session/associations.ts";
import type { PeerTable } from "../session/peers.ts";
import type { SessionTable } from "../session/table.ts";

export interface EgressContext {
  readonly table: SessionTable;
  readonly peers: PeerTable;
  readonly associations: Associations;
  readonly aead: Aead;
  /** Undefined where OxTunnel is not spoken. */
  readonly datagramAead: DatagramAead | undefined;
  readonly metrics: Metrics;
  /** Whether peers are behind it whose packets may be for each other; else every packet is this host's own. */
  readonly isRelay: boolean;
  /** Largest inner packet, bytes. */
  readonly mtu: number;
  readonly ownIpv4: Uint32Array;
  readonly ownIpv6: Uint32Array | undefined;
  /** Scratch for one address. */
  readonly words: Uint32Array;
}
