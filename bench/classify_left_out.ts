/**
 * Leave one application out: what the classifier makes of an application that nobody has written a pattern for. For each
 * application in turn its own patterns and every port that is known by an application are switched off, and its flows are
 * judged by what is left. Invariant: protocols that many programs speak (TRANSPORTS) stay, and no application's flows are
 * judged by a pattern that any of them is recognised by. Prints nothing.
 */
import type { LeftOut } from "../src/cli/capture_flows.ts";
import { APPLICATIONS } from "../src/control/applications.ts";
import { isRealTime } from "../src/control/traffic_class.ts";
import {
  bulkTaken,
  CLASS_OF,
  classAfter,
  type Scored,
  scoredFlows,
  type Shares,
  sharesOf,
  TRANSPORTS,
} from "./classify_score.ts";

/** Ports of classifier.ts that belong to programs and not to protocols. */
const PORTS: LeftOut["ports"] = [
  [1119, 1119], // Battle.net
  [3074, 3074], // Xbox
  [3659, 3659],
  [3724, 3724],
  [5060, 5061], // SIP
  [6672, 6672],
  [6881, 6889], // BitTorrent
  [7777, 7788], // Unreal
  [19132, 19133], // Minecraft
  [19302, 19309], // Meet
  [25565, 25565],
  [27000, 27100], // Steam
  [51413, 51413],
];

/** Every pattern of an application, and none of its ports: RTP, ports, sizes and pace are left. */
export const NO_PATTERNS: LeftOut = { applications: new Set(APPLICATIONS.map(([name]) => name)), ports: [] };

export interface LeftOutResult {
  /** What was switched off. */
  without: string[];
  shares: Shares;
  /** Of transfers, in place of recall: the share taken for a game or a call. */
  bulkTaken?: { packets: number; share: number };
}

/** A label without the protocols in front: of "STUN.WhatsAppCall" and "SRTP.WhatsAppCall" one. */
function nameOfLabel(application: string): string {
  return application.split(".").at(-1)!;
}

/** By application, in the order of names, of those whose flows are games, calls or transfers. @param flows judged with everything. */
export function leaveOneOut(
  directory: string,
  packetsMin: number,
  flows: Scored[],
): { each: Record<string, LeftOutResult>; judged: Scored[] } {
  const each: Record<string, LeftOutResult> = {}, judged: Scored[] = [];
  const known = flows.filter(({ truth }) => truth in CLASS_OF || truth === "bulk");
  const names = [...new Set(known.map(({ application }) => nameOfLabel(application)))];
  for (const name of names.sort((a, b) => a.localeCompare(b))) {
    const own = known.filter(({ application }) => nameOfLabel(application) === name);
    const applications = new Set(own.flatMap(({ flow }) => flow.names).filter((one) => !TRANSPORTS.has(one)));
    applications.delete("");
    const files = new Set(own.map(({ file }) => file));
    const some = scoredFlows(directory, packetsMin, { applications, ports: PORTS }, files).filter((one) =>
      nameOfLabel(one.application) === name && (one.truth in CLASS_OF || one.truth === "bulk")
    );
    const real = some.filter(({ truth }) => truth in CLASS_OF);
    each[name] = {
      without: [...applications].sort(),
      shares: sharesOf(real),
      bulkTaken: real.length < some.length ? bulkTaken(some) : undefined,
    };
    judged.push(...some);
  }
  return { each, judged };
}

/** Of the applications with a game or a call, how many have every flow protected after 8 packets. */
export function wholeApplications(judged: Scored[]): { whole: number; of: number } {
  const names = new Map<string, boolean>();
  for (const { application, truth, flow } of judged) {
    if (!(truth in CLASS_OF)) continue;
    const name = nameOfLabel(application);
    names.set(name, (names.get(name) ?? true) && isRealTime(classAfter(flow, 8)));
  }
  return { whole: [...names.values()].filter(Boolean).length, of: names.size };
}
