/**
 * `connect`: this machine, or a part of its programs, behind a relay. As root through a device, without through a SOCKS
 * proxy and forwarded ports. Invariant: nothing is led into the tunnel before the relay has answered, and everything
 * that was changed is put back at the end, however it comes. Moves no packet itself.
 */
import { loadNative } from "../../ffi/native.ts";
import { formatEndpoint } from "../config.ts";
import { Dialler } from "../exit/dialler.ts";
import { tunUnavailable } from "../exit/tun.ts";
import { CLIENT_DEVICE, ClientHost, isShut, type Scope, undo } from "../exit/tun_client.ts";
import { LinkView } from "./connect_view.ts";
import { CommandError, readCommandLine, UsageError } from "./help.ts";
import { type DoorOptions, readDoors, readInvitation, readScope } from "./connect_options.ts";
import type { Invitation } from "./invitation.ts";
import { Link, resolveHost } from "./link.ts";
import { LocalPlane } from "./link_plane.ts";
import { ThreadPlane } from "./link_thread.ts";
import { resolveThrough } from "./resolve.ts";
import { type Doors, forward, serveSocks } from "./socks.ts";

const HELP =
  `Connects this machine to a relay, over OxTunnel or WireGuard. Ends with Ctrl-C, and puts everything back.

  deno task connect                         asks for the invitation: one line that \`peer add\` printed
  deno task connect < laptop.conf           the config or the invitation in a file
  deno task connect --server 203.0.113.5:4433 --config state/laptop.conf

  --config FILE         what \`peer add\` printed, in this folder (default oxrelay-connect.conf, if there is one)
  --server HOST:PORT    reach the relay here instead
  --protocol NAME       oxtunnel or wireguard; without it invitations mean OxTunnel, and configs WireGuard

As root, everything goes through the tunnel but the networks that this machine is in. Less or more:
  --include PREFIXES    only these destinations: 203.0.113.0/24,2001:db8::/32
  --exclude PREFIXES    all but these
  --only-user NAME      only what this user's programs send: a game that runs under a user of its own
  --only-cgroup PATH    only what programs in this cgroup (v2) send: games.slice
  --no-dns              leave resolving as it is
  --kill-switch         let nothing of this out past the tunnel, not even when it is down
  --restore             only undo what a connect that was killed has left behind

Without root, a proxy and ports on this machine's loopback instead of a device:
  --socks PORT          SOCKS5, TCP and UDP (default 1080)
  -L PORT:HOST:PORT     a port here that is a host's port there; may be given several times

  --json                the state each second, for programs
`;

const SOCKS_DEFAULT = "1080";
/** What only a device can do. */
const DEVICE_ONLY = ["include", "exclude", "only-user", "only-cgroup", "no-dns", "kill-switch"];
const FIRST_ANSWER_MS = 20_000;
const LOOK_MS = 1000, FIRST_LOOK_MS = 100;
const GUARD_LOOKS = 10;

