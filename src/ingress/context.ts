/**
 * What the nodes of ingress work with: the tables, the kernel, the counters and the scratch space of one data
 * plane. Holds references only; it has no behaviour.
 */
import type { Aead, DatagramAead, Lz4 } from "../codec/kernels.ts";
import type { FlowTable } from "../control/flows.ts";
import type { Metrics } from "../metrics.ts";
import type { Associations } from "../session/associations.ts";
import type { PeerTable } from "../session/peers.ts";
import type { SessionTable } from "../session/table.ts";
import type { FrameReader } from "../wire/frame.ts";
import type { Backlog } from "./backlog.ts";
import type { DestinationPolicy } from "./policy.ts";
import type { Speedtest } from "./speedtest.ts";

export interface IngressContext {
  readonly table: SessionTable;
  readonly peers: PeerTable;
  readonly associations: Associations;
  readonly aead: Aead;
  /** Undefined where OxTunnel is not spoken; `masks` is its scratch. */
  readonly datagramAead: DatagramAead | undefined;
  readonly masks: Uint8Array<ArrayBuffer>;
  readonly frames: FrameReader;
  readonly backlog: Backlog;
  /** Undefined where LZ4 was never accepted. */
  lz4: Lz4 | undefined;
  readonly metrics: Metrics;
  /** Undefined for a client, which delivers everything to its own host. */
  policy: DestinationPolicy | undefined;
  /** Whether the exit leads TO_HAIRPIN rows from one client's mapping to another's. */
  readonly exitHairpins: boolean;
  /** The relay's end of speedtests. */
  readonly speedtest: Speedtest;
  /** Four words: the relay's own inner addresses, answered by itself. */
  readonly ownIpv4: Uint32Array;
  readonly ownIpv6: Uint32Array | undefined;
  /** The same as egress has. */
  readonly flows: FlowTable;
  /** Scratch for one address, or for what names a flow. */
  readonly words: Uint32Array;
  /** Scratch for two addresses. */
  readonly ends: Uint32Array;
}
