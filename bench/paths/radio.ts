/**
 * A radio that moves between cells: its signal, as a driver tells it, and what becomes of packets. The signal wanders; before most
 * handovers it falls for a while, some come without any sign, and it dips without a handover too. Weak signal means retransmissions,
 * which delay, then losses; a handover is a gap. Invariant: the same seed gives the same radio, whatever is sent over it; what a
 * reader sees of the signal is old, rounded and noisy. A model with named parameters, not a measurement.
 */
import { normal, type PathModel } from "../../tests/kit/channels.ts";
import type { Random } from "../../tests/kit/random.ts";

const STEP_US = 5_000;
/** A driver tells a level of whole decibels, a new one this often. */
const LEVEL_US = 250_000;
/** Where half of the transmissions fail, and over how many decibels that changes. */
const HALF_DBM = -84, SLOPE_DB = 2;
const RETRIES = 4, RETRY_US = 4_000;

export interface RadioSettings {
  /** From one handover, or dip, to the next, seconds, evenly. */
  everyS: [number, number];
  /** How long the signal falls before, seconds; and the gap, milliseconds. */
  fallS: [number, number];
  gapMs: [number, number];
  /** The level in the middle of a cell, where a handover happens, and how much it wanders, dBm and dB. */
  goodDbm: number;
  edgeDbm: number;
  wanderDb: number;
  /** Shares of handovers without a sign, and of dips that end without a handover. */
  sudden: number;
  dips: number;
  baseUs: number;
}

/** What the models are trained on: somebody who walks. */
export const WALK: RadioSettings = {
  everyS: [15, 45],
  fallS: [2, 6],
  gapMs: [60, 300],
  goodDbm: -58,
  edgeDbm: -80,
  wanderDb: 3,
  sudden: 0.15,
  dips: 0.3,
  baseUs: 20_000,
};

/** What they are not trained on: somebody in a car, who falls out of cells faster and for longer; and a crowded house. */
export const HELD_OUT: Record<string, RadioSettings> = {
  walk: WALK,
  ride: { ...WALK, everyS: [8, 20], fallS: [1, 3], gapMs: [100, 500], wanderDb: 4, sudden: 0.25 },
  house: { ...WALK, everyS: [30, 90], fallS: [3, 10], edgeDbm: -76, dips: 0.6, sudden: 0.3, wanderDb: 5 },
};

export class Radio implements PathModel {
  /** What a driver tells now, dBm; as of the last time that was asked about. */
  levelDbm: number;
  /** When gaps begin and end, of those that have begun or are certain to. */
  readonly gaps: { fromUs: number; toUs: number }[] = [];
  readonly #o: RadioSettings;
  readonly #course: Random;
  readonly #noise: Random;
  readonly #tries: Random;
  #atUs = 0;
  #wander = 0;
  #fromUs = 0;
  #dueUs = 0;
  #isHandover = true;
  #isSudden = false;
  #gapUs = 0;
  #level = 0;
  #levelAtUs = 0;
  #lastArrivalUs = 0;

  constructor(random: Random, settings: RadioSettings) {
    this.#o = settings;
    this.#course = random.fork();
    this.#noise = random.fork();
    this.#tries = random.fork();
    this.levelDbm = this.#level = settings.goodDbm;
    this.#plan(0);
  }

  arrivalUs(nowUs: number): number {
    this.look(nowUs);
    const gap = this.gaps.at(-1);
    if (gap !== undefined && nowUs >= gap.fromUs && nowUs < gap.toUs) return Infinity;
    const fails = 1 / (1 + Math.exp((this.#level - HALF_DBM) / SLOPE_DB));
    let tries = 0;
    while (tries <= RETRIES && this.#tries.real() < fails) tries++;
    if (tries > RETRIES) return Infinity;
    this.#lastArrivalUs = Math.max(this.#lastArrivalUs, nowUs + this.#o.baseUs + tries * RETRY_US);
    return this.#lastArrivalUs;
  }

  /** Follows the signal up to now. */
  look(nowUs: number): void {
    const { wanderDb } = this.#o, kept = Math.exp(-STEP_US / 400_000);
    for (; this.#atUs + STEP_US <= nowUs; this.#atUs += STEP_US) {
      this.#wander = kept * this.#wander + wanderDb * Math.sqrt(1 - kept * kept) * normal(this.#noise);
      if (this.#atUs >= this.#dueUs + this.#gapUs) this.#plan(this.#atUs);
      this.#level = this.#mean(this.#atUs) + this.#wander;
      if (this.#atUs - this.#levelAtUs < LEVEL_US) continue;
      this.#levelAtUs = this.#atUs;
      this.levelDbm = Math.round(this.#level + normal(this.#noise));
    }
  }

  /** What the signal is without its wandering. */
  #mean(atUs: number): number {
    const { goodDbm, edgeDbm } = this.#o;
    if (this.#isSudden || atUs < this.#fromUs) return goodDbm;
    const share = Math.min(1, (atUs - this.#fromUs) / (this.#dueUs - this.#fromUs));
    return goodDbm + share * (edgeDbm - goodDbm);
  }

  #plan(nowUs: number): void {
    const { everyS, fallS, gapMs, sudden, dips } = this.#o, course = this.#course;
    const between = ([least, most]: [number, number]) => least + course.real() * (most - least);
    this.#dueUs = nowUs + 1e6 * between(everyS);
    this.#fromUs = Math.max(nowUs, this.#dueUs - 1e6 * between(fallS));
    this.#gapUs = 1000 * between(gapMs);
    this.#isHandover = course.real() >= dips;
    this.#isSudden = this.#isHandover && course.real() < sudden;
    if (this.#isHandover) this.gaps.push({ fromUs: this.#dueUs, toUs: this.#dueUs + this.#gapUs });
    else this.#gapUs = 0;
  }
}
