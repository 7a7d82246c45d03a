/**
 * Takes secrets and what identifies people out of a text. Invariant: of each known secret no form is left that a program writes (as it
 * is, base64 with either alphabet, hexadecimal, percent-encoded), nor anything that has the form of a key, a token, an invitation or
 * a PEM block; public addresses lose their last part. Removes too much rather than too little.
 */
import { Buffer } from "node:buffer";
import { rangesOf } from "../../wire/special_ranges.ts";
import { addressBytes, parseAddress, prefixContains } from "../../wire/address.ts";

const REMOVED = "[removed]";
/** A shorter text is no secret: it would be found in harmless words. */
const SECRET_MIN = 8;

/** Addresses that many networks have, and that name nobody. */
const HARMLESS = rangesOf("loopback", "link_local", "private", "metadata", "never");
/** In this order: longer forms first. */
const PATTERNS: [RegExp, string][] = [
  [/-----BEGIN [A-Z0-9 ]+-----[^]*?(?:-----END [A-Z0-9 ]+-----|$)/g, REMOVED],
  [/\boxrelay:\/\/\S*/g, `oxrelay://${REMOVED}`],
  [/\b(bearer|basic)\s+\S+/gi, `$1 ${REMOVED}`],
  [
    /\b((?:private|preshared)_?key|admin_?token|token|password|secret|psk|key|pin)(["']?\s*[=:]\s*["']?)[^\s"',&]+/gi,
    `$1$2${REMOVED}`,
  ],
  [/(?:[A-Za-z0-9_-]|[+/]|%2[BF]|\\\/){40,}(?:={1,2}|%3D)?/gi, REMOVED],
  [/(?:[0-9a-f]{2}[ :-]?){16,}/gi, REMOVED],
];
const IPV4 = /(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?!\w|\.\d)/g;
const IPV6 = /(?<![\w:])[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2,7}(?:\.\d{1,3}){0,3}(?![\w:])/gi;

/** Every form in which a program may have written the secret, which is a text or bytes. */
export function formsOf(secret: string | Uint8Array): string[] {
  const bytes = typeof secret === "string" ? new TextEncoder().encode(secret) : secret;
  if (bytes.length < SECRET_MIN) return [];
  const buffer = Buffer.from(bytes);
  const base64 = buffer.toString("base64"), hex = buffer.toString("hex");
  const spaced = (between: string) => hex.match(/../g)!.join(between);
  const plain = typeof secret === "string" ? [secret] : [buffer.toString("latin1")];
  const texts = [
    ...plain,
    base64,
    base64.replace(/=+$/, ""),
    buffer.toString("base64url"),
    hex,
    spaced(":"),
    spaced(" "),
  ];
  const forms = texts.flatMap((
    text,
  ) => [text, encodeURIComponent(text), JSON.stringify(text).slice(1, -1), text.replaceAll("/", "\\/")]);
  return [...new Set([...forms, ...[hex, spaced(":"), spaced(" ")].map((text) => text.toUpperCase())])]
    .toSorted((a, b) => b.length - a.length);
}

/** What base64, in either alphabet, has of the secret wherever it begins in the encoded text: the part that its own bits decide. */
function coresOf(secret: string | Uint8Array): string[] {
  const bytes = typeof secret === "string" ? new TextEncoder().encode(secret) : secret;
  if (bytes.length < SECRET_MIN) return [];
  return [0, 1, 2].flatMap((before) => {
    const whole = Buffer.concat([new Uint8Array(before), bytes]);
    // Characters of six bits that hold bits of what is before, or of what is behind.
    const from = Math.ceil(8 * before / 6), to = Math.floor(8 * whole.length / 6);
    return (["base64", "base64url"] as const).map((alphabet) => whole.toString(alphabet).slice(from, to));
  });
}

/** The text without the secrets, and without what has the form of one. `names` are replaced by what stands beside them. */
export function scrub(
  text: string,
  secrets: readonly (string | Uint8Array)[],
  names: ReadonlyMap<string, string>,
): string {
  let clean = text;
  for (const form of secrets.flatMap(formsOf)) clean = clean.replaceAll(form, REMOVED);
  for (const core of new Set(secrets.flatMap(coresOf))) {
    // With the rest of the encoded text, which holds the first and last bits.
    clean = clean.replace(new RegExp(`[\\w+/-]*${RegExp.escape(core)}[\\w+/-]*=*`, "g"), REMOVED);
  }
  for (const [pattern, by] of PATTERNS) clean = clean.replace(pattern, by);
  for (const [name, by] of names) {
    clean = clean.replace(new RegExp(`(?<![\\w.-])${RegExp.escape(name)}(?![\\w-])`, "g"), by);
  }
  return clean.replace(IPV4, shortened).replace(IPV6, shortened);
}

/** Whether a form of one of the secrets is in the text. */
export function isLeaking(text: string, secrets: readonly (string | Uint8Array)[]): boolean {
  return secrets.flatMap((secret) => [...formsOf(secret), ...coresOf(secret)]).some((form) =>
    text.includes(form)
  );
}

/** A public address without its host: its /24 or /48; any other text as it is. */
function shortened(text: string): string {
  const address = parseAddress(text);
  // In "2001:db8::1: refused" the last colon is the sentence's.
  if (address === undefined && /[^:]:$/.test(text)) return `${shortened(text.slice(0, -1))}:`;
  if (address === undefined || HARMLESS.some((range) => prefixContains(range, address))) return text;
  const bytes = addressBytes(address);
  if (bytes.length === 4) return `${bytes.slice(0, 3).join(".")}.x`;
  return `${[0, 2, 4].map((i) => (bytes[i] << 8 | bytes[i + 1]).toString(16)).join(":")}::x`;
}
