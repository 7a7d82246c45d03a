/**
 * Changes of peers and one-time links on the command line, beside a real relay and without one: what the relay serves, what is stored,
 * and what a person reads. That limits hold on the data path is tested with the limits.
 */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { requires } from "../kit/requires.ts";
import { LoopbackRelay, relayTest } from "./loopback_relay.ts";

const ENDPOINT = ["--endpoint", "192.0.2.1:4433"];

async function row(relay: LoopbackRelay, name: string) {
  return JSON.parse((await relay.ask(`/v1/peers/${name}`)).text);
}

async function done(relay: LoopbackRelay, args: string[]) {
  const result = await relay.run("peer", args);
  assertEquals(result.code, 0, result.stderr);
  return result;
}

relayTest(
  "peer: limits, names and bars that the command line changes are the running relay's at once",
  requires({}),
  {},
  async (relay) => {
    const limits = ["--expires", "2099-12-31", "--volume", "1.5G", "--notes", "for a week"];
    await done(relay, ["add", "phone", ...ENDPOINT, "--rate-up", "9M", ...limits]);
    const added = await row(relay, "phone");
    assertEquals(
      [added.expires, added.monthlyBytes, added.notes, added.rateUpBps],
      ["2099-12-31T00:00:00.000Z", 1.5 * 1024 ** 3, "for a week", 9e6],
    );
    const set = await done(relay, ["set", "phone", "--down", "45M", "--volume", "none", "--expires", "2d"]);
    assertMatch(set.stderr, /volume a month: no limit; rates: 45\.0 Mbit\/s down, 9\.0 Mbit\/s up/);
    assertStringIncludes(set.stderr, "The running relay knows.");
    const changed = await row(relay, "phone");
    assertEquals([changed.monthlyBytes, changed.notes, changed.rateUpBps, changed.rateDownBps], [
      undefined,
      "for a week",
      9e6,
      45e6,
    ]);
    const leftMs = Date.parse(changed.expires) - Date.now();
    assert(leftMs > 47 * 3_600_000 && leftMs <= 48 * 3_600_000, `${changed.expires} is in two days`);

    await done(relay, ["rename", "phone", "old"]);
    assertEquals((await relay.ask("/v1/peers/phone")).status, 404);
    const disabled = await done(relay, ["disable", "old"]);
    assertStringIncludes(disabled.stderr, "peer enable old");
    assertEquals((await row(relay, "old")).state, "disabled");
    assertMatch((await done(relay, ["list"])).stdout, /^old +disabled +10\./m);
    const shown = (await done(relay, ["show", "old"])).stdout;
    assertMatch(shown, /^state +kept out: disabled$/m);
    assertMatch(shown, /^this month +0 B$/m);
    assertMatch((await relay.run("status", ["--once"])).stdout, /^kept out: old \(disabled\)$/m);
    await done(relay, ["enable", "old"]);
    assertEquals((await row(relay, "old")).state, "offline");
    await done(relay, ["set", "old", "--expires", "2020-01-01"]);
    assertEquals((await row(relay, "old")).state, "expired");
    assertMatch((await relay.run("status", ["--once"])).stdout, /^kept out: old \(its date has come\)$/m);

    await done(relay, ["add", "desk", ...ENDPOINT]);
    const taken = await relay.run("peer", ["rename", "desk", "old"]);
    assertEquals([taken.code, taken.stderr], [1, 'peer "old" exists; choose another name\n']);
    const nobody = await relay.run("peer", ["disable", "nobody"]);
    assertEquals([nobody.code, nobody.stderr], [1, 'there is no peer "nobody"; see: peer list\n']);
  },
);

Deno.test({
  name: "peer: without a relay changes are stored for its start, and a link is refused",
  ...requires({}),
  async fn() {
    const relay = await LoopbackRelay.without();
    try {
      await done(relay, ["add", "phone", ...ENDPOINT]);
      const set = await done(relay, ["set", "phone", "--volume", "50G", "--name", "handy"]);
      assertStringIncludes(set.stderr, "The relay is not running; it will read this when it starts");
      await done(relay, ["disable", "handy"]);
      const { peers } = JSON.parse(await Deno.readTextFile(`${relay.directory}/state/peers.json`));
      assertEquals([peers[0].name, peers[0].monthlyBytes, peers[0].disabled], [
        "handy",
        50 * 1024 ** 3,
        true,
      ]);
      const refused = await relay.run("peer", ["link", "friend"]);
      assertEquals([refused.code, refused.stdout], [1, ""]);
      assertStringIncludes(refused.stderr, "no relay is running here");
    } finally {
      await Deno.remove(relay.directory, { recursive: true });
    }
  },
});

relayTest(
  "peer: a one-time link gives one device with its limits, and a revoked one none",
  requires({}),
  {},
  async (relay) => {
    const made = await done(relay, [
      ...["link", "friend", "--page", "https://relay.example.com/ox", "--valid", "2h"],
      ...["--expires", "2099-01-01", "--up", "9M"],
    ]);
    const [, token] = /^https:\/\/relay\.example\.com\/ox\/link#([\w-]{43})\n$/.exec(made.stdout) ?? [];
    assert(token !== undefined, made.stdout);
    assert(!made.stderr.includes(token), "the link is on standard output alone");
    const redeem = (token: string) =>
      relay.ask("/v1/links/redeem", {
        method: "POST",
        token: "",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ token }),
      });
    assertMatch((await done(relay, ["links"])).stdout, /^[0-9a-f]{12} +friend +open +20/m);
    assertEquals((await redeem(token)).status, 201);
    assertEquals((await redeem(token)).status, 404);
    const friend = await row(relay, "friend");
    assertEquals([friend.expires, friend.rateUpBps], ["2099-01-01T00:00:00.000Z", 9e6]);

    const second = await done(relay, ["link", "guest"]);
    assertMatch(second.stdout, new RegExp(`^http://127\\.0\\.0\\.1:${relay.adminPort}/link#`));
    assertStringIncludes(second.stderr, "Only this machine reaches that address");
    const [, id] = /peer unlink ([0-9a-f]{12})/.exec(second.stderr)!;
    await done(relay, ["unlink", id]);
    assertEquals((await redeem(second.stdout.trim().split("#")[1])).status, 404);
    const listed = JSON.parse((await done(relay, ["links", "--json"])).stdout);
    assertEquals(listed.map(({ name, state }: { name: string; state: string }) => [name, state]), [
      ["friend", "used"],
    ]);
    const gone = await relay.run("peer", ["unlink", id]);
    assertEquals([gone.code, gone.stderr], [1, `there is no link ${id}\n`]);
    const words = await relay.run("peer", ["unlink", "guest"]);
    assertStringIncludes(words.stderr, "is no link's number");
  },
);
