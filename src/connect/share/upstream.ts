/**
 * Asks the relay for ports, as a client of PCP and NAT-PMP through the tunnel (RFC 6887 §8.1.1, RFC 6886 §3.2). Invariant: an answer is
 * taken from the relay alone and only by who waits for it, and every question ends. Owns one socket.
 */
import { formatAddress, parseAddress } from "../../wire/address.ts";
import {
  type MapOutcome,
  type MapRequest,
  PCP,
  PORT_CONTROL_PORT,
  readMapAnswer,
  writeMapRequest,
} from "../../wire/port_control.ts";

/** Waits for an answer, each twice the one before. */
const FIRST_WAIT_MS = 400, TRIES = 4;
const ADDRESS_BYTES = 12;

export class Upstream {
  readonly #own: Uint32Array;
  readonly #relay: string;
  readonly #nonce: Uint8Array;
  readonly #socket: Deno.DatagramConn;
  readonly #waiting = new Set<(answer: Uint8Array) => void>();
  /** The relay's address as the internet has it, four words; zeros while nobody knows. */
  outside: Uint32Array = new Uint32Array(4);

  /**
   * @param own this device's inner IPv4 address, @param relay the relay's. @param nonce 12 bytes, the same in every run of this device,
   * so that a run may change what an earlier one has made.
   */
  constructor(own: string, relay: string, nonce: Uint8Array) {
    this.#own = parseAddress(own)!;
    this.#relay = relay;
    this.#nonce = nonce;
    this.#socket = Deno.listenDatagram({ transport: "udp", hostname: own, port: 0 });
    this.#listen();
  }

  /** Whether the relay lets this device ask, by its question for the address outside. */
  async probe(): Promise<boolean> {
    const answer = await this.#ask(
      Uint8Array.of(0, 0),
      (bytes) => bytes.length === ADDRESS_BYTES && bytes[0] === 0 && bytes[1] === 0x80 ? bytes : undefined,
    );
    if (answer === undefined) return false;
    const view = new DataView(answer.buffer, answer.byteOffset);
    if (view.getUint16(2) === 0) this.outside = Uint32Array.of(0, 0, 0xffff, view.getUint32(8));
    return true;
  }

  /** Asks for a mapping of the relay's port `wanted`, or another, to this device's `port`; a lifetime of 0 ends that. */
  async map(
    protocol: MapRequest["protocol"],
    port: number,
    wanted: number,
    lifetimeS: number,
  ): Promise<MapOutcome> {
    const request: MapRequest = {
      kind: "map",
      version: 2,
      protocol,
      port,
      wanted,
      lifetimeS: Math.ceil(lifetimeS),
      nonce: this.#nonce,
      isStrict: false,
    };
    const bytes = writeMapRequest(request, this.#own, new Uint32Array(4));
    const outcome = await this.#ask(bytes, (answer) => readMapAnswer(answer, request));
    if (outcome === undefined) {
      return { result: PCP.networkFailure, outer: 0, lifetimeS: 30, address: this.outside };
    }
    if (outcome.result === PCP.success) this.outside = outcome.address;
    return outcome;
  }

  /** The address outside as text; undefined while nobody knows. */
  get outsideText(): string | undefined {
    return this.outside[3] === 0 ? undefined : formatAddress(this.outside);
  }

  close(): void {
    this.#socket.close();
  }

  async #ask<T>(question: Uint8Array, read: (answer: Uint8Array) => T | undefined): Promise<T | undefined> {
    const { promise, resolve } = Promise.withResolvers<T | undefined>();
    const take = (answer: Uint8Array) => {
      const read_ = read(answer);
      if (read_ !== undefined) resolve(read_);
    };
    this.#waiting.add(take);
    let timer: ReturnType<typeof setTimeout> | undefined;
    const attempt = (tries: number) => {
      if (tries === TRIES) return resolve(undefined);
      this.#socket.send(question, { transport: "udp", hostname: this.#relay, port: PORT_CONTROL_PORT }).catch(
        () => {},
      );
      timer = setTimeout(() => attempt(tries + 1), FIRST_WAIT_MS << tries);
    };
    attempt(0);
    return await promise.finally(() => {
      clearTimeout(timer);
      this.#waiting.delete(take);
    });
  }

  async #listen(): Promise<void> {
    for await (const [bytes, from] of this.#socket) {
      const { hostname, port } = from as Deno.NetAddr;
      if (hostname !== this.#relay || port !== PORT_CONTROL_PORT) continue;
      for (const take of this.#waiting) take(bytes);
    }
  }
}
