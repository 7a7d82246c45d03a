/**
 * Keeps a client connected while networks change: when to make a handshake, with which relay at which address, and what the
 * state is called. Invariant: the session survives a change of network; a relay that does not answer is tried again with
 * growing pauses, under the address that its name has then, or another relay takes its place. Changes nothing of the host.
 */
import process from "node:process";
import { formatEndpoint } from "../../config.ts";
import type { LinkPath, LinkStatus } from "../view.ts";
import type { LinkPlane, PlaneState } from "./plane.ts";
import { streamNumberOf } from "../../wire/stream.ts";
import type { Doors } from "./doors.ts";
import type { LinkFallback } from "./fallback.ts";
import { type Counts, meanHeaders, shares } from "./counts.ts";
import type { Servers } from "../servers.ts";

/** A WireGuard server that has not answered for this long though it was asked something is silent; OxTunnel knows it. */
const SILENT_MS = 15_000;
const RETRY_MIN_MS = 2000, RETRY_MAX_MS = 30_000;
/** Within this, something has to come on a new network, or a handshake is made there. */
const MOVE_MS = 1000;
/** How often the relay is asked how far it is, while somebody looks or packets flow. */
const PING_MS = 1000;
/** Reports over which shares and costs are taken. */
const WINDOW_REPORTS = 10;
/** Attempts without any answer after which one of the causes is told that can be seen from here alone. */
const CLOCK_TRIES = 3;
/** Attempts at an address that has answered before another of the same name is tried. */
const ANSWERED_TRIES = 3;

export interface LinkOptions {
  servers: Servers;
  plane: LinkPlane;
  /** Where the relay can be reached over TLS too; closed with the link. */
  fallback?: LinkFallback;
  /** The interface that is not to be taken for a network: the tunnel's own. */
  ownDevice: string;
  /** What says which interfaces lead to the relay, where there are to be several paths. */
  doors?: Doors;
  /** Somebody looks at the figures, so they are to be fresh while nothing flows too. */
  isWatched: boolean;
  say: (message: string) => void;
  /** Relays have other addresses now (`servers.outer`); the link uses them when this has resolved. */
  onMoved: () => Promise<void>;
  /** The path takes inner packets of up to `innerMtu` bytes from now on. */
  onMtu: (innerMtu: number) => Promise<void>;
}

export class Link {
  readonly #o: LinkOptions;
  readonly #startedMs = performance.now();
  #networks: string;
  #retryMs = RETRY_MIN_MS;
  #triedMs = 0;
  #isChanging = false;
  #state: LinkStatus["state"] = "connecting";
  #plane: PlaneState | undefined;
  #bytesReceived = 0;
  #asked = 0;
  /** Since when something has been asked in vain; Infinity when nothing has. */
  #askedMs = Infinity;
  #pingedMs = -Infinity;
  /** Attempts since something came last, and whether anything ever came from the address in use. */
  #vain = 0;
  #hasAnswered = false;
  readonly #tried = new Set<string>();
  /** What had come when the network changed, and until when something has to come on the new one. */
  #receivedBefore = 0;
  #movedUntilMs = Infinity;
  readonly #counts: Counts[] = [];
  #innerMtu = 0;
  #isNarrow = false;
  #failingDoors: number[] = [];
  /** Times that packets left each path, by its number. */
  readonly #failovers = new Map<number, number>();

  /** Begins to connect. */
  constructor(options: LinkOptions) {
    this.#o = options;
    this.#networks = networksBut(options.ownDevice);
    this.#connect();
  }

  /** Why the fallback over TLS is of no use, as a sentence; undefined without a fallback, empty when it is. */
  get fallbackFailure(): string | undefined {
    return this.#o.fallback?.failure;
  }

  /** Why the relay refused the last handshake (REFUSED_*), until the next one begins. */
  get refused(): number | undefined {
    return this.#plane?.refused;
  }

  get servers(): Servers {
    return this.#o.servers;
  }

