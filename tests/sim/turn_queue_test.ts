/**
 * Twenty transfers and a game through one Worker that carries a packet a microsecond while two come: the game's packets wait for
 * a part of a turn, and without the scheduler behind all that the kernel holds. The whole core, by the rounds of the real driver, on
 * a clock that each packet moves on. Both protocols, both directions.
 */
import { assertAlmostEquals, assertEquals, assertGreater, assertLess } from "@std/assert";
import { loadNative } from "../../ffi/native.ts";
import { Carrier, type Inner, type Outer } from "../../src/carry.ts";
import { suiteOf } from "../../src/codec/suite.ts";
import { figuresByClass } from "../../src/session/peer_record.ts";
import { CLASS_BULK, CLASS_DEFAULT, CLASS_GAME } from "../../src/control/traffic_class.ts";
import { DROP } from "../../src/metrics.ts";
import type { QueuesOptions } from "../../src/tunnel_options.ts";
import { Arena } from "../../src/vector/arena.ts";
import {
  Burst,
  BURST_CAPACITY,
  DONE,
  TO_EXIT,
  TO_PARSE,
  TO_TRANSMIT,
  TO_TUNNEL,
} from "../../src/vector/burst.ts";
import { queueOptions } from "../kit/queue_options.ts";
import { marked, splitEndpoint, udpPacket } from "../kit/packets.ts";
import { World } from "../kit/world.ts";

const { crypto } = suiteOf(loadNative(), { forged: DROP.forged });
const SEED = Number(Deno.env.get("SIM_SEED") ?? 1);
const CLIENT = "10.66.0.2", FAR = "8.8.8.8", RELAY = "192.0.2.1:4433", HOME = "198.51.100.7:5555";
const MS = 1000;
/** Of the microsecond that a packet costs, what it takes to come in; the rest is for its way on. */
const TAKE_US = 0.2, GIVE_US = 0.8;
/** Packets a microsecond that come. */
const LOAD = 2;
const RUN_US = 22 * MS;
/** What a device's ring or a socket's buffer holds: 30 MB. */
const FIFO_PACKETS = 30_000;
const TRANSFERS = 20, GAME_US = 300, GAME_BYTES = 40, BULK_BYTES = 1000;

const QUEUES = queueOptions({ packets: 4096 });

type Protocol = "oxtunnel" | "wireguard";

/** A queue of the kernel: what comes when it is full is lost. */
class Fifo {
  readonly #waiting: { bytes: Uint8Array; arrivedUs: number }[] = [];
  #first = 0;

