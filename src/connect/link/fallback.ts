/**
 * When a client's tunnel goes over UDP and when over TLS (PROTOCOL §9): over TLS once UDP gets no answer, back as soon
 * as UDP answers. Invariant: the session is moved, not made anew, as long as both ends have it; and UDP is the first
 * choice always. Serves the connection, in the main thread; carries no packet past it.
 */
import { formatEndpoint } from "../../config.ts";
import type { OuterEndpoint } from "../../exit/tun/client_rules.ts";
import { closeMailboxes, Mailbox, type Mailboxes, openMailboxes } from "../../io/mailbox.ts";
import { pumpStreams } from "../../io/stream_pump.ts";
import { StreamPort } from "../../io/stream_port.ts";
import { formatAddress } from "../../wire/address.ts";
import { STREAM_PORT_NUMBER, streamNumberOf, writeStreamAddress } from "../../wire/stream.ts";
import { dialFallback, type FallbackEndpoint } from "../fallback_dial.ts";
import { type LinkPlane, type PlaneState, STREAMS_MAILBOX } from "./plane.ts";

/** How long UDP may give no answer to what asks for one. */
const UNANSWERED_MS = 2500;
/** How often UDP is asked while the tunnel is on TLS. */
const PROBE_MS = 30_000;
/** What a session has to answer in on the connection, before a handshake is made there. */
const MOVE_MS = 1500;
/** How long the relay may give no answer on a connection, which is then taken for dead. */
const STUCK_MS = 10_000;
/** What is on its way on the connection that was left still arrives. */
const LINGER_MS = 3000;
const RETRY_MIN_MS = 2000, RETRY_MAX_MS = 60_000;
/** How long a dial waits to be told the address. Resolvers may be behind the tunnel; what they say later the next dial knows. */
const RESOLVE_MS = 500;

export interface LinkFallbackOptions {
  endpoint: FallbackEndpoint;
  /** Its address at first, as text. */
  address: string;
  /** Asks for its address anew; rejects where nobody can say. */
  resolve: () => Promise<string>;
  /** It has another address now (`outer`); it is dialled there when this has resolved. */
  onMoved: () => Promise<void>;
  say: (message: string) => void;
}

/** An outer address, as text, and port. */
interface Target {
  address: string;
  port: number;
}

export class LinkFallback {
  /** For the plane. */
  readonly mailboxes: Mailboxes = openMailboxes(2);
  readonly #o: LinkFallbackOptions;
  readonly #port: StreamPort;
  readonly #endPump: () => Promise<void>;
  #address: string;
  /** As it was resolved last. */
  #resolved: string;
  /** The connection that is in use or about to be; 0 for none. */
  #number = 0;
  #isDialling = false;
  /** Counts the resets, so that a dial that was begun before is known. */
  #turn = 0;
  #sinceMs = 0;
  #hasAsked = false;
  #wasConnected = false;
  #asked = 0;
  /** The session and what the relay has reported in it. */
  #answered = "";
  /** Since when something has been asked in vain; Infinity when nothing has. */
  #askedMs = performance.now();
  #probedMs = 0;
  #retryMs = RETRY_MIN_MS;
  #dialAtMs = 0;
  #isClosed = false;
  #reason = "";

