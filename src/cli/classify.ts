/**
 * `classify`: what the flows of a capture would be in a tunnel, and why, so that a person can report a program that is taken
 * for something else, or write a rule for it. Invariant: reads the file and nothing else, and prints no payload. The flows
 * are capture_flows.ts's, the words control/explain.ts's.
 */
import { type ClassRule, ClassRules } from "../control/class_rules.ts";
import { formatEndpoint } from "../wire/address.ts";
import { INWARD, OUTWARD } from "../control/flows.ts";
import { applicationName, explainClass } from "../control/explain.ts";
import { CLASS_LABELS } from "../metrics.ts";
import { PROTOCOL_TCP, PROTOCOL_UDP } from "../wire/inner.ts";
import { CaptureError, readCapture } from "./capture.ts";
import { type CapturedFlow, CaptureFlows } from "./capture_flows.ts";
import { CommandError, readCommandLine, UsageError } from "../process/help.ts";
import { readRules } from "../connect/priorities.ts";

const HELP = `Prints the class that each flow of a capture would have in an OxTunnel session, and the reason.

  deno task classify FILE           FILE is a pcap or pcapng, as tcpdump and Wireshark write them
  deno task -q classify FILE --json the same for programs, one flow a line
  --rule "CLASS KEY=VALUE …"        try a rule, written as for connect --rule and a relay's [classes]; may be repeated
  --packets N                       leave out flows of fewer packets (default 3)

A capture may be cut (tcpdump -s 128): only 64 bytes of each payload are read.
Columns: the end that sent first, the other end, packets each way, class after 2, 8 and 32 packets and at the end,
the recognised application, the reason.
`;

const AFTER = [2, 8, 32];
const FILE_BYTES_MAX = 1 << 30;

/** What is said of a flow. */
export interface FlowVerdict {
  protocol: string;
  near: string;
  far: string;
  packets: [up: number, down: number];
  bytes: [up: number, down: number];
  /** After 2, 8 and 32 packets, and after the last. */
  after: string[];
  trafficClass: string;
  /** "" for nothing in particular. */
  application: string;
  why: string;
}

/** Runs the subcommand; the result is the exit code. */
export async function classify(args: string[]): Promise<number> {
  const { values, lists, flags, words } = readCommandLine(args, {
    values: ["packets"],
    lists: ["rule"],
    flags: ["json"],
    words: [1, 1],
  });
  if (flags.help) {
    console.log(HELP);
    return 0;
  }
  const packetsMin = Number(values.packets ?? 3);
  if (!Number.isInteger(packetsMin)) throw new UsageError("--packets: expected a whole number");
  const verdicts = verdictsOf(await readFile(words[0]), packetsMin, readRules(lists.rule));
  if (flags.json) { for (const verdict of verdicts) console.log(JSON.stringify(verdict)); }
  else console.log(render(verdicts));
  return 0;
}

async function readFile(path: string): Promise<Uint8Array> {
  try {
    const { size } = await Deno.stat(path);
    if (size > FILE_BYTES_MAX) throw new CommandError(`${path}: more than ${FILE_BYTES_MAX} bytes`);
    return await Deno.readFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) throw new CommandError(`${path}: there is no such file`);
    throw error;
  }
}

/** Of every flow of `packetsMin` packets or more, in the order of their first. Throws CommandError when the file is no capture. */
export function verdictsOf(
  file: Uint8Array,
  packetsMin: number,
  rules: readonly ClassRule[] = [],
): FlowVerdict[] {
  const flows = new CaptureFlows();
  if (rules.length > 0) flows.flows.setRules(new ClassRules(rules));
  const said = new Map<CapturedFlow, FlowVerdict>();
  try {
    for (const packet of readCapture(file)) {
      const taken = flows.take(packet);
      // Told at its last packet, before another flow has its row.
      if (taken) said.set(taken.flow, verdictOf(flows, taken.flow));
    }
  } catch (error) {
    if (error instanceof CaptureError) {
      throw new CommandError(`${error.message}; record one with tcpdump -w FILE`);
    }
    throw error;
  }
  return flows.all.filter(({ packets }) => packets[0] + packets[1] >= packetsMin).map((flow) =>
    said.get(flow)!
  );
}

function verdictOf({ flows }: CaptureFlows, flow: CapturedFlow): FlowVerdict {
  const [near, far] = endsOf(flow);
  const nowUs = Math.round(flow.lastUs) >>> 0;
  const place = 2 * flow.row + (flow.isUp ? OUTWARD : INWARD);
  return {
    protocol: flow.protocol === PROTOCOL_UDP
      ? "udp"
      : flow.protocol === PROTOCOL_TCP
      ? "tcp"
      : `${flow.protocol}`,
    near,
    far,
    packets: [...flow.packets],
    bytes: [...flow.bytes],
    after: AFTER.map((count) => CLASS_LABELS[flow.first[Math.min(count, flow.first.length) - 1]]),
    trafficClass: CLASS_LABELS[flow.lastClass],
    application: applicationName(flows, flow.row),
    why: explainClass(flows, place, nowUs),
  };
}

/** Both ends as "address:port", the one that sent first before the other. */
export function endsOf({ words, isIpv6 }: CapturedFlow): [near: string, far: string] {
  const width = isIpv6 ? 4 : 1, ports = words[2 * width];
  const end = (at: number, port: number) =>
    isIpv6
      ? formatEndpoint(words, at, port)
      : formatEndpoint(Uint32Array.of(0, 0, 0xffff, words[at]), 0, port);
  return [end(width, ports & 0xffff), end(0, ports >>> 16)];
}

function render(verdicts: FlowVerdict[]): string {
  if (verdicts.length === 0) return "No flows.";
  const rows = verdicts.map(({ protocol, near, far, packets, after, trafficClass, application, why }) => [
    protocol,
    near,
    far,
    packets.join("+"),
    [...after, trafficClass].join(" "),
    application || "-",
    why,
  ]);
  const widths = rows[0].map((_, i) => Math.max(...rows.map((row) => row[i].length)));
  return rows.map((row) => row.map((cell, i) => cell.padEnd(widths[i])).join("  ").trimEnd()).join("\n");
}
