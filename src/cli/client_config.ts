/**
 * What a device needs to reach this relay: the relay's outer address, chosen, and a WireGuard configuration as text. Invariant:
 * the text is what wg-quick(8) and the WireGuard apps load unchanged. Writes nothing anywhere and makes no key.
 */
import { type Config, type Environment, formatEndpoint, parseEndpoint } from "../config.ts";
import { UsageError } from "../process/help.ts";
import type { PeerRecord } from "../session/peer_record.ts";
import { type Address, isIpv4, parseAddress, prefixContains } from "../wire/address.ts";
import { isGlobal, rangesOf } from "../wire/special_ranges.ts";

const UNUSABLE = rangesOf("loopback", "link_local");

/**
 * How clients reach the relay, "host:port", and what the person should know about the choice: the flag, else
 * public_endpoint, else Fly's name, else the address listened on, else this machine's best address (global before
 * private, IPv4 before IPv6). Throws UsageError when there is none.
 */
export function chooseEndpoint(
  given: string | undefined,
  config: Config,
  env: Environment,
  interfaces: () => { name: string; address: string }[],
): { text: string; note?: string } {
  if (given !== undefined) {
    if (parseEndpoint(given) === undefined) {
      throw new UsageError('--endpoint: expected "host:port" such as "relay.example.com:4433"');
    }
    return { text: given };
  }
  if (config.publicEndpoint !== undefined) return { text: config.publicEndpoint };
  const { host, port } = config.listen;
  if (env.FLY_APP_NAME) return { text: `${env.FLY_APP_NAME}.fly.dev:${port}` };
  const bound = parseAddress(host);
  const candidates = bound !== undefined && bound[3] !== 0 ? [{ host, address: bound }] : interfaces()
    // The relay's own device leads nowhere from outside.
    .filter(({ name }) => name !== config.tunName)
    .map(({ address }) => ({ host: address, address: parseAddress(address) }))
    .filter((one): one is { host: string; address: Address } => one.address !== undefined)
    .filter(({ address }) => !UNUSABLE.some((prefix) => prefixContains(prefix, address)));
  const rank = (address: Address) => (isGlobal(address) ? 0 : 2) + (isIpv4(address) ? 0 : 1);
  const [best] = candidates.toSorted((a, b) => rank(a.address) - rank(b.address));
  if (best === undefined) {
    throw new UsageError(
      "this machine has no address that a client could reach; name one with --endpoint HOST:PORT",
    );
  }
  const text = formatEndpoint({ host: best.host, port });
  const note = isGlobal(best.address)
    ? `Endpoint ${text} is this machine's own address; for another, use --endpoint or public_endpoint.`
    : `Endpoint ${text} is private: only devices in the same network reach it. For others use ` +
      `--endpoint PUBLIC_ADDRESS:${port}, or public_endpoint in oxrelay.toml, and forward UDP ${port} here.`;
  return { text, note };
}

/**
 * The client's configuration in the format of wg-quick(8) and the WireGuard apps. Without a private key (the
 * device has its own) a comment stands in its place.
 */
export function renderClientConfig({ record, privateKey, relayPublicKey, endpoint, config }: {
  record: PeerRecord;
  privateKey?: string;
  relayPublicKey: string;
  endpoint: string;
  config: Config;
}): string {
  const hasIpv6 = record.allowedIps.some((prefix) => prefix.includes(":"));
  const dns = config.dns.filter((address) => hasIpv6 || !address.includes(":"));
  return [
    "[Interface]",
    privateKey === undefined ? "# PrivateKey = (this device's own)" : `PrivateKey = ${privateKey}`,
    `Address = ${record.allowedIps.join(", ")}`,
    ...(dns.length === 0 ? [] : [`DNS = ${dns.join(", ")}`]),
    `MTU = ${config.mtu}`,
    "",
    "[Peer]",
    `PublicKey = ${relayPublicKey}`,
    ...(record.presharedKey === undefined ? [] : [`PresharedKey = ${record.presharedKey}`]),
    `Endpoint = ${endpoint}`,
    // A device whose MTU is below IPv6's 1280 cannot take an IPv6 route, and wg-quick would give up.
    `AllowedIPs = 0.0.0.0/0${hasIpv6 ? ", ::/0" : ""}`,
    "PersistentKeepalive = 25",
    "",
  ].join("\n");
}
