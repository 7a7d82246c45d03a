/**
 * Ports outside that are lent for a time to who asks for them (RFC 6887 §11, RFC 6886 §3.3), at a relay to its peers, at a gateway to
 * the hosts of its LAN. Invariant: an owner has a bounded number, a port leads to one place, one that the host refuses is never
 * told as open, and changes are carried out one after the other. Reads no datagram.
 */
import { type MapOutcome, type MapRequest, PCP } from "../../wire/port_control.ts";
import { isV6, type PortForward, type RefusedForward } from "../forward.ts";

/** RFC 6887 §15: a day is the most that makes sense; a lease that nobody renews is not kept for longer than this. */
const LIFETIME_MAX_S = 7200;
/** Ports below belong to the host. */
const PORT_MIN = 1024;
const TRIES = 8;
/** Wishes that wait for their turn, of one owner and of all. */
const WAITING_MAX = 4, WAITING_ALL_MAX = 64;
/** How long the NAT in front is not asked after it did not answer. */
const SILENCE_S = 5;

/** Who may have leases: a peer, or a host of the LAN. */
export interface LeaseOwner {
  id: string;
  /** The address that asks, to which the port leads. */
  address: string;
}

export interface Lease extends PortForward {
  owner: string;
  nonce: Uint8Array;
  endsS: number;
  /** The port that the asker is told; another than `outer` where a further NAT is in front. */
  told: number;
}

export interface LeasesOptions {
  /** The most that an owner may have; 0 when nobody may. */
  most(): number;
  /** Whether a port is another's for good. */
  isTaken(protocol: PortForward["protocol"], outer: number): boolean;
  /** A port that leads to this place for good; 0 where one should and could not be opened. */
  fixed?(address: string, protocol: PortForward["protocol"], port: number): number | undefined;
  /** Opens the ports of these leases and no others; returns those that it could not open. */
  apply(leases: readonly Lease[]): Promise<readonly RefusedForward[]>;
  /** Asks the NAT in front for a mapping to the lease's outer port; a lifetime of 0 ends that. */
  upstream?(lease: Lease, wanted: number, lifetimeS: number): Promise<MapOutcome>;
  /** The address outside, of the family of an address; four words, zeros where nobody knows. */
  outside(address: string): Uint32Array;
  /** Seconds since some moment. */
  nowS(): number;
}

export class Leases {
  readonly #o: LeasesOptions;
  #leases: Lease[] = [];
  #turn: Promise<unknown> = Promise.resolve();
  readonly #waiting = new Map<string, number>();
  #waitingAll = 0;
  #isExpiring = false;
  #isRefreshing = false;
  #silentUntilS = -Infinity;

  constructor(options: LeasesOptions) {
    this.#o = options;
  }

  get all(): readonly Lease[] {
    return this.#leases;
  }

  /** Carries out a wish, or refuses it at once where too many wait. Never rejects. */
  map(owner: LeaseOwner, request: MapRequest): Promise<MapOutcome> {
    const waiting = this.#waiting.get(owner.id) ?? 0;
    if (waiting >= WAITING_MAX || this.#waitingAll >= WAITING_ALL_MAX) {
      return Promise.resolve(this.#failed(owner, PCP.noResources));
    }
    this.#waiting.set(owner.id, waiting + 1);
    this.#waitingAll++;
    const done = this.#turn.then(() => this.#map(owner, request)).catch(() =>
      this.#failed(owner, PCP.networkFailure)
    ).finally(() => {
      this.#waitingAll--;
      const left = this.#waiting.get(owner.id)! - 1;
      if (left > 0) this.#waiting.set(owner.id, left);
      else this.#waiting.delete(owner.id);
    });
    this.#turn = done;
    return done;
  }

