/**
 * Dials a relay's fallback: one TLS connection to it as a stream of bytes. Invariant: a dial ends, well or with a
 * sentence, within its time. What TLS proves is that this is who the invitation names, by a certificate that is known or
 * pinned; the tunnel inside proves it again by itself, and does not rest on it.
 */
import { connect as connectTcp } from "node:net";
import { connect as connectTls, type TLSSocket } from "node:tls";
import type { Endpoint } from "../config.ts";
import { SocketStream } from "../io/socket_stream.ts";
import type { ByteStream } from "../io/stream_port.ts";

/** Where a relay's fallback is, as an invitation says it. */
export interface FallbackEndpoint extends Endpoint {
  /** SHA-256 of the certificate, 64 lower-case hexadecimal digits; without it the certificate is one that everybody knows. */
  pin?: string;
}

const DIAL_MS = 8000;

/** Connects to `address`, the endpoint's own as it was resolved before. Throws an Error with a sentence. */
export function dialFallback({ host, port, pin }: FallbackEndpoint, address: string): Promise<ByteStream> {
  const { promise, resolve, reject } = Promise.withResolvers<ByteStream>();
  const tcp = connectTcp({ host: address, port, noDelay: true });
  let tls: TLSSocket | undefined;
  const end = (reason: string) => {
    clearTimeout(timer);
    tls?.destroy();
    tcp.destroy();
    reject(new Error(reason));
  };
  const timer = setTimeout(() => end(`no answer within ${DIAL_MS / 1000} s`), DIAL_MS);
  const why = (error: Error & { code?: string }) =>
    end(error.code === "ECONNREFUSED" ? "the connection is refused" : error.message);
  tcp.on("error", why);
  tcp.on("connect", () => {
    const socket = tls = connectTls({
      socket: tcp,
      // An address is no name to ask for (RFC 6066 section 3).
      ...(host === address ? { host } : { servername: host }),
      rejectUnauthorized: pin === undefined,
    });
    socket.on("error", why);
    socket.on("secureConnect", () => {
      const found = socket.getPeerCertificate().fingerprint256?.replaceAll(":", "").toLowerCase();
      if (pin !== undefined && found !== pin) {
        return end("its certificate is not the one that the invitation pins");
      }
      clearTimeout(timer);
      resolve(new SocketStream(socket));
    });
  });
  return promise;
}
