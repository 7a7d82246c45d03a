/**
 * Ways that a path treats datagrams: losses alone and in bursts, queues that fill and overflow, fading radio, handovers.
 * Each is a seeded process in time, not per datagram, so that sending more neither makes a burst shorter nor moves the next
 * one: whatever is sent over it, a path of one seed has its outages at the same times. Invariant: the same seed and the same
 * calls give the same answers, and time may be asked for in growing order only. Models of
 * channels, not measurements: their parameters are chosen to differ, and are named.
 */
import type { Random } from "./random.ts";

/** One direction of a path. */
export interface PathModel {
  /**
   * When a datagram of `bytes`, UDP and IP counted, sent at `nowUs` arrives, in microseconds; Infinity when it is lost.
   * `nowUs` never decreases from one call to the next.
   */
  arrivalUs(nowUs: number, bytes: number): number;
}

/** A line of one rate with a first-in, first-out queue in front: what a modem is. */
export class Bottleneck implements PathModel {
  #freeUs = 0;

  /** @param bytesPerS its rate, which may change as `delayUs` may. @param queueUs how long what it holds may take; more is lost. */
  constructor(public bytesPerS: number, readonly queueUs: number, public delayUs: number) {}

  arrivalUs(nowUs: number, bytes: number): number {
    const waitUs = Math.max(0, this.#freeUs - nowUs);
    if (waitUs > this.queueUs) return Infinity;
    this.#freeUs = nowUs + waitUs + bytes / this.bytesPerS * 1e6;
    return this.#freeUs + this.delayUs;
  }
}

/** A bottleneck that lets `burstBytes` through at once where nothing was sent for long, as `tc tbf` and modems do. */
export class TokenBucket extends Bottleneck {
  #tokens: number;
  /** When the bytes that are in it will have left, microseconds. */
  #outUs = 0;

  constructor(bytesPerS: number, queueUs: number, delayUs: number, readonly burstBytes: number) {
    super(bytesPerS, queueUs, delayUs);
    this.#tokens = burstBytes;
  }

