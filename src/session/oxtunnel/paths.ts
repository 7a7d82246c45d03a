/**
 * The addresses of one path of an OxTunnel session (PROTOCOL §17): the one in use, a row of the table of paths, one that is
 * probed and one that was left a moment ago. A session's further paths begin with none in use. Invariant: data goes to an address only after it has answered a challenge, or
 * the handshake itself went through it; what goes elsewhere is never more than three times what came from there.
 * Keeps PROTOCOL R31, R70, R71, R72, R73, R75 and R77.
 */
import { NONE } from "../../vector/arena.ts";
import { type Burst, TO_SEAL_DATAGRAM } from "../../vector/burst.ts";
import { CONTROL_PATH_CHALLENGE, CONTROL_PATH_RESPONSE, writePath } from "../../wire/control.ts";
import { OX_TAG_BYTES, SHORT_HEADER_MAX_BYTES } from "../../wire/oxtunnel.ts";
import { AEAD_AES_256_GMAC } from "../../wire/parameters.ts";
import type { Paths } from "../paths.ts";
import type { OxHost } from "./host.ts";

const CHALLENGES = 3;
const PROBE_US = 1_000_000;
const AMPLIFICATION = 3;
/** A datagram with one challenge or response in it. */
const PATH_DATAGRAM_BYTES = SHORT_HEADER_MAX_BYTES + 11 + OX_TAG_BYTES;

/** What the paths ask of their session. */
export interface PathOwner {
  readonly row: number;
  readonly peer: number;
  readonly aead: number;
  isEnding: boolean;
  /** The path's row. */
  readonly path: number;
  readonly size: { halt(): void };
  readonly sessions: { number(burst: Burst, row: number, path: number, connectionId: number): void };
  /** An id of the other end for the path that no address has seen yet, or NONE. */
  takeRemoteId(): number;
  /** Nothing can go on here but under other ids than the path has. */
  onNoId(): void;
  /** The other end is at the address that was asked. */
  onMoved(): void;
  onNewPath(): void;
  sizeChanged(): void;
  speak(): void;
}

/** The system chooses. */
const NO_LOCAL = new Uint32Array(4);

/** An outer address of the other end, and this end's own that it sends to. */
class Endpoint {
  readonly address = new Uint32Array(4);
  readonly local = new Uint32Array(4);
  port = 0;

  /** Both addresses begin at `at`. */
  set(address: Uint32Array, local: Uint32Array, at: number, port: number): void {
    for (let i = 0; i < 4; i++) {
      this.address[i] = address[at + i];
      this.local[i] = local[at + i];
    }
    this.port = port;
  }

  /** Takes the endpoint of a row of the table. */
  take({ address, local, port }: Paths, path: number): void {
    this.set(address, local, 4 * path, port[path]);
  }

  is(address: Uint32Array, at: number, port: number): boolean {
    for (let i = 0; i < 4; i++) if (this.address[i] !== address[at + i]) return false;
    return this.port === port;
  }
}

export class OxPaths {
  /** When `handleTimeout` has something to do. */
  dueUs = Infinity;
  readonly #a: OxHost;
  readonly #session: PathOwner;
  /** Bytes that may still go to where the initiation came from before a packet from there has opened. */
  #earlyBytesLeft = 0;
  readonly #probed = new Endpoint();
  #isProbing = false;
  #probedSinceUs = 0;
  #challenges = 0;
  #isChallengeDue = false;
  readonly #challenge = new Uint32Array(2);
  /** Bytes that came from the probed address and that went there. */
  #received = 0;
  #sent = 0;
  /** The other end's id for the probed path. */
  #probedId = NONE;
  readonly #left = new Endpoint();
  #leftId = 0;
  #leftUntilUs = -Infinity;
  /** A challenge of the other end that is to be answered, where it came from. */
  readonly #asker = new Endpoint();
  readonly #question = new Uint32Array(2);
  #isAnswerDue = false;
  /** A challenge on the path in use, which is how a client shows itself on a new network. */
  readonly #greeting = new Uint32Array(2);
  #isGreetingDue = false;

  constructor(host: OxHost, session: PathOwner) {
    this.#a = host;
    this.#session = session;
  }

  /** Whether something waits for `pollTransmit`. */
  get hasWord(): boolean {
    return this.#isAnswerDue || this.#isChallengeDue || this.#isGreetingDue;
  }

