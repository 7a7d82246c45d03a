/**
 * A TLS socket of Node's as a stream port wants it; Deno's own cannot be told on the accepting side to send small writes at
 * once. Invariant: what is given to `write` is let go when it resolves, and `read` takes no more than it was asked for.
 */
import type { TLSSocket } from "node:tls";
import type { ByteStream } from "./stream_port.ts";

export class SocketStream implements ByteStream {
  readonly #socket: TLSSocket;
  #rest: Uint8Array | undefined;
  #wake: () => void = () => {};
  #isEnded = false;

  constructor(socket: TLSSocket) {
    this.#socket = socket;
    const end = () => {
      this.#isEnded = true;
      this.#wake();
    };
    socket.on("readable", () => this.#wake());
    for (const event of ["end", "close", "error"]) socket.on(event, end);
  }

  async read(into: Uint8Array): Promise<number | null> {
    for (;;) {
      const bytes = this.#rest ?? this.#socket.read() as Uint8Array | null;
      if (bytes !== null) {
        const count = Math.min(bytes.length, into.length);
        into.set(bytes.subarray(0, count));
        this.#rest = count < bytes.length ? bytes.subarray(count) : undefined;
        return count;
      }
      if (this.#isEnded) return null;
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
  }

  write(bytes: Uint8Array): Promise<number> {
    return new Promise((resolve, reject) =>
      // The socket may keep what it is given until it calls back, and so may the port not touch it.
      this.#socket.write(bytes, (error) => error ? reject(error) : resolve(bytes.length))
    );
  }

  close(): void {
    this.#socket.destroy();
  }
}
