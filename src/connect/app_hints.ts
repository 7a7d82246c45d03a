/**
 * Has the flows of named programs treated as `--priority app=…` says: what app_sockets.ts finds each second becomes hints
 * of the plane, and is taken back when it is gone. Invariant: at most 32 hold at a time, and few change in a second,
 * since each takes a round trip to be told. Reads no process itself.
 */
import type { HintedFlows } from "../session/oxtunnel/hints.ts";
import { type AppPriority, type AppSocket, AppSockets } from "./app_sockets.ts";

/** Of the 64 that an end may have. */
export const APP_HINTS_MAX = 32;
const LOOK_MS = 1000;
const CHANGES_MAX = 5;
const ANY = new Uint32Array(4);

export interface AppHintsOptions {
  apps: readonly AppPriority[];
  /** Wishes a class for flows, or takes the wish back. */
  hint: (flows: HintedFlows, trafficClass: number | undefined) => void;
  /** The port inside the tunnel of a program's socket; undefined when its packets do not go there. */
  innerPort: (socket: AppSocket) => number | undefined;
  /** Where sockets are looked for; the host's when absent. */
  sockets?: { look(): AppSocket[] };
}

export class AppHints {
  readonly #o: AppHintsOptions;
  readonly #sockets: { look(): AppSocket[] };
  /** Classes by protocol and port. */
  readonly #said = new Map<number, number>();
  #lookedMs = -Infinity;

  constructor(options: AppHintsOptions) {
    this.#o = options;
    this.#sockets = options.sockets ?? new AppSockets(options.apps);
  }

  /** Looks whether something has changed, once a second; to be called more often. */
  tend(nowMs: number): void {
    if (this.#o.apps.length === 0 || nowMs - this.#lookedMs < LOOK_MS) return;
    this.#lookedMs = nowMs;
    const wanted = new Map<number, number>();
    for (const socket of this.#sockets.look()) {
      const port = this.#o.innerPort(socket);
      if (port !== undefined) wanted.set(socket.protocol << 16 | port, socket.trafficClass);
    }
    let changes = 0;
    for (const key of [...this.#said.keys()]) {
      if (wanted.has(key) || changes === CHANGES_MAX) continue;
      changes++;
      this.#said.delete(key);
      this.#say(key, undefined);
    }
    for (const [key, trafficClass] of wanted) {
      if (this.#said.get(key) === trafficClass || changes === CHANGES_MAX) continue;
      if (this.#said.size >= APP_HINTS_MAX && !this.#said.has(key)) break;
      changes++;
      this.#said.set(key, trafficClass);
      this.#say(key, trafficClass);
    }
  }

  #say(key: number, trafficClass: number | undefined): void {
    const flows = { protocol: key >> 16, clientPort: key & 0xffff, remotePort: 0, client: ANY, remote: ANY };
    this.#o.hint(flows, trafficClass);
  }
}
