/**
 * A client's plane: core, port and driver over one exit, in the thread that makes them. Invariant: the socket is bound to no
 * address, so that the system chooses one for each path and a session outlives a change of network; whatever was opened is
 * closed by `close`. Decides nothing: which relay to reach, and when, is link/mod.ts's part.
 */
import type { Native } from "../../../ffi/native.ts";
import { Client } from "../../client.ts";
import { useBlake2s } from "../../codec/hash.ts";
import { suiteOf } from "../../codec/suite.ts";
import { latencyFigures } from "../../session/peer_record.ts";
import { DEFAULTS } from "../../config.ts";
import type { Exit } from "../../exit/exit.ts";
import { Driver, type Messages, monotonicUs, wallClockOffsetUs } from "../../io/driver.ts";
import { Mailbox, type Mailboxes } from "../../io/mailbox.ts";
import { MmsgPort } from "../../io/mmsg.ts";
import { MultiPort } from "../../io/multi_port.ts";
import type { Port } from "../../io/port.ts";
import { StreamSide } from "../../io/stream_side.ts";
import { UdpPort } from "../../io/udp.ts";
import { CLASS_LABELS, DROP, Metrics } from "../../metrics.ts";
import type { HintedFlows } from "../../session/oxtunnel/hints.ts";
import { repairOptions } from "../../repair/options.ts";
import { WIREGUARD_LIMITS } from "../../session/limits.ts";
import { BATCH_WAIT_US, queuesOptions } from "../../tunnel_options.ts";
import { Arena } from "../../vector/arena.ts";
import type { Parameters } from "../../wire/parameters.ts";
import type { Invitation } from "../invitation.ts";
import { keyFromText } from "../../process/keys_text.ts";
import { warmUpFor } from "../../process/warmup.ts";
import { innerTotals } from "./counts.ts";
import type { DoorPlan } from "./doors.ts";
import { PlaneDoors } from "./plane_doors.ts";
import {
  type LinkPlane,
  PLANE_MAILBOX,
  type PlaneState,
  type PlaneWishes,
  STREAMS_MAILBOX,
} from "./plane.ts";

const ARENA_SLOTS = 16_384;
/** What the first connection may wait for the compiler, milliseconds (process/warmup.ts). */
const WARM_UP_MS = 60;
/** How long the relay is told of the end of a session (PROTOCOL R57). */
const FAREWELL_MS = 250;

export class LocalPlane implements LinkPlane {
  /** Packets that have taught the compiler the routes before the first one came. */
  readonly warmedUp: number;
  readonly #client: Client;
  readonly #driver: Driver;
  readonly #port: Port;
  readonly #exit: Exit;
  readonly #mailbox: Mailbox | undefined;
  readonly #isOxtunnel: boolean;
  /** The port's doors, where there are several paths. */
  readonly #doors: PlaneDoors | undefined;
  readonly #metrics = new Metrics();

  /**
   * Starts at once. `mailboxes` are the fallback's, where there is one. Where port and exit have descriptors, this thread serves
   * nothing else from here on, and is told things by `messages`. `makePort` opens another port than a socket.
   */
  constructor(
    invitation: Invitation,
    exit: Exit,
    native: Native | string,
    wishes: PlaneWishes,
    mailboxes?: Mailboxes,
    messages?: Messages,
    makePort: (native: Native | string, arena: Arena, metrics: Metrics) => Port = openPort,
  ) {
    const metrics = this.#metrics;
    const arena = new Arena(ARENA_SLOTS);
    this.#isOxtunnel = invitation.protocol === "oxtunnel";
    const kernels = kernelsOf(native, invitation, wishes);
    this.warmedUp = warmUpFor(WARM_UP_MS, invitation.protocol, kernels);
    const isNative = typeof native !== "string";
    this.#client = makeClient(invitation, exit, isNative, kernels, wishes, arena, metrics);
    this.#exit = exit;
    const socket = wishes.paths && typeof native !== "string"
      ? openDoors(native, metrics, (door, isFailing) => this.#doors?.note(door, isFailing))
      : makePort(native, arena, metrics);
    if (socket instanceof MultiPort) this.#doors = new PlaneDoors(socket, this.#client);
    if (wishes.paths) this.#client.setCopied(wishes.paths.copied);
    const mailbox = this.#mailbox = mailboxes &&
      new Mailbox(PLANE_MAILBOX, mailboxes, (code) => metrics.drop(code));
    this.#port = mailbox ? new StreamSide(socket, mailbox, STREAMS_MAILBOX) : socket;
    this.#driver = new Driver(
      arena,
      this.#client,
      this.#port,
      exit,
      metrics,
      mailbox,
      messages,
      wishes.goesFirst,
    );
    this.#driver.start();
  }

