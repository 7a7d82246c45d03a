/**
 * The client's end of a speedtest (PROTOCOL §7), as the exit of its tunnel: asks for the round trip, sends data, asks for
 * data, and counts what arrived. Invariant: the bytes under way are at most twice what the path holds at the rate of the last
 * moments, so that the rate finds the bottleneck and the queue stays bounded; every rate is what the receiver counted. Reads
 * no clock.
 */
import { Jitter } from "../control/jitter.ts";
import { percentile } from "../control/percentile.ts";
import type { Exit } from "../exit/exit.ts";
import { type Burst, BURST_CAPACITY, DONE, TO_EXIT, TO_TUNNEL } from "../vector/burst.ts";
import {
  PULL_MAX,
  readClock,
  readHighest,
  readJitter,
  readReceived,
  readReceivedBytes,
  readRun,
  readSequenceOf,
  readTime,
  SPEEDTEST_ASK,
  SPEEDTEST_BUSY,
  SPEEDTEST_DATA,
  SPEEDTEST_FILLING,
  SPEEDTEST_PACKET_BYTES,
  SPEEDTEST_PORT,
  SPEEDTEST_PULL,
  SPEEDTEST_REPORT,
  speedtestKind,
  writePull,
  writeSpeedtest,
} from "../wire/speedtest.ts";

/** What a direction came to. */
export interface Direction {
  /** Bits a second of inner packets, by the receiver's count and clock, after the first second. */
  bitsPerS: number;
  packets: number;
  /** Share 0..1 that did not arrive. */
  lossRatio: number;
  /** RFC 3550 appendix A.8, by the receiver, in milliseconds. */
  jitterMs: number;
  /** Round trips meanwhile, in milliseconds. */
  rttMs: { p50: number; p99: number };
}

export interface SpeedtestResult {
  idle: { asks: number; lossRatio: number; jitterMs: number; rttMs: { p50: number; p99: number } };
  up: Direction;
  down: Direction;
}

export interface SpeedtestOptions {
  /** Own inner IPv4 address, as u32. */
  own: number;
  /** Bytes of a packet of data that the path takes now, 76 to 1900. */
  packetBytes: () => number;
  /** Of the idle phase and of each direction, in microseconds. */
  idleUs: number;
  directionUs: number;
  /** Packets of data under way at most; 8192 when absent. */
  windowMax?: number;
  /** A fresh u32 for each run. */
  random: () => number;
}

/** The end that a person sees: over, or why not. */
export type Phase = "idle" | "up" | "down" | "done" | "busy" | "unanswered";

const PORT = 40_044;
const ASK_US = 20_000;
/** Packets of data for each request for the round trip; and packets that one request for data asks for. */
const PACKETS_PER_ASK = 32;
const PACKETS_PER_PULL = 16;
const WINDOW_MIN = 64, WINDOW_MAX = 8192;
const GAIN = 2;
/** What starts slowly is left out of the rate. */
const SETTLE_US = 1_000_000;
/** After the last data, for what is still under way. */
const DRAIN_US = 300_000;
/** When nothing was heard for so long, what is under way counts as lost; and when nothing was ever, nobody answers. */
const STALL_US = 300_000;
const UNANSWERED_US = 2_000_000;

export class SpeedtestExit implements Exit {
  readonly name = "speedtest";
  readonly description = "speedtest: packets of its own";
  readonly flowCount = 1;
  phase: Phase = "idle";
  readonly #o: SpeedtestOptions;
  #relay = 0;
  #run: number;
  #startUs = NaN;
  #heardUs = NaN;
  #askAtUs = 0;
  #asks = 0;
  #answers = 0;
  #rttsUs: number[] = [];
  #rttUsMin = Infinity;
  readonly #jitter = new Jitter();
  /** Packets of data sent, or asked for by pulls; and how far the other end is known to be. */
  #sent = 0;
  #acknowledged = 0;
  #sinceAsk = 0;
  #window = WINDOW_MIN;
  /** Of data, by its receiver: what came, the highest sequence number, and its clock. */
  #received = 0;
  #bytes = 0;
  #highest = -1;
  #clockUs = 0;
  #receiverJitterUs = 0;
  /** The same at an earlier moment, for the rate of the last moments and for that of the whole. */
  #late = { received: 0, atUs: 0 };
  #settled: { bytes: number; clockUs: number } | undefined;
  #idle: SpeedtestResult["idle"] | undefined;
  #up: Direction | undefined;
  #down: Direction | undefined;
  #wake: () => void = () => {};

  constructor(options: SpeedtestOptions) {
    this.#o = options;
    this.#run = options.random();
  }

  /** Begins. @param relay the relay's inner IPv4 address, as u32. */
  start(relay: number): void {
    this.#relay = relay;
    this.#wake();
  }