  /** Ends leases whose time is over, and those of which `isGone` says so. */
  expire(isGone: (lease: Lease) => boolean = () => false): Promise<void> {
    const nowS = this.#o.nowS();
    const isOver = (lease: Lease) => lease.endsS <= nowS || isGone(lease);
    if (this.#isExpiring || !this.#leases.some(isOver)) return Promise.resolve();
    this.#isExpiring = true;
    const done = this.#turn.then(() => this.#replace(this.#leases.filter((lease) => !isOver(lease)))).then(
      () => {},
      () => {},
    ).finally(() => this.#isExpiring = false);
    this.#turn = done;
    return done;
  }

  /** Asks the NAT in front again for every lease, which may have lost them; once, however often it is called meanwhile. */
  refresh(): Promise<void> {
    const { upstream, nowS } = this.#o;
    if (upstream === undefined || this.#isRefreshing) return Promise.resolve();
    this.#isRefreshing = true;
    const done = this.#turn.then(async () => {
      for (const lease of this.#leases) {
        const outcome = await this.#ask(lease, lease.told, Math.max(1, lease.endsS - nowS()));
        if (outcome?.result === PCP.success) lease.told = outcome.outer;
      }
    }).catch(() => {}).finally(() => this.#isRefreshing = false);
    this.#turn = done;
    return done;
  }

  /** Has the NAT in front end all leases, so that no port leads to what comes after; waits at most `waitMs` milliseconds. */
  async release(waitMs: number): Promise<void> {
    const { upstream } = this.#o;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<void>((resolve) => timer = setTimeout(resolve, waitMs));
    await Promise.race([Promise.allSettled(this.#leases.map((lease) => upstream?.(lease, 0, 0))), late]);
    clearTimeout(timer);
  }

  async #map(owner: LeaseOwner, request: MapRequest): Promise<MapOutcome> {
    const { protocol, port, lifetimeS } = request;
    if (this.#o.most() === 0) return this.#failed(owner, PCP.notAuthorized);
    if (port === 0) return await this.#endAll(owner, request);
    const fixed = this.#o.fixed?.(owner.address, protocol, port);
    const asked = Math.min(lifetimeS, LIFETIME_MAX_S);
    if (fixed === 0) return this.#failed(owner, PCP.noResources);
    if (fixed !== undefined) return this.#granted(owner, fixed, asked);
    const isIt = (lease: Lease) =>
      lease.protocol === protocol && lease.port === port && lease.address === owner.address;
    const present = this.#leases.find(isIt);
    // Only who made a mapping may change it (§11.3); NAT-PMP has no nonce, and its own have none.
    if (present && !isSameNonce(present.nonce, request.nonce)) return this.#failed(owner, PCP.notAuthorized);
    if (asked === 0) {
      if (present) await this.#end(present);
      return this.#granted(owner, 0, 0);
    }
    if (this.#o.nowS() < this.#silentUntilS) return this.#failed(owner, PCP.networkFailure);
    if (present) return await this.#renew(owner, present, asked);
    if (this.#leases.filter((lease) => lease.owner === owner.id).length >= this.#o.most()) {
      return this.#failed(owner, PCP.userExceeded);
    }
    return await this.#add(owner, request, asked);
  }

  async #add(owner: LeaseOwner, request: MapRequest, lifetimeS: number): Promise<MapOutcome> {
    const { protocol, port, wanted, isStrict, nonce } = request;
    for (const outer of this.#candidates(owner, request)) {
      const lease: Lease = {
        protocol,
        outer,
        address: owner.address,
        port,
        owner: owner.id,
        nonce,
        endsS: this.#o.nowS() + lifetimeS,
        told: outer,
      };
      const refused = await this.#replace([...this.#leases, lease]);
      if (refused.some(({ forward }) => forward === lease)) {
        await this.#withdraw(lease);
        continue;
      }
      if (this.#o.upstream === undefined) return this.#granted(owner, outer, lifetimeS);
      const outcome = await this.#ask(lease, wanted || port, lifetimeS) ??
        this.#failed(owner, PCP.networkFailure);
      if (outcome.result === PCP.success && !(isStrict && wanted !== 0 && outcome.outer !== wanted)) {
        lease.told = outcome.outer;
        lease.endsS = this.#o.nowS() + outcome.lifetimeS;
        return outcome;
      }
      if (outcome.result !== PCP.success) {
        await this.#withdraw(lease);
        return outcome;
      }
      await this.#end(lease);
      return this.#failed(owner, PCP.cannotProvide);
    }
    return this.#failed(owner, isStrict ? PCP.cannotProvide : PCP.noResources);
  }

  async #renew(owner: LeaseOwner, lease: Lease, lifetimeS: number): Promise<MapOutcome> {
    const outcome = this.#o.upstream === undefined
      ? this.#granted(owner, lease.told, lifetimeS)
      : await this.#ask(lease, lease.told, lifetimeS) ?? this.#failed(owner, PCP.networkFailure);
    if (outcome.result !== PCP.success) return outcome;
    lease.told = outcome.outer;
    lease.endsS = this.#o.nowS() + outcome.lifetimeS;
    return outcome;
  }

  /** What the NAT in front says to a wish; undefined while it is silent, which is not waited for again at once. */
  async #ask(lease: Lease, wanted: number, lifetimeS: number): Promise<MapOutcome | undefined> {
    if (this.#o.nowS() < this.#silentUntilS) return undefined;
    const outcome = await this.#o.upstream!(lease, wanted, lifetimeS);
    if (outcome.result === PCP.networkFailure) this.#silentUntilS = this.#o.nowS() + SILENCE_S;
    return outcome;
  }

  /** Ends an asker's leases of a protocol, as NAT-PMP may ask (RFC 6886 §3.4): those that it made without a nonce. */
  async #endAll(owner: LeaseOwner, { protocol, nonce }: MapRequest): Promise<MapOutcome> {
    const isIts = (lease: Lease) =>
      lease.protocol === protocol && lease.address === owner.address && isSameNonce(lease.nonce, nonce);
    const ended = this.#leases.filter(isIts);
    if (ended.length > 0) await this.#replace(this.#leases.filter((lease) => !isIts(lease)));
    await Promise.all(ended.map((lease) => this.#o.upstream?.(lease, 0, 0)));
    return this.#granted(owner, 0, 0);
  }

  async #end(lease: Lease): Promise<void> {
    await this.#replace(this.#leases.filter((other) => other !== lease));
    await this.#o.upstream?.(lease, 0, 0);
  }

  /** Ports to try: the one that is wanted, the asker's own (RFC 4787 §4.2.1), then any. */
  *#candidates({ address }: LeaseOwner, { protocol, port, wanted, isStrict }: MapRequest): Generator<number> {
    const isFree = (outer: number) =>
      outer >= PORT_MIN && !this.#o.isTaken(protocol, outer) &&
      !this.#leases.some((lease) =>
        lease.protocol === protocol && lease.outer === outer && isV6(lease.address) === isV6(address)
      );
    const first = wanted === 0 || this.#o.upstream !== undefined ? port : wanted;
    if (isFree(first)) yield first;
    if (isStrict && wanted !== 0 && this.#o.upstream === undefined) return;
    if (port !== first && isFree(port)) yield port;
    for (let tried = 0; tried < TRIES; tried++) {
      const [random] = crypto.getRandomValues(new Uint16Array(1));
      if (isFree(random)) yield random;
    }
  }

  /** Has the host carry out this list; when it throws, the list from before stays. */
  async #replace(leases: Lease[]): Promise<readonly RefusedForward[]> {
    const before = this.#leases;
    this.#leases = leases;
    try {
      return await this.#o.apply(leases);
    } catch (error) {
      this.#leases = before;
      throw error;
    }
  }

  /** Forgets a lease that was not granted, also when the host cannot carry that out now: it does with the next change. */
  async #withdraw(lease: Lease): Promise<void> {
    this.#leases = this.#leases.filter((other) => other !== lease);
    await this.#o.apply(this.#leases);
  }

  #granted({ address }: LeaseOwner, outer: number, lifetimeS: number): MapOutcome {
    return { result: PCP.success, outer, lifetimeS, address: this.#o.outside(address) };
  }

  #failed({ address }: LeaseOwner, result: number): MapOutcome {
    return { result, outer: 0, lifetimeS: 30, address: this.#o.outside(address) };
  }
}

function isSameNonce(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && one.every((byte, i) => byte === other[i]);
}
