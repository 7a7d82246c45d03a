/**
 * The list of relays that `connect` may use: when they are probed, who is used then, and where packets may go.
 */
import { assertEquals, assertRejects } from "@std/assert";
import { CommandError } from "../../src/process/help.ts";
import { Servers } from "../../src/connect/servers.ts";

const PORT = 4433;
const at = (...hosts: string[]) => hosts.map((host) => ({ host, port: PORT }));

/** Longer than a label may be (RFC 1035 section 2.3.4), so that no resolver is asked. */
const NOBODY = `${"x".repeat(64)}.test`;

/** The servers, with round trips that the test may change, and how many probes there were. */
async function servers(rtts: Record<string, number | undefined>) {
  const probed: string[] = [];
  const list = await Servers.resolve(at(...Object.keys(rtts)), (address, port) => {
    probed.push(`${address} ${port}`);
    return Promise.resolve(rtts[address]);
  });
  return { list, probed, rtts };
}

Deno.test("servers: one alone is never probed", async () => {
  const { list, probed } = await servers({ "192.0.2.1": 10 });
  for (const nowMs of [0, 1e6, 2e6]) assertEquals(await list.round(true, nowMs), false);
  assertEquals([probed, list.statuses, list.address], [[], [], "192.0.2.1"]);
  assertEquals(list.outer, [{ address: "192.0.2.1", port: PORT }]);
});

Deno.test("servers: the nearest is used, a dead one is left, and rounds have their pauses", async () => {
  const { list, probed, rtts } = await servers({ "192.0.2.1": 30, "192.0.2.2": 10, "2001:db8::3": 20 });
  assertEquals(await list.round(false, 0), true);
  assertEquals(list.address, "192.0.2.2");
  assertEquals([list.addressOf("192.0.2.1"), list.addressOf("192.0.2.7")], ["192.0.2.1", undefined]);
  assertEquals(list.outer.map(({ address }) => address), ["192.0.2.2", "192.0.2.1", "2001:db8::3"]);
  assertEquals(list.statuses.at(-1), { server: "[2001:db8::3]:4433", rttMs: 20 });
  assertEquals(probed, ["192.0.2.1 4433", "192.0.2.2 4433", "2001:db8::3 4433"]);
  await list.round(false, 59_000);
  assertEquals(probed.length, 3, "once a minute while all is well");
  rtts["192.0.2.2"] = undefined;
  await list.round(true, 1900);
  assertEquals(probed.length, 3, "once in two seconds while it is not");
  assertEquals(await list.round(true, 2000), true);
  assertEquals([list.address, probed.length], ["2001:db8::3", 6]);
  const both = [list.round(true, 10_000), list.round(true, 20_000)];
  assertEquals(await Promise.all(both), [false, false]);
  assertEquals(probed.length, 9, "one round at a time");
});

Deno.test("servers: two names of one place are one place for the rules", async () => {
  const list = await Servers.resolve(at("192.0.2.1", "192.0.2.2", "192.0.2.1"), () => Promise.resolve(5));
  assertEquals(list.outer.map(({ address }) => address), ["192.0.2.1", "192.0.2.2"]);
});

Deno.test("servers: names that cannot be resolved matter only when all are such", async () => {
  const probe = () => Promise.resolve(5);
  const list = await Servers.resolve(at(NOBODY, "192.0.2.9"), probe);
  assertEquals(list.address, "192.0.2.9");
  await assertRejects(
    () => Servers.resolve(at(NOBODY), probe),
    CommandError,
    "cannot be resolved",
  );
});

Deno.test("servers: every address of a name is tried in the resolver's order, and a moved relay at its new one", async () => {
  let answer = ["2001:db8::1", "192.0.2.1", "192.0.2.2"];
  const resolve = () => answer.length > 0 ? Promise.resolve(answer) : Promise.reject(new Error("no network"));
  const list = await Servers.resolve(at("relay.test"), () => Promise.resolve(5), resolve);
  const tried = [list.address];
  for (let i = 0; i < 4; i++) {
    assertEquals(await list.follow(), true);
    tried.push(list.address);
  }
  assertEquals(tried, ["2001:db8::1", "192.0.2.1", "192.0.2.2", "2001:db8::1", "192.0.2.1"]);
  // One that has answered stays in use while it is among them.
  assertEquals([await list.follow(false), list.address], [false, "192.0.2.1"]);
  answer = ["192.0.2.9", "2001:db8::9"];
  assertEquals([await list.follow(false), list.address], [true, "192.0.2.9"]);
  answer = [];
  assertEquals([await list.follow(), list.address], [true, "2001:db8::9"], "the last ones stay");
});

Deno.test("servers: a relay whose probe is not answered is probed at its name's next address", async () => {
  const probed: string[] = [];
  const probe = (address: string) => {
    probed.push(address);
    return Promise.resolve(address === "192.0.2.2" ? 10 : undefined);
  };
  const names: Record<string, string[]> = { a: ["2001:db8::1", "192.0.2.2"], b: ["192.0.2.9"] };
  const list = await Servers.resolve(at("a", "b"), probe, (host) => Promise.resolve(names[host]));
  await list.round(true, 0);
  await list.round(true, 2000);
  assertEquals(probed, ["2001:db8::1", "192.0.2.9", "192.0.2.2", "192.0.2.9"]);
  assertEquals(list.address, "192.0.2.2");
});
