/**
 * The thread of a client's data plane over a device, which waits in the kernel and for nothing else: a plane as
 * link_plane.ts makes it, told what to do by messages. Invariant: the device's descriptor stays the main thread's.
 */
/// <reference lib="deno.worker" />
import { TunQueue } from "../exit/tun.ts";
import { loadNative } from "../../ffi/native.ts";
import type { Mailboxes } from "../io/mailbox.ts";
import type { Invitation } from "./invitation.ts";
import { LocalPlane, type PlaneState } from "./link_plane.ts";

/** What the main thread says. */
export type ToPlane =
  | { type: "start"; invitation: Invitation; descriptor: number; device: string; mailboxes?: Mailboxes }
  | { type: "connect" | "reach"; address: string; port: number }
  | { type: "look" }
  | { type: "close" };

/** What it hears: the state, or that the plane is closed. */
export type FromPlane = { type: "state"; state: PlaneState } | { type: "closed" };

const scope = self as unknown as DedicatedWorkerGlobalScope;
const tell = (message: FromPlane) => scope.postMessage(message);
let plane: LocalPlane | undefined;

scope.onmessage = async ({ data }: MessageEvent<ToPlane>) => {
  if (data.type === "start") {
    const native = loadNative();
    const { invitation, descriptor, device, mailboxes } = data;
    plane = new LocalPlane(invitation, new TunQueue(descriptor, device, native), native, mailboxes);
  } else if (data.type === "connect" || data.type === "reach") {
    plane?.[data.type](data.address, data.port);
  } else if (data.type === "look") {
    if (plane) tell({ type: "state", state: await plane.look() });
  } else {
    await plane?.close();
    tell({ type: "closed" });
  }
};
