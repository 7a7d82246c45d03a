/**
 * The SOCKS5 door over a real dialler, a real userspace exit and real servers on loopback: what it answers, whom it serves,
 * what it holds back for whom, and that what breaks beyond it breaks at the program too.
 */
import { assert, assertEquals } from "@std/assert";
import { type Lookup, Names } from "../../src/connect/socks/names.ts";
import { serveSocks } from "../../src/connect/socks/mod.ts";
import { readDatagram } from "../../src/connect/socks/udp.ts";
import { requires } from "../kit/requires.ts";
import { DirectTunnel, native } from "./direct_tunnel.ts";

const LOOPBACK = "127.0.0.1";
const WAIT_MS = 8000;
/** Descriptors of a door that is to have few. */
const FILES_MAX = 64;
const tests = { ignore: typeof native === "string" };
if (tests.ignore) console.error(`SKIPPED tests/unit/socks_test.ts: ${native}`);

/** A door with its tunnel. */
class Bench {
  readonly tunnel: DirectTunnel;
  readonly #doors: ReturnType<typeof serveSocks>;

  constructor(lookup: Lookup = () => Promise.reject(new Error("no names here"))) {
    assert(typeof native !== "string");
    this.tunnel = new DirectTunnel(native);
    this.#doors = serveSocks(this.tunnel.dialler, new Names(lookup), LOOPBACK, 0);
  }

