/**
 * Resolves the relay's own name outside the tunnel: when the tunnel is dead, this system's resolver is asked through it and
 * cannot answer, while the relay may have another address by then. Invariant: nothing but this question leaves outside the
 * tunnel, and an answer counts only from the resolver that was asked. Keeps no cache.
 */
import { formatAddress, parseAddress } from "../wire/address.ts";
import { decodeAnswer, encodeQuery, RESOLVER_PORT, TYPE_A, TYPE_AAAA } from "./resolve.ts";
import { type Resolve, resolveHost } from "./servers.ts";

const TRIES = 2, TRY_MS = 1500;
/** So long this system's own resolver, which knows /etc/hosts too, has to itself. */
const OWN_MS = 300;
const RESOLVERS_MAX = 3;

interface Question {
  type: number;
  query: Uint8Array<ArrayBuffer>;
  answer: string[] | undefined;
}

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
  const inbox = new Inbox(socket);
  const queries: Question[] = [TYPE_A, TYPE_AAAA].flatMap((type) => {
    const query = encodeQuery(crypto.getRandomValues(new Uint16Array(1))[0], host, type);
    return query === undefined ? [] : [{ type, query, answer: undefined }];
  });
  return await way.letOut([resolver], port, async () => {
    for (let turn = 0; turn < TRIES && queries.some(({ answer }) => answer === undefined); turn++) {
      for (const { query, answer } of queries) {
        if (answer === undefined) {
          await socket.send(query, { transport: "udp", hostname: resolver, port: RESOLVER_PORT });
        }
      }
      await collect(inbox, resolver, queries);
    }
    return queries.flatMap(({ answer }) => answer ?? []);
  }).finally(() => socket.close());
}

/** Takes answers from the inbox until each question has one, or it is time to ask again. */
async function collect(inbox: Inbox, resolver: string, queries: Question[]): Promise<void> {
  const { promise: over, resolve: isOver } = Promise.withResolvers<undefined>();
  const timer = setTimeout(() => isOver(undefined), TRY_MS);
  try {
    while (queries.some(({ answer }) => answer === undefined)) {
      const came = await inbox.next(over);
      if (came === undefined) return;
      const [data, from] = came;
      const { hostname, port } = from as Deno.NetAddr;
      const sender = parseAddress(hostname);
      if (port !== RESOLVER_PORT || !sender || formatAddress(sender) !== resolver) continue;
      for (const one of queries) {
        const answer = decodeAnswer(data as Uint8Array<ArrayBuffer>, one.query, one.type);
        if (answer !== "other") one.answer ??= answer;
      }
    }
  } finally {
    clearTimeout(timer);
  }
}

/** A socket's datagrams, one after another: whoever stops waiting for one leaves it to the next who waits. */
export class Inbox {
  readonly #socket: Pick<Deno.DatagramConn, "receive">;
  #pending: Promise<[Uint8Array, Deno.Addr]> | undefined;

  constructor(socket: Pick<Deno.DatagramConn, "receive">) {
    this.#socket = socket;
  }

  /** The next datagram; undefined when `over` is first. Throws when the socket fails. */
  async next(over: Promise<undefined>): Promise<[Uint8Array, Deno.Addr] | undefined> {
    const pending = this.#pending ??= this.#socket.receive();
    pending.catch(() => {}); // the socket is closed when all tries are over
    const came = await Promise.race([pending, over]);
    if (came !== undefined) this.#pending = undefined;
    return came;
  }
}
