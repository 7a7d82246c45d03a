/**
 * `ping`: whether a device answers inside the tunnel, and how soon. At the relay the running relay itself asks the device; with
 * --from this machine asks the relay, or an address behind it, through a tunnel of its own. Invariant: every time is of an ICMP
 * echo that went through the tunnel and back, and a loss is an echo that nobody answered. Changes nothing.
 */
import { percentile } from "../../control/percentile.ts";
import { readInvitation } from "../../connect/options.ts";
import {
  CommandError,
  loadConfig,
  readCommandLine,
  readEnvironment,
  UsageError,
} from "../../process/help.ts";
import { type Address, formatAddress, parseAddress } from "../../wire/address.ts";
import { askRelay } from "../admin_client.ts";
import { nearestOf, openOwnPlane, refuseBesideConnect, sessionOf } from "./own_tunnel.ts";
import { PingExit } from "./ping_exit.ts";

const HELP = `Measures round trips inside the tunnel, by ICMP echoes.

  deno task ping phone                         at the relay: to a device and back
  deno task ping --from laptop.conf            at a device: to the relay and back, over the config or invitation in a file
  deno task ping --from laptop.conf 1.1.1.1    to an address behind the relay, or to another device's, if the relay allows it

  --count N       echoes, 1 to 1000 (default 4); Ctrl-C ends sooner
  --json          the result as one line of JSON, for programs
  --config FILE   the relay's configuration (default oxrelay.toml)
  --server HOST:PORT   with --from: the relay's address, in place of the file's

A phone that sleeps answers late or not at all; Windows answers no pings until its firewall lets it.
`;

const INTERVAL_MS = 1000, ANSWER_MS = 2000, LOOK_MS = 5, REQUEST_TIMEOUT_MS = 8000;
const COUNT_MAX = 1000;

/** Asks once; milliseconds, or undefined when nobody answers. */
type Echo = () => Promise<number | undefined>;

/** Runs the subcommand; the result is the exit code: 0 when at least one echo was answered. */
export async function ping(args: string[]): Promise<number> {
  const { words, values, lists, flags } = readCommandLine(args, {
    values: ["config", "count", "from"],
    lists: ["server"],
    flags: ["json"],
    words: [0, 1],
  });
  if (flags.help) {
    console.log(HELP);
    return 0;
  }
  const count = Number(values.count ?? 4);
  if (!(Number.isInteger(count) && count >= 1 && count <= COUNT_MAX)) {
    throw new UsageError(`--count: expected 1 to ${COUNT_MAX}`);
  }
  if (values.from === undefined) {
    const [name] = words;
    if (name === undefined) throw new UsageError("name a device, or with --from a config; see --help");
    if (lists.server.length > 0) throw new UsageError("--server needs --from");
    const { config } = await loadConfig(values.config, readEnvironment());
    const path = `/v1/peers/${encodeURIComponent(name)}/ping`;
    return await report(name, count, flags.json, async () => {
      const { rttMs } = await askRelay(config, "POST", path, undefined, REQUEST_TIMEOUT_MS) as {
        rttMs: unknown;
      };
      return typeof rttMs === "number" ? rttMs : undefined;
    });
  }
  return await fromHere(values.from, lists.server, words.at(0), count, flags.json);
}

/** Pings from this machine, with the config or invitation in `file`. */
async function fromHere(
  file: string,
  givenServers: readonly string[],
  word: string | undefined,
  count: number,
  isJson: boolean,
): Promise<number> {
  const wanted = word === undefined ? undefined : parseAddress(word);
  if (word !== undefined && wanted === undefined) throw new UsageError(`"${word}" is no address`);
  const { invitation, endpoints } = await readInvitation(undefined, file, givenServers, undefined);
  refuseBesideConnect(`ask through it: ping ${word ?? "the relay's inner address"}`);
  const servers = await nearestOf(invitation, endpoints);
  const own = invitation.addresses.map((text) => parseAddress(text.split("/")[0])!);
  const exit = new PingExit(own, () => crypto.getRandomValues(new Uint32Array(1))[0]);
  const plane = openOwnPlane(invitation, exit);
  try {
    plane.connect(servers.address, servers.endpoint.port);
    await sessionOf(plane, servers);
    const relay4 = plane.told?.relay4;
    const target: Address | undefined = wanted ?? (relay4 && parseAddress(relay4.join(".")));
    if (target === undefined) {
      throw new UsageError(
        "this relay does not tell its inner address; name an address: ping --from FILE ADDRESS",
      );
    }
    const text = formatAddress(target);
    if (!exit.reaches(target)) throw new CommandError(`this device has no inner address to ask ${text} from`);
    return await report(wanted === undefined ? `the relay (${text})` : text, count, isJson, async () => {
      const request = exit.ask(target);
      for (const endMs = performance.now() + ANSWER_MS; performance.now() < endMs;) {
        await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
        const rttUs = exit.roundTripUs(request);
        if (rttUs >= 0) return rttUs / 1000;
      }
      return undefined;
    });
  } finally {
    await plane.close();
  }
}

/** Asks `count` times, a second apart, and prints each answer and the sum; the result is the exit code. */
async function report(name: string, count: number, isJson: boolean, echo: Echo): Promise<number> {
  let isEnded = false;
  const ended = Promise.withResolvers<void>();
  const end = () => {
    isEnded = true;
    ended.resolve();
  };
  Deno.addSignalListener("SIGINT", end);
  const rttMs: number[] = [];
  let sent = 0;
  try {
    while (sent < count && !isEnded) {
      const startMs = performance.now();
      sent++;
      const ms = await echo();
      if (ms !== undefined) rttMs.push(ms);
      if (!isJson) console.log(ms === undefined ? `${name}: no answer` : `${name}: ${ms.toFixed(2)} ms`);
      if (sent === count) break;
      const restMs = Math.max(0, INTERVAL_MS - (performance.now() - startMs));
      let timer: ReturnType<typeof setTimeout> | undefined;
      await Promise.race([ended.promise, new Promise<void>((done) => timer = setTimeout(done, restMs))]);
      clearTimeout(timer);
    }
  } finally {
    Deno.removeSignalListener("SIGINT", end);
  }
  const sorted = rttMs.toSorted((a, b) => a - b);
  const figures = {
    name,
    sent,
    received: rttMs.length,
    minMs: sorted.at(0),
    medianMs: percentile(sorted, 0.5),
    maxMs: sorted.at(-1),
  };
  if (isJson) console.log(JSON.stringify(rttMs.length === 0 ? { name, sent, received: 0 } : figures));
  else {
    const lost = `${sent} sent, ${rttMs.length} answered`;
    console.log(
      rttMs.length === 0
        ? lost
        : `${lost}; least ${sorted[0].toFixed(2)} ms, median ${figures.medianMs.toFixed(2)} ms, most ${
          sorted.at(-1)!.toFixed(2)
        } ms`,
    );
  }
  return rttMs.length > 0 ? 0 : 1;
}