  /** What the relay said of itself in the last OxTunnel handshake. */
  get told(): Parameters | undefined {
    return this.#client.told;
  }

  /** The largest inner packet that goes to the relay in one piece now, bytes. */
  get innerMtu(): number {
    return this.#client.innerMtu;
  }

  /** Whether this thread waits in the kernel, so that it hears messages by their bell alone. */
  get waits(): boolean {
    return this.#driver.waits;
  }

  connect(address: string, port: number): void {
    this.#client.connect(address, port, monotonicUs(), true);
    this.#driver.turn();
  }

  reach(address: string, port: number): void {
    this.#client.reach(address, port, monotonicUs());
    this.#driver.turn();
  }

  moved(): void {
    this.#client.moved();
    this.#client.ping();
    this.#driver.turn();
  }

  setDoors(doors: readonly DoorPlan[]): void {
    this.#doors?.set(doors, monotonicUs());
    this.#driver.turn();
  }

  hint(flows: HintedFlows, trafficClass: number | undefined): void {
    this.#client.hint(flows, trafficClass);
    this.#driver.turn();
  }

  look(ping: boolean): Promise<PlaneState> {
    return Promise.resolve(this.state(ping));
  }

  /** As `look`, at once. */
  state(ping: boolean): PlaneState {
    if (ping) this.#client.ping();
    while (this.#client.pollEvent()); // the snapshot says it all
    const [relay] = this.#client.peerSnapshots(monotonicUs());
    const asked = this.#metrics.get("packets_to_tunnel") + this.#metrics.get("handshake_initiations");
    const inner = innerTotals(this.#metrics, relay, this.#isOxtunnel);
    const cost = {
      datagrams: this.#metrics.get("datagrams_sent"),
      datagramBytes: this.#metrics.get("bytes_sent"),
    };
    if (ping) this.#driver.turn();
    const repaired = this.#metrics.get("packets_repaired");
    const classesUp = CLASS_LABELS.map((label) => this.#metrics.ofClass("to_tunnel", label));
    const classesDown = CLASS_LABELS.map((label) => this.#metrics.ofClass("from_tunnel", label));
    const { vitals, path } = this.#client;
    const applications = this.#client.applications(monotonicUs());
    const relay4 = this.told?.relay4?.join(".");
    const headers = {
      packets: this.#metrics.get("headers_elided"),
      bytesSent: this.#metrics.get("header_bytes_sent"),
      bytesSaved: this.#metrics.get("header_bytes_saved"),
    };
    const latency = latencyFigures({
      queue: this.#client.queueDelays(),
      processing: this.#driver.processing.counts(0),
    });
    return {
      refused: this.#client.refusal?.reason,
      failingDoors: this.#doors?.failing ?? [],
      ...{
        relay,
        asked,
        vitals,
        inner,
        cost,
        repaired,
        classesUp,
        classesDown,
        applications,
        relay4,
        latency,
        headers,
      },
      ...path,
    };
  }

  async close(): Promise<void> {
    this.#client.disconnect(monotonicUs());
    this.#driver.turn();
    await new Promise((resolve) => setTimeout(resolve, FAREWELL_MS));
    await this.#driver.stop();
    this.#client.close();
    await this.#port.close();
    await this.#mailbox?.close();
    await this.#exit.close();
  }
}

/** What a core computes with, in the invitation's protocol. */
function kernelsOf(
  native: Native | string,
  { protocol }: Invitation,
  { compression, headers, repair }: PlaneWishes,
) {
  const suite = suiteOf(native, { forged: DROP.forged });
  const { primitives, makeAead, makeDatagramAead, aeads } = suite.crypto;
  useBlake2s(suite.blake2s);
  if (protocol === "wireguard") return { primitives, makeAead };
  return {
    primitives,
    makeAead,
    makeDatagramAead,
    aeads,
    ...(compression ? { lz4: suite.makeLz4() } : {}),
    ...(repair.enabled ? { repair: repairOptions(suite.makeShards(), repair) } : {}),
    compressionThreshold: DEFAULTS.compressionThreshold,
    headerMethods: headers,
    headerContexts: headers.length > 0 ? DEFAULTS.headers.contexts : undefined,
  };
}

/** The core, which knows its relay's keys and not where the relay is. */
function makeClient(
  invitation: Invitation,
  exit: Exit,
  isNative: boolean,
  kernels: ReturnType<typeof kernelsOf>,
  wishes: PlaneWishes,
  arena: Arena,
  metrics: Metrics,
): Client {
  const privateKey = keyFromText(invitation.privateKey)!;
  const { priorities, rules, batching, upBytesPerS, downBytesPerS, congestionAlgorithm, repair } = wishes;
  const inner = (isIpv6: boolean) =>
    invitation.addresses.find((one) => one.includes(":") === isIpv6)?.split("/")[0];
  const client = new Client({
    arena,
    metrics,
    ...kernels,
    random: (bytes) => void crypto.getRandomValues(bytes as Uint8Array<ArrayBuffer>),
    limits: WIREGUARD_LIMITS,
    privateKey,
    ipv4: inner(false) ?? "0.0.0.0",
    ipv6: inner(true),
    mtu: invitation.mtu,
    exitIsSource: exit.name === "userspace",
    // The event loop's timers would hold packets for a millisecond and more.
    batchWaitUs: !batching ? -1 : isNative && exit.descriptor !== undefined ? BATCH_WAIT_US : 0,
    queues: {
      ...queuesOptions({ ...DEFAULTS, congestionAlgorithm, repair })!,
      bytesPerS: upBytesPerS ?? 0,
      // Who says what the line takes need not have it found.
      ...(upBytesPerS === undefined ? {} : { findsRates: false }),
    },
    receiveBytesPerS: downBytesPerS,
    trusted: invitation.trusted,
    maxConnections: 1,
    rateLimitPerIp: 1,
    worker: 0,
    unixOffsetUs: wallClockOffsetUs(),
  }, {
    publicKey: invitation.relayPublicKey,
    presharedKey: invitation.presharedKey,
    ...(invitation.routes.length === 0 ? {} : { allowedIps: invitation.routes }),
    persistentKeepaliveS: invitation.keepaliveS,
    protocol: invitation.protocol,
  });
  privateKey.fill(0);
  client.setClassRules(rules);
  for (const one of priorities) client.hint(one, one.trafficClass);
  return client;
}

/** A port with a door for each interface, of which none has a door yet. */
function openDoors(
  native: Native,
  metrics: Metrics,
  onFailing: (door: number, isFailing: boolean) => void,
): MultiPort {
  const onRefused = (datagrams: number) => metrics.drop(DROP.port_error, datagrams);
  return onAnyAddress((host) => new MultiPort({ native, host, onRefused, onFailing }));
}

/** Bound to no address and a port of the system's choice. */
function openPort(native: Native | string, arena: Arena, metrics: Metrics): Port {
  return onAnyAddress((host): Port =>
    typeof native === "string"
      ? new UdpPort({ host, port: 0, arena, onDrop: (reason) => metrics.drop(DROP[reason]) })
      : new MmsgPort({
        native,
        host,
        port: 0,
        onRefused: (datagrams) => metrics.drop(DROP.port_error, datagrams),
      })
  );
}

function onAnyAddress<Opened>(open: (host: string) => Opened): Opened {
  try {
    return open("::");
  } catch {
    return open("0.0.0.0"); // a system without IPv6
  }
}
