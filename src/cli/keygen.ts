/**
 * `keygen`: keys on standard output, like `wg genkey`, `wg pubkey` and `wg genpsk`. Stores nothing and reads
 * no configuration.
 */
import { CommandError, readCommandLine, UsageError } from "../process/help.ts";
import { closeStandardOutput } from "../process/secret_output.ts";
import {
  generatePresharedKey,
  generatePrivateKey,
  keyFromText,
  keyToText,
  publicKeyOf,
} from "../process/keys_text.ts";

const HELP = `Prints a key as 44 characters of base64.

  deno task -q keygen                  a private key
  deno task -q keygen --psk            a preshared key
  deno task -q keygen --public < FILE  the public key of the private key in FILE

A file that standard output goes to is closed to other users (mode 0600):
  deno task -q keygen > private.key
  deno task -q keygen --public < private.key
`;

const INPUT_BYTES_MAX = 256;

/** Runs the subcommand; the result is the exit code. */
export async function keygen(args: string[]): Promise<number> {
  const { flags } = readCommandLine(args, { values: [], flags: ["public", "psk"], words: [0, 0] });
  if (flags.help) {
    console.log(HELP);
    return 0;
  }
  if (flags.public && flags.psk) throw new UsageError("--public and --psk exclude each other");
  const closed = flags.public ? undefined : closeStandardOutput();
  if (closed !== undefined) console.error(closed);
  if (flags.psk) {
    console.log(keyToText(generatePresharedKey()));
  } else if (flags.public) {
    const privateKey = keyFromText((await readInput()).trim());
    if (privateKey === undefined) {
      throw new CommandError("standard input: expected a private key, 44 characters of base64");
    }
    console.log(keyToText(publicKeyOf(privateKey)));
    privateKey.fill(0);
  } else {
    const privateKey = generatePrivateKey();
    console.log(keyToText(privateKey));
    privateKey.fill(0);
  }
  return 0;
}

/** Standard input up to a bound; a longer one is cut and so is no key. */
async function readInput(): Promise<string> {
  const bytes = new Uint8Array(INPUT_BYTES_MAX);
  let length = 0;
  while (length < bytes.length) {
    const count = await Deno.stdin.read(bytes.subarray(length));
    if (count === null) break;
    length += count;
  }
  const text = new TextDecoder().decode(bytes.subarray(0, length));
  bytes.fill(0);
  return text;
}
