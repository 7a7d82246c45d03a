// Hot path.
/**
 * A burst: up to 256 packets as columns of numbers that describe slots of one arena. Invariant: rows
 * 0..count-1 are live and each owns its slot until `release` or a hand-over (`next` = HELD). A row's `next`
 * says where it goes: below FIRST_DROP a step of the route, from there on a reason to drop it.
 */
import { type Arena, NONE, packetStart } from "./arena.ts";

/** Rows in a full burst. */
export const BURST_CAPACITY = 256;
/** Rows to offer a receiver at first: an unfilled row costs time too, and mostly few packets wait. */
export const FEW_ROWS = 16;

// Steps of the route. Drop reasons start at FIRST_DROP and are listed in metrics.ts.
/** Nothing more to do; the slot goes back. */
export const DONE = 0;
/** Received, not yet read. */
export const TO_PARSE = 1;
/** A WireGuard handshake initiation (type 1). */
export const TO_INITIATION = 2;
/** A WireGuard handshake response (type 2). */
export const TO_RESPONSE = 3;
/** A WireGuard cookie reply (type 3). */
export const TO_COOKIE = 4;
/** Transport data with a known session, to be opened. */
export const TO_OPEN = 5;
/** Authentic plaintext, not yet checked by the destination policy. */
export const OPENED = 6;
/** An inner packet that leaves by the exit. */
export const TO_EXIT = 7;
/** An inner packet that goes to a peer: egress starts here. */
export const TO_TUNNEL = 8;
/** A plaintext with session and counter, to be sealed. */
export const TO_SEAL = 9;
/** A finished datagram for the port. */
export const TO_TRANSMIT = 10;
/** Another owner has the slot; `release` leaves the slot alone. */
export const HELD = 11;
/** Owned by another Worker: `session` names it, `peer` the step that comes next there. */
export const TO_WORKER = 12;
/** A datagram that another Worker received, counted and admitted, for this Worker to answer. */
export const TO_PARSE_ADMITTED = 13;
/** The same, found to be an initiation. */
export const TO_INITIATION_ADMITTED = 14;
/** An OxTunnel data datagram with a known session, whose header is still protected. */
export const TO_UNPROTECT = 15;
/** The same with its header unprotected, counter and phase known, to be opened. */
export const TO_OPEN_DATAGRAM = 16;
/** A plaintext with OxTunnel's data header in front, its session, counter and phase known, to be sealed. */
export const TO_SEAL_DATAGRAM = 17;
/** TO_TUNNEL from another Worker: handed over once, and not again. */
export const TO_TUNNEL_HANDED = 18;
/** The authentic plaintext of such a datagram, its frames not yet read. */
export const TO_UNFRAME = 19;
/** An inner UDP packet to this host's own address, for the exit to send to another client's port there (RFC 4787 REQ-9). */
export const TO_HAIRPIN = 20;
/** The first drop reason; every `next` from here on ends the row. */
export const FIRST_DROP = 32;

/**
 * Where each column begins in the burst's block, in bytes: one allocation, so that native code is given one pointer.
 * ffi/native.ts compares this table with the library's own at load.
 */
export const BURST_LAYOUT = {
  counter: 0,
  slot: 8 * BURST_CAPACITY,
  offset: 12 * BURST_CAPACITY,
  length: 16 * BURST_CAPACITY,
  session: 20 * BURST_CAPACITY,
  peer: 24 * BURST_CAPACITY,
  address: 28 * BURST_CAPACITY,
  local: 44 * BURST_CAPACITY,
  port: 60 * BURST_CAPACITY,
  next: 62 * BURST_CAPACITY,
  ecn: 63 * BURST_CAPACITY,
  headerBytes: 64 * BURST_CAPACITY,
  phase: 65 * BURST_CAPACITY,
  bytes: 66 * BURST_CAPACITY,
} as const;

