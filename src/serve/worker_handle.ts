/**
 * The relay worker as the main thread has it: requests with replies, its log and events, its death and its
 * replacement. Invariant: a request ends with a reply, with the Worker's reason, or with a timeout. Knows nothing of
 * packets.
 */
import { libc } from "../../ffi/mod.ts";
import type { Config } from "../config.ts";
import type { ControlDatagram } from "../exit/exit.ts";
import type { Metrics } from "../metrics.ts";
import { ringBell } from "../io/bell.ts";
import type { AdmittedPeer, PeerTraffic, RelaySnapshot, SeenPeers } from "../session/peer_record.ts";
import type { TunnelEvent } from "../tunnel.ts";
import { streamNumberOf } from "../wire/stream.ts";
import { CommandError } from "../process/help.ts";
import { logger, redactAddress, sparingWarning } from "../process/logging.ts";
import { describeRefused, type PeerForward, type RefusedPeerForward } from "./forwards.ts";
import type { FromWorker, PeersReport, ToWorker } from "./messages.ts";

const REPLY_TIMEOUT_MS = 3000;
/** Peers cost a successor some time before it can answer. */
const STARTING_TIMEOUT_MS = 60_000;
/** How long a Worker may take to close what it opened; with the admin interface's GRACE_MS, a relay ends within 2 s. */
export const STOP_MS = 1000;
const RESTART_MIN_MS = 500, RESTART_MAX_MS = 30_000;
/** A Worker that lived so long does not count as one that dies again and again. */
const RESTART_FORGET_MS = 60_000;
/** Gauges that end with their Worker. */
const OWN_GAUGES = ["connections", "sessions", "exit_flows", "under_load"] as const;
const REFUSALS_MS = 10_000;
const warnOfRefusal = sparingWarning(logger("peers"), REFUSALS_MS);

/** Says what happened to a peer; a roaming one at debug level, as it may do so with every packet. */
function logEvent({ kind, peer, endpoint }: TunnelEvent): void {
  const from = streamNumberOf(endpoint) === undefined ? redactAddress(endpoint) : "the fallback over TLS";
  if (kind === "refused") {
    warnOfRefusal("{peer} was refused: max_connections is reached; raise it, or wait until a client leaves", {
      peer,
    });
  } else if (kind === "connected") logger("peers").info("{peer} connected from {from}", { peer, from });
  else if (kind === "roamed") logger("peers").debug("{peer} moved to {from}", { peer, from });
  else if (kind === "narrow") {
    logger("peers").warn(
      "the way to {peer} at {from} loses datagrams of 1200 bytes, which OxTunnel cannot do without: a link on it has " +
        "too small an MTU",
      { peer, from },
    );
  } else if (kind === "stale") {
    logger("peers").warn(
      "a handshake of {peer} was refused, as its time is older than its last one's: that device's clock went " +
        "back (or somebody repeats an old handshake); set it right, or, if it was ahead before, restart this relay, which " +
        "forgets the time",
      { peer },
    );
  } else logger("peers").info("{peer} is gone: its session ended", { peer });
}

/** What a Worker is started with; the handle adds the port for requests. */
export type StartMessage = Omit<Extract<ToWorker, { type: "start" }>, "control">;
export type ReadyMessage = Extract<FromWorker, { type: "ready" }>;
type Reply = PeersReport | RelaySnapshot | SeenPeers | RefusedPeerForward[] | number | null;

/** What the handle needs of a Worker. */
export type WorkerLike = Pick<Worker, "postMessage" | "terminate" | "onmessage" | "onerror">;

/**
 * The relay worker seen from the main thread: requests with replies, and what the Worker last said of itself. A Worker
 * that dies is replaced by a new one with the same socket, queue and peers; its clients make new handshakes.
 */
