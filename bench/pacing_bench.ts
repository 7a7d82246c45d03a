/**
 * `deno task bench:pacing [channels] [memory] [--seeds N] [--seconds N]`: whether a found rate that falls ahead of predicted losses serves a game beside
 * a transfer better. Whole clients and relays in virtual time over four channels; a CUBIC transfer and a game up, repair at its
 * defaults. Compares no prediction, the plain delay threshold, the logistic and the LSTM predictor (src/repair/prediction). Also what a
 * remembered rate does to the first seconds of a transfer. Prints tables; asserts nothing.
 */
import { parseArgs } from "@std/cli";
import type { Client } from "../src/client.ts";
import { PortableShardKernel } from "../src/codec/gf256.ts";
import { DEFAULTS } from "../src/config.ts";
import { ROLLOUT_DEFAULT } from "../src/control/rollout.ts";
import { CLASS_BULK, CLASS_GAME } from "../src/control/traffic_class.ts";
import { repairOptions } from "../src/repair/options.ts";
import {
  Bottleneck,
  burstLoss,
  CONGESTION,
  congestion,
  Path,
  type PathModel,
} from "../tests/kit/channels.ts";
import { CubicSender } from "../tests/kit/cubic.ts";
import { marked, udpPacket } from "../tests/kit/packets.ts";
import { queueOptions } from "../tests/kit/queue_options.ts";
import { Random } from "../tests/kit/random.ts";
import { type Host, World } from "../tests/kit/world.ts";
import { median } from "./contest.ts";

const args = parseArgs(Deno.args, { string: ["seeds", "seconds"] });
const SEEDS = Number(args.seeds ?? 3), SECONDS = Number(args.seconds ?? 20), WARM_S = 3;
const CLIENT = "10.66.0.2", FAR = "8.8.8.8", RELAY = "192.0.2.1:4433";
const SECOND = 1_000_000, MS = 1000, GAME_US = 15_625, GAME_BYTES = 100, BULK_BYTES = 1200;
/** 10 Mbit/s with 200 ms of queue, 10 ms away. */
const RATE = 1_250_000, FIFO_US = 200 * MS, DELAY_US = 10 * MS;

/** A line whose rate is what `rateAt` says. */
class Varying extends Bottleneck {
  readonly #rateAt: (us: number) => number;

  constructor(rateAt: (us: number) => number) {
    super(RATE, FIFO_US, DELAY_US);
    this.#rateAt = rateAt;
  }

  override arrivalUs(nowUs: number, bytes: number): number {
    this.bytesPerS = this.#rateAt(nowUs);
    return super.arrivalUs(nowUs, bytes);
  }
}

/** A rate that wanders between a third of RATE and all of it, a step each 100 ms, as over a radio. */
function wandering(random: Random): (us: number) => number {
  let share = 0.7, untilUs = 0;
  return (us) => {
    for (; untilUs <= us; untilUs += 100 * MS) {
      share = Math.min(1, Math.max(1 / 3, share + 0.3 * (random.real() - 0.5)));
    }
    return share * RATE;
  };
}

/** Losses in bursts in front of a line. */
class Lossy implements PathModel {
  readonly #losses: Path;
  readonly #line: PathModel;

  constructor(random: Random, line: PathModel) {
    this.#losses = new Path(0, burstLoss(random, 0.01, 20 * MS));
    this.#line = line;
  }

  arrivalUs(nowUs: number, bytes: number): number {
    const atUs = this.#line.arrivalUs(nowUs, bytes);
    return this.#losses.arrivalUs(nowUs, bytes) === Infinity ? Infinity : atUs;
  }
}

const CHANNELS: [name: string, make: (random: Random) => PathModel][] = [
  ["a line of 10 Mbit/s", () => new Bottleneck(RATE, FIFO_US, DELAY_US)],
  [
    "10 and 2 Mbit/s, 3 s each",
    () => new Varying((us) => Math.floor(us / (3 * SECOND)) % 2 === 0 ? RATE : RATE / 5),
  ],
  [
    "busy neighbours",
    (random) => new Path(DELAY_US, congestion(random, { ...CONGESTION, bytesPerSecond: RATE })),
  ],
  [
    "a radio, 3 to 10 Mbit/s, 1 % lost in bursts",
    (random) => new Lossy(random, new Varying(wandering(random))),
  ],
];

/** No rate control at all, rate control without prediction, and with each predictor. */
type Variant = "no rate found" | "off" | "delay" | "logistic" | "lstm";
const VARIANTS: Variant[] = ["no rate found", "off", "delay", "logistic", "lstm"];

