/**
 * `connect`: this machine, or a part of its programs, behind a relay. As root through a device, without through a SOCKS
 * proxy and forwarded ports. Invariant: nothing is led into the tunnel before the relay has answered, and everything
 * that was changed is put back at the end, however it comes. Moves no packet itself.
 */
import { loadNative } from "../../ffi/native.ts";
import { type Endpoint, formatEndpoint } from "../config.ts";
import { Dialler } from "../exit/dialler.ts";
import { tunUnavailable } from "../exit/tun.ts";
import {
  CLIENT_DEVICE,
  ClientHost,
  isShut,
  type OuterEndpoint,
  type Scope,
  undo,
} from "../exit/tun_client.ts";
import { isShortage } from "../io/accept.ts";
import { LinkView } from "./view.ts";
import { CommandError, readCommandLine, UsageError } from "../process/help.ts";
import {
  checkIncluded,
  type DoorOptions,
  readCongestion,
  readDoors,
  readInvitation,
  readRate,
  readRepair,
  readScope,
  readTrusted,
} from "./options.ts";
import type { Invitation } from "./invitation.ts";
import { Link } from "./link/mod.ts";
import { LinkFallback } from "./link/fallback.ts";
import { LocalPlane, type PlaneWishes } from "./link/local_plane.ts";
import { ThreadPlane } from "./link/worker_handle.ts";
import { AppHints } from "./app_hints.ts";
import type { AppPriority } from "./app_sockets.ts";
import { programsOf, readAppPriorities, readPriorities, readRules } from "./priorities.ts";
import { giveBackMemorySoon } from "../process/memory.ts";
import { Names } from "./socks/names.ts";
import { resolveOutside } from "./outside_names.ts";
import { resolveThrough } from "./resolve.ts";
import { probe } from "./server_probe.ts";
import { type Resolve, resolveHost, Servers } from "./servers.ts";
import { type Doors, forward, serveSocks } from "./socks/mod.ts";

const HELP =
  `Connects this machine to a relay, over OxTunnel or WireGuard. Ctrl-C ends it and restores everything.

  deno task connect                         asks for the invitation: one line that \`peer add\` printed
  deno task connect < laptop.conf           the config or the invitation in a file
  deno task connect --server 203.0.113.5:4433 --config state/laptop.conf

  --config FILE         a file of this folder with what \`peer add\` printed (default oxrelay-connect.conf, if it exists)
  --server HOST:PORT    the relay's address, in place of the config's; several, or a list with commas: relays that
                        share one key; the nearest is used, and another one when that one does not answer
  --protocol NAME       oxtunnel or wireguard (default: an invitation means OxTunnel, a config WireGuard)
  --trusted PREFIXES    no encryption, only authentication, to a relay in these networks whose \`trusted\` lists this
                        machine's address: 127.0.0.0/8

Where UDP is blocked and the invitation names a fallback, the tunnel changes to TLS, and back as soon as UDP works.

As root, all destinations in the config's AllowedIPs (usually: all there are) go through the tunnel, except networks that
this machine is directly connected to, and answers on connections that others open to it from outside. To change that:
  --include PREFIXES    only these destinations: 203.0.113.0/24,2001:db8::/32
  --exclude PREFIXES    all destinations but these
  --only-user NAME      only packets of this user's programs: a game that runs under a user of its own
  --only-cgroup PATH    only packets of programs in this cgroup (v2): games.slice
  --no-dns              keep the machine's own resolvers
  --kill-switch         block these packets outside the tunnel, also while the tunnel is down; answers on connections from
                        outside too, unless --exclude names their network
  --restore             only undo the changes that a killed connect has left behind

  --priority CLASS=[PROTOCOL:][ADDRESS][:PORT]
                        the class (game, voice, interactive, bulk or default) of packets to and from this remote
                        address and port, here and at the relay (OxTunnel): game=udp:27015, bulk=203.0.113.5; may be
                        repeated, the first that fits counts
  --priority app=NAME:CLASS
                        the same for all packets of the program with this name: app=csgo:game
  --rule "CLASS KEY=VALUE …"
                        the class of what this end sends, by port=, address=, protocol=, dscp=, or pattern= and at= (hex
                        digits of a UDP payload, "." for any digit, and the offset where they begin); or, in both
                        directions, by program=NAME: "game port=7000-7100 pattern=32ab..64"; may be repeated; --priority
                        comes first
  --repair WORDS        how losses of games and calls are repaired on the way to the relay (OxTunnel), by the keys of the
                        relay's [repair]: budget_percent=50, or scheme=spaced,budget_percent=100
  --no-repair           no repair in either direction (OxTunnel)
  --up RATE, --down RATE
                        the rate of your line, such as 10M or 900k bits a second. A rate a little below the real one keeps
                        the line's queue in this program, where packets of a game go before those of a transfer; --down
                        tells the relay (OxTunnel)
  --congestion NAME     how the rate of your line is found without --up: bbr_v3 (default), or none (OxTunnel)
  --no-compression      no compression (OxTunnel): the size of a compressed packet reveals a little of its content

Without root, a proxy and forwarded ports on loopback in place of a device:
  --socks PORT          SOCKS5, TCP and UDP (default 1080)
  -L PORT:HOST:PORT     forward this local port to a port of a host behind the relay; may be repeated

  --no-batching         one packet in each datagram, for measurements
  --json                one JSON object a second, for programs
`;

