/**
 * The relays that `connect` may use: their names and addresses, rounds of probes, and which of them is in use.
 * Invariant: with one relay nothing is probed; with several, who is used is control/server_choice.ts's decision. Of a name
 * every address is tried, in the resolver's order, and the name is asked for again when nobody answers behind it. Moves no
 * packet and touches nothing of the host.
 */
import { lookup } from "node:dns/promises";
import { type Endpoint, formatEndpoint } from "../config.ts";
import { ServerChoice } from "../control/server_choice.ts";
import type { OuterEndpoint } from "../exit/tun/client_rules.ts";
import { formatAddress, parseAddress } from "../wire/address.ts";
import { CommandError } from "../process/help.ts";

/** Between rounds while the choice stands, while it does not, and while the relay in use does not answer. */
const ROUND_MS = 60_000, UNDECIDED_ROUND_MS = 10_000, DEAD_ROUND_MS = 2000;

/** A relay takes two initiations of one key, as a probe and the handshake after it are, no sooner than 20 ms apart. */
const INITIATIONS_MS = 25;

/** Milliseconds to a relay and back; undefined when it does not answer, or would refuse. */
export type Probe = (address: string, port: number) => Promise<number | undefined>;

/** Resolves a name to at least one address, in the order in which they are to be tried. Rejects when the name has none. */
export type Resolve = (host: string) => Promise<string[]>;

/** One relay as the view shows it. */
export interface ServerStatus {
  server: string;
  /** Milliseconds, at the last probe; absent when it did not answer. */
  rttMs?: number;
}

interface Server {
  endpoint: Endpoint;
  /** What its name stood for last. */
  addresses: string[];
  /** The one of them in use; undefined while the name could not be resolved. */
  address: string | undefined;
  rttMs: number | undefined;
}

export class Servers {
  readonly #servers: Server[];
  readonly #probe: Probe;
  readonly #resolve: Resolve;
  readonly #choice = new ServerChoice();
  #chosen: Server;
  #roundMs = -Infinity;
  #isBusy = false;

  private constructor(servers: Server[], probe: Probe, resolve: Resolve) {
    this.#servers = servers;
    this.#probe = probe;
    this.#resolve = resolve;
    this.#chosen = servers.find(({ address }) => address !== undefined)!;
  }

  /** Resolves all names. Throws CommandError when none of them can be. */
  static async resolve(
    endpoints: readonly Endpoint[],
    probe: Probe,
    resolve: Resolve = resolveHost,
  ): Promise<Servers> {
    const errors: unknown[] = [];
    const servers = await Promise.all(endpoints.map(async (endpoint) => {
      const addresses = await resolve(endpoint.host).catch((error) => void errors.push(error)) ?? [];
      return { endpoint, addresses, address: addresses.at(0), rttMs: undefined };
    }));
    if (errors.length === servers.length) throw errors[0];
    return new Servers(servers, probe, resolve);
  }

  /** The one in use. */
  get endpoint(): Endpoint {
    return this.#chosen.endpoint;
  }

  get address(): string {
    return this.#chosen.address!;
  }

  /** Of the one with this name, whether it is in use or not; undefined when there is none, or it could not be resolved. */
  addressOf(host: string): string | undefined {
    return this.#servers.find(({ endpoint }) => endpoint.host === host)?.address;
  }

  /** Where packets may go outside the tunnel: to the one in use, and to the others for probes. Two names may be one place. */
  get outer(): OuterEndpoint[] {
    const places = new Map<string, OuterEndpoint>();
    for (const { address, endpoint: { port } } of [this.#chosen, ...this.#servers]) {
      if (address !== undefined) places.set(`${address} ${port}`, { address, port });
    }
    return [...places.values()];
  }

  /** All of them, for people; empty when there is one. */
  get statuses(): ServerStatus[] {
    return this.#servers.length === 1
      ? []
      : this.#servers.map(({ endpoint, rttMs }) => ({ server: formatEndpoint(endpoint), rttMs }));
  }

  /** Probes all of them, if there are several and it is time. Whether another one, or another address, is in use now. */
  async round(isDead: boolean, nowMs: number): Promise<boolean> {
    const pauseMs = isDead ? DEAD_ROUND_MS : this.#choice.isUndecided ? UNDECIDED_ROUND_MS : ROUND_MS;
    if (this.#servers.length === 1 || this.#isBusy || nowMs - this.#roundMs < pauseMs) return false;
    this.#isBusy = true;
    this.#roundMs = nowMs;
    try {
      const before = this.#chosen, addressBefore = before.address;
      await Promise.all(this.#servers.map(async (server) => {
        const { address, endpoint: { port } } = server;
        server.rttMs = address === undefined ? undefined : await this.#probe(address, port);
        if (server.rttMs === undefined) await this.#follow(server);
      }));
      this.#chosen = this.#servers[this.#choice.round(this.#servers.map(({ rttMs }) => rttMs), isDead)];
      if (this.#chosen.address === undefined) this.#chosen = before;
      await new Promise((resolve) => setTimeout(resolve, INITIATIONS_MS));
      return this.#chosen !== before || this.#chosen.address !== addressBefore;
    } finally {
      this.#isBusy = false;
    }
  }

  /**
   * Asks for the name of the one in use again, as the relay may have moved. When it has not, the name's next address is in
   * use, if `isVain`. Whether another address is in use now.
   */
  async follow(isVain = true): Promise<boolean> {
    const before = this.#chosen.address;
    await this.#follow(this.#chosen, isVain);
    return this.#chosen.address !== before;
  }

  async #follow(server: Server, isVain = true): Promise<void> {
    // Without a network there is no resolver either; the last addresses stay.
    const addresses = await this.#resolve(server.endpoint.host).catch(() => server.addresses);
    server.addresses = addresses;
    const at = server.address === undefined ? -1 : addresses.indexOf(server.address);
    if (at < 0 || isVain) server.address = addresses[(at + 1) % addresses.length];
  }
}

/** As `Resolve`, by this system (getaddrinfo, which puts first what it has a way to: RFC 6724). Throws CommandError. */
export async function resolveHost(host: string): Promise<string[]> {
  const address = parseAddress(host);
  if (address !== undefined) return [formatAddress(address)];
  try {
    const found = await lookup(host, { all: true, verbatim: true });
    return [...new Set(found.map(({ address }) => address))];
  } catch {
    throw new CommandError(
      `${host}: this name cannot be resolved; check its spelling and this machine's network, or name an address with --server`,
    );
  }
}
