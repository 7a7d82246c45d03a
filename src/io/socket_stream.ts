/**
 * A TLS connection of Node's as a stream port wants it, over a TCP connection that is read on demand only: `node:tls` by
 * itself reads on and keeps whatever comes while nobody takes it, and Deno's own TLS sockets can neither be told on the
 * accepting side to send small writes at once nor on the dialling side to show a certificate that is pinned. Invariant:
 * beyond the bytes of a handshake, no more is read from the network than one piece for each `read` that waits; what is given
 * to `write` is let go when it resolves.
 * Keeps PROTOCOL R87.
 */
import { Duplex } from "node:stream";
import type { TLSSocket } from "node:tls";
import type { ByteStream } from "./stream_port.ts";

/** Read at a time from the network: about a TLS record, which is the most that TLS holds back besides. */
const PIECE_BYTES = 16_384;
/** What a TLS handshake may take before anybody reads: a long chain of certificates fits. */
const HANDSHAKE_BYTES = 65_536;

/** A TCP connection for TLS to run on. It reads as much as a handshake takes, and then a piece each time it is asked. */
export class PulledSocket extends Duplex {
  readonly #conn: Deno.TcpConn;
  /** What was read of it before, until it is handed on. */
  #first: Uint8Array | undefined;
  #allowance = HANDSHAKE_BYTES;
  #isReading = false;
  /** Called some time after a piece was handed on: what there was in it has been taken by then. */
  onFed: () => void = () => {};

  /** @param first what was read of the connection already. */
  constructor(conn: Deno.TcpConn, first?: Uint8Array) {
    super({ allowHalfOpen: false, readableHighWaterMark: 1 });
    this.#conn = conn;
    this.#first = first;
    try {
      conn.setNoDelay(true);
    } catch (error) {
      this.destroy(error as Error); // gone by now
    }
  }

  /** The handshake is over: from now on only what is asked for is read. */
  hold(): void {
    this.#allowance = 0;
  }

  /** Reads one piece, unless that is being done. */
  async pull(): Promise<void> {
    if (this.#isReading || this.destroyed) return;
    this.#isReading = true;
    try {
      const piece = new Uint8Array(PIECE_BYTES);
      const count = await this.#conn.read(piece);
      this.#isReading = false;
      if (this.destroyed) return;
      this.#allowance -= count ?? 0;
      this.push(count === null ? null : piece.subarray(0, count));
      if (count !== null) setTimeout(() => this.onFed(), 0);
    } catch (error) {
      this.destroy(error as Error);
    }
  }

  override _read(): void {
    const first = this.#first;
    this.#first = undefined;
    if (first !== undefined) this.push(first);
    else if (this.#allowance > 0) this.pull();
  }

  override _write(bytes: Uint8Array, _: string, done: (error?: Error | null) => void): void {
    this.#writeAll(bytes).then(() => done(), done);
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    try {
      this.#conn.close();
    } catch {
      // It has ended by itself.
    }
    done(error);
  }

  async #writeAll(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length;) at += await this.#conn.write(bytes.subarray(at));
  }
}

export class SocketStream implements ByteStream {
  readonly #tls: TLSSocket;
  readonly #tcp: PulledSocket;
  #rest: Uint8Array | undefined;
  #wake: () => void = () => {};
  #isEnded = false;

  /** Takes over both once the handshake is done. */
  constructor(tls: TLSSocket, tcp: PulledSocket) {
    this.#tls = tls;
    this.#tcp = tcp;
    const wake = () => this.#wake();
    const end = () => {
      this.#isEnded = true;
      wake();
    };
    tcp.hold();
    tcp.onFed = wake;
    tcp.on("close", end);
    tls.on("readable", wake);
    for (const event of ["end", "close", "error"]) tls.on(event, end);
  }

  async read(into: Uint8Array): Promise<number | null> {
    for (;;) {
      const bytes = this.#rest ?? this.#tls.read() as Uint8Array | null;
      if (bytes !== null) {
        const count = Math.min(bytes.length, into.length);
        into.set(bytes.subarray(0, count));
        this.#rest = count < bytes.length ? bytes.subarray(count) : undefined;
        return count;
      }
      if (this.#isEnded) return null;
      const woken = new Promise<void>((resolve) => this.#wake = resolve);
      this.#tcp.pull();
      await woken;
    }
  }

  write(bytes: Uint8Array): Promise<number> {
    return new Promise((resolve, reject) => {
      if (this.#isEnded) return reject(new Error("the connection has ended")); // TLS would call back as if it had not
      // The socket may keep what it is given until it calls back, and so may the port not touch it.
      this.#tls.write(bytes, (error) => error ? reject(error) : resolve(bytes.length));
    });
  }

  close(): void {
    this.#tls.destroy();
    this.#tcp.destroy();
  }
}
