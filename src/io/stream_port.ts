/**
 * A port over connections instead of a socket: OxTunnel's datagrams, each behind its length, on streams that somebody
 * else has accepted or dialled (PROTOCOL §9). Invariant: memory is bounded for a connection, and for what waits on all
 * of them, whatever the other ends say or do not read; what finds no room is lost, as datagrams may be, and nobody waits.
 * Knows no TLS and no session.
 * Keeps PROTOCOL R86 and R87.
 */
import { type Burst, BURST_CAPACITY, DONE, TO_PARSE, TO_TRANSMIT } from "../vector/burst.ts";
import { DROP } from "../metrics.ts";
import { KIND_COOKIE_REPLY, KIND_INITIATION } from "../wire/oxtunnel.ts";
import {
  fitsStream,
  isStreamAddress,
  readStreamLength,
  STREAM_HEAD_BYTES,
  STREAM_PORT_NUMBER,
  streamNumber,
  writeStreamAddress,
  writeStreamLength,
} from "../wire/stream.ts";
import type { Port } from "./port.ts";

/** Bytes read at a time; several whole datagrams. */
const INPUT_BYTES = 16_384;
/** Bytes that wait while as many are being written: some bursts of full packets. */
const OUTPUT_BYTES = 262_144;
/** What is set aside for a connection to which little is said, and for all together. */
const OUTPUT_MIN_BYTES = 2048, OUTPUT_ALL_BYTES = 64 << 20;
const NOTHING = new Uint8Array(0);
/** As many on a connection that has not taken the last ones for so long: 26 ms at 10 Mbit/s instead of 210. */
const SLOW_OUTPUT_BYTES = 32_768, SLOW_MS = 20;

/** What a connection must be able to do; `Deno.Conn` is. */
export interface ByteStream {
  /** Bytes read, or null at the end. */
  read(into: Uint8Array): Promise<number | null>;
  /** Bytes taken. */
  write(bytes: Uint8Array): Promise<number>;
  close(): void;
}

export interface StreamPortOptions {
  description: string;
  /** The TCP port number, for `localPort`. */
  localPort: number;
  /** Counts datagrams that were lost here, by their code in `next`. */
  onDrop: (code: number) => void;
  /** Whether a connection may begin a handshake now. */
  admits?: (connection: number) => boolean;
  /** The core has answered on the connection as it answers nobody but who is authentic, for the first time. */
  onProven?: (connection: number) => void;
  onClosed?: (connection: number) => void;
  /** Milliseconds that a connection has for its first answer. */
  provenMs?: number;
  /** Milliseconds without an answer after which it is closed. */
  idleMs?: number;
}

class Connection {
  readonly input = new Uint8Array(INPUT_BYTES);
  from = 0;
  to = 0;
  /** Two buffers take turns, each as long as the largest recent writes. */
  output = NOTHING;
  flight = NOTHING;
  queued = 0;
  isWriting = false;
  /** Since when the last bytes have been on their way out; Infinity when they are out. */
  flightMs = Infinity;
  isTouched = false;
  isClosed = false;
  /** Whether the core has answered as it answers nobody but who is authentic. */
  isProven = false;
  isAnswering = false;
  /** When it was opened, and then when an answer last left. */
  seenMs = performance.now();

  constructor(readonly number: number, readonly stream: ByteStream) {}
}

export class StreamPort implements Port {
  readonly description: string;
  readonly localPort: number;
  readonly #o: StreamPortOptions;
  readonly #connections = new Map<number, Connection>();
  /** Those whose input may hold whole datagrams. */
  readonly #readable: Connection[] = [];
  readonly #touched: Connection[] = [];
  /** Bytes of all output buffers. */
  #outputBytes = 0;
  #last = 0;
  #wake: () => void = () => {};

  constructor(options: StreamPortOptions) {
    this.#o = options;
    this.description = options.description;
    this.localPort = options.localPort;
  }

  /** Connections open now. */
  get count(): number {
    return this.#connections.size;
  }

