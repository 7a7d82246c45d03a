/**
 * The found rate on whole clients and relays over one slow line that several tunnels share: fairness, reports that are lost or
 * stay away, a path that changes. Transfers are CUBIC's (tests/kit/cubic.ts), and a game plays beside the first of them. Each test has
 * its control: with nothing that holds back, its bound is missed.
 */
import { assertGreater, assertLess } from "@std/assert";
import type { Client } from "../../src/client.ts";
import { CLASS_BULK, CLASS_GAME } from "../../src/control/traffic_class.ts";
import { queueOptions } from "../kit/queue_options.ts";
import { Bottleneck } from "../kit/channels.ts";
import { CubicSender } from "../kit/cubic.ts";
import { LinePlay } from "../kit/line_play.ts";
import { marked, udpPacket } from "../kit/packets.ts";
import { type Host, World } from "../kit/world.ts";

const SEED = Number(Deno.env.get("SIM_SEED") ?? 1);
const FAR = "8.8.8.8", RELAY = "192.0.2.1:4433";
const SECOND = 1_000_000, MS = 1000;
const GAME_US = 15_625, GAME_BYTES = 100, BULK_BYTES = 1200;
/** 4 Mbit/s, and what a modem holds of it. */
const RATE = 500_000, FIFO_US = 200 * MS, DELAY_US = 10 * MS;

interface Tunnel {
  client: Host<Client>;
  address: string;
  sender: CubicSender;
  largest: number;
  bytes: number;
}

class Home {
  readonly world = new World(SEED);
  readonly line = new Bottleneck(RATE, FIFO_US, DELAY_US);
  readonly tunnels: Tunnel[] = [];
  /** By game packet: when it was sent, and its delay beyond an idle line's, once it has come. */
  readonly games: { sentUs: number; delayUs: number }[] = [];
  /** Whether a datagram from the relay comes through. */
  backComes: () => boolean = () => true;
  readonly #server;
  readonly #acks: { atUs: number; tunnel: Tunnel; number: number }[] = [];
  #gameUs = 0;

  constructor(tunnels: number, isOn: boolean, readonly gameClass = CLASS_GAME, bytesPerS = RATE) {
    this.line.bytesPerS = bytesPerS;
    const { world } = this;
    world.protocol = "oxtunnel";
    const queues = queueOptions({ findsRates: isOn });
    this.#server = world.relay(RELAY, { ipv4: "10.66.0.1" });
    world.pathOf = (_, to) => to === RELAY ? this.line : undefined;
    world.tap = (from, _, bytes) => from === RELAY && !this.backComes() ? undefined : bytes;
    for (let i = 0; i < tunnels; i++) {
      const address = `10.66.0.${i + 2}`;
      const client = world.client(`198.51.100.7:${5555 + i}`, this.#server, { ipv4: address, queues });
      client.send(udpPacket(address, FAR, new Uint8Array(20)));
      this.tunnels.push({ client, address, sender: new CubicSender(0), largest: -1, bytes: 0 });
    }
    world.runFor(2 * SECOND);
    for (const tunnel of this.tunnels) tunnel.sender = new CubicSender(world.nowUs);
    this.#gameUs = world.nowUs;
    this.#server.delivered.length = 0;
  }

  #packet(
    { address }: Tunnel,
    number: number,
    trafficClass: number,
    bytes: number,
    isGame: boolean,
  ): Uint8Array {
    const whole = udpPacket(address, FAR, new Uint8Array(bytes));
    const view = new DataView(whole.buffer);
    // Two flows of one tunnel.
    view.setUint16(20, isGame ? 7777 : 443);
    view.setUint32(28, number);
    view.setUint8(32, isGame ? 1 : 0);
    return marked(whole, trafficClass);
  }

