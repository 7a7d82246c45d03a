/**
 * Counters of the data path: one column of doubles over shared memory, with one writer (the relay
 * worker) and any number of readers. Holds the one table of drop reasons: code, label and sentence. Formats
 * nothing.
 */

/** Every reason to drop a packet. The code (32 + place) travels in a burst's `next` column; order is free to change. */
export const DROP_REASONS = [
  ["too_short", "The datagram is shorter than its message type allows."],
  ["bad_type", "The first bytes name no message that this port speaks."],
  ["bad_length", "A length on the wire does not fit the bytes that arrived."],
  ["bad_mac1", "The handshake message was not made for this relay's public key."],
  ["handshake_flood", "More handshake messages arrived at once than one turn processes."],
  [
    "control_flood",
    "The work of a peer's control frame exceeds the peer's share; the peer may send the frame again.",
  ],
  ["rate_limited", "The source address started more handshakes than rate_limit_per_ip allows."],
  ["handshake_failed", "A handshake message did not decrypt: wrong preshared key, or forged."],
  ["refused", "The other end authenticated, refused the session and gave its reason."],
  ["unknown_peer", "The handshake was valid, but its public key belongs to no peer of this relay."],
  [
    "barred_peer",
    "The handshake was valid, but its peer is disabled, has expired or has used up its volume.",
  ],
  [
    "handshake_replay",
    "The handshake's timestamp is not newer than the last one, or the handshake came too soon after it.",
  ],
  ["max_connections", "max_connections sessions are open; existing sessions continue, new ones are refused."],
  ["bad_cookie", "A cookie reply did not authenticate, or answers no handshake of this end."],
  ["no_session", "The receiver index belongs to no live session."],
  ["expired", "The session's keys are older than their limit."],
  ["forged", "The packet did not authenticate."],
  ["replayed", "The counter was seen before or is older than the replay window."],
  ["malformed_inner", "The decrypted bytes are not a whole IPv4 or IPv6 packet."],
  [
    "unknown_context",
    "A packet without headers came whose context this end does not have, or that is malformed.",
  ],
  ["spoofed_inner", "The inner source address is not among the peer's allowed IPs."],
  ["denied", "The destination policy forbids this inner destination."],
  ["hop_limit", "The inner packet's TTL or hop limit ran out."],
  ["no_route", "No peer has the inner destination among its allowed IPs."],
  ["no_endpoint", "The peer has sent nothing yet, so its address is unknown."],
  ["queue_full", "Too many packets wait for handshakes, of this peer or of all peers."],
  ["unanswered", "The packet waited for a handshake that the peer never completed."],
  ["too_big", "The packet is larger than the tunnel's MTU."],
  ["unsupported", "The exit cannot carry this protocol; the sender was told by ICMP or RST."],
  [
    "unassembled",
    "Fragments of an inner packet did not all arrive in time, contradicted each other, or were too many.",
  ],
  ["exit_full", "The exit holds as many flows as its limits allow."],
  ["exit_error", "The exit's device or socket refused the packet."],
  ["port_error", "The outer socket refused the datagram."],
  ["stream_full", "The TLS connection is slower than its datagrams arrive, and its queue is full."],
  ["stream_gone", "The TLS connection of the datagram's destination has ended."],
  ["worker_full", "The mailbox of the Worker that owns the packet was full."],
  [
    "queue_delay",
    "The packet waited for its line longer than CoDel allows, which tells its sender to slow down.",
  ],
  ["queue_stale", "A game's or a call's packet waited for its line until nobody had a use for it."],
  ["queue_overflow", "Too many packets waited for their lines, the peer's or everyone's."],
  ["over_rate", "The peer sent faster than the rate that its record allows."],
  ["arena_full", "All packet buffers are in use."],
  ["untrusted", "A session without encryption was continued from an address that trusted does not list."],
] as const;

export type DropLabel = (typeof DROP_REASONS)[number][0];

const FIRST_DROP = 32;

/** Drop codes by label: DROP.forged is what a node writes into `next`. */
export const DROP = Object.fromEntries(
  DROP_REASONS.map(([label], i) => [label, FIRST_DROP + i]),
) as { readonly [label in DropLabel]: number };

/**
 * Why an OxTunnel packet kept its headers: no context takes its kind; its flow is new, or its context's definition on the way;
 * all contexts are in use; its headers changed, or could not come back; the other end did not answer; LZ4 may shrink it more;
 * it is too long. The first five in the order of codec/headers/kept.ts.
 */
export const HEADERS_KEPT = ["kind", "new", "room", "changed", "unanswered", "lz4", "long"] as const;