  /** Takes the connection over, until either end closes it; returns its number, which is never used again. */
  add(stream: ByteStream): number {
    const connection = new Connection(++this.#last, stream);
    this.#connections.set(connection.number, connection);
    this.#read(connection);
    return connection.number;
  }

  /** Closes the connection, if it is open. */
  remove(number: number): void {
    const connection = this.#connections.get(number);
    if (connection !== undefined) this.#close(connection);
  }

  /**
   * Closes connections from which nothing authentic came in time, and takes room back from those that are quiet. To be
   * called about once a second where there are many.
   */
  sweep(): void {
    const { provenMs = Infinity, idleMs = Infinity } = this.#o;
    const nowMs = performance.now();
    for (const connection of this.#connections.values()) {
      if (nowMs - connection.seenMs > (connection.isProven ? idleMs : provenMs)) this.#close(connection);
      else if (!connection.isWriting && connection.queued === 0) this.#giveRoomBack(connection);
    }
  }

  onReadable(wake: () => void): void {
    this.#wake = wake;
  }

  /** As the interface says, `rowsMax` rows at most; what is left waits, and so does the other end. */
  receive(burst: Burst, rowsMax: number = BURST_CAPACITY): number {
    const before = burst.count;
    const end = Math.min(BURST_CAPACITY, before + rowsMax);
    for (let left = this.#readable.length; left > 0 && burst.count < end; left--) {
      const connection = this.#readable.shift()!;
      if (connection.isClosed) continue;
      if (this.#take(connection, burst, end)) this.#readable.push(connection);
      else if (!connection.isClosed) this.#read(connection);
    }
    return burst.count - before;
  }

  transmit(burst: Burst): void {
    const nowMs = performance.now();
    const { count, next, offset, length, address, bytes } = burst;
    for (let row = 0; row < count; row++) {
      if (next[row] !== TO_TRANSMIT) continue;
      next[row] = DONE;
      const connection = isStreamAddress(address, 4 * row)
        ? this.#connections.get(streamNumber(address, 4 * row))
        : undefined;
      if (connection === undefined) this.#o.onDrop(DROP.stream_gone);
      else this.#put(connection, bytes, offset[row], length[row], nowMs);
    }
    for (let connection = this.#touched.pop(); connection; connection = this.#touched.pop()) {
      connection.isTouched = false;
      this.#flush(connection);
    }
  }

  close(): void {
    for (const connection of this.#connections.values()) this.#close(connection);
  }

  /** Adds whole datagrams of the connection's input; whether there may be more, which the burst has no room for. */
  #take(connection: Connection, burst: Burst, end: number): boolean {
    const { input, number } = connection;
    while (connection.to - connection.from > STREAM_HEAD_BYTES) {
      const at = connection.from + STREAM_HEAD_BYTES;
      const length = readStreamLength(input, connection.from);
      if (!fitsStream(length, input[at])) {
        this.#close(connection); // no way to tell where the next one begins
        return false;
      }
      if (connection.to - at < length) return false;
      const row = burst.count < end ? burst.grow(length, TO_PARSE) : -1;
      if (row < 0) return true;
      connection.from = at + length;
      burst.bytes.set(input.subarray(at, at + length), burst.offset[row]);
      writeStreamAddress(burst.address, 4 * row, number);
      burst.port[row] = STREAM_PORT_NUMBER;
      if (input[at] === KIND_INITIATION && this.#o.admits?.(number) === false) {
        burst.next[row] = DROP.rate_limited;
        this.#o.onDrop(DROP.rate_limited);
      }
    }
    return false;
  }

  async #read(connection: Connection): Promise<void> {
    const { input, stream } = connection;
    input.copyWithin(0, connection.from, connection.to);
    connection.to -= connection.from;
    connection.from = 0;
    try {
      const count = await stream.read(input.subarray(connection.to));
      if (connection.isClosed) return;
      if (count === null) return this.#close(connection);
      connection.to += count;
    } catch {
      return this.#close(connection);
    }
    this.#readable.push(connection);
    this.#wake();
  }

  #put(connection: Connection, bytes: Uint8Array, at: number, length: number, nowMs: number): void {
    const bytesMax = nowMs - connection.flightMs > SLOW_MS ? SLOW_OUTPUT_BYTES : OUTPUT_BYTES;
    const end = connection.queued + STREAM_HEAD_BYTES + length;
    if (end > bytesMax || !this.#makeRoom(connection, end)) {
      this.#o.onDrop(DROP.stream_full);
      return;
    }
    const { output } = connection;
    // Nothing but a cookie reply is said to who has not authenticated (PROTOCOL R29, R30).
    if (bytes[at] !== KIND_COOKIE_REPLY) connection.isAnswering = true;
    writeStreamLength(output, connection.queued, length);
    output.set(bytes.subarray(at, at + length), connection.queued + STREAM_HEAD_BYTES);
    connection.queued += STREAM_HEAD_BYTES + length;
    if (connection.isTouched) return;
    connection.isTouched = true;
    this.#touched.push(connection);
  }

  /** Has the output buffer take `bytes`; false when there is no room for that in all. */
  #makeRoom(connection: Connection, bytes: number): boolean {
    const { output, queued } = connection;
    if (bytes <= output.length) return true;
    let wanted = Math.max(OUTPUT_MIN_BYTES, output.length);
    while (wanted < bytes) wanted *= 2;
    if (this.#outputBytes + wanted - output.length > OUTPUT_ALL_BYTES) return false;
    this.#outputBytes += wanted - output.length;
    connection.output = new Uint8Array(wanted);
    connection.output.set(output.subarray(0, queued));
    return true;
  }

  #giveRoomBack(connection: Connection): void {
    this.#outputBytes -= connection.output.length + connection.flight.length;
    connection.output = connection.flight = NOTHING;
  }

  /** Writes what has gathered, in one piece, and then what has gathered meanwhile. */
  async #flush(connection: Connection): Promise<void> {
    if (connection.isWriting) return;
    connection.isWriting = true;
    try {
      while (connection.queued > 0 && !connection.isClosed) {
        const flight = connection.output;
        const bytes = connection.queued;
        connection.output = connection.flight;
        connection.flight = flight;
        connection.queued = 0;
        const isAnswering = connection.isAnswering;
        connection.isAnswering = false;
        connection.flightMs = performance.now();
        for (let at = 0; at < bytes;) at += await connection.stream.write(flight.subarray(at, bytes));
        connection.flightMs = Infinity;
        if (!isAnswering || connection.isClosed) continue;
        if (!connection.isProven) this.#o.onProven?.(connection.number);
        connection.isProven = true;
        connection.seenMs = performance.now();
      }
    } catch {
      this.#close(connection);
    }
    connection.isWriting = false;
  }

  #close(connection: Connection): void {
    if (connection.isClosed) return;
    connection.isClosed = true;
    this.#connections.delete(connection.number);
    this.#giveRoomBack(connection);
    try {
      connection.stream.close();
    } catch {
      // It has ended by itself.
    }
    this.#o.onClosed?.(connection.number);
  }
}
