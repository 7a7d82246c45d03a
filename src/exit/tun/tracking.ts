/**
 * Whether rules of others on the host need conntrack to track the relay's own datagrams. Invariant: in doubt the answer is yes,
 * because an untracked datagram has the state "untracked", which no rule for established connections accepts. Reads the
 * text of `nft list ruleset`; runs no program, and does not see iptables-legacy.
 */

/** Hooks that a datagram to or from this host does not pass, or passes where no rule drops by state. */
const ELSEWHERE = ["forward", "postrouting", "ingress", "egress"];
const NAT = /\b(redirect|dnat|snat|REDIRECT|DNAT|SNAT)\b/;
const STATE =
  /\bct (?!helper\b|timeout\b)\w|\bctstate\b|\bxt match "?(conntrack|state)\b|-m (conntrack|state)\b/;

/**
 * The line for which UDP of `port` must stay tracked: a chain of input or output that drops what no rule accepts, a rule
 * that looks at connections, or one that gives the port another address or number; undefined when there is none. Tables
 * whose names begin with `own` are skipped.
 */
export function trackingNeed(ruleset: string, port: number, own: string): string | undefined {
  let isOwn = false, hook: string | undefined;
  for (const text of ruleset.split("\n")) {
    const line = text.trim();
    const table = /^table \S+ (\S+)/.exec(line)?.[1];
    if (table !== undefined) isOwn = table.startsWith(own);
    if (/^chain /.test(line)) hook = undefined;
    if (isOwn) continue;
    const base = /^type (\S+) hook (\S+) /.exec(line);
    if (base) {
      hook = base[2];
      if (/^(input|output|prerouting)$/.test(hook) && /policy drop;/.test(line)) return line;
    } else if (concerns(line, port) && (NAT.test(line) || STATE.test(line))) {
      if (hook === undefined || !ELSEWHERE.includes(hook) || names(line, port) && NAT.test(line)) return line;
    }
  }
  return undefined;
}

/** Whether a rule may match UDP of the port: not when it matches only another protocol or another port. */
function concerns(line: string, port: number): boolean {
  if (
    /\b(tcp|sctp|dccp|icmp|icmpv6) \w|\b(l4proto|protocol|nexthdr) (tcp|sctp|icmp|icmpv6|ipv6-icmp)\b/.test(
      line,
    )
  ) {
    return false;
  }
  if (names(line, port)) return true;
  const only = [...line.matchAll(/\b[ds]port (\d+)(?![-\d])/g)].map(([, number]) => Number(number));
  return only.length === 0;
}

function names(line: string, port: number): boolean {
  return new RegExp(`\\b${port}\\b`).test(line);
}
