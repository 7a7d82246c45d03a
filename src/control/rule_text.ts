/**
 * Parses a user's rules about flows. Invariant: an error names the rule and shows an example, before any packet is looked at.
 * Matches no packets (class_rules.ts).
 */
import { ANY_DSCP, type ClassRule, patternOf } from "./class_rules.ts";
import { LOOK_BYTES, Signatures } from "./signatures.ts";

/** The classes by the names that people write, in the order of CLASS_*. */
export const CLASS_NAMES: readonly string[] = ["default", "game", "voice", "interactive", "bulk"];

const PROTOCOLS: Record<string, number> = { tcp: 6, udp: 17 };
const KEYS = ["protocol", "port", "address", "dscp", "pattern", "at", "program"];
const EXAMPLE = '"game port=27015-27030", "voice pattern=80.. address=203.0.113.0/24" or "bulk dscp=8"';
const PORT_MAX = 65_535, DSCP_MAX = 63;
const RULE_CHARS_MAX = 400;

/** As wire/address.ts's. */
export type PrefixReader = (text: string) => { address: Uint32Array; bits: number } | undefined;

/**
 * Reads "CLASS KEY=VALUE …". Throws SyntaxError, whose message is for people.
 */
export function readClassRule(text: string, parsePrefix: PrefixReader): ClassRule {
  const words = text.slice(0, RULE_CHARS_MAX + 1).trim().split(/\s+/);
  const trafficClass = CLASS_NAMES.indexOf(words[0]);
  if (text.length > RULE_CHARS_MAX || trafficClass < 0 || words.length < 2) {
    throw wrong(text, `expected one of ${CLASS_NAMES.join(", ")} and what it is for`);
  }
  const values: Record<string, string | undefined> = {};
  for (let i = 1; i < words.length; i++) {
    const cut = words[i].indexOf("="), key = words[i].slice(0, cut);
    if (!KEYS.includes(key) || cut === words[i].length - 1) {
      throw wrong(text, `expected ${KEYS.join("=, ")}=, found ${JSON.stringify(words[i])}`);
    }
    if (values[key] !== undefined) throw wrong(text, `${key} is given twice`);
    values[key] = words[i].slice(cut + 1);
  }
  return fieldsOf(text, trafficClass, values, parsePrefix);
}

function fieldsOf(
  text: string,
  trafficClass: number,
  values: Record<string, string | undefined>,
  parsePrefix: PrefixReader,
): ClassRule {
  const { protocol, port, address, dscp, pattern, at, program } = values;
  if (program !== undefined && Object.keys(values).length > 1) {
    throw wrong(text, "program stands alone, as it means the ports that the program has");
  }
  if (program !== undefined && !/^[^=:/]{1,64}$/.test(program)) throw wrong(text, "program is no name");
  if (protocol !== undefined && !Object.hasOwn(PROTOCOLS, protocol)) {
    throw wrong(text, "protocol is tcp or udp");
  }
  const prefix = address === undefined ? undefined : parsePrefix(address);
  if (address !== undefined && prefix === undefined) {
    throw wrong(text, "address is one such as 203.0.113.7 or a network such as 2001:db8::/32");
  }
  if (at !== undefined && pattern === undefined) {
    throw wrong(text, "at says where a pattern begins, and there is none");
  }
  const rule: ClassRule = {
    trafficClass,
    protocol: protocol === undefined ? 0 : PROTOCOLS[protocol],
    ports: port === undefined ? [0, PORT_MAX] : readRange(text, port),
    prefix,
    dscp: dscp === undefined ? ANY_DSCP : readNumber(text, "dscp", dscp, DSCP_MAX),
    pattern: pattern === undefined
      ? undefined
      : { bytes: pattern, at: at === undefined ? 0 : readNumber(text, "at", at, LOOK_BYTES - 1) },
    program,
  };
  try {
    new Signatures([patternOf(rule)]);
  } catch (error) {
    if (error instanceof SyntaxError) throw wrong(text, error.message);
    throw error;
  }
  return rule;
}

function readRange(text: string, value: string): [from: number, to: number] {
  const [from, to = from] = value.split("-", 2);
  const range: [number, number] = [
    readNumber(text, "port", from, PORT_MAX),
    readNumber(text, "port", to, PORT_MAX),
  ];
  if (range[0] < 1 || range[0] > range[1]) {
    throw wrong(text, "port is one such as 27015 or a range such as 27015-27030");
  }
  return range;
}

function readNumber(text: string, key: string, value: string, max: number): number {
  if (!/^\d{1,5}$/.test(value) || Number(value) > max) {
    throw wrong(text, `${key} is a whole number up to ${max}`);
  }
  return Number(value);
}

function wrong(text: string, why: string): SyntaxError {
  return new SyntaxError(`${JSON.stringify(text.slice(0, 100))}: ${why}; such as ${EXAMPLE}`);
}
