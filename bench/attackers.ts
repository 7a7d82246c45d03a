/**
 * Attacks on a relay, one a process, run by attacks_bench.ts in a namespace of its own: `attackers.ts KIND JSON`. Each lasts until
 * it is ended or its seconds are over, and then prints as JSON what was sent. Invariant: it talks to the addresses that it is given
 * and to nobody else. It judges nothing.
 */
import process from "node:process";
import { RawSession } from "../tests/kit/raw_peer.ts";
import { peer } from "../src/cli/peer.ts";
import { keyFromText } from "../src/process/keys_text.ts";
import { OX_DATA_MIN_BYTES, OXTUNNEL_BIT } from "../src/wire/oxtunnel.ts";

interface Order {
  seconds: number;
  /** Who is attacked, or talked to through the relay. */
  hosts: string[];
  port: number;
  count: number;
  /** Base64: the relay's public key and the peer's private one. */
  relayKey?: string;
  privateKey?: string;
  config?: string;
}

type Sent = Record<string, number>;
const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** Whether the attack still goes on, and a promise of its end. */
function timed({ seconds }: Order): { on: () => boolean } {
  const endMs = performance.now() + 1000 * seconds;
  return { on: () => performance.now() < endMs };
}

/** TLS connections that push datagrams of random bytes as fast as they are taken, and read nothing. */
async function tlsJunk(order: Order): Promise<Sent> {
  const { on } = timed(order);
  const sent = { connections: 0, bytes: 0 };
  const frame = new Uint8Array(2 + OX_DATA_MIN_BYTES);
  const chunk = new Uint8Array(frame.length * 2048);
  for (let at = 0; at < chunk.length; at += frame.length) {
    crypto.getRandomValues(frame);
    frame.set([OX_DATA_MIN_BYTES & 255, 0, OXTUNNEL_BIT]);
    chunk.set(frame, at);
  }
  const push = async () => {
    while (on()) {
      try {
        using connection = await tls(order);
        sent.connections++;
        while (on()) sent.bytes += await connection.write(chunk);
      } catch {
        await pause(20);
      }
    }
  };
  await Promise.race([
    Promise.all(Array.from({ length: order.count }, push)),
    pause(1000 * order.seconds),
  ]);
  return sent;
}

function tls({ hosts: [hostname], port }: Order): Promise<Deno.TlsConn> {
  return Deno.connectTls({ hostname, port, unsafelyDisableHostnameVerification: true });
}

/** TCP connections from each address at the order's rate a second, held as long as the relay leaves them open. */
async function crowd(order: Order): Promise<Sent> {
  const { on } = timed(order);
  const sent = { connections: 0, refused: 0, closed: 0 };
  const startMs = performance.now();
  for (let turn = 0; on(); turn++) {
    for (const hostname of order.hosts) {
      Deno.connect({ hostname, port: order.port }).then(async (connection) => {
        sent.connections++;
        while (await connection.read(new Uint8Array(1024)) !== null);
        sent.closed++;
        connection.close();
      }).catch(() => sent.refused++);
    }
    const waitMs = startMs + 1000 * (turn + 1) / order.count - performance.now();
    if (waitMs > 0) await pause(waitMs);
  }
  return sent;
}

/** Datagrams of one byte, each to another port, from new sockets once all ports of `count` have had theirs. */
async function udpFlows(order: Order): Promise<Sent> {
  const { on } = timed(order);
  const sent = { flows: 0 };
  const byte = new Uint8Array(1);
  while (on()) {
    for (const hostname of order.hosts) {
      const socket = Deno.listenDatagram({
        transport: "udp",
        hostname: hostname.includes(":") ? "::" : "0.0.0.0",
        port: 0,
      });
      for (let port = order.port; port < order.port + order.count && on(); port++) {
        const isSent = await socket.send(byte, { transport: "udp", hostname, port }).catch(() => 0);
        sent.flows += isSent;
        if (isSent === 0) await pause(1); // the device's queue is full
        if (port % 50 === 0) await pause(0);
      }
      socket.close();
    }
  }
  return sent;
}

/** TCP connections that are opened and forgotten by whoever opened them: made, and never closed. */
async function tcpFlows(order: Order): Promise<Sent> {
  const { on } = timed(order);
  const kept: Deno.TcpConn[] = [];
  let tried = 0;
  while (on()) {
    const made = Array.from({ length: 50 }, (_, i) => {
      const hostname = order.hosts[tried++ % order.hosts.length];
      return Deno.connect({ hostname, port: order.port + i % order.count })
        .then((connection) => kept.push(connection), () => {});
    });
    await Promise.race([Promise.all(made), pause(250)]);
  }
  return { tried, opened: kept.length };
}