/** Runs the subcommand; the result is the exit code. */
export async function connect(args: string[]): Promise<number> {
  const { words, values, lists, flags } = readCommandLine(args, {
    values: ["server", "config", "include", "exclude", "only-user", "only-cgroup", "socks", "protocol"],
    lists: ["L"],
    flags: ["no-dns", "kill-switch", "restore", "json"],
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
  const invitation = await readInvitation(words[0], values.config, values.server, values.protocol);
  const view = new LinkView(flags.json);
  const deviceOnly = DEVICE_ONLY.find((name) => values[name] !== undefined || flags[name]);
  if (values.socks !== undefined || lists.L.length > 0) {
    if (deviceOnly) {
      throw new UsageError(`--${deviceOnly} is of the device, and --socks and -L are instead of it`);
    }
    return await throughSockets(invitation, readDoors(values.socks, lists.L), view);
  }
  const obstacle = await tunUnavailable();
  if (obstacle !== undefined && deviceOnly === undefined) {
    console.error(`No device here (${obstacle}), so a SOCKS proxy stands in for it.`);
    return await throughSockets(invitation, readDoors(SOCKS_DEFAULT, []), view);
  }
  if (deviceOnly !== undefined) await needRoot(`--${deviceOnly}`);
  return await throughDevice(
    invitation,
    scope,
    { killSwitch: flags["kill-switch"], dns: !flags["no-dns"] },
    view,
  );
}

/** A proxy and forwarded ports, for whoever may not make a device. */
async function throughSockets(invitation: Invitation, doors: DoorOptions, view: LinkView): Promise<number> {
  const native = loadNative();
  if (typeof native === "string") {
    throw new CommandError(`without a device TCP needs the native library: ${native}; run connect as root`);
  }
  const { endpoint, addresses, mtu, dns } = invitation;
  const address = await resolveHost(endpoint.host);
  const dialler = new Dialler({ native, addresses: addresses.map((one) => one.split("/")[0]), mtu });
  const has = (isIpv6: boolean) => addresses.some((one) => one.includes(":") === isIpv6);
  const resolve = (name: string) => resolveThrough(dialler, dns, name, { ipv4: has(false), ipv6: has(true) });
  const opened: Doors[] = [];
  const { socks, forwards } = doors;
  try {
    if (socks) opened.push(serveSocks(dialler, resolve, socks.host, socks.port));
    for (const one of forwards) opened.push(forward(dialler, resolve, one));
    const link = new Link({
      endpoint,
      plane: new LocalPlane(invitation, dialler, native),
      ownDevice: "",
      say: (message) => view.say(message),
      onMoved: () => Promise.resolve(),
      // Its connections begin with an MSS that fits, and what is larger is cut.
      onMtu: () => Promise.resolve(),
    }, address);
    view.about = [
      ...(socks ? [`SOCKS5 on ${formatEndpoint(socks)}`] : []),
      ...forwards.map(({ port, host, hostPort }) =>
        `127.0.0.1:${port} is ${formatEndpoint({ host, port: hostPort })}`
      ),
    ].join("; ");
    view.say(view.about);
    return await run(link, view, {
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
  invitation: Invitation,
  scope: Scope,
  { killSwitch, dns }: { killSwitch: boolean; dns: boolean },
  view: LinkView,
): Promise<number> {
  const { endpoint } = invitation;
  const address = await resolveHost(endpoint.host).catch(async (error) => {
    if (!await isShut()) throw error;
    throw new CommandError(
      `${endpoint.host} cannot be resolved: the kill switch of a connect that was killed is closed still; name the ` +
        "relay's address with --server, or open it with: deno task connect --restore",
    );
  });
  const native = loadNative();
  const { addresses, mtu } = invitation;
  const host = await sentence(() =>
    ClientHost.open({
      addresses,
      mtu,
      dns: dns ? invitation.dns : [],
      scope,
      killSwitch,
      native,
      log: (_, message) => view.say(message),
    })
  );
  try {
    const { port } = endpoint;
    if (killSwitch) await sentence(() => host.shut({ address, port }));
    const say = (message: string) => view.say(message);
    const link = new Link({
      endpoint,
      plane: new ThreadPlane(invitation, host.descriptor, CLIENT_DEVICE, say),
      ownDevice: CLIENT_DEVICE,
      say,
      onMoved: (address) => host.route({ address, port }),
      onMtu: (innerMtu) => host.setMtu(innerMtu),
    }, address);
    view.about = describe(scope, killSwitch);
    return await run(link, view, {
      isPatient: killSwitch,
      onConnected: () => sentence(() => host.route({ address: link.address, port })),
      onGuard: () => host.guard(),
    });
  } finally {
    await host.close();
  }
}

interface Hooks {
  /** Whether to try for ever: giving up would open the kill switch. */
  isPatient: boolean;
  onConnected: () => Promise<void>;
  onGuard: () => Promise<void>;
}

/** Runs the link until a signal ends it. Throws when the relay never answers, unless it is patient. */
async function run(link: Link, view: LinkView, { isPatient, onConnected, onGuard }: Hooks): Promise<number> {
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
    let isUp = false;
    for (let looks = 0; !ended; looks++) {
      const status = await link.look();
      if (!isUp && status.state === "connected") {
        await onConnected();
        isUp = true;
        view.say("The tunnel is up.");
      }
      if (!isUp && !isPatient && performance.now() - startedMs > FIRST_ANSWER_MS) {
        throw new CommandError(noAnswer(link));
      }
      view.show(status);
      if (isUp && looks % GUARD_LOOKS === GUARD_LOOKS - 1) await onGuard();
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
  return `no answer from the relay at ${link.address} in ${
    FIRST_ANSWER_MS / 1000
  } s: it may be off, UDP may be blocked ` +
    "on the way, or it does not know this device; on the relay, `deno task peer list` and `deno task status` tell. " +
    "Nothing was changed here";
}

/** What is written down about what goes where. */
function describe({ include, exclude, uid, cgroup }: Scope, killSwitch: boolean): string {
  const what = include.length > 0 ? include.join(", ") : "everything";
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
