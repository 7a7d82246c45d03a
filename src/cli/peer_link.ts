/**
 * `peer link`, `peer links` and `peer unlink`: one-time links, with which somebody adds one device without the token. Invariant: the
 * running relay makes and revokes them, and standard output has a new link's address alone, once. Without a running relay nothing
 * is done, as nobody could use a link.
 */
import type { Environment } from "../config.ts";
import { CommandError, loadConfig, readCommandLine, UsageError } from "../process/help.ts";
import { closeStandardOutput } from "../process/secret_output.ts";
import { findAdminUrl } from "../serve/admin_address.ts";
import { askRelay } from "./admin_client.ts";
import { LIMIT_OPTIONS, LIMITS_HELP, readLimits, readTime, withoutNone } from "./peer_limits.ts";
import { renderTable } from "./table.ts";

const LINK_HELP =
  `Makes a one-time link: who opens it first gets the configuration of one new device. Nobody can show it again.

  deno task peer link friend --page https://relay.example.com
  deno task peer link guest --valid 2h --expires 7d --volume 20G

  --page URL            where the friend reaches the relay's page: an address that is reachable from outside, over TLS
                        (default: the page on this machine)
  --valid WHEN          how long the link works (default 24h)
  --down RATE, --up RATE   the most that the device is sent, and may send: 50M, 900k or bits a second, 64k to 100G
${LIMITS_HELP}
  --config FILE         the relay's configuration (default oxrelay.toml)
`;

const LINKS_HELP = `Lists the one-time links of the last day: whom they are for, and whether they were used.

  deno task peer links
  deno task -q peer links --json
`;

const UNLINK_HELP = `Makes a one-time link useless. "peer links" has its number.

  deno task peer unlink 0123456789ab
`;

interface Link {
  id: string;
  name: string;
  expires: string;
  state: string;
}

export async function link(args: string[], env: Environment): Promise<number> {
  const { words: [name], values, flags } = readCommandLine(args, {
    values: ["config", "page", "valid", "down", "up", ...LIMIT_OPTIONS],
    flags: [],
    words: [1, 1],
  });
  if (flags.help) {
    console.log(LINK_HELP);
    return 0;
  }
  const page = values.page === undefined ? undefined : readPage(values.page);
  const limits = withoutNone(readLimits(values, { down: "down", up: "up" }, Date.now()));
  const { config } = await loadConfig(values.config, env);
  const made = await askRelay(config, "POST", "/v1/links", {
    name,
    linkExpires: readTime("valid", values.valid ?? "24h", Date.now()),
    ...limits,
  }) as Link & { token: string };
  const closed = closeStandardOutput();
  if (closed !== undefined) console.error(closed);
  const address = new URL("link", page ?? `${await findAdminUrl(config)}/`);
  // Behind "#", which browsers send to nobody.
  address.hash = made.token;
  console.log(address.href);
  console.error(
    `It works once, until ${made.expires}; to take it back: deno task peer unlink ${made.id}`,
  );
  if (page === undefined) {
    console.error(
      "Only this machine reaches that address. For somebody else put the page behind a proxy with TLS and name it with --page.",
    );
  }
  return 0;
}

/** The page's address, with a slash at its end. Throws UsageError. */
function readPage(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol) || url.search !== "" || url.hash !== "") {
    throw new UsageError(`--page: expected an address such as https://relay.example.com, found "${text}"`);
  }
  if (!url.pathname.endsWith("/")) url.pathname += "/";
  return url;
}

export async function links(args: string[], env: Environment): Promise<number> {
  const { values, flags } = readCommandLine(args, { values: ["config"], flags: ["json"], words: [0, 0] });
  if (flags.help) {
    console.log(LINKS_HELP);
    return 0;
  }
  const { config } = await loadConfig(values.config, env);
  const all = await askRelay(config, "GET", "/v1/links") as Link[];
  if (flags.json) console.log(JSON.stringify(all, null, 2));
  else if (all.length === 0) console.error("There are no links; make one with: deno task peer link friend");
  else {
    const rows = all.map(({ id, name, state, expires }) => [id, name, state, expires]);
    console.log(renderTable([["NUMBER", "NAME", "STATE", "WORKS UNTIL"], ...rows]));
  }
  return 0;
}

export async function unlink(args: string[], env: Environment): Promise<number> {
  const { words: [id], values, flags } = readCommandLine(args, {
    values: ["config"],
    flags: [],
    words: [1, 1],
  });
  if (flags.help) {
    console.log(UNLINK_HELP);
    return 0;
  }
  if (!/^[0-9a-f]{12}$/.test(id)) {
    throw new CommandError(`"${id}" is no link's number, which has 12 hexadecimal digits; see: peer links`);
  }
  const { config } = await loadConfig(values.config, env);
  await askRelay(config, "DELETE", `/v1/links/${id}`);
  console.error(`The link ${id} is useless now.`);
  return 0;
}
