/**
 * The answer to a peer that is kept out (PROTOCOL §10, §11): a refusal with the reason. Invariant: only an initiation that has
 * authenticated and repeats no earlier one is answered or changes anything, and what it changes is when the peer was answered; so nobody
 * else learns that a key is known here. Makes no session, and decides nobody's bar.
 * Keeps PROTOCOL R30.
 */
import { DROP } from "../../metrics.ts";
import { type Burst, TO_PARSE_ADMITTED, TO_TRANSMIT } from "../../vector/burst.ts";
import { OX_TIMESTAMP_BYTES, oxMac1At } from "../../wire/oxtunnel.ts";
import {
  type Parameters,
  readParameters,
  REFUSED_DISABLED,
  REFUSED_EXPIRED,
  REFUSED_VOLUME,
  writeParameters,
} from "../../wire/parameters.ts";
import { isLater } from "../../wire/timestamp.ts";
import { readSender } from "../../wire/wireguard.ts";
import { CookieJar, OXTUNNEL_COOKIES } from "../cookie.ts";
import { freshBytes, type OpenedInitiation, wipeHandshake } from "../noise.ts";
import type { BarReason } from "../peer_record.ts";
import { type BarredPeer, base64 } from "../peers.ts";
import type { Shared } from "../shared.ts";
import {
  createOxResponse,
  openOxPayload,
  oxResponseBytes,
  takeOxEarlyData,
  wipeSecrets,
} from "./handshake.ts";

const REFUSALS: Record<BarReason, number> = {
  disabled: REFUSED_DISABLED,
  expired: REFUSED_EXPIRED,
  volume: REFUSED_VOLUME,
};

/** A month ends by itself, and nobody here knows when; what an operator does has no time. */
const RETRY_WHEN_USED_UP_S = 3600;
const PARAMETERS_MAX_BYTES = 64;

/**
 * False for an initiation of a peer that is not barred. Else answers the one in `row` over itself, hands it to the Worker that does, or
 * says in `next` why it gets no answer, and wipes the handshake's state.
 * @param seen where the datagram came from, for one that is a probe.
 */
export function answerBarred(
  shared: Shared,
  burst: Burst,
  row: number,
  message: Uint8Array,
  opened: OpenedInitiation,
  seen: Parameters["seen"],
  nowUs: number,
): boolean {
  const { metrics, peers, table } = shared;
  const barred = peers.barred.size === 0 ? undefined : peers.barred.get(base64(opened.peerStatic));
  if (barred === undefined) return false;
  if (barred.owner !== table.worker) {
    burst.handOver(row, barred.owner, TO_PARSE_ADMITTED);
    metrics.add("handshakes_handed_over", 1);
  } else {
    const drop = refuse(shared, burst, row, message, opened, barred, seen, nowUs);
    if (drop === 0) {
      burst.next[row] = TO_TRANSMIT;
      metrics.drop(DROP.barred_peer); // the row becomes the answer, so nobody else counts it
      metrics.add("handshake_responses", 1);
    } else burst.next[row] = drop;
  }
  wipeHandshake(opened.state);
  return true;
}

/** Writes the refusal; otherwise a drop code. */
function refuse(
  { primitives, limits, random }: Shared,
  burst: Burst,
  row: number,
  message: Uint8Array,
  opened: OpenedInitiation,
  barred: BarredPeer,
  seen: Parameters["seen"],
  nowUs: number,
): number {
  const payload = openOxPayload(primitives, message, opened, barred.staticSecret);
  const said = payload && readParameters(payload, OX_TIMESTAMP_BYTES, payload.length - OX_TIMESTAMP_BYTES);
  if (!said) return DROP.handshake_failed;
  const timestamp = payload.subarray(0, OX_TIMESTAMP_BYTES);
  const isFresh = isLater(timestamp, barred.lastTimestamp) &&
    nowUs - barred.lastInitiationTakenUs >= limits.initiationIntervalUs;
  if (!isFresh) return DROP.handshake_replay;
  barred.lastTimestamp.set(timestamp);
  barred.lastInitiationTakenUs = nowUs;
  takeOxEarlyData(primitives, message, opened, undefined);
  const { reason } = barred;
  const retryAfterS = reason === "volume" ? RETRY_WHEN_USED_UP_S : 0;
  const parameters = new Uint8Array(PARAMETERS_MAX_BYTES);
  const end = writeParameters(parameters, 0, {
    refused: { reason: REFUSALS[reason], retryAfterS },
    ...(said.probe ? { seen } : {}),
  });
  const sender = readSender(burst.view, burst.offset[row]);
  const response = message.subarray(0, oxResponseBytes(end));
  const secrets = createOxResponse(
    primitives,
    response,
    0,
    sender,
    opened,
    barred.presharedKey,
    freshBytes(random, 32),
    parameters.subarray(0, end),
  );
  if (!secrets) return DROP.handshake_failed;
  wipeSecrets(secrets);
  const jar = new CookieJar(barred.publicKey, limits.cookieUs, undefined, 0, OXTUNNEL_COOKIES);
  jar.sign(response, oxMac1At(response.length), nowUs);
  burst.length[row] = response.length;
  return 0;
}
