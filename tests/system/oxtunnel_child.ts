/**
 * A client core in a process of its own, so that a test can run it inside a namespace: speaks OxTunnel to the relay of
 * the given WireGuard configuration over a real UDP port, sends pings as inner packets, and prints what came back and
 * of what kind its datagrams were; then comes back RETURNS times with its ticket and as often without, far away. Usage:
 * oxtunnel_child.ts CONFIGURATION-FILE TARGET COUNT [RETURNS]
 */
import { loadNative, type Native } from "../../ffi/native.ts";
import { Client } from "../../src/client.ts";
import { nativeSuite } from "../../src/codec/suite.ts";
import type { Exit } from "../../src/exit/exit.ts";
import { Driver, monotonicUs, wallClockOffsetUs } from "../../src/io/driver.ts";
import { UdpPort } from "../../src/io/udp.ts";
import { DROP, DROP_REASONS, Metrics } from "../../src/metrics.ts";
import type { Ticket } from "../../src/session/oxtunnel/tickets.ts";
import { WIREGUARD_LIMITS } from "../../src/session/limits.ts";
import { Arena } from "../../src/vector/arena.ts";
import { type Burst, DONE, TO_EXIT, TO_TUNNEL } from "../../src/vector/burst.ts";
import { parseAddress } from "../../src/wire/address.ts";
import { AEAD_AES_256_GCM, AEAD_CHACHA20_POLY1305 } from "../../src/wire/parameters.ts";
import { foldSum, sumWords, writeIpv4Header } from "../../src/wire/inner.ts";

const [file, target, count, returns] = Deno.args;
const text = await Deno.readTextFile(file);
const value = (name: string) => new RegExp(`^${name}\\s*=\\s*(\\S+)`, "m").exec(text)?.[1];
const ipv4 = /(\d+\.\d+\.\d+\.\d+)\/\d+/.exec(text)![1];
const [, host, port] = /^Endpoint\s*=\s*(.+):(\d+)/m.exec(text)!;
const BYTES = 84, PROTOCOL_ICMP = 1, ECHO = 8, INTERVAL_MS = 20, ONE_WAY_MS = 200;

/** Inner packets on their way in, and the pings that came back. */
class Pings implements Exit {
  readonly name = "pings";
  readonly description = "pings";
  readonly flowCount = 0;
  readonly waiting: number[] = [];
  readonly answered = new Set<number>();
  wake = () => {};

  send(burst: Burst): void {
    for (let row = 0; row < burst.count; row++) {
      if (burst.next[row] !== TO_EXIT) continue;
      if (burst.view.getUint8(burst.offset[row] + 20) === 0) {
        this.answered.add(burst.view.getUint16(burst.offset[row] + 26));
      }
      burst.next[row] = DONE;
    }
  }

  receive(burst: Burst): number {
    let rows = 0;
    for (const sequence of this.waiting.splice(0)) {
      const row = burst.grow(BYTES, TO_TUNNEL);
      if (row < 0) break;
      const at = burst.offset[row];
      const from = parseAddress(ipv4)![3], to = parseAddress(target)![3];
      burst.bytes.fill(0, at, at + BYTES);
      writeIpv4Header(burst.view, at, BYTES, sequence, 0, PROTOCOL_ICMP, from, to);
      burst.view.setUint8(at + 20, ECHO);
      burst.view.setUint16(at + 26, sequence);
      burst.view.setUint16(at + 22, foldSum(sumWords(burst.view, at + 20, BYTES - 20, 0)));
      rows++;
    }
    return rows;
  }

  onReadable(wake: () => void): void {
    this.wake = wake;
  }
  handleTimeout(): void {}
  close(): Promise<void> {
    return Promise.resolve();
  }
}

const native = loadNative();
if (typeof native === "string") throw new Error(native);

/**
 * A long way to the relay, half of it in each direction: the port on loopback where it begins, and how many datagrams with
 * data had gone to the relay when the first came from there.
 */
