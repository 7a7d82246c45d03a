/**
 * The relay's identity: its X25519 private key, from the environment or from a file that is made on first
 * use, and the tunnel's IPv6 prefix derived from it. Invariant: the key file is whole, 0600, and made once:
 * two processes that start together end up with one key. Never prints the private key.
 */
import { blake2s } from "@noble/hashes/blake2.js";
import { join } from "node:path";
import type { Config, Environment } from "../config.ts";
import { makeStateDirectory, readIfPresent, replaceFile, withLock } from "../process/durable.ts";
import { CommandError } from "../process/help.ts";
import { generatePrivateKey, isZeroKey, keyFromText, keyToText, publicKeyOf } from "../process/keys_text.ts";
import { formatAddress } from "../wire/address.ts";

export interface Identity {
  /** 32 bytes. Secret: whoever takes it wipes it at the end. */
  readonly privateKey: Uint8Array<ArrayBuffer>;
  /** 32 bytes. */
  readonly publicKey: Uint8Array<ArrayBuffer>;
  /** Where the key came from, for people: a file's path or "OXRELAY_PRIVATE_KEY". */
  readonly source: string;
  /** Whether this call made the key. */
  readonly made: boolean;
}

/**
 * Loads the relay's identity: OXRELAY_PRIVATE_KEY, else `private.key` in the state directory, which is made
 * when missing. Throws CommandError when the key is malformed or its file is open to other users.
 */
export async function loadIdentity(config: Config, env: Environment): Promise<Identity> {
  if (env.OXRELAY_PRIVATE_KEY) {
    const privateKey = keyFromText(env.OXRELAY_PRIVATE_KEY.trim());
    if (privateKey === undefined || isZeroKey(privateKey)) {
      throw new CommandError(
        "environment: OXRELAY_PRIVATE_KEY: expected 44 characters of base64 as `keygen` prints them",
      );
    }
    return { privateKey, publicKey: publicKeyOf(privateKey), source: "OXRELAY_PRIVATE_KEY", made: false };
  }
  const path = join(config.stateDir, "private.key");
  const found = await readKeyFile(path);
  if (found !== undefined) {
    return { privateKey: found, publicKey: publicKeyOf(found), source: path, made: false };
  }
  await makeStateDirectory(config.stateDir);
  return await withLock(join(config.stateDir, "private.key.lock"), async () => {
    // Another process may have made it while this one waited.
    const theirs = await readKeyFile(path);
    const privateKey = theirs ?? generatePrivateKey();
    if (theirs === undefined) await replaceFile(path, `${keyToText(privateKey)}\n`);
    return { privateKey, publicKey: publicKeyOf(privateKey), source: path, made: theirs === undefined };
  });
}

async function readKeyFile(path: string): Promise<Uint8Array<ArrayBuffer> | undefined> {
  const text = await readIfPresent(path);
  if (text === undefined) return undefined;
  const { mode } = await Deno.stat(path);
  if (mode !== null && (mode & 0o077) !== 0) {
    const octal = (mode & 0o777).toString(8).padStart(4, "0");
    throw new CommandError(
      `${path}: other users may read or change the relay's private key (mode ${octal}); ` +
        `close it with: chmod 600 ${path}`,
    );
  }
  const key = keyFromText(text.trimEnd());
  if (key === undefined || isZeroKey(key)) {
    throw new CommandError(
      `${path}: not a private key: expected 44 characters of base64 and a newline; restore it from a backup, ` +
        "or move it away and a new key is made (every client then needs a new config)",
    );
  }
  return key;
}

/**
 * The tunnel's IPv6 prefix for a 32-byte public key: a unique local /64 whose 40-bit global ID is the start of
 * the key's BLAKE2s hash and whose subnet is 0 (RFC 4193 sections 3.1 and 3.2).
 */
export function deriveTunnelIpv6(publicKey: Uint8Array): string {
  const [a, b, c, d, e] = blake2s(publicKey, { dkLen: 5 });
  const words = Uint32Array.of(0xfd << 24 | a << 16 | b << 8 | c, d << 24 | e << 16, 0, 0);
  return `${formatAddress(words)}/64`;
}

/** The tunnel's IPv6 prefix as configured, "auto" resolved; undefined when it is off. */
export function resolveTunnelIpv6(config: Config, publicKey: Uint8Array): string | undefined {
  if (config.tunnelIpv6 === "off") return undefined;
  return config.tunnelIpv6 === "auto" ? deriveTunnelIpv6(publicKey) : config.tunnelIpv6;
}

/**
 * What a peer's record depends on besides the peer: the relay's key and the tunnel's networks, as one text. Two processes with
 * the same text lease from the same networks.
 */
export function networkOf(config: Config, publicKey: Uint8Array<ArrayBuffer>): string {
  return [keyToText(publicKey), config.tunnelIpv4, resolveTunnelIpv6(config, publicKey) ?? "off"].join(" ");
}
