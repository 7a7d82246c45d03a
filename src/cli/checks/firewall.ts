/**
 * Whether the firewall of the host (nftables, also what iptables-nft wrote) lets new UDP packets to a port in, from what
 * `nft list ruleset` prints. Invariant: "open" and "closed" follow from the rules alone, walked in their order as the kernel does;
 * a rule that matches some packets to the port and not others, or that is not understood here, makes the answer "unknown" where it
 * could matter. Looks at chains of hook input only; reads nothing itself.
 */

/** What becomes of new UDP packets to the port. `table` and `chain` say which base chain decides. */
export interface Passage {
  state: "open" | "closed" | "unknown" | "none";
  table: string;
  chain: string;
}

interface Table {
  name: string;
  chains: Map<string, string[]>;
  sets: Map<string, string>;
  /** Of chains that were walked; one that is being walked is unsure, so that a circle ends. */
  outcomes: Map<string, Outcome>;
}

/** What a rule, or a chain that was jumped to, does; "next" goes on behind it. */
interface Outcome {
  end: "accept" | "drop" | "next";
  /** Whether some of the packets may have been accepted, or dropped, before that. */
  mayAccept: boolean;
  mayDrop: boolean;
}

const UNSURE: Outcome = { end: "next", mayAccept: true, mayDrop: true };
const NOTHING: Outcome = { end: "next", mayAccept: false, mayDrop: false };
/** Traffic that is none of new UDP packets from elsewhere. */
const ELSEWHERE = [
  /\b(?:tcp|sctp|dccp|icmp|icmpv6|igmp|esp|ah) [a-z]/,
  /\b(?:meta l4proto|ip protocol|ip6 nexthdr) (?!\{|!=|vmap\b|udp\b|17\b)\S+/,
  /\b(?:meta l4proto|ip protocol|ip6 nexthdr) \{(?![^}]*\b(?:udp|17)\b)[^}]*\}/,
  /\bct state (?!!=|vmap)(?!\{?[^{}]*\b(?:new|untracked)\b)/,
  /\biif(?:name)? "?lo"?(?= |$)/,
  /\bpkttype (?:broadcast|multicast)\b/,
];
/** What every new UDP packet to the port fulfils. */
const FULFILLED =
  /^(?:(?:meta l4proto|ip protocol|ip6 nexthdr) (?:\{[^}]*\}|\S+)|ct state (?:\{[^}]*\bnew\b[^}]*\}|[a-z,]*\bnew\b[a-z,]*)) */;

/**
 * The worst of all base chains of hook input that are not the relay's own: "closed" before "unknown" before "open"; "none" when there
 * is no such chain. `port` is 1 to 65535.
 */
export function passageOf(ruleset: string, port: number): Passage {
  const found: Passage[] = [];
  for (const table of tablesOf(ruleset)) {
    if (/^\S+ oxrelay/.test(table.name)) continue;
    for (const [chain, rules] of table.chains) {
      const base = rules.find((rule) => /^type filter hook input\b/.test(rule));
      if (base === undefined) continue;
      const { end, mayAccept, mayDrop } = walk(table, chain, port);
      const isDropped = end === "drop" || (end === "next" && /policy drop;/.test(base));
      const isUnsure = isDropped ? mayAccept : mayDrop;
      found.push({ state: isUnsure ? "unknown" : isDropped ? "closed" : "open", table: table.name, chain });
    }
  }
  for (const state of ["closed", "unknown", "open"] as const) {
    const one = found.find((passage) => passage.state === state);
    if (one !== undefined) return one;
  }
  return { state: "none", table: "", chain: "" };
}

