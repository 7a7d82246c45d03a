/**
 * Answers PCP and NAT-PMP out of leases: one datagram in, at most one out. Invariant: an asker has a bounded number of answers a second,
 * and gets mappings to its own address alone. Owns no socket.
 */
import { parseAddress } from "../../wire/address.ts";
import {
  readPortRequest,
  writeAddressAnswer,
  writeAnnounceAnswer,
  writeMapAnswer,
} from "../../wire/port_control.ts";
import { Asked } from "./asked.ts";
import type { LeaseOwner, Leases } from "./leases.ts";

export class PortControlServer {
  readonly #leases: Leases;
  readonly #outside: (address: string) => Uint32Array;
  readonly #startedMs = performance.now();
  readonly #asked = new Asked<string>();

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
    if (source === undefined || !this.#asked.may(owner.id)) return undefined;
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
}
