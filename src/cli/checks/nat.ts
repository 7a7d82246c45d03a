/**
 * The kind of NAT before this device, by what several relays see of one socket (RFC 5780 section 4.3, RFC 4787 section 4.1).
 * Invariant: a mapping is called the same only when two relays at different addresses or ports saw the same; with one the kind is
 * unknown. How a NAT filters cannot be seen this way: no relay sends from another relay's address.
 */
import type { Invitation } from "../../connect/invitation.ts";
import { type ProbeAnswer, Prober } from "../../connect/server_probe.ts";
import { formatEndpoint } from "../../config.ts";
import { formatAddress, parseAddress } from "../../wire/address.ts";

/** A relay's address, by the name that a person knows it by. */
export interface Place {
  server: string;
  address: string;
  port: number;
}

export interface Nat {
  family: "IPv4" | "IPv6";
  /** This device as the relays see it, "address:port", each once. */
  seen: string[];
  kind: "none" | "endpoint-independent" | "address-dependent" | "unknown";
  /** A sentence for people. */
  text: string;
}

const PROBE_MS = 1000;
/** A relay takes two initiations of one key no sooner than 20 ms apart. */
const BETWEEN_PROBES_MS = 30;

/** The NAT of each family, by probes of these relays from one socket. */
export async function natOf(invitation: Invitation, places: readonly Place[]): Promise<Nat[]> {
  const nats: Nat[] = [];
  for (const isIpv6 of [false, true]) {
    const ofFamily = places.filter(({ address }) => address.includes(":") === isIpv6);
    const some = [
      ...new Map(ofFamily.map((one) => [formatEndpoint({ host: one.address, port: one.port }), one]))
        .values(),
    ];
    const prober = some.length === 0 ? undefined : Prober.open(invitation, isIpv6);
    if (prober === undefined) continue;
    try {
      const seen: (ProbeAnswer["seen"])[] = [];
      for (const { address, port } of some) {
        const answer = await prober.ask(address, port, PROBE_MS);
        if (answer === undefined) break; // its socket is of no more use
        seen.push(answer.seen);
        await new Promise((resolve) => setTimeout(resolve, BETWEEN_PROBES_MS));
      }
      const own = Deno.networkInterfaces().map(({ address }) => address);
      nats.push(judgeNat(isIpv6 ? "IPv6" : "IPv4", seen, own, prober.localPort));
    } finally {
      await prober.close();
    }
  }
  return nats;
}

/** Judges what each relay saw; undefined where it does not tell. `own` are this machine's addresses as text. */
export function judgeNat(
  family: Nat["family"],
  answers: readonly ProbeAnswer["seen"][],
  own: readonly string[],
  localPort: number,
): Nat {
  const told = answers.filter((one) => one !== undefined).map(({ address, port }) => ({
    host: formatAddress(wordsOf(address)),
    port,
  }));
  const seen = [...new Set(told.map(formatEndpoint))];
  const as = `${family}: seen as ${seen.join(" and ")}`;
  if (told.length === 0) {
    return {
      family,
      seen,
      kind: "unknown",
      text: `${family}: unknown: these relays do not tell what they see; update them`,
    };
  }
  const mine = new Set(own.flatMap((text) => parseAddress(text) ?? []).map((words) => formatAddress(words)));
  if (told.every(({ host, port }) => mine.has(host) && port === localPort)) {
    return { family, seen, kind: "none", text: `${as}, which is this machine's own: no NAT` };
  }
  if (seen.length > 1) {
    const text =
      `${as}: every destination gets another port (address-dependent mapping, "strict"): games cannot connect ` +
      "directly without the relay";
    return { family, seen, kind: "address-dependent", text };
  }
  if (told.length > 1) {
    const text = `${as}: one port for all destinations (endpoint-independent mapping, "open" or "moderate")`;
    return { family, seen, kind: "endpoint-independent", text };
  }
  return {
    family,
    seen,
    kind: "unknown",
    text: `${as}: behind a NAT; a second relay (--server twice) shows how it maps ports`,
  };
}

/** Four words of 16 bytes. */
function wordsOf(bytes: Uint8Array): Uint32Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, 16);
  return Uint32Array.from({ length: 4 }, (_, i) => view.getUint32(4 * i));
}
