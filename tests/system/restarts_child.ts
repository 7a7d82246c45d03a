/**
 * Workers that come and go in one process, whose main thread holds no native library, so that each Worker that ends is
 * the last that had it open. "worker": a relay worker that fails and is started again. "forged": a Worker that was given
 * a forged message (forged_worker.ts). Prints how many lived.
 * Usage: restarts_child.ts worker|forged RESTARTS
 */
import { WorkerHandle } from "../../src/serve/worker_handle.ts";
import { parseConfig } from "../../src/config.ts";
import { Metrics } from "../../src/metrics.ts";

const TURN_MS = 2;
/** A port that was free a moment ago: others may run the same test. */
function freePort(): number {
  const probe = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
  const { port } = probe.addr as Deno.NetAddr;
  probe.close();
  return port;
}

const CONFIG = `
listen = "127.0.0.1:${freePort()}"
io = "portable"
exit = "userspace"
kernels = "native"
`;

async function failingWorker(): Promise<void> {
  const metrics = new Metrics();
  const handle = new WorkerHandle("the relay worker", metrics);
  // Its end may be heard of before that it was ready.
  await handle.start({
    type: "start",
    config: parseConfig(CONFIG, "a test's", {}),
    privateKey: crypto.getRandomValues(new Uint8Array(32)),
    tunnelIpv6: undefined,
    peers: [],
    timeScale: 1,
    failAfterMs: 0,
    worker: 0,
    counters: [metrics.shared],
    port: "its Workers come and go",
  }).catch((error: Error) => {
    if (!error.message.includes("asked to fail")) throw error;
  });
  while (handle.fatal === undefined) await new Promise((resolve) => setTimeout(resolve, TURN_MS));
  await handle.stop();
}

async function forgedWorker(): Promise<void> {
  const worker = new Worker(new URL("./forged_worker.ts", import.meta.url), { type: "module" });
  await new Promise((resolve) => worker.onmessage = resolve);
  worker.terminate();
  await new Promise((resolve) => setTimeout(resolve, TURN_MS));
}

const [kind, restarts] = Deno.args;
let lived = 0;
for (let i = 0; i < Number(restarts); i++, lived++) {
  await (kind === "worker" ? failingWorker() : forgedWorker());
}
console.log(lived);
