/**
 * SOCKS5's UDP ASSOCIATE (RFC 1928 §7): a port here for a program's datagrams, each with its target in front, for as long as
 * the program's connection lives. Invariant: only the first sender is served, fragments are refused, and a datagram for a
 * name that is not known yet waits for that name alone, in bounded number; one whose name failed is dropped at once.
 */
import { parseAddress } from "../../wire/address.ts";
import type { Dialler, TunnelDatagram, TunnelSocket } from "../../exit/userspace/dialler.ts";
import type { Names } from "./names.ts";
import { encodeTarget, readTarget, type Target } from "./target.ts";

const DATAGRAM_BYTES_MAX = 65536;
/** Names that a program's datagrams go to; the one that was first is looked up again after that. */
const NAMES_MAX = 256;
const WAITING_NAMES_MAX = 32;
const WAITING_PER_NAME_MAX = 16;
const WAITING_BYTES_MAX = 1 << 20;
const PAUSE_MS = 10;

export class Association {
  readonly #outer: Deno.DatagramConn;
  readonly #tunnel: TunnelSocket;
  readonly #names: Names;
  readonly #onProgram: (port: number, innerPort: number) => void;
  #program: Deno.NetAddr | undefined;
  #isClosed = false;
  /** The address that each name has for as long as the association lives: a game's server is one machine. */
  readonly #addresses = new Map<string, string>();
  readonly #waiting = new Map<string, { port: number; payload: Uint8Array }[]>();
  #waitingBytes = 0;

  /**
   * Opens a port of `hostname` and one in the tunnel; `onProgram` hears which port the program turns out to have. Throws what
   * Deno.listenDatagram and `Dialler.listen` throw.
   */
  constructor(
    dialler: Pick<Dialler, "listen">,
    names: Names,
    hostname: string,
    onProgram: (port: number, innerPort: number) => void,
  ) {
    this.#names = names;
    this.#onProgram = onProgram;
    this.#outer = Deno.listenDatagram({ transport: "udp", hostname, port: 0 });
    try {
      this.#tunnel = dialler.listen((datagram) => this.#answer(datagram));
    } catch (error) {
      this.#outer.close();
      throw error;
    }
    this.#carry();
  }

  /** Where the program is to send to. */
  get port(): number {
    return (this.#outer.addr as Deno.NetAddr).port;
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#waiting.clear();
    this.#tunnel.close();
    this.#outer.close();
  }

  async #carry(): Promise<void> {
    const buffer = new Uint8Array(DATAGRAM_BYTES_MAX);
    while (!this.#isClosed) {
      try {
        const [data, from] = await this.#outer.receive(buffer);
        this.#take(data, from as Deno.NetAddr);
      } catch {
        // Ends with the socket; nothing else may end it.
        if (!this.#isClosed) await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
      }
    }
  }

  #take(data: Uint8Array, sender: Deno.NetAddr): void {
    const datagram = readDatagram(data);
    if (this.#program === undefined) {
      if (datagram === undefined) return;
      this.#program = sender;
      this.#onProgram(sender.port, this.#tunnel.port);
    }
    const program = this.#program;
    if (sender.port !== program.port || sender.hostname !== program.hostname || datagram === undefined) {
      return;
    }
    const { target: { host, port }, payload } = datagram;
    const address = parseAddress(host) ? host : this.#addresses.get(host);
    if (address !== undefined) this.#tunnel.send(payload, address, port);
    else this.#wait(host, port, payload);
  }

  #wait(host: string, port: number, payload: Uint8Array): void {
    if (this.#waitingBytes + payload.length > WAITING_BYTES_MAX) return;
    const queue = this.#waiting.get(host) ?? [];
    const isFirst = queue.length === 0;
    if (isFirst ? this.#waiting.size >= WAITING_NAMES_MAX : queue.length >= WAITING_PER_NAME_MAX) return;
    queue.push({ port, payload: payload.slice() });
    this.#waitingBytes += payload.length;
    if (!isFirst) return;
    this.#waiting.set(host, queue);
    const settle = (addresses: readonly string[]) => this.#settle(host, addresses[0]);
    // The answer may be there at once, and is the last thing to happen here.
    this.#names.addresses(host, settle).catch(() => {}).finally(() => this.#settle(host, undefined));
  }

  /** What waited for the name leaves, in its order, or goes for good. */
  #settle(host: string, address: string | undefined): void {
    const queue = this.#waiting.get(host);
    if (queue === undefined) return;
    this.#waiting.delete(host);
    for (const { payload } of queue) this.#waitingBytes -= payload.length;
    if (address === undefined) return;
    if (this.#addresses.size >= NAMES_MAX) this.#addresses.delete(this.#addresses.keys().next().value!);
    this.#addresses.set(host, address);
    for (const { port, payload } of queue) this.#tunnel.send(payload, address, port);
  }

  #answer({ address, port, data }: TunnelDatagram): void {
    if (this.#program === undefined || this.#isClosed) return;
    const head = Uint8Array.of(0, 0, 0, ...encodeTarget(address, port));
    const whole = new Uint8Array(head.length + data.length);
    whole.set(head);
    whole.set(data, head.length);
    this.#outer.send(whole, this.#program).catch(() => {}); // the program's own loss
  }
}

/** A datagram's target and payload; undefined when it is malformed or a fragment. */
export function readDatagram(data: Uint8Array): { target: Target; payload: Uint8Array } | undefined {
  if (data.length < 4 || data[2] !== 0) return undefined;
  const found = readTarget(data, 3);
  return found && { target: found.target, payload: data.subarray(found.end) };
}