  /** The path in use, a row of the table of paths. */
  get #path(): number {
    return this.#session.path;
  }

  /**
   * The path leads to where the initiation in `row` came from. @param earlyBytes what may go there as an answer to early
   * data.
   */
  onInitiation(burst: Burst, row: number, earlyBytes: number): void {
    this.#earlyBytesLeft = earlyBytes;
    this.#a.shared.paths.set(this.#path, burst.address, burst.local, 4 * row, burst.port[row]);
  }

  /** Whether a packet of `bytes` may be sent to the handshake's address before any packet under the new keys has arrived. */
  mayAnswerEarly(bytes: number): boolean {
    return SHORT_HEADER_MAX_BYTES + bytes + OX_TAG_BYTES <= this.#earlyBytesLeft;
  }

  /** Numbers and addresses the packet in `row`, to which `mayAnswerEarly` has agreed. */
  answerEarly(burst: Burst, row: number): void {
    const { table, paths, peers } = this.#a.shared;
    const { row: session, peer } = this.#session;
    burst.session[row] = session;
    burst.path[row] = this.#path;
    burst.peer[row] = peer;
    paths.direct(burst, row, this.#path);
    peers.bytesSent[peer] += burst.length[row];
    this.#earlyBytesLeft -= SHORT_HEADER_MAX_BYTES + burst.length[row] + OX_TAG_BYTES;
    this.#session.sessions.number(burst, row, this.#path, table.remoteIndex[session]);
  }

  /** Ends the bound on early answers: a packet has proven that the initiation's source address receives packets. */
  takeHandshake(): void {
    this.#earlyBytesLeft = 0;
  }

  /** The newest datagram, in `row`, came from another address than the one in use. */
  onNewAddress(burst: Burst, row: number, nowUs: number): void {
    if (!this.#a.followsPeers) return;
    const { address, port, local } = burst;
    if (nowUs < this.#leftUntilUs && this.#left.is(address, 4 * row, port[row])) {
      this.#isProbing = false;
      this.#use(this.#left);
      this.#a.shared.table.remoteIndex[this.#path] = this.#leftId;
      this.#leftUntilUs = -Infinity;
      this.#session.onNewPath();
      return;
    }
    if (!this.#isProbing || !this.#probed.is(address, 4 * row, port[row])) {
      if (!this.#beginProbe(address, local, 4 * row, port[row], nowUs)) return;
    }
    this.#received += burst.headerBytes[row] + burst.length[row] + OX_TAG_BYTES;
  }

  /**
   * Asks whether the other end answers at an address that this end was told of by whom it trusts; when it does, the
   * session goes on there. False without an unused id, when only a new session may. @param local this end's address to ask from.
   */
  probe(address: Uint32Array, port: number, nowUs: number, local = NO_LOCAL): boolean {
    if (this.#isProbing && this.#probed.is(address, 0, port)) return true;
    if (!this.#beginProbe(address, local, 0, port, nowUs)) return false;
    this.#received = Infinity; // it is no stranger's
    return true;
  }

  #beginProbe(address: Uint32Array, local: Uint32Array, at: number, port: number, nowUs: number): boolean {
    // An address that was asked in vain has seen its id already; each other one needs an id of its own (PROTOCOL R73).
    const isSame = this.#probedId !== NONE && this.#probed.is(address, at, port);
    const id = isSame ? this.#probedId : this.#session.takeRemoteId();
    if (id === NONE) return false;
    this.#probed.set(address, local, at, port);
    this.#probedId = id;
    this.#isProbing = true;
    this.#probedSinceUs = nowUs;
    this.#challenges = this.#received = this.#sent = 0;
    this.#a.shared.random(new Uint8Array(this.#challenge.buffer));
    this.#askAgain(nowUs);
    return true;
  }

  /** Asks no more: what was asked from one network must not be asked under the same id from another. */
  abandon(): void {
    this.#isProbing = this.#isChallengeDue = false;
    this.#probedId = NONE;
  }

  /** This host's own address changed: from now on under an id that the old path has not seen, and with a challenge. */
  moved(): void {
    const { table, paths, random } = this.#a.shared;
    const { peer, aead } = this.#session;
    if (aead === AEAD_AES_256_GMAC) {
      // Nobody has said that the new network is trusted too: nothing more goes out under these keys.
      this.#a.forget(this.#session);
      this.#a.initiate(peer);
      return;
    }
    // Asked from the network that was left, under an id that was seen there: an answer would lead back to it.
    this.abandon();
    const id = this.#session.takeRemoteId();
    if (id === NONE) {
      // Without an id that the old network has not seen, only a new session may speak there (PROTOCOL R73).
      this.#session.size.halt();
      this.#session.sizeChanged();
      this.#session.onNoId();
      return;
    }
    table.remoteIndex[this.#path] = id;
    paths.clearLocal(this.#path);
    random(new Uint8Array(this.#greeting.buffer));
    this.#isGreetingDue = true;
    this.#session.onNewPath();
    this.#session.speak();
  }

  /**
   * Notes a challenge in the datagram of `row`, to be answered where it came from. From a slower path it comes behind
   * newer datagrams of the one in use, and makes it a path nevertheless, which then has its own challenge to answer.
   */
  onChallenge(burst: Burst, row: number, low: number, high: number, nowUs: number): void {
    const { address, local, port } = burst;
    const isInUse = this.#a.shared.paths.is(this.#path, address, 4 * row, port[row]);
    const isProbed = this.#isProbing && this.#probed.is(address, 4 * row, port[row]);
    if (!isInUse && !isProbed && this.#a.followsPeers) {
      if (!this.#beginProbe(address, local, 4 * row, port[row], nowUs)) return;
      this.#received = burst.headerBytes[row] + burst.length[row] + OX_TAG_BYTES;
    }
    this.#asker.set(burst.address, burst.local, 4 * row, burst.port[row]);
    this.#question[0] = low;
    this.#question[1] = high;
    this.#isAnswerDue = true;
    this.#session.speak();
  }

  /** Takes a response in the datagram of `row`: the probed path is in use from now on when it is the right one. */
  onResponse(burst: Burst, row: number, low: number, high: number, nowUs: number): void {
    if (!this.#isProbing || !this.#probed.is(burst.address, 4 * row, burst.port[row])) return;
    if (low !== this.#challenge[0] || high !== this.#challenge[1]) return;
    // The peer's address is its present session's, which may not be readable there, and knows what its path takes.
    const { row: own, peer } = this.#session;
    if (this.#a.shared.peers.current[peer] !== own) return;
    this.#isProbing = this.#isChallengeDue = false;
    this.#leave(nowUs);
    this.#use(this.#probed);
    this.#a.shared.table.remoteIndex[this.#path] = this.#probedId;
    this.#probedId = NONE;
    this.#session.onNewPath();
    this.#session.onMoved();
  }

  handleTimeout(nowUs: number): void {
    if (this.dueUs > nowUs) return;
    this.dueUs = Infinity;
    if (!this.#isProbing) return;
    if (nowUs >= this.#probedSinceUs + PROBE_US) this.#isProbing = false;
    else this.#askAgain(nowUs);
  }

  /** Adds what is due to the burst; false when it is full. */
  pollTransmit(burst: Burst): boolean {
    if (this.#isAnswerDue) {
      if (!this.#say(burst, this.#asker, CONTROL_PATH_RESPONSE, this.#question)) return false;
      this.#isAnswerDue = false;
    }
    if (this.#isGreetingDue) {
      const inUse = new Endpoint();
      inUse.take(this.#a.shared.paths, this.#path);
      if (!this.#say(burst, inUse, CONTROL_PATH_CHALLENGE, this.#greeting)) return false;
      this.#isGreetingDue = false;
    }
    if (this.#isChallengeDue && this.#isProbing) {
      if (!this.#say(burst, this.#probed, CONTROL_PATH_CHALLENGE, this.#challenge)) return false;
    }
    this.#isChallengeDue = false;
    return true;
  }

  #askAgain(nowUs: number): void {
    this.dueUs = Math.min(nowUs + PROBE_US / CHALLENGES, this.#probedSinceUs + PROBE_US);
    this.#a.timers.hasten(this.#session.peer, this.dueUs);
    if (++this.#challenges > CHALLENGES) return;
    this.#isChallengeDue = true;
    this.#session.speak();
  }

  /** One datagram to an address that may not be the one in use. */
  #say(burst: Burst, to: Endpoint, kind: number, words: Uint32Array): boolean {
    const { table, paths } = this.#a.shared;
    const { row: session, peer, path } = this.#session;
    const isProbed = this.#isProbing && to.is(this.#probed.address, 0, this.#probed.port);
    const isInUse = paths.is(this.#path, to.address, 0, to.port);
    // To an address that is neither, nothing may go; to a probed one, three times what came from it.
    if (!isInUse && !isProbed) return true;
    if (isProbed && this.#sent + PATH_DATAGRAM_BYTES > AMPLIFICATION * this.#received) return true;
    const row = burst.grow(0, TO_SEAL_DATAGRAM);
    if (row < 0) return false;
    burst.length[row] = writePath(burst.view, burst.offset[row], kind, words[0], words[1]);
    burst.session[row] = session;
    burst.path[row] = path;
    burst.peer[row] = peer;
    burst.address.set(to.address, 4 * row);
    burst.local.set(to.local, 4 * row);
    burst.port[row] = to.port;
    this.#session.sessions.number(burst, row, path, isProbed ? this.#probedId : table.remoteIndex[path]);
    if (isProbed) this.#sent += PATH_DATAGRAM_BYTES;
    return true;
  }

  /** Keeps the path in use for a moment, in case the other end comes back to it. */
  #leave(nowUs: number): void {
    const { table, limits } = this.#a.shared;
    this.#left.take(this.#a.shared.paths, this.#path);
    this.#leftId = table.remoteIndex[this.#path];
    this.#leftUntilUs = nowUs + limits.graceUs;
  }

  #use({ address, local, port }: Endpoint): void {
    this.#a.shared.paths.set(this.#path, address, local, 0, port);
  }
}
