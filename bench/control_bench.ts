/**
 * What a peer that sends 1000 datagrams a second full of control frames costs a relay, and another peer of it: in real
 * time, behind a queue as long as a socket's buffer, with the portable kernels. Prints one line for each kind of frame.
 */
import { PortableShardKernel } from "../src/codec/gf256.ts";
import { DEFAULTS } from "../src/config.ts";
import { repairOptions } from "../src/repair/options.ts";
import { FEATURE_SLIDING_WINDOW } from "../src/wire/parameters.ts";
import { RawPeer } from "../tests/kit/raw_peer.ts";
import { udpPacket } from "../tests/kit/packets.ts";
import { World } from "../tests/kit/world.ts";

const SECONDS = 4, ATTACKS_PER_SECOND = 1000, PINGS_PER_SECOND = 100;
/** Datagrams of this size that Linux keeps for a socket by default. */
const QUEUE = 90;
const ATTACKER = "10.66.0.2", OTHER = "10.66.0.3";
const u16 = (n: number) => [n & 255, (n >> 8) & 255];
const control = (body: number[]) => [0x90 | (body.length >> 8), body.length & 255, ...body];

const FRAMES: Record<string, [count: number, body: (n: number) => number[]]> = {
  none: [0, () => []],
  hint: [61, (n) => [0x20, ...u16(n), 1, 17, 88, 2, 1, 2, 3, 4, 10, 66, 0, 2, 1, 2, n % 65, n % 65]],
  report: [
    30,
    (n) => [3, 4, 10, 0, 0, 0, 0, 0, 0, 0, n & 255, 0, 0, 0, 1, 255, 8, ...new Array(16).fill(n & 7)],
  ],
  ping: [64, (n) => [1, n & 255, 2, 3, 4]],
  challenge: [64, (n) => [4, n & 255, 2, 3, 4, 5, 6, 7, 8]],
};

function play(count: number, body: (n: number) => number[]): { pings: number; answered: number; us: number } {
  const world = new World(1);
  world.protocol = "oxtunnel";
  const repair = repairOptions(new PortableShardKernel(), DEFAULTS.repair);
  const relay = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1", repair });
  const attacker = new RawPeer(world, relay, "198.51.100.7:5555", ATTACKER);
  const other = new RawPeer(world, relay, "198.51.100.8:5555", OTHER);
  for (const [peer, ip] of [[attacker, ATTACKER], [other, OTHER]] as const) {
    peer.connect({ features: FEATURE_SLIDING_WINDOW, aeads: [1], connectionIds: [5, 6, 7] });
    peer.send(udpPacket(ip, "8.8.8.8", new Uint8Array(4)));
  }
  world.runFor(1e6);
  let n = 0;
  const seal = () => {
    const plaintext = new Uint8Array(1350);
    plaintext.set(Array.from({ length: count }, () => control(body(n++))).flat());
    return attacker.seal(plaintext);
  };
  const attacks = Array.from({ length: SECONDS * ATTACKS_PER_SECOND }, seal);
  const packets = Array.from(
    { length: SECONDS * PINGS_PER_SECOND },
    () => other.seal(udpPacket(OTHER, "8.8.8.8", new Uint8Array(4))),
  );
  relay.delivered.length = 0;
  const queue: [Uint8Array, string][] = [];
  const startMs = performance.now(), startUs = world.nowUs;
  let sent = 0, asked = 0, busyMs = 0;
  for (let ms = 0; ms < 1000 * SECONDS + 500; ms = performance.now() - startMs) {
    const put = (from: Uint8Array[], at: number, peer: RawPeer) => {
      if (queue.length < QUEUE) queue.push([from[at], peer.endpoint]);
    };
    for (; sent < Math.min(attacks.length, ms * ATTACKS_PER_SECOND / 1000); sent++) {
      put(attacks, sent, attacker);
    }
    for (; asked < Math.min(packets.length, ms * PINGS_PER_SECOND / 1000); asked++) {
      put(packets, asked, other);
    }
    world.nowUs = startUs + 1000 * ms;
    const beforeMs = performance.now();
    const next = queue.shift();
    if (next) relay.receive(...next);
    busyMs += performance.now() - beforeMs;
    attacker.heard.length = other.heard.length = 0;
  }
  return { pings: packets.length, answered: relay.delivered.length, us: 1000 * busyMs / attacks.length };
}

for (const [name, [count, body]] of Object.entries(FRAMES)) {
  const { pings, answered, us } = play(count, body);
  const share = (100 * answered / pings).toFixed(0);
  console.log(
    `${name.padEnd(10)} ${us.toFixed(0).padStart(5)} µs a datagram, another's packets ${share.padStart(3)} %`,
  );
}