  /** What was measured; undefined before the end. */
  get result(): SpeedtestResult | undefined {
    return this.#idle && this.#up && this.#down && { idle: this.#idle, up: this.#up, down: this.#down };
  }

  /** Bits a second of this direction so far, as its receiver counted them. */
  get bitsPerS(): number {
    const from = this.#settled ?? { bytes: 0, clockUs: this.#clockUs };
    const elapsedUs = (this.#clockUs - from.clockUs) >>> 0;
    return elapsedUs > 0 ? 8e6 * (this.#bytes - from.bytes) / elapsedUs : 0;
  }

  /** How much of the whole is done, 0 to 1. */
  progress(nowUs: number): number {
    const { idleUs, directionUs } = this.#o;
    const before = { idle: 0, up: idleUs, down: idleUs + directionUs }[this.phase as "idle" | "up" | "down"];
    if (before === undefined) return 1;
    const length = this.phase === "idle" ? idleUs : directionUs;
    const within = Number.isNaN(this.#startUs) ? 0 : Math.min(length, nowUs - this.#startUs);
    return (before + within) / (idleUs + 2 * directionUs);
  }

  onReadable(wake: () => void): void {
    this.#wake = wake;
  }

  /** Has the driver come by: the phases are driven by the clock, whether packets come or not. */
  turn(): void {
    this.#wake();
  }

  handleTimeout(): void {}

  close(): Promise<void> {
    return Promise.resolve();
  }

  receive(burst: Burst, nowUs: number): number {
    if (this.#relay === 0 || (this.phase !== "idle" && this.phase !== "up" && this.phase !== "down")) {
      return 0;
    }
    if (Number.isNaN(this.#startUs)) this.#begin(nowUs);
    const before = burst.count;
    const elapsedUs = nowUs - this.#startUs;
    const lengthUs = this.phase === "idle" ? this.#o.idleUs : this.#o.directionUs;
    if (elapsedUs >= lengthUs + DRAIN_US) return this.#end();
    if (Number.isNaN(this.#heardUs) && elapsedUs > UNANSWERED_US) {
      this.phase = "unanswered";
      return 0;
    }
    const isOver = elapsedUs >= lengthUs;
    // What is under way at the end is waited for; in a direction, the last report says what came of it.
    if (nowUs >= this.#askAtUs && !(isOver && this.phase === "idle")) {
      this.#askAtUs = nowUs + ASK_US;
      this.#ask(burst, nowUs);
    }
    if (isOver || this.phase === "idle") return burst.count - before;
    if (nowUs - this.#heardUs > STALL_US) {
      this.#heardUs = nowUs;
      this.#acknowledged = this.#sent;
      this.#window = WINDOW_MIN;
    }
    const { own } = this.#o;
    const packetBytes = this.#o.packetBytes();
    const relay = this.#relay;
    while (this.#sent - this.#acknowledged < this.#window && burst.count < BURST_CAPACITY - 1) {
      const isUp = this.phase === "up";
      const length = isUp ? packetBytes : SPEEDTEST_PACKET_BYTES;
      const row = burst.grow(length, TO_TUNNEL);
      if (row < 0) break;
      const { view, bytes, offset } = burst;
      const at = offset[row];
      if (isUp) bytes.set(SPEEDTEST_FILLING, at);
      const kind = isUp ? SPEEDTEST_DATA : SPEEDTEST_PULL;
      const sequence = isUp ? this.#sent : this.#sent / PACKETS_PER_PULL;
      writeSpeedtest(
        view,
        at,
        length,
        own,
        PORT,
        relay,
        SPEEDTEST_PORT,
        kind,
        this.#run,
        sequence,
        nowUs >>> 0,
        0,
      );
      if (isUp) {
        this.#sent++;
        if (++this.#sinceAsk >= PACKETS_PER_ASK) this.#ask(burst, nowUs);
      } else {
        writePull(view, at, Math.min(PULL_MAX, PACKETS_PER_PULL), packetBytes);
        this.#sent += PACKETS_PER_PULL;
      }
    }
    return burst.count - before;
  }

  send(burst: Burst, nowUs: number): void {
    const { count, next, offset, length, view } = burst;
    for (let row = 0; row < count; row++) {
      if (next[row] !== TO_EXIT) continue;
      next[row] = DONE;
      const at = offset[row];
      const kind = speedtestKind(view, at, length[row]);
      if (kind === 0 || readRun(view, at) !== this.#run) continue;
      this.#heardUs = nowUs;
      if (kind === SPEEDTEST_BUSY) this.phase = "busy";
      else if (kind === SPEEDTEST_REPORT) this.#onReport(view, at, nowUs);
      else if (kind === SPEEDTEST_DATA && this.phase === "down") this.#onData(view, at, length[row], nowUs);
    }
  }

  #ask(burst: Burst, nowUs: number): void {
    const row = burst.grow(SPEEDTEST_PACKET_BYTES, TO_TUNNEL);
    if (row < 0) return;
    const { view, bytes, offset } = burst;
    bytes.fill(0, offset[row], offset[row] + SPEEDTEST_PACKET_BYTES);
    writeSpeedtest(
      view,
      offset[row],
      SPEEDTEST_PACKET_BYTES,
      this.#o.own,
      PORT,
      this.#relay,
      SPEEDTEST_PORT,
      SPEEDTEST_ASK,
      this.#run,
      this.#asks++,
      nowUs >>> 0,
      0,
    );
    this.#sinceAsk = 0;
  }

  #onReport(view: DataView, at: number, nowUs: number): void {
    const rttUs = (nowUs - readTime(view, at)) >>> 0;
    this.#answers++;
    this.#rttsUs.push(rttUs);
    this.#rttUsMin = Math.min(this.#rttUsMin, rttUs);
    if (this.phase === "idle") this.#jitter.add(rttUs);
    if (this.phase !== "up" || readReceived(view, at) < this.#received) return;
    this.#received = readReceived(view, at);
    this.#bytes = readReceivedBytes(view, at);
    this.#clockUs = readClock(view, at);
    this.#receiverJitterUs = readJitter(view, at);
    if (this.#received > 0) this.#highest = readHighest(view, at);
    this.#acknowledged = Math.max(this.#acknowledged, this.#highest + 1);
    this.#widen(nowUs);
  }

  #onData(view: DataView, at: number, length: number, nowUs: number): void {
    this.#received++;
    this.#bytes += length;
    this.#clockUs = nowUs;
    this.#highest = Math.max(this.#highest, readSequenceOf(view, at));
    // Modulo 2^32 both clocks, so that their difference is what the sender's clock and the way make it.
    this.#jitter.add(((nowUs >>> 0) - readTime(view, at)) >>> 0);
    this.#receiverJitterUs = this.#jitter.us;
    this.#acknowledged = Math.max(this.#acknowledged, PACKETS_PER_PULL * readHighest(view, at));
    this.#widen(nowUs);
  }

  /** Sizes the window by what was delivered in the last round trip, and notes where the settled part begins. */
  #widen(nowUs: number): void {
    const elapsedUs = nowUs - this.#late.atUs;
    if (elapsedUs >= Math.max(this.#rttUsMin, 1000)) {
      const perUs = (this.#received - this.#late.received) / elapsedUs;
      const held = GAIN * perUs * this.#rttUsMin + WINDOW_MIN;
      this.#window = Math.min(this.#o.windowMax ?? WINDOW_MAX, Math.max(held, this.#window / 2));
      this.#late = { received: this.#received, atUs: nowUs };
    }
    if (
      this.#settled === undefined && nowUs - this.#startUs >= Math.min(SETTLE_US, this.#o.directionUs / 4)
    ) {
      this.#settled = { bytes: this.#bytes, clockUs: this.#clockUs };
    }
  }

  #begin(nowUs: number): void {
    this.#startUs = nowUs;
    this.#heardUs = this.phase === "idle" ? NaN : nowUs;
    this.#askAtUs = nowUs;
    this.#late = { received: 0, atUs: nowUs };
    this.#asks =
      this.#answers =
      this.#sent =
      this.#acknowledged =
      this.#sinceAsk =
        0;
    this.#received =
      this.#bytes =
      this.#clockUs =
      this.#receiverJitterUs =
        0;
    this.#highest = -1;
    this.#window = WINDOW_MIN;
    this.#settled = undefined;
    this.#rttsUs = [];
    this.#jitter.reset();
  }

  /** Takes stock of the phase and goes to the next. */
  #end(): number {
    const rttMs = { p50: percentile(this.#rttsUs, 0.5) / 1000, p99: percentile(this.#rttsUs, 0.99) / 1000 };
    if (this.phase === "idle") {
      this.#idle = {
        asks: this.#asks,
        lossRatio: 1 - this.#answers / this.#asks,
        jitterMs: this.#jitter.us / 1000,
        rttMs,
      };
      this.phase = "up";
    } else {
      const direction = {
        bitsPerS: this.bitsPerS,
        packets: this.#received,
        lossRatio: this.#highest < 0 ? 1 : Math.max(0, 1 - this.#received / (this.#highest + 1)),
        jitterMs: this.#receiverJitterUs / 1000,
        rttMs,
      };
      if (this.phase === "up") {
        this.#up = direction;
        this.phase = "down";
      } else {
        this.#down = direction;
        this.phase = "done";
      }
    }
    this.#startUs = NaN;
    this.#run = this.#o.random();
    return 0;
  }
}
