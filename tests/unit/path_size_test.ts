/**
 * The search for a path's size against a model of a path: whatever is lost and however a peer answers, what it believes
 * arrived has been answered for, and what it settles on is what the path takes.
 */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  BASE_BYTES,
  GRANULARITY_BYTES,
  MAX_OUTAGES,
  MAX_PROBES,
  OUTAGE_US,
  PathSize,
  RAISE_US,
} from "../../src/control/path_size.ts";

const TIMER_US = 200_000, MAX_BYTES = 1936;
const sizes = fc.integer({ min: 600, max: 2000 });
const maxima = fc.integer({ min: 1000, max: MAX_BYTES });

/** Lets it probe a path that takes `capacity`, and what is small always, until it rests. Returns the sizes that it sent. */
function search(size: PathSize, capacity: number, nowUs: number, isLost = () => false): number[] {
  const sent: number[] = [];
  while (size.isDue) {
    assertEquals(size.isSettled, false);
    const { probed } = size;
    sent.push(probed);
    size.onSent(0, nowUs, TIMER_US);
    size.onAnswer(nowUs);
    assert(!size.isDue, "one is under way at a time");
    if (probed <= capacity && !isLost()) size.onReply(probed, nowUs + 1000);
    else size.handleTimeout(nowUs += TIMER_US);
    assert(sent.length < 100, "the search ends");
  }
  return sent;
}

function assertFound(size: PathSize, capacity: number): void {
  const { bytes, max, isNarrow, isSettled } = size;
  assert(isSettled);
  assertEquals(isNarrow, capacity < BASE_BYTES);
  const most = Math.max(BASE_BYTES, Math.min(capacity, max));
  assert(bytes <= most && most - bytes < GRANULARITY_BYTES, `${bytes} of ${most}`);
}

Deno.test("path size: it finds what a path takes, in few probes, each size three times at most", () => {
  fc.assert(fc.property(maxima, sizes, (max, capacity) => {
    const size = new PathSize(max);
    size.begin();
    const sent = search(size, capacity, 0);
    assertFound(size, capacity);
    assert(sent.length <= MAX_PROBES * (2 + Math.ceil(Math.log2(MAX_BYTES - BASE_BYTES))), `${sent}`);
    for (const one of new Set(sent)) assert(sent.filter((other) => other === one).length <= MAX_PROBES);
    assert(sent.every((one) => one >= BASE_BYTES && one <= Math.max(max, BASE_BYTES)));
    if (capacity >= size.max) assertEquals(sent, [size.max]);
  }));
});

Deno.test("path size: it follows a path that changes, by what is lost of large datagrams and by another look", () => {
  fc.assert(fc.property(maxima, fc.array(sizes, { minLength: 1, maxLength: 6 }), (max, capacities) => {
    const size = new PathSize(max);
    size.begin();
    search(size, 1400, 0);
    let nowUs = 0, counter = 0;
    for (const capacity of capacities) {
      nowUs += RAISE_US + 60_000_000;
      if (capacity < size.bytes && !size.isNarrow) {
        for (let i = 0; i < 4; i++) size.onLarge(counter++, nowUs);
        size.onReport(counter++, Uint8Array.of(0), 1, nowUs);
        assert(size.isDue && size.probed === size.bytes);
      } else {
        size.onUse(nowUs);
      }
      search(size, capacity, nowUs);
      assertFound(size, capacity);
    }
  }));
});

Deno.test("path size: loss of every kind leaves it in a state where more probing finds the size", () => {
  fc.assert(fc.property(maxima, sizes, fc.infiniteStream(fc.boolean()), (max, capacity, losses) => {
    const size = new PathSize(max);
    size.begin();
    search(size, capacity, 0, () => losses.next().value!);
    assert(size.bytes <= Math.max(BASE_BYTES, Math.min(capacity, size.max)));
    for (let round = 1; round < 4; round++) {
      size.onUse(round * 2 * RAISE_US);
      search(size, capacity, round * 2 * RAISE_US);
    }
    assertFound(size, capacity);
  }));
});

