/**
 * The pool of relay workers as one: told the same, and asked together. Invariant: they share doors and peers, a peer
 * is described by the Worker that owns it, and those who ask for a snapshot at one time share it. Knows nothing of packets.
 */
import type { Config } from "../config.ts";
import { Metrics } from "../metrics.ts";
import {
  addLatencies,
  type AdmittedPeer,
  type PeerSnapshot,
  type PeerTraffic,
  type RelaySnapshot,
  type SeenPeers,
} from "../session/peer_record.ts";
import { ownerOf } from "../session/peers.ts";
import type { ControlDatagram } from "../exit/exit.ts";
import type { Doors } from "./doors.ts";
import { keyFromText } from "../process/keys_text.ts";
import {
  besideRecords,
  describeRefused,
  forwardsOf,
  forwardsOfWorker,
  type PeerForward,
  type RefusedPeerForward,
} from "./forwards.ts";
import type { PeersReport } from "./messages.ts";
import { Recent } from "./recent.ts";
import type { TunnelEvent } from "../tunnel.ts";
import { type ReadyMessage, type StartMessage, WorkerHandle } from "./worker_handle.ts";

/** How long a loop may stand still. */
const STALL_MS = 2000;
/** Between looks for the reply to a ping, whose time the Worker takes. */
const PING_LOOK_MS = 10;

/** What every Worker is started with alike. */
type CommonStart = Pick<
  StartMessage,
  "config" | "privateKey" | "tunnelIpv6" | "peers" | "maxFlows" | "timeScale" | "failAfterMs"
>;

/** What the pool asks of each Worker. */
type Handle = Pick<
  WorkerHandle,
  | "fatal"
  | "start"
  | "changePeers"
  | "setForwards"
  | "onPortControl"
  | "answerPortControl"
  | "tune"
  | "snapshot"
  | "seenPeers"
  | "ping"
  | "stop"
  | "onEvent"
  | "onTraffic"
>;

export class WorkerPool {
  /** One column of counters for each Worker. */
  readonly metrics: readonly Metrics[];
  readonly #handles: readonly Handle[];
  readonly #doors: Doors;
  #peers: readonly AdmittedPeer[] = [];
  /** Public keys of whom the last change was about, where it failed: nobody knows which Workers and programs have carried it out. */
  readonly #unsure = new Set<string>();
  readonly #beats: { count: number; atMs: number }[];
  /** Ports that peers have asked for, besides those of their records. */
  #leased: readonly PeerForward[] = [];
  #refused: readonly RefusedPeerForward[] = [];
  #forwarding: Promise<unknown> = Promise.resolve();
  readonly #snapshots = new Recent(() => this.#snapshot());
  readonly #seen = new Recent(() => this.#seenPeers());
  readonly #recognised = new Recent(() => this.#applications());

  /**
   * @param workers how many relay workers there are, 1 to 16.
   * @param doors what they share; closed by `stop`.
   * @param makeHandle makes the handle of one Worker, by its name in messages and its counters.
   */
  constructor(
    workers: number,
    doors: Doors,
    makeHandle: (name: string, metrics: Metrics) => Handle = (name, metrics) =>
      new WorkerHandle(name, metrics),
  ) {
    this.#doors = doors;
    this.metrics = Array.from({ length: workers }, () => new Metrics());
    this.#handles = this.metrics.map((metrics, worker) => makeHandle(nameOf(worker, workers), metrics));
    this.#beats = this.#handles.map(() => ({ count: -1, atMs: performance.now() }));
  }

