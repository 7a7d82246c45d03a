/**
 * What the admin interface needs of the relay behind it. Holds no behaviour.
 */
import type * as v from "valibot";
import type { Metrics } from "../metrics.ts";
import type { BarReason, PeerRecord, RelaySnapshot } from "../session/peer_record.ts";
import type * as shapes from "./shapes.ts";

export type NewPeer = Omit<v.InferOutput<typeof shapes.NewPeer>, "network">;
export type PeerChange = v.InferOutput<typeof shapes.PeerChange>;
export type NewLink = v.InferOutput<typeof shapes.NewLink>;
/** Without the codes, which are made of the texts. */
export type NewPeerAnswer = Omit<shapes.NewPeerAnswer, "configQr" | "invitationQr">;

/** What the relay reports about itself. */
export interface RelayStatus {
  readonly name: "oxrelay";
  readonly version: string;
  readonly startedAt: Date;
  /** The exit in use, "tun" or "userspace". */
  readonly exit: string;
  /** What the tunnel listens on, "[::]:4433". */
  readonly listen: string;
}

/** What a reload did: the names of the peers, and the names of the keys that differ from before. */
export interface ReloadReport {
  peers: { added: string[]; removed: string[]; total: number };
  config: { applied: string[]; needsRestart: string[] };
}

/** Whether the relay is healthy, and each fault as a sentence. */
export interface Health {
  ok: boolean;
  reasons: string[];
}

/** What the interface shows and does. What changes something may reject with a Refusal. */
export interface AdminDeps {
  /** One column per worker. */
  metrics: readonly Metrics[];
  status(): RelayStatus;
  /** All peers and sessions at one moment, at most `maxAgeMs` milliseconds ago. Must not be changed. */
  snapshot(maxAgeMs: number): Promise<RelaySnapshot>;
  /** Whether /metrics may name applications, by the snapshot. */
  applicationsInMetrics(): boolean;
  /** How many devices /metrics may name; 0 for none. */
  devicesInMetrics(): number;
  /** The configuration without secrets. */
  config(): unknown;
  /** Asked at every request, so that a reload takes effect. */
  adminToken(): string;
  /** Where this machine's subcommands reach the interface. */
  url(): string;
  reload(): Promise<ReloadReport>;
  /** The relay's key and tunnel networks as one text (`networkOf`), which a peer's addresses depend on. */
  network(): string;
  /** All peers, joined with their live state and traffic, at one moment at most `maxAgeMs` milliseconds ago. */
  peers(maxAgeMs: number): Promise<shapes.PeerRow[]>;
  /** Recognised flows of the last ten seconds by application, at most `maxAgeMs` milliseconds ago. */
  applications(maxAgeMs: number): Promise<Record<string, number>>;
  /** Peers that may not connect now, and why. */
  keptOut(): { name: string; reason: BarReason }[];
  /** How many peers there are, the barred included. */
  peerCount(): number;
  /** The relay's public key, base64. */
  publicKey(): string;
  /**
   * Stores a peer and serves it. Without a public key a key pair is made, and the answer holds the private key and the texts that a
   * device loads, which are stored nowhere. A preshared key is stored, and returned in these texts only.
   */
  addPeer(peer: NewPeer): Promise<NewPeerAnswer>;
  /** False when there is no such peer. */
  changePeer(name: string, change: PeerChange): Promise<boolean>;
  /** False when there is no such peer. */
  removePeer(name: string): Promise<boolean>;
  /** Milliseconds to a peer and back inside the tunnel; null when it does not answer. False when there is no such peer. */
  ping(name: string): Promise<number | null | false>;
  /**
   * Adds port forwards ("udp:27015") to a peer and opens them, all or none; undefined when there is no such peer. May reject with a
   * Refusal.
   */
  addForwards(name: string, forwards: string[]): Promise<Omit<PeerRecord, "presharedKey"> | undefined>;
  /** Closes one; false when there is no such peer, or it has no such forward. */
  removeForward(name: string, forward: string): Promise<boolean>;
  /** False when no peer of that name was removed a moment ago. */
  restorePeer(name: string): Promise<boolean>;
  /** One-time links, the newest first. */
  links(): shapes.Link[];
  makeLink(link: NewLink): Promise<shapes.Link & { token: string }>;
  /** False when there is no such link. */
  revokeLink(id: string): Promise<boolean>;
  /** Adds the device of the link that has this token; undefined when none that still works has it. */
  redeemLink(token: string): Promise<NewPeerAnswer | undefined>;
  /** Events after that number, the oldest first; and notes one about the page, with the source address. */
  events(after: number): shapes.RelayEvent[];
  noteEvent(kind: "signed_in" | "sign_in_failed", source: string): void;
  history(span: "minutes" | "day"): { stepS: number; samples: readonly shapes.HistorySample[] };
  /** Whether the relay works: loops turn, the exit is there. */
  health(): Health;
  /** Whether new clients should be sent here; false while starting and draining. */
  ready(): Health;
}