const SOCKS_DEFAULT = "1080";
/** What only a device can do. */
const DEVICE_ONLY = ["include", "exclude", "only-user", "only-cgroup", "no-dns", "kill-switch"];
const FIRST_ANSWER_MS = 20_000;
const LOOK_MS = 250, FIRST_LOOK_MS = 100, SHOW_MS = 1000 - LOOK_MS / 2;
const GUARD_LOOKS = 40;
const PROBE_MS = 1000;
/** Prefixes that are written out in what it says. */
const NAMED_MAX = 8;

/** Runs the subcommand; the result is the exit code. */
export async function connect(args: string[]): Promise<number> {
  const { words, values, lists, flags } = readCommandLine(args, {
    values: [
      "config",
      "include",
      "exclude",
      "only-user",
      "only-cgroup",
      "socks",
      "protocol",
      "trusted",
      "repair",
      "up",
      "down",
      "congestion",
    ],
    lists: ["L", "server", "priority", "rule"],
    flags: ["no-dns", "no-batching", "no-compression", "no-repair", "kill-switch", "restore", "json"],
    words: [0, 1],
  });
  if (flags.help) {
    console.log(HELP);
    return 0;
  }
  if (flags.restore) {
    await needRoot("--restore");
    await undo(false);
    console.error("What a killed connect had left behind is undone.");
    return 0;
  }
  const scope = await readScope(values);
  const trusted = readTrusted(values.trusted);
  const rules = readRules(lists.rule);
  const wishes: PlaneWishes = {
    priorities: readPriorities(lists.priority),
    rules: rules.filter(({ program }) => program === undefined),
    compression: !flags["no-compression"],
    batching: !flags["no-batching"],
    upBytesPerS: readRate("up", values.up),
    downBytesPerS: readRate("down", values.down),
    congestionAlgorithm: readCongestion(values.congestion),
    repair: readRepair(values.repair, flags["no-repair"]),
  };
  const apps = [...readAppPriorities(lists.priority), ...programsOf(rules)];
  const given = await readInvitation(words[0], values.config, lists.server, values.protocol);
  checkIncluded(scope, given.invitation);
  const place: Place = { ...given, invitation: { ...given.invitation, trusted } };
  const view = new LinkView(flags.json);
  const deviceOnly = DEVICE_ONLY.find((name) => values[name] !== undefined || flags[name]);
  if (values.socks !== undefined || lists.L.length > 0) {
    if (deviceOnly) {
      throw new UsageError(`--${deviceOnly} is of the device, and --socks and -L are instead of it`);
    }
    return await throughSockets(place, readDoors(values.socks, lists.L), wishes, apps, view);
  }
  const obstacle = await tunUnavailable();
  if (obstacle !== undefined && deviceOnly === undefined) {
    console.error(`No device here (${obstacle}), so a SOCKS proxy stands in for it.`);
    return await throughSockets(place, readDoors(SOCKS_DEFAULT, []), wishes, apps, view);
  }
  if (deviceOnly !== undefined) await needRoot(`--${deviceOnly}`);
  return await throughDevice(
    place,
    scope,
    { killSwitch: flags["kill-switch"], dns: !flags["no-dns"], wishes, apps },
    view,
  );
}

/** Who this device is to its relay, and where the relay, or one of several, may be reached. */
interface Place {
  invitation: Invitation;
  endpoints: Endpoint[];
}

function resolveServers({ invitation, endpoints }: Place, resolve?: Resolve): Promise<Servers> {
  return Servers.resolve(endpoints, (address, port) => probe(invitation, address, port, PROBE_MS), resolve);
}

/** A proxy and forwarded ports, for whoever may not make a device. */
async function throughSockets(
  place: Place,
  doors: DoorOptions,
  wishes: PlaneWishes,
  apps: AppPriority[],
  view: LinkView,
): Promise<number> {
  const { invitation } = place;
  const native = loadNative();
  if (typeof native === "string") {
    throw new CommandError(`without a device TCP needs the native library: ${native}; run connect as root`);
  }
  const { addresses, mtu, dns, search = [] } = invitation;
  const servers = await resolveServers(place);
  await servers.round(false, performance.now());
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
  const names = new Names(lookUp);
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
      isWatched: view.isWatched,
      say: (message) => view.say(message),
      onMoved: () => Promise.resolve(),
      // Its connections begin with an MSS that fits, and what is larger is cut.
      onMtu: () => Promise.resolve(),
    });
    view.about = [
      ...(socks ? [`SOCKS5 on ${formatEndpoint(socks)}`] : []),
      ...forwards.map(({ port, host, hostPort }) =>
        `127.0.0.1:${port} is ${formatEndpoint({ host, port: hostPort })}`
      ),
    ].join("; ");
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