Deno.test("path size: nothing but the reply to the probe under way raises it", () => {
  const action = fc.oneof(
    fc.record({ reply: fc.integer({ min: 0, max: 65535 }) }),
    fc.record({ elapsed: fc.integer({ min: 0, max: 2 * RAISE_US }) }),
    fc.record({ reported: fc.integer({ min: 0, max: 200 }), bits: fc.uint8Array({ maxLength: 32 }) }),
    fc.constant("large"),
    fc.constant("answer"),
    fc.constant("use"),
    fc.constant("begin"),
    fc.constant("send"),
  );
  fc.assert(fc.property(maxima, fc.array(action, { maxLength: 200 }), (max, actions) => {
    const size = new PathSize(max);
    let nowUs = 0, counter = 0;
    for (const one of actions) {
      const { bytes, probed, isDue } = size;
      if (one === "large") size.onLarge(counter++, nowUs);
      else if (one === "answer") size.onAnswer(nowUs);
      else if (one === "use") size.onUse(nowUs);
      else if (one === "begin") size.begin();
      else if (one === "send") {
        if (size.isDue) size.onSent(counter++, nowUs, TIMER_US);
      } else if ("reply" in one) {
        if (one.reply === probed && !isDue) continue;
        const before = JSON.stringify(size);
        if (one.reply !== probed) {
          size.onReply(one.reply, nowUs);
          assertEquals(JSON.stringify(size), before);
        }
      } else if ("elapsed" in one) size.handleTimeout(nowUs += one.elapsed);
      else size.onReport(one.reported, one.bits, one.bits.length, nowUs);
      assert(size.bytes <= bytes);
      assert(size.bytes >= BASE_BYTES && size.bytes <= size.max);
    }
    assertEquals(size.bytes, BASE_BYTES, "no probe was answered");
  }));
});

Deno.test("path size: loss among full datagrams makes one probe, and its reply ends the doubt", () => {
  const size = new PathSize(1445);
  size.begin();
  search(size, 1445, 0);
  for (let i = 0; i < 4; i++) size.onLarge(i, 0);
  size.onReport(3, Uint8Array.of(0b001), 1, 0); // 3 is the highest, 2 has arrived, 1 and 0 have not
  assert(!size.isDue);
  for (let i = 10; i < 14; i++) size.onLarge(i, 1000);
  size.onReport(20, Uint8Array.of(0, 0), 2, 1000);
  assertEquals(search(size, 1445, 1000), [1445]);
  assertEquals([size.bytes, size.isSettled], [1445, true]);
});

Deno.test("path size: who sends one large datagram a timeout is heard at the first repetition", () => {
  const size = new PathSize(1445);
  size.begin();
  search(size, 1445, 0);
  size.onLarge(1, 10e6);
  size.onLarge(2, 11e6);
  assertEquals(search(size, 1300, 11e6).at(0), 1445, "nobody reports");
  assertFound(size, 1300);
  size.onLarge(30, 20e6);
  size.onReport(31, Uint8Array.of(0), 1, 20e6);
  assert(!size.isDue);
  size.onLarge(40, 21e6);
  size.onReport(41, Uint8Array.of(0), 1, 21e6);
  assert(size.isDue, "small ones are reported");
  search(size, 1250, 21e6);
  assertFound(size, 1250);
});

Deno.test("path size: probes that are lost while nothing gets through say nothing of the size, at any state of the search", () => {
  /** An outage: every probe is lost, and so is what goes with it. Returns how many went out. */
  const outage = (size: PathSize, nowUs: number): number => {
    let sent = 0;
    for (; size.isDue; sent++) {
      assertEquals(size.isRepeat, sent > 0);
      size.onSent(sent, nowUs, TIMER_US);
      // What was sent before the probe, and what arrives of that, is no sign.
      size.onAnswer(nowUs - 1);
      size.onReport(sent, new Uint8Array(1), 1, nowUs);
      size.handleTimeout(nowUs += TIMER_US);
    }
    return sent;
  };
  fc.assert(fc.property(maxima, fc.boolean(), (max, isKnown) => {
    const size = new PathSize(max);
    size.begin();
    if (isKnown) {
      search(size, MAX_BYTES, 0);
      assertFound(size, MAX_BYTES);
      for (let i = 0; i < 4; i++) size.onLarge(i, 0);
      size.onReport(9, Uint8Array.of(0, 0), 2, 0);
      assert(size.isDue);
    }
    const { bytes } = size;
    assertEquals(outage(size, 1e6), MAX_OUTAGES);
    assertEquals([size.bytes, size.isNarrow, size.isSettled], [bytes, false, isKnown]);
    // While it lasts it asks now and then, when there is something to say, and once it is over it finds the size.
    assertEquals(outage(size, 2e6), 0);
    size.onUse(2e6 + OUTAGE_US);
    outage(size, 4e6);
    size.onUse(9e6);
    search(size, MAX_BYTES, 9e6);
    assertFound(size, MAX_BYTES);
  }));
});