/** Splits what nft prints; lists over several lines become one. */
function tablesOf(ruleset: string): Table[] {
  const tables: Table[] = [];
  let rules: string[] = [], set: string | undefined;
  for (const line of ruleset.replace(/,\s*\n\s*/g, ", ").split("\n").map((text) => text.trim())) {
    const [, kind, name] = /^([a-z]+) ([^{}]+) \{$/.exec(line) ?? [];
    const table = tables.at(-1);
    if (kind === "table") {
      tables.push({ name, chains: new Map(), sets: new Map(), outcomes: new Map() });
    } else if (kind !== undefined) {
      // Rules of blocks other than chains, a counter or a map, are none.
      rules = [];
      set = kind === "set" ? name : undefined;
      if (kind === "chain") table?.chains.set(name, rules);
      if (kind === "set") table?.sets.set(name, "");
    } else if (set !== undefined) {
      const elements = /^elements = \{(.*)\}$/.exec(line)?.[1];
      if (elements !== undefined) table?.sets.set(set, elements);
    } else if (line !== "}" && line !== "") rules.push(line);
  }
  return tables;
}

/** What a chain's rules do with the packets, from the first on. */
function walk(table: Table, chain: string, port: number): Outcome {
  const known = table.outcomes.get(chain), rules = table.chains.get(chain);
  if (known !== undefined) return known;
  table.outcomes.set(chain, UNSURE);
  if (rules === undefined) return UNSURE;
  let outcome = NOTHING;
  for (const rule of rules) {
    const one = outcomeOf(rule, table, port);
    if (one === "return") break;
    outcome = {
      end: one.end,
      mayAccept: outcome.mayAccept || one.mayAccept,
      mayDrop: outcome.mayDrop || one.mayDrop,
    };
    if (one.end !== "next") break;
  }
  table.outcomes.set(chain, outcome);
  return outcome;
}

function outcomeOf(line: string, table: Table, port: number): Outcome | "return" {
  const rule = line.replace(/ ?(?:comment "[^"]*"|# handle \d+)/g, "")
    .replace(/\bcounter (?:packets \d+ bytes \d+|name \S+)\s*|\bcounter\s+/g, "")
    .replace(/\blog(?: (?:prefix "[^"]*"|level \S+|flags \S+(?: \S+)?|group \d+|snaplen \d+))*\s*/g, "")
    .trim();
  if (/^(?:type |policy |elements |flags |#)/.test(rule)) return NOTHING;
  const [whole, verdict, target] =
    /(?:^| )(accept|drop|reject|return|queue|jump|goto)(?:(?<=reject) with .*|(?<=queue) .*|(?<=jump|goto) (\S+))?$/
      .exec(rule) ?? [];
  if (/\bvmap\b/.test(rule)) return ofMap(rule, table, port);
  const condition = whole === undefined ? rule : rule.slice(0, rule.length - whole.length);
  const match = matchOf(condition, table, port);
  if (match === "never") return NOTHING;
  if (verdict === undefined) return /\bxt (?:match|target)\b/.test(rule) ? UNSURE : NOTHING;
  if (verdict === "return") return match === "always" ? "return" : UNSURE;
  if (verdict === "queue") return UNSURE;
  const isJump = verdict === "jump" || verdict === "goto";
  const then: Outcome = isJump ? walk(table, target, port) : {
    end: verdict === "accept" ? "accept" : "drop",
    mayAccept: false,
    mayDrop: false,
  };
  if (verdict === "goto" && then.end === "next") return UNSURE;
  if (match === "always") return then;
  return {
    end: "next",
    mayAccept: then.mayAccept || then.end === "accept",
    mayDrop: then.mayDrop || then.end === "drop",
  };
}

/** A map of verdicts by the state of connections says nothing of new ones where it does not name them. */
function ofMap(rule: string, table: Table, port: number): Outcome {
  return matchOf(rule, table, port) === "never" ||
      /^ct state vmap \{(?![^}]*\b(?:new|untracked)\b)[^}]*\}$/.test(rule)
    ? NOTHING
    : UNSURE;
}

/** Whether new UDP packets to the port fulfil a rule's condition: all, none, or some or nobody here knows. */
function matchOf(condition: string, { sets }: Table, port: number): "always" | "never" | "maybe" {
  if (ELSEWHERE.some((pattern) => pattern.test(condition))) return "never";
  let isUnsure = false, isOther = false;
  let rest = condition.replace(/\b(?:udp|th) dport (!= )?(\{[^}]*\}|\S+)/g, (_, not, ports: string) => {
    const listed = ports.startsWith("@") ? sets.get(ports.slice(1)) : ports.replace(/[{}]/g, "");
    const has = listed === undefined ? undefined : holds(listed, port);
    if (has === undefined) isUnsure = true;
    else if (has === (not !== undefined)) isOther = true;
    return "";
  }).trim();
  if (isOther) return "never";
  while (FULFILLED.test(rest) && !/^\S+ \S+ (?:!=|vmap)/.test(rest)) {
    rest = rest.replace(FULFILLED, "").trim();
  }
  return isUnsure || rest !== "" ? "maybe" : "always";
}

/** Whether a list of ports and ranges, "53, 4000-5000", has the port; undefined when something in it is neither. */
function holds(list: string, port: number): boolean | undefined {
  let isUnsure = false;
  for (const text of list.split(",").map((one) => one.trim()).filter((one) => one !== "")) {
    const [whole, low, high = low] =
      /^(\d+)(?:-(\d+))?(?: (?:timeout|expires|counter|comment) .*)?$/.exec(text) ?? [];
    if (whole === undefined) isUnsure = true;
    else if (port >= Number(low) && port <= Number(high)) return true;
  }
  return isUnsure ? undefined : false;
}