  knock(): Promise<Deno.TcpConn> {
    return Deno.connect({ hostname: LOOPBACK, port: this.#doors.port });
  }

  /** A connection that has agreed on a method. */
  async greet(): Promise<Deno.TcpConn> {
    const connection = await this.knock();
    await connection.write(Uint8Array.of(5, 1, 0));
    assertEquals([...await take(connection, 2)], [5, 0]);
    return connection;
  }

  /** Asks for a connection; its reply code, and the connection. */
  async connect(host: string, port: number): Promise<[reply: number, connection: Deno.TcpConn]> {
    const connection = await this.greet();
    await connection.write(Uint8Array.of(5, 1, 0, ...targetOf(host, port)));
    return [(await take(connection, 10))[1], connection];
  }

  async associate(): Promise<{ control: Deno.TcpConn; socket: Deno.DatagramConn; to: Deno.NetAddr }> {
    const control = await this.greet();
    await control.write(Uint8Array.of(5, 3, 0, 1, 0, 0, 0, 0, 0, 0));
    const answer = await take(control, 10);
    assertEquals(answer[1], 0);
    const to = { transport: "udp" as const, hostname: LOOPBACK, port: answer[8] << 8 | answer[9] };
    return { control, socket: udpSocket(), to };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#doors.close();
    await this.tunnel.close();
  }
}

function targetOf(host: string, port: number): number[] {
  const isName = !/^[\d.]+$/.test(host);
  const bytes = isName
    ? [3, host.length, ...new TextEncoder().encode(host)]
    : [1, ...host.split(".").map(Number)];
  return [...bytes, port >> 8, port & 255];
}

function udpSocket(): Deno.DatagramConn {
  return Deno.listenDatagram({ transport: "udp", hostname: LOOPBACK, port: 0 });
}

function portOf(socket: Deno.DatagramConn): number {
  return (socket.addr as Deno.NetAddr).port;
}

async function take(connection: Deno.TcpConn, count: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(count);
  for (let at = 0; at < count;) {
    const more = await connection.read(bytes.subarray(at));
    if (more === null) throw new Error(`it ended after ${at} of ${count} bytes`);
    at += more;
  }
  return bytes;
}

/** The promise's value; fails when it does not settle. */
async function soon<T>(promise: Promise<T>, what: string): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: nothing in ${WAIT_MS} ms`)), WAIT_MS);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** How a connection ends: "end", or the name of what it broke with. */
async function endOf(connection: Deno.TcpConn): Promise<string> {
  const bytes = new Uint8Array(65536);
  try {
    while (await connection.read(bytes) !== null);
    return "end";
  } catch (error) {
    return (error as Error).name;
  }
}

Deno.test("socks: what is not SOCKS5 is closed at its first wrong byte, and only that", tests, async () => {
  await using bench = new Bench();
  // None of them says more, and none ends its side; waiting for the greeting's end would be waiting for 10 s.
  for (const bytes of [[4], [0x47], [0x16, 3, 1], [0x47, 0x45, 0x54, 0x20]]) {
    const connection = await bench.knock();
    const startMs = performance.now();
    await connection.write(Uint8Array.from(bytes));
    const end = await soon(endOf(connection), `${bytes}`);
    assert(["end", "ConnectionReset"].includes(end), end);
    assert(performance.now() - startMs < WAIT_MS);
    connection.close();
  }
  const second = await bench.greet();
  await second.write(Uint8Array.of(4));
  await soon(endOf(second), "a request of another version");
  second.close();
  const refused = await bench.knock();
  await refused.write(Uint8Array.of(5, 1, 2));
  assertEquals([...await take(refused, 2)], [5, 0xff], "no method that we have");
  refused.close();
  (await bench.greet()).close();
});

Deno.test("socks: a closed port is refused with its own reply at once", tests, async () => {
  await using bench = new Bench();
  const listener = Deno.listen({ hostname: LOOPBACK, port: 0 });
  const { port } = listener.addr;
  listener.close();
  const [reply, connection] = await soon(bench.connect(LOOPBACK, port), "the refusal");
  assertEquals(reply, 5);
  connection.close();
});

Deno.test("socks: ICMP about a SYN ends the call with the reply that it stands for", tests, async () => {
  await using bench = new Bench();
  // Type and code, IPv4: network, host, administratively, port; time exceeded.
  const cases: [number, number, number][] = [[3, 0, 3], [3, 1, 4], [3, 13, 2], [3, 3, 5], [11, 0, 6]];
  for (const [type, code, expected] of cases) {
    bench.tunnel.onPacket = (packet, isUp) => {
      if (!isUp || packet[9] !== 6) return packet;
      queueMicrotask(() => bench.tunnel.inject(icmpAbout(packet, type, code), false));
      return undefined;
    };
    const [reply, connection] = await soon(bench.connect("192.0.2.1", 80), `${type}/${code}`);
    assertEquals(reply, expected, `${type}/${code}`);
    connection.close();
  }
});

Deno.test(
  "socks: ICMP about somebody else's packet, or with a wrong checksum, ends nothing",
  tests,
  async () => {
    await using bench = new Bench();
    const listener = Deno.listen({ hostname: LOOPBACK, port: 0 });
    let told = 0;
    bench.tunnel.onPacket = (packet, isUp) => {
      if (isUp && packet[9] === 6 && told++ === 0) {
        const other = packet.slice();
        other[22] ^= 1; // another port of the far end
        bench.tunnel.inject(icmpAbout(other, 3, 1), false);
        const broken = icmpAbout(packet, 3, 1);
        broken[32] ^= 1; // something that nobody looks at
        bench.tunnel.inject(broken, false);
        return undefined; // so that both are heard before the answer to a SYN that is sent again
      }
      return packet;
    };
    const [reply, connection] = await soon(bench.connect(LOOPBACK, listener.addr.port), "the connection");
    assertEquals(reply, 0);
    assert(told > 0);
    connection.close();
    listener.close();
  },
);

Deno.test(
  "socks: a path that is smaller than the tunnel is kept to, by calls and by datagrams",
  tests,
  async () => {
    const SMALL = 600, BYTES = 60_000;
    await using bench = new Bench();
    let told = 0;
    bench.tunnel.onPacket = (packet, isUp) => {
      if (!isUp || packet.length <= SMALL) return packet;
      told++;
      queueMicrotask(() => bench.tunnel.inject(icmpAbout(packet, 3, 4, SMALL), false));
      return undefined;
    };
    const listener = Deno.listen({ hostname: LOOPBACK, port: 0 });
    const [reply, connection] = await soon(bench.connect(LOOPBACK, listener.addr.port), "the connection");
    assertEquals(reply, 0);
    const far = await listener.accept();
    const sent = new Uint8Array(BYTES);
    const writing = (async () => {
      for (let at = 0; at < BYTES;) at += await connection.write(sent.subarray(at));
    })();
    assertEquals((await soon(take(far, BYTES), "all of it")).length, BYTES);
    await writing;
    assert(told > 0);
    const server = udpSocket();
    const { control, socket, to } = await bench.associate();
    const datagram = Uint8Array.of(0, 0, 0, ...targetOf(LOOPBACK, portOf(server)), ...new Uint8Array(2000));
    const again = setInterval(() => socket.send(datagram, to), 100); // the first one is what tells
    const [data] = await soon(server.receive(), "a datagram in small pieces");
    clearInterval(again);
    assertEquals(data.length, 2000);
    for (const one of [connection, far, control, socket, server, listener]) one.close();
  },
);

/** An ICMPv4 error from a router about a whole inner packet. */
function icmpAbout(packet: Uint8Array, type: number, code: number, mtu = 0): Uint8Array {
  const quoted = packet.subarray(0, 28);
  const out = new Uint8Array(28 + quoted.length);
  const view = new DataView(out.buffer);
  out.set(quoted, 28);
  out.set([0x45, 0, 0, out.length, 0, 0, 0, 0, 64, 1]);
  out.set([198, 51, 100, 1], 12);
  out.set(packet.subarray(12, 16), 16);
  out.set([type, code], 20);
  view.setUint16(26, mtu);
  const sum = (from: number, to: number) => {
    let total = 0;
    for (let i = from; i < to; i += 2) total += view.getUint16(i);
    while (total > 0xffff) total = (total & 0xffff) + (total >> 16);
    return ~total & 0xffff;
  };
  view.setUint16(10, sum(0, 20));
  view.setUint16(22, sum(20, out.length));
  return out;
}

Deno.test("socks: a download that breaks is reset, one that ends ends", tests, async () => {
  await using bench = new Bench();
  const { createServer } = await import("node:net");
  let isBroken = true;
  const server = createServer((socket) => {
    socket.on("error", () => {});
    socket.once("data", () => {
      socket.write(new Uint8Array(300_000), () => isBroken ? socket.resetAndDestroy() : socket.end());
    });
  });
  const port = await new Promise<number>((resolve) => {
    server.listen(0, LOOPBACK, () => resolve((server.address() as { port: number }).port));
  });
  for (isBroken of [true, false]) {
    const [reply, connection] = await soon(bench.connect(LOOPBACK, port), "the connection");
    assertEquals(reply, 0);
    await connection.write(Uint8Array.of(1));
    assertEquals(await soon(endOf(connection), "the end"), isBroken ? "ConnectionReset" : "end");
    connection.close();
  }
  await new Promise((resolve) => server.close(resolve));
});

Deno.test(
  "socks: a program that ended its side and reads late has everything, then the end",
  tests,
  async () => {
    await using bench = new Bench();
    const size = 200_000;
    const listener = Deno.listen({ hostname: LOOPBACK, port: 0 });
    (async () => {
      for await (const one of listener) {
        while (await one.read(new Uint8Array(100)) !== null);
        const bytes = new Uint8Array(size);
        for (let at = 0; at < size;) at += await one.write(bytes.subarray(at));
        one.close();
      }
    })();
    const [, connection] = await soon(bench.connect(LOOPBACK, listener.addr.port), "the connection");
    await connection.closeWrite();
    // Both directions are over in the tunnel before the first byte is asked for.
    await new Promise((resolve) => setTimeout(resolve, 500));
    assertEquals((await soon(take(connection, size), "all of it")).length, size);
    assertEquals(await soon(endOf(connection), "the end"), "end");
    connection.close();
    listener.close();
  },
);

Deno.test(
  "socks: a name's families race, and a dead address delays the live one by no more than its turn",
  tests,
  async () => {
    const tried: string[] = [];
    const listener = Deno.listen({ hostname: LOOPBACK, port: 0 });
    await using bench = new Bench((_, found) => {
      found(["192.0.2.9", LOOPBACK]);
      found(["2001:db8::9"]);
      return Promise.resolve();
    });
    const dead = new Map([["32,1,13,184", "2001:db8::9"], ["192,0,2,9", "192.0.2.9"]]);
    bench.tunnel.onPacket = (packet, isUp) => {
      if (!isUp) return packet;
      const v4 = packet[0] >> 4 === 4;
      const to = dead.get([...v4 ? packet.subarray(16, 20) : packet.subarray(24, 28)].join());
      if (to === undefined) return packet;
      if (!tried.includes(to)) tried.push(to);
      return undefined; // nobody answers
    };
    const [reply, connection] = await soon(bench.connect("both.test", listener.addr.port), "the live one");
    assertEquals(reply, 0);
    assertEquals(tried, ["2001:db8::9", "192.0.2.9"], "IPv6 first, then in turn");
    connection.close();
    listener.close();
  },
);

Deno.test(
  "socks: a name that nobody answers for holds neither other datagrams nor calls",
  tests,
  async () => {
    const asked: string[] = [];
    const slow = Promise.withResolvers<void>();
    await using bench = new Bench((name, found) => {
      asked.push(name);
      if (name === "slow.test") return slow.promise;
      found([LOOPBACK]);
      return Promise.resolve();
    });
    const server = udpSocket();
    const { control, socket, to } = await bench.associate();
    const send = (host: string, byte: number) =>
      socket.send(Uint8Array.of(0, 0, 0, ...targetOf(host, portOf(server)), byte), to);
    for (let i = 0; i < 100; i++) await send("slow.test", 0);
    await send("fast.test", 1);
    assertEquals([...(await soon(server.receive(), "the fast one's datagram"))[0]], [1]);
    await send(LOOPBACK, 2);
    assertEquals([...(await soon(server.receive(), "one to an address"))[0]], [2]);
    const listener = Deno.listen({ hostname: LOOPBACK, port: 0 });
    const [reply, connection] = await soon(bench.connect("fast.test", listener.addr.port), "a call");
    assertEquals(reply, 0);
    assertEquals(asked, ["slow.test", "fast.test"], "one look-up a name, whoever asks");
    slow.reject(new Error("no resolver answers"));
    await new Promise((resolve) => setTimeout(resolve, 50));
    await send("slow.test", 3);
    await send("fast.test", 4);
    assertEquals([...(await soon(server.receive(), "what follows"))[0]], [4]);
    assertEquals(asked.length, 2, "a failure is remembered");
    for (const one of [connection, control, socket, server, listener]) one.close();
  },
);

Deno.test("socks: what waits for a name leaves in its order once the name is known", tests, async () => {
  const answer = Promise.withResolvers<void>();
  await using bench = new Bench(async (_, found) => {
    await answer.promise;
    found([LOOPBACK]);
  });
  const server = udpSocket();
  const { control, socket, to } = await bench.associate();
  for (let i = 0; i < 20; i++) {
    await socket.send(Uint8Array.of(0, 0, 0, ...targetOf("later.test", portOf(server)), i), to);
  }
  // What comes behind them has been taken, and so have they.
  await socket.send(Uint8Array.of(0, 0, 0, ...targetOf(LOOPBACK, portOf(server)), 50), to);
  assertEquals([...(await soon(server.receive(), "what has an address"))[0]], [50]);
  answer.resolve();
  const got = [];
  for (let i = 0; i < 16; i++) got.push((await soon(server.receive(), `datagram ${i}`))[0][0]);
  assertEquals(got, Array.from({ length: 16 }, (_, i) => i), "the first sixteen");
  await socket.send(Uint8Array.of(0, 0, 0, ...targetOf(LOOPBACK, portOf(server)), 99), to);
  assertEquals([...(await soon(server.receive(), "what follows"))[0]], [99], "and no more were kept");
  for (const one of [control, socket, server]) one.close();
});

Deno.test(
  "socks: datagrams of other senders are not served, and fragments are not taken",
  tests,
  async () => {
    await using bench = new Bench();
    const server = udpSocket();
    const { control, socket, to } = await bench.associate();
    const stranger = udpSocket();
    const head = (fragment: number) => [0, 0, fragment, ...targetOf(LOOPBACK, portOf(server))];
    await socket.send(Uint8Array.of(...head(0), 1), to);
    const [first, from] = await soon(server.receive(), "the program's own");
    assertEquals([...first], [1]);
    await stranger.send(Uint8Array.of(...head(0), 2), to);
    await socket.send(Uint8Array.of(...head(1), 3), to);
    await socket.send(Uint8Array.of(...head(0x81), 4), to);
    await socket.send(Uint8Array.of(...head(0), 5), to);
    assertEquals([...(await soon(server.receive(), "the program's next"))[0]], [5]);
    await server.send(Uint8Array.of(6), from);
    const [answer] = await soon(socket.receive(), "the answer");
    assertEquals([...readDatagram(answer)!.payload], [6], "goes to the program");
    const silence = new Promise((resolve) => setTimeout(() => resolve("nothing"), 150));
    const stray = stranger.receive().catch(() => {});
    assertEquals(await Promise.race([stray, silence]), "nothing");
    for (const one of [control, socket, stranger, server]) one.close();
    await stray;
  },
);

Deno.test({
  name: "socks: a door without descriptors goes on as soon as some are free, and says so where it can",
  ignore: tests.ignore || requires({ programs: ["prlimit", "sh", "timeout"] }).ignore,
  async fn() {
    const library = new URL("../../ffi/prebuilt/", import.meta.url).pathname;
    const child = new Deno.Command("prlimit", {
      args: [
        `--nofile=${FILES_MAX}:${FILES_MAX}`,
        ...[Deno.execPath(), "run", "--no-prompt", "--unstable-net", "--allow-net=127.0.0.1,0.0.0.0,[::]"],
        `--allow-ffi=/lib/x86_64-linux-gnu/libc.so.6,${library}x86_64-unknown-linux-gnu/liboxrelay.so`,
        new URL("socks_limit_child.ts", import.meta.url).pathname,
      ],
      env: { DENO_NO_UPDATE_CHECK: "1" },
      stdout: "piped",
    }).spawn();
    try {
      const reader = child.stdout.getReader();
      const { value } = await soon(reader.read(), "its port");
      const port = Number(new TextDecoder().decode(value));
      const crowd = [];
      for (let i = 0; i < 100; i++) crowd.push(await Deno.connect({ hostname: LOOPBACK, port }));
      // It has taken as many as it may.
      const full = `until [ $(ls /proc/${child.pid}/fd | wc -l) -ge ${FILES_MAX} ]; do sleep 0.02; done`;
      await new Deno.Command("timeout", { args: ["8", "sh", "-c", full] }).output();
      const association = crowd[0];
      await association.write(Uint8Array.of(5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0));
      const answer = await soon(take(association, 2 + 10), "an answer without a descriptor for it");
      assertEquals([...answer.subarray(0, 4)], [5, 0, 5, 1], "a failure, not silence");
      for (const one of crowd) one.close();
      const late = await Deno.connect({ hostname: LOOPBACK, port });
      await late.write(Uint8Array.of(5, 1, 0));
      assertEquals([...await soon(take(late, 2), "the door's answer once there is room")], [5, 0]);
      late.close();
      await reader.cancel();
    } finally {
      child.kill("SIGKILL");
      await child.status;
    }
  },
});
