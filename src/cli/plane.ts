/**
 * The data-plane Worker as the main thread has it: requests with replies, its log and events, its death and its
 * replacement. Invariant: a request ends with a reply, with the Worker's reason, or with a timeout. Knows nothing of
 * packets.
 */
import type { Config } from "../config.ts";
import type { TunnelEvent } from "../tunnel.ts";
import { CommandError } from "./help.ts";
import { logger, redactAddress, sparingWarning } from "./logging.ts";
import type { FromWorker, PeersReport, Snapshot, ToWorker } from "./messages.ts";

const REPLY_TIMEOUT_MS = 3000;
const STOP_TIMEOUT_MS = 5000;
const RESTART_MIN_MS = 500, RESTART_MAX_MS = 30_000;
const REFUSALS_MS = 10_000;
const warnOfRefusal = sparingWarning(logger("peers"), REFUSALS_MS);

/** Says what happened to a peer; a roaming one at debug level, as it may do so with every packet. */
function logEvent({ kind, peer, endpoint }: TunnelEvent): void {
  const from = redactAddress(endpoint);
  if (kind === "refused") {
    warnOfRefusal("{peer} was refused: max_connections is reached; raise it, or wait until a client leaves", {
      peer,
    });
  } else if (kind === "connected") logger("peers").info("{peer} connected from {from}", { peer, from });
  else if (kind === "roamed") logger("peers").debug("{peer} moved to {from}", { peer, from });
  else logger("peers").info("{peer} is gone: its session ended", { peer });
}

export type StartMessage = Extract<ToWorker, { type: "start" }>;
export type ReadyMessage = Extract<FromWorker, { type: "ready" }>;
type Reply = PeersReport | Snapshot | null;

/**
 * The data-plane Worker seen from the main thread: requests with replies, and what it last said of itself. A Worker
 * that dies is replaced by a new one with the same socket, queue and peers; its clients make new handshakes.
 */
export class DataPlane {
  #worker: Worker;
  readonly #name: string;
  readonly #ring: () => void;
  readonly #waiting = new Map<number, { resolve: (value: Reply) => void; reject: (reason: Error) => void }>();
  #lastId = 0;
  #fatal: string | undefined;
  #message: StartMessage | undefined;
  #onStopped: () => void = () => {};
  #stopping = false;
  #restartMs = RESTART_MIN_MS;
  #restart: ReturnType<typeof setTimeout> | undefined;

  /**
   * @param name what it is called in messages: "the data plane".
   * @param ring to be called when a message was posted to it.
   */
  constructor(name: string, ring: () => void) {
    this.#name = name;
    this.#ring = ring;
    this.#worker = newWorker();
  }

  /** What ended the Worker, if something did, until another has taken its place. */
  get fatal(): string | undefined {
    return this.#fatal;
  }

  /** Starts it; resolves with what it opened, rejects with the sentence that says why not. */
  start(message: StartMessage): Promise<ReadyMessage> {
    this.#message = { ...message, failAfterMs: undefined };
    return new Promise((resolve, reject) => {
      let ready = false;
      const fail = (reason: string) => {
        this.#fatal = reason;
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
          this.#fatal = undefined;
          resolve(data);
        } else if (data.type === "failed") fail(data.message);
        else if (data.type === "log") logger(data.area)[data.level]("{message}", { message: data.message });
        else if (data.type === "event") logEvent(data.event);
        else if (data.type === "stopped") this.#onStopped();
        else {
          const waiting = this.#waiting.get(data.id);
          this.#waiting.delete(data.id);
          if (data.type === "reply") waiting?.resolve(data.value);
          else waiting?.reject(new Error(data.message));
        }
      };
      this.#worker.postMessage(message);
    });
  }

  /** Puts another Worker in the place of one that died, again and again until one lives. */
  #replace(reason: string): void {
    if (this.#stopping || this.#restart !== undefined) return;
    logger("data plane").error("{reason}; it is started again in {ms} ms", { reason, ms: this.#restartMs });
    this.#abandon();
    this.#restart = setTimeout(async () => {
      this.#restart = undefined;
      this.#restartMs = Math.min(RESTART_MAX_MS, 2 * this.#restartMs);
      this.#worker = newWorker();
      try {
        await this.start(this.#message!);
        logger("data plane").info("it runs again; clients make new handshakes by themselves");
      } catch (error) {
        this.#replace((error as Error).message);
      }
    }, this.#restartMs);
  }

  /** Ends a Worker that cannot end itself. */
  #abandon(): void {
    this.#worker.terminate();
    for (const { reject } of this.#waiting.values()) reject(new Error(`${this.#name} failed`));
    this.#waiting.clear();
  }

  /** Undefined from a Worker that is dead: its successor starts with these peers. */
  async setPeers(peers: StartMessage["peers"]): Promise<PeersReport | undefined> {
    this.#message = { ...this.#message!, peers };
    return await this.#askTheLiving((id) => ({ type: "peers", id, peers })) as PeersReport | undefined;
  }

  async tune(config: Config): Promise<void> {
    this.#message = { ...this.#message!, config };
    await this.#askTheLiving((id) => ({ type: "tune", id, config }));
  }

  snapshot(): Promise<Snapshot> {
    return this.#ask((id) => ({ type: "snapshot", id })) as Promise<Snapshot>;
  }

  /** Closes what it opened, and returns when that is done or has taken too long. */
  async stop(): Promise<void> {
    this.#stopping = true;
    clearTimeout(this.#restart);
    if (this.#fatal !== undefined) return this.#abandon();
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, STOP_TIMEOUT_MS);
      this.#onStopped = () => {
        clearTimeout(timer);
        resolve();
      };
      this.#post({ type: "stop" });
    });
    this.#worker.terminate();
  }

  #post(message: ToWorker): void {
    this.#worker.postMessage(message);
    this.#ring();
  }

  async #askTheLiving(make: (id: number) => ToWorker): Promise<Reply | undefined> {
    if (this.#fatal !== undefined) return undefined;
    try {
      return await this.#ask(make);
    } catch (error) {
      if (this.#fatal !== undefined) return undefined;
      throw error;
    }
  }

  #ask(make: (id: number) => ToWorker): Promise<Reply> {
    const id = ++this.#lastId;
    const { promise, resolve, reject } = Promise.withResolvers<Reply>();
    const timer = setTimeout(() => {
      this.#waiting.delete(id);
      reject(new Error(`${this.#name} does not answer`));
    }, REPLY_TIMEOUT_MS);
    this.#waiting.set(id, { resolve, reject });
    this.#post(make(id));
    return promise.finally(() => clearTimeout(timer));
  }
}

function newWorker(): Worker {
  return new Worker(new URL("./dataplane.ts", import.meta.url), { type: "module" });
}
