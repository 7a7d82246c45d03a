/**
 * What an invitation says of the relay's fallback over TLS: where it is, and how its certificate is known. Invariant: a
 * certificate that nobody vouches for is pinned, one that an authority signed is not, so that it can be renewed. Reads the
 * certificate and no key.
 */
import { X509Certificate } from "node:crypto";
import { type FallbackConfig, parseEndpoint } from "../config.ts";
import type { FallbackEndpoint } from "../connect/fallback_dial.ts";
import { CommandError } from "../process/help.ts";

/** @param endpoint where clients reach the relay by UDP, "host:port". Throws CommandError. */
export async function invitedFallback(fallback: FallbackConfig, endpoint: string): Promise<FallbackEndpoint> {
  const { host, port } = fallback.publicEndpoint === undefined
    ? { host: parseEndpoint(endpoint)!.host, port: fallback.listen.port }
    : parseEndpoint(fallback.publicEndpoint)!;
  let certificate: X509Certificate;
  try {
    certificate = new X509Certificate(await Deno.readTextFile(fallback.certificate));
  } catch (error) {
    throw new CommandError(
      `fallback.certificate: ${fallback.certificate} cannot be read: ${(error as Error).message}`,
    );
  }
  const isSelfSigned = certificate.issuer === certificate.subject;
  const pin = certificate.fingerprint256.replaceAll(":", "").toLowerCase();
  return { host, port, ...(isSelfSigned && { pin }) };
}
