/**
 * Answers PCP and NAT-PMP out of leases: one datagram in, at most one out. Invariant: an asker has REQUESTS_PER_S answers a second,
 * and gets mappings to its own address alone. Owns no socket.
 */
import { parseAddress } from "../../wire/address.ts";
import {
  readPortRequest,
  writeAddressAnswer,
  writeAnnounceAnswer,
  writeMapAnswer,
} from "../../wire/port_control.ts";
import type { LeaseOwner, Leases } from "./leases.ts";

const REQUESTS_PER_S = 32;
/** Askers whose requests are counted at a time; beyond, all wait for the next second. */
const ASKERS_MAX = 4096;

export class PortControlServer {
  readonly #leases: Leases;
  readonly #outside: (address: string) => Uint32Array;
  readonly #startedMs = performance.now();
  readonly #asked = new Map<string, number>();
  #second = 0;

  constructor(leases: Leases, outside: (address: string) => Uint32Array) {
    this.#leases = leases;
    this.#outside = outside;
  }

  /** Seconds since there were no leases (RFC 6887 §8.5): who sees it fall asks again. */
  get epochS(): number {
    return Math.floor((performance.now() - this.#startedMs) / 1000);
  }

  /** The answer to a datagram from an owner's address; undefined where there is none. */
  async answer(owner: LeaseOwner, datagram: Uint8Array): Promise<Uint8Array | undefined> {
    const source = parseAddress(owner.address);
    if (source === undefined || !this.#mayAsk(owner.id)) return undefined;
    const request = readPortRequest(datagram, source, this.epochS);
    switch (request.kind) {
      case "refused":
        return request.answer;
      case "address":
        return writeAddressAnswer(this.#outside(owner.address), this.epochS);
      case "announce":
        return writeAnnounceAnswer(this.epochS);
      case "map":
        return writeMapAnswer(request, await this.#leases.map(owner, request), this.epochS);
    }
  }

  #mayAsk(owner: string): boolean {
    if (this.epochS !== this.#second) {
      this.#second = this.epochS;
      this.#asked.clear();
    }
    const count = this.#asked.get(owner) ?? 0;
    if (count >= REQUESTS_PER_S || count === 0 && this.#asked.size >= ASKERS_MAX) return false;
    this.#asked.set(owner, count + 1);
    return true;
  }
}