  add(bytes: Uint8Array, arrivedUs: number): boolean {
    if (this.#waiting.length - this.#first >= FIFO_PACKETS) return false;
    this.#waiting.push({ bytes, arrivedUs });
    return true;
  }

  get isEmpty(): boolean {
    return this.#first === this.#waiting.length;
  }

  /** Fills the burst with what has come; returns the rows added. */
  take(burst: Burst, nowUs: number, step: number): number {
    const { address, port } = splitEndpoint(HOME);
    let rows = 0;
    for (; burst.count < BURST_CAPACITY && this.#first < this.#waiting.length; rows++, this.#first++) {
      const { bytes, arrivedUs } = this.#waiting[this.#first];
      if (arrivedUs > nowUs) break;
      const row = burst.grow(bytes.length, step);
      if (row < 0) break;
      burst.bytes.set(bytes, burst.offset[row]);
      burst.address.set(address, 4 * row);
      burst.port[row] = port;
    }
    return rows;
  }
}

/** The packets that come: transfers in turn, in runs as a segmented super-packet brings them, and the game's at its times. */
function* arrivals(isUp: boolean, gameClass: number, bulkClass: number) {
  const [from, to] = isUp ? [CLIENT, FAR] : [FAR, CLIENT];
  const packet = (bytes: number, port: number, trafficClass: number, number: number) => {
    const whole = marked(udpPacket(from, to, new Uint8Array(bytes)), trafficClass);
    const view = new DataView(whole.buffer);
    view.setUint16(22, port);
    view.setUint32(28, number);
    return whole;
  };
  let games = 0;
  for (let i = 0; i < RUN_US * LOAD; i++) {
    const atUs = i / LOAD;
    if (atUs >= games * GAME_US) {
      yield { atUs, game: games, bytes: packet(GAME_BYTES, 27_015, gameClass, games++) };
    }
    yield { atUs, game: -1, bytes: packet(BULK_BYTES, 5000 + Math.floor(i / 40) % TRANSFERS, bulkClass, i) };
  }
}

/** A client in a session with a relay, both with the kernels that serve. */
function joined(protocol: Protocol, queues: QueuesOptions | undefined) {
  const world = new World(SEED);
  world.protocol = protocol;
  const server = world.relay(RELAY, {
    ...crypto,
    ipv4: "10.66.0.1",
    queues,
    arena: new Arena(16_384),
    batchWaitUs: -1,
  });
  const client = world.client(HOME, server, { ...crypto, ipv4: CLIENT });
  client.send(udpPacket(CLIENT, FAR, new Uint8Array(20)));
  world.runFor(2_000_000);
  return { world, server, client };
}

/** Notes a transfer's packet, whose number is above that of its flow's last one. */
function noteOrder(last: Map<number, number>, { view, offset }: Burst, row: number) {
  const port = view.getUint16(offset[row] + 22), number = view.getUint32(offset[row] + 28);
  assertGreater(number, last.get(port) ?? -1, "a flow's packets leave in their order");
  last.set(port, number);
}

/** The waits of the game's packets, ascending, microseconds; those that were lost wait for ever. */
function play(
  protocol: Protocol,
  direction: "up" | "down",
  queues: QueuesOptions | undefined,
  gameClass: number,
  bulkClass: number,
) {
  const isUp = direction === "up";
  const { world, server, client } = joined(protocol, queues);
  const startUs = world.nowUs, fifo = new Fifo(), sentUs: number[] = [], wait: number[] = [];
  const last = new Map<number, number>();
  let nowUs = startUs, bulk = 0;
  const spend = (rows: number, us: number) => {
    nowUs += rows * us;
    return rows;
  };
  /** What leaves costs time, and a packet of the game has waited until then. */
  const give = (burst: Burst, step: number, isGame: (length: number) => boolean) => {
    for (let row = 0; row < burst.count; row++) {
      if (burst.next[row] !== step) continue;
      burst.next[row] = DONE;
      nowUs += GIVE_US;
      if (isGame(burst.length[row])) wait.push(nowUs - sentUs[wait.length]);
      else if (isUp) {
        bulk++;
        noteOrder(last, burst, row);
      }
    }
  };
  const port: Outer = {
    receive: (burst) => isUp ? spend(fifo.take(burst, nowUs, TO_PARSE), TAKE_US) : 0,
    transmit: (burst) => give(burst, TO_TRANSMIT, (length) => !isUp && length > 60 && length < 200),
  };
  const exit: Inner = {
    receive: (burst) => isUp ? 0 : spend(fifo.take(burst, nowUs, TO_TUNNEL), TAKE_US),
    send: (burst) => give(burst, TO_EXIT, (length) => length < 200),
  };
  const carrier = new Carrier(server.arena, server.core, port, exit, server.metrics);

  let sealed: Uint8Array | undefined;
  if (isUp) {
    world.tap = (_, to, bytes) => {
      if (to === RELAY) sealed = bytes.slice();
      return undefined;
    };
  }
  const coming = arrivals(isUp, gameClass, bulkClass);
  let next = coming.next();
  const arriveUntil = (us: number) => {
    for (; !next.done && startUs + next.value.atUs <= us; next = coming.next()) {
      let { bytes } = next.value;
      if (isUp) {
        client.send(bytes);
        bytes = sealed!;
      }
      const arrivedUs = startUs + next.value.atUs;
      if (fifo.add(bytes, arrivedUs) && next.value.game >= 0) sentUs.push(arrivedUs);
    }
  };
  while (!next.done || wait.length < sentUs.length && !fifo.isEmpty) {
    arriveUntil(nowUs);
    if (!carrier.round(nowUs, () => nowUs, true, true)) nowUs += 1;
    carrier.sendDue(nowUs);
  }
  carrier.flush(nowUs);
  return { waits: wait.sort((a, b) => a - b), games: sentUs.length, bulk };
}

const at = (sorted: number[], share: number) => sorted[Math.ceil(share * sorted.length) - 1];

for (const protocol of ["oxtunnel", "wireguard"] as const) {
  for (const direction of ["up", "down"] as const) {
    Deno.test(`turn queue: a game among twenty transfers ${direction} through a busy Worker, ${protocol} (seed ${SEED})`, () => {
      const on = play(protocol, direction, QUEUES, CLASS_GAME, CLASS_BULK);
      assertGreater(on.waits.length, 60);
      assertEquals(on.waits.length, on.games, "none of the game's packets is lost");
      assertLess(at(on.waits, 0.99), 1 * MS);
      if (direction === "up") {
        assertGreater(on.bulk, 0.6 * RUN_US, "most of the time goes into packets that leave");
      }
      const off = play(protocol, direction, undefined, CLASS_GAME, CLASS_BULK);
      assertGreater(at(off.waits, 0.99), 20 * MS, "the control: without it the game waits behind all");
    });
  }
}

Deno.test(`turn queue: a flow of few packets is served first though nothing is known of any (seed ${SEED})`, () => {
  const on = play("oxtunnel", "down", QUEUES, CLASS_DEFAULT, CLASS_DEFAULT);
  assertEquals(on.waits.length, on.games);
  assertLess(at(on.waits, 0.99), 1 * MS);
});

/** Bytes that three peers are sent in RUN_US, who are offered the same in turns of 240 packets, by the rates of their records. */
function shared(rates: readonly number[], turnUs: number): number[] {
  const world = new World(SEED);
  const server = world.relay(RELAY, {
    ...crypto,
    ipv4: "10.66.0.1",
    queues: QUEUES,
    arena: new Arena(16_384),
    batchWaitUs: -1,
  });
  const addresses = rates.map((_, i) => `10.66.0.${i}`);
  const records = rates.map((rateDownBps, i) => {
    const client = world.client(`198.51.100.${i}:5555`, server, { ...crypto, ipv4: addresses[i] });
    client.send(udpPacket(addresses[i], FAR, new Uint8Array(20)));
    const { publicKey } = client;
    return { name: `p${i}`, publicKey, allowedIps: [`${addresses[i]}/32`], created: "", rateDownBps };
  });
  world.runFor(2_000_000);
  let nowUs = world.nowUs, number = 0;
  server.core.changePeers(records, [], nowUs);
  const bytes = rates.map(() => 0);
  const port: Outer = {
    receive: () => 0,
    transmit({ count, next, length, address }) {
      for (let row = 0; row < count; row++) {
        if (next[row] !== TO_TRANSMIT) continue;
        next[row] = DONE;
        bytes[address[4 * row + 3] & 0xff] += length[row];
      }
    },
  };
  const exit: Inner = {
    receive(burst) {
      while (burst.count < 240) {
        const packet = udpPacket(FAR, addresses[number++ % addresses.length], new Uint8Array(BULK_BYTES));
        const row = burst.grow(packet.length, TO_TUNNEL);
        if (row < 0) break;
        burst.bytes.set(packet, burst.offset[row]);
      }
      return burst.count;
    },
    send: () => {},
  };
  const carrier = new Carrier(server.arena, server.core, port, exit, server.metrics);
  for (const untilUs = nowUs + RUN_US; nowUs < untilUs; nowUs += turnUs) {
    carrier.round(nowUs, () => nowUs, false, true);
    carrier.sendDue(nowUs);
  }
  return bytes;
}

Deno.test(`turn queue: a peer's rate bounds its first packets too, whatever waits for others (seed ${SEED})`, () => {
  const [bounded, other] = shared([10e6, 0, 0], 100);
  assertLess(bounded, 1.2 * RUN_US * 10 / 8);
  assertGreater(bounded, 0.8 * RUN_US * 10 / 8);
  assertGreater(other, 10 * bounded);
});

Deno.test(`turn queue: peers with fast lines leave a share to one without (seed ${SEED})`, () => {
  const [first, , without] = shared([500e6, 500e6, 0], 3 * MS);
  assertGreater(first, 0);
  assertGreater(without, first / 4);
});

/** A small packet of the class, between the client and far away. */
function small(isUp: boolean, trafficClass: number, port: number): Uint8Array {
  const [from, to] = isUp ? [CLIENT, FAR] : [FAR, CLIENT];
  const whole = marked(udpPacket(from, to, new Uint8Array(GAME_BYTES)), trafficClass);
  new DataView(whole.buffer).setUint16(22, port);
  return whole;
}

function fill(burst: Burst, packets: readonly Uint8Array[], step: number): void {
  const { address, port } = splitEndpoint(HOME);
  for (const bytes of packets) {
    const row = burst.grow(bytes.length, step);
    burst.bytes.set(bytes, burst.offset[row]);
    burst.address.set(address, 4 * row);
    burst.port[row] = port;
  }
}

const sum = (counts: readonly number[]) => counts.reduce((all, count) => all + count, 0);
const near = (ms: number, wantedMs: number) =>
  assertAlmostEquals(ms, wantedMs, Math.max(0.002, wantedMs / 4));

for (const protocol of ["oxtunnel", "wireguard"] as const) {
  Deno.test(`turn queue: waits of each class are told as they were, both ways, of the peer and of all (${protocol}, seed ${SEED})`, () => {
    const { world, server, client } = joined(protocol, QUEUES);
    const { core } = server, burst = new Burst(server.arena), startUs = world.nowUs;
    const game = (isUp: boolean) => small(isUp, CLASS_GAME, 27_015);
    const repeat = (times: number, make: (i: number) => Uint8Array) =>
      Array.from({ length: times }, (_, i) => make(i));
    const before = core.queueDelays().map(sum), metricsBefore = server.metrics.waits("game");

    // Down: 20 of a game and 180 of transfers at once, of which 128 go on after 3 ms and the others after 9; then 160 that need not wait.
    fill(burst, [
      ...repeat(180, (i) => small(false, CLASS_BULK, 5000 + i % 4)),
      ...repeat(20, () => game(false)),
    ], TO_TUNNEL);
    core.ingestInner(burst, startUs);
    burst.release();
    for (const [rows, atUs] of [[128, 3 * MS], [72, 9 * MS]] as const) {
      assertEquals(core.serveTunnel(burst, startUs + atUs), rows);
      burst.release();
    }
    for (let i = 0; i < 10; i++) {
      fill(burst, repeat(16, () => game(false)), TO_TUNNEL);
      core.ingestInner(burst, startUs + 10 * MS);
      burst.release();
    }
    const [{ line }] = core.peerSnapshots(startUs + 10 * MS);
    const isRead = protocol === "oxtunnel"; // WireGuard's packets that need not wait have no class
    for (const figures of [line!.waits, figuresByClass(core.queueDelays())]) {
      near(figures.bulk!.p50Ms, 3);
      near(figures.bulk!.p99Ms, 9);
      near(figures.game!.p50Ms, isRead ? 0 : 3);
      near(figures.game!.p99Ms, 3);
      if (!isRead) near(figures.default!.p99Ms, 0);
    }

    // Up: 200 of a game, after 5 ms, and 10 that need not wait; these are no waits for the line to the peer.
    const datagrams: Uint8Array[] = [];
    world.tap = (from, _, bytes) => {
      if (from === HOME) datagrams.push(bytes);
      return undefined;
    };
    for (let i = 0; i < 210; i++) client.sendBurst([game(true)]);
    fill(burst, datagrams.splice(0, 200), TO_PARSE);
    core.ingest(burst, startUs + 20 * MS);
    burst.release();
    assertEquals(core.serveExit(burst, startUs + 25 * MS), 200);
    burst.release();
    fill(burst, datagrams, TO_PARSE);
    core.ingest(burst, startUs + 25 * MS);
    burst.release();
    near(figuresByClass(core.queueDelays()).game!.p99Ms, 5);
    near(core.peerSnapshots(startUs + 25 * MS)[0].line!.waits.game!.p99Ms, 3);
    const counted = core.queueDelays().map((counts, i) => sum(counts) - before[i]);
    assertEquals(counted, isRead ? [0, 390, 0, 0, 180] : [170, 220, 0, 0, 180]);
    const { packets, totalUs } = server.metrics.waits("game");
    assertEquals(sum(packets) - sum(metricsBefore.packets), counted[CLASS_GAME]);
    assertEquals(totalUs, 20 * 3 * MS + 200 * 5 * MS);
  });
}
