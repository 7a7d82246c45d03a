/**
 * The times and counts that govern a session: the constants of the WireGuard whitepaper §6.1, in microseconds and
 * messages, OxTunnel's of PROTOCOL §10 and §15, and this relay's own bounds. Invariant: the values are constants of a
 * process. Data only: the outbox, the epochs, the gate and the protocols obey them.
 */

const SECOND_US = 1_000_000;

export interface Limits {
  /** The initiator makes a new key after this age. */
  rekeyAfterUs: number;
  /** No key older than this is used in either direction; it is erased then. */
  rejectAfterUs: number;
  /** Wait for a handshake response before the next attempt. */
  rekeyTimeoutUs: number;
  /** Handshake attempts end after this long. */
  rekeyAttemptUs: number;
  /** Silence after received data that a keepalive breaks. */
  keepaliveUs: number;
  /** A random part of up to this is added to every retry, so that two ends do not march in step. */
  jitterUs: number;
  /** Messages after which either end makes a new key. WireGuard's 2^60 lies beyond the counters here. */
  rekeyAfterMessages: number;
  /** Messages after which a key is dead. WireGuard allows 2^64 - 2^13 - 1; counters here are exact to 2^53. */
  rejectAfterMessages: number;
  /** The life of a cookie secret. */
  cookieUs: number;
  /** The shortest time between two initiations of one peer that are answered. */
  initiationIntervalUs: number;
  /** Initiations a second, over all sources, above which cookies are asked for. */
  initiationsPerSecond: number;
  /** OxTunnel: what replaces `rekeyTimeoutUs` before the first repeats while there is no live path (PROTOCOL §10). */
  firstRetriesUs: readonly number[];
  /** OxTunnel: how long a key or session still opens packets after its successor is in use (PROTOCOL §10, §15). */
  graceUs: number;
  /** OxTunnel: the life of a session, after which a handshake makes another (PROTOCOL §15). */
  sessionUs: number;
  /** OxTunnel: datagrams that one epoch has sealed after which the next is asked for (PROTOCOL §15). */
  rekeyAfterDatagrams: number;
  /** Packets that wait for one peer's handshake. */
  stagedPackets: number;
}

export const WIREGUARD_LIMITS: Limits = Object.freeze({
  rekeyAfterUs: 120 * SECOND_US,
  rejectAfterUs: 180 * SECOND_US,
  rekeyTimeoutUs: 5 * SECOND_US,
  rekeyAttemptUs: 90 * SECOND_US,
  keepaliveUs: 10 * SECOND_US,
  jitterUs: 333_000,
  rekeyAfterMessages: 2 ** 52,
  rejectAfterMessages: 2 ** 53 - 2 ** 13 - 1,
  cookieUs: 120 * SECOND_US,
  initiationIntervalUs: 20_000,
  initiationsPerSecond: 200,
  firstRetriesUs: Object.freeze([250_000, SECOND_US, 2 * SECOND_US, 2 * SECOND_US, 2 * SECOND_US]),
  graceUs: 3 * SECOND_US,
  sessionUs: 86_400 * SECOND_US,
  rekeyAfterDatagrams: 2 ** 27,
  stagedPackets: 64,
});

/** The same limits with every session time divided by `factor`, for tests that cannot wait two minutes. */
export function scaledLimits(factor: number): Limits {
  const limits = { ...WIREGUARD_LIMITS };
  for (
    const key of ["rekeyAfterUs", "rejectAfterUs", "rekeyTimeoutUs", "rekeyAttemptUs", "keepaliveUs"] as const
  ) {
    limits[key] = Math.round(limits[key] / factor);
  }
  return limits;
}
