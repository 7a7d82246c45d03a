/**
 * One end of the flow of flow.ts: sends its packets at their pace and notes what comes. The server's end begins with the
 * client's first packet, and both end by themselves. Payload: what was captured, or RTP's header for a call, else a byte of 0;
 * noise; and in the last 12 bytes the number (4) and the time of sending (8, a float).
 * Usage: flow_child.ts client|server PLAN, a FlowPlan in JSON
 */
import { openLibrary } from "../../ffi/mod.ts";
import { type Packets, packetsOf } from "./workloads.ts";
import { type CapturedPacket, readCapture } from "../../src/cli/capture.ts";
import { CLASS_VOICE } from "../../src/control/traffic_class.ts";
import { Random } from "./random.ts";
import type { Arrivals, CapturedCall, FlowPlan, Way } from "./flow.ts";

// From the payload's end.
const NUMBER_AT = -12, SENT_AT = -8;
const IPV4_AND_UDP_BYTES = 28;
/** How long it listens after its last packet. */
const PATIENCE_MS = 1500;
const CLOCK_MONOTONIC = 1;

const C = openLibrary(`/lib/${Deno.build.arch}-linux-gnu/libc.so.6`, {
  clock_gettime: { parameters: ["i32", "buffer"], result: "i32" },
});
const timespec = new BigInt64Array(2);
const timespecBytes = new Uint8Array(timespec.buffer);

/** Every process of this machine reads the same. */
function clockUs(): number {
  C.clock_gettime(CLOCK_MONOTONIC, timespecBytes);
  return Number(timespec[0]) * 1e6 + Number(timespec[1]) / 1000;
}

interface Line {
  send(message: Uint8Array): Promise<void>;
  /** The next message; undefined at the end. */
  receive(): Promise<Uint8Array | undefined>;
}

function udpLine(isServer: boolean, { host, port }: Way): Line {
  const socket = Deno.listenDatagram({
    transport: "udp",
    hostname: isServer ? host : "0.0.0.0",
    port: isServer ? port : 0,
  });
  let peer: Deno.Addr | undefined = isServer ? undefined : { transport: "udp", hostname: host, port };
  const buffer = new Uint8Array(2048);
  return {
    async send(message) {
      await socket.send(message, peer!);
    },
    async receive() {
      const [bytes, from] = await socket.receive(buffer);
      if (isServer) peer = from;
      return bytes;
    },
  };
}

/** Each message behind its length in two bytes. */
function tcpLine(connecting: Promise<Deno.TcpConn>): Line {
  const connected = connecting.then((connection) => {
    connection.setNoDelay(true);
    return connection;
  });
  const read = async (length: number) => {
    const connection = await connected, bytes = new Uint8Array(length);
    for (let at = 0; at < length;) {
      const count = await connection.read(bytes.subarray(at));
      if (count === null) return undefined;
      at += count;
    }
    return bytes;
  };
  return {
    async send(message) {
      const connection = await connected, framed = new Uint8Array(2 + message.length);
      new DataView(framed.buffer).setUint16(0, message.length);
      framed.set(message, 2);
      for (let at = 0; at < framed.length;) at += await connection.write(framed.subarray(at));
    },
    async receive() {
      const length = await read(2);
      return length && await read(length[0] << 8 | length[1]);
    },
  };
}

/** One direction of the captured flow over IPv4: when each packet was sent, its payload's bytes, and what of them was kept. */
function capturedPackets(
  { file, near, far, mediaBytesMax = Infinity }: CapturedCall,
  isFar: boolean,
): Packets & { heads: Uint8Array[] } {
  const ports = ({ bytes }: CapturedPacket) =>
    bytes[0] === 0x45 ? new DataView(bytes.buffer, bytes.byteOffset).getUint32(20) : 0;
  const there = (near << 16 | far) >>> 0, back = (far << 16 | near) >>> 0;
  const both = [...readCapture(Deno.readFileSync(file))].filter((one) => [there, back].includes(ports(one)));
  const found = both.filter((one) => ports(one) === (isFar ? back : there));
  return {
    sentUs: Float64Array.from(found, ({ timeUs }) => timeUs - both[0].timeUs),
    bytes: Uint16Array.from(found, ({ bytes, length }) => {
      const isMedia = bytes[IPV4_AND_UDP_BYTES] >> 6 === 2; // RTP's version (RFC 7983 §7)
      return Math.min(length - IPV4_AND_UDP_BYTES, isMedia ? mediaBytesMax : Infinity);
    }),
    heads: found.map(({ bytes }) => bytes.subarray(IPV4_AND_UDP_BYTES, IPV4_AND_UDP_BYTES + 64)),
  };
}

/** RTP's header (RFC 3550 §5.1), as of 20 ms of sound. */
function rtpHeader(number: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(12));
  view.setUint16(0, 0x8060);
  view.setUint16(2, number);
  view.setUint32(4, 960 * number);
  view.setUint32(8, isServer ? 0x5eed0001 : 0x5eed0002);
  return new Uint8Array(view.buffer);
}

const isServer = Deno.args[0] === "server";
const { workload, capture, seconds, way, file } = JSON.parse(Deno.args[1]) as FlowPlan;
const packets: Packets & { heads?: Uint8Array[] } = capture === undefined
  ? packetsOf(isServer ? workload.down : workload.up, seconds, new Random(isServer ? 2 : 1))
  : capturedPackets(capture, isServer);
const expected = capture === undefined
  ? Math.floor(seconds * (isServer ? workload.up : workload.down).packetsPerSecond)
  : capturedPackets(capture, !isServer).bytes.length;
const line = way.transport === "udp" ? udpLine(isServer, way) : tcpLine(
  isServer
    ? Deno.listen({ hostname: way.host, port: way.port }).accept()
    : Deno.connect({ hostname: way.host, port: way.port }),
);

const arrivals: Arrivals = { latencyUs: new Array(expected).fill(null), twice: 0 };
const { promise: heard, resolve: hear } = Promise.withResolvers<void>();
async function listen(): Promise<void> {
  for (let message = await line.receive(); message; message = await line.receive()) {
    const nowUs = clockUs();
    const view = new DataView(message.buffer, message.byteOffset, message.length);
    const number = view.getUint32(view.byteLength + NUMBER_AT);
    if (arrivals.latencyUs[number] !== null) arrivals.twice++;
    else arrivals.latencyUs[number] = Math.round(nowUs - view.getFloat64(view.byteLength + SENT_AT));
    hear();
  }
}
// A connection that breaks is told by what did not come.
listen().catch(() => {});
console.log("ready");
if (isServer) await heard;

const startUs = clockUs();
for (const [number, sentUs] of packets.sentUs.entries()) {
  const waitUs = startUs + sentUs - clockUs();
  if (waitUs > 0) await new Promise((resolve) => setTimeout(resolve, waitUs / 1000));
  const message = crypto.getRandomValues(new Uint8Array(packets.bytes[number]));
  if (packets.heads) message.set(packets.heads[number]);
  else if (workload.trafficClass === CLASS_VOICE) message.set(rtpHeader(number));
  else message[0] = 0;
  const view = new DataView(message.buffer);
  view.setUint32(message.length + NUMBER_AT, number);
  view.setFloat64(message.length + SENT_AT, clockUs());
  await line.send(message);
}
await new Promise((resolve) => setTimeout(resolve, PATIENCE_MS));
await Deno.writeTextFile(file, JSON.stringify(arrivals));
Deno.exit(0);
