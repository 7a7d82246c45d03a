/**
 * The plane worker (connect/link/worker.ts) as the main thread has it. Invariant: a Worker that dies is replaced by one over the
 * same device, which makes a new handshake; so the device, and a kill switch, stay. Moves no packet.
 */
import { closeBells, openBells, ringBell } from "../../io/bell.ts";
import type { Mailboxes } from "../../io/mailbox.ts";
import type { HintedFlows } from "../../session/oxtunnel/hints.ts";
import type { Invitation } from "../invitation.ts";
import type { DoorPlan } from "./doors.ts";
import type { LinkPlane, PlaneState, PlaneWishes } from "./plane.ts";
import type { FromPlaneWorker, StartPlaneWorker, ToPlaneWorker } from "./worker.ts";

const FIRST_LOOK_MS = 20_000, LOOK_MS = 3000;
/** How long the Worker may take to tell the relay of the end and to close what it opened. */
const CLOSE_MS = 1000;
const RESTART_MS = 1000;

export class PlaneWorkerHandle implements LinkPlane {
  #worker: Worker;
  readonly #start: Omit<StartPlaneWorker, "control">;
  #control: MessagePort | undefined;
  readonly #say: (message: string) => void;
  #connected: ToPlaneWorker | undefined;
  /** What holds now, by the flows, so that a Worker that is started again hears it too. */
  readonly #hints = new Map<string, ToPlaneWorker>();
  #onState: (state: PlaneState) => void = () => {};
  #onClosed: () => void = () => {};
  #last: PlaneState | undefined;
  #closed = false;

  /** @param descriptor the device's queue, which must outlive the Worker. */
  constructor(
    invitation: Invitation,
    descriptor: number,
    device: string,
    say: (message: string) => void,
    wishes: PlaneWishes,
    mailboxes?: Mailboxes,
  ) {
    const [bell] = openBells(1);
    this.#start = { invitation, descriptor, device, wishes, mailboxes, bell };
    this.#say = say;
    this.#worker = this.#run();
  }

  connect(address: string, port: number): void {
    this.#connected = { type: "connect", address, port };
    this.#tell(this.#connected);
  }

  reach(address: string, port: number): void {
    this.#tell({ type: "reach", address, port });
  }

  moved(): void {
    this.#tell({ type: "moved" });
  }

  setDoors(doors: readonly DoorPlan[]): void {
    this.#tell({ type: "doors", doors });
  }

  hint(flows: HintedFlows, trafficClass: number | undefined): void {
    const name = Object.values(flows).join(" ");
    const message: ToPlaneWorker = { type: "hint", flows, trafficClass };
    if (trafficClass === undefined) this.#hints.delete(name);
    else this.#hints.set(name, message);
    this.#tell(message);
  }

  /** The state, or the last one that the Worker told when it does not answer; rejects when it never has. */
  look(ping: boolean): Promise<PlaneState> {
    const { promise, resolve, reject } = Promise.withResolvers<PlaneState>();
    const timer = setTimeout(() => {
      if (this.#last) resolve(this.#last);
      else reject(new Error("the plane worker does not answer"));
    }, this.#last ? LOOK_MS : FIRST_LOOK_MS);
    this.#onState = resolve;
    this.#tell({ type: "look", ping });
    return promise.finally(() => clearTimeout(timer));
  }

  async close(): Promise<void> {
    this.#closed = true;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, CLOSE_MS);
      this.#onClosed = () => {
        clearTimeout(timer);
        resolve();
      };
      this.#tell({ type: "close" });
    });
    this.#worker.terminate();
    closeBells([this.#start.bell]);
  }

  #tell(message: ToPlaneWorker): void {
    this.#control?.postMessage(message);
    ringBell(this.#start.bell);
  }

  #run(): Worker {
    const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
    worker.onerror = (event) => {
      event.preventDefault(); // or the main thread dies with it
      worker.terminate();
      if (this.#closed) return this.#onClosed();
      this.#say(`The plane worker failed (${event.message}) and is started again.`);
      setTimeout(() => {
        if (this.#closed) return;
        this.#worker = this.#run();
        if (this.#connected) this.#tell(this.#connected);
        this.#hints.forEach((message) => this.#tell(message));
      }, RESTART_MS);
    };
    worker.onmessage = ({ data }: MessageEvent<FromPlaneWorker>) => {
      if (data.type === "closed") return this.#onClosed();
      this.#last = data.state;
      this.#onState(data.state);
    };
    const { port1, port2 } = new MessageChannel();
    this.#control = port1;
    worker.postMessage({ ...this.#start, control: port2 }, [port2]);
    return worker;
  }
}
