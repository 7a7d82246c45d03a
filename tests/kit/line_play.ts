/**
 * One sender's queues and found rate (src/queue, src/rate) over a slow line, without sessions around them, so that an hour takes seconds:
 * CUBIC transfers and a game's packets wait, are sent, stand in the line's own queue and arrive; the receiver reports as
 * PROTOCOL §14 has it. Invariant: the same settings give the same run. Judges nothing.
 */
import { CLASS_BULK, CLASS_GAME } from "../../src/control/traffic_class.ts";
import { Queues, WAITS } from "../../src/queue/queues.ts";
import { PathRate } from "../../src/rate/path_rate.ts";
import { Arena, NONE } from "../../src/vector/arena.ts";
import { Burst, BURST_CAPACITY, DONE, HELD, TO_SEAL } from "../../src/vector/burst.ts";
import { Bottleneck, TokenBucket } from "./channels.ts";
import { CubicSender } from "./cubic.ts";
import { queueOptions } from "./queue_options.ts";
import { Random } from "./random.ts";

const MS = 1000, SECOND = 1_000_000, PEER = 1;
/** Where a packet has its number: behind what a header's marks may change. */
const KEY_AT = 20;
const OVERHEAD_BYTES = 53, BULK_BYTES = 1228, GAME_BYTES = 128;
/** The longest step, microseconds. */
const STEP_US = 1000;
// As session/oxtunnel/sessions.ts: a report is due after this, and three times as late while few datagrams came.
const REPORT_US = 25 * MS, REPORT_SOON_DATAGRAMS = 8, REPORT_PATIENCE = 3;

export interface LinePlayOptions {
  bytesPerS: number;
  rttUs: number;
  transfers: number;
  gameUs: number;
  /** Whether the rate that is found is kept to. */
  isShaped: boolean;
  /** What the line lets through at once, bytes; 0 when absent. */
  burstBytes?: number;
}

interface Sent {
  transfer: number;
  number: number;
  counter: number;
  sentUs: number;
  atUs: number;
}

