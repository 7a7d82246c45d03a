/**
 * The token of the admin interface: what the configuration sets, else `admin.token` in the state directory, which the relay makes
 * at its first start and this machine's `peer` and `status` read. Invariant: the file is whole, 0600, and made once; there is
 * always a token, since an address proves nobody's identity. Never prints the token.
 */
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import type { Config } from "../config.ts";
import { makeStateDirectory, readIfPresent, replaceFile, withLock } from "../process/durable.ts";
import { CommandError } from "../process/help.ts";

const TOKEN_BYTES = 32;

function pathOf({ stateDir }: Config): string {
  return join(stateDir, "admin.token");
}

/** The token for a subcommand that asks the relay; undefined when neither the config nor a relay's first start has set one. Throws CommandError. */
export async function readAdminToken(config: Config): Promise<string | undefined> {
  if (config.adminToken !== undefined) return config.adminToken;
  const path = pathOf(config);
  const text = await readIfPresent(path);
  if (text === undefined) return undefined;
  const token = text.trimEnd();
  if (/^[\x21-\x7e]{16,512}$/.test(token)) return token;
  throw new CommandError(
    `${path}: not a token: expected 16 to 512 printable characters; remove it and restart the relay to get another`,
  );
}

/**
 * The relay's token, made when none is configured or stored. A relay that cannot store one, as on a read-only disk, still relays:
 * it uses a token that nobody knows, and `say` gets the reason.
 */
export async function loadAdminToken(config: Config, say: (message: string) => void): Promise<string> {
  try {
    return await readAdminToken(config) ?? await makeAdminToken(config);
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    say(`/v1 is closed to everybody until admin_token or OXRELAY_ADMIN_TOKEN is set: ${error.message}`);
    return newToken();
  }
}

async function makeAdminToken(config: Config): Promise<string> {
  await makeStateDirectory(config.stateDir);
  return await withLock(`${pathOf(config)}.lock`, async () => {
    const theirs = await readAdminToken(config); // another process may have made it meanwhile
    if (theirs !== undefined) return theirs;
    const token = newToken();
    await replaceFile(pathOf(config), `${token}\n`);
    return token;
  });
}

function newToken(): string {
  return randomBytes(TOKEN_BYTES).toString("base64url");
}
