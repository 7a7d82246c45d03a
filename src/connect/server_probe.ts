/**
 * One probe of one relay (PROTOCOL §11): the round trip to the relay, by a handshake that asks for no session, from a socket
 * of its own. Invariant: whatever the probe opens is closed when it resolves, and no session is made or touched. Decides
 * nothing.
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

/** Milliseconds to the relay and back, or undefined where it does not answer in `timeoutMs` or would refuse a session. */
export async function probe(
  invitation: Invitation,
  address: string,
  port: number,
  timeoutMs: number,
): Promise<number | undefined> {
  const metrics = new Metrics(), arena = new Arena(ARENA_SLOTS);
  const privateKey = keyFromText(invitation.privateKey)!;
  const { relayPublicKey: publicKey, presharedKey } = invitation;
  const client = new Client({
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
  let socket: UdpPort | undefined;
  try {
    const host = address.includes(":") ? "::" : "0.0.0.0";
    socket = new UdpPort({ host, port: 0, arena, onDrop: (reason) => metrics.drop(DROP[reason]) });
    const driver = new Driver(arena, client, socket, NO_EXIT, metrics);
    driver.start();
    client.connect(address, port, monotonicUs());
    driver.turn();
    try {
      for (const endMs = performance.now() + timeoutMs; performance.now() < endMs;) {
        const answer = client.takeProbeAnswer();
        if (answer) return answer.isFull ? undefined : answer.rttUs / 1000;
        await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
      }
      return undefined;
    } finally {
      await driver.stop();
    }
  } catch {
    return undefined; // no network of this family is like no answer
  } finally {
    client.close();
    socket?.close();
  }
}
