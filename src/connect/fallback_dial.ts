/**
 * Dials a relay's fallback: one TLS connection as a stream of bytes. Invariant: a dial ends within its time, with a connection
 * or with a sentence. TLS proves that the other end is the host that the invitation names, by a certificate that is known or
 * pinned; the tunnel inside authenticates the relay by itself and does not depend on TLS.
 */
import { connect, type TLSSocket } from "node:tls";
import type { Endpoint } from "../config.ts";
import { PulledSocket, SocketStream } from "../io/socket_stream.ts";
import type { ByteStream } from "../io/stream_port.ts";

/** Where a relay's fallback is, as an invitation says it. */
export interface FallbackEndpoint extends Endpoint {
  /** SHA-256 of the certificate, 64 lower-case hexadecimal digits; without it the certificate is one that everybody knows. */
  pin?: string;
}

const DIAL_MS = 8000;

/** Connects to `address`, the endpoint's own as it was resolved before. Throws an Error with a sentence. */
export async function dialFallback(
  { host, port, pin }: FallbackEndpoint,
  address: string,
): Promise<ByteStream> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new Error(`no answer within ${DIAL_MS / 1000} s`)), DIAL_MS);
  let tcp: PulledSocket | undefined, isOver = false;
  const connecting = Deno.connect({ hostname: address, port }).then((conn) => {
    if (isOver) conn.close();
    else tcp = new PulledSocket(conn);
  });
  try {
    await Promise.race([connecting, late]);
    // An address is no name to ask for (RFC 6066 section 3).
    const name = host === address ? { host } : { servername: host };
    return new SocketStream(await Promise.race([secured(tcp!, name, pin), late]), tcp!);
  } catch (error) {
    isOver = true;
    tcp?.destroy();
    connecting.catch(() => {}); // it fails later than it may
    throw error instanceof Deno.errors.ConnectionRefused ? new Error("the connection is refused") : error;
  } finally {
    clearTimeout(timer);
  }
}

/** TLS on the connection, with whom the certificate names. Rejects when that is another one, or the connection ends. */
function secured(
  tcp: PulledSocket,
  name: { host: string } | { servername: string },
  pin: string | undefined,
): Promise<TLSSocket> {
  const { promise, resolve, reject } = Promise.withResolvers<TLSSocket>();
  promise.catch(() => {}); // it may fail when nobody waits any more
  const tls = connect({ socket: tcp, ...name, rejectUnauthorized: pin === undefined });
  tls.on("error", reject);
  tcp.on("close", () => reject(new Error("the connection was closed")));
  tls.on("secureConnect", () => {
    const found = tls.getPeerCertificate().fingerprint256?.replaceAll(":", "").toLowerCase();
    if (pin === undefined || found === pin) resolve(tls);
    else reject(new Error("its certificate is not the one that the invitation pins"));
  });
  return promise;
}
