/**
 * One suite for every port: bursts that each kind sends arrive at each kind, over loopback. Held: each destination gets
 * exactly what was sent to it, in the order of the rows and from the sender's address, whatever else the burst carries;
 * slots come back; and what is refused harms nothing beside it. Without the native library its ports are skipped aloud.
 */
import { assert, assertEquals, assertLess, assertThrows } from "@std/assert";
import { libc, POLLIN } from "../../ffi/mod.ts";
import { loadNative } from "../../ffi/native.ts";
import { MmsgPort } from "../../src/io/mmsg.ts";
import type { NativePort } from "../../src/io/native_udp.ts";
import type { Port } from "../../src/io/port.ts";
import { UdpPort } from "../../src/io/udp.ts";
import { uringObstacle, UringPort } from "../../src/io/uring.ts";
import { Arena, MAX_PACKET_BYTES } from "../../src/vector/arena.ts";
import { Burst, BURST_CAPACITY, DONE, HELD, TO_EXIT, TO_PARSE, TO_TRANSMIT } from "../../src/vector/burst.ts";
import { formatAddress, parseAddress } from "../../src/wire/address.ts";
import { Random } from "../kit/random.ts";

const SEED = Number(Deno.env.get("FUZZ_SEED") ?? 20260101);
const SLOTS = 1024;
const RECEIVERS = 9;
const PATIENCE_MS = 3000;
/** What Linux counts for a datagram in a receive buffer, cut from a run or not, at most. The smallest buffer has 208 KB. */
const bufferBytes = (length: number) => length < 150 ? 900 : 256 + 2 ** Math.ceil(Math.log2(length + 512));
const BUFFER_BYTES_MAX = 200_000;

type Refuse = (datagrams: number) => void;

interface Kind {
  name: string;
  isNative: boolean;
  keepsOrder: boolean;
  open(host: string, port: number, arena: Arena, onRefused: Refuse): Port;
}

const KINDS: Kind[] = [{
  name: "portable",
  isNative: false,
  // Deno sends what had to wait for room in the socket's buffer in no certain order.
  keepsOrder: false,
  open: (host, port, arena, onRefused) => new UdpPort({ host, port, arena, onDrop: () => onRefused(1) }),
}];
const native = loadNative();
if (typeof native !== "string") {
  for (const offload of [true, false]) {
    KINDS.push({
      name: offload ? "mmsg" : "mmsg without offloads",
      isNative: true,
      keepsOrder: true,
      open: (host, port, _arena, onRefused) => new MmsgPort({ native, host, port, offload, onRefused }),
    });
  }
  const obstacle = uringObstacle(native);
  if (obstacle) {
    console.error(`SKIPPED tests/differential/ports_test.ts, io_uring: ${obstacle}`);
  } else {
    for (
      const [name, offload, deferred] of [
        ["io_uring", true, true],
        ["io_uring without offloads", false, true],
        ["io_uring undeferred", true, false],
      ] as const
    ) {
      KINDS.push({
        name,
        isNative: true,
        keepsOrder: true,
        open: (host, port, _arena, onRefused) =>
          new UringPort({ native, host, port, offload, deferred, onRefused }),
      });
    }
  }
} else {
  console.error(`SKIPPED tests/differential/ports_test.ts, native ports: ${native}`);
  if (Deno.env.get("CI") === "true" && Deno.build.target === "x86_64-unknown-linux-gnu") {
    Deno.test("ports: the native library loads", () => {
      throw new Error(native);
    });
  }
}

interface Arrival {
  content: Uint8Array;
  /** Address and port. */
  from: string;
  ecn: number;
}

/** A port with its arena and a burst. */
class Side {
  readonly arena = new Arena(SLOTS);
  readonly burst = new Burst(this.arena);
  readonly port: Port;
  readonly host: string;
  refused = 0;

  constructor(kind: Kind, host: string, port: number) {
    this.host = host;
    this.port = kind.open(host, port, this.arena, (datagrams) => this.refused += datagrams);
  }

  /** Adds a datagram to the burst. */
  address(host: string, port: number, content: Uint8Array, ecn = 0): void {
    const { burst } = this;
    const row = burst.grow(content.length, TO_TRANSMIT);
    burst.bytes.set(content, burst.offset[row]);
    burst.address.set(parseAddress(host)!, 4 * row);
    burst.port[row] = port;
    burst.ecn[row] = ecn;
  }

  /** Sends the burst; the port must have done with its own rows and let others be. */
  transmit(): void {
    const { burst } = this;
    const before = burst.next.slice(0, burst.count);
    this.port.transmit(burst);
    before.forEach((step, row) => {
      const next = burst.next[row];
      assert(step === TO_TRANSMIT ? next === DONE || next === HELD : next === step, `row ${row}: ${next}`);
    });
    burst.release();
  }

