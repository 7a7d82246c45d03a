/**
 * The counters as Prometheus reads them. Invariant: every counter and drop reason of metrics.ts is exported, in
 * base units, and values are read when scraped, never copied in between. Counts nothing itself.
 */
import { Counter, Gauge, type Metric, Registry } from "prom-client";
import process from "node:process";
import { GROUPS, PARTS } from "../control/rollout.ts";
import { addDevices, type DevicesAsked } from "./device_metrics.ts";
import {
  CLASS_DIRECTIONS,
  CLASS_LABELS,
  type CounterName,
  DROP_REASONS,
  HEADERS_KEPT,
  type Metrics,
  PROCESSING_BOUNDS_US,
  ROUND_TRIP_BOUNDS_US,
  WAIT_BOUNDS_US,
} from "../metrics.ts";
import { SEEN_SCHEMES, type SeenScheme } from "../repair/figures.ts";

const DIRECTIONS = ["sending", "receiving"] as const;
/** Exported together as one metric with labels. */
type Labelled =
  | `${(typeof DIRECTIONS)[number]}_${SeenScheme}`
  | `headers_kept_${(typeof HEADERS_KEPT)[number]}`;

/** Name without the `oxrelay_` prefix, and help. A name that ends in _total is a counter, any other a gauge. */
const EXPORTED: Record<Exclude<CounterName, Labelled>, [name: string, help: string]> = {
  datagrams_received: ["received_datagrams_total", "Outer UDP datagrams received."],
  datagrams_sent: ["sent_datagrams_total", "Outer UDP datagrams sent."],
  bytes_received: ["received_bytes_total", "Bytes of the outer UDP payloads received."],
  bytes_sent: ["sent_bytes_total", "Bytes of the outer UDP payloads sent."],
  packets_to_exit: ["to_exit_packets_total", "Inner packets handed to the exit."],
  packets_to_tunnel: ["to_tunnel_packets_total", "Inner packets sent to peers."],
  packets_between_peers: ["between_peers_packets_total", "Inner packets from one peer to another."],
  packets_batched: [
    "batched_packets_total",
    "Inner packets that shared a datagram with others to their peer.",
  ],
  datagrams_saved: ["saved_datagrams_total", "Datagrams that batching made unnecessary."],
  packets_held: ["held_packets_total", "Bulk packets that waited for others to share a datagram."],
  held_us: ["held_seconds_total", "Sum of the waiting times of these packets."],
  held_us_max: ["held_seconds_max", "The longest waiting time of these packets."],
  keepalives_received: ["received_keepalives_total", "Empty transport messages received."],
  handshake_initiations: ["handshake_initiations_total", "Handshake initiations received."],
  handshake_responses: ["handshake_responses_total", "Handshake responses received."],
  handshakes_completed: ["handshakes_completed_total", "Handshakes that ended in a session."],
  cookie_replies_sent: ["sent_cookie_replies_total", "Cookie replies sent while under load."],
  roamed: ["roamed_total", "Changes of peers' endpoints."],
  epochs_made: ["epochs_total", "Key epochs taken into use within OxTunnel sessions."],
  packets_repaired: ["repaired_packets_total", "Lost inner packets that repair recovered."],
  packets_late: ["late_datagrams_total", "Datagrams that arrived after repair had recovered their packets."],
  packets_unrepaired: [
    "unrepaired_datagrams_total",
    "Lost datagrams with protected packets that repair did not recover.",
  ],
  repairs_received: ["received_repairs_total", "Repair frames received."],
  repairs_wasted: ["wasted_repairs_total", "Repair frames received that were not needed."],
  repair_bytes_received: ["received_repair_bytes_total", "Bytes of repair received."],
  repairs_sent: ["sent_repairs_total", "Repair frames sent."],
  repair_bytes_sent: ["sent_repair_bytes_total", "Bytes of repair sent."],
  reported_repaired: [
    "reported_repaired_datagrams_total",
    "Sent datagrams that were lost and that the other ends report as recovered.",
  ],
  reported_unrepaired: [
    "reported_unrepaired_datagrams_total",
    "Sent protected datagrams that were lost and that the other ends report as not recovered.",
  ],
  requests_sent: ["sent_repair_requests_total", "Lost datagrams asked for, each as often as it was."],
  requests_answered: [
    "answered_repair_requests_total",
    "Lost datagrams that came back in time after a request.",
  ],
  requests_late: [
    "late_repair_requests_total",
    "Lost datagrams that did not come back in time after a request.",
  ],
  requests_useless: ["useless_repair_requests_total", "Datagrams asked for that were not lost."],
  requests_received: ["received_repair_requests_total", "Requests of other ends for lost datagrams."],
  answers_sent: ["sent_repair_answers_total", "Repair frames sent on request."],
  copies_sent: ["sent_copies_total", "Datagrams whose packets went on a second path too."],
  copy_bytes_sent: [
    "sent_copy_bytes_total",
    "Bytes of datagrams with copies, UDP and IPv4 headers included.",
  ],
  copies_received: ["received_copies_total", "Copies of another path's datagrams that came."],
  copies_useful: ["useful_copies_total", "Copies that came before, or in place of, what they copy."],
  packets_copied: ["packets_copied_total", "Packets that were delivered by a copy."],
  path_failovers: [
    "path_failovers_total",
    "Times that a session's packets left a path because it was silent.",
  ],
  answers_refused: [
    "refused_repair_answers_total",
    "Datagrams asked for that were too old, not kept, sent again too often, or beyond the budget.",
  ],
  size_probes_sent: ["sent_size_probes_total", "Probes for the sizes of OxTunnel sessions' paths."],
  icmp_errors_sent: ["sent_icmp_errors_total", "ICMP errors and TCP resets sent to peers."],
  packets_compressed: ["compressed_packets_total", "Inner packets that left as LZ4 frames."],
  headers_elided: [
    "headers_elided_packets_total",
    "Inner packets that left without the headers that the peer knows.",
  ],
  header_bytes_saved: ["headers_saved_bytes_total", "Bytes of headers that inner packets left without."],
  header_bytes_sent: ["headers_sent_bytes_total", "Bytes that stood for the headers of those packets."],
  header_definitions: [
    "header_definitions_total",
    "Inner packets that left with a definition of their headers.",
  ],
  headers_mismatch: [
    "headers_mismatch_total",
    "Sampled packets whose headers could not be rebuilt and that left whole; anything but 0 is a defect.",
  ],
  header_contexts: [
    "header_contexts",
    "Contexts of peers' headers in use, of those that [headers] allows; one of ROHC counts as sixteen.",
  ],
  bytes_saved: ["compression_saved_bytes_total", "Bytes of inner packets saved by compression."],
  compressions_skipped: [
    "skipped_compressions_total",
    "Inner packets not compressed because they looked random or their flow did not shrink before.",
  ],
  handshakes_handed_over: [
    "handed_over_handshakes_total",
    "Handshakes given to the Worker that owns the peer.",
  ],
  packets_handed_over: [
    "handed_over_packets_total",
    "Packets for clients that arrived at another Worker, given to the one that owns the peer.",
  ],
  bursts: ["bursts_total", "Bursts of packets processed."],
  loop_beats: ["loop_beats_total", "Turns of the relay workers' loops; a loop that makes none has stalled."],
  packets_queued: [
    "queued_packets_total",
    "Packets that waited for the line of their peer or, in either direction, for the thread that carries packets.",
  ],
  packets_marked: [
    "marked_packets_total",
    "Packets that were marked with CE instead of dropped where they waited, for the line of their peer or, in either direction, for the thread that carries packets.",
  ],
  queue_packets: ["queue_packets", "Packets that wait for the lines of their peers."],
  lines: ["lines", "Peers whose packets are held to a rate."],
  paths_watched: ["watched_paths", "Paths whose rate is looked for, because transfers go there."],
  sessions: ["sessions", "Live key epochs and pending handshakes."],
  connections: ["connections", "Peers with a session that can carry data."],
  exit_flows: ["exit_flows", "Flows open in the exit."],
  under_load: ["workers_under_load", "Relay workers that now demand cookies."],
};