export class WorkerHandle {
  #worker: WorkerLike;
  readonly #makeWorker: () => WorkerLike;
  /** Where requests go; replies and whatever else it says come from the Worker itself. */
  #control: MessagePort | undefined;
  readonly #name: string;
  readonly #waiting = new Map<number, { resolve: (value: Reply) => void; reject: (reason: Error) => void }>();
  #lastId = 0;
  #fatal: string | undefined;
  #message: StartMessage | undefined;
  #onStopped: () => void = () => {};
  #stopping = false;
  /** Whether there is a Worker that takes messages, which one that still starts does afterwards. */
  #accepting = false;
  #descriptors: number[] = [];
  /** Takes what peers ask of port control; set by the pool. */
  onPortControl: (request: ControlDatagram) => void = () => {};
  #readyAtMs = -Infinity;
  #isEnded = false;
  /** Called with what happened to a peer, and with the traffic of peers since the last call. */
  onEvent: (event: TunnelEvent) => void = () => {};
  onTraffic: (traffic: PeerTraffic) => void = () => {};
  #restartMs = RESTART_MIN_MS;
  #restart: ReturnType<typeof setTimeout> | undefined;

  /**
   * @param name what it is called in messages: "the relay worker".
   * @param metrics its counters.
   * @param makeWorker starts a Worker, at once and for each that dies.
   */
  constructor(name: string, readonly metrics: Metrics, makeWorker: () => WorkerLike = newWorker) {
    this.#name = name;
    this.#makeWorker = makeWorker;
    this.#worker = makeWorker();
  }

  /** What ended the Worker, if something did, until another has taken its place. */
  get fatal(): string | undefined {
    return this.#fatal;
  }

