/** Port forwards: their text, what a peer's record may hold of them, and the store's edit of a record. */
import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { CommandError } from "../../src/process/help.ts";
import { generatePrivateKey, keyToText, publicKeyOf } from "../../src/process/keys_text.ts";
import { recordMistake } from "../../src/serve/peers_file.ts";
import { PeerStore } from "../../src/serve/store.ts";
import { formatForward, forwardsInConflict, parseForward } from "../../src/process/forward_text.ts";

const record = (forwards: unknown) => ({
  name: "console",
  publicKey: keyToText(publicKeyOf(generatePrivateKey())),
  allowedIps: ["10.66.0.2/32"],
  created: "2026-01-01T00:00:00.000Z",
  forwards,
});

Deno.test("forwards: a text is read into ports, and has one normal form", () => {
  const range = { protocol: "tcp", low: 8000, high: 8010, inner: 9000 } as const;
  assertEquals(parseForward("tcp:8000-8010:9000"), range);
  assertEquals(formatForward(range), "tcp:8000-8010:9000");
  assertEquals(parseForward("udp:27015"), { protocol: "udp", low: 27015, high: 27015, inner: 27015 });
  for (
    const [text, normal] of [["udp:007:007", "udp:7"], ["udp:5-5", "udp:5"], ["tcp:65535:1", "tcp:65535:1"]]
  ) {
    assertEquals(formatForward(parseForward(text)!), normal);
  }
  for (
    const wrong of [
      "udp",
      "udp:0",
      "udp:65536",
      "udp:9-8",
      "sctp:1",
      "udp:1:0",
      "udp:1-2:65535",
      "udp: 1",
      "tcp:1-",
    ]
  ) {
    assertEquals(parseForward(wrong), undefined, wrong);
  }
});

Deno.test("forwards: a record's list is bounded, names no port twice, and is brought into its normal form", () => {
  const good = record(["udp:01000-1255"]);
  assertEquals(recordMistake(good), undefined);
  assertEquals(good.forwards, ["udp:1000-1255"]);
  for (
    const [forwards, place, message] of [
      ["udp:1", "forwards", /list/],
      [[], "forwards", /list/],
      [[7], "forwards.0", /not like "udp:27015"/],
      [["udp:1-4", "tcp:4", "udp:4:9"], "forwards.2", /have already/],
      [["udp:1-4:11", "tcp:9:12", "udp:9:12"], "forwards.2", /leads to already/],
      [["udp:1000-1255", "tcp:1"], "forwards", /257 ports together/],
    ] as const
  ) {
    const mistake = recordMistake(record(forwards));
    assertEquals(mistake?.place, place);
    assertMatch(mistake!.message, message);
  }
});

Deno.test("forwards: two peers cannot have one port, nor all peers too many", () => {
  const peers = [{ name: "a", forwards: ["udp:5-9"] }, { name: "b", forwards: ["tcp:7", "udp:9:1"] }];
  assertEquals(forwardsInConflict(peers), 'udp:9:1 of peer "b" meets udp:5-9 of peer "a"');
  assertEquals(forwardsInConflict([peers[0], { name: "b", forwards: ["tcp:7"] }, { name: "c" }]), undefined);
  const many = Array.from(
    { length: 17 },
    (_, i) => ({ name: `${i}`, forwards: [`udp:${256 * i + 1}-${256 * i + 256}`] }),
  );
  assertMatch(forwardsInConflict(many)!, /4352 ports together/);
});

Deno.test("store: an edit of a peer is checked as a whole, and nothing changes when it is refused", async () => {
  const stateDir = await Deno.makeTempDir({ prefix: "oxrelay-store-" });
  try {
    const open = () => new PeerStore({ stateDir, tunnelIpv4: "10.66.0.0/16" });
    for (const name of ["a", "b"]) {
      const { publicKey, created } = record([]);
      await open().add({ name, publicKey, created });
    }
    const edit = (name: string, forwards: string[]) => open().edit(name, (peer) => ({ ...peer, forwards }));
    assertEquals((await edit("a", ["udp:0007"])).forwards, ["udp:7"]);
    assertMatch(
      (await assertRejects(() => edit("b", ["udp:7"]), CommandError)).message,
      /of peer "b" meets udp:7/,
    );
    assertMatch(
      (await assertRejects(() => edit("b", ["udp:0"]), CommandError)).message,
      /peer "b": forwards.0/,
    );
    assertMatch(
      (await assertRejects(() => edit("c", ["udp:8"]), CommandError)).message,
      /there is no peer "c"/,
    );
    assertEquals((await open().load()).map(({ forwards }) => forwards), [["udp:7"], undefined]);
  } finally {
    await Deno.remove(stateDir, { recursive: true });
  }
});
