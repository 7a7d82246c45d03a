/** The gateway's UPnP service on loopback: what an unfinished request may hold up. */
import { assertEquals, assertMatch } from "@std/assert";
import { Upnp } from "../../src/connect/share/upnp.ts";
import { Leases } from "../../src/exit/mapping/leases.ts";

const HALF = new TextEncoder().encode(
  "POST /ctl/IPConn HTTP/1.1\r\nHost: gateway\r\nContent-Length: 50\r\n\r\n<half",
);

async function halfPost(port: number): Promise<Deno.TcpConn> {
  const connection = await Deno.connect({ hostname: "127.0.0.1", port });
  await connection.write(HALF);
  return connection;
}

Deno.test("upnp: half a request is answered after a while, and keeps no end waiting", async () => {
  const leases = new Leases({
    most: () => 0,
    isTaken: () => false,
    apply: () => Promise.resolve([]),
    outside: () => new Uint32Array(4),
    nowS: () => 0,
  });
  const upnp = new Upnp({
    address: "127.0.0.1",
    isOfLan: () => true,
    leases,
    uuid: "uuid:0",
    outside: () => undefined,
    nowS: () => 0,
  });
  using first = await halfPost(upnp.port);
  const bytes = new Uint8Array(64);
  const length = await first.read(bytes);
  assertMatch(new TextDecoder().decode(bytes.subarray(0, length!)), /^HTTP\/1\.1 408 /);
  using second = await halfPost(upnp.port);
  using third = await Deno.connect({ hostname: "127.0.0.1", port: upnp.port });
  await third.write(new TextEncoder().encode("GET /rootDesc.xml HTTP/1.1\r\nHost: gateway\r\n\r\n"));
  await third.read(bytes); // by then the half request is known, too
  let timer: ReturnType<typeof setTimeout> | undefined;
  const never = new Promise((resolve) => timer = setTimeout(() => resolve("waits for ever"), 30_000));
  assertEquals(await Promise.race([upnp.close().then(() => "ended"), never]), "ended");
  clearTimeout(timer);
  assertEquals(await second.read(bytes).catch(() => null), null, "the connection has ended");
});