interface Game {
  sentUs: number;
  delayUs: number;
}

interface Outcome {
  p50: number;
  p99: number;
  lost: number;
  mbit: number;
}

/** A client's game and transfer over the path up. */
class Play {
  readonly world: World;
  readonly client: Host<Client>;
  readonly games: Game[] = [];
  bulkBytes = 0;
  readonly #server: Host;
  #sender: CubicSender;
  readonly #acks: { atUs: number; number: number }[] = [];
  #largest = -1;
  #gameUs: number;

  constructor(seed: number, up: PathModel, variant: Variant, percent: Partial<typeof ROLLOUT_DEFAULT> = {}) {
    const world = this.world = new World(seed);
    world.protocol = "oxtunnel";
    const isPredicted = variant !== "off" && variant !== "no rate found";
    const predictor = isPredicted ? variant : "lstm";
    const repair = repairOptions(new PortableShardKernel(), { ...DEFAULTS.repair, predictor });
    const queues = queueOptions({ findsRates: true });
    const rolloutPercent = {
      ...ROLLOUT_DEFAULT,
      rate_control: variant === "no rate found" ? 0 : 100,
      predicted_pacing: isPredicted ? 100 : 0,
      ...percent,
    };
    this.#server = world.relay(RELAY, { ipv4: "10.66.0.1", repair });
    world.pathOf = (_, to) => to === RELAY ? up : undefined;
    this.client = world.client("198.51.100.7:5555", this.#server as Host<never>, {
      ipv4: CLIENT,
      queues,
      repair,
      rolloutPercent,
    });
    this.client.send(udpPacket(CLIENT, FAR, new Uint8Array(20)));
    world.runFor(2 * SECOND);
    this.#server.delivered.length = 0;
    this.#sender = new CubicSender(world.nowUs);
    this.#gameUs = world.nowUs;
  }

  #packet(number: number, bytes: number, isGame: boolean): Uint8Array {
    const whole = udpPacket(CLIENT, FAR, new Uint8Array(bytes)), view = new DataView(whole.buffer);
    view.setUint16(20, isGame ? 7777 : 443);
    view.setUint32(28, number);
    view.setUint8(32, isGame ? 1 : 0);
    return marked(whole, isGame ? CLASS_GAME : CLASS_BULK);
  }

  /** The transfer begins anew, with a new window. */
  restart(): void {
    const { next } = this.#sender;
    this.#sender = new CubicSender(this.world.nowUs);
    this.#sender.next = next;
    this.#acks.length = 0;
  }

  runFor(us: number, isBusy = true): void {
    const { world } = this, untilUs = world.nowUs + us;
    while (world.nowUs < untilUs) {
      world.runFor(MS);
      const { nowUs } = world;
      this.#receive();
      while (this.#acks.length > 0 && this.#acks[0].atUs <= nowUs) {
        const { number } = this.#acks.shift()!;
        this.#sender.acked(number, number, nowUs);
        this.#largest = Math.max(this.#largest, number);
        this.#sender.settle(this.#largest, nowUs);
      }
      for (; this.#gameUs <= nowUs; this.#gameUs += GAME_US) {
        this.client.sendBurst([this.#packet(this.games.length, GAME_BYTES, true)], CLASS_GAME);
        this.games.push({ sentUs: nowUs, delayUs: Infinity });
      }
      if (!isBusy) continue;
      for (let number = this.#sender.next; this.#sender.take(nowUs); number = this.#sender.next) {
        this.client.sendBurst([this.#packet(number, BULK_BYTES, false)], CLASS_BULK);
      }
    }
  }

  #receive(): void {
    const { nowUs } = this.world;
    for (const got of this.#server.delivered.splice(0)) {
      const view = new DataView(got.buffer, got.byteOffset), number = view.getUint32(28);
      if (view.getUint8(32) === 1) this.games[number].delayUs = nowUs - this.games[number].sentUs - DELAY_US;
      else {
        this.bulkBytes += got.length;
        this.#acks.push({ atUs: nowUs + 2 * DELAY_US, number });
      }
    }
  }
}

function delaysOf(games: readonly Game[]): { p50: number; p99: number; longest: number; lost: number } {
  const came = games.map(({ delayUs }) => delayUs).filter((us) => us < Infinity).sort((a, b) => a - b);
  const at = (rank: number) => came[Math.max(0, Math.ceil(rank * came.length) - 1)] / MS;
  return { p50: at(0.5), p99: at(0.99), longest: at(1), lost: 1 - came.length / games.length };
}

function measure(seed: number, make: (random: Random) => PathModel, variant: Variant): Outcome {
  const play = new Play(seed, make(new Random(seed)), variant);
  play.runFor(WARM_S * SECOND);
  const from = play.games.length, before = play.bulkBytes;
  play.runFor(SECONDS * SECOND);
  const mbit = (play.bulkBytes - before) * 8 / SECONDS / 1e6, to = play.games.length;
  play.runFor(SECOND, false);
  return { ...delaysOf(play.games.slice(from, to)), mbit };
}

const seeds = Array.from({ length: SEEDS }, (_, i) => i + 1);
/** A transfer of 6 s, a pause that makes the rate forgotten, and the next transfer, whose first seconds count. */
const FIRST_S = 6, PAUSE_S = 13, AGAIN_S = 3;

/** @param factor the second transfer's share of the line's rate; undefined for one that has busy neighbours all the time. */
function measureAgain(
  seed: number,
  factor: number | undefined,
  memory: number,
): { p99: number; longest: number; mbit: number } {
  let share = 1;
  const line = factor === undefined
    ? new Path(DELAY_US, congestion(new Random(seed), { ...CONGESTION, bytesPerSecond: RATE }))
    : new Varying(() => share * RATE);
  const play = new Play(seed, line, "off", { rate_memory: memory });
  play.runFor(FIRST_S * SECOND);
  play.runFor(PAUSE_S * SECOND, false);
  share = factor ?? 1;
  play.restart();
  const from = play.games.length, before = play.bulkBytes;
  play.runFor(AGAIN_S * SECOND);
  const mbit = (play.bulkBytes - before) * 8 / AGAIN_S / 1e6, to = play.games.length;
  play.runFor(SECOND, false);
  return { ...delaysOf(play.games.slice(from, to)), mbit };
}

function channels(): string[] {
  const rows = [
    `A game beside a CUBIC transfer up, medians of ${SEEDS} seeds of ${SECONDS} s: what the queues add to the game's packets, ms.`,
    "",
    "| channel | | game p50 | p99 | lost | transfer, Mbit/s |",
    "|---|---|---|---|---|---|",
  ];
  for (const [name, make] of CHANNELS) {
    for (const variant of VARIANTS) {
      const runs = seeds.map((seed) => measure(seed, make, variant));
      const of = (value: (one: Outcome) => number, digits: number) => median(runs.map(value)).toFixed(digits);
      rows.push(
        `| ${name} | ${variant} | ${of(({ p50 }) => p50, 1)} | ${of(({ p99 }) => p99, 1)} | ${
          of(({ lost }) => 100 * lost, 2)
        } % | ${of(({ mbit }) => mbit, 2)} |`,
      );
      console.error(rows.at(-1));
    }
  }
  return rows;
}

function memory(): string[] {
  const again = [
    "",
    `The first ${AGAIN_S} s of a transfer ${PAUSE_S} s after another one, over a line of 10 Mbit/s that has meanwhile kept its rate or ` +
    `not, medians of ${SEEDS} seeds.`,
    "",
    "| the line's rate | memory | game p99 | longest | transfer, Mbit/s |",
    "|---|---|---|---|---|",
  ];
  for (
    const [name, factor] of [["the same", 1], ["a quarter", 1 / 4], ["four times", 4], [
      "busy neighbours",
      undefined,
    ]] as const
  ) {
    for (const memory of [0, 100]) {
      const runs = seeds.map((seed) => measureAgain(seed, factor, memory));
      const of = (value: (one: (typeof runs)[number]) => number, digits: number) =>
        median(runs.map(value)).toFixed(digits);
      again.push(
        `| ${name} | ${memory > 0 ? "on" : "off"} | ${of(({ p99 }) => p99, 1)} | ${
          of(({ longest }) => longest, 1)
        } | ${of(({ mbit }) => mbit, 2)} |`,
      );
      console.error(again.at(-1));
    }
  }
  return again;
}

const SETS: Record<string, () => string[]> = { channels, memory };
for (const word of args._.length > 0 ? args._ : Object.keys(SETS)) {
  if (!Object.hasOwn(SETS, word)) throw new Error(`${word}: choose from ${Object.keys(SETS).join(", ")}`);
  console.log(`${SETS[word]().join("\n")}\n`);
}
