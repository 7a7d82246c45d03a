/**
 * `peer forward`: ports of the relay's host that lead to a peer, listed, added and removed. Invariant: the running relay changes
 * them, so that what is stored is open; without one this process stores them for the next start.
 */
import type { Environment } from "../config.ts";
import { formatForward, FORWARD_FORM, parseForward } from "../process/forward_text.ts";
import { CommandError, loadConfig, readCommandLine, UsageError } from "../process/help.ts";
import { withForwards, withoutForwards } from "../serve/forwards.ts";
import { loadAllPeers, openStore } from "../serve/store.ts";
import type { PeerRecord } from "../session/peer_record.ts";
import { explainUntold, forwardByRelay } from "./relay_peers.ts";

const FORWARD_HELP = `Leads ports of the relay to a device, for people who host games or other services on it.

  deno task peer forward console                          lists the device's ports
  deno task peer forward console udp:27015 tcp:27015      opens two
  deno task peer forward console udp:3074-3079            opens a range
  deno task peer forward console udp:27016:27015          the relay's port 27016, the device's port 27015
  deno task peer forward console --remove udp:27015       closes one

What comes to the port at any of the relay's addresses goes to the device, whoever sends it. A device may have 256 ports. A running relay
opens and closes them at once; they stay over restarts.

  --remove              close the ports that are named
  --json                list as JSON
  --config FILE         the relay's configuration (default oxrelay.toml)
`;

/** `peer forward`; the result is the exit code. Throws UsageError, ConfigError or CommandError. */
export async function forward(args: string[], env: Environment): Promise<number> {
  const { words: [name, ...texts], values, flags } = readCommandLine(args, {
    values: ["config"],
    flags: ["remove", "json"],
    words: [1, 257],
  });
  if (flags.help) {
    console.log(FORWARD_HELP);
    return 0;
  }
  const wanted = texts.map((text) => {
    const read = parseForward(text);
    if (read === undefined) throw new UsageError(`"${text}" is no forward; expected ${FORWARD_FORM}`);
    return formatForward(read);
  });
  if (flags.remove && wanted.length === 0) throw new UsageError("--remove needs the ports to close");
  const { config } = await loadConfig(values.config, env);
  const record = (await loadAllPeers(config, env)).find((record) => record.name === name);
  if (record === undefined) throw new CommandError(`there is no peer "${name}"; see: peer list`);
  if (wanted.length === 0) {
    list(record, flags.json);
    return 0;
  }
  // Says here what is wrong with them as a whole, before a relay closes some.
  const edited = flags.remove ? withoutForwards(record, wanted) : withForwards(record, wanted);
  let untold: Error | undefined;
  for (const change of flags.remove ? wanted.map((remove) => ({ remove })) : [{ add: wanted }]) {
    const told = await forwardByRelay(config, name, change);
    if (told instanceof Error) untold = told;
  }
  if (untold !== undefined) await openStore(config, env).edit(name, () => edited);
  console.error(
    `Peer "${name}" ${flags.remove ? "no longer has" : "has"} ${wanted.join(", ")}` +
      (untold === undefined ? "; the running relay knows." : "."),
  );
  return untold === undefined ? 0 : explainUntold(config, untold);
}

function list({ name, forwards = [] }: PeerRecord, isJson: boolean): void {
  if (isJson) console.log(JSON.stringify(forwards));
  else if (forwards.length > 0) console.log(forwards.join("\n"));
  else console.error(`No port leads to "${name}"; open one with: deno task peer forward ${name} udp:27015`);
}