  /** Starts all Workers; resolves with what the first one opened, rejects with the sentence of the first that failed. */
  async start(common: CommonStart): Promise<ReadyMessage> {
    const { port, sockets, device, mailboxes, bells } = this.#doors;
    this.#peers = common.peers;
    const served = common.peers.filter(({ barred }) => barred === undefined);
    this.#doors.steer(served);
    const { forget } = await this.#doors.setPeers(served);
    await forget();
    const forwards = forwardsOf(served);
    const byHost = await this.#doors.setForwards(forwards);
    const counters = this.metrics.map(({ shared }) => shared);
    const ready = await Promise.all(this.#handles.map((handle, worker) =>
      handle.start({
        type: "start",
        ...common,
        failAfterMs: worker === 0 ? common.failAfterMs : undefined,
        worker,
        counters,
        port,
        socket: sockets[worker],
        queue: device?.queues[worker],
        device: device?.description,
        mailboxes,
        bell: bells[worker],
        forwards: byHost ? [] : forwardsOfWorker(forwards, worker, this.#handles.length),
      })
    ));
    this.#refused = byHost ?? ready.flatMap(({ refused }) => refused);
    return { ...ready[0], failed: [...ready[0].failed, ...describeRefused(this.#refused)] };
  }

  /** What is wrong with any Worker or with the device, as sentences. To be called twice a second, since a loop that stands still is known by its beats between two calls. */
  faults(): string[] {
    const nowMs = performance.now();
    const reasons = this.#handles.flatMap(({ fatal }) => fatal ?? []);
    for (const [worker, beats] of this.#beats.entries()) {
      const count = this.metrics[worker].get("loop_beats");
      if (count !== beats.count) this.#beats[worker] = { count, atMs: nowMs };
      const silentMs = nowMs - this.#beats[worker].atMs;
      if (silentMs > STALL_MS) {
        const name = nameOf(worker, this.#handles.length);
        reasons.push(`${name}'s loop has stood still for ${Math.round(silentMs)} ms`);
      }
    }
    if (this.#doors.device?.fault !== undefined) reasons.push(this.#doors.device.fault);
    return reasons;
  }

  /** The peers that the Workers were last told. */
  get peers(): readonly AdmittedPeer[] {
    return this.#peers;
  }

  /** Forwards that the host, or a Worker's exit, could not open when they were last changed. */
  get refused(): readonly RefusedPeerForward[] {
    return this.#refused;
  }

  /** Has what Workers tell of their peers passed on: events, and traffic since they told it last. */
  listen(onEvent: (event: TunnelEvent) => void, onTraffic: (traffic: PeerTraffic) => void): void {
    for (const handle of this.#handles) Object.assign(handle, { onEvent, onTraffic });
  }

  /**
   * Makes the peers equal to `peers` in all Workers, by difference, and their forwards. Reports what changed in one Worker, as in each.
   * After it has rejected, the next call tells what this one was to tell, too.
   */
  async setPeers(
    peers: readonly AdmittedPeer[],
  ): Promise<PeersReport & { refused?: RefusedPeerForward[] }> {
    const { changed, gone } = differenceOf(this.#peers, peers, this.#unsure);
    for (const key of [...changed.map(({ publicKey }) => publicKey), ...gone]) this.#unsure.add(key);
    const all = [...peers];
    this.#peers = all;
    this.#doors.steer(all.filter(({ barred }) => barred === undefined));
    try {
      const report = await carryOut(this.#handles, this.#doors, { changed, gone, all });
      const refused = await this.setForwards();
      this.#unsure.clear();
      return { ...report, refused };
    } finally {
      this.#snapshots.forget();
      this.#seen.forget();
    }
  }

  /**
   * Sends a peer (public key) an ICMP echo request inside the tunnel. Milliseconds to the peer and back; undefined when it does
   * not answer in `timeoutMs`.
   */
  async ping(publicKey: string, timeoutMs: number): Promise<number | undefined> {
    const owner = this.#handles[ownerOf(keyFromText(publicKey)!, this.#handles.length)];
    const request = await owner.ping(publicKey);
    if (request === null) return undefined;
    for (const endMs = performance.now() + timeoutMs; performance.now() < endMs;) {
      await new Promise((resolve) => setTimeout(resolve, PING_LOOK_MS));
      const rttUs = await owner.ping(publicKey, request) ?? -1;
      if (rttUs >= 0) return rttUs / 1000;
    }
    return undefined;
  }

  /**
   * Opens the ports of the peers' forwards and of `leased`, and no others; returns those that it could not open. One such change
   * comes after the other.
   */
  setForwards(leased?: readonly PeerForward[]): Promise<RefusedPeerForward[]> {
    const forwarding = this.#forwarding.catch(() => {}).then(async () => {
      const before = this.#leased;
      this.#leased = leased ?? before;
      try {
        return await this.#carryOutForwards(leased !== undefined);
      } catch (error) {
        this.#leased = before;
        throw error;
      }
    });
    this.#forwarding = forwarding;
    return forwarding;
  }

  /** `tellsLeased`: whether leases that meet a record are told as refused; they are never opened. */
  async #carryOutForwards(tellsLeased: boolean): Promise<RefusedPeerForward[]> {
    const served = this.#peers.filter(({ barred }) => barred === undefined);
    const keys = new Set(served.map(({ publicKey }) => publicKey));
    const records = forwardsOf(served);
    const { kept, met } = besideRecords(records, this.#leased.filter(({ publicKey }) => keys.has(publicKey)));
    const all = [...records, ...kept];
    const refused = await this.#doors.setForwards(all) ??
      (await Promise.all(
        this.#handles.map((handle, worker) =>
          handle.setForwards(forwardsOfWorker(all, worker, this.#handles.length))
        ),
      )).flat();
    this.#refused = refused;
    if (!tellsLeased) return refused;
    return [...refused, ...met.map((forward) => ({ forward, reason: "belongs to a peer's record" }))];
  }

  /** Has `answer` answer what peers ask of port control through their Workers' exits. */
  onPortControl(answer: (request: ControlDatagram) => Promise<Uint8Array<ArrayBuffer> | undefined>): void {
    for (const handle of this.#handles) {
      handle.onPortControl = async (request) => {
        const payload = await answer(request);
        if (payload !== undefined) handle.answerPortControl({ ...request, payload });
      };
    }
  }

  async tune(config: Config): Promise<void> {
    await Promise.all([this.#doors.tune(config), ...this.#handles.map((handle) => handle.tune(config))]);
  }

  /**
   * Every peer as its owner has it, and everybody's sessions. Who asks while a snapshot is made gets that one; one that was made
   * less than `maxAgeMs` milliseconds ago serves, too, unless peers have changed. Not to be changed by its callers.
   */
  snapshot(maxAgeMs: number): Promise<RelaySnapshot> {
    return this.#snapshots.take(maxAgeMs);
  }

  /**
   * The peers that were ever connected: as `snapshot`, for who asks again and again. No Worker is held up by it for long, however many
   * peers there are.
   */
  seenPeers(maxAgeMs: number): Promise<Pick<RelaySnapshot, "peers">> {
    return this.#seen.take(maxAgeMs);
  }

  /** Flows that are recognised, by application, for who asks again and again: one question to each Worker, however many peers there are. */
  applications(maxAgeMs: number): Promise<Record<string, number>> {
    return this.#recognised.take(maxAgeMs);
  }

  async #applications() {
    const parts = await Promise.all(this.#handles.map((handle) => handle.seenPeers(0)));
    return addCounts(parts.map((part) => part?.applications ?? {}));
  }

  async #seenPeers() {
    const all = await Promise.all(this.#handles.map(async (handle) => {
      const parts: SeenPeers[] = [];
      for (let from: number | undefined = 0; from !== undefined;) {
        const part: SeenPeers | undefined = await handle.seenPeers(from);
        if (part !== undefined) parts.push(part);
        from = part?.next;
      }
      return parts;
    }));
    return { peers: all.flat().flatMap(({ peers }) => peers).map((peer) => this.#named(peer)) };
  }

  /** The peer with an endpoint that people can read. */
  #named(peer: PeerSnapshot): PeerSnapshot {
    return { ...peer, endpoint: this.#doors.fallback?.named(peer.endpoint) ?? peer.endpoint };
  }

  async #snapshot(): Promise<RelaySnapshot> {
    const all = await Promise.all(this.#handles.map((handle) => handle.snapshot()));
    const one = all.find((snapshot) => snapshot !== undefined);
    const known = all.map((snapshot) => new Map(snapshot?.peers.map((peer) => [peer.publicKey, peer])));
    // A dead Worker's peers are known to the others, who have not heard from them.
    const owned = (peer: PeerSnapshot) =>
      known[ownerOf(keyFromText(peer.publicKey)!, all.length)].get(peer.publicKey) ?? peer;
    const forwards = new Map(this.#peers.map((peer) => [peer.publicKey, peer.forwards]));
    return {
      peers: (one?.peers ?? []).map(owned)
        .map((peer) => ({ ...peer, forwards: forwards.get(peer.publicKey) }))
        .map((peer) => this.#named(peer)),
      sessions: all.flatMap((snapshot) => snapshot?.sessions ?? []),
      applications: addCounts(all.map((snapshot) => snapshot?.applications ?? {})),
      delays: addLatencies(all.flatMap((snapshot) => snapshot?.delays ?? [])),
    };
  }

  /** Ends all Workers, and then closes the doors. */
  async stop(): Promise<void> {
    await Promise.all(this.#handles.map((handle) => handle.stop()));
    await this.#doors.close();
  }
}

/** What a Worker is called in messages. */
function nameOf(worker: number, workers: number): string {
  return workers === 1 ? "the relay worker" : `relay worker ${worker}`;
}

/**
 * Has a difference carried out by the relay workers and by the host: who is gone or barred is cut off before anything waits for the
 * host's programs. Throws what the Workers or the host refused, once all of them have done theirs.
 */
export async function carryOut(
  handles: readonly Pick<Handle, "changePeers">[],
  doors: Pick<Doors, "setPeers">,
  { changed, gone, all }: { changed: AdmittedPeer[]; gone: string[]; all: AdmittedPeer[] },
): Promise<PeersReport> {
  const tell = async (changed: AdmittedPeer[], gone: string[]): Promise<PeersReport> => {
    const reports = await Promise.all(handles.map((handle) => handle.changePeers(changed, gone, all)));
    return reports.find((report) => report !== undefined) ?? { added: [], removed: [], failed: [] };
  };
  const isBarred = ({ barred }: AdmittedPeer) => barred !== undefined;
  const barred = changed.filter(isBarred);
  const cut = await settled(gone.length + barred.length > 0 ? tell(barred, gone) : undefined);
  const host = await settled(doors.setPeers(all.filter((peer) => !isBarred(peer))));
  const others = await tell(changed.filter((peer) => !isBarred(peer)), []);
  if (cut instanceof Error) throw cut;
  if (host instanceof Error) throw host;
  await host?.forget();
  return { ...others, removed: cut?.removed ?? [] };
}

/** The result, or the error that it failed with. */
function settled<T>(result: Promise<T> | undefined): Promise<T | undefined | Error> {
  return Promise.resolve(result).catch((error: Error) => error);
}

/**
 * The peers that are new or other than before, and the public keys of those that are no longer there; with each of `unsure`, a public
 * key, in one of the two.
 */
export function differenceOf(
  before: readonly AdmittedPeer[],
  after: readonly AdmittedPeer[],
  unsure: ReadonlySet<string> = new Set(),
): { changed: AdmittedPeer[]; gone: string[] } {
  const left = new Map(before.map((peer) => [peer.publicKey, peer]));
  const changed = after.filter((peer) => {
    const known = left.get(peer.publicKey);
    left.delete(peer.publicKey);
    return known === undefined || unsure.has(peer.publicKey) || !isSame(known, peer);
  });
  const there = new Set(changed.map(({ publicKey }) => publicKey));
  const gone = new Set([...left.keys(), ...[...unsure].filter((key) => !there.has(key))]);
  return { changed, gone: [...gone] };
}

function isSame(one: AdmittedPeer, other: AdmittedPeer): boolean {
  return one.name === other.name && one.barred === other.barred && one.presharedKey === other.presharedKey &&
    one.allowedIps.join() === other.allowedIps.join() &&
    one.rateDownBps === other.rateDownBps && one.rateUpBps === other.rateUpBps;
}

/** What several have counted, the most first. */
function addCounts(some: Record<string, number>[]): Record<string, number> {
  const counts = new Map<string, number>();
  for (const [name, count] of some.flatMap((one) => Object.entries(one))) {
    counts.set(name, (counts.get(name) ?? 0) + count);
  }
  return Object.fromEntries([...counts].sort(([, a], [, b]) => b - a));
}