/** The order's number of TCP connections, which write whatever the relay accepts and read nothing. */
async function tcpStuck(order: Order): Promise<Sent> {
  const { on } = timed(order);
  const sent = { connections: 0, bytes: 0 };
  const chunk = new Uint8Array(65536);
  const push = async () => {
    while (on()) {
      try {
        using connection = await Deno.connect({ hostname: order.hosts[0], port: order.port });
        sent.connections++;
        while (on()) sent.bytes += await connection.write(chunk);
      } catch {
        await pause(100);
      }
    }
  };
  for (let i = 0; i < order.count; i++) {
    void push();
    if (i % 20 === 0) await pause(5);
  }
  while (on()) await pause(100);
  return sent;
}

/** The other end of these: takes every connection, writes whatever is taken and reads nothing. */
async function tcpFill(order: Order): Promise<Sent> {
  const listener = Deno.listen({ hostname: order.hosts[0], port: order.port });
  const chunk = new Uint8Array(65536);
  console.log("ready");
  for await (const connection of listener) {
    (async () => {
      for (;;) await connection.write(chunk);
    })().catch(() => {});
  }
  return {};
}

const u16 = (n: number) => [n & 255, (n >> 8) & 255];
const control = (body: number[]) => [0x90 | (body.length >> 8), body.length & 255, ...body];
const HINTS = 61;

/** An authenticated peer's datagrams at the order's rate a second, full of hint frames. */
async function hints(order: Order): Promise<Sent> {
  const socket = Deno.listenDatagram({ transport: "udp", hostname: "0.0.0.0", port: 0 });
  const to = { transport: "udp", hostname: order.hosts[0], port: order.port } as const;
  const fill = (bytes: Uint8Array) => void crypto.getRandomValues(bytes as Uint8Array<ArrayBuffer>);
  const session = new RawSession(keyFromText(order.privateKey!)!, keyFromText(order.relayKey!)!, fill);
  const offer = { features: 0, aeads: [1], connectionIds: [5, 6, 7] };
  const { message, finish } = session.initiate(offer, 1000 * Date.now());
  await socket.send(message as Uint8Array<ArrayBuffer>, to);
  finish((await socket.receive(new Uint8Array(2048)))[0]);
  const sent = { datagrams: 0, frames: 0, bytes: 0 };
  const { on } = timed(order);
  const startMs = performance.now();
  while (on()) {
    for (; sent.datagrams < (performance.now() - startMs) * order.count / 1000; sent.datagrams++) {
      const frames = Array.from({ length: HINTS }, () => {
        const n = sent.frames++;
        return control([0x20, ...u16(n), 1, 17, 88, 2, 1, 2, 3, 4, 10, 66, 0, 2, 1, 2, n % 65, n % 65]);
      });
      const datagram = session.seal(Uint8Array.from(frames.flat()));
      sent.bytes += await socket.send(datagram as Uint8Array<ArrayBuffer>, to).catch(() => 0);
    }
    await pause(1);
  }
  return sent;
}

/** Connections on which nothing is said, opened again when they are closed. */
async function idle(order: Order): Promise<Sent> {
  const { on } = timed(order);
  const sent = { connections: 0, refused: 0 };
  const hold = async () => {
    while (on()) {
      try {
        using connection = await Deno.connect({ hostname: order.hosts[0], port: order.port });
        sent.connections++;
        while (await connection.read(new Uint8Array(1024)) !== null);
      } catch {
        sent.refused++;
      }
      await pause(50);
    }
  };
  for (let i = 0; i < order.count; i++) void hold();
  while (on()) await pause(100);
  return sent;
}

/** Runs `peer add`, all but the start of a process, `order.count` times; wall and processor time of each, milliseconds. */
async function peerAdd(order: Order): Promise<{ wallMs: number[]; cpuMs: number[] }> {
  console.log = console.error = () => {};
  const wallMs: number[] = [], cpuMs: number[] = [];
  for (let i = 0; i < order.count; i++) {
    const startMs = performance.now(), before = process.cpuUsage();
    const name = `bench-${Deno.pid}-${i}`;
    const code = await peer([
      "add",
      name,
      "--no-qr",
      "--out",
      `${order.config}.${name}`,
      "--config",
      order.config!,
    ]);
    const { user, system } = process.cpuUsage(before);
    if (code !== 0) throw new Error(`peer add: ${code}`);
    wallMs.push(performance.now() - startMs);
    cpuMs.push((user + system) / 1000);
  }
  return { wallMs, cpuMs };
}

const KINDS = { tlsJunk, crowd, udpFlows, tcpFlows, tcpStuck, tcpFill, hints, idle, peerAdd };
export type Kind = keyof typeof KINDS;

if (import.meta.main) {
  const print = console.log;
  const [kind, order] = Deno.args;
  print(JSON.stringify(await KINDS[kind as Kind](JSON.parse(order))));
  Deno.exit(0);
}
