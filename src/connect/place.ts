/**
 * Where the relay of an invitation may be reached: its servers by name and address, and the way over TLS where UDP is blocked.
 * Invariant: names are resolved outside the tunnel, and a name that cannot be resolved again keeps its last address. Decides
 * nothing and opens no socket but for probes.
 */
import type { Endpoint } from "../config.ts";
import type { Invitation } from "./invitation.ts";
import { LinkFallback } from "./link/fallback.ts";
import { probe } from "./server_probe.ts";
import { type Resolve, resolveHost, Servers } from "./servers.ts";
import type { LinkView } from "./view.ts";

const PROBE_MS = 1000;

/** Who this device is to its relay, and where the relay, or one of several, may be reached. */
export interface Place {
  invitation: Invitation;
  endpoints: Endpoint[];
}

export function resolveServers({ invitation, endpoints }: Place, resolve?: Resolve): Promise<Servers> {
  return Servers.resolve(endpoints, (address, port) => probe(invitation, address, port, PROBE_MS), resolve);
}

/**
 * The fallback over TLS, where the invitation names one. Its host is resolved now, outside the tunnel, and again with each dial,
 * after which `onMoved` is called if the address is another one. A host that cannot be resolved has the relay's own address.
 */
export async function openFallback(
  { endpoint, fallback, protocol }: Invitation,
  servers: Servers,
  view: LinkView,
  onMoved: () => Promise<void>,
  resolveName: Resolve = resolveHost,
): Promise<LinkFallback | undefined> {
  if (fallback === undefined || protocol !== "oxtunnel") return undefined;
  // The link itself follows the relay's own name; of several relays this is that one's, as it has the certificate.
  const resolve = () =>
    fallback.host === endpoint.host
      ? Promise.resolve(servers.addressOf(fallback.host) ?? servers.address)
      : resolveName(fallback.host).then(([first]) => first);
  const address = await resolve().catch(() => servers.address);
  const say = (message: string) => view.say(message);
  return new LinkFallback({ endpoint: fallback, address, resolve, onMoved, say });
}
