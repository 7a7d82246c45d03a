/** The TCP inside a WireGuard tunnel as reports of its path: which acknowledgements count, and for how long a peer is watched. */
import { assertEquals } from "@std/assert";
import type { RateReport } from "../../src/rate/path_rate.ts";
import type { Rates } from "../../src/rate/pool.ts";
import { InnerAcks } from "../../src/session/wireguard/inner_acks.ts";
import { tcpSegment } from "../kit/packets.ts";

const PEER = 5, CLIENT = "10.66.0.2", FAR = "8.8.8.8", DATA = 1200, MS = 1000;

/** Watches of one peer whose flow begins just below the end of the sequence numbers, over a pool that notes what it is told. */
class Bench {
  readonly reports: RateReport[] = [];
  taken = 0;
  given = 0;
  nowUs = 1_000_000;
  sequence = 2 ** 32 - 60 * DATA;
  readonly acks: InnerAcks;

  constructor(isWanted = true) {
    const rate = {
      sent() {},
      onReport: (report: RateReport) => this.reports.push(report),
      isIdle: () => false,
    };
    const rates = {
      take: () => (this.taken++, rate),
      reported() {},
      give: () => this.given++,
    } as unknown as Rates;
    this.acks = new InnerAcks(16, rates, () => isWanted);
  }

  send(segments: number, far = FAR, peer = PEER): void {
    for (let i = 0; i < segments; i++) {
      this.nowUs += MS;
      const packet = tcpSegment({
        from: far,
        to: CLIENT,
        ports: [443, 5000],
        sequence: this.sequence,
        bytes: DATA,
      });
      this.sequence = (this.sequence + DATA) % 2 ** 32;
      this.acks.sent(
        peer,
        new DataView(packet.buffer),
        0,
        packet.length,
        packet.length + 60,
        false,
        this.nowUs,
      );
    }
  }

  /** Acknowledges all but so many of the segments that were sent; returns the datagram that counts, -1 for none. */
  ack(
    behind: number,
    { sackBehind, far = FAR, peer = PEER }: { sackBehind?: number; far?: string; peer?: number } = {},
  ): number {
    this.nowUs += 30 * MS;
    const before = this.reports.length,
      at = (back: number) => (this.sequence - back * DATA + 2 ** 32) % 2 ** 32;
    const packet = tcpSegment({
      from: CLIENT,
      to: far,
      ports: [5000, 443],
      ack: at(behind),
      sack: sackBehind === undefined ? undefined : [at(sackBehind + 1), at(sackBehind)],
    });
    this.acks.received(peer, new DataView(packet.buffer), 0, packet.length, this.nowUs);
    return this.reports.length > before ? this.reports.at(-1)!.highest : -1;
  }
}

Deno.test("inner acks: what is acknowledged is the datagram that carried it, in order, over the end of sequence numbers", () => {
  const bench = new Bench();
  bench.send(100);
  assertEquals(bench.taken, 1);
  const last = 100 - 48; // the watch began with the 48th
  assertEquals(bench.ack(10), last - 10);
  assertEquals(bench.ack(10), -1, "nothing new");
  assertEquals(bench.ack(20), -1, "older");
  assertEquals(
    bench.ack(9, { sackBehind: 4 }),
    last - 4,
    "the farthest that arrived, though a segment is missing",
  );
  assertEquals(bench.ack(0), last);
});

Deno.test("inner acks: what was not sent, another flow and another peer say nothing", () => {
  const bench = new Bench();
  bench.send(100);
  assertEquals(bench.ack(-1), -1, "beyond what was sent");
  assertEquals(bench.ack(5, { sackBehind: -3 }) >= 0, true, "a selective one beyond it is passed over");
  assertEquals(bench.ack(2, { far: "9.9.9.9" }), -1);
  assertEquals(bench.ack(2, { peer: 6 }), -1);
  for (
    const packet of [
      new Uint8Array(20),
      tcpSegment({ from: CLIENT, to: FAR, ports: [5000, 443] }).slice(0, 30),
    ]
  ) {
    packet[0] = 0x45;
    packet[9] = 6;
    bench.acks.received(PEER, new DataView(packet.buffer), 0, packet.length, bench.nowUs);
  }
});

Deno.test("inner acks: a few segments are no transfer, silence ends the watch, and who is not wanted has none", () => {
  const few = new Bench();
  few.send(40);
  assertEquals([few.taken, few.acks.isIdle], [0, true]);
  const bench = new Bench();
  bench.send(100);
  bench.ack(0);
  bench.acks.tend(() => false, bench.nowUs + 2_000_000);
  assertEquals(bench.given, 0);
  bench.acks.tend(() => false, bench.nowUs + 4_000_000);
  assertEquals([bench.given, bench.acks.isIdle], [1, true]);
  const unwanted = new Bench(false);
  unwanted.send(100);
  assertEquals(unwanted.taken, 0);
});

Deno.test("inner acks: another flow takes the place of one that has ended", () => {
  const bench = new Bench();
  bench.send(100);
  bench.nowUs += 1_000_000;
  bench.sequence = 77;
  bench.send(20, "9.9.9.9");
  assertEquals(bench.ack(0, { far: "9.9.9.9" }), 100 - 48 + 20);
});
