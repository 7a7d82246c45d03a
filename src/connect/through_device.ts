/**
 * `connect` as root: everything of the scope through a TUN device. Invariant: nothing is led into the tunnel before the relay has
 * answered, and everything that was changed is put back at the end, however it comes. Moves no packet itself.
 */
import { loadNative } from "../../ffi/native.ts";
import { ClientHost, isShut } from "../exit/tun/client.ts";
import { CLIENT_DEVICE, type OuterEndpoint, type Scope } from "../exit/tun/client_rules.ts";
import { CommandError } from "../process/help.ts";
import { AppHints } from "./app_hints.ts";
import type { AppPriority } from "./app_sockets.ts";
import type { Invitation } from "./invitation.ts";
import type { PlaneWishes } from "./link/plane.ts";
import { Doors } from "./link/doors.ts";
import { Link } from "./link/mod.ts";
import { PlaneWorkerHandle } from "./link/worker_handle.ts";
import { resolveOutside } from "./outside_names.ts";
import { openFallback, type Place, resolveServers } from "./place.ts";
import { run } from "./run.ts";
import { Gateway, type ShareWishes } from "./share/mod.ts";
import type { LinkView } from "./view.ts";

/** Prefixes that are written out in what it says. */
const NAMED_MAX = 8;

interface DeviceWishes {
  killSwitch: boolean;
  dns: boolean;
  share: ShareWishes | undefined;
  wishes: PlaneWishes;
  apps: AppPriority[];
}

/** Runs a link whose packets come from a TUN device; the result is the exit code. Throws CommandError. */
export async function throughDevice(
  place: Place,
  scope: Scope,
  device: DeviceWishes,
  view: LinkView,
): Promise<number> {
  const { invitation } = place;
  const { killSwitch, wishes, apps } = device;
  const say = (message: string) => view.say(message);
  const gateway = await sentence(() => Gateway.prepare(device.share, invitation, say));
  scope.exclude = [...scope.exclude, ...gateway.lan];
  const host = await sentence(() => openHost(invitation, scope, device, say));
  try {
    await sentence(() => gateway.shut());
    // What a killed connect had left of resolv.conf is undone by now; a kill switch of its may be closed still.
    const resolve = resolveOutside(host);
    const servers = await resolveServers(place, resolve).catch((error) => explainUnresolved(error, place));
    const outer = (): OuterEndpoint[] => [...servers.outer, ...(fallback ? [fallback.outer] : [])];
    let isRouted = false;
    // Nothing is led into a tunnel that was never up.
    const reroute = async () => {
      if (isRouted) await host.route(outer());
      else if (killSwitch) await host.shut(outer());
    };
    const fallback = await openFallback(invitation, servers, view, reroute, resolve);
    if (killSwitch) await sentence(() => host.shut(outer()));
    await servers.round(false, performance.now());
    const { descriptor } = host;
    const plane = new PlaneWorkerHandle(
      invitation,
      descriptor,
      CLIENT_DEVICE,
      say,
      wishes,
      fallback?.mailboxes,
    );
    const link = new Link({
      servers,
      plane,
      fallback,
      ownDevice: CLIENT_DEVICE,
      doors: wishes.paths && new Doors(wishes.paths, CLIENT_DEVICE, say),
      isWatched: view.isWatched,
      say,
      onMoved: reroute,
      onMtu: (innerMtu) => host.setMtu(innerMtu),
    });
    view.about = describe(scope, invitation, killSwitch);
    const appHints = new AppHints({
      apps,
      hint: (flows, trafficClass) => plane.hint(flows, trafficClass),
      innerPort: ({ port, isLoopback }) => isLoopback ? undefined : port,
    });
    return await run(link, appHints, view, {
      isPatient: killSwitch,
      onConnected: async () => {
        isRouted = true;
        await sentence(() => host.route(outer()));
        await sentence(() => gateway.start(plane));
      },
      onGuard: async () => {
        await host.guard();
        await gateway.guard();
      },
      onEnding: () => gateway.release(),
    });
  } finally {
    await gateway.close().finally(() => host.close());
  }
}

function openHost(
  { addresses, routes, mtu, dns, search = [] }: Invitation,
  scope: Scope,
  device: DeviceWishes,
  say: (message: string) => void,
): Promise<ClientHost> {
  return ClientHost.open({
    addresses,
    routes,
    mtu,
    dns: device.dns ? dns : [],
    search,
    scope,
    killSwitch: device.killSwitch,
    native: loadNative(),
    log: (_, message) => say(message),
  });
}

/** Rejects with why the relay's name cannot be resolved: `error`, unless a kill switch that was left is the reason. */
async function explainUnresolved(error: unknown, { endpoints }: Place): Promise<never> {
  if (!await isShut()) throw error;
  throw new CommandError(
    `${
      endpoints[0].host
    } cannot be resolved: the kill switch of a connect that was killed is closed still; name the ` +
      "relay's address with --server, or open it with: deno task connect --restore",
  );
}

/** What is written down about what goes where. */
function describe(
  { include, exclude, uid, cgroup }: Scope,
  { routes }: Invitation,
  killSwitch: boolean,
): string {
  const named = include.length > 0 ? include : routes;
  const more = named.length > NAMED_MAX ? ` and ${named.length - NAMED_MAX} more` : "";
  const what = named.length > 0 ? `${named.slice(0, NAMED_MAX).join(", ")}${more}` : "everything";
  const who = uid !== undefined ? ` of user ${uid}` : cgroup !== undefined ? ` of cgroup ${cgroup}` : "";
  return `${what}${who} goes through the tunnel${exclude.length > 0 ? ` but ${exclude.join(", ")}` : ""}${
    killSwitch ? "; kill switch on" : ""
  }`;
}

/** What the host refuses comes as a plain Error with a sentence; the person needs no stack. */
async function sentence<T>(action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    throw new CommandError((error as Error).message);
  }
}
