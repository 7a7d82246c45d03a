/**
 * Chooses the native port: io_uring or mmsg, by a short measurement over loopback sockets of its own. Invariant: it ends
 * within `BUDGET_MS` and a burst, leaves nothing open, and whatever goes wrong in it means mmsg. Opens no port for
 * clients: that is the caller's.
 */
import type { Native } from "../../ffi/native.ts";
import { Arena } from "../vector/arena.ts";
import { Burst, BURST_CAPACITY, TO_TRANSMIT } from "../vector/burst.ts";
import { parseAddress } from "../wire/address.ts";
import { MmsgPort } from "./mmsg.ts";
import type { NativePort, NativePortOptions } from "./native_udp.ts";
import { uringObstacle, UringPort } from "./uring.ts";

const HOST = "127.0.0.1";
const DATAGRAM_BYTES = 1200;
const BUDGET_MS = 50;
/** By how much io_uring must be faster to be taken. */
const MARGIN = 1.05;
/** Calls without a datagram after which a burst is taken for lost. */
const PATIENCE = 10_000;

/** What to open, and a sentence without a full stop that says why. */
export interface Choice {
  io: "io_uring" | "mmsg";
  reason: string;
}

/** Takes what the config asks for, or measures. Throws a sentence when the config asks for io_uring in vain. */
export async function chooseNative(native: Native, asked: "auto" | "io_uring" | "mmsg"): Promise<Choice> {
  if (asked === "mmsg") return { io: "mmsg", reason: "the config asks for it" };
  const obstacle = uringObstacle(native);
  if (asked === "io_uring") {
    if (obstacle) throw new Error(`io = "io_uring" cannot be used: ${obstacle}; or set io = "auto"`);
    return { io: "io_uring", reason: "the config asks for it" };
  }
  if (obstacle) return { io: "mmsg", reason: `io_uring cannot be used: ${obstacle}` };
  try {
    const onRefused = () => {
      throw new Error("the system refuses datagrams");
    };
    const [mmsg, uring] = await race([
      () => new MmsgPort({ native, host: HOST, port: 0, onRefused }),
      () => new UringPort({ native, host: HOST, port: 0, onRefused }),
    ]);
    const figures = `${uring.toFixed(2)} million datagrams/s by io_uring, ${
      mmsg.toFixed(2)
    } by mmsg, on loopback`;
    return { io: uring >= MARGIN * mmsg ? "io_uring" : "mmsg", reason: figures };
  } catch (error) {
    return { io: "mmsg", reason: `io_uring could not be measured: ${(error as Error).message}` };
  }
}

/** Opens a native port of the chosen kind. */
export function openNative({ io }: Choice, options: NativePortOptions): NativePort {
  return io === "mmsg" ? new MmsgPort(options) : new UringPort(options);
}

/** Millions of datagrams a second from one port to another of its kind: each kind's best burst of many, taken in turn. */
async function race(kinds: (() => NativePort)[]): Promise<number[]> {
  const burst = new Burst(new Arena(2 * BURST_CAPACITY));
  const ports: NativePort[] = [];
  try {
    const pairs = kinds.map((open) => {
      const pair = { from: open(), to: open() };
      ports.push(pair.from, pair.to);
      return pair;
    });
    const bestMs = pairs.map(() => Infinity);
    for (const endMs = performance.now() + BUDGET_MS; performance.now() < endMs;) {
      pairs.forEach(({ from, to }, kind) => {
        const startMs = performance.now();
        carry(burst, from, to);
        bestMs[kind] = Math.min(bestMs[kind], performance.now() - startMs);
      });
    }
    return bestMs.map((ms) => BURST_CAPACITY / ms / 1000);
  } finally {
    burst.release();
    for (const port of ports) await port.close();
  }
}

/** Sends a full burst and receives it. Throws when it does not arrive. */
function carry(burst: Burst, from: NativePort, to: NativePort): void {
  const address = parseAddress(HOST)!;
  for (let i = 0; i < BURST_CAPACITY; i++) {
    const row = burst.grow(DATAGRAM_BYTES, TO_TRANSMIT);
    burst.address.set(address, 4 * row);
    burst.port[row] = to.localPort;
  }
  from.transmit(burst);
  burst.release();
  let left = BURST_CAPACITY;
  for (let empty = 0; left > 0 && empty < PATIENCE; empty++) {
    left -= to.receive(burst);
    burst.release();
  }
  if (left > 0) throw new Error(`${left} datagrams were lost`);
}
