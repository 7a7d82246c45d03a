/**
 * The care that keeps a client connected while networks come and go: when to shake hands again, with which address, and
 * what the state is called. Invariant: the session outlives a change of network, and a relay that is away is tried again
 * with growing pauses, under the address that its name has then. Touches nothing of the host.
 */
import { lookup } from "node:dns/promises";
import { type Endpoint, formatEndpoint, parseIp } from "../config.ts";
import type { LinkStatus } from "./connect_view.ts";
import { CommandError } from "./help.ts";
import type { LinkPlane } from "./link_plane.ts";

/** A relay that has not answered for this long though it was asked something is silent. */
const SILENT_MS = 15_000;
const RETRY_MIN_MS = 2000, RETRY_MAX_MS = 30_000;

export interface LinkOptions {
  /** The relay as it was named. */
  endpoint: Endpoint;
  plane: LinkPlane;
  /** The interface that is not to be taken for a network: the tunnel's own. */
  ownDevice: string;
  say: (message: string) => void;
  /** The relay's name leads to another address now; the link follows when this has resolved. */
  onMoved: (address: string) => Promise<void>;
  /** The path takes inner packets of up to so many bytes from now on. */
  onMtu: (innerMtu: number) => Promise<void>;
}

export class Link {
  readonly #o: LinkOptions;
  readonly #startedMs = performance.now();
  #address: string;
  #networks = networksBut("");
  #retryMs = RETRY_MIN_MS;
  #triedMs = 0;
  #resolving = false;
  #bytesReceived = 0;
  #bytesSent = 0;
  #asked = 0;
  /** Since when something has been asked in vain; Infinity when nothing has. */
  #askedMs = Infinity;
  #lookedMs = performance.now();
  #innerMtu = 0;
  #isNarrow = false;

  /** Begins to connect. @param address the relay's, as text. */
  constructor(options: LinkOptions, address: string) {
    this.#o = options;
    this.#address = address;
    this.#networks = networksBut(options.ownDevice);
    this.#connect();
  }

  /** The relay's address that is in use. */
  get address(): string {
    return this.#address;
  }

  /** Looks after the link and says how it is; to be called about once a second. */
  async look(): Promise<LinkStatus> {
    const { relay, asked, innerMtu, isNarrow } = await this.#o.plane.look();
    const nowMs = performance.now();
    const elapsedS = Math.max(1e-3, (nowMs - this.#lookedMs) / 1000);
    const { bytesReceived, bytesSent } = relay;
    const received = Math.max(0, bytesReceived - this.#bytesReceived);
    if (received > 0 || !relay.connected) this.#askedMs = Infinity;
    else if (asked > this.#asked && this.#askedMs === Infinity) this.#askedMs = nowMs;
    this.#asked = asked;
    const isSilent = nowMs - this.#askedMs > SILENT_MS;
    this.#care(relay.connected && !isSilent, nowMs);
    await this.#fit(innerMtu, isNarrow);

    const status: LinkStatus = {
      server: formatEndpoint(this.#o.endpoint),
      address: this.#address,
      state: !relay.connected ? "connecting" : isSilent ? "silent" : "connected",
      handshakeAgeS: relay.lastHandshakeAgeS,
      rttMs: relay.rttMs,
      lossRatio: relay.lossRatio,
      mtu: this.#innerMtu || undefined,
      bytesReceived,
      bytesSent,
      rateReceived: received / elapsedS,
      rateSent: Math.max(0, bytesSent - this.#bytesSent) / elapsedS,
      uptimeS: (nowMs - this.#startedMs) / 1000,
    };
    this.#bytesReceived = bytesReceived;
    this.#bytesSent = bytesSent;
    this.#lookedMs = nowMs;
    return status;
  }

  /** Follows what the path takes. What is found while it is searched for changes nothing here, so nothing flaps. */
  async #fit(innerMtu: number | undefined, isNarrow: boolean): Promise<void> {
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

  close(): Promise<void> {
    return this.#o.plane.close();
  }

  /** Shakes hands again when the network has changed, or when it is time to try again. */
  #care(isWell: boolean, nowMs: number): void {
    const networks = networksBut(this.#o.ownDevice);
    if (networks !== this.#networks) {
      this.#networks = networks;
      this.#o.say("The network changed; the session goes on.");
      this.#retryMs = RETRY_MIN_MS;
      this.#connect();
    } else if (isWell) {
      this.#retryMs = RETRY_MIN_MS;
      this.#triedMs = nowMs;
    } else if (nowMs - this.#triedMs > this.#retryMs) {
      this.#retryMs = Math.min(RETRY_MAX_MS, 2 * this.#retryMs);
      this.#connect();
      this.#follow();
    }
  }

  #connect(): void {
    this.#triedMs = performance.now();
    this.#o.plane.connect(this.#address, this.#o.endpoint.port);
  }

  /** Asks the resolver again, as the relay may have moved. */
  async #follow(): Promise<void> {
    if (this.#resolving) return;
    this.#resolving = true;
    try {
      const address = await resolveHost(this.#o.endpoint.host);
      if (address !== this.#address) {
        await this.#o.onMoved(address);
        this.#address = address;
        this.#connect();
      }
    } catch {
      // Without a network there is no resolver either; the last address stays.
    } finally {
      this.#resolving = false;
    }
  }
}

/** This host's addresses as one text, which changes when one comes or goes. */
function networksBut(device: string): string {
  return Deno.networkInterfaces()
    .filter(({ name, address }) => name !== device && !address.startsWith("fe80:"))
    .map(({ name, address }) => `${name} ${address}`).sort().join();
}

/** One address of a host name, as text; IPv4 before IPv6. Throws CommandError. */
export async function resolveHost(host: string): Promise<string> {
  if (parseIp(host) !== undefined) return host;
  try {
    const found = await lookup(host, { all: true });
    const [best] = found.toSorted((a, b) => a.family - b.family);
    return best.address;
  } catch {
    throw new CommandError(
      `${host}: this name cannot be resolved; check its spelling and this machine's network, or name an address with --server`,
    );
  }
}
