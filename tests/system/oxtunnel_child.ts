/**
 * A client core in a process of its own, so that a test can run it inside a namespace: speaks OxTunnel to the relay of
 * the given WireGuard configuration over a real UDP port, sends pings as inner packets, and prints what came back and
 * of what kind its datagrams were; then comes back RETURNS times with its ticket and as often without, far away. Usage:
 * oxtunnel_child.ts CONFIGURATION-FILE TARGET COUNT [RETURNS]
 */
import { loadNative, type Native } from "../../ffi/native.ts";
import { Client } from "../../src/client.ts";
import { nativeSuite } from "../../src/codec/suite.ts";
import { Driver, monotonicUs, wallClockOffsetUs } from "../../src/io/driver.ts";
import { UdpPort } from "../../src/io/udp.ts";
import { DROP, DROP_REASONS, Metrics } from "../../src/metrics.ts";
import type { Ticket } from "../../src/session/oxtunnel/tickets.ts";
import { WIREGUARD_LIMITS } from "../../src/session/limits.ts";
import { Arena } from "../../src/vector/arena.ts";
import type { Burst } from "../../src/vector/burst.ts";
import { parseAddress } from "../../src/wire/address.ts";
import { AEAD_AES_256_GCM, AEAD_CHACHA20_POLY1305 } from "../../src/wire/parameters.ts";
import { PacketExit } from "../kit/fakes.ts";
import { foldSum, sumWords, writeIpv4Header } from "../../src/wire/inner.ts";

const [file, target, count, returns] = Deno.args;
const text = await Deno.readTextFile(file);
const value = (name: string) => new RegExp(`^${name}\\s*=\\s*(\\S+)`, "m").exec(text)?.[1];
const ipv4 = /(\d+\.\d+\.\d+\.\d+)\/\d+/.exec(text)![1];
const [, host, port] = /^Endpoint\s*=\s*(.+):(\d+)/m.exec(text)!;
const BYTES = 84, PROTOCOL_ICMP = 1, ECHO = 8, INTERVAL_MS = 20, ONE_WAY_MS = 200;

/** An ICMP echo request to the target. */
function ping(sequence: number): Uint8Array {
  const packet = new Uint8Array(BYTES), view = new DataView(packet.buffer);
  const from = parseAddress(ipv4)![3], to = parseAddress(target)![3];
  writeIpv4Header(view, 0, BYTES, sequence, 0, PROTOCOL_ICMP, from, to);
  view.setUint8(20, ECHO);
  view.setUint16(26, sequence);
  view.setUint16(22, foldSum(sumWords(view, 20, BYTES - 20, 0)));
  return packet;
}

/** Notes the sequence number of an echo reply in this row. */
const noteAnswer = (answered: Set<number>) => (burst: Burst, row: number) => {
  const at = burst.offset[row];
  if (burst.view.getUint8(at + 20) === 0) answered.add(burst.view.getUint16(at + 26));
};

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
  const answered = new Set<number>();
  const exit = new PacketExit(noteAnswer(answered));
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
    exit.put(ping(1));
    for (let waits = 0; !answered.has(1) && waits < 3000; waits++) await pause(10);
    return answered.has(1);
  };
  return { client, metrics, exit, driver, answered, close, firstPing };
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

const { client, metrics, exit, driver, answered, close } = open();
client.connect(host, Number(port), monotonicUs());
for (let sequence = 1; sequence <= Number(count); sequence++) {
  exit.put(ping(sequence));
  await pause(INTERVAL_MS);
}
await pause(500);
const { ticket } = client;
client.disconnect(monotonicUs());
driver.turn();
await pause(500);
const outcome = {
  answered: answered.size,
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
