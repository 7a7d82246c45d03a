/**
 * How well the classifier's word on labelled flows is: scored flows of a directory of captures with a labels.tsv, and shares of
 * them. Invariant: the same files give the same scores; the class of a flow after n packets is the nth one's. Prints nothing.
 */
import { readCapture } from "../src/cli/capture.ts";
import { type CapturedFlow, CaptureFlows, type LeftOut } from "../src/cli/capture_flows.ts";
import { endsOf } from "../src/cli/classify.ts";
import {
  CLASS_BULK,
  CLASS_DEFAULT,
  CLASS_GAME,
  CLASS_INTERACTIVE,
  CLASS_VOICE,
  isRealTime,
} from "../src/control/traffic_class.ts";
import { PROTOCOL_UDP } from "../src/wire/inner.ts";
import { isNamed, readLabels, type Truth, truthOf } from "./classify_labels.ts";

/** The packet counts of a flow after which its class is scored. */
export const AFTER = [2, 8, 32] as const;
/** Of what has a class of its own. */
export const CLASS_OF: Partial<Record<Truth, number>> = { game: CLASS_GAME, call: CLASS_VOICE };

/** What names a protocol that many programs speak, and no program. */
export const TRANSPORTS: ReadonlySet<string> = new Set(["rtp", "stun", "turn", "webrtc", "dtls", "quic"]);

export interface Scored {
  file: string;
  application: string;
  truth: Truth;
  flow: CapturedFlow;
}

/** As labels.tsv writes ends. */
export function nameOf(flow: CapturedFlow): string {
  return endsOf(flow).map((end) => end.replace(/^\[(.*)\]|:(?=\d+$)/g, (_, ipv6) => ipv6 ?? " ")).join(" ");
}

/**
 * The labelled UDP flows of `packetsMin` packets and more. A file that is no capture is passed over, aloud.
 * @param leftOut as of CaptureFlows. @param only these files; all without.
 */
export function scoredFlows(
  directory: string,
  packetsMin: number,
  leftOut?: LeftOut,
  only?: ReadonlySet<string>,
): Scored[] {
  const labels = readLabels(Deno.readTextFileSync(`${directory}/labels.tsv`));
  const files = [...new Set(labels.map(({ file }) => file))].filter((file) => only?.has(file) ?? true);
  return files.flatMap((file) => {
    const flows = new CaptureFlows(leftOut);
    try {
      for (const packet of readCapture(Deno.readFileSync(`${directory}/${file}`))) flows.take(packet);
    } catch (error) {
      console.error(`${file}: ${error instanceof Error ? error.message : error}`);
      return [];
    }
    const named = new Map(
      labels.filter((label) => label.file === file && label.protocol === "UDP")
        .flatMap((label) => [[label.ends.join(" "), label], [label.ends.toReversed().join(" "), label]]),
    );
    return flows.all.flatMap((flow) => {
      const label = flow.protocol === PROTOCOL_UDP ? named.get(nameOf(flow)) : undefined;
      if (!label || flow.packets[0] + flow.packets[1] < packetsMin) return [];
      return [{ file, application: label.application, truth: truthOf(label), flow }];
    });
  });
}

export interface Shares {
  flows: number;
  /** By number of packets: the share taken for a game or a call, and for the right one of the two. */
  realTime: Record<number, number>;
  right: Record<number, number>;
}

/** The class after `count` packets, or the flow's last. */
export function classAfter({ first }: CapturedFlow, count: number): number {
  return first[Math.min(count, first.length) - 1];
}

export function sharesOf(flows: Scored[]): Shares {
  const share = (fits: (one: Scored, count: number) => boolean) =>
    Object.fromEntries(
      AFTER.map((count) => [count, flows.filter((one) => fits(one, count)).length / flows.length]),
    );
  return {
    flows: flows.length,
    realTime: share(({ flow }, count) => isRealTime(classAfter(flow, count))),
    right: share(({ flow, truth }, count) => classAfter(flow, count) === CLASS_OF[truth]),
  };
}

/** By number of packets: of the flows that `isTaken`, the share that `isRight`; NaN where none is taken. */
function precision(
  flows: Scored[],
  isTaken: (one: Scored, count: number) => boolean,
  isRight: (one: Scored) => boolean,
): Record<number, number> {
  return Object.fromEntries(AFTER.map((count) => {
    const taken = flows.filter((one) => isTaken(one, count));
    return [count, taken.filter(isRight).length / taken.length];
  }));
}

/** Of all flows that are taken for games or calls, the share that is one. */
export function precisionOfRealTime(flows: Scored[]): Record<number, number> {
  return precision(
    flows,
    ({ flow }, count) => isRealTime(classAfter(flow, count)),
    ({ truth }) => truth in CLASS_OF,
  );
}

/** Of all flows that are taken for a game, a call or a transfer, the share that is one. */
export function precisionOfClass(flows: Scored[], truth: Truth): Record<number, number> {
  const taken = truth === "bulk" ? CLASS_BULK : CLASS_OF[truth];
  return precision(
    flows,
    ({ flow }, count) => classAfter(flow, count) === taken,
    (one) => one.truth === truth,
  );
}

export interface Recognised {
  /** By number of packets: flows that are recognised as it. */
  flows: Record<number, number>;
  /** The share of them that the label calls so too; undefined where the name is a transport's, as labels name uses. */
  named?: Record<number, number>;
  /** The share of them that is a game or a call. */
  realTime: Record<number, number>;
}

/** What a flow is recognised as after `count` packets, "" for nothing. */
export function nameAfter({ names }: CapturedFlow, count: number): string {
  return names[Math.min(count, names.length) - 1];
}

/** By name of what any flow is recognised as: how often, and how often rightly. */
export function recognised(flows: Scored[]): Record<string, Recognised> {
  const names = new Set(flows.flatMap(({ flow }) => AFTER.map((count) => nameAfter(flow, count))));
  names.delete("");
  return Object.fromEntries(
    [...names].sort().map((name) => {
      const isTaken = ({ flow }: Scored, count: number) => nameAfter(flow, count) === name;
      return [name, {
        flows: Object.fromEntries(AFTER.map((n) => [n, flows.filter((one) => isTaken(one, n)).length])),
        named: TRANSPORTS.has(name)
          ? undefined
          : precision(flows, isTaken, ({ application, file }) => isNamed(name, application, file)),
        realTime: precision(flows, isTaken, ({ truth }) => truth in CLASS_OF),
      }];
    }),
  );
}

/** Of the packets of transfers, the share that was taken for a game's or a call's. */
export function bulkTaken(flows: Scored[]): { packets: number; share: number } {
  const ofClass = flows.filter(({ truth }) => truth === "bulk").map(({ flow }) => flow.ofClass);
  const sum = (labels: number[]) =>
    ofClass.reduce((total, one) => total + labels.reduce((n, i) => n + one[i], 0), 0);
  const packets = sum([CLASS_DEFAULT, CLASS_GAME, CLASS_VOICE, CLASS_INTERACTIVE, CLASS_BULK]);
  return { packets, share: sum([CLASS_GAME, CLASS_VOICE]) / packets };
}
