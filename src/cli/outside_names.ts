/**
 * The relay's own name, resolved outside of the tunnel: when that is dead, this system's resolver is asked through it and
 * does not answer, while the relay may have another address by then. Invariant: nothing but this question leaves outside,
 * and an answer counts from the resolver that was asked. Keeps no cache.
 */
import { formatAddress, parseAddress } from "../wire/address.ts";
import { decodeAnswer, encodeQuery } from "./resolve.ts";
import { type Resolve, resolveHost } from "./servers.ts";

const PORT = 53;
const TYPE_A = 1, TYPE_AAAA = 28;
const TRIES = 2, TRY_MS = 1500;
/** So long this system's own resolver, which knows /etc/hosts too, has to itself. */
const OWN_MS = 300;
const RESOLVERS_MAX = 3;

/** How the host lets a question out. */
export interface OutsideWay {
  /** The resolvers that this system had before the tunnel, as text. */
  outsideResolvers(): string[];
  /** Lets UDP from this port to these resolvers' port 53 past the tunnel while the action runs. */
  letOut<T>(resolvers: readonly string[], port: number, action: () => Promise<T>): Promise<T>;
}

/** As `resolveHost`, and past the tunnel when that gives nothing soon. */
export function resolveOutside(way: OutsideWay): Resolve {
  return async (host) => {
    if (parseAddress(host) !== undefined) return await resolveHost(host);
    const own = resolveHost(host);
    own.catch(() => {}); // what it says is heard below
    const { promise: late, resolve: isLate } = Promise.withResolvers<undefined>();
    const timer = setTimeout(() => isLate(undefined), OWN_MS);
    const soon = await Promise.race([own.catch(() => undefined), late]).finally(() => clearTimeout(timer));
    if (soon !== undefined) return soon;
    const outside = askOutside(way, host).then((addresses) =>
      addresses.length > 0 ? addresses : Promise.reject(new Error("no answer"))
    );
    // The sentence of the system's own failure, when both fail.
    return await Promise.any([own, outside]).catch(() => own);
  };
}

/** The name's addresses as the first resolver that has any says; empty when none does. */
async function askOutside(way: OutsideWay, host: string): Promise<string[]> {
  const asked = way.outsideResolvers().slice(0, RESOLVERS_MAX).map((resolver) => ask(way, resolver, host));
  return await Promise.any(asked.map(async (one) => {
    const addresses = await one;
    if (addresses.length === 0) throw new Error("no address");
    return addresses;
  })).catch(() => []);
}

/** IPv4 before IPv6, as there is no telling here which the system has a way to; both are tried. */
async function ask(way: OutsideWay, resolver: string, host: string): Promise<string[]> {
  const isIpv6 = resolver.includes(":");
  const socket = Deno.listenDatagram({ transport: "udp", hostname: isIpv6 ? "::" : "0.0.0.0", port: 0 });
  const { port } = socket.addr as Deno.NetAddr;
  const queries = [TYPE_A, TYPE_AAAA].flatMap((type) => {
    const query = encodeQuery(crypto.getRandomValues(new Uint16Array(1))[0], host, type);
    return query === undefined ? [] : [{ type, query, answer: undefined as string[] | undefined }];
  });
  return await way.letOut([resolver], port, async () => {
    for (let turn = 0; turn < TRIES && queries.some(({ answer }) => answer === undefined); turn++) {
      for (const { query, answer } of queries) {
        if (answer === undefined) {
          await socket.send(query, { transport: "udp", hostname: resolver, port: PORT });
        }
      }
      await collect(socket, resolver, queries);
    }
    return queries.flatMap(({ answer }) => answer ?? []);
  }).finally(() => socket.close());
}

/** Takes answers until each question has one, or it is time to ask again. */
async function collect(
  socket: Deno.DatagramConn,
  resolver: string,
  queries: { type: number; query: Uint8Array<ArrayBuffer>; answer: string[] | undefined }[],
): Promise<void> {
  const { promise: over, resolve: isOver } = Promise.withResolvers<undefined>();
  const timer = setTimeout(() => isOver(undefined), TRY_MS);
  try {
    while (queries.some(({ answer }) => answer === undefined)) {
      const received = socket.receive();
      received.catch(() => {}); // the socket is closed when it is time
      const came = await Promise.race([received, over]);
      if (came === undefined) return;
      const [data, from] = came;
      const { hostname, port } = from as Deno.NetAddr;
      const sender = parseAddress(hostname);
      if (port !== PORT || !sender || formatAddress(sender) !== resolver) continue;
      for (const one of queries) {
        const answer = decodeAnswer(data as Uint8Array<ArrayBuffer>, one.query, one.type);
        if (answer !== "other") one.answer ??= answer;
      }
    }
  } finally {
    clearTimeout(timer);
  }
}