/** What the exposition holds besides the counters. */
export interface BuildInfo {
  readonly version: string;
  readonly exit: string;
  readonly startedAt: Date;
}

/** What one set of a histogram's labels has counted: values by bound and beyond the last, not added up, and their sum in microseconds. */
interface Counted {
  labels: Record<string, string>;
  packets: number[];
  totalUs: number;
}

/** A histogram in seconds over bounds in microseconds: prom-client's own cannot be given sums that somebody else counted. */
function addHistogram(
  registry: Registry,
  name: string,
  help: string,
  boundsUs: readonly number[],
  read: () => Counted[],
): void {
  const values = () =>
    read().flatMap(({ labels, packets: each, totalUs }) => {
      let packets = 0;
      const buckets = [...boundsUs, Infinity].map((us, bound) => {
        packets += each[bound];
        const le = us === Infinity ? "+Inf" : String(us / 1e6);
        return { labels: { ...labels, le }, value: packets, metricName: `${name}_bucket` };
      });
      return [
        ...buckets,
        { labels, value: totalUs / 1e6, metricName: `${name}_sum` },
        { labels, value: packets, metricName: `${name}_count` },
      ];
    });
  const get = () => ({ name, help, type: "histogram", aggregator: "sum", values: values() });
  registry.registerMetric({ name, get } as unknown as Metric);
}

