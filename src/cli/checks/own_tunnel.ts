/**
 * A tunnel of a measuring subcommand's own, beside nothing: one device has one tunnel at a time. Invariant: nothing of this machine
 * is changed, no packet goes through the tunnel but those of the exit that it is given, and relays other than those of the
 * invitation or the command line are never spoken to. Measures nothing itself.
 */
import { loadNative } from "../../../ffi/native.ts";
import { DEFAULTS } from "../../config.ts";
import type { Invitation } from "../../connect/invitation.ts";
import type { PlaneWishes } from "../../connect/link/plane.ts";
import type { Port } from "../../io/port.ts";
import { LocalPlane } from "../../connect/link/local_plane.ts";
import { explainRefusal } from "../../connect/refusal.ts";
import { probe } from "../../connect/server_probe.ts";
import { Servers } from "../../connect/servers.ts";
import type { Endpoint } from "../../config.ts";
import type { Exit } from "../../exit/exit.ts";
import { CLIENT_DEVICE } from "../../exit/tun/client_rules.ts";
import { CommandError } from "../../process/help.ts";
import { isBar } from "../../wire/parameters.ts";

const ANSWER_MS = 10_000, PROBE_MS = 1000, FIRST_LOOK_MS = 50;

/** Throws CommandError where `connect` has this device's one tunnel; `instead` says what does then. */
export function refuseBesideConnect(instead: string): void {
  if (Deno.networkInterfaces().some(({ name }) => name === CLIENT_DEVICE)) {
    throw new CommandError(`connect runs here, and one device has one tunnel at a time; ${instead}`);
  }
}

/** The relays of these endpoints, of which the nearest is chosen. Throws CommandError when no name can be resolved. */
export async function nearestOf(invitation: Invitation, endpoints: readonly Endpoint[]): Promise<Servers> {
  const servers = await Servers.resolve(
    endpoints,
    (address, port) => probe(invitation, address, port, PROBE_MS),
  );
  await servers.round(false, performance.now());
  return servers;
}

/**
 * A tunnel whose packets are the exit's alone, without repair, compression or batching; `connect` it, and close it at the end. It
 * goes over a socket of UDP, or over `port`.
 */
export function openOwnPlane(invitation: Invitation, exit: Exit, port?: Port): LocalPlane {
  const wishes: PlaneWishes = {
    priorities: [],
    rules: [],
    compression: false,
    headers: [],
    batching: true,
    goesFirst: false,
    congestionAlgorithm: "none",
    repair: { ...DEFAULTS.repair, enabled: false },
  };
  const makePort = port && (() => port);
  return new LocalPlane(invitation, exit, loadNative(), wishes, undefined, undefined, makePort);
}

/** Resolves once the tunnel has a session. Throws CommandError when the relay does not answer. */
export async function sessionOf(plane: LocalPlane, { address }: Servers): Promise<void> {
  for (const endMs = performance.now() + ANSWER_MS; performance.now() < endMs;) {
    const { relay, refused } = await plane.look(false);
    if (relay.connected) return;
    if (refused !== undefined && isBar(refused)) throw new CommandError(explainRefusal(refused, address));
    await new Promise((resolve) => setTimeout(resolve, FIRST_LOOK_MS));
  }
  throw new CommandError(
    `no answer from the relay at ${address} in ${
      ANSWER_MS / 1000
    } s: it may be off, UDP may be blocked on the way, or it ` +
      "does not know this device",
  );
}