export class Burst {
  readonly arena: Arena;
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly view: DataView<ArrayBuffer>;
  /** The memory of all columns, in the layout of BURST_LAYOUT. */
  readonly block = new ArrayBuffer(BURST_LAYOUT.bytes);
  /** Live rows, 0 to BURST_CAPACITY. */
  count = 0;
  /** Arena slot that owns the row's bytes. */
  readonly slot = new Uint32Array(this.block, BURST_LAYOUT.slot, BURST_CAPACITY);
  /** First byte of the datagram or packet, as an arena offset. */
  readonly offset = new Uint32Array(this.block, BURST_LAYOUT.offset, BURST_CAPACITY);
  /** Length in bytes. */
  readonly length = new Uint32Array(this.block, BURST_LAYOUT.length, BURST_CAPACITY);
  /** Step or drop reason. */
  readonly next = new Uint8Array(this.block, BURST_LAYOUT.next, BURST_CAPACITY);
  /** Outer address: four host-order words a row, IPv4 as ::ffff:a.b.c.d. Source on receive, destination on send. */
  readonly address = new Uint32Array(this.block, BURST_LAYOUT.address, 4 * BURST_CAPACITY);
  /**
   * This host's own outer address, in the same form: a datagram's destination, and the source of its answer.
   * Zeros where the port does not know, or to let the system choose.
   */
  readonly local = new Uint32Array(this.block, BURST_LAYOUT.local, 4 * BURST_CAPACITY);
  /** Outer UDP port. */
  readonly port = new Uint16Array(this.block, BURST_LAYOUT.port, BURST_CAPACITY);
  /** ECN bits of the outer IP header, 0 to 3; 0 where the port does not know. */
  readonly ecn = new Uint8Array(this.block, BURST_LAYOUT.ecn, BURST_CAPACITY);
  /** Length of an OxTunnel data datagram's header, 6 to 9 bytes (PROTOCOL §12). Undefined before TO_OPEN_DATAGRAM. */
  readonly headerBytes = new Uint8Array(this.block, BURST_LAYOUT.headerBytes, BURST_CAPACITY);
  /** Key phase of an OxTunnel data datagram in bit 0, number of its path, 0 to 7, above it. Undefined before TO_OPEN_DATAGRAM. */
  readonly phase = new Uint8Array(this.block, BURST_LAYOUT.phase, BURST_CAPACITY);
  /** Row of the session table, or NONE. */
  readonly session = new Uint32Array(this.block, BURST_LAYOUT.session, BURST_CAPACITY);
  /** Row of the peer table, or NONE. */
  readonly peer = new Uint32Array(this.block, BURST_LAYOUT.peer, BURST_CAPACITY);
  /** Nonce counter, an integer below 2^53. */
  readonly counter = new Float64Array(this.block, BURST_LAYOUT.counter, BURST_CAPACITY);
  /** Row of the table of paths (session/paths.ts). Undefined before parse on the way in, and before choose on the way out. */
  readonly path = new Uint32Array(BURST_CAPACITY);
  /** Row of the flow table, or NONE. Set by egress only. */
  readonly flow = new Uint32Array(BURST_CAPACITY);
  /** CLASS_* of an inner packet on its way into the tunnel. */
  readonly trafficClass = new Uint8Array(BURST_CAPACITY);
  /** 1 where this host is the source of an inner packet, as of packets of its own sockets. Set by egress only. */
  readonly isOwn = new Uint8Array(BURST_CAPACITY);

  constructor(arena: Arena) {
    this.arena = arena;
    this.bytes = arena.bytes;
    this.view = arena.view;
  }

  /**
   * Adds a row that owns `slot`, its bytes starting at the slot's packet start, and returns the row's
   * number. The caller has checked that the burst is not full.
   */
  push(slot: number, length: number, next: number): number {
    const row = this.count++;
    this.slot[row] = slot;
    this.offset[row] = packetStart(slot);
    this.length[row] = length;
    this.next[row] = next;
    this.session[row] = NONE;
    this.peer[row] = NONE;
    this.flow[row] = NONE;
    this.trafficClass[row] = 0;
    this.isOwn[row] = 0;
    this.ecn[row] = 0;
    const { local } = this;
    local[4 * row] =
      local[4 * row + 1] =
      local[4 * row + 2] =
      local[4 * row + 3] =
        0;
    return row;
  }

  /** Takes a free slot and adds a row for it; returns the row, or -1 when burst or arena is full. */
  grow(length: number, next: number): number {
    if (this.count === BURST_CAPACITY) return -1;
    const slot = this.arena.take();
    return slot === NONE ? -1 : this.push(slot, length, next);
  }

  /** Adds rows of fresh slots until there are `count`, or burst or arena is full. */
  growTo(count: number, next: number): void {
    const { slot, offset, length, session, peer, flow, trafficClass, isOwn, ecn, local } = this;
    const from = this.count;
    const wanted = Math.min(count, BURST_CAPACITY) - from;
    if (wanted <= 0) return;
    const to = from + this.arena.takeInto(slot, from, wanted);
    const steps = this.next;
    for (let row = from; row < to; row++) {
      offset[row] = packetStart(slot[row]);
      length[row] = 0;
      steps[row] = next;
      session[row] = NONE;
      peer[row] = NONE;
      flow[row] = NONE;
      trafficClass[row] = 0;
      isOwn[row] = 0;
      ecn[row] = 0;
      local[4 * row] = 0;
      local[4 * row + 1] = 0;
      local[4 * row + 2] = 0;
      local[4 * row + 3] = 0;
    }
    this.count = to;
  }

  /** Whether this step comes next for any row: a native call for none of them costs as much as one for a few. */
  has(step: number): boolean {
    const { next, count } = this;
    for (let row = 0; row < count; row++) {
      if (next[row] === step) return true;
    }
    return false;
  }

  /**
   * The end of the run that begins at `row`: consecutive rows with the same session and the same step. Work that is
   * done once for a run, with values kept in registers, costs each packet little.
   */
  runEnd(row: number): number {
    const { next, session, count } = this;
    const step = next[row], of = session[row];
    let end = row + 1;
    while (end < count && session[end] === of && next[end] === step) end++;
    return end;
  }

  /** Marks the row for the Worker that owns it, where `step` comes next. */
  handOver(row: number, worker: number, step: number): void {
    this.next[row] = TO_WORKER;
    this.session[row] = worker;
    this.peer[row] = step;
  }

  /** Removes the rows from `count` on and releases their slots; none of them may be HELD. */
  shrink(count: number): void {
    if (this.count <= count) return;
    this.arena.releaseFrom(this.slot, count, this.count);
    this.count = count;
  }

  /** Releases every row's slot, except those that were handed over, and empties the burst. */
  release(): void {
    const { arena, slot, next, count } = this;
    for (let row = 0; row < count; row++) {
      if (next[row] !== HELD) arena.release(slot[row]);
    }
    this.count = 0;
  }
}