Deno.test("path size: three losses are believed once something got through beside two of them, and no outage's are", () => {
  // Beside which of the probes that are lost a report comes, and what is probed then; 0 while it waits.
  for (
    const [reports, probed] of [
      ["111", BASE_BYTES],
      ["011", BASE_BYTES],
      ["101", BASE_BYTES],
      ["110", BASE_BYTES],
      ["0011", BASE_BYTES],
      ["1001", BASE_BYTES],
      ["001001", BASE_BYTES],
      ["000", 0],
      ["1000", 0],
      ["001000", 0],
    ] as const
  ) {
    const size = new PathSize(1445);
    size.begin();
    let counter = 0, nowUs = 0.7;
    for (const report of reports) {
      assert(size.isDue && size.probed === 1445, `${reports}: ${counter}`);
      size.onSent(counter++, nowUs, TIMER_US);
      if (report === "1") size.onReport(counter++, new Uint8Array(1), 1, nowUs);
      size.handleTimeout(nowUs += TIMER_US);
    }
    assertEquals(size.probed, probed, reports);
    assert(!size.isSettled && !size.isNarrow && size.bytes === BASE_BYTES);
  }
});

Deno.test("path size: what was asked in an outage is asked again by use or at the first sign that it is over", () => {
  for (const sign of ["pong", "report", "use"]) {
    const size = new PathSize(1445);
    size.begin();
    let nowUs = 0.7;
    const send = (isHeard: boolean) => {
      size.onSent(7, nowUs, TIMER_US);
      // A pong has whole microseconds.
      if (isHeard) size.onAnswer(Math.floor(nowUs));
      size.handleTimeout(nowUs += TIMER_US);
    };
    for (let i = 0; i < MAX_PROBES; i++) send(true);
    size.onSent(7, nowUs, TIMER_US);
    size.onReply(BASE_BYTES, nowUs);
    const { probed } = size;
    assertEquals(probed, (BASE_BYTES + 1445) >> 1);
    for (let i = 0; i < MAX_OUTAGES; i++) send(false);
    assert(size.probed === 0 && !size.isDue && size.isSettled);
    // What was sent before the last probe may have been before the outage.
    size.onAnswer(Math.floor(nowUs - TIMER_US) - 1);
    size.onReport(7, new Uint8Array(1), 1, nowUs);
    size.onUse(nowUs);
    assert(size.probed === 0 && !size.isDue);
    if (sign === "pong") size.onAnswer(Math.floor(nowUs - TIMER_US));
    else if (sign === "report") size.onReport(8, new Uint8Array(1), 1, nowUs);
    else size.onUse(nowUs + OUTAGE_US);
    assert(size.isDue && !size.isRepeat && !size.isSettled);
    assertEquals(size.probed, probed, "what is known to be too big is not asked again");
    search(size, 1300, nowUs + OUTAGE_US);
    assertFound(size, 1300);
  }
});

Deno.test("path size: a path before is where the next one's search begins", () => {
  const size = new PathSize(1445);
  size.begin();
  search(size, 1372, 0);
  const { bytes } = size;
  size.begin();
  assertEquals([size.bytes, size.probed], [BASE_BYTES, bytes]);
});

Deno.test("path size: a connection takes every size and is not probed; off it the search begins anew", () => {
  const size = new PathSize(1472);
  size.begin(true);
  assertEquals([size.bytes, size.isDue, size.isSettled, size.searchAtUs], [1472, false, true, Infinity]);
  const nothing = new Uint8Array(32);
  for (let counter = 0; counter < 100; counter += 10) {
    for (let i = 0; i < 10; i++) size.onLarge(counter + i, counter * 1000);
    size.onReport(counter + 10, nothing, 32, 5_000_000 + counter * 1000);
  }
  assertEquals([size.bytes, size.isDue], [1472, false], "what its queue drops says nothing of sizes");
  size.begin();
  assertEquals([size.bytes, size.isDue, size.probed], [BASE_BYTES, true, 1472]);
});
