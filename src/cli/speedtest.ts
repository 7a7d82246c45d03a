/**
 * `speedtest`: the round trip to a relay, and loss, jitter and rate both ways, measured inside a tunnel of its own. Invariant:
 * nothing of this machine is changed, and standard output has the result alone. speedtest_exit.ts measures.
 */
import { formatEndpoint } from "../config.ts";
import { monotonicUs } from "../io/driver.ts";
import { parseAddress } from "../wire/address.ts";
import type { Invitation } from "../connect/invitation.ts";
import { readInvitation } from "../connect/options.ts";
import type { Port } from "../io/port.ts";
import { CommandError, readCommandLine, UsageError } from "../process/help.ts";
import type { LocalPlane } from "../connect/link/local_plane.ts";
import type { Servers } from "../connect/servers.ts";
import { nearestOf, openOwnPlane, refuseBesideConnect, sessionOf } from "./checks/own_tunnel.ts";
import { type Direction, SpeedtestExit, type SpeedtestResult } from "./speedtest_exit.ts";
import { formatRate } from "./status.ts";

const HELP =
  `Measures the path to a relay, over OxTunnel: round trip, loss, jitter, and the rate in each direction.

  deno task speedtest                       asks for the invitation: one line that \`peer add\` printed
  deno task speedtest < laptop.conf         the config or the invitation in a file

  --config FILE         a file of this folder with what \`peer add\` printed (default oxrelay-connect.conf, if it exists)
  --server HOST:PORT    the relay's address, in place of the config's; of several the nearest is measured
  --seconds N           seconds for each direction, 1 to 10 (default 4)
  --json                the result as one line of JSON, for programs

It needs no root and changes nothing. The rate counts the IP packets that the receiver got inside the tunnel.
`;

const TURN_MS = 2, DRAW_MS = 200;
const IDLE_US = 2_000_000, SECONDS_MAX = 10;
const BAR_COLUMNS = 30;

/** Runs the subcommand; the result is the exit code. */
export async function speedtest(args: string[]): Promise<number> {
  const { words, values, lists, flags } = readCommandLine(args, {
    values: ["config", "seconds"],
    lists: ["server"],
    flags: ["json"],
    words: [0, 1],
  });
  if (flags.help) {
    console.log(HELP);
    return 0;
  }
  const seconds = Number(values.seconds ?? 4);
  if (!(seconds >= 1 && seconds <= SECONDS_MAX)) throw new UsageError("--seconds: expected 1 to 10");
  const { invitation, endpoints } = await readInvitation(words[0], values.config, lists.server, "oxtunnel");
  refuseBesideConnect("stop it first");
  const servers = await nearestOf(invitation, endpoints);
  const result = await runSpeedtest(invitation, servers, { seconds, isQuiet: flags.json });
  const server = formatEndpoint(servers.endpoint);
  console.log(flags.json ? JSON.stringify({ server, ...result }) : renderSpeedtest(server, result));
  return 0;
}

/**
 * Measures a relay, `seconds` for each direction, through a tunnel of its own over UDP, or `over` the port at the address that the
 * port knows. Throws CommandError when there is nothing to measure.
 */
export async function runSpeedtest(
  invitation: Invitation,
  servers: Servers,
  { seconds, idleUs = IDLE_US, isQuiet, over }: {
    seconds: number;
    idleUs?: number;
    isQuiet: boolean;
    over?: { port: Port; address: string; portNumber: number };
  },
): Promise<SpeedtestResult> {
  const ipv4 = invitation.addresses.find((one) => !one.includes(":"));
  if (ipv4 === undefined) {
    throw new CommandError("this device has no IPv4 address in the tunnel to measure from");
  }
  const random = () => crypto.getRandomValues(new Uint32Array(1))[0];
  const directionUs = 1e6 * seconds;
  const own = parseAddress(ipv4.split("/")[0])![3];
  const packetBytes = (): number => Math.min(invitation.mtu, plane.innerMtu);
  const exit = new SpeedtestExit({ own, packetBytes, idleUs, directionUs, random });
  const plane = openOwnPlane(invitation, exit, over?.port);
  const turns = setInterval(() => exit.turn(), TURN_MS);
  try {
    plane.connect(over?.address ?? servers.address, over?.portNumber ?? servers.endpoint.port);
    exit.start(await relayAddress(plane, servers));
    return await measured(exit, isQuiet);
  } finally {
    clearInterval(turns);
    await plane.close();
  }
}

/** The relay's inner address, once there is a session. Throws CommandError. */
async function relayAddress(plane: LocalPlane, servers: Servers): Promise<number> {
  await sessionOf(plane, servers);
  const relay4 = plane.told?.relay4;
  if (relay4 === undefined) throw new CommandError("this relay is too old to be measured");
  return new DataView(relay4.buffer).getUint32(0);
}

/** Waits for the end, with a progress bar where somebody sees it. Throws CommandError when there is nothing to measure. */
async function measured(exit: SpeedtestExit, isQuiet: boolean): Promise<SpeedtestResult> {
  const isSeen = !isQuiet && Deno.stderr.isTerminal();
  const draw = (text: string) => isSeen && Deno.stderr.writeSync(new TextEncoder().encode(`\r\x1b[K${text}`));
  while (exit.result === undefined) {
    if (exit.phase === "busy") {
      throw new CommandError(
        "the relay is busy measuring, or this device has had its half minute; try in a minute",
      );
    }
    if (exit.phase === "unanswered") {
      throw new CommandError("the relay does not measure: its operator has switched allow_speedtest off");
    }
    const rate = exit.phase === "idle" ? "" : formatRate(exit.bitsPerS / 8);
    draw(`${renderProgress(exit.progress(monotonicUs()))} ${exit.phase} ${rate}`);
    await new Promise((resolve) => setTimeout(resolve, DRAW_MS));
  }
  draw("");
  return exit.result;
}

/** A bar for a share 0..1. */
export function renderProgress(share: number): string {
  const done = Math.round(BAR_COLUMNS * Math.min(1, Math.max(0, share)));
  return `[${"█".repeat(done)}${"░".repeat(BAR_COLUMNS - done)}] ${
    String(Math.round(100 * share)).padStart(3)
  } %`;
}

/** The result for people. */
export function renderSpeedtest(server: string, { idle, up, down }: SpeedtestResult): string {
  const rest = ({ rttMs, jitterMs, lossRatio }: Omit<Direction, "bitsPerS" | "packets">) =>
    `round trip p50 ${ms(rttMs.p50)}  p99 ${ms(rttMs.p99)}  jitter ${ms(jitterMs)}  ` +
    `loss ${(100 * lossRatio).toFixed(2)} %`;
  const line = (name: string, direction: Direction) =>
    `  ${name.padEnd(5)} ${formatRate(direction.bitsPerS / 8).padStart(12)}  ${rest(direction)}`;
  return [server, `  idle  ${" ".repeat(12)}  ${rest(idle)}`, line("up", up), line("down", down)].join("\n");
}

/** Of no answers there is no round trip. */
function ms(value: number): string {
  return Number.isNaN(value) ? "-" : `${value.toFixed(2)} ms`;
}
