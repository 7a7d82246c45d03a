/**
 * The thread of a client's data plane over a device, which waits in the kernel and for nothing else: a plane as
 * link_plane.ts makes it, told what to do by messages. Invariant: the device's descriptor stays the main thread's.
 */
/// <reference lib="deno.worker" />
import { TunQueue } from "../exit/tun.ts";
import { loadNative } from "../../ffi/native.ts";
import type { Invitation } from "./invitation.ts";
import { LocalPlane, type PlaneState, type PlaneWishes } from "./link_plane.ts";

/** What the main thread says. */
export type ToPlane =
  | { type: "start"; invitation: Invitation; descriptor: number; device: string; wishes: PlaneWishes }
  | { type: "connect"; address: string; port: number }
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
    const queue = new TunQueue(data.descriptor, data.device, native);
    plane = new LocalPlane(data.invitation, queue, native, data.wishes);
  } else if (data.type === "connect") {
    plane?.connect(data.address, data.port);
  } else if (data.type === "look") {
    if (plane) tell({ type: "state", state: await plane.look() });
  } else {
    await plane?.close();
    tell({ type: "closed" });
  }
};
