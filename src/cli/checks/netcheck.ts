/**
 * `netcheck`: what a device's network does with a tunnel: whether UDP gets out, by which families, through which kind of NAT, how
 * large packets may be, which relay is nearest, and whether UDP is slower than TLS. Invariant: only the relays of the invitation or
 * of the command line are spoken to; what was not seen is said to be unknown, with the reason. Changes nothing.
 */
import { formatEndpoint } from "../../config.ts";
import { dialFallback, type FallbackEndpoint } from "../../connect/fallback_dial.ts";
import type { Invitation } from "../../connect/invitation.ts";
import { readInvitation } from "../../connect/options.ts";
import { probe } from "../../connect/server_probe.ts";
import { resolveHost, type Servers } from "../../connect/servers.ts";
import { CLIENT_DEVICE } from "../../exit/tun/client_rules.ts";
import { StreamPort } from "../../io/stream_port.ts";
import { CommandError, readCommandLine } from "../../process/help.ts";
import { formatAddress } from "../../wire/address.ts";
import { STREAM_PORT_NUMBER, writeStreamAddress } from "../../wire/stream.ts";
import { runSpeedtest } from "../speedtest.ts";
import { formatRate } from "../status.ts";
import { type Nat, natOf, type Place } from "./nat.ts";
import { nearestOf, openOwnPlane, sessionOf } from "./own_tunnel.ts";
import { PingExit } from "./ping_exit.ts";

const HELP =
  `Checks this device's network, against the relays that an invitation or --server names and no others.

  deno task netcheck < laptop.conf          the config or the invitation in a file
  deno task netcheck                        asks for the invitation: one line that \`peer add\` printed

  --config FILE        a file of this folder with what \`peer add\` printed (default oxrelay-connect.conf, if it exists)
  --server HOST:PORT   a relay's address, in place of the config's; may be repeated: two show how the NAT maps ports
  --quick              without the comparison of UDP and TLS, which sends for some seconds
  --json               the result as one line of JSON, for programs

The device must be one of an Oxrelay relay. Needs no root and changes nothing.
`;

const PROBES = 3, GIVE_UP_AFTER = 2, PROBE_MS = 1000, BETWEEN_PROBES_MS = 30;
const PATH_SEARCH_MS = 8000, PATH_LOOK_MS = 200;
const RATE_SECONDS = 1, RATE_IDLE_US = 300_000;
/** UDP counts as slowed down when TLS carries so many times as much. */
const THROTTLED_BY = 2;

/** One relay's answers. */
export interface RelayAnswers {
  server: string;
  address: string;
  sent: number;
  answered: number;
  /** The least of them, milliseconds; absent without an answer. */
  rttMs?: number;
}

/** Bits a second of inner packets, as the receivers counted them. */
interface Rates {
  up: number;
  down: number;
}

export interface Netcheck {
  relays: RelayAnswers[];
  /** The nearest that answered. */
  nearest?: string;
  /** Of each family: whether a relay answered; undefined where no relay has an address of the family. */
  ipv4?: boolean;
  ipv6?: boolean;
  nat: Nat[];
  /** The largest packet that goes through the tunnel in one piece, bytes; or why it is not known. */
  innerMtu?: number | string;
  /** Whether the fallback over TLS can be reached, or why not; absent where the invitation names none. */
  fallback?: true | string;
  /** What UDP and TLS carry; or why nobody knows whether UDP is slowed down. */
  rates: { udp: Rates; tls: Rates; isThrottled: boolean } | string;
}