export class LinePlay {
  nowUs = 0;
  readonly line: Bottleneck;
  readonly rate: PathRate;
  /** Told of each packet of the game: its delay beyond the path's. */
  onGame: (delayUs: number) => void = () => {};
  /** Bytes of transfers that arrived. */
  bytes = 0;
  readonly #o: LinePlayOptions;
  readonly #backUs: number;
  readonly #burst = new Burst(new Arena(1024));
  readonly #queues: Queues;
  readonly #senders: CubicSender[];
  readonly #largest: number[];
  /** By the number at KEY_AT. */
  readonly #waiting = new Map<number, { transfer: number; number: number; sentUs: number }>();
  #packets = 0;
  #counter = 0;
  // In the order of their times.
  readonly #flying: Sent[] = [];
  readonly #acks: Sent[] = [];
  readonly #reports: {
    atUs: number;
    highest: number;
    highestUs: number;
    received: number;
    waitedUs: number;
  }[] = [];
  #highest = -1;
  #highestUs = 0;
  #received = 0;
  #unreported = 0;
  #reportUs = Infinity;
  #reportedUs = 0;
  #gameUs = 0;

  constructor(options: LinePlayOptions) {
    const { bytesPerS, rttUs, transfers, burstBytes = 0 } = this.#o = options;
    const random = new Random(1);
    this.line = burstBytes > 0
      ? new TokenBucket(bytesPerS, 200 * MS, rttUs / 2, burstBytes)
      : new Bottleneck(bytesPerS, 200 * MS, rttUs / 2);
    this.rate = new PathRate(() => random.real(), 0);
    this.#backUs = rttUs / 2;
    this.#senders = Array.from({ length: transfers }, () => new CubicSender(0));
    this.#largest = new Array<number>(transfers).fill(-1);
    this.#queues = new Queues(this.#burst.arena, {
      ...queueOptions({ findsRates: true }),
      flows: transfers + 1,
      peers: PEER + 1,
      waited: () => {},
      lost: () => {},
      marked: () => {},
    });
  }

  runFor(us: number): void {
    const untilUs = this.nowUs + us;
    while (this.nowUs < untilUs) {
      const nextUs = Math.min(
        this.#flying[0]?.atUs ?? Infinity,
        this.#acks[0]?.atUs ?? Infinity,
        this.#reports[0]?.atUs ?? Infinity,
        this.#reportUs,
        this.#gameUs,
        this.#queues.nextUs,
      );
      this.nowUs = Math.max(this.nowUs, Math.min(nextUs, this.nowUs + STEP_US, untilUs));
      this.#arrive();
      this.#learn();
      this.#offerAll();
      while (this.#queues.ready(this.nowUs) === PEER) {
        while (this.#burst.count < BURST_CAPACITY) {
          const { nowUs } = this, { leastRttUs } = this.rate;
          const rttUs = leastRttUs === Infinity ? 0 : leastRttUs;
          if (this.#queues.take(this.#burst, PEER, TO_SEAL, OVERHEAD_BYTES, nowUs, false, rttUs) < 0) break;
        }
        this.#send();
      }
    }
  }

  #offerAll(): void {
    const { nowUs } = this;
    for (; this.#gameUs <= nowUs; this.#gameUs += this.#o.gameUs) {
      this.#offer(NONE, 0, GAME_BYTES, CLASS_GAME);
    }
    for (const [i, sender] of this.#senders.entries()) {
      for (let number = sender.next; sender.take(nowUs); number = sender.next) {
        this.#offer(i, number, BULK_BYTES, CLASS_BULK);
      }
    }
  }

  #offer(transfer: number, number: number, bytes: number, trafficClass: number): void {
    const burst = this.#burst, row = burst.grow(bytes, TO_SEAL);
    if (row < 0) return;
    burst.peer[row] = PEER;
    burst.flow[row] = transfer === NONE ? this.#o.transfers : transfer;
    burst.trafficClass[row] = trafficClass;
    burst.view.setUint32(burst.offset[row] + KEY_AT, ++this.#packets);
    this.#waiting.set(this.#packets, { transfer, number, sentUs: this.nowUs });
    const outcome = this.#queues.offer(burst, row, OVERHEAD_BYTES, this.nowUs);
    if (outcome !== 0) burst.next[row] = outcome === WAITS ? HELD : DONE;
    this.#send();
  }

  /** The burst's packets go onto the line. */
  #send(): void {
    const burst = this.#burst, { nowUs } = this;
    for (let row = 0; row < burst.count; row++) {
      if (burst.next[row] !== TO_SEAL) continue;
      const key = burst.view.getUint32(burst.offset[row] + KEY_AT),
        bytes = burst.length[row] + OVERHEAD_BYTES;
      const packet = this.#waiting.get(key)!, counter = this.#counter++;
      this.#waiting.delete(key);
      this.rate.sent(counter, bytes, this.#queues.waitingOf(PEER) > 0, nowUs);
      const atUs = this.line.arrivalUs(nowUs, bytes);
      if (atUs < Infinity) this.#flying.push({ ...packet, counter, atUs });
    }
    burst.release();
  }

  #arrive(): void {
    while (this.#flying.length > 0 && this.#flying[0].atUs <= this.nowUs) {
      const packet = this.#flying.shift()!, { atUs, transfer, counter } = packet;
      const isGap = counter !== this.#highest + 1;
      this.#highest = counter;
      this.#highestUs = atUs;
      this.#received++;
      const isSoon = ++this.#unreported >= REPORT_SOON_DATAGRAMS || isGap;
      const dueUs = isSoon
        ? Math.max(atUs, this.#reportedUs + REPORT_US)
        : atUs + REPORT_PATIENCE * REPORT_US;
      this.#reportUs = Math.min(this.#reportUs, dueUs);
      if (transfer === NONE) {
        this.onGame(atUs - packet.sentUs - this.line.delayUs);
        continue;
      }
      this.bytes += BULK_BYTES;
      this.#acks.push({ ...packet, atUs: atUs + this.#backUs });
    }
    if (this.#reportUs > this.nowUs) return;
    const waitedUs = this.nowUs - this.#highestUs;
    this.#reports.push({
      atUs: this.nowUs + this.#backUs,
      highest: this.#highest,
      highestUs: this.#highestUs,
      received: this.#received,
      waitedUs,
    });
    this.#reportUs = Infinity;
    this.#reportedUs = this.nowUs;
    this.#unreported = 0;
  }

  /** The sender's end takes acknowledgements and reports. */
  #learn(): void {
    const { nowUs } = this;
    while (this.#acks.length > 0 && this.#acks[0].atUs <= nowUs) {
      const { transfer, number } = this.#acks.shift()!;
      this.#senders[transfer].acked(number, number, nowUs);
      this.#largest[transfer] = Math.max(this.#largest[transfer], number);
      this.#senders[transfer].settle(this.#largest[transfer], nowUs);
    }
    while (this.#reports.length > 0 && this.#reports[0].atUs <= nowUs) {
      const { highest, highestUs, received, waitedUs } = this.#reports.shift()!;
      const clock = Math.floor((highestUs + SECOND) / 64) & 0xffff;
      this.rate.onReport({ highest, delayUs: waitedUs, received, hasClock: true, clock }, nowUs);
      if (this.#o.isShaped) this.#queues.setRate(PEER, this.rate.bytesPerS(nowUs), nowUs);
    }
  }
}
