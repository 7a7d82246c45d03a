/** The race of a connection over a name's addresses: one is taken, and whatever else comes of it is closed. */
import { assertEquals, assertRejects } from "@std/assert";
import { connectFirst } from "../../src/connect/socks/eyeballs.ts";

Deno.test("happy eyeballs: of two connections made in one turn the later one is closed, and the taken one is not", async () => {
  const closed: string[] = [];
  const attempts = new Map<string, () => void>();
  const begun = Promise.withResolvers<void>();
  const taken = connectFirst(
    (found) => (found(["2001:db8::1", "192.0.2.1"]), Promise.resolve()),
    (address) =>
      new Promise<{ address: string; close(): void }>((resolve) => {
        attempts.set(address, () => resolve({ address, close: () => closed.push(address) }));
        if (attempts.size === 2) begun.resolve();
      }),
  );
  await begun.promise;
  for (const make of attempts.values()) make();
  assertEquals((await taken).address, "2001:db8::1");
  assertEquals(closed, ["192.0.2.1"]);
});

Deno.test("happy eyeballs: one that fails makes way for the next at once, and the last failure is told", async () => {
  const tried: string[] = [];
  const taken = connectFirst(
    (found) => (found(["192.0.2.1", "192.0.2.2"]), Promise.resolve()),
    (address) => {
      tried.push(address);
      return Promise.reject<{ close(): void }>(new Error(`${address} refuses`));
    },
  );
  await assertRejects(() => taken, Error, "192.0.2.2 refuses");
  assertEquals(tried, ["192.0.2.1", "192.0.2.2"]);
});