/** Runs the subcommand; the result is the exit code: 0 when UDP gets to a relay and back. */
export async function netcheck(args: string[]): Promise<number> {
  const { words, values, lists, flags } = readCommandLine(args, {
    values: ["config"],
    lists: ["server"],
    flags: ["json", "quick"],
    words: [0, 1],
  });
  if (flags.help) {
    console.log(HELP);
    return 0;
  }
  const { invitation, endpoints } = await readInvitation(words[0], values.config, lists.server, "oxtunnel");
  const places: Place[] = (await Promise.all(endpoints.map(async (endpoint) => {
    const addresses = await resolveHost(endpoint.host);
    return addresses.map((address) => ({ server: formatEndpoint(endpoint), address, port: endpoint.port }));
  }))).flat();
  const relays: RelayAnswers[] = [];
  // One after the other: a relay takes initiations of one key no sooner than 20 ms apart.
  for (const place of places) relays.push(await answersOf(invitation, place));
  const answering = places.filter((_, i) => relays[i].answered > 0);
  const nearest = relays.filter(({ rttMs }) => rttMs !== undefined).toSorted((a, b) => a.rttMs! - b.rttMs!)
    .at(0);
  const ofFamily = (isIpv6: boolean) => {
    const some = relays.filter(({ address }) => address.includes(":") === isIpv6);
    return some.length === 0 ? undefined : some.some(({ answered }) => answered > 0);
  };
  const { fallback } = invitation;
  const result: Netcheck = {
    relays,
    nearest: nearest?.server,
    ipv4: ofFamily(false),
    ipv6: ofFamily(true),
    nat: await natOf(invitation, answering),
    ...(fallback && { fallback: await fallbackOf(fallback) }),
    ...await inTunnel(invitation, endpoints, answering.length > 0, flags.quick),
  };
  console.log(flags.json ? JSON.stringify(result) : renderNetcheck(result));
  return answering.length > 0 ? 0 : 1;
}

async function answersOf(invitation: Invitation, { server, address, port }: Place): Promise<RelayAnswers> {
  const rttMs: number[] = [];
  for (let i = 0; i < PROBES; i++) {
    const ms = await probe(invitation, address, port, PROBE_MS);
    if (ms !== undefined) rttMs.push(ms);
    else if (i === GIVE_UP_AFTER - 1 && rttMs.length === 0) {
      return { server, address, sent: i + 1, answered: 0 };
    }
    await new Promise((resolve) => setTimeout(resolve, BETWEEN_PROBES_MS));
  }
  const answers = { server, address, sent: PROBES, answered: rttMs.length };
  return rttMs.length === 0 ? answers : { ...answers, rttMs: Math.min(...rttMs) };
}

async function fallbackOf(endpoint: FallbackEndpoint): Promise<true | string> {
  try {
    const [address] = await resolveHost(endpoint.host);
    (await dialFallback(endpoint, address)).close();
    return true;
  } catch (error) {
    return (error as Error).message;
  }
}

/** What only a session shows, to the nearest relay. */
async function inTunnel(
  invitation: Invitation,
  endpoints: Parameters<typeof nearestOf>[1],
  isAnswered: boolean,
  isQuick: boolean,
): Promise<Pick<Netcheck, "innerMtu" | "rates">> {
  const obstacle = !isAnswered
    ? "no relay answers over UDP"
    : Deno.networkInterfaces().some(({ name }) => name === CLIENT_DEVICE)
    ? "connect runs here, and one device has one tunnel at a time"
    : undefined;
  if (obstacle !== undefined) return { innerMtu: obstacle, rates: obstacle };
  const servers = await nearestOf(invitation, endpoints);
  try {
    const innerMtu = await pathOf(invitation, servers);
    return { innerMtu, rates: isQuick ? "left out by --quick" : await ratesOf(invitation, servers) };
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    return { innerMtu: error.message, rates: error.message };
  }
}

