/**
 * The kinds of values of the schema, each with the sentence for a wrong value: "expected …, found …". Knows no keys.
 */
import * as v from "valibot";
import { type Part, PARTS } from "../control/rollout.ts";
import {
  formatAddress,
  formatPrefix,
  parseAddress,
  parseInterface,
  parsePrefix,
  type Prefix,
} from "../wire/address.ts";
import type { Endpoint } from "./shape.ts";

/**
 * Parses "host:port", "address:port" or "[address]:port" (port 1 to 65535), or gives undefined. The host comes
 * back without brackets, an address in its normal form.
 */
export function parseEndpoint(text: string): Endpoint | undefined {
  const match = /^(?:\[([0-9a-fA-F:.]{2,45})\]|([A-Za-z0-9._-]{1,254})):([1-9][0-9]{0,4})$/.exec(text);
  if (match === null) return undefined;
  const [, ipv6, name, digits] = match;
  const address = parseAddress(ipv6 ?? name);
  if (ipv6 === undefined ? address === undefined && !isName(name) : !ipv6.includes(":") || !address) {
    return undefined;
  }
  const port = Number(digits);
  return port <= 65535 ? { host: address ? formatAddress(address) : name, port } : undefined;
}

/**
 * A host name (RFC 1123 section 2.1) whose last label is never a number, because "10.0.0.256" is a mistake. Accepts
 * underscores, as DNS does, and the final dot of an absolute name (RFC 1034 section 3.1).
 */
function isName(text: string): boolean {
  const name = text.replace(/\.$/, "");
  const labels = name.split(".");
  return name.length <= 253 && !/^[0-9]+$/.test(labels.at(-1)!) &&
    labels.every((label) => /^(?!-)[A-Za-z0-9_-]{1,63}$/.test(label) && !label.endsWith("-"));
}

/** The text of an endpoint, brackets added where an IPv6 address needs them. */
export function formatEndpoint({ host, port }: Endpoint): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

type Message = (issue: v.BaseIssue<unknown>) => string;

/** The message for a value that is not `what`. */
export function expected(what: string): Message {
  return (issue) => `expected ${what}, found ${show(issue.input)}`;
}

export function show(value: unknown): string {
  if (typeof value === "string") {
    return JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}…` : value);
  }
  if (Array.isArray(value)) return "a list";
  if (value instanceof Date) return "a date";
  return typeof value === "object" ? "a table" : String(value);
}

export function wholeNumber(min: number, max: number) {
  const message = expected(`a whole number from ${min} to ${max}`);
  return v.pipe(
    v.number(message),
    v.integer(message),
    v.minValue(min, message),
    v.maxValue(max, message),
  );
}

/** A number between `min` and `max`, with or without a fraction. */
export function decimal(min: number, max: number) {
  const message = expected(`a number from ${min} to ${max}`);
  return v.pipe(v.number(message), v.minValue(min, message), v.maxValue(max, message));
}

export function text(what: string, valid: (value: string) => boolean) {
  const message = expected(what);
  return v.pipe(v.string(message), v.check(valid, message));
}

export function oneOf<const T extends readonly string[]>(...choices: T) {
  return v.picklist(choices, expected(choices.map((choice) => `"${choice}"`).join(" or ")));
}

export function endpoint(example: string) {
  return v.pipe(
    text(`"host:port" such as "${example}"`, (value) => parseEndpoint(value) !== undefined),
    v.transform((value) => parseEndpoint(value)!),
  );
}

/** A prefix must be the network itself: a set host bit is refused as a mistake. */
export function prefix(what: string, valid: (prefix: Prefix) => boolean) {
  return v.pipe(
    text(what, (value) => {
      const parsed = value.includes("/") ? parsePrefix(value) : undefined;
      return parsed !== undefined && valid(parsed);
    }),
    v.check(
      (value) => formatPrefix(parseInterface(value)!) === formatPrefix(parsePrefix(value)!),
      (issue) => {
        const network = formatPrefix(parsePrefix(String(issue.input))!);
        return `expected a network without host bits, found ${show(issue.input)}; did you mean "${network}"?`;
      },
    ),
    // One network has one text from here on.
    v.transform((value) => formatPrefix(parsePrefix(value)!)),
  );
}

/** A list of at most `max` networks, each once. */
export function networks(example: string, max: number, entry: ReturnType<typeof prefix>) {
  return v.pipe(
    list(`a list of networks such as ["${example}"]`),
    v.maxLength(max, (issue) => `expected at most ${max} networks, found ${issue.input.length}`),
    v.array(entry),
    v.check((entries) => new Set(entries).size === entries.length, (issue) => {
      const twice = issue.input.find((entry, i) => issue.input.indexOf(entry) !== i);
      return `expected each network once, found "${twice}" twice`;
    }),
  );
}

/** A switch. */
export const flag = v.boolean(expected("true or false"));
/** A list of unknown values, for further checks. */
export const list = (what: string) => v.array(v.unknown(), expected(what));

/** A share of peers for each part that a share of them can have. */
export const ROLLOUT_ENTRIES = Object.fromEntries(
  PARTS.map((part) => [part, v.optional(wholeNumber(0, 100))]),
) as Record<Part, v.OptionalSchema<ReturnType<typeof wholeNumber>, undefined>>;
