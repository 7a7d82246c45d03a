/**
 * A transfer beside a game or a call, in the same tunnel and so in the same queues: a greedy flow of 1400-byte packets from relay to
 * client whose window grows and halves as Reno's does (RFC 5681): slow start, one packet more each round trip, half of it at most
 * once a round trip when three later packets have been acknowledged, and a new start after a silent time-out. It is no TCP:
 * each packet is acknowledged by one of 52 bytes, what is lost is not sent again but counts as not delivered, and the window ends at
 * 64 packets. Turns once a millisecond.
 */
import { CLASS_BULK } from "../../src/control/traffic_class.ts";
import type { Host } from "../../tests/kit/world.ts";
import { udpPacket } from "../../tests/kit/packets.ts";

const PACKET_BYTES = 1400, ACK_BYTES = 52, IP_UDP_BYTES = 28;
/** What the tunnel and UDP/IP put around a packet: header, tag, outer IPv4 and UDP. */
const OUTER_BYTES = 6 + 16 + 28;
const WINDOW_MAX = 64, WINDOW_FIRST = 10;
const DUPLICATES = 3;
const TIMEOUT_US = 500_000;

export class Bulk {
  /** Bytes on the wire that its packets are, repairs not counted: data down, acknowledgements up. */
  bytesDown = 0;
  bytesUp = 0;
  packetsDelivered = 0;
  #window = WINDOW_FIRST;
  #threshold = WINDOW_MAX;
  #next = 0;
  /** Numbers on their way, ascending. */
  #flying: number[] = [];
  /** No further halving for losses of packets below this number. */
  #halvedTo = 0;
  #heardUs = 0;
  // Came since the last turn: data at the client, acknowledgements at the relay.
  #data: number[] = [];
  #acks: number[] = [];

  constructor(
    readonly client: Host,
    readonly server: Host,
    readonly clientAddress: string,
    readonly remoteAddress: string,
  ) {}

  dataCame(number: number): void {
    this.#data.push(number);
    this.packetsDelivered++;
  }

  ackCame(number: number): void {
    this.#acks.push(number);
  }

  turn(nowUs: number): void {
    for (const number of this.#acks) this.#acknowledged(number, nowUs);
    this.#acks.length = 0;
    if (this.#flying.length > 0 && nowUs - this.#heardUs > TIMEOUT_US) {
      this.#threshold = Math.max(2, this.#window / 2);
      this.#window = 1;
      this.#flying.length = 0;
      this.#halvedTo = this.#next;
    }
    if (this.#flying.length === 0) this.#heardUs = nowUs;
    const packets: Uint8Array[] = [];
    while (this.#flying.length < Math.floor(this.#window)) {
      this.#flying.push(this.#next);
      packets.push(numbered(this.remoteAddress, this.clientAddress, PACKET_BYTES, this.#next++));
      this.bytesDown += PACKET_BYTES + OUTER_BYTES;
    }
    if (packets.length > 0) this.server.sendBurst(packets, CLASS_BULK);
    const acks = this.#data.map((number) =>
      numbered(this.clientAddress, this.remoteAddress, ACK_BYTES, number)
    );
    this.#data.length = 0;
    this.bytesUp += acks.length * (ACK_BYTES + OUTER_BYTES);
    if (acks.length > 0) this.client.sendBurst(acks, CLASS_BULK);
  }

  #acknowledged(number: number, nowUs: number): void {
    const place = this.#flying.indexOf(number);
    if (place < 0) return;
    this.#heardUs = nowUs;
    this.#flying.splice(place, 1);
    this.#window = Math.min(
      WINDOW_MAX,
      this.#window + (this.#window < this.#threshold ? 1 : 1 / this.#window),
    );
    while (this.#flying.length > 0 && this.#flying[0] < number - DUPLICATES) {
      if (this.#flying.shift()! < this.#halvedTo) continue;
      this.#window = this.#threshold = Math.max(2, this.#window / 2);
      this.#halvedTo = this.#next;
    }
  }
}

function numbered(source: string, destination: string, packetBytes: number, number: number): Uint8Array {
  const payload = new Uint8Array(packetBytes - IP_UDP_BYTES);
  new DataView(payload.buffer).setUint32(0, number);
  return udpPacket(source, destination, payload);
}
