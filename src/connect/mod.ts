/**
 * `connect`: this machine, or a part of its programs, behind a relay. As root through a device, without through a SOCKS
 * proxy and forwarded ports. Invariant: nothing is led into the tunnel before the relay has answered, and everything
 * that was changed is put back at the end, however it comes. Moves no packet itself.
 */
import { loadNative } from "../../ffi/native.ts";
import { tunUnavailable } from "../exit/tun/mod.ts";
import { undo } from "../exit/tun/client.ts";
import { undoShare } from "../exit/tun/share.ts";
import { CommandError, readCommandLine, UsageError } from "../process/help.ts";
import type { PlaneWishes } from "./link/plane.ts";
import {
  checkIncluded,
  readCongestion,
  readDoors,
  readInvitation,
  readPaths,
  readRate,
  readRepair,
  readScope,
  readTrusted,
} from "./options.ts";
import type { Place } from "./place.ts";
import { programsOf, readAppPriorities, readPriorities, readRules } from "./priorities.ts";
import { readShare } from "./share/mod.ts";
import { throughDevice } from "./through_device.ts";
import { throughSockets } from "./through_sockets.ts";
import { LinkView } from "./view.ts";

const HELP =
  `Connects this machine to a relay, over OxTunnel or WireGuard. Ctrl-C ends the tunnel and undoes every change.

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
  --share INTERFACE     this machine is the gateway of a LAN, for consoles and other devices (docs/gateway.md): DHCP and DNS by
                        dnsmasq if that is here, an open NAT, and ports by UPnP, NAT-PMP and PCP
  --share-net ADDRESS   this machine's address in the LAN (default 192.168.77.1/24), where the interface has none
  --device CLASS=DEVICE the class of a LAN device's packets, by its address or MAC: game=192.168.77.50; may be repeated
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
  --paths NAMES         several paths at once (OxTunnel, docs/several-paths.md): auto for every interface that leads to the relay,
                        or these of them, the preferred first: wlan0,wwan0; nothing is lost when one of them fails
  --redundant CLASSES   the classes whose packets go on two paths (default game,voice), or none
  --metered NAMES       interfaces on which bytes cost money, beside modems and tethered phones, which are known
  --congestion NAME     how the rate of your line is found without --up: bbr_v3 (default), or none (OxTunnel)
  --rohc                packets' headers by ROHC (RFC 3095), where the relay has enable_rohc (OxTunnel)
  --no-header-compression  send every packet with all its headers (OxTunnel)
  --no-compression      no compression (OxTunnel): the size of a compressed packet reveals a little of its content

Without root, a proxy and forwarded ports on loopback in place of a device:
  --socks PORT          SOCKS5, TCP and UDP (default 1080)
  -L PORT:HOST:PORT     forward this local port to a port of a host behind the relay; may be repeated

  --no-priority         its thread waits for its turn like any other program's
  --no-batching         one packet in each datagram, for measurements
  --json                one JSON object a second, for programs
`;

const SOCKS_DEFAULT = "1080";
/** What only a device can do. */
const DEVICE_ONLY = [
  "include",
  "exclude",
  "only-user",
  "only-cgroup",
  "no-dns",
  "kill-switch",
  "share",
  "share-net",
];

/** What the command line may have. */
const COMMAND_LINE: Parameters<typeof readCommandLine>[1] = {
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
    "paths",
    "redundant",
    "metered",
    "share",
    "share-net",
  ],
  lists: ["L", "server", "priority", "rule", "device"],
  flags: [
    "no-dns",
    "no-batching",
    "no-priority",
    "no-compression",
    "no-header-compression",
    "rohc",
    "no-repair",
    "kill-switch",
    "restore",
    "json",
  ],
  words: [0, 1],
};

/** Runs the subcommand; the result is the exit code. */
export async function connect(args: string[]): Promise<number> {
  const { words, values, lists, flags } = readCommandLine(args, COMMAND_LINE);
  if (flags.help) {
    console.log(HELP);
    return 0;
  }
  if (flags.restore) {
    await needRoot("--restore");
    await undo(false);
    await undoShare();
    console.error("What a killed connect had left behind is undone.");
    return 0;
  }
  const scope = await readScope(values);
  const share = readShare(values.share, values["share-net"], lists.device);
  if (share && (scope.uid !== undefined || scope.cgroup !== undefined)) {
    throw new UsageError(
      "--share is for a LAN, whose packets belong to no user and no cgroup of this machine",
    );
  }
  const trusted = readTrusted(values.trusted);
  const rules = readRules(lists.rule);
  const wishes = readWishes(values, lists.priority, rules, flags);
  const apps = [...readAppPriorities(lists.priority), ...programsOf(rules)];
  const given = await readInvitation(words[0], values.config, lists.server, values.protocol);
  checkPaths(wishes.paths, given.invitation.protocol);
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
    { killSwitch: flags["kill-switch"], dns: !flags["no-dns"], share, wishes, apps },
    view,
  );
}

/** What the person wishes for its packets, by the options of the command line. */
function readWishes(
  values: Record<string, string | undefined>,
  priorities: string[],
  rules: ReturnType<typeof readRules>,
  flags: Record<string, boolean>,
): PlaneWishes {
  return {
    priorities: readPriorities(priorities),
    rules: rules.filter(({ program }) => program === undefined),
    compression: !flags["no-compression"],
    headers: flags["no-header-compression"] ? [] : flags.rohc ? ["rohc", "elided"] : ["elided"],
    batching: !flags["no-batching"],
    goesFirst: !flags["no-priority"],
    upBytesPerS: readRate("up", values.up),
    downBytesPerS: readRate("down", values.down),
    congestionAlgorithm: readCongestion(values.congestion),
    repair: readRepair(values.repair, flags["no-repair"]),
    paths: readPaths(values),
  };
}

/** Throws where several paths cannot be had, before anything is changed. */
function checkPaths(paths: PlaneWishes["paths"], protocol: string): void {
  if (paths === undefined) return;
  if (protocol !== "oxtunnel") {
    throw new UsageError("--paths is of OxTunnel; add --protocol oxtunnel, or use an invitation");
  }
  const native = loadNative();
  if (typeof native === "string") throw new CommandError(`--paths needs the native library: ${native}`);
}

async function needRoot(what: string): Promise<void> {
  const obstacle = await tunUnavailable();
  if (obstacle !== undefined) {
    throw new CommandError(`${what} cannot be used here: ${obstacle}; run it as root (sudo)`);
  }
}
