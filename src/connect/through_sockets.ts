/**
 * `connect` without privilege: a SOCKS proxy and forwarded ports instead of a device. Invariant: nothing of the host is changed,
 * and whatever listens here is closed at the end. Moves no packet itself.
 */
import { loadNative, type Native } from "../../ffi/native.ts";
import { formatEndpoint } from "../config.ts";
import { Dialler } from "../exit/userspace/dialler.ts";
import { AppHints } from "./app_hints.ts";
import type { AppPriority } from "./app_sockets.ts";
import type { Invitation } from "./invitation.ts";
import { LocalPlane } from "./link/local_plane.ts";
import { Doors as LinkDoors } from "./link/doors.ts";
import { Link } from "./link/mod.ts";
import type { PlaneWishes } from "./link/plane.ts";
import type { DoorOptions } from "./options.ts";
import { openFallback, type Place, resolveServers } from "./place.ts";
import { resolveThrough } from "./resolve.ts";
import { run } from "./run.ts";
import { type Doors, forward, serveSocks } from "./socks/mod.ts";
import { Names } from "./socks/names.ts";
import type { LinkView } from "./view.ts";

/** A proxy and forwarded ports, for whoever may not make a device. */
export async function throughSockets(
  place: Place,
  doors: DoorOptions,
  wishes: PlaneWishes,
  apps: AppPriority[],
  view: LinkView,
): Promise<number> {
  const { invitation } = place;
  const native = loadNative();
  if (typeof native === "string") view.say(`TCP by WebAssembly, packets one at a time: ${native}`);
  const servers = await resolveServers(place);
  await servers.round(false, performance.now());
  const { dialler, names } = openDialler(native, invitation);
  const opened: Doors[] = [];
  const { socks, forwards } = doors;
  const fallback = await openFallback(invitation, servers, view, () => Promise.resolve());
  try {
    if (socks) opened.push(serveSocks(dialler, names, socks.host, socks.port));
    for (const one of forwards) opened.push(forward(dialler, names, one));
    const plane = new LocalPlane(invitation, dialler, native, wishes, fallback?.mailboxes);
    const link = new Link({
      servers,
      plane,
      fallback,
      ownDevice: "",
      doors: wishes.paths && new LinkDoors(wishes.paths, "", (message) => view.say(message)),
      isWatched: view.isWatched,
      say: (message) => view.say(message),
      onMoved: () => Promise.resolve(),
      // Its connections begin with an MSS that fits, and what is larger is cut.
      onMtu: () => Promise.resolve(),
    });
    view.about = describe(doors);
    view.say(view.about);
    const appHints = new AppHints({
      apps,
      hint: (flows, trafficClass) => plane.hint(flows, trafficClass),
      innerPort: ({ protocol, port }) =>
        opened.map((one) => one.innerPort(protocol, port)).find((inner) => inner !== undefined),
    });
    return await run(link, appHints, view, {
      isPatient: false,
      onConnected: () => Promise.resolve(),
      onGuard: () => Promise.resolve(),
    });
  } finally {
    for (const one of opened) one.close();
  }
}

/** The exit that connections begin in, and names as they are resolved through the tunnel. */
function openDialler(
  native: Native | string,
  { addresses, mtu, dns, search = [] }: Invitation,
): { dialler: Dialler; names: Names } {
  // The first of each family; the others are for who listens.
  const own = [false, true].flatMap((isIpv6) =>
    addresses.find((one) => one.includes(":") === isIpv6)?.split("/")[0] ?? []
  );
  const dialler = new Dialler({ native, addresses: own, mtu });
  const has = (isIpv6: boolean) => own.some((one) => one.includes(":") === isIpv6);
  const families = { ipv4: has(false), ipv6: has(true) };
  const lookUp = async (name: string, found: (addresses: readonly string[]) => void) => {
    let isFound = false;
    const note = (addresses: readonly string[]) => {
      isFound = true;
      found(addresses);
    };
    for (const domain of /\./.test(name) ? [] : search) {
      await resolveThrough(dialler, dns, `${name}.${domain}`, families, note);
      if (isFound) return;
    }
    await resolveThrough(dialler, dns, name, families, note);
  };
  return { dialler, names: new Names(lookUp) };
}

/** What listens here and where it leads, for people. */
function describe({ socks, forwards }: DoorOptions): string {
  return [
    ...(socks ? [`SOCKS5 on ${formatEndpoint(socks)}`] : []),
    ...forwards.map(({ port, host, hostPort }) =>
      `127.0.0.1:${port} is ${formatEndpoint({ host, port: hostPort })}`
    ),
  ].join("; ");
}