  /** What has arrived once there are `count` datagrams, or patience ends. */
  async receive(count: number): Promise<Arrival[]> {
    const { burst, port } = this;
    const arrivals: Arrival[] = [];
    for (const endMs = performance.now() + PATIENCE_MS; performance.now() < endMs;) {
      assertEquals(port.receive(burst), burst.count);
      for (let row = 0; row < burst.count; row++) {
        assertEquals(burst.next[row], TO_PARSE);
        const at = burst.offset[row];
        arrivals.push({
          content: burst.bytes.slice(at, at + burst.length[row]),
          from: `${formatAddress(burst.address, 4 * row)} ${burst.port[row]}`,
          ecn: burst.ecn[row],
        });
      }
      burst.release();
      if (arrivals.length >= count) break;
      await delay();
    }
    return arrivals;
  }
}

/** Descriptors that this process has open, and pages of 4 KB that it has mapped. */
function held(): number[] {
  const script = `ls /proc/${Deno.pid}/fd | wc -l; cut -d " " -f 1 /proc/${Deno.pid}/statm`;
  const { stdout } = new Deno.Command("bash", { args: ["-c", script] }).outputSync();
  return new TextDecoder().decode(stdout).trim().split("\n").map(Number);
}

const delay = () => new Promise((resolve) => setTimeout(resolve, 1));

/** Fails unless exactly these contents arrived, in this order if the sender keeps it; says by its place what did. */
function assertArrived(arrivals: Arrival[], contents: Uint8Array[], { keepsOrder }: Kind): void {
  const places = new Map(contents.map((content, place) => [content.toString(), place]));
  const arrived = arrivals.map(({ content }) => places.get(content.toString()) ?? NaN);
  const expected = contents.map((content) => places.get(content.toString())!);
  if (!keepsOrder) [arrived, expected].forEach((list) => list.sort((a, b) => a - b));
  assertEquals(arrived, expected);
}

type Open = (kind: Kind, host: string, port?: number) => Side;

/** A test over sides that are closed at its end, when every slot must have come back. */
function portsTest(name: string, run: (open: Open) => Promise<void>): void {
  Deno.test(`ports: ${name}`, async () => {
    const sides: Side[] = [];
    try {
      await run((kind, host, port = 0) => {
        const side = new Side(kind, host, port);
        sides.push(side);
        return side;
      });
    } finally {
      for (const { port } of sides) await port.close();
    }
    for (const { arena } of sides) {
      for (let turn = 0; turn < 1000 && arena.free < SLOTS; turn++) await delay();
      assertEquals(arena.free, SLOTS);
    }
  });
}

const random = new Random(SEED);
const below = (limit: number) => random.u32() % limit;
const pick = <T>(from: readonly T[]) => from[below(from.length)];

function randomBytes(length: number): Uint8Array {
  const content = new Uint8Array(length);
  random.fill(content);
  return content;
}

/** Lengths of one burst: all alike, or with shorter ones between them, or anything. */
function randomLengths(rows: number): number[] {
  const most = 1 + below(pick([64, 400, MAX_PACKET_BYTES]));
  const isShorter = pick([() => false, () => below(5) === 0, () => true]);
  return Array.from({ length: rows }, () => isShorter() ? 1 + below(most) : most);
}

/** Random bursts, from one port to several, arrive as they were sent. */
async function carriesBursts(
  sender: Side,
  receivers: Side[],
  kind: Kind,
  rowsOfBursts: number[],
): Promise<void> {
  for (const rows of rowsOfBursts) {
    const among = receivers.slice(0, 1 + below(receivers.length));
    const sent = new Map(receivers.map((receiver) => [receiver, [] as Uint8Array[]]));
    const buffered = new Map<Side, number>();
    for (const length of randomLengths(rows)) {
      const receiver = pick(among);
      const bytes = (buffered.get(receiver) ?? 0) + bufferBytes(length);
      if (bytes > BUFFER_BYTES_MAX) continue;
      buffered.set(receiver, bytes);
      const content = randomBytes(length);
      sent.get(receiver)!.push(content);
      sender.address(receiver.host, receiver.port.localPort, content);
      if (below(40) === 0) sender.burst.grow(length, TO_EXIT); // somebody else's row
      if (sender.burst.count === BURST_CAPACITY) break;
    }
    sender.transmit();
    for (const [receiver, contents] of sent) {
      const arrivals = await receiver.receive(contents.length);
      assertArrived(arrivals, contents, kind);
      for (const arrival of arrivals) assertEquals(arrival.from, `${sender.host} ${sender.port.localPort}`);
    }
  }
  for (const { refused } of [sender, ...receivers]) assertEquals(refused, 0);
}

