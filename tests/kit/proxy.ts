/**
 * The proxy that makes a bad path (tools/impair.ts), started in a process of its own by tests and benches, and what it counts.
 * Carries nothing itself.
 */
import type { PathCounts } from "./impaired_path.ts";
import { type Background, type Network, until } from "./namespaces.ts";

/** Both directions, as tools/impair.ts prints them: up is towards `upstream`. */
export interface ProxyCounts {
  up: PathCounts;
  down: PathCounts;
}

export interface ProxyPlan {
  /** "address:port" that it takes datagrams at, and that they go on to. */
  listen: string;
  upstream: string;
  /** The name of a path, as `deno task impair` has it. */
  channel: string;
  seed: number;
  /** Milliseconds since 1970 at which the path begins; now, without. Paths of one seed and beginning have their bad times at once. */
  originMs?: number;
}

/** The command of a proxy in a process of its own. */
export function proxyCommand(
  { listen, upstream, channel, seed, originMs = Date.now() }: ProxyPlan,
): string[] {
  const child = new URL("../../tools/impair.ts", import.meta.url).pathname;
  const root = new URL("../..", import.meta.url).pathname;
  const flags = ["--no-prompt", "--unstable-net", "--allow-net", `--allow-read=${root}`, "--allow-ffi"];
  return [Deno.execPath(), "run", ...flags, child, listen, upstream, channel, String(seed), String(originMs)];
}

/** What a running proxy counted until now, at most a quarter of a second ago. */
export function proxyCounts(proxy: Background): ProxyCounts {
  const line = proxy.said.split("\n").slice(0, -1).findLast((line) => line.startsWith("{"));
  if (line === undefined) throw new Error(`the proxy has counted nothing: ${proxy.said}`);
  return JSON.parse(line);
}

/** A proxy in a namespace of the network, ahead of what else wants the processor; resolves when it listens. */
export async function startProxy(net: Network, namespace: string, plan: ProxyPlan): Promise<Background> {
  const proxy = net.spawn(namespace, ["nice", "-n", "-15", ...proxyCommand(plan)]);
  await proxy.says("ready");
  await until(() => proxy.said.includes("{"), "the proxy counts");
  return proxy;
}