/** The size that the session's own search of the path ends with. */
async function pathOf(invitation: Invitation, servers: Servers): Promise<number | string> {
  const plane = openOwnPlane(invitation, new PingExit([], () => 0));
  try {
    plane.connect(servers.address, servers.endpoint.port);
    await sessionOf(plane, servers);
    for (const endMs = performance.now() + PATH_SEARCH_MS; performance.now() < endMs;) {
      const { innerMtu, isNarrow } = await plane.look(true);
      if (isNarrow) return "less than every path should take: not even datagrams of 1200 bytes pass";
      if (innerMtu !== undefined) return innerMtu;
      await new Promise((resolve) => setTimeout(resolve, PATH_LOOK_MS));
    }
    return `the search took longer than ${PATH_SEARCH_MS / 1000} s`;
  } finally {
    await plane.close();
  }
}

/** Measures over UDP and over TLS, or says why that is not possible. */
async function ratesOf(invitation: Invitation, servers: Servers): Promise<Netcheck["rates"]> {
  const { fallback } = invitation;
  if (fallback === undefined) return "the invitation names no TLS to compare with";
  const wishes = { seconds: RATE_SECONDS, idleUs: RATE_IDLE_US, isQuiet: true };
  try {
    const udp = await runSpeedtest(invitation, servers, wishes);
    const port = new StreamPort({ description: "TLS", localPort: fallback.port, onDrop: () => {} });
    const [address] = await resolveHost(fallback.host);
    const words = new Uint32Array(4);
    writeStreamAddress(words, 0, port.add(await dialFallback(fallback, address)));
    const over = { port, address: formatAddress(words), portNumber: STREAM_PORT_NUMBER };
    const tls = await runSpeedtest(invitation, servers, { ...wishes, over });
    const rates = [udp, tls].map(({ up, down }) => ({ up: up.bitsPerS, down: down.bitsPerS }));
    return { udp: rates[0], tls: rates[1], isThrottled: isThrottled(rates[0], rates[1]) };
  } catch (error) {
    return (error as Error).message;
  }
}

/** Whether UDP is much slower than TLS on the same way, in either direction. */
export function isThrottled(udp: Rates, tls: Rates): boolean {
  return tls.up > THROTTLED_BY * udp.up || tls.down > THROTTLED_BY * udp.down;
}

/** The result for people: what is found, and where that asks for it, what to do. */
export function renderNetcheck(result: Netcheck): string {
  const { relays, nearest, nat, innerMtu, fallback, rates } = result;
  const isOut = relays.some(({ answered }) => answered > 0);
  const family = (works: boolean | undefined) =>
    works === undefined ? "unknown: no relay has such an address" : works ? "works" : "no answer";
  const relayLines = relays.map(({ server, address, sent, answered, rttMs }) =>
    `  ${rttMs !== undefined && server === nearest ? "*" : " "} ${server}${
      server.includes(address) ? "" : ` (${address})`
    }  ` +
    (rttMs === undefined
      ? `no answer to ${sent} probes`
      : `${rttMs.toFixed(1)} ms, ${answered} of ${sent} answered`)
  );
  return [
    `UDP        ${
      isOut
        ? "gets out and back"
        : `no relay answers: blocked on the way, or the relay is off${
          fallback === true ? "; TLS gets through" : ""
        }`
    }`,
    `IPv4       ${family(result.ipv4)}`,
    `IPv6       ${family(result.ipv6)}`,
    ...nat.map((one) => `NAT        ${one.text}`),
    `packets    ${
      typeof innerMtu === "number" ? `of up to ${innerMtu} bytes in one piece` : `unknown: ${innerMtu}`
    }`,
    ...(fallback === undefined
      ? []
      : [`TLS        ${fallback === true ? "can be reached" : `cannot be reached: ${fallback}`}`]),
    `throttling ${
      typeof rates === "string"
        ? `unknown: ${rates}`
        : `${rates.isThrottled ? "UDP is slowed down" : "none seen"}: up ${
          formatRate(rates.udp.up / 8)
        } over UDP and ${formatRate(rates.tls.up / 8)} over TLS, down ${formatRate(rates.udp.down / 8)} and ${
          formatRate(rates.tls.down / 8)
        }`
    }`,
    "relays",
    ...relayLines,
  ].join("\n");
}