  constructor(options: LinkFallbackOptions) {
    this.#o = options;
    this.#address = this.#resolved = options.address;
    const { port } = options.endpoint;
    this.#port = new StreamPort({
      description: `${this.name} (TLS)`,
      localPort: port,
      onDrop: () => {},
      onClosed: (number) => this.#onClosed(number),
    });
    this.#endPump = pumpStreams(this.#port, new Mailbox(STREAMS_MAILBOX, this.mailboxes, () => {}), 1);
  }

  /** Where its packets go, which is past the tunnel. */
  get outer(): OuterEndpoint {
    return { address: this.#address, port: this.#o.endpoint.port, protocol: "tcp" };
  }

  /** "relay.example.com:443". */
  get name(): string {
    return formatEndpoint(this.#o.endpoint);
  }

  /** Why the last dial failed, as a sentence; empty when none did. */
  get failure(): string {
    return this.#reason;
  }

  /** Where handshakes go while the tunnel is on TLS; undefined for UDP, and while a session may still come over. */
  get target(): Target | undefined {
    return this.#hasAsked ? this.#target : undefined;
  }

  get #target(): Target | undefined {
    if (this.#number === 0) return undefined;
    const words = new Uint32Array(4);
    writeStreamAddress(words, 0, this.#number);
    return { address: formatAddress(words), port: STREAM_PORT_NUMBER };
  }

  /**
   * Looks whether it is time to change; to be called about once a second. `udp` is where the relay listens.
   */
  look(state: PlaneState, udp: Target, plane: LinkPlane): void {
    const nowMs = performance.now();
    const { relay } = state;
    const unansweredMs = this.#unansweredMs(state, nowMs);
    const target = this.#target;
    const used = relay.endpoint === undefined ? undefined : streamNumberOf(relay.endpoint);
    if (target === undefined) {
      // A session whose connection has ended: whichever way answers first takes it over.
      const isStranded = used !== undefined && relay.connected;
      if (isStranded && nowMs - this.#probedMs > MOVE_MS) {
        this.#probedMs = nowMs;
        plane.reach(udp.address, udp.port);
      }
      const isDue = isStranded || unansweredMs > UNANSWERED_MS;
      if (isDue && !this.#isDialling && nowMs > this.#dialAtMs) this.#dial(plane);
      return;
    }
    if (used !== this.#number && !this.#hasAsked) {
      // The session has not come over: the relay does not know it any more, or it never was.
      if (nowMs - this.#sinceMs < MOVE_MS && relay.connected) return;
      this.#hasAsked = true;
      plane.connect(target.address, target.port);
    } else if (used === undefined && relay.connected) {
      this.#leave();
      this.#o.say("UDP is answered again, and the tunnel is back on it.");
    } else if (relay.connected && nowMs - this.#probedMs > PROBE_MS) {
      this.#probedMs = nowMs;
      plane.reach(udp.address, udp.port);
    }
    if (used !== this.#number) return;
    this.#hasAsked = true;
    if (Math.min(unansweredMs, nowMs - this.#sinceMs) > STUCK_MS) this.#port.remove(this.#number);
  }

  /** For how long the relay has been asked in vain. What merely arrives is no answer: UDP may be blocked one way. */
  #unansweredMs({ relay, refused, asked, vitals }: PlaneState, nowMs: number): number {
    const answered = `${vitals?.session} ${vitals?.reported}`;
    if (relay.connected) {
      if (!this.#wasConnected || answered !== this.#answered) this.#askedMs = Infinity;
      else if (asked !== this.#asked) this.#askedMs = Math.min(nowMs, this.#askedMs);
    } else if (this.#wasConnected || refused !== undefined) this.#askedMs = nowMs;
    this.#wasConnected = relay.connected;
    this.#asked = asked;
    this.#answered = answered;
    return nowMs - this.#askedMs;
  }

  /** Back to UDP without asking, as after a change of network. */
  reset(): void {
    this.#turn++;
    this.#dialAtMs = 0;
    this.#retryMs = RETRY_MIN_MS;
    const number = this.#number;
    this.#number = 0;
    this.#port.remove(number);
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#turn++;
    this.#port.close();
    await this.#endPump();
    closeMailboxes(this.mailboxes);
  }

  async #dial(plane: LinkPlane): Promise<void> {
    const turn = this.#turn;
    const { endpoint, say } = this.#o;
    this.#isDialling = true;
    try {
      await this.#follow();
      if (turn !== this.#turn || this.#isClosed) return;
      const stream = await dialFallback(endpoint, this.#address);
      if (turn !== this.#turn || this.#isClosed) return stream.close();
      this.#number = this.#port.add(stream);
      this.#reason = "";
      this.#sinceMs = this.#probedMs = performance.now();
      this.#hasAsked = false;
      const { address: to, port } = this.#target!;
      plane.reach(to, port);
      say(
        `UDP gets no answer: the tunnel goes over TLS to ${this.name}, and UDP is tried again now and then.`,
      );
    } catch (error) {
      const reason = `the fallback over TLS, ${this.name}, cannot be reached: ${(error as Error).message}`;
      if (reason !== this.#reason) say(`UDP gets no answer, and ${reason}.`);
      this.#reason = reason;
      this.#retryLater();
    } finally {
      this.#isDialling = false;
    }
  }

  /** Takes the address that the name has now. */
  async #follow(): Promise<void> {
    const asked = this.#o.resolve().then((address) => void (this.#resolved = address), () => {});
    let timer: ReturnType<typeof setTimeout> | undefined;
    const patience = new Promise<void>((resolve) => timer = setTimeout(resolve, RESOLVE_MS));
    await Promise.race([asked, patience]);
    clearTimeout(timer);
    if (this.#resolved === this.#address || this.#isClosed) return;
    const before = this.#address;
    this.#address = this.#resolved;
    try {
      await this.#o.onMoved();
    } catch (error) {
      // Its packets would go into the tunnel: the next dial tries this again.
      this.#address = before;
      throw error;
    }
  }

  #retryLater(): void {
    this.#dialAtMs = performance.now() + this.#retryMs;
    this.#retryMs = Math.min(RETRY_MAX_MS, 2 * this.#retryMs);
  }

  #leave(): void {
    const number = this.#number;
    this.#number = 0;
    this.#retryMs = RETRY_MIN_MS;
    setTimeout(() => this.#port.remove(number), LINGER_MS);
  }

  #onClosed(number: number): void {
    if (number !== this.#number || this.#isClosed) return;
    this.#number = 0;
    this.#o.say("The connection over TLS has ended.");
    this.#retryLater();
  }
}