  override arrivalUs(nowUs: number, bytes: number): number {
    const startUs = Math.max(nowUs, this.#outUs);
    if (startUs - nowUs > this.queueUs) return Infinity;
    const grown = (startUs - this.#outUs) * this.bytesPerS / 1e6;
    const tokens = Math.min(this.burstBytes, this.#tokens + grown), missing = Math.max(0, bytes - tokens);
    this.#tokens = Math.max(0, tokens - bytes);
    this.#outUs = startUs + missing / this.bytesPerS * 1e6;
    return this.#outUs + this.delayUs;
  }
}

/** One thing that happens on a path. */
export interface Impairment {
  /** Microseconds that the datagram is held up, or Infinity when it is lost. */
  delayUs(nowUs: number, bytes: number): number;
}

/** A path of `baseUs` one way on which several things happen, each without regard to the others. */
export class Path implements PathModel {
  readonly #parts: readonly Impairment[];

  constructor(readonly baseUs: number, ...parts: Impairment[]) {
    this.#parts = parts;
  }

  arrivalUs(nowUs: number, bytes: number): number {
    let arrival = nowUs + this.baseUs;
    // All of them see all datagrams, so that what one does is not changed by another's losses.
    for (const part of this.#parts) arrival += part.delayUs(nowUs, bytes);
    return arrival;
  }
}

/** Paths one after the other, each for its `forUs`, in a cycle. */
export class Walk implements PathModel {
  readonly #wholeUs: number;

  constructor(readonly legs: readonly { path: PathModel; forUs: number }[]) {
    this.#wholeUs = legs.reduce((sum, { forUs }) => sum + forUs, 0);
  }

  arrivalUs(nowUs: number, bytes: number): number {
    let within = nowUs % this.#wholeUs, leg = 0;
    while (within >= this.legs[leg].forUs) within -= this.legs[leg++].forUs;
    return this.legs[leg].path.arrivalUs(nowUs, bytes);
  }
}

/** A time with this mean, microseconds, exponentially distributed. */
export function exponentialUs(random: Random, meanUs: number): number {
  return -meanUs * Math.log(1 - random.real());
}

/** Standard normal, by Box and Muller. */
export function normal(random: Random): number {
  return Math.sqrt(-2 * Math.log(1 - random.real())) * Math.cos(2 * Math.PI * random.real());
}

/** Switches between two states that last exponentially long; what burst losses and busy neighbours have in common. */
class OnOff {
  isOn = false;
  #untilUs = -1;
  readonly #random: Random;

  constructor(
    random: Random,
    readonly onUs: number,
    readonly offUs: number,
  ) {
    this.#random = random.fork();
  }

  /** Changes the state as often as is due by `nowUs`. */
  advance(nowUs: number): void {
    if (this.#untilUs < 0) this.#untilUs = nowUs + exponentialUs(this.#random, this.offUs);
    while (this.#untilUs <= nowUs) this.flip();
  }

  get untilUs(): number {
    return this.#untilUs;
  }

  flip(): void {
    this.isOn = !this.isOn;
    this.#untilUs += exponentialUs(this.#random, this.isOn ? this.onUs : this.offUs);
  }
}

/** Loses each datagram by itself with the chance `rate`, 0 to 1. */
export function randomLoss(random: Random, rate: number): Impairment {
  const own = random.fork();
  return { delayUs: () => own.real() < rate ? Infinity : 0 };
}

/**
 * Gilbert's model in continuous time: loses everything for `burstUs` on average, so often that the share `rate` of the time
 * is lost.
 */
export function burstLoss(random: Random, rate: number, burstUs: number): Impairment {
  const bad = new OnOff(random, burstUs, burstUs * (1 - rate) / rate);
  return {
    delayUs(nowUs) {
      bad.advance(nowUs);
      return bad.isOn ? Infinity : 0;
    },
  };
}

/** Holds each datagram up for 0 to `maxUs`, evenly: those that follow closely are reordered. */
export function jitter(random: Random, maxUs: number): Impairment {
  const own = random.fork();
  return { delayUs: () => own.real() * maxUs };
}

export interface Congestion {
  /** What the bottleneck carries, bytes per second. */
  bytesPerSecond: number;
  /** The longest queue, in microseconds of that rate. */
  bufferUs: number;
  /** How long neighbours are busy and idle on average, microseconds. */
  busyUs: number;
  idleUs: number;
  /** What they offer meanwhile, in shares of the rate. */
  busyLoad: number;
  idleLoad: number;
}

export const CONGESTION: Congestion = {
  bytesPerSecond: 2_500_000,
  bufferUs: 80_000,
  busyUs: 700_000,
  idleUs: 2_500_000,
  busyLoad: 1.15,
  idleLoad: 0.4,
};

/** A bottleneck's queue that neighbours fill (as a fluid) and that drops at its tail. Our own bytes fill it too. */
export function congestion(random: Random, settings: Congestion): Impairment {
  const { bytesPerSecond, bufferUs, busyUs, idleUs, busyLoad, idleLoad } = settings;
  const busy = new OnOff(random, busyUs, idleUs), own = random.fork();
  /** What is queued, in microseconds. */
  let queueUs = 0, atUs = -1;
  const flow = (toUs: number) => {
    const growth = (busy.isOn ? busyLoad : idleLoad) - 1;
    queueUs = Math.min(bufferUs, Math.max(0, queueUs + growth * (toUs - atUs)));
    atUs = toUs;
  };
  return {
    delayUs(nowUs, bytes) {
      if (atUs < 0) {
        atUs = nowUs;
        busy.advance(nowUs);
      }
      while (busy.untilUs <= nowUs) {
        flow(busy.untilUs);
        busy.flip();
      }
      flow(nowUs);
      const ownUs = 1e6 * bytes / bytesPerSecond;
      if (queueUs + ownUs > bufferUs) {
        // A full queue takes what leaves it, ours as likely as anyone's.
        const load = busy.isOn ? busyLoad : 1;
        if (load <= 1 || own.real() > 1 / load) return Infinity;
      }
      queueUs = Math.min(bufferUs, queueUs + ownUs);
      return queueUs;
    },
  };
}

export interface Fading {
  /** How far above what is just readable the signal is on average, and how much it varies, decibels. */
  marginDb: number;
  deviationDb: number;
  /** How fast it varies: its correlation falls to 1/e in this time, microseconds. */
  coherenceUs: number;
  /** What the radio's own retransmissions cost each time, and how many it makes. */
  retryUs: number;
  retries: number;
}

/** The signal is followed at this step, whatever is sent over it. */
const FADING_STEP_US = 5_000;

export const FADING: Fading = {
  marginDb: 7,
  deviationDb: 4,
  coherenceUs: 250_000,
  retryUs: 8_000,
  retries: 3,
};

/**
 * A radio whose signal wanders (an Ornstein-Uhlenbeck process in decibels): a transmission fails the likelier the weaker it is,
 * is tried again, which delays it, and is given up. In order, as radio links deliver.
 */
export function fading(random: Random, settings: Fading): Impairment {
  const { marginDb, deviationDb, coherenceUs, retryUs, retries } = settings;
  const signal = random.fork(), tried = random.fork();
  const kept = Math.exp(-FADING_STEP_US / coherenceUs), fresh = deviationDb * Math.sqrt(1 - kept * kept);
  let signalDb = marginDb + deviationDb * normal(signal), atUs = -1, lastArrivalUs = 0;
  return {
    delayUs(nowUs) {
      if (atUs < 0) atUs = nowUs;
      for (; atUs + FADING_STEP_US <= nowUs; atUs += FADING_STEP_US) {
        signalDb = marginDb + (signalDb - marginDb) * kept + fresh * normal(signal);
      }
      const fails = 1 / (1 + Math.exp(signalDb));
      let tries = 0;
      while (tries <= retries && tried.real() < fails) tries++;
      if (tries > retries) return Infinity;
      lastArrivalUs = Math.max(lastArrivalUs, nowUs + tries * retryUs);
      return lastArrivalUs - nowUs;
    },
  };
}

export interface Handover {
  /** From one to the next, microseconds, evenly between the two. */
  everyUsMin: number;
  everyUsMax: number;
  /** How long nothing comes through, evenly between the two. */
  outageUsMin: number;
  outageUsMax: number;
  /** The signal weakens for `warningUs` before and after the outage; the delay next to the outage is `warningDelayUs`. Microseconds. */
  warningUs: number;
  warningDelayUs: number;
}

export const HANDOVER: Handover = {
  everyUsMin: 3_000_000,
  everyUsMax: 6_000_000,
  outageUsMin: 50_000,
  outageUsMax: 150_000,
  warningUs: 300_000,
  warningDelayUs: 25_000,
};

/** Outages at changing intervals: the delay grows before them and falls back as fast behind them. */
export function handover(random: Random, settings: Handover): Impairment {
  const { everyUsMin, everyUsMax, outageUsMin, outageUsMax, warningUs, warningDelayUs } = settings;
  const own = random.fork();
  const between = (least: number, most: number) => least + own.real() * (most - least);
  let startUs = -1, endUs = -1;
  return {
    delayUs(nowUs) {
      while (nowUs >= endUs + warningUs || startUs < 0) {
        startUs = (startUs < 0 ? nowUs : endUs) + between(everyUsMin, everyUsMax);
        endUs = startUs + between(outageUsMin, outageUsMax);
      }
      if (nowUs >= startUs && nowUs < endUs) return Infinity;
      const awayUs = nowUs < startUs ? startUs - nowUs : nowUs - endUs;
      return Math.max(0, 1 - awayUs / warningUs) * warningDelayUs;
    },
  };
}

const ONE_WAY_US = 20_000;
const JITTER_US = 1_000;

/** The paths that benches and tests run on, by what happens on them, `oneWayUs` each way. */
export function channelsAt(oneWayUs: number) {
  return {
    clean: () => new Path(oneWayUs),
    random: (random: Random) => new Path(oneWayUs, jitter(random, JITTER_US), randomLoss(random, 0.05)),
    bursts: (random: Random) =>
      new Path(oneWayUs, jitter(random, JITTER_US), burstLoss(random, 0.05, 30_000)),
    congestion: (random: Random) => new Path(oneWayUs, congestion(random, CONGESTION)),
    fading: (random: Random) => new Path(oneWayUs, fading(random, FADING)),
    handover: (random: Random) => new Path(oneWayUs, jitter(random, JITTER_US), handover(random, HANDOVER)),
    mixed: (random: Random) =>
      new Path(
        oneWayUs,
        randomLoss(random, 0.01),
        congestion(random, CONGESTION),
        handover(random, { ...HANDOVER, everyUsMin: 8_000_000, everyUsMax: 15_000_000 }),
      ),
  } as const satisfies Record<string, (random: Random) => PathModel>;
}

/** The same, 20 ms each way. */
export const CHANNELS = channelsAt(ONE_WAY_US);

/** Holds the share `rate` of the datagrams up for `lateUs`, so that others overtake them. */
export function late(random: Random, rate: number, lateUs: number): Impairment {
  const own = random.fork();
  return { delayUs: () => own.real() < rate ? lateUs : 0 };
}

const transferPath = (baseUs: number) => () => new Path(baseUs);
const roughPath = (baseUs: number) => (random: Random) =>
  new Path(baseUs, randomLoss(random, 0.005), late(random, 0.01, Math.max(500, baseUs / 8)));

/** The paths of transfers, by their round trips; rough ones lose 0.5 % each way and hold 1 % up. */
export const TRANSFER_PATHS = {
  "1ms": transferPath(500),
  "1ms-rough": roughPath(500),
  "40ms": transferPath(20_000),
  "40ms-rough": roughPath(20_000),
  "150ms": transferPath(75_000),
  "150ms-rough": roughPath(75_000),
} as const satisfies Record<string, (random: Random) => PathModel>;

/** The channels over paths of other lengths, by names such as "random-2.5ms", one way. */
export const NEAR_PATHS: Record<string, (random: Random) => PathModel> = Object.fromEntries(
  [2.5, 5, 10, 40].flatMap((ms) =>
    Object.entries(channelsAt(1000 * ms)).map(([name, make]) => [`${name}-${ms}ms`, make])
  ),
);

export type ChannelName = keyof typeof CHANNELS;
export type TransferPathName = keyof typeof TRANSFER_PATHS;