for (const from of KINDS) {
  for (const to of KINDS) {
    for (const host of ["127.0.0.1", "::1"]) {
      portsTest(
        `${from.name} to ${to.name} over ${host}: every burst arrives whole and in order`,
        async (open) => {
          const receivers = Array.from({ length: RECEIVERS }, () => open(to, host));
          const rows = [1, 2, 63, 64, 65, 255, 256, 256, 256, 1 + below(256), 1 + below(256)];
          await carriesBursts(open(from, host), receivers, from, rows);
        },
      );
    }
  }
}

for (const kind of KINDS) {
  portsTest(`${kind.name}: one bound to :: serves both families`, async (open) => {
    const both = open(kind, "::");
    for (const host of ["127.0.0.1", "::1"]) {
      const peer = open(kind, host);
      peer.address(host, both.port.localPort, randomBytes(100));
      peer.transmit();
      const [asked] = await both.receive(1);
      assertEquals(asked.from, `${host} ${peer.port.localPort}`);
      for (let i = 0; i < 3; i++) both.address(host, peer.port.localPort, randomBytes(100));
      both.transmit();
      assertEquals((await peer.receive(3)).length, 3);
    }
  });

  portsTest(
    `${kind.name}: a datagram that fits no slot is refused and counted, and the next arrives`,
    async (open) => {
      const receiver = open(kind, "127.0.0.1");
      const socket = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
      const { localPort } = receiver.port;
      for (const length of [MAX_PACKET_BYTES + 1, 9000, 60_000, MAX_PACKET_BYTES]) {
        await socket.send(new Uint8Array(length), {
          transport: "udp",
          hostname: "127.0.0.1",
          port: localPort,
        });
      }
      socket.close();
      const arrivals = await receiver.receive(1);
      assertEquals(arrivals.map(({ content }) => content.length), [MAX_PACKET_BYTES]);
      receiver.transmit(); // counts are told when a turn ends
      assertEquals(receiver.refused, 3);
    },
  );

  portsTest(
    `${kind.name}: a destination that the system refuses costs its own datagrams only`,
    async (open) => {
      const sender = open(kind, "127.0.0.1"), receiver = open(kind, "127.0.0.1");
      const good = receiver.port.localPort;
      for (let turn = 0; turn < 3; turn++) {
        const contents = Array.from({ length: 60 }, () => randomBytes(200));
        for (const [i, content] of contents.entries()) {
          sender.address("127.0.0.1", good, content);
          if (i % 2 === 0) sender.address("127.0.0.1", 0, content); // no port, EINVAL
          if (i % 6 === 0) sender.address("255.255.255.255", good, content); // not asked for, EACCES
        }
        sender.transmit();
        const arrivals = await receiver.receive(contents.length);
        assertArrived(arrivals, contents, kind);
      }
      for (let turn = 0; turn < 100 && sender.refused < 120; turn++) await delay();
      assertEquals(sender.refused, 120);
    },
  );

  portsTest(`${kind.name}: datagrams for a port that nobody has bound do not stop it`, async (open) => {
    const sender = open(kind, "127.0.0.1"), receiver = open(kind, "127.0.0.1");
    const gone = open(kind, "127.0.0.1");
    await gone.port.close();
    for (let turn = 0; turn < 5; turn++) {
      for (let i = 0; i < 10; i++) {
        sender.address("127.0.0.1", gone.port.localPort, randomBytes(50));
        sender.address("127.0.0.1", receiver.port.localPort, randomBytes(50));
      }
      sender.transmit();
      assertEquals((await receiver.receive(10)).length, 10);
      receiver.address("127.0.0.1", sender.port.localPort, randomBytes(50));
      receiver.transmit();
      assertEquals((await sender.receive(1)).length, 1);
    }
  });

  portsTest(`${kind.name}: it wakes who waits, and again after everything was taken`, async (open) => {
    const sender = open(kind, "127.0.0.1"), receiver = open(kind, "127.0.0.1");
    let woken: () => void = () => {};
    receiver.port.onReadable(() => woken());
    for (let turn = 0; turn < 5; turn++) {
      const wake = new Promise<void>((resolve) => woken = resolve);
      sender.address("127.0.0.1", receiver.port.localPort, randomBytes(10));
      sender.transmit();
      await wake;
      assertEquals((await receiver.receive(1)).length, 1);
      assertEquals(receiver.port.receive(receiver.burst), 0);
    }
  });

  portsTest(`${kind.name}: a port that is taken is refused by name`, (open) => {
    const { port } = open(kind, "127.0.0.1");
    assertThrows(() => open(kind, "127.0.0.1", port.localPort), Deno.errors.AddrInUse);
    return Promise.resolve();
  });

  if (!kind.isNative) continue;

  portsTest(`${kind.name}: what polls its descriptor is woken`, async (open) => {
    const sender = open(kind, "127.0.0.1"), receiver = open(kind, "127.0.0.1");
    const entry = new Uint8Array(8);
    const view = new DataView(entry.buffer);
    view.setInt32(0, (receiver.port as NativePort).descriptor, true);
    for (let turn = 0; turn < 7; turn++) {
      view.setInt32(4, POLLIN, true);
      const ready = libc().poll(entry, 1n, 60_000);
      await new Promise((resolve) => setTimeout(resolve, 20));
      sender.address("127.0.0.1", receiver.port.localPort, randomBytes(10));
      sender.transmit();
      assertEquals(await ready, 1);
      assertEquals((await receiver.receive(1)).length, 1);
    }
  });

  portsTest(`${kind.name}: more single datagrams than it has buffers wait, in order`, async (open) => {
    const sender = open(KINDS.find(({ name }) => name === "mmsg without offloads")!, "127.0.0.1");
    const receiver = open(kind, "127.0.0.1");
    for (let turn = 0; turn < 3; turn++) {
      const contents = Array.from({ length: 700 }, () => randomBytes(40));
      for (const [i, content] of contents.entries()) {
        sender.address("127.0.0.1", receiver.port.localPort, content);
        if (i % 200 === 199 || i === contents.length - 1) sender.transmit();
      }
      assertArrived(await receiver.receive(contents.length), contents, kind);
    }
    assertEquals(receiver.refused, 0);
  });

  for (const boundTo of ["::", "0.0.0.0"]) {
    portsTest(
      `${kind.name}: bound to ${boundTo}, it tells what address was asked, and answers from there`,
      async (open) => {
        const asked = open(kind, boundTo);
        const { burst, port } = asked;
        const own = ["127.0.0.7", "127.0.0.8", ...(boundTo === "::" ? ["::1"] : [])];
        for (const family of ["127.0.0.1", "::1"]) {
          const hosts = own.filter((host) => host.includes(":") === family.includes(":"));
          if (hosts.length === 0) continue;
          const peer = open(kind, family);
          for (const host of hosts) {
            peer.address(host, port.localPort, randomBytes(20));
            peer.transmit();
            for (let turn = 0; turn < 1000 && port.receive(burst) === 0; turn++) await delay();
            assertEquals([burst.count, formatAddress(burst.local, 0)], [1, host]);
            burst.release();
          }
          // In turn, so that runs of one destination have to be parted by their source.
          const froms = Array.from({ length: 60 }, (_, i) => hosts[i % hosts.length]);
          for (const host of froms) {
            asked.address(family, peer.port.localPort, randomBytes(100));
            burst.local.set(parseAddress(host)!, 4 * (burst.count - 1));
          }
          asked.transmit();
          const seen = (await peer.receive(froms.length)).map(({ from }) => from).sort();
          assertEquals(seen, froms.map((host) => `${host} ${port.localPort}`).sort());
        }
        assertEquals(asked.refused, 0);
      },
    );
  }

  Deno.test(`ports: ${kind.name}: closing amid traffic gives back port, descriptors and memory`, async () => {
    const sender = new Side(kind, "127.0.0.1", 0);
    let localPort = 0;
    const looks: number[][] = [];
    for (let turn = 0; turn <= 420; turn++) {
      // What the first turns leave to be collected is not what a port leaves behind.
      if (turn % 50 === 20) looks.push(held());
      const receiver = new Side(kind, "127.0.0.1", localPort);
      localPort = receiver.port.localPort;
      for (let i = 0; i < 50; i++) sender.address("127.0.0.1", localPort, randomBytes(1000));
      sender.transmit();
      if (turn % 2 === 0) receiver.port.receive(receiver.burst);
      receiver.burst.release();
      await receiver.port.close();
    }
    await sender.port.close();
    assertLess(looks.at(-1)![0], looks[0][0] + 5);
    // The smallest buffers of 50 ports would be twice as much, between any two looks; what V8 and the allocator map comes at times.
    const grown = looks.slice(1).map(([, pages], i) => pages - looks[i][1]);
    assertLess(Math.min(...grown), 3350, grown.join(" "));
  });

  for (const host of ["127.0.0.1", "::1"]) {
    for (const boundTo of [host, "::"]) {
      portsTest(`${kind.name}: ECN goes over ${host} from and to ${boundTo}`, async (open) => {
        const sender = open(kind, boundTo), receiver = open(kind, boundTo);
        const marks = Array.from({ length: 200 }, (_, i) => (i >> 3) & 3);
        for (const mark of marks) sender.address(host, receiver.port.localPort, randomBytes(300), mark);
        sender.transmit();
        assertEquals((await receiver.receive(marks.length)).map(({ ecn }) => ecn), marks);
      });
    }
  }
}
