/**
 * What `connect` reads: configs and invitations, whole and broken, and that no message about them holds a key; the
 * resolver's queries and answers; and what becomes of resolv.conf.
 */
import {
  assert,
  assertEquals,
  assertMatch,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import fc from "fast-check";
import { CommandError } from "../../src/process/help.ts";
import { readInvitation } from "../../src/connect/options.ts";
import { formatInvitation, type Invitation, parseInvitation } from "../../src/connect/invitation.ts";
import {
  generatePresharedKey,
  generatePrivateKey,
  keyToText,
  publicKeyOf,
} from "../../src/process/keys_text.ts";
import { decodeAnswer, encodeQuery } from "../../src/connect/resolve.ts";
import { originalResolvConf, replacedResolvConf } from "../../src/exit/tun/resolv_conf.ts";

const RELAY_KEY = keyToText(publicKeyOf(generatePrivateKey()));

function invitation(): Invitation {
  return {
    privateKey: keyToText(generatePrivateKey()),
    relayPublicKey: RELAY_KEY,
    presharedKey: keyToText(generatePresharedKey()),
    endpoint: { host: "relay.example.com", port: 4433 },
    addresses: ["10.66.0.2/32", "fd00::2/128"],
    routes: [],
    dns: ["1.1.1.1", "2606:4700:4700::1111"],
    mtu: 1420,
    keepaliveS: 25,
    protocol: "oxtunnel",
  };
}

function config(one: Invitation): string {
  return `[Interface]
PrivateKey = ${one.privateKey}
Address = 10.66.0.2/32, fd00::2/128
DNS = 1.1.1.1, 2606:4700:4700::1111
MTU = 1420

[Peer] # the relay
PublicKey = ${one.relayPublicKey}
PresharedKey = ${one.presharedKey}
Endpoint = relay.example.com:4433
AllowedIPs = 0.0.0.0/0, ::/0
PersistentKeepalive = 25
`;
}

Deno.test("connect: config and invitation say the same", () => {
  for (let i = 0; i < 50; i++) {
    const one = invitation();
    assertEquals(parseInvitation(config(one), "x"), { ...one, protocol: "wireguard" });
    const line = formatInvitation(one);
    assertMatch(line, /^oxrelay:\/\/relay\.example\.com:4433\?[\w.,:/=&-]+$/);
    assertEquals(parseInvitation(line, "x"), one);
    assertEquals(parseInvitation(`\n  ${line}&later=feature \r\n`, "x"), one);
  }
  const six = {
    ...invitation(),
    endpoint: { host: "2001:db8::1", port: 1 },
    presharedKey: undefined,
    dns: [],
  };
  assertEquals(parseInvitation(formatInvitation(six), "x"), six);
  const some = { ...six, routes: ["203.0.113.0/24", "2001:db8::/32"] };
  assertEquals(parseInvitation(formatInvitation(some), "x"), some);
  const fallback = { host: "relay.example.com", port: 443 };
  for (const one of [{ ...six, fallback }, { ...six, fallback: { ...fallback, pin: "5a".repeat(32) } }]) {
    assertEquals(parseInvitation(formatInvitation(one), "x"), one);
  }
  const several = {
    ...six,
    otherEndpoints: [{ host: "ams.example.com", port: 4433 }, { host: "2001:db8::2", port: 2 }],
  };
  const long = formatInvitation(several);
  assertEquals(parseInvitation(long, "x"), several);
  assertStringIncludes(long, "&also=ams.example.com:4433,[2001:db8::2]:2&");
  const many = long.replace("also=", `also=${"a:1,".repeat(20)}`);
  assertEquals(parseInvitation(many, "x").otherEndpoints!.length, 15);
  const split = config(invitation()).replace(/AllowedIPs.*/, "AllowedIPs = 192.0.2.7/24, 198.51.100.1");
  assertEquals(parseInvitation(split, "x").routes, ["192.0.2.0/24", "198.51.100.1/32"]);
  const little =
    `[Interface]\nPrivateKey=${six.privateKey}\nAddress=10.0.0.2\n[Peer]\nPublicKey=${RELAY_KEY}\nEndpoint=r:1`;
  const { addresses, mtu, keepaliveS, dns } = parseInvitation(little, "x");
  assertEquals([addresses, mtu, keepaliveS, dns], [["10.0.0.2/32"], 1420, 25, []]);
});

Deno.test("connect: routes are what AllowedIPs says, for each family, and none within another", () => {
  const routes = (allowed: string) =>
    parseInvitation(config(invitation()).replace(/AllowedIPs.*/, `AllowedIPs = ${allowed}`), "x").routes;
  assertEquals(routes("::/0"), ["::/0"]);
  assertEquals(routes("0.0.0.0/0"), ["0.0.0.0/0"]);
  assertEquals(routes("::/0, 10.0.0.0/8"), ["::/0", "10.0.0.0/8"]);
  assertEquals(routes("0.0.0.0/0, ::/0, 10.0.0.0/8"), []);
  assertEquals(routes("10.1.0.0/16, 10.0.0.0/8, 10.1.2.3, fd00::/8, ::ffff:10.9.0.0/112"), [
    "10.0.0.0/8",
    "fd00::/8",
  ]);
  for (const allowed of ["::/0", "10.0.0.0/8, fd00::/8"]) {
    const line = formatInvitation(parseInvitation(
      config(invitation()).replace(/AllowedIPs.*/, `AllowedIPs = ${allowed}`),
      "x",
    ));
    assertEquals(parseInvitation(line, "x").routes, routes(allowed));
  }
});

Deno.test("connect: search domains, several addresses, and names with underscores and a trailing dot", () => {
  const one = invitation();
  const text = config(one)
    .replace(/DNS = .*/, "DNS = 1.1.1.1, corp.example, ::ffff:9.9.9.9, lan")
    .replace("fd00::2/128", "10.66.0.3/24, fd00::2/128")
    .replace("relay.example.com:4433", "my_relay.example.:4433");
  const read = parseInvitation(text, "x");
  assertEquals([read.dns, read.search], [["1.1.1.1", "9.9.9.9"], ["corp.example", "lan"]]);
  assertEquals(read.addresses, ["10.66.0.2/32", "10.66.0.3/24", "fd00::2/128"]);
  assertEquals(read.endpoint, { host: "my_relay.example.", port: 4433 });
  const again = parseInvitation(formatInvitation(read), "x");
  assertEquals(again, { ...read, protocol: "oxtunnel" });
  // A certificate names its host without the dot.
  const line = `${formatInvitation(one)}&fallback=relay.example.:443`;
  assertEquals(parseInvitation(line, "x").fallback, { host: "relay.example", port: 443 });
});

Deno.test("connect: each key that is not carried out is named, with its line and the reason, once", () => {
  const one = invitation();
  assertEquals(parseInvitation(config(one), "x").unused, undefined);
  const more = "PostUp = iptables -A x\nPostUp = iptables -A y\nTable = off\nFwMark = 0x1\nListenPort = 5\n" +
    "Jc = 4\nJmin = 40\nS1 = 60\nH1 = 5\nI1 = <b 0x>\nSaveConfig = true\nAdress = 1\n";
  const text = config(one).replace("MTU", `${more}MTU`).replace("Keepalive = 25", "Keepalive = 25\nX = 1");
  const { unused, mtu } = parseInvitation(text, "a.conf");
  assertEquals(mtu, 1420);
  const names = unused!.map((line) => /^a\.conf: line \d+: (\w+) is /.exec(line)?.[1]);
  assertEquals(names, [
    "PostUp",
    "Table",
    "FwMark",
    "ListenPort",
    "Jc",
    "Jmin",
    "S1",
    "H1",
    "I1",
    "SaveConfig",
    "Adress",
    "X",
  ]);
  assertStringIncludes(unused![0], "line 5: PostUp is not carried out: connect runs no commands");
  assertStringIncludes(unused![4], "AmneziaWG");
  assertStringIncludes(unused![10], "did you mean Address?");
});

Deno.test("connect: a megabyte of config is read whole, from a file too, and more is refused", async () => {
  const routes = Array.from(
    { length: 60_000 },
    (_, i) => `10.${i >> 8 & 255}.${i & 255}.${(i >> 16) * 2}/32`,
  );
  const text = config(invitation()).replace(/AllowedIPs.*/, `AllowedIPs = ${routes.join(", ")}`);
  const whole = `${text}# ${"x".repeat((1 << 20) - text.length - 2)}`;
  assertEquals(whole.length, 1 << 20);
  assertEquals(parseInvitation(whole, "x").routes.length, 60_000);
  const file = await Deno.makeTempFile();
  try {
    await Deno.writeTextFile(file, whole);
    const read = await readInvitation(undefined, file, [], undefined);
    assertEquals(read.invitation.routes.length, 60_000);
    await Deno.writeTextFile(file, `${whole}x`);
    await assertRejects(() => readInvitation(undefined, file, [], undefined), CommandError, "longer than");
  } finally {
    await Deno.remove(file);
  }
});

Deno.test("connect: the example is a config", async () => {
  const text = await Deno.readTextFile(new URL("../../oxrelay-connect.example.conf", import.meta.url));
  assertThrows(() => parseInvitation(text, "x"), CommandError, "PrivateKey: is all zero");
  const own = text.replace(/(?<=^PrivateKey = ).*/m, invitation().privateKey)
    .replace(/(?<=^PublicKey = ).*/m, invitation().relayPublicKey);
  assertEquals(parseInvitation(own, "x").addresses, ["10.66.0.2/32", "fd00:66::2/128"]);
});

Deno.test("connect: what is wrong is named with its remedy, and no message holds a key", () => {
  const one = invitation();
  const whole = config(one), line = formatInvitation(one);
  const cut = one.privateKey.slice(0, 40);
  const wrong: [text: string, says: string][] = [
    ["", "PrivateKey: is missing"],
    ["hello", "line 1 is neither"],
    [whole.replace(one.privateKey, cut), "PrivateKey: is not a whole key"],
    [whole.replace(one.presharedKey!, cut), "PresharedKey: is not a whole key"],
    [whole.replace(/PublicKey.*/, ""), "PublicKey: is missing"],
    [whole.replace("com:4433", "com"), 'Endpoint: expected "host:port"'],
    [whole.replace(":4433", ":70000"), "Endpoint: expected"],
    [whole.replace("10.66.0.2/32", "10.66.0/32"), 'Address: "10.66.0/32" is no address'],
    [whole.replace("10.66.0.2/32", "10.66.0.2,".repeat(17)), "Address: more than 16 addresses"],
    [whole.replace("1.1.1.1", "1.1.1"), 'DNS: "1.1.1" is neither'],
    [whole.replace("1.1.1.1", "a b"), 'DNS: "a b" is neither'],
    [whole.replace("::/0", "::ffff:10.0.0.0/64"), "AllowedIPs: "],
    [whole.replace("::/0", "::/200"), 'AllowedIPs: "::/200" is no prefix'],
    [whole.replace("1420", "99999"), 'MTU: expected 576 to 1900, found "99999"'],
    [`${whole}[Peer]\nPublicKey = ${RELAY_KEY}\n`, "a second [Peer]"],
    [line.replace(/\?.*/, ""), "cut off"],
    [line.replace(/key=.{10}/, "key="), "key: is not a whole key"],
    [`${line}?${line}`, "cut off or doubled"],
    [`${line}&also=a:1,b`, 'also: expected "host:port"'],
    [`${line}&fallback=relay`, 'fallback: expected "host:port"'],
    [`${line}&fallback=relay:443&pin=${"5a".repeat(31)}`, "pin: is not a whole SHA-256"],
    [whole.replace("1.1.1.1", one.privateKey), "DNS: "],
    [whole.replace("relay.example.com:4433", one.presharedKey!), "Endpoint: expected"],
    [whole.replace("10.66.0.2/32", one.privateKey), "Address: "],
    [`# ${"x".repeat(1 << 20)}`, "longer than 1048576 bytes"],
  ];
  for (const [text, says] of wrong) {
    const { message } = assertThrows(() => parseInvitation(text, "laptop.conf"), CommandError);
    assertStringIncludes(message, says);
    assertStringIncludes(message, "laptop.conf: ");
    for (const key of [one.privateKey, one.presharedKey!]) {
      assert(!message.includes(key.slice(0, 8)), `a key is in: ${message}`);
    }
  }
});

Deno.test("connect: no text breaks the reading of an invitation", () => {
  const { presharedKey: _, ...one } = invitation();
  const line = formatInvitation(one);
  fc.assert(fc.property(fc.nat(line.length), fc.nat(line.length), fc.string(), (from, to, middle) => {
    const text = line.slice(0, from) + middle + line.slice(to);
    try {
      parseInvitation(text, "x");
    } catch (error) {
      assert(error instanceof CommandError, String(error));
    }
  }));
});

const A = 1, AAAA = 28;

/** An answer to the query with these records: type and data. */
function answer(
  query: Uint8Array,
  records: [type: number, data: number[]][],
  code = 0,
): Uint8Array<ArrayBuffer> {
  const bytes = Uint8Array.of(
    ...query,
    ...records.flatMap(([type, data]) => [0xc0, 12, 0, type, 0, 1, 0, 0, 0, 60, 0, data.length, ...data]),
  );
  bytes.set([0x81, 0x80 | code, 0, 1, 0, records.length], 2);
  return bytes;
}

Deno.test("connect: the resolver's answer counts only for the question that was asked", () => {
  const query = encodeQuery(0x1234, "Game.example", A)!;
  assertEquals(query.length, 12 + 14 + 4);
  const address = [192, 0, 2, 7];
  assertEquals(decodeAnswer(answer(query, [[5, [0]], [A, address]]), query, A), ["192.0.2.7"]);
  const lower = answer(query, [[A, address]]).map((byte) => byte === 0x47 ? 0x67 : byte);
  assertEquals(decodeAnswer(lower, query, A), ["192.0.2.7"]);
  const six = encodeQuery(1, "a.example", AAAA)!;
  assertEquals(decodeAnswer(answer(six, [[AAAA, [...new Uint8Array(15), 9]]]), six, AAAA), [
    "0:0:0:0:0:0:0:9",
  ]);
  assertEquals(decodeAnswer(answer(query, [], 3), query, A), []);
  assertEquals(decodeAnswer(answer(query, [], 2), query, A), undefined);
  const otherId = answer(query, [[A, address]]);
  otherId[0]++;
  const otherName = answer(encodeQuery(0x1234, "gane.example", A)!, [[A, address]]);
  for (const data of [otherId, otherName, query, query.subarray(0, 11), new Uint8Array()]) {
    assertEquals(decodeAnswer(data, query, A), "other");
  }
  for (const name of ["", "a..b", "a b", "x".repeat(64), `${"abc.".repeat(70)}de`]) {
    assertEquals(encodeQuery(1, name, A), undefined, name);
  }
});

Deno.test("connect: no answer makes the resolver read beyond its end", () => {
  const query = encodeQuery(7, "a.example", A)!;
  const whole = answer(query, [[5, [1, 97, 0]], [A, [192, 0, 2, 7]]]);
  fc.assert(fc.property(fc.uint8Array({ maxLength: 80 }), fc.nat(whole.length), (noise, cut) => {
    const data = new Uint8Array([...whole.subarray(0, cut), ...noise]);
    const result = decodeAnswer(data, query, A);
    assert(
      result === undefined || result === "other" || result.every((text) => /^\d+(\.\d+){3}$/.test(text)),
    );
  }));
});

Deno.test("connect: resolv.conf holds its old text, and gives it back", () => {
  for (const before of ["nameserver 192.0.2.1\n", "", "# a\n\noptions edns0\nnameserver 192.0.2.1\n"]) {
    const now = replacedResolvConf(before, ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]);
    assertEquals(
      now.match(/^nameserver .*/gm),
      ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map((one) => `nameserver ${one}`),
    );
    assert(now.length > before.length, "so that one write replaces it whole");
    assertEquals(originalResolvConf(now)?.trimEnd(), before.trimEnd());
    assertEquals(originalResolvConf(before), undefined);
  }
});
