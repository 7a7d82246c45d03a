/**
 * Probes of relays (PROTOCOL §11): the round trip to the relay, by a handshake that asks for no session, from a socket of the
 * probe's own. Invariant: what `probe` opens is closed when it resolves, and no session is made or touched. Decides nothing.
 */
import { Client } from "../client.ts";
import { portableSuite } from "../codec/suite.ts";
import type { Exit } from "../exit/exit.ts";
import { Driver, monotonicUs, wallClockOffsetUs } from "../io/driver.ts";
import { UdpPort } from "../io/udp.ts";
import { DROP, Metrics } from "../metrics.ts";
import { WIREGUARD_LIMITS } from "../session/limits.ts";
import { Arena } from "../vector/arena.ts";
import type { Invitation } from "./invitation.ts";
import { keyFromText } from "../process/keys_text.ts";

const ARENA_SLOTS = 64;
const LOOK_MS = 10;

/** A probe carries no packets. */
const NO_EXIT: Exit = {
  name: "none",
  description: "no exit",
  send: () => {},
  receive: () => 0,
  onReadable: () => {},
  handleTimeout: () => {},
  flowCount: 0,
  close: () => Promise.resolve(),
};

/** An answer to a probe. */
export interface ProbeAnswer {
  rttMs: number;
  /** Whether a session would have been refused. */
  isRefused: boolean;
  /** Where the relay saw the probe come from; absent from older relays. */
  seen?: { address: Uint8Array; port: number };
}

/** Milliseconds to the relay and back, or undefined where it does not answer in `timeoutMs` or would refuse a session. */
export async function probe(
  invitation: Invitation,
  address: string,
  port: number,
  timeoutMs: number,
): Promise<number | undefined> {
  const prober = Prober.open(invitation, address.includes(":"));
  try {
    const answer = await prober?.ask(address, port, timeoutMs);
    return answer === undefined || answer.isRefused ? undefined : answer.rttMs;
  } finally {
    await prober?.close();
  }
}

/** One socket, for probes of several relays of one key, one after the other. */
export class Prober {
  readonly #client: Client;
  readonly #driver: Driver;
  readonly #socket: UdpPort;

  /** Undefined where this machine has no network of the family. */
  static open(invitation: Invitation, isIpv6: boolean): Prober | undefined {
    const metrics = new Metrics(), arena = new Arena(ARENA_SLOTS);
    const host = isIpv6 ? "::" : "0.0.0.0";
    let socket: UdpPort;
    try {
      socket = new UdpPort({ host, port: 0, arena, onDrop: (reason) => metrics.drop(DROP[reason]) });
    } catch {
      return undefined; // no network of this family is like no answer
    }
    return new Prober(invitation, socket, arena, metrics);
  }

  private constructor(invitation: Invitation, socket: UdpPort, arena: Arena, metrics: Metrics) {
    const privateKey = keyFromText(invitation.privateKey)!;
    const { relayPublicKey: publicKey, presharedKey } = invitation;
    this.#socket = socket;
    this.#client = new Client({
      arena,
      metrics,
      ...portableSuite({ forged: DROP.forged }).crypto,
      random: (bytes) => void crypto.getRandomValues(bytes as Uint8Array<ArrayBuffer>),
      limits: WIREGUARD_LIMITS,
      privateKey,
      ipv4: "0.0.0.0",
      ipv6: undefined,
      mtu: invitation.mtu,
      maxConnections: 1,
      rateLimitPerIp: 1,
      worker: 0,
      unixOffsetUs: wallClockOffsetUs(),
    }, { publicKey, presharedKey, isProbe: true });
    privateKey.fill(0);
    this.#driver = new Driver(arena, this.#client, socket, NO_EXIT, metrics);
    this.#driver.start();
  }

  /** The port of this machine's end. */
  get localPort(): number {
    return this.#socket.localPort;
  }

  /** Probes the relay at the address; undefined where it does not answer in `timeoutMs`, after which this socket is of no more use. */
  async ask(address: string, port: number, timeoutMs: number): Promise<ProbeAnswer | undefined> {
    try {
      this.#client.connect(address, port, monotonicUs());
      this.#driver.turn();
    } catch {
      return undefined; // no way there is like no answer
    }
    for (const endMs = performance.now() + timeoutMs; performance.now() < endMs;) {
      const answer = this.#client.takeProbeAnswer();
      if (answer) return { ...answer, rttMs: answer.rttUs / 1000 };
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
    return undefined;
  }

  async close(): Promise<void> {
    await this.#driver.stop();
    this.#client.close();
    this.#socket.close();
  }
}
