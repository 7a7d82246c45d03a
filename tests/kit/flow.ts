/**
 * A game's or a call's packets between two namespaces, both ways at once, each numbered and stamped when it is sent, so
 * that its receiver knows what came, when and how old. Invariant: both ends read one clock (CLOCK_MONOTONIC), and a packet
 * counts as lost when it has not come 1.5 seconds after the last was sent. Judges nothing.
 */
import type { Workload } from "./workloads.ts";
import type { Background, Network } from "./namespaces.ts";

/** Where the client's end sends to; by TCP the same messages go one after the other, each behind its length. */
export interface Way {
  transport: "udp" | "tcp";
  host: string;
  port: number;
}

/** A flow of a capture, packet by packet as it was; `near` is the port of the end that the client plays. */
export interface CapturedCall {
  file: string;
  near: number;
  far: number;
  /** The most bytes of RTP payload; longer ones are cut, as a low-rate codec sends: no longer than QUIC's acknowledgements. */
  mediaBytesMax?: number;
}

export interface FlowPlan {
  workload: Workload;
  /** In place of the workload's packets; it is then for nothing but its name. */
  capture?: CapturedCall;
  seconds: number;
  way: Way;
  /** Where it leaves its Arrivals. */
  file: string;
}

/** What one end received. */
export interface Arrivals {
  /** By packet number: microseconds from sending to arrival, or null where it never came. */
  latencyUs: (number | null)[];
  /** Packets that came a second time. */
  twice: number;
}

function command(role: "client" | "server", plan: FlowPlan): string[] {
  const child = new URL("flow_child.ts", import.meta.url).pathname;
  const root = new URL("../..", import.meta.url).pathname;
  return [
    Deno.execPath(),
    "run",
    "--no-prompt",
    "--unstable-net",
    "--allow-net",
    `--allow-read=${root}${plan.capture ? `,${plan.capture.file}` : ""}`,
    `--allow-write=${plan.file}`,
    "--allow-ffi",
    child,
    role,
    JSON.stringify(plan),
  ];
}

/** The flow's far end, which answers the first client with packets of its own; resolves when it listens. */
export async function startFarEnd(net: Network, namespace: string, plan: FlowPlan): Promise<Background> {
  const server = net.spawn(namespace, command("server", plan));
  await server.says("ready");
  return server;
}

/** Lets the client's end talk to it; what arrived there (`up`) and here (`down`). */
export async function runFlow(
  net: Network,
  namespace: string,
  plan: FlowPlan,
  far: { server: Background; file: string },
): Promise<{ up: Arrivals; down: Arrivals }> {
  await net.must(namespace, command("client", plan), { timeoutS: plan.seconds + 20 });
  const { success } = await far.server.child.status;
  if (!success) throw new Error(`the flow's far end failed: ${far.server.said}`);
  const read = async (file: string): Promise<Arrivals> => JSON.parse(await Deno.readTextFile(file));
  return { up: await read(far.file), down: await read(plan.file) };
}
