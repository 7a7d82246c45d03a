/**
 * What is between this end and its peers, put together: the parts that both protocols share (epochs.ts, staging.ts,
 * handshake_gate.ts, attempts.ts, outbox.ts, paths.ts), and the protocols beside them (wireguard/, oxtunnel/).
 * Invariant: each part is made once, and knows those that are made before it; a protocol is called by way of
 * `Shared.protocols`. It has no behaviour of its own.
 */
import { Attempts } from "./attempts.ts";
import { Epochs } from "./epochs.ts";
import { EventRing } from "./events.ts";
import { HandshakeGate, type HandshakeGateOptions } from "./handshake_gate.ts";
import { Outbox } from "./outbox.ts";
import { Oxtunnel, type OxtunnelOptions } from "./oxtunnel/mod.ts";
import { Paths } from "./paths.ts";
import type { Protocol, Shared } from "./shared.ts";
import { Staging } from "./staging.ts";
import { OXTUNNEL, WIREGUARD } from "./table.ts";
import { Timers } from "./timers.ts";
import { Wireguard, type WireguardBegun } from "./wireguard/mod.ts";

export interface AssociationOptions
  extends Omit<Shared, "timers" | "events" | "paths" | "protocols">, HandshakeGateOptions {
  /** Most packets that may wait for handshakes, over all peers. */
  readonly stagedMax: number;
  /** Absent where OxTunnel is not spoken. */
  readonly oxtunnel?: OxtunnelOptions;
  readonly wireguardBegun?: WireguardBegun;
}

export class Associations {
  readonly shared: Shared;
  readonly timers: Timers;
  readonly events = new EventRing();
  readonly epochs: Epochs;
  readonly gate: HandshakeGate;
  readonly staging: Staging;
  readonly attempts: Attempts;
  readonly outbox: Outbox;
  readonly paths: Paths;
  readonly wireguard: Wireguard;
  /** Undefined where OxTunnel is not spoken. */
  readonly oxtunnel: Oxtunnel | undefined;

  constructor(options: AssociationOptions) {
    const protocols: (Protocol | undefined)[] = [undefined, undefined, undefined];
    this.timers = new Timers(options.peers.capacity);
    this.paths = new Paths(options.table.capacity, options.peers, options.metrics, this.events);
    const { timers, events, paths } = this;
    this.shared = { ...options, timers, events, paths, protocols };
    const { shared } = this;
    this.epochs = new Epochs(shared);
    this.gate = new HandshakeGate(shared, this.epochs, options);
    this.staging = new Staging(shared, options.stagedMax);
    this.attempts = new Attempts(shared);
    this.outbox = new Outbox(shared, this.epochs, this.gate, this.staging, this.attempts);
    this.wireguard = new Wireguard(this, options.wireguardBegun);
    this.oxtunnel = options.oxtunnel && new Oxtunnel(this, options.oxtunnel);
    protocols[WIREGUARD] = this.wireguard;
    protocols[OXTUNNEL] = this.oxtunnel;
  }
}