  runFor(us: number): void {
    const { world, tunnels, games } = this, untilUs = world.nowUs + us;
    while (world.nowUs < untilUs) {
      world.runFor(MS);
      const { nowUs } = world;
      this.#receive();
      while (this.#acks.length > 0 && this.#acks[0].atUs <= nowUs) {
        const { tunnel, number } = this.#acks.shift()!;
        tunnel.sender.acked(number, number, nowUs);
        tunnel.largest = Math.max(tunnel.largest, number);
        tunnel.sender.settle(tunnel.largest, nowUs);
      }
      for (; this.#gameUs <= nowUs; this.#gameUs += GAME_US) {
        const packet = this.#packet(tunnels[0], games.length, this.gameClass, GAME_BYTES, true);
        games.push({ sentUs: nowUs, delayUs: Infinity });
        tunnels[0].client.sendBurst([packet], this.gameClass);
      }
      for (const tunnel of tunnels) {
        for (let number = tunnel.sender.next; tunnel.sender.take(nowUs); number = tunnel.sender.next) {
          tunnel.client.sendBurst([this.#packet(tunnel, number, CLASS_BULK, BULK_BYTES, false)], CLASS_BULK);
        }
      }
    }
  }

  #receive(): void {
    const { nowUs } = this.world;
    for (const got of this.#server.delivered.splice(0)) {
      const view = new DataView(got.buffer, got.byteOffset), number = view.getUint32(28);
      if (view.getUint8(32) === 1) {
        this.games[number].delayUs = nowUs - this.games[number].sentUs - DELAY_US;
        continue;
      }
      const tunnel = this.tunnels[view.getUint8(15) - 2];
      tunnel.bytes += got.length;
      this.#acks.push({ atUs: nowUs + DELAY_US, tunnel, number });
    }
  }

  /** What each tunnel's transfer gets in this time, bytes a second. */
  rates(us: number): number[] {
    const before = this.tunnels.map(({ bytes }) => bytes);
    this.runFor(us);
    return this.tunnels.map(({ bytes }, i) => (bytes - before[i]) / us * SECOND);
  }

  /** Shares of the game's packets since `fromUs` that were late by more than this, or never came. */
  late(fromUs: number, us: number): number {
    const since = this.games.filter(({ sentUs }) => sentUs >= fromUs && sentUs < this.world.nowUs - SECOND);
    return since.filter(({ delayUs }) => delayUs > us).length / since.length;
  }
}

const sum = (values: number[]) => values.reduce((all, one) => all + one, 0);
const jain = (rates: number[]) => sum(rates) ** 2 / (rates.length * sum(rates.map((rate) => rate * rate)));

Deno.test(`rate: two tunnels over one line share it, and a game waits for neither (seed ${SEED})`, () => {
  const home = new Home(2, true);
  home.runFor(10 * SECOND);
  const fromUs = home.world.nowUs;
  const rates = home.rates(30 * SECOND);
  console.log(
    rates.map(Math.round),
    jain(rates),
    home.late(fromUs, 15 * MS),
    home.late(fromUs, 30 * MS),
    home.late(fromUs, 50 * MS),
  );
  assertGreater(jain(rates), 0.9);
  assertGreater(sum(rates), 0.8 * RATE);
  assertLess(home.late(fromUs, 30 * MS), 0.05);
  const off = new Home(2, false);
  off.runFor(10 * SECOND);
  assertGreater(off.late(off.world.nowUs - 5 * SECOND, 30 * MS), 0.5, "the control");
});

Deno.test(`rate: half of the reports are lost, and the rate is found all the same (seed ${SEED})`, () => {
  const home = new Home(1, true);
  home.backComes = () => home.world.random.real() < 0.5;
  home.runFor(5 * SECOND);
  const fromUs = home.world.nowUs, [rate] = home.rates(10 * SECOND);
  assertGreater(rate, 0.75 * RATE);
  assertLess(home.late(fromUs, 20 * MS), 0.02);
});

Deno.test(`rate: while reports stay away, the rate stands, and is found again (seed ${SEED})`, () => {
  const home = new Home(1, true);
  home.runFor(5 * SECOND);
  home.backComes = () => false;
  const fromUs = home.world.nowUs, [silent] = home.rates(3 * SECOND);
  home.backComes = () => true;
  home.runFor(3 * SECOND);
  const after = home.rates(5 * SECOND)[0];
  assertGreater(silent, 0.6 * RATE);
  assertGreater(after, 0.75 * RATE);
  assertLess(home.late(fromUs, 20 * MS), 0.05);
});

Deno.test(`rate: unreported, a transfer sends a window and no more, and the game goes on (seed ${SEED})`, () => {
  const home = new Home(1, true);
  home.runFor(5 * SECOND);
  home.backComes = () => false;
  const { metrics } = home.tunnels[0].client, fromUs = home.world.nowUs, before = metrics.get("bytes_sent");
  home.runFor(400 * MS);
  const sent = metrics.get("bytes_sent") - before;
  assertLess(sent, 0.6 * 0.4 * RATE);
  assertGreater(sent, 10_000);
  home.backComes = () => true;
  home.runFor(2 * SECOND);
  assertLess(home.late(fromUs, 20 * MS), 0.05);
  assertGreater(home.rates(2 * SECOND)[0], 0.7 * RATE);
});

for (
  const [what, share, delayUs] of [["ten times slower", 0.1, 0], ["longer by 40 ms", 1, 40 * MS]] as const
) {
  Deno.test(`rate: a path that becomes ${what} has no standing queue for long (seed ${SEED})`, () => {
    const play = (isOn: boolean) => {
      const home = new Home(1, isOn, CLASS_GAME, RATE / share);
      home.runFor(5 * SECOND);
      home.line.bytesPerS *= share;
      home.line.delayUs += delayUs;
      const stepUs = home.world.nowUs;
      home.runFor(8 * SECOND);
      const late = home.games.filter(({ sentUs, delayUs: us }) =>
        sentUs >= stepUs && sentUs < home.world.nowUs - SECOND && us - delayUs > 20 * MS
      );
      const [rate] = home.rates(3 * SECOND);
      return { lateMs: late.length * GAME_US / MS, rate: rate / RATE };
    };
    const on = play(true), off = play(false);
    assertLess(on.lateMs, SECOND / MS);
    assertGreater(on.rate, 0.6);
    if (share < 1) assertGreater(off.lateMs, 2 * SECOND / MS, "the control");
  });
}

Deno.test(`rate: a game that is not known as one waits with the transfer (seed ${SEED})`, () => {
  const late = (trafficClass: number) => {
    const home = new Home(1, true, trafficClass);
    home.runFor(10 * SECOND);
    return home.late(home.world.nowUs - 6 * SECOND, 8 * MS);
  };
  assertLess(late(CLASS_GAME), 0.1);
  assertGreater(late(CLASS_BULK), 0.4, "the control: nothing tells it from the transfer");
});

Deno.test("rate: on slow lines that let a few packets through at once, a game waits for few packets", () => {
  for (const [bytesPerS, rttUs, mostMs] of [[250_000, 400, 16], [500_000, 20 * MS, 14]]) {
    const line = new LinePlay({
      bytesPerS,
      rttUs,
      transfers: 1,
      gameUs: GAME_US,
      isShaped: true,
      burstBytes: 5000,
    });
    const delaysUs: number[] = [];
    line.onGame = (us) => delaysUs.push(us);
    line.runFor(3 * SECOND);
    delaysUs.length = 0;
    const before = line.bytes;
    line.runFor(20 * SECOND);
    delaysUs.sort((a, b) => a - b);
    assertLess(delaysUs[Math.floor(0.99 * delaysUs.length)], mostMs * MS);
    assertGreater((line.bytes - before) / 20 / bytesPerS, 0.88);
  }
});

Deno.test(`rate: for an hour the rate stands near the line's, and the game's delay does not grow`, () => {
  const play = (isShaped: boolean, minutes: number) => {
    const bytesPerS = 250_000;
    const line = new LinePlay({ bytesPerS, rttUs: 30 * MS, transfers: 1, gameUs: 4 * GAME_US, isShaped });
    const shares: number[] = [], lates: number[] = [];
    let late = 0, games = 0;
    line.onGame = (delayUs) => {
      games++;
      late += delayUs > 30 * MS ? 1 : 0;
    };
    line.runFor(10 * SECOND);
    for (let minute = 0; minute < minutes; minute++) {
      const { bytes } = line;
      late = games = 0;
      line.runFor(60 * SECOND);
      shares.push((line.bytes - bytes) / 60 / bytesPerS);
      lates.push(late / games);
    }
    return { shares, lates };
  };
  const { shares, lates } = play(true, 60);
  assertGreater(Math.min(...shares), 0.8);
  assertLess(Math.max(...shares) - Math.min(...shares), 0.08);
  assertLess(Math.max(...lates), 0.02);
  assertGreater(Math.min(...play(false, 1).lates), 0.5, "the control");
});