function delayed(oneWayMs: number): { near: Deno.NetAddr; dataBefore: () => number; close: () => void } {
  const near = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
  const far = Deno.listenDatagram({ transport: "udp", hostname: "0.0.0.0", port: 0 });
  const relay: Deno.NetAddr = { transport: "udp", hostname: host, port: Number(port) };
  let asker = relay, sent = 0, dataBefore = NaN;
  const isData = (bytes: Uint8Array) => bytes[0] < 0x80;
  const carry = async (
    from: Deno.DatagramConn,
    to: Deno.DatagramConn,
    where: (source: Deno.Addr) => Deno.Addr,
    onSent = (_: Uint8Array) => {},
    onCame = (_: Uint8Array) => {},
  ) => {
    for await (const [bytes, source] of from) {
      const target = where(source);
      onCame(bytes);
      setTimeout(() => {
        onSent(bytes);
        to.send(bytes, target).catch(() => {});
      }, oneWayMs);
    }
  };
  carry(near, far, (source) => (asker = source as Deno.NetAddr, relay), (bytes) => {
    if (isData(bytes)) sent++;
  });
  carry(far, near, () => asker, undefined, (bytes) => {
    if (isData(bytes) && isNaN(dataBefore)) dataBefore = sent;
  });
  const close = () => {
    near.close();
    far.close();
  };
  return { near: near.addr as Deno.NetAddr, dataBefore: () => dataBefore, close };
}

/** A client with its own port and memory, which begins with its first packet when it has a ticket. */
function open(ticket?: Ticket) {
  const arena = new Arena(512), metrics = new Metrics();
  const client = new Client({
    arena,
    metrics,
    ...nativeSuite(native as Native, { forged: DROP.forged }).crypto,
    aeads: [AEAD_AES_256_GCM, AEAD_CHACHA20_POLY1305],
    random: (bytes) => void crypto.getRandomValues(bytes as Uint8Array<ArrayBuffer>),
    limits: WIREGUARD_LIMITS,
    privateKey: Uint8Array.fromBase64(value("PrivateKey")!),
    ipv4,
    ipv6: undefined,
    mtu: 1420,
    maxConnections: 1,
    rateLimitPerIp: 1,
    worker: 0,
    unixOffsetUs: wallClockOffsetUs(),
  }, { publicKey: value("PublicKey")!, presharedKey: value("PresharedKey"), ticket });
  const exit = new Pings();
  const udp = new UdpPort({ host: "0.0.0.0", port: 0, arena, onDrop: () => {} });
  const driver = new Driver(arena, client, udp, exit, metrics);
  driver.start();
  const close = async () => {
    await driver.stop();
    client.close();
    await udp.close();
  };
  /** Names the relay and sends a first ping; whether it was answered. */
  const firstPing = async ({ hostname, port }: Deno.NetAddr) => {
    client.connect(hostname, port, monotonicUs(), ticket !== undefined);
    exit.waiting.push(1);
    exit.wake();
    for (let waits = 0; !exit.answered.has(1) && waits < 3000; waits++) await pause(10);
    return exit.answered.has(1);
  };
  return { client, metrics, exit, close, firstPing };
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

const { client, metrics, exit, close } = open();
client.connect(host, Number(port), monotonicUs());
for (let sequence = 1; sequence <= Number(count); sequence++) {
  exit.waiting.push(sequence);
  exit.wake();
  await pause(INTERVAL_MS);
}
await pause(500);
const { ticket } = client;
client.disconnect(monotonicUs());
exit.wake();
await pause(500);
const outcome = {
  answered: exit.answered.size,
  handshakes: metrics.get("handshakes_completed"),
  epochs: metrics.get("epochs_made"),
  told: client.told,
  hasTicket: ticket !== undefined,
  drops: Object.fromEntries(
    DROP_REASONS.map(([label]) => [label, metrics.dropped(label)]).filter(([, n]) => n !== 0),
  ),
};
await close();
/** By turns without and with the ticket, each a client of its own. */
const dataBefore: number[][] = [[], []];
for (let turn = 0; turn < 2 * Number(returns ?? 0); turn++) {
  const again = open(turn % 2 === 0 ? undefined : ticket);
  const way = delayed(ONE_WAY_MS);
  if (!await again.firstPing(way.near)) throw new Error("no answer");
  dataBefore[turn % 2].push(way.dataBefore());
  await again.close();
  way.close();
}
console.log(JSON.stringify({ ...outcome, dataBefore }));
