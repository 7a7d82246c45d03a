/**
 * `peer set`, `peer rename`, `peer disable` and `peer enable`: changes of a peer that is there. Invariant: the running relay makes the
 * change, so that it holds at once; without one this process stores it for the next start. What is not named stays.
 */
import type { Config, Environment } from "../config.ts";
import { loadConfig, readCommandLine, UsageError } from "../process/help.ts";
import { changed, type PeerChange } from "../serve/access/peer_change.ts";
import { loadAllPeers, openStore } from "../serve/store.ts";
import type { PeerRecord } from "../session/peer_record.ts";
import { describeLimits, LIMIT_OPTIONS, LIMITS_HELP, readLimits } from "./peer_limits.ts";
import { changeByRelay, explainUntold, tellRelay } from "./relay_peers.ts";

const SET_HELP =
  `Changes the limits of a peer; its sessions continue, unless a limit ends them. What is not named stays.

  deno task peer set phone --down 45M --up 9M
  deno task peer set guest --expires 7d --volume 20G --notes "Ann's phone"
  deno task peer set guest --expires none --volume none

  --down RATE, --up RATE   the most that the device is sent, and may send: 50M, 900k or bits a second, 64k to 100G
${LIMITS_HELP}
                        "none" takes any of them away
  --name NEW            another name; the device stays connected
  --config FILE         the relay's configuration (default oxrelay.toml)
`;

const RENAME_HELP = `Gives a peer another name; it stays connected, and keeps its keys, addresses and traffic.

  deno task peer rename phone old-phone

  --config FILE         the relay's configuration (default oxrelay.toml)
`;

const DISABLE_HELP = `Keeps a peer out: its session ends at once, and it gets none until it is enabled.

  deno task peer disable phone

  --config FILE         the relay's configuration (default oxrelay.toml)
`;

const ENABLE_HELP =
  `Lets a peer in again that was disabled, with the configuration that it has. A date or a volume may keep it out still.

  deno task peer enable phone

  --config FILE         the relay's configuration (default oxrelay.toml)
`;

export async function set(args: string[], env: Environment): Promise<number> {
  const { words: [name], values, flags } = readCommandLine(args, {
    values: ["config", "name", "down", "up", ...LIMIT_OPTIONS],
    flags: [],
    words: [1, 1],
  });
  if (flags.help) return shown(SET_HELP);
  const change: PeerChange = {
    ...readLimits(values, { down: "down", up: "up" }, Date.now()),
    ...(values.name === undefined ? {} : { name: values.name }),
  };
  if (Object.keys(change).length === 0) {
    throw new UsageError("peer set: give what to change, such as --down 50M or --expires 30d; see --help");
  }
  const { config } = await loadConfig(values.config, env);
  return await carryOut(
    config,
    env,
    name,
    change,
    (record) =>
      `Peer "${record.name}": ${
        describeLimits(record, Date.now()).map(([limit, words]) => `${limit}: ${words}`).join("; ")
      }.`,
  );
}

export async function rename(args: string[], env: Environment): Promise<number> {
  const { words: [name, next], values, flags } = readCommandLine(args, {
    values: ["config"],
    flags: [],
    words: [2, 2],
  });
  if (flags.help) return shown(RENAME_HELP);
  const { config } = await loadConfig(values.config, env);
  return await carryOut(config, env, name, { name: next }, () => `Peer "${name}" is "${next}" now.`);
}

export const disable = (args: string[], env: Environment) => switched(args, env, true);
export const enable = (args: string[], env: Environment) => switched(args, env, false);

async function switched(args: string[], env: Environment, disabled: boolean): Promise<number> {
  const { words: [name], values, flags } = readCommandLine(args, {
    values: ["config"],
    flags: [],
    words: [1, 1],
  });
  if (flags.help) return shown(disabled ? DISABLE_HELP : ENABLE_HELP);
  const { config } = await loadConfig(values.config, env);
  return await carryOut(
    config,
    env,
    name,
    { disabled },
    () =>
      disabled
        ? `Peer "${name}" is disabled; to let it in again: deno task peer enable ${name}`
        : `Peer "${name}" is enabled.`,
  );
}

function shown(help: string): number {
  console.log(help);
  return 0;
}

/** Makes the change and says so; the result is the exit code. Throws CommandError for what relay or store refuses. */
async function carryOut(
  config: Config,
  env: Environment,
  name: string,
  change: PeerChange,
  say: (record: PeerRecord) => string,
): Promise<number> {
  const told = await changeByRelay(config, name, change);
  if (told === "changed") {
    const wanted = change.name ?? name;
    const record = (await loadAllPeers(config, env)).find((peer) => peer.name === wanted);
    console.error(record === undefined ? `Peer "${wanted}" is changed.` : say(record));
    console.error("The running relay knows.");
    return 0;
  }
  console.error(say(await openStore(config, env).edit(name, (record) => changed(record, change))));
  // A relay that does not know the peer may not have read what another process has stored.
  return told === "unknown" ? await tellRelay(config) : explainUntold(config, told);
}
