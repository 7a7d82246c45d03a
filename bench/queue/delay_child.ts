/**
 * A stretch of path for whole IP packets, for kernels without netem: what the kernel routes to the device NAME comes back from
 * there MS milliseconds later, in order. Invariant: nothing is lost or changed; what waits is bounded (tests/kit/impaired_path.ts).
 * Usage: delay_child.ts NAME MS
 */
import { monotonicUs } from "../../src/io/driver.ts";
import { PollSet } from "../../src/io/poll.ts";
import { openQueues } from "../../src/exit/tun/mod.ts";
import { SinglePackets } from "../../src/exit/tun/packets.ts";
import { Arena } from "../../src/vector/arena.ts";
import { Burst, DONE, HELD, TO_EXIT } from "../../src/vector/burst.ts";
import { Path } from "../../tests/kit/channels.ts";
import { ImpairedPath, QUEUE_MAX } from "../../tests/kit/impaired_path.ts";

const [name, ms] = Deno.args;
const [descriptor] = openQueues(
  name,
  "one by one: a super-packet would be one datagram",
  1,
  "take another name",
);
const packets = new SinglePackets(descriptor);
const burst = new Burst(new Arena(QUEUE_MAX + 512));
const path = new ImpairedPath<{ slot: number; length: number }>(new Path(1000 * Number(ms)));
const waits = new PollSet([descriptor]);

console.log("ready");
for (;;) {
  waits.wait(Math.max(0, Math.min(path.nextUs - monotonicUs(), 1e6)) / 1000);
  packets.receive(burst);
  const nowUs = monotonicUs();
  for (let row = 0; row < burst.count; row++) {
    const held = { slot: burst.slot[row], length: burst.length[row] };
    burst.next[row] = path.offer(held, held.length, nowUs) ? HELD : DONE;
  }
  burst.release();
  for (let held = path.take(monotonicUs()); held !== undefined; held = path.take(monotonicUs())) {
    burst.push(held.slot, held.length, TO_EXIT);
    packets.send(burst);
    burst.release();
  }
}
