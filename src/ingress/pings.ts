// Hot path.
/**
 * Echo requests of the relay's own to its peers, for people who want to know whether a device answers. Invariant: memory is
 * fixed; a reply counts only from the peer that was asked, once, with the random identifier of its request; an echo costs the
 * peer's line one small packet. Decides nothing about when to ask.
 */
import { type Burst, TO_TUNNEL } from "../vector/burst.ts";
import { NONE } from "../vector/arena.ts";
import { echoRequestBytes, readEchoReply, writeEchoRequest } from "../wire/icmp.ts";

/** Requests under way; one more takes the place of the oldest. */
export const PINGS_MAX = 64;

/** One request. */
class Request {
  /** Identifier and sequence number, u32, by which its reply is known; -1 for none. */
  word = -1;
  peer = NONE;
  isIpv6 = false;
  isSent = false;
  readonly address = new Uint32Array(4);
  sentUs = 0;
  /** Below 0 until the reply is there. */
  rttUs = -1;
}

export class Pings {
  readonly #requests: Request[] = [];
  readonly #randomWord: () => number;
  #next = 0;
  /** Requests that `emit` has not written yet. */
  #waiting = 0;

  /** @param randomWord gives a fresh u32. */
  constructor(randomWord: () => number) {
    this.#randomWord = randomWord;
    while (this.#requests.length < PINGS_MAX) this.#requests.push(new Request());
  }

  /** Asks the peer `id` at one of its inner addresses (four words, IPv4 mapped). Returns the name of the request for `roundTripUs`. */
  ask(id: number, address: Uint32Array, isIpv6: boolean): number {
    const request = this.#requests[this.#next];
    this.#next = (this.#next + 1) % PINGS_MAX;
    if (request.word >= 0 && !request.isSent) this.#waiting--;
    request.word = this.#randomWord();
    request.peer = id;
    request.isIpv6 = isIpv6;
    request.isSent = false;
    request.address.set(address);
    request.rttUs = -1;
    this.#waiting++;
    return request.word;
  }

  /** Microseconds until the reply, or -1 while there is none. */
  roundTripUs(word: number): number {
    for (let i = 0; i < PINGS_MAX; i++) {
      if (this.#requests[i].word === word) return this.#requests[i].rttUs;
    }
    return -1;
  }

  /** Adds the requests that wait to the burst as TO_TUNNEL rows, from the relay's own addresses; returns their number. */
  emit(burst: Burst, ownIpv4: Uint32Array, ownIpv6: Uint32Array | undefined, nowUs: number): number {
    if (this.#waiting === 0) return 0;
    let added = 0;
    for (let i = 0; i < PINGS_MAX; i++) {
      const request = this.#requests[i];
      if (request.word < 0 || request.isSent) continue;
      const own = request.isIpv6 ? ownIpv6 : ownIpv4;
      const row = own === undefined ? -1 : burst.grow(echoRequestBytes(request.isIpv6), TO_TUNNEL);
      request.isSent = true;
      this.#waiting--;
      if (row < 0) continue; // it stays unanswered
      writeEchoRequest(burst.view, burst.offset[row], own!, request.address, request.isIpv6, request.word);
      request.sentUs = nowUs;
      added++;
    }
    return added;
  }

  /** Takes an inner packet from the peer `id` to the relay's own address; whether it is the reply to a request. */
  take(view: DataView, at: number, length: number, id: number, nowUs: number): boolean {
    const word = readEchoReply(view, at, length);
    if (word < 0) return false;
    for (let i = 0; i < PINGS_MAX; i++) {
      const request = this.#requests[i];
      if (request.word !== word || request.peer !== id || !request.isSent || request.rttUs >= 0) continue;
      request.rttUs = nowUs - request.sentUs;
      return true;
    }
    return false;
  }
}
