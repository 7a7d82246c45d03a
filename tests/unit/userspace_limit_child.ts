/**
 * A userspace exit in a process of its own, so that a test can limit its open files: Bob opens one flow, Alice as many
 * as the first argument says, Bob sends again; prints as JSON what came of it. The second argument, if any, is
 * `maxFlows`. Sends to a server of its own on loopback only.
 */
import { loadNative } from "../../ffi/native.ts";
import { openUserspace } from "../../src/exit/userspace/mod.ts";
import { Metrics } from "../../src/metrics.ts";
import { Arena } from "../../src/vector/arena.ts";
import { Burst, TO_EXIT } from "../../src/vector/burst.ts";
import { PROTOCOL_UDP, writeIpv4Header } from "../../src/wire/inner.ts";

const ALICE = 0x0a420002, BOB = 0x0a420003, LOOPBACK = 0x7f000001;
const [flows, maxFlows] = Deno.args.map(Number);

const native = loadNative();
if (typeof native === "string") throw new Error(native);
const server = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
const serverPort = (server.addr as Deno.NetAddr).port;
const warnings: string[] = [];
const exit = openUserspace({
  ipv4: { address: "10.66.0.1", prefix: 16 },
  mtu: 1280,
  metrics: new Metrics(),
  native,
  maxFlows,
  log: (level, message) => level === "warning" && warnings.push(message),
});
const burst = new Burst(new Arena(8));

/** Sends an empty datagram from `port` of the source; returns what its row became. */
function send(source: number, port: number): number {
  const row = burst.grow(28, TO_EXIT);
  const at = burst.offset[row];
  writeIpv4Header(burst.view, at, 28, 0, 0, PROTOCOL_UDP, source, LOOPBACK);
  burst.view.setUint16(at + 20, port);
  burst.view.setUint16(at + 22, serverPort);
  burst.view.setUint16(at + 24, 8);
  exit.send(burst, performance.now() * 1000);
  const outcome = burst.next[row];
  burst.release();
  return outcome;
}

/** The outer port that Bob's datagram came from. */
async function askForBob(): Promise<number> {
  const outcome = send(BOB, 20000);
  if (outcome !== 0) throw new Error(`Bob's row became ${outcome}`);
  const [, from] = await server.receive();
  return (from as Deno.NetAddr).port;
}

const before = await askForBob();
const refused = [];
for (let i = 0; i < flows; i++) {
  const outcome = send(ALICE, 20001 + i);
  if (outcome !== 0) refused.push(outcome);
  await server.receive(); // or its buffer would be what runs out
}
const kept = await askForBob() === before;
console.log(JSON.stringify({ flowCount: exit.flowCount, refused, kept, warnings }));
server.close();
await exit.close();