/** Counters and gauges besides the drops, in the order of their places in the column. */
export const COUNTER_NAMES = [
  "datagrams_received",
  "datagrams_sent",
  "bytes_received",
  "bytes_sent",
  "packets_to_exit",
  "packets_to_tunnel",
  "packets_between_peers",
  "packets_batched",
  "datagrams_saved",
  "packets_held",
  "held_us",
  "held_us_max",
  "keepalives_received",
  "handshake_initiations",
  "handshake_responses",
  "handshakes_completed",
  "cookie_replies_sent",
  "roamed",
  "epochs_made",
  "packets_repaired",
  "packets_unrepaired",
  "packets_late",
  "repairs_received",
  "repairs_wasted",
  "repair_bytes_received",
  "repairs_sent",
  "repair_bytes_sent",
  "reported_repaired",
  "reported_unrepaired",
  "requests_sent",
  "requests_answered",
  "requests_late",
  "requests_useless",
  "requests_received",
  "answers_sent",
  "answers_refused",
  "copies_sent",
  "copy_bytes_sent",
  "copies_received",
  "packets_copied",
  "copies_useful",
  "path_failovers",
  "size_probes_sent",
  "icmp_errors_sent",
  "packets_compressed",
  "bytes_saved",
  "compressions_skipped",
  "headers_elided",
  "header_bytes_saved",
  "header_bytes_sent",
  "header_definitions",
  "headers_mismatch",
  "header_contexts",
  ...HEADERS_KEPT.map((reason) => `headers_kept_${reason}` as const),
  "handshakes_handed_over",
  "packets_handed_over",
  "bursts",
  "loop_beats",
  "packets_queued",
  "packets_marked",
  "queue_packets",
  "lines",
  "paths_watched",
  "sessions",
  "connections",
  "exit_flows",
  "under_load",
  // Sessions that repair, by direction and by what is sent now.
  "sending_none",
  "sending_copy",
  "sending_spaced",
  "sending_window",
  "sending_block",
  "sending_request",
  "receiving_none",
  "receiving_copy",
  "receiving_spaced",
  "receiving_window",
  "receiving_block",
  "receiving_request",
] as const;

export type CounterName = (typeof COUNTER_NAMES)[number];

/** Column index of each counter. */
export const COUNTER = Object.fromEntries(
  COUNTER_NAMES.map((name, i) => [name, i]),
) as { readonly [name in CounterName]: number };

const DROPS_AT = COUNTER_NAMES.length;

/** Classes of inner packets in OxTunnel, in the order of their numbers (PROTOCOL §14, hint). */
export const CLASS_LABELS = ["default", "game", "voice", "interactive", "bulk"] as const;
export const CLASS_DIRECTIONS = ["to_tunnel", "from_tunnel"] as const;
/** Where the counts of class 0 begin, for each direction: packets, then bytes of inner packets, then class 1's. */
export const CLASS_TO_TUNNEL_AT = DROPS_AT + DROP_REASONS.length;
export const CLASS_FROM_TUNNEL_AT = CLASS_TO_TUNNEL_AT + 2 * CLASS_LABELS.length;

/** Upper bounds of the waits that are told apart, microseconds, each twice the one before; longer ones are the last's. */
export const WAIT_BOUNDS_US = Array.from({ length: 14 }, (_, i) => 125 * 2 ** i);
/** Where the waits of class 0 begin: packets by bound, packets beyond the last, and microseconds in all; then class 1's. */
const WAITS_AT = CLASS_FROM_TUNNEL_AT + 2 * CLASS_LABELS.length;
const WAIT_COLUMNS = WAIT_BOUNDS_US.length + 2;

/** Upper bounds of the processing times that are told apart, microseconds, each twice the one before. */
export const PROCESSING_BOUNDS_US = Array.from({ length: 14 }, (_, i) => 6.25 * 2 ** i);
/** Packets by bound, packets beyond the last, and microseconds in all. */
const PROCESSING_AT = WAITS_AT + WAIT_COLUMNS * CLASS_LABELS.length;

/** Parts that a share of peers has (control/rollout.ts), at most, and their two groups. */
const ROLLOUT_PARTS_MAX = 8, ROLLOUT_GROUPS = 2;
/** Upper bounds of the round trips that are told apart, microseconds, each twice the one before. */
export const ROUND_TRIP_BOUNDS_US = Array.from({ length: 12 }, (_, i) => 1000 * 2 ** i);
const ROLLOUT_AT = PROCESSING_AT + PROCESSING_BOUNDS_US.length + 2;
/** Connected peers, bytes to them and from them; then round trips by bound, beyond the last, and microseconds in all. */
const ROLLOUT_COLUMNS = 3 + ROUND_TRIP_BOUNDS_US.length + 2;

const COLUMN_LENGTH = ROLLOUT_AT + ROLLOUT_PARTS_MAX * ROLLOUT_GROUPS * ROLLOUT_COLUMNS;

export type ClassLabel = (typeof CLASS_LABELS)[number];

