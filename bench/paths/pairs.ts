/**
 * The path pairs over which the schedulers are compared, and the contenders. Invariant: the same seed gives the same pair, and what one
 * contender sends moves no outage of another's. Plays nothing.
 */
import { choiceOf, LeastLate, NO_PATH, type PathScheduler } from "../../src/control/paths/choice.ts";
import { channelsAt, Path, type PathModel, randomLoss } from "../../tests/kit/channels.ts";
import { Cut, OnePath, type PlayedPath } from "../../tests/kit/paths_play.ts";
import { Random } from "../../tests/kit/random.ts";
import { RoundRobin, Ucb1 } from "./rivals.ts";

/** A is 20 ms away; a packet that comes 60 ms later than without any loss is of no use. */
const NEAR_US = 20_000, FAR_US = 40_000;
export const USEFUL_US = NEAR_US + 60_000;

export interface Pair {
  name: string;
  make: (seed: number, seconds: number) => PlayedPath[];
}

type Make = (random: Random) => PathModel;
const near: Record<string, Make> = channelsAt(NEAR_US), far: Record<string, Make> = channelsAt(FAR_US);

function pair(name: string, a: Make, b: Make, bBackUs = FAR_US): Pair {
  return {
    name,
    make: (seed) => {
      const random = new Random(seed);
      return [{ model: a(random.fork()), backUs: NEAR_US }, {
        model: b(random.fork()),
        backUs: bBackUs,
        isMetered: true,
      }];
    },
  };
}

const NAMES = ["clean", "random", "bursts", "congestion", "fading", "handover", "mixed"];

/** A as named with a clean B at 20 ms more; A and B alike; a clean A with a B that is of no use; and an A that is cut. */
export const PAIRS: readonly Pair[] = [
  ...NAMES.map((name) => pair(`${name}, clean +20 ms`, near[name], far.clean)),
  ...NAMES.slice(1).map((name) => pair(`${name}, ${name} +20 ms`, near[name], far[name])),
  ...NAMES.slice(1).map((name) => pair(`${name}, ${name}`, near[name], near[name], NEAR_US)),
  pair("clean, 50 % lost", near.clean, (random) => new Path(NEAR_US, randomLoss(random, 0.5)), NEAR_US),
  pair("random, 50 % lost", near.random, (random) => new Path(NEAR_US, randomLoss(random, 0.5)), NEAR_US),
  pair("clean, clean +200 ms", near.clean, () => new Path(NEAR_US + 200_000), NEAR_US + 200_000),
  pair("random, clean +200 ms", near.random, () => new Path(NEAR_US + 200_000), NEAR_US + 200_000),
  {
    name: "clean that is cut in the middle, clean +20 ms",
    make: (_, seconds) => [
      { model: new Cut(new Path(NEAR_US), seconds * 5e5), backUs: NEAR_US },
      { model: new Path(FAR_US), backUs: FAR_US, isMetered: true },
    ],
  },
];

/** Both paths, of which only the bytes of the one that was first are counted: nobody can do better. */
export class Both implements PathScheduler {
  choose(): number {
    return choiceOf(0, 1);
  }

  judge(): void {}
}

export interface Contender {
  name: string;
  make: () => PathScheduler;
  /** Its bytes are of one path only. */
  isOracle?: boolean;
}

export const CONTENDERS: readonly Contender[] = [
  { name: "A alone", make: () => new OnePath(choiceOf(0, NO_PATH)) },
  { name: "B alone", make: () => new OnePath(choiceOf(1, NO_PATH)) },
  { name: "in turns", make: () => new RoundRobin() },
  { name: "UCB1", make: () => new Ucb1() },
  { name: "least late", make: () => new LeastLate(0, "in doubt") },
  { name: "copies in doubt", make: () => new LeastLate(100, "in doubt") },
  { name: "copies always", make: () => new LeastLate(100, "always") },
  { name: "oracle", make: () => new Both(), isOracle: true },
];