/** The sum of what several Workers have counted. */
function addCounted(labels: Record<string, string>, each: Omit<Counted, "labels">[]): Counted {
  const packets = each[0].packets.map((_, i) => each.reduce((total, one) => total + one.packets[i], 0));
  return { labels, packets, totalUs: each.reduce((total, one) => total + one.totalUs, 0) };
}

function addDelays(registry: Registry, columns: readonly Metrics[]): void {
  addHistogram(
    registry,
    "oxrelay_queue_wait_seconds",
    "How long packets waited for the line of their peer or, in either direction, for the thread that carries packets, by class; 0 for those that passed untouched.",
    WAIT_BOUNDS_US,
    () =>
      CLASS_LABELS.map((label) =>
        addCounted({ class: label }, columns.map((metrics) => metrics.waits(label)))
      ),
  );
  addHistogram(
    registry,
    "oxrelay_processing_seconds",
    "How long the relay had each packet, from the turn of the loop that took it to where the turn's packets were handed on.",
    PROCESSING_BOUNDS_US,
    () => [addCounted({}, columns.map((metrics) => metrics.processing()))],
  );
}

/** Each part's two groups of peers, for comparison. */
function addRollout(registry: Registry, columns: readonly Metrics[]): void {
  const groups = PARTS.flatMap((part, i) => GROUPS.map((group, j) => ({ part, group, i, j })));
  const counted = (read: (of: ReturnType<Metrics["rollout"]>) => number, i: number, j: number) =>
    sum(columns, (metrics) => read(metrics.rollout(i, j)));
  const labelNames = ["part", "group"], registers = [registry];
  new Gauge({
    name: "oxrelay_rollout_peers",
    help: "Connected peers with a part of the relay (group on) and without it (off), by rollout_percent.",
    labelNames,
    registers,
    collect() {
      for (const { part, group, i, j } of groups) {
        this.set(
          { part, group },
          counted(({ peers }) => peers, i, j),
        );
      }
    },
  });
  for (const [way, read] of [["sent", "bytesSent"], ["received", "bytesReceived"]] as const) {
    new Counter({
      name: `oxrelay_rollout_${way}_bytes_total`,
      help: `Bytes ${way} by the relay, of these groups of peers.`,
      labelNames,
      registers,
      collect() {
        this.reset();
        for (const { part, group, i, j } of groups) {
          this.inc(
            { part, group },
            counted((of) => of[read], i, j),
          );
        }
      },
    });
  }
  addHistogram(
    registry,
    "oxrelay_rollout_round_trip_seconds",
    "Smoothed round trips of OxTunnel sessions in use, one each second, of these groups of peers.",
    ROUND_TRIP_BOUNDS_US,
    () =>
      groups.map(({ part, group, i, j }) =>
        addCounted({ part, group }, columns.map((metrics) => metrics.rollout(i, j)))
      ),
  );
}

/**
 * Makes a registry over the columns, one per worker, which are summed. `build` is called at every scrape, because
 * the exit may change.
 */
export function createRegistry(
  columns: readonly Metrics[],
  build: () => BuildInfo,
  applications: () => Promise<Record<string, number>>,
  devices: () => Promise<DevicesAsked>,
): Registry {
  const registry = new Registry();
  addColumns(registry, columns);
  addLabelled(registry, columns);
  addApplications(registry, applications);
  addDevices(registry, devices);
  addProcess(registry, build);
  return registry;
}

function addCounter(registry: Registry, name: string, help: string, read: () => number): void {
  new Counter({
    name: `oxrelay_${name}`,
    help,
    registers: [registry],
    collect() {
      this.reset();
      this.inc(read());
    },
  });
}

function addGauge(registry: Registry, name: string, help: string, read: () => number): void {
  new Gauge({
    name: `oxrelay_${name}`,
    help,
    registers: [registry],
    collect() {
      this.set(read());
    },
  });
}