/** Totals of one class in one direction. */
export interface ClassCount {
  packets: number;
  /** Of inner packets. */
  bytes: number;
}

export class Metrics {
  /** Backing memory, to be handed to another thread. */
  readonly shared: SharedArrayBuffer;
  /** The column itself, for hot loops: `column[COUNTER.bursts]++`. */
  readonly column: Float64Array;

  constructor(shared = new SharedArrayBuffer(COLUMN_LENGTH * 8)) {
    this.shared = shared;
    this.column = new Float64Array(shared);
  }

  get(name: CounterName): number {
    return this.column[COUNTER[name]];
  }

  add(name: CounterName, amount: number): void {
    this.column[COUNTER[name]] += amount;
  }

  set(name: CounterName, value: number): void {
    this.column[COUNTER[name]] = value;
  }

  /** Counts drops by their code in `next`. */
  drop(code: number, packets = 1): void {
    this.column[DROPS_AT + code - FIRST_DROP] += packets;
  }

  ofClass(direction: (typeof CLASS_DIRECTIONS)[number], label: ClassLabel): ClassCount {
    const at = (direction === "to_tunnel" ? CLASS_TO_TUNNEL_AT : CLASS_FROM_TUNNEL_AT) +
      2 * CLASS_LABELS.indexOf(label);
    return { packets: this.column[at], bytes: this.column[at + 1] };
  }

  /** Counts packets of the class that waited so long for their lines or the thread, in microseconds each; 0 for those that need not. */
  waited(trafficClass: number, waitedUs: number, packets: number): void {
    const at = WAITS_AT + WAIT_COLUMNS * trafficClass;
    let bound = 0;
    while (bound < WAIT_BOUNDS_US.length && waitedUs > WAIT_BOUNDS_US[bound]) bound++;
    this.column[at + bound] += packets;
    this.column[at + WAIT_COLUMNS - 1] += waitedUs * packets;
  }

  /** Packets of a class by their waits, by WAIT_BOUNDS_US and beyond, not added up; and for how long in all, microseconds. */
  waits(label: ClassLabel): { packets: number[]; totalUs: number } {
    const at = WAITS_AT + WAIT_COLUMNS * CLASS_LABELS.indexOf(label);
    const packets = [...this.column.subarray(at, at + WAIT_COLUMNS - 1)];
    return { packets, totalUs: this.column[at + WAIT_COLUMNS - 1] };
  }

  /** Counts packets that this process had for so long, in microseconds each. */
  processed(us: number, packets: number): void {
    let bound = 0;
    while (bound < PROCESSING_BOUNDS_US.length && us > PROCESSING_BOUNDS_US[bound]) bound++;
    this.column[PROCESSING_AT + bound] += packets;
    this.column[PROCESSING_AT + PROCESSING_BOUNDS_US.length + 1] += us * packets;
  }

  /** Packets by PROCESSING_BOUNDS_US and beyond, not added up; and for how long in all, microseconds. */
  processing(): { packets: number[]; totalUs: number } {
    const totalAt = PROCESSING_AT + PROCESSING_BOUNDS_US.length + 1;
    return { packets: [...this.column.subarray(PROCESSING_AT, totalAt)], totalUs: this.column[totalAt] };
  }

  /** Counts what a peer of a group (0 has the part, 1 has not) was sent and sent, in bytes, and its round trip; -1 for none. */
  rolledOut(part: number, group: number, bytesSent: number, bytesReceived: number, rttUs: number): void {
    const at = rolloutAt(part, group);
    this.column[at + 1] += bytesSent;
    this.column[at + 2] += bytesReceived;
    if (rttUs < 0) return;
    let bound = 0;
    while (bound < ROUND_TRIP_BOUNDS_US.length && rttUs > ROUND_TRIP_BOUNDS_US[bound]) bound++;
    this.column[at + 3 + bound]++;
    this.column[at + ROLLOUT_COLUMNS - 1] += rttUs;
  }

  setRollout(part: number, group: number, peers: number): void {
    this.column[rolloutAt(part, group)] = peers;
  }

  /** The group's figures; round trips by ROUND_TRIP_BOUNDS_US and beyond, not added up. */
  rollout(part: number, group: number) {
    const at = rolloutAt(part, group);
    const [peers, bytesSent, bytesReceived] = this.column.subarray(at, at + 3);
    const packets = [...this.column.subarray(at + 3, at + ROLLOUT_COLUMNS - 1)];
    return { peers, bytesSent, bytesReceived, packets, totalUs: this.column[at + ROLLOUT_COLUMNS - 1] };
  }

  dropped(label: DropLabel): number {
    return this.column[DROPS_AT + DROP[label] - FIRST_DROP];
  }
}

function rolloutAt(part: number, group: number): number {
  return ROLLOUT_AT + ROLLOUT_COLUMNS * (ROLLOUT_GROUPS * part + group);
}
