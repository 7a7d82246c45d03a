/**
 * Additions, changes and removals of peers that a running relay carries out, over its admin interface, and what a person is told when
 * none does. Invariant: a relay that cannot be asked is no failure of the change, which the caller then makes in the store; what
 * the relay refuses is one. Opens no store.
 */
import type { Config } from "../config.ts";
import { CommandError } from "../process/help.ts";
import { recordMistake } from "../serve/peers_file.ts";
import type { BarReason, PeerRecord } from "../session/peer_record.ts";
import type { PeerRow } from "../admin/mod.ts";
import type { PeerChange } from "../serve/access/peer_change.ts";
import { adminUrl } from "../serve/admin_address.ts";
import { askRelay, NoRelayError, RefusedError } from "./admin_client.ts";
import type { Status } from "./status.ts";

/**
 * Longer than a relay takes to give up on a Worker that does not answer and to take the peer back (live_peers.ts): whoever asks the
 * store earlier would see a peer that is about to go.
 */
const ADD_TIMEOUT_MS = 20_000;
/** Of HTTP: the request is well-formed, and the relay will not do it. */
const CONFLICT = 409;

/**
 * Has the running relay store and serve a peer, of which it makes no key. Returns its record, or why the relay was not asked or
 * gave no answer of use, in which case it may have stored the peer all the same. Throws RefusedError with the relay's words.
 */
export async function addByRelay(
  config: Config,
  peer: Omit<PeerRecord, "allowedIps" | "created"> & { network: string },
): Promise<PeerRecord | Error> {
  let reply: unknown;
  try {
    reply = await askRelay(config, "POST", "/v1/peers", peer, ADD_TIMEOUT_MS);
  } catch (error) {
    // A disk that refuses the relay may let this process write.
    if (error instanceof RefusedError && error.status === CONFLICT && error.field !== "store") throw error;
    if (error instanceof CommandError || error instanceof Deno.errors.NotCapable) return error;
    throw error;
  }
  const record = reply as PeerRecord;
  if (
    recordMistake(reply) !== undefined || record.publicKey !== peer.publicKey || record.name !== peer.name
  ) {
    return new CommandError(
      `${adminUrl(config.metricsListen)} answered with another peer, not as a relay does`,
    );
  }
  return record;
}

/**
 * Has the running relay add forwards to a peer, or take one from it. Returns the peer's record where the relay gives it, or why
 * the relay was not asked. Throws RefusedError with the relay's words.
 */
export async function forwardByRelay(
  config: Config,
  name: string,
  change: { add: string[] } | { remove: string },
): Promise<PeerRecord | "removed" | Error> {
  const path = `/v1/peers/${encodeURIComponent(name)}/forwards`;
  try {
    if ("remove" in change) {
      await askRelay(config, "DELETE", `${path}/${encodeURIComponent(change.remove)}`);
      return "removed";
    }
    return await askRelay(config, "POST", path, { forwards: change.add }, ADD_TIMEOUT_MS) as PeerRecord;
  } catch (error) {
    if (error instanceof RefusedError) throw error;
    if (error instanceof CommandError || error instanceof Deno.errors.NotCapable) return error;
    throw error;
  }
}

/**
 * Has the running relay change a peer: "changed", "unknown" where it has none of that name, or why the relay was not asked. Throws
 * RefusedError with the relay's words.
 */
export async function changeByRelay(
  config: Config,
  name: string,
  change: PeerChange,
): Promise<"changed" | "unknown" | Error> {
  try {
    await askRelay(config, "PATCH", `/v1/peers/${encodeURIComponent(name)}`, change, ADD_TIMEOUT_MS);
    return "changed";
  } catch (error) {
    if (error instanceof RefusedError) {
      if (error.status === 404) return "unknown";
      throw error;
    }
    if (error instanceof CommandError || error instanceof Deno.errors.NotCapable) return error;
    throw error;
  }
}

/** What the running relay tells of a peer; undefined where it tells nothing. */
export async function askLive(config: Config, name: string): Promise<PeerRow | undefined> {
  try {
    return await askRelay(config, "GET", `/v1/peers/${encodeURIComponent(name)}`) as PeerRow;
  } catch (error) {
    if (error instanceof CommandError || error instanceof Deno.errors.NotCapable) return undefined;
    throw error;
  }
}

/** Who may not connect, as the running relay knows it, by name; nobody where it tells nothing. */
export async function askKeptOut(config: Config): Promise<Map<string, BarReason>> {
  try {
    const { keptOut = [] } = await askRelay(config, "GET", "/v1/status") as Status;
    return new Map(keptOut.map(({ name, reason }) => [name, reason]));
  } catch (error) {
    if (error instanceof CommandError || error instanceof Deno.errors.NotCapable) return new Map();
    throw error;
  }
}

/** Removes a peer by the running relay: "removed", "unknown" there, or why the relay was not asked. Throws RefusedError. */
export async function removeByRelay(config: Config, name: string): Promise<"removed" | "unknown" | Error> {
  try {
    await askRelay(config, "DELETE", `/v1/peers/${encodeURIComponent(name)}`);
    return "removed";
  } catch (error) {
    if (error instanceof RefusedError) {
      if (error.status === 404 || error.status === 400) return "unknown";
      throw error;
    }
    return error as Error;
  }
}

/** Makes a running relay read the peers again; the result is the exit code. A relay that does not run reads them when it starts. */
export async function tellRelay(config: Config): Promise<number> {
  try {
    const reply = await askRelay(config, "POST", "/v1/reload") as { peers?: { total?: unknown } } | null;
    console.error(`The running relay knows: it serves ${Number(reply?.peers?.total)} peers now.`);
    return 0;
  } catch (error) {
    return explainUntold(config, error);
  }
}

/** Says why a relay does not know of a change that is stored; the result is the exit code. */
export function explainUntold(config: Config, error: unknown): number {
  if (error instanceof NoRelayError) {
    console.error("The relay is not running; it will read this when it starts (deno task serve).");
    return 0;
  }
  if (error instanceof Deno.errors.NotCapable) {
    console.error(
      `A running relay was not told, because this task may not reach ${
        adminUrl(config.metricsListen)
      }; send it SIGHUP.`,
    );
    return 0;
  }
  if (error instanceof CommandError) {
    console.error(`Done, but the running relay was not told: ${error.message}; or send it SIGHUP.`);
    return 1;
  }
  throw error;
}
