/**
 * The plane worker: a Worker with a plane (connect/link/local_plane.ts) over a device, which waits in the kernel and for nothing
 * else and is told what to do by messages. Invariant: the device's descriptor stays the main thread's. Opens no device.
 */
/// <reference lib="deno.worker" />
import { type MessagePort as NodePort, receiveMessageOnPort } from "node:worker_threads";
import { TunQueue } from "../../exit/tun/mod.ts";
import { loadNative } from "../../../ffi/native.ts";
import type { Mailboxes } from "../../io/mailbox.ts";
import type { HintedFlows } from "../../session/oxtunnel/hints.ts";
import type { Invitation } from "../invitation.ts";
import type { DoorPlan } from "./doors.ts";
import { LocalPlane } from "./local_plane.ts";
import type { PlaneState, PlaneWishes } from "./plane.ts";

/** What the main thread says first: the rest comes by `control`, and the bell is rung after each. */
export interface StartPlaneWorker {
  invitation: Invitation;
  descriptor: number;
  device: string;
  wishes: PlaneWishes;
  /** The fallback's, where there is one. */
  mailboxes?: Mailboxes;
  control: MessagePort;
  bell: number;
}

export type ToPlaneWorker =
  | { type: "connect" | "reach"; address: string; port: number }
  | { type: "moved" }
  | { type: "doors"; doors: readonly DoorPlan[] }
  | { type: "hint"; flows: HintedFlows; trafficClass: number | undefined }
  | { type: "look"; ping: boolean }
  | { type: "close" };

/** What the main thread hears: the state, or that the plane is closed. */
export type FromPlaneWorker = { type: "state"; state: PlaneState } | { type: "closed" };

const scope = self as unknown as DedicatedWorkerGlobalScope;
const tell = (message: FromPlaneWorker) => scope.postMessage(message);

scope.onmessage = ({ data }: MessageEvent<StartPlaneWorker>) => {
  const { invitation, descriptor, device, wishes, mailboxes, control, bell } = data;
  const native = loadNative();
  const hear = (message: ToPlaneWorker) => {
    if (message.type === "connect") plane.connect(message.address, message.port);
    else if (message.type === "reach") plane.reach(message.address, message.port);
    else if (message.type === "moved") plane.moved();
    else if (message.type === "doors") plane.setDoors(message.doors);
    else if (message.type === "hint") plane.hint(message.flows, message.trafficClass);
    else if (message.type === "look") tell({ type: "state", state: plane.state(message.ping) });
    else plane.close().then(() => tell({ type: "closed" }));
  };
  const port = control as unknown as NodePort;
  const takeMessages = () => {
    for (let taken = receiveMessageOnPort(port); taken; taken = receiveMessageOnPort(port)) {
      hear(taken.message);
    }
  };
  const exit = new TunQueue(descriptor, device, native);
  const plane = new LocalPlane(invitation, exit, native, wishes, mailboxes, { bell, takeMessages });
  if (!plane.waits) control.onmessage = ({ data }) => hear(data);
};
