/**
 * The flows of a capture, and what the classifier makes of each packet: the tunnel's own table of flows and its own way of
 * looking at packets, over a file instead of a tunnel. Invariant: the end that sent a flow's first packet counts as the near
 * one. Reads no file and prints nothing; bench/classify_bench.ts and `classify` (classify.ts) do.
 */
import { SIGNATURES } from "../control/applications.ts";
import { classOfFlow, observe } from "../control/direction.ts";
import { applicationName } from "../control/explain.ts";
import { FLOW_KEYS, FLOW_WORDS_MAX, FlowTable, INWARD, OUTWARD } from "../control/flows.ts";
import { patternOf } from "../control/recognise.ts";
import { Signatures } from "../control/signatures.ts";
import { FlowReader } from "../wire/flow.ts";
import type { CapturedPacket } from "./capture.ts";

/** Rows of the table, so that captures of a few thousand flows lose none. */
const ROWS = 1 << 14;
/** Longest packet that a tunnel carries; what was longer is a sender's own super-packet. */
const PACKET_BYTES_MAX = 65_575;

/** Of the dynamic ones (RFC 6335 §6), with no meaning to the classifier. */
const SILENT_PORT = 60_001;

export interface CapturedFlow {
  /** IP protocol number. */
  protocol: number;
  /** What names it: far address, near address, ports, protocol. */
  words: Uint32Array;
  isIpv6: boolean;
  /** Its row in `flows`, as of its last packet. */
  row: number;
  /** Packets and IP bytes from the near end, and to it. */
  packets: [up: number, down: number];
  bytes: [up: number, down: number];
  /** Of the last packet, since the capture's first. */
  lastUs: number;
  /** CLASS_* of each of the first packets, at most 64, in both directions together. */
  first: number[];
  /** And what it was recognised as after each of them, "" for nothing. */
  names: string[];
  /** Whether the near end sent the last packet, and the class of that. */
  isUp: boolean;
  lastClass: number;
  /** Packets that had each class, in the order of the numbers. */
  ofClass: number[];
}

/** Packets of which the class is kept one by one. */
export const FIRST_MAX = 64;

/** What the classifier is to do without. */
export interface LeftOut {
  /** Names of APPLICATIONS, whose patterns do not count. */
  readonly applications: ReadonlySet<string>;
  /** Ports that say nothing. */
  readonly ports: readonly (readonly [from: number, to: number])[];
}

export class CaptureFlows {
  readonly flows = new FlowTable(
    ROWS,
    new Uint32Array(FLOW_KEYS).map((_, i) => Math.imul(i + 1, 0x9e3779b1)),
  );
  /** In the order of their first packets. */
  readonly all: CapturedFlow[] = [];
  readonly #byName = new Map<string, CapturedFlow>();
  readonly #reader = new FlowReader();
  readonly #words = new Uint32Array(FLOW_WORDS_MAX);
  readonly #bytes = new Uint8Array(PACKET_BYTES_MAX);
  readonly #view = new DataView(this.#bytes.buffer);

  readonly #silentPorts: LeftOut["ports"];

  constructor(leftOut?: LeftOut) {
    this.#silentPorts = leftOut?.ports ?? [];
    if (leftOut === undefined) return;
    const left = SIGNATURES.filter(({ app }) => !leftOut.applications.has(app));
    this.flows.patterns = new Signatures(left.map(patternOf));
  }

  /** Takes the next packet; its flow and class, or undefined when it is no whole IP header. */
  take(packet: CapturedPacket): { flow: CapturedFlow; trafficClass: number } | undefined {
    const bytes = Math.min(packet.length, PACKET_BYTES_MAX);
    // What was not captured is zeros.
    this.#bytes.fill(0, packet.bytes.length, bytes);
    this.#bytes.set(packet.bytes);
    let comesOut = true;
    if (!this.#read(bytes, comesOut)) return undefined;
    let flow = this.#byName.get(this.#name());
    if (!flow) {
      this.#read(bytes, comesOut = false);
      flow = this.#byName.get(this.#name());
    }
    if (!flow) {
      this.#read(bytes, comesOut = true);
      flow = this.#begin();
    }
    const nowUs = Math.round(packet.timeUs) >>> 0;
    flow.row = this.flows.find(flow.words, flow.words.length, nowUs);
    const place = 2 * flow.row + (comesOut ? OUTWARD : INWARD);
    this.#reader.look(this.#view, 0);
    this.#silencePorts();
    observe(this.flows, place, this.#reader, this.#view, bytes, nowUs);
    const trafficClass = classOfFlow(this.flows, place, nowUs);
    flow.packets[comesOut ? 0 : 1]++;
    flow.bytes[comesOut ? 0 : 1] += bytes;
    flow.lastUs = packet.timeUs;
    flow.isUp = comesOut;
    flow.lastClass = trafficClass;
    flow.ofClass[trafficClass]++;
    if (flow.first.length < FIRST_MAX) {
      flow.first.push(trafficClass);
      flow.names.push(applicationName(this.flows, flow.row));
    }
    return { flow, trafficClass };
  }

  #read(bytes: number, comesOut: boolean): boolean {
    this.#reader.begin();
    return this.#reader.read(this.#view, 0, bytes, this.#words, comesOut);
  }

  /** Puts ports of no meaning in place of those that are left out. */
  #silencePorts(): void {
    const silent = (port: number) =>
      this.#silentPorts.some(([from, to]) => port >= from && port <= to) ? SILENT_PORT : port;
    const { ports } = this.#reader;
    this.#reader.ports = silent(ports >>> 16) << 16 | silent(ports & 0xffff);
  }

  #name(): string {
    return this.#words.subarray(0, this.#reader.wordCount).join(" ");
  }

  #begin(): CapturedFlow {
    const { wordCount, protocol } = this.#reader;
    const flow: CapturedFlow = {
      protocol,
      words: this.#words.slice(0, wordCount),
      isIpv6: wordCount > 4,
      row: 0,
      packets: [0, 0],
      bytes: [0, 0],
      lastUs: 0,
      isUp: true,
      lastClass: 0,
      first: [],
      names: [],
      ofClass: [0, 0, 0, 0, 0],
    };
    this.#byName.set(this.#name(), flow);
    this.all.push(flow);
    return flow;
  }
}
