/**
 * What peers wish for their flows (PROTOCOL §14, hint), and what this end wishes for its own. Invariant: a hint of the other
 * end is applied to packets of its own session only, at most 64 are kept for a session, and none outlives its lifetime or
 * its session. Does not classify flows that no hint names.
 * Keeps PROTOCOL R56.
 */
import { CLASS_BULK, CLASS_DEFAULT } from "../../control/traffic_class.ts";
import { isIpv4 } from "../../wire/address.ts";
import type { Hint } from "../../wire/control.ts";

/** The most hints that are kept for one session, and of this end's own. */
export const HINTS_MAX = 64;
/** The time between two searches for expired hints, microseconds, so that hints with short lives cost little. */
const EXPIRE_US = 1_000_000;
/** No hint names the flow. */
export const NO_HINT = 255;

/** The packets that a hint names. All zeros, as IPv4 or IPv6, is any such address; :: is any of both. */
export interface HintedFlows {
  /** IP protocol number; 0 is any. */
  protocol: number;
  /** Ports at the client's end and behind the relay; 0 is any. */
  clientPort: number;
  remotePort: number;
  /** Addresses as in address.ts. */
  client: Uint32Array;
  remote: Uint32Array;
}

/** A hint and the class that it gives. */
export interface OwnHint extends HintedFlows {
  trafficClass: number;
}

interface KeptHint extends OwnHint {
  untilUs: number;
}

export class Hints {
  /** By session row: another number after every change of the hints that apply there; 0 where no hint does. */
  readonly version: Uint32Array;
  /** When `expire` is next to be called, or Infinity. */
  dueUs = Infinity;
  /** This end's own, the first that fits first. */
  readonly own: OwnHint[] = [];
  readonly #of = new Map<number, KeptHint[]>();
  #version = 0;

  constructor(rows: number) {
    this.version = new Uint32Array(rows);
  }

  /** A session begins: this end's own hints apply to its packets. */
  begin(session: number): void {
    this.end(session);
    this.version[session] = this.own.length === 0 ? 0 : this.#next();
  }

  /** Forgets what the session said. */
  end(session: number): void {
    this.#of.delete(session);
    this.version[session] = 0;
  }

  /** Takes a hint from the other end of the session; one more than 64 is ignored. */
  take(session: number, hint: Hint, nowUs: number): void {
    const kept = this.#of.get(session) ?? [];
    const place = kept.findIndex((one) => isSame(one, hint));
    if (hint.lifetimeS === 0) {
      if (place < 0) return;
      kept.splice(place, 1);
    } else if (place < 0 && kept.length === HINTS_MAX) return;
    else {
      const untilUs = nowUs + 1e6 * hint.lifetimeS;
      kept[place < 0 ? kept.length : place] = { ...copyOf(hint), untilUs };
      this.dueUs = Math.min(this.dueUs, untilUs);
    }
    this.#of.set(session, kept);
    this.version[session] = this.#next();
  }

  /** Sets a hint of this end's own, or takes it back. False when there are 64 others. */
  setOwn(flows: HintedFlows, trafficClass: number | undefined): boolean {
    const { own } = this;
    const place = own.findIndex((one) => isSame(one, flows));
    if (trafficClass === undefined) {
      if (place >= 0) own.splice(place, 1);
    } else if (place < 0 && own.length === HINTS_MAX) return false;
    else own[place < 0 ? own.length : place] = copyOf({ ...flows, trafficClass });
    this.version.fill(this.#next());
    return true;
  }

  /** Forgets expired hints, up to EXPIRE_US late. */
  expire(nowUs: number): void {
    let dueUs = Infinity;
    for (const [session, kept] of this.#of) {
      const left = kept.filter(({ untilUs }) => untilUs > nowUs);
      if (left.length < kept.length) {
        this.#of.set(session, left);
        this.version[session] = this.#next();
      }
      for (const { untilUs } of left) dueUs = Math.min(dueUs, untilUs);
    }
    this.dueUs = Math.max(dueUs, nowUs + EXPIRE_US);
  }

  /**
   * The class that was wished for a packet from this end to the session's, or NO_HINT. This end's own hints are first.
   * @param ends source and destination, four words each. @param ports of the source (high half) and the destination.
   */
  classOf(session: number, protocol: number, ports: number, ends: Uint32Array): number {
    const source = ports >>> 16, destination = ports & 0xffff;
    const own = this.own.find((hint) => fits(hint, protocol, source, destination, ends, 0, 4));
    if (own) return own.trafficClass;
    const theirs = this.#of.get(session)
      ?.find((hint) => fits(hint, protocol, destination, source, ends, 4, 0));
    return theirs ? theirs.trafficClass : NO_HINT;
  }

  #next(): number {
    // 0 means none.
    return this.#version = (this.#version + 1 >>> 0) || 1;
  }
}

function copyOf(hint: OwnHint): OwnHint {
  const { protocol, clientPort, remotePort, client, remote, trafficClass } = hint;
  return {
    protocol,
    clientPort,
    remotePort,
    client: client.slice(),
    remote: remote.slice(),
    trafficClass: trafficClass <= CLASS_BULK ? trafficClass : CLASS_DEFAULT,
  };
}

function isSame(a: HintedFlows, b: HintedFlows): boolean {
  if (a.protocol !== b.protocol || a.clientPort !== b.clientPort || a.remotePort !== b.remotePort) {
    return false;
  }
  for (let i = 3; i >= 0; i--) if (a.client[i] !== b.client[i] || a.remote[i] !== b.remote[i]) return false;
  return true;
}

function fits(
  hint: HintedFlows,
  protocol: number,
  clientPort: number,
  remotePort: number,
  ends: Uint32Array,
  clientAt: number,
  remoteAt: number,
): boolean {
  return (hint.protocol === 0 || hint.protocol === protocol) &&
    (hint.clientPort === 0 || hint.clientPort === clientPort) &&
    (hint.remotePort === 0 || hint.remotePort === remotePort) &&
    covers(hint.client, ends, clientAt) && covers(hint.remote, ends, remoteAt);
}

function covers(address: Uint32Array, ends: Uint32Array, at: number): boolean {
  if (address[3] === 0 && address[0] === 0 && address[1] === 0) {
    if (address[2] === 0) return true;
    if (address[2] === 0xffff) return isIpv4(ends, at);
  }
  for (let i = 0; i < 4; i++) if (address[i] !== ends[at + i]) return false;
  return true;
}