  /** Starts the Worker; resolves with what the Worker opened, rejects with the sentence that says why it could not. */
  start(message: StartMessage): Promise<ReadyMessage> {
    this.#message = { ...message, failAfterMs: undefined };
    return new Promise((resolve, reject) => {
      let ready = false;
      const fail = (reason: string) => {
        this.#fatal = reason;
        this.#onStopped();
        if (!ready) reject(new CommandError(reason));
        else this.#replace(reason);
      };
      this.#worker.onerror = (event) => {
        event.preventDefault(); // or the main thread dies with it
        fail(`${this.#name} failed: ${event.message}`);
      };
      this.#worker.onmessage = ({ data }: MessageEvent<FromWorker>) => {
        if (data.type === "ready") {
          ready = true;
          this.#readyAtMs = performance.now();
          this.#fatal = undefined;
          this.#descriptors = data.descriptors;
          resolve(data);
        } else if (data.type === "failed") fail(data.message);
        else if (data.type === "log") logger(data.area)[data.level]("{message}", { message: data.message });
        else if (data.type === "portControl") this.onPortControl(data.request);
        else if (data.type === "event") {
          logEvent(data.event);
          this.onEvent(data.event);
        } else if (data.type === "traffic") this.onTraffic(data.traffic);
        else if (data.type === "stopped") this.#onStopped();
        else {
          const waiting = this.#waiting.get(data.id);
          this.#waiting.delete(data.id);
          if (data.type === "reply") waiting?.resolve(data.value);
          else waiting?.reject(new Error(data.message));
        }
      };
      const { port1, port2 } = new MessageChannel();
      this.#control = port1;
      this.#worker.postMessage({ ...message, control: port2 }, [port2]);
      this.#accepting = true;
    });
  }

  /** Puts another Worker in the place of one that died, again and again until one lives. */
  #replace(reason: string): void {
    if (this.#stopping || this.#restart !== undefined) return;
    if (performance.now() - this.#readyAtMs > RESTART_FORGET_MS) this.#restartMs = RESTART_MIN_MS;
    logger("worker").error("{reason}; it is started again in {ms} ms", { reason, ms: this.#restartMs });
    this.#abandon();
    this.#restart = setTimeout(async () => {
      this.#restart = undefined;
      this.#restartMs = Math.min(RESTART_MAX_MS, 2 * this.#restartMs);
      this.#worker = this.#makeWorker();
      try {
        const { failed, refused } = await this.start(this.#message!);
        for (const reason of [...failed, ...describeRefused(refused)]) {
          logger("worker").error("{reason}", { reason });
        }
        logger("worker").info("it runs again; clients make new handshakes by themselves");
      } catch (error) {
        this.#replace((error as Error).message);
      }
    }, this.#restartMs);
  }

  /** Terminates a Worker that cannot end itself, and closes the descriptors that it had opened. */
  #abandon(): void {
    this.#accepting = false;
    this.#worker.terminate();
    for (const descriptor of this.#descriptors.splice(0)) libc().close(descriptor);
    for (const gauge of OWN_GAUGES) this.metrics.set(gauge, 0);
    this.#control?.close();
    for (const { reject } of this.#waiting.values()) reject(new Error(`${this.#name} failed`));
    this.#waiting.clear();
  }

  /**
   * Changes and removes peers (public keys) so that they are `peers` in all. Undefined from a Worker that is dead: its
   * successor starts with these.
   */
  async changePeers(
    changed: AdmittedPeer[],
    gone: string[],
    peers: StartMessage["peers"],
  ): Promise<PeersReport | undefined> {
    this.#message = { ...this.#message!, peers };
    return await this.#askTheLiving((id) => ({ type: "peers", id, changed, gone })) as
      | PeersReport
      | undefined;
  }

  /** Opens these ports and no others; returns those that it could not open. A dead Worker's successor opens them. */
  async setForwards(forwards: PeerForward[]): Promise<RefusedPeerForward[]> {
    this.#message = { ...this.#message!, forwards };
    const refused = await this.#askTheLiving((id) => ({ type: "forwards", id, forwards }));
    return refused as RefusedPeerForward[] | undefined ?? [];
  }

  answerPortControl(answer: ControlDatagram): void {
    if (this.#accepting) this.#post({ type: "portControl", answer });
  }

  async tune(config: Config): Promise<void> {
    this.#message = { ...this.#message!, config };
    await this.#askTheLiving((id) => ({ type: "tune", id, config }));
  }

  /** Undefined from a Worker that is dead. */
  async snapshot(): Promise<RelaySnapshot | undefined> {
    return await this.#askTheLiving((id) => ({ type: "snapshot", id })) as RelaySnapshot | undefined;
  }

  /** Peers that were ever connected, from a peer's number on, and the number to go on from; undefined from a Worker that is dead. */
  async seenPeers(from: number): Promise<SeenPeers | undefined> {
    return await this.#askTheLiving((id) => ({ type: "seenPeers", id, from })) as SeenPeers | undefined;
  }

  /** Sends a peer an echo request: its name, or null without such a peer; or, with that name, microseconds of its round trip, or -1. */
  async ping(publicKey: string, request?: number): Promise<number | null> {
    const answer = await this.#askTheLiving((id) => ({ type: "ping", id, publicKey, request }));
    return answer as number | null | undefined ?? null;
  }

  /** Has the Worker close what it opened, and ends it when that is done or has taken STOP_MS. */
  async stop(): Promise<void> {
    this.#stopping = true;
    clearTimeout(this.#restart);
    if (this.#fatal !== undefined) {
      this.#isEnded = true;
      return this.#abandon();
    }
    await new Promise<void>((resolve) => {
      const timer = setTimeout(() => {
        logger("worker").warn("{name} did not stop within {ms} ms and is ended", {
          name: this.#name,
          ms: STOP_MS,
        });
        resolve();
      }, STOP_MS);
      this.#onStopped = () => {
        clearTimeout(timer);
        resolve();
      };
      this.#post({ type: "stop" });
    });
    this.#worker.terminate();
    this.#control?.close();
    this.#isEnded = true;
  }

  async #askTheLiving(make: (id: number) => ToWorker): Promise<Reply | undefined> {
    if (!this.#accepting) return undefined;
    const worker = this.#worker;
    try {
      return await this.#ask(make) ?? undefined;
    } catch (error) {
      if (!this.#accepting || worker !== this.#worker) return undefined;
      throw error;
    }
  }

  #ask(make: (id: number) => ToWorker): Promise<Reply> {
    const id = ++this.#lastId;
    const { promise, resolve, reject } = Promise.withResolvers<Reply>();
    const timer = setTimeout(() => {
      this.#waiting.delete(id);
      reject(new Error(`${this.#name} does not answer`));
    }, this.#fatal === undefined ? REPLY_TIMEOUT_MS : STARTING_TIMEOUT_MS);
    this.#waiting.set(id, { resolve, reject });
    this.#post(make(id));
    return promise.finally(() => clearTimeout(timer));
  }

  #post(message: ToWorker): void {
    if (this.#isEnded) return; // its bell may be closed, and the number another's
    this.#control?.postMessage(message);
    const bell = this.#message?.bell;
    if (bell !== undefined) ringBell(bell);
  }
}

function newWorker(): Worker {
  return new Worker(new URL("./relay_worker.ts", import.meta.url), { type: "module" });
}