async function needRoot(what: string): Promise<void> {
  const obstacle = await tunUnavailable();
  if (obstacle !== undefined) {
    throw new CommandError(`${what} cannot be used here: ${obstacle}; run it as root (sudo)`);
  }
}

/** Everything of the scope through a TUN device. */
async function throughDevice(
  place: Place,
  scope: Scope,
  { killSwitch, dns, wishes, apps }: {
    killSwitch: boolean;
    dns: boolean;
    wishes: PlaneWishes;
    apps: AppPriority[];
  },
  view: LinkView,
): Promise<number> {
  const { invitation } = place;
  const native = loadNative();
  const { addresses, routes, mtu, search = [] } = invitation;
  const host = await sentence(() =>
    ClientHost.open({
      addresses,
      routes,
      mtu,
      dns: dns ? invitation.dns : [],
      search,
      scope,
      killSwitch,
      native,
      log: (_, message) => view.say(message),
    })
  );
  try {
    // What a killed connect had left of resolv.conf is undone by now; a kill switch of its may be closed still.
    const resolve = resolveOutside(host);
    const servers = await resolveServers(place, resolve).catch(async (error) => {
      if (!await isShut()) throw error;
      throw new CommandError(
        `${
          place.endpoints[0].host
        } cannot be resolved: the kill switch of a connect that was killed is closed still; name the ` +
          "relay's address with --server, or open it with: deno task connect --restore",
      );
    });
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
    const say = (message: string) => view.say(message);
    const { descriptor } = host;
    const plane = new ThreadPlane(invitation, descriptor, CLIENT_DEVICE, say, wishes, fallback?.mailboxes);
    const link = new Link({
      servers,
      plane,
      fallback,
      ownDevice: CLIENT_DEVICE,
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
      },
      onGuard: () => host.guard(),
    });
  } finally {
    await host.close();
  }
}

/**
 * The way around blocked UDP, where the invitation names one. Its name is resolved now, outside the tunnel, and is the
 * relay's own address when that does not work; and again with each dial, after which `onMoved` is called if it has another.
 */
async function openFallback(
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

interface Hooks {
  /** Whether to try for ever: giving up would open the kill switch. */
  isPatient: boolean;
  onConnected: () => Promise<void>;
  onGuard: () => Promise<void>;
}

/** Runs the link until a signal ends it. Throws when the relay never answers, unless it is patient. */
async function run(
  link: Link,
  appHints: AppHints,
  view: LinkView,
  { isPatient, onConnected, onGuard }: Hooks,
): Promise<number> {
  let wake = () => {};
  let ended = false;
  const end = () => {
    ended = true;
    wake();
  };
  const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
  for (const signal of signals) Deno.addSignalListener(signal, end);
  try {
    const startedMs = performance.now();
    let isUp = false, shownMs = -Infinity;
    const look = async (looks: number) => {
      const state = await link.tend();
      if (!isUp && state === "connected") {
        await onConnected();
        isUp = true;
        view.say("The tunnel is up.");
        giveBackMemorySoon();
      }
      if (!isUp && !isPatient && performance.now() - startedMs > FIRST_ANSWER_MS) {
        throw new CommandError(noAnswer(link));
      }
      const nowMs = performance.now();
      if (nowMs - shownMs >= SHOW_MS || view.isChange(state)) {
        view.show(link.report());
        shownMs = nowMs;
      }
      if (isUp) appHints.tend(nowMs);
      if (isUp && looks % GUARD_LOOKS === GUARD_LOOKS - 1) await onGuard();
    };
    for (let looks = 0; !ended; looks++) {
      try {
        await look(looks);
      } catch (error) {
        // A tunnel goes on without a look at it. One that is not up yet may carry already; it has as long as an answer has.
        const isWaitedFor = isUp || performance.now() - startedMs <= FIRST_ANSWER_MS;
        if (!isWaitedFor || !isShortage(error)) throw error;
        if (performance.now() - shownMs >= SHOW_MS) {
          view.say(`not looked after now: ${(error as Error).message}`);
        }
        shownMs = performance.now();
      }
      if (ended) break;
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, isUp ? LOOK_MS : FIRST_LOOK_MS);
        wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    return 0;
  } finally {
    for (const signal of signals) Deno.removeSignalListener(signal, end);
    await link.close();
  }
}

function noAnswer(link: Link): string {
  const failure = link.fallbackFailure;
  const around = failure === undefined
    ? "UDP may be blocked on the way, and the invitation names no way around (no [fallback] on the relay when it was " +
      "made)"
    : failure || "UDP may be blocked on the way, and over TLS it does not answer either";
  return `no answer from the relay at ${link.servers.address} in ${
    FIRST_ANSWER_MS / 1000
  } s: it may be off, ${around}, ` +
    "or it does not know this device, or this machine's clock has gone back; on the relay, `deno task peer list`, " +
    "`deno task status` and its log tell. " +
    "Nothing was changed here";
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