/** The counters of EXPORTED, each by its own name. */
function addColumns(registry: Registry, columns: readonly Metrics[]): void {
  for (const [counter, [name, help]] of Object.entries(EXPORTED)) {
    const unit = name.includes("_seconds") ? 1e-6 : 1; // the column has microseconds
    const each = (metrics: Metrics) => metrics.get(counter as CounterName) * unit;
    const read = counter === "held_us_max"
      ? () => Math.max(0, ...columns.map(each))
      : () => sum(columns, each);
    (name.endsWith("_total") ? addCounter : addGauge)(registry, name, help, read);
  }
}

/** The counters that are one metric with labels. */
function addLabelled(registry: Registry, columns: readonly Metrics[]): void {
  const registers = [registry];
  new Counter({
    name: "oxrelay_dropped_packets_total",
    help: "Packets and datagrams dropped, by reason.",
    labelNames: ["reason"],
    registers,
    collect() {
      this.reset();
      for (const [reason] of DROP_REASONS) {
        this.inc({ reason }, sum(columns, (metrics) => metrics.dropped(reason)));
      }
    },
  });
  new Counter({
    name: "oxrelay_headers_kept_packets_total",
    help:
      "Inner packets of OxTunnel sessions that kept their headers, by reason: no context takes their kind; their flow is new; no context is free; their headers changed; the peer did not answer; LZ4 may shrink them more; they are too long.",
    labelNames: ["reason"],
    registers,
    collect() {
      this.reset();
      for (const reason of HEADERS_KEPT) {
        this.inc({ reason }, sum(columns, (metrics) => metrics.get(`headers_kept_${reason}`)));
      }
    },
  });
  for (const unit of ["packets", "bytes"] as const) {
    new Counter({
      name: `oxrelay_class_${unit}_total`,
      help: `Inner ${unit === "bytes" ? "bytes" : "packets"} of OxTunnel sessions, by class and direction.`,
      labelNames: ["class", "direction"],
      registers,
      collect() {
        this.reset();
        for (const direction of CLASS_DIRECTIONS) {
          for (const label of CLASS_LABELS) {
            this.inc(
              { class: label, direction },
              sum(columns, (metrics) => metrics.ofClass(direction, label)[unit]),
            );
          }
        }
      },
    });
  }
  addDelays(registry, columns);
  addRollout(registry, columns);
  new Gauge({
    name: "oxrelay_repairing_sessions",
    help: "OxTunnel sessions with repair, by direction and by the scheme of the last seconds.",
    labelNames: ["direction", "scheme"],
    registers,
    collect() {
      for (const direction of DIRECTIONS) {
        for (const scheme of SEEN_SCHEMES) {
          this.set({ direction, scheme }, sum(columns, (metrics) => metrics.get(`${direction}_${scheme}`)));
        }
      }
    },
  });
}

function addApplications(registry: Registry, applications: () => Promise<Record<string, number>>): void {
  new Gauge({
    name: "oxrelay_recognised_flows",
    help:
      "Flows of the last ten seconds that are recognised, by application; empty unless applications_in_metrics is set.",
    labelNames: ["application"],
    registers: [registry],
    async collect() {
      const flows = await applications();
      this.reset();
      for (const [application, count] of Object.entries(flows)) this.set({ application }, count);
    },
  });
}

/** What the process is and takes. */
function addProcess(registry: Registry, build: () => BuildInfo): void {
  addCounter(registry, "process_cpu_seconds_total", "CPU time of the process, user and system.", () => {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1e6;
  });
  addGauge(
    registry,
    "process_resident_memory_bytes",
    "Resident memory of the process.",
    () => Deno.memoryUsage().rss,
  );
  addGauge(
    registry,
    "process_start_time_seconds",
    "When the relay started, in seconds since 1970.",
    () => build().startedAt.getTime() / 1000,
  );
  new Gauge({
    name: "oxrelay_build_info",
    help: "Always 1; version and exit are in the labels.",
    labelNames: ["version", "exit"],
    registers: [registry],
    collect() {
      const { version, exit } = build();
      this.reset();
      this.set({ version, exit }, 1);
    },
  });
}

/** Adds one number of every worker. */
export function sum(columns: readonly Metrics[], read: (metrics: Metrics) => number): number {
  return columns.reduce((total, metrics) => total + read(metrics), 0);
}
