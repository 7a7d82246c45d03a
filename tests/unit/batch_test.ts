/**
 * What class a datagram has that is made of packets of several, through the node that makes it: it decides which repair it
 * gets. That batches are whole and in order is tests/sim/batch_test.ts's.
 */
import { assertEquals } from "@std/assert";
import { CLASS_BULK, CLASS_GAME, CLASS_INTERACTIVE } from "../../src/control/traffic_class.ts";
import { batch } from "../../src/egress/batch.ts";
import { Batches } from "../../src/egress/batches.ts";
import type { EgressContext } from "../../src/egress/mod.ts";
import { Metrics } from "../../src/metrics.ts";
import { OXTUNNEL } from "../../src/session/table.ts";
import { Arena } from "../../src/vector/arena.ts";
import { Burst, TO_SEAL } from "../../src/vector/burst.ts";

const PEER = 0, SESSION = 0;

/** Leads bursts of one session's packets through the node; `send` returns class and packets of what leaves. */
function node(
  first = 0x45,
  now: { session: number; path?: number } = { session: SESSION },
  metrics = new Metrics(),
) {
  const arena = new Arena(64), burst = new Burst(arena), batches = new Batches(arena, 1, 1000);
  const context = {
    batches,
    metrics,
    table: { protocol: [OXTUNNEL, OXTUNNEL], isMultipath: [0, 0] },
    associations: {
      epochs: { sendable: () => now.session, isStillOpen: () => false },
      oxtunnel: { sessions: { innerMtu: () => 1420 } },
    },
  } as unknown as EgressContext;
  return (nowUs: number, ...packets: [bytes: number, trafficClass: number][]) => {
    burst.release();
    for (const [bytes, trafficClass] of packets) {
      const row = burst.grow(bytes, TO_SEAL);
      burst.peer[row] = PEER;
      burst.session[row] = now.session;
      burst.path[row] = now.path ?? now.session;
      burst.trafficClass[row] = trafficClass;
      burst.view.setUint8(burst.offset[row], first);
    }
    batch(burst, context, nowUs);
    const left: [trafficClass: number, packets: number][] = [];
    for (let row = 0; row < burst.count; row++) {
      if (burst.next[row] === TO_SEAL) left.push([burst.trafficClass[row], batches.packets[row]]);
    }
    return left;
  };
}

/** Has a bulk packet of `bytes` held at the time that is returned. */
function holding(send: ReturnType<typeof node>, bytes: number): number {
  let nowUs = 1_000_000, left = 0;
  // Arrivals of 200 us teach the process; when the last batch has just left, the next packet waits.
  for (let i = 0; i < 40 || left === 0; i++) left = send(nowUs += 200, [52, CLASS_BULK]).length;
  assertEquals(send(nowUs += 200, [bytes, CLASS_BULK]).length, 0, "held for company");
  return nowUs;
}

Deno.test("batch: a packet that takes a held batch's place keeps its class, and so does what was held", () => {
  for (const urgent of [CLASS_GAME, CLASS_INTERACTIVE]) {
    const send = node();
    const nowUs = holding(send, 1000);
    assertEquals(send(nowUs + 1, [1000, urgent]), [[CLASS_BULK, 1], [urgent, 1]]);
  }
});

Deno.test("batch: what is held counts as a game's with a game's packet behind it", () => {
  const send = node();
  assertEquals(send(holding(send, 100) + 1, [100, CLASS_GAME], [100, CLASS_BULK]), [[CLASS_GAME, 3]]);
});

Deno.test("batch: a game's packet without a row of its own stays one when bulk follows in the next", () => {
  const send = node();
  const nowUs = holding(send, 1000);
  assertEquals(send(nowUs + 1, [1000, CLASS_GAME], [100, CLASS_BULK]), [[CLASS_BULK, 1], [CLASS_GAME, 2]]);
});

Deno.test("batch: what is held goes under a new session, unless it needs the contexts of the session before", () => {
  // A whole packet, a short one, a short one or a definition in a frame.
  for (const [first, lost] of [[0x45, 0], [0x50, 1], [0x98, 1]]) {
    for (const isDue of [false, true]) {
      const now = { session: SESSION }, metrics = new Metrics();
      const send = node(first, now, metrics);
      const nowUs = holding(send, 100);
      now.session = 1;
      const left = isDue ? send(nowUs + 1000) : send(nowUs + 1, [100, CLASS_GAME]);
      assertEquals(left, isDue ? lost ? [] : [[CLASS_BULK, 1]] : [[CLASS_GAME, lost ? 1 : 2]]);
      assertEquals(metrics.dropped("no_session"), lost);
    }
  }
});

Deno.test("batch: what is held and needs contexts leaves on the first path when its session has got another", () => {
  for (const first of [0x50, 0x98]) {
    const now = { session: SESSION, path: SESSION }, metrics = new Metrics();
    const send = node(first, now, metrics);
    const nowUs = holding(send, 100);
    now.path = 5;
    assertEquals(send(nowUs + 1, [100, CLASS_GAME]), [[CLASS_GAME, 1], [CLASS_BULK, 1]]);
    assertEquals(metrics.dropped("no_session"), 0);
  }
});

Deno.test("batch: a packet of its session joins what is held, short or not", () => {
  for (const first of [0x45, 0x50]) {
    const send = node(first);
    assertEquals(send(holding(send, 100) + 1, [100, CLASS_GAME]), [[CLASS_GAME, 2]]);
  }
});