  /** Looks after the link and says how it is; to be called several times a second. */
  async tend(): Promise<LinkStatus["state"]> {
    const { plane, isWatched } = this.#o;
    const startMs = performance.now();
    const isFlowing = this.#counts.length > 1 && this.#counts.at(-1)!.packets > this.#counts.at(-2)!.packets;
    const wantsPing = startMs - this.#pingedMs >= PING_MS && (isWatched || isFlowing);
    if (wantsPing) this.#pingedMs = startMs;
    const { relay, vitals, asked } = this.#plane = await plane.look(wantsPing);
    const nowMs = performance.now();
    const hasCome = relay.bytesReceived > this.#bytesReceived;
    if (hasCome || !relay.connected) this.#askedMs = Infinity;
    else if (asked > this.#asked && this.#askedMs === Infinity) this.#askedMs = nowMs;
    this.#asked = asked;
    this.#bytesReceived = relay.bytesReceived;
    const isSilent = vitals?.isSilent ?? nowMs - this.#askedMs > SILENT_MS;
    this.#o.fallback?.look(this.#plane, this.#udp, plane);
    this.#state = !relay.connected ? "connecting" : isSilent ? "silent" : "connected";
    this.#care(nowMs);
    await this.#fit(this.#plane);
    return this.#state;
  }

  /** How the link is, as figures; to be called about once a second, after `tend`. */
  report(): LinkStatus {
    const { relay, vitals, inner, cost, classesUp, classesDown, applications, latency, headers } = this
      .#plane!;
    const { servers } = this.#o;
    const nowMs = performance.now();
    const { user, system } = process.cpuUsage();
    this.#counts.push({
      atMs: nowMs,
      session: vitals?.session ?? 0,
      reported: vitals?.reported ?? 0,
      reportedReceived: vitals?.reportedReceived ?? 0,
      seen: vitals?.seen ?? 0,
      received: vitals?.received ?? 0,
      ...inner,
      ...cost,
      classesUp,
      classesDown,
      cpuUs: user + system,
    });
    if (this.#counts.length > WINDOW_REPORTS + 1) this.#counts.shift();
    const found = shares(this.#counts);
    const plan = this.#o.doors?.plan ?? [];
    const paths = relay.paths?.map((path) => ({
      ...path,
      device: plan.find(({ door }) => door === path.door)?.device,
    }));
    this.#tellFailovers(paths ?? []);
    return {
      server: formatEndpoint(servers.endpoint),
      address: servers.address,
      state: this.#state,
      path: relay.endpoint !== undefined && streamNumberOf(relay.endpoint) !== undefined ? "tls" : "udp",
      handshakeAgeS: relay.lastHandshakeAgeS,
      aead: relay.aead,
      rttMs: vitals?.rttUs === undefined ? relay.rttMs : vitals.rttUs / 1000,
      jitterMs: vitals === undefined ? undefined : vitals.jitterUs / 1000,
      lossUp: found.lossUp,
      lossDown: vitals === undefined ? relay.lossRatio : found.lossDown,
      bytesReceived: inner.bytesReceived,
      bytesSent: inner.bytesSent,
      rateReceived: found.rateReceived,
      rateSent: found.rateSent,
      overheadBytes: found.overheadBytes,
      savedBytes: found.savedBytes,
      mixUp: found.mixUp,
      mixDown: found.mixDown,
      applications,
      line: relay.line,
      latency,
      headers: meanHeaders(headers),
      cpuShare: found.cpuShare,
      ...(paths === undefined ? {} : { paths }),
      servers: servers.statuses,
      mtu: this.#innerMtu || undefined,
      repaired: this.#plane!.repaired,
      repairUp: vitals?.sending,
      repairDown: vitals?.receiving,
      uptimeS: (nowMs - this.#startedMs) / 1000,
    };
  }

  /** Follows what the path takes. What is found while it is searched for changes nothing here, so nothing flaps. */
  async #fit({ innerMtu, isNarrow }: PlaneState): Promise<void> {
    if (isNarrow && !this.#isNarrow) {
      this.#o.say(
        "This network loses datagrams of 1200 bytes, so large packets do not get through: a link on the way has too " +
          "small an MTU.",
      );
    }
    this.#isNarrow = isNarrow;
    if (innerMtu === undefined || innerMtu === this.#innerMtu) return;
    this.#innerMtu = innerMtu;
    await this.#o.onMtu(innerMtu);
  }

  async close(): Promise<void> {
    await this.#o.plane.close();
    await this.#o.fallback?.close();
  }

  /** Goes on after a change of network, and tries again, or elsewhere, when it is time to. */
  #care(nowMs: number): void {
    const isWell = this.#state === "connected";
    if (isWell) this.#lookAtDoors();
    const networks = networksBut(this.#o.ownDevice);
    if (networks !== this.#networks && this.#hasDoors) {
      // Each door follows its own interface.
      this.#networks = networks;
    } else if (networks !== this.#networks) {
      this.#networks = networks;
      this.#o.say("The network changed; the session goes on.");
      this.#retryMs = RETRY_MIN_MS;
      this.#o.fallback?.reset();
      this.#receivedBefore = this.#plane!.vitals?.received ?? 0;
      // OxTunnel takes its session along; WireGuard shows itself by a handshake.
      if (isWell && this.#plane!.vitals !== undefined) {
        this.#o.plane.moved();
        this.#movedUntilMs = nowMs + MOVE_MS;
      } else this.#connect();
    } else if (this.#movedUntilMs < nowMs) {
      this.#movedUntilMs = Infinity;
      if ((this.#plane!.vitals?.received ?? 0) === this.#receivedBefore) this.#connect();
    } else if (isWell) {
      this.#retryMs = RETRY_MIN_MS;
      this.#triedMs = nowMs;
      this.#vain = 0;
      this.#hasAnswered = true;
      this.#tried.clear();
    } else if (nowMs - this.#triedMs > this.#retryMs) {
      this.#retryMs = Math.min(RETRY_MAX_MS, 2 * this.#retryMs);
      this.#connect();
      this.#vain++;
      const isUnanswered = this.#state === "connecting" && this.#plane?.refused === undefined;
      if (this.#vain === CLOCK_TRIES && isUnanswered) this.#o.say(clockHint(new Date()));
      // An address that answered before is most likely away for a moment.
      const isVain = !this.#hasAnswered || this.#vain % ANSWERED_TRIES === 0;
      this.#change(() => this.#o.servers.follow(isVain));
    }
    this.#change(() => this.#o.servers.round(!isWell, nowMs));
  }

  /** Says which path packets left since the last report, and which they take now. */
  #tellFailovers(paths: readonly LinkPath[]): void {
    const nameOf = ({ device, number }: LinkPath) => device ?? `path ${number}`;
    const now = paths.find(({ uses }) => uses.includes("games"));
    for (const path of paths) {
      const before = this.#failovers.get(path.number) ?? 0;
      this.#failovers.set(path.number, path.failovers);
      if (path.failovers > before && now !== undefined && now !== path) {
        this.#o.say(`${nameOf(path)} does not answer; packets go by ${nameOf(now)}.`);
      }
    }
    if (paths.length === 0) this.#failovers.clear();
  }

  /** Whether paths lead through interfaces of their own now. */
  get #hasDoors(): boolean {
    return (this.#o.doors?.plan.length ?? 0) > 1;
  }

  #lookAtDoors(): void {
    const { doors, plane, servers, say } = this.#o;
    if (doors === undefined) return;
    const plan = doors.look(servers.address, 1000 * performance.now());
    // With one interface the system's choice is as good, and follows the networks by itself.
    if (plan !== undefined) plane.setDoors(plan.length > 1 ? plan : []);
    // The present session carries on until there is one with numbers for its paths.
    if (doors.isUsedUp) this.#connect();
    const failing = this.#plane!.failingDoors;
    for (const { door, device } of doors.plan) {
      const isNew = failing.includes(door) && !this.#failingDoors.includes(door);
      if (isNew) say(`${device} takes no packets now; its path waits until it does.`);
    }
    this.#failingDoors = failing;
  }

  get #udp(): { address: string; port: number } {
    const { address, endpoint: { port } } = this.#o.servers;
    return { address, port };
  }

  #connect(): void {
    this.#triedMs = performance.now();
    this.#tried.add(this.#o.servers.address);
    // A new session begins where the system sends it, and learns of the other ways then.
    if (this.#hasDoors) this.#o.plane.setDoors([]);
    this.#o.doors?.forget();
    const { address, port } = this.#o.fallback?.target ?? this.#udp;
    this.#o.plane.connect(address, port);
  }

  /** Lets the servers change, one change at a time, and connects anew when another relay or address is in use then. */
  async #change(action: () => Promise<boolean>): Promise<void> {
    const { servers, say, onMoved } = this.#o;
    if (this.#isChanging) return;
    this.#isChanging = true;
    try {
      const before = servers.endpoint, outer = outerText(servers);
      const isAnother = await action();
      if (outerText(servers) !== outer) await onMoved();
      if (!isAnother) return;
      if (servers.endpoint !== before) say(`From now on through ${formatEndpoint(servers.endpoint)}.`);
      // Each address of a name is tried at once, and all of them again after growing pauses.
      if (!this.#tried.has(servers.address)) this.#retryMs = RETRY_MIN_MS;
      this.#hasAnswered = false;
      this.#o.fallback?.reset();
      this.#connect();
    } catch (error) {
      say((error as Error).message);
    } finally {
      this.#isChanging = false;
    }
  }
}

/** A relay gives no answer to a handshake that is older than the last one, so the clock can only be shown. */
export function clockHint(now: Date): string {
  return `Still no answer. Among the causes is this machine's clock, which says ${
    now.toISOString().slice(0, 19)
  }Z: a relay ` +
    "takes a handshake that is older than the last one for a repetition, and its log says so. Set the clock, or restart " +
    "the relay if this clock was ahead before.";
}

/** Where packets may go, in no order. */
function outerText({ outer }: Servers): string {
  return outer.map(({ address, port }) => `${address} ${port}`).sort().join();
}

/** This host's addresses as one text, which changes when one comes or goes. */
function networksBut(device: string): string {
  return Deno.networkInterfaces()
    .filter(({ name, address }) => name !== device && !address.startsWith("fe80:"))
    .map(({ name, address }) => `${name} ${address}`).sort().join();
}
