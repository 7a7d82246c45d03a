/** Questions past the tunnel: what arrives after one try has ended belongs to the next. */
import { assertEquals } from "@std/assert";
import { Inbox } from "../../src/connect/outside_names.ts";

Deno.test("names outside: a try whose time is over swallows no answer of the next one", async () => {
  const asker = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
  const resolver = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
  try {
    const inbox = new Inbox(asker);
    const over = Promise.resolve(undefined);
    for (let turn = 0; turn < 3; turn++) assertEquals(await inbox.next(over), undefined);
    const { promise: late, resolve: isLate } = Promise.withResolvers<undefined>();
    const timer = setTimeout(() => isLate(undefined), 10_000);
    for (const answer of [1, 2, 3]) await resolver.send(Uint8Array.of(answer), asker.addr);
    for (const answer of [1, 2, 3]) assertEquals((await inbox.next(late))?.[0], Uint8Array.of(answer));
    clearTimeout(timer);
  } finally {
    asker.close();
    resolver.close();
  }
});
