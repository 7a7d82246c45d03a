/** The configuration: defaults, every refusal's sentence, the example file, and what a reload may change. */
import { assert, assertEquals, assertMatch, assertNotMatch, assertThrows } from "@std/assert";
import {
  CONFIG_KEYS,
  ConfigError,
  DEFAULTS,
  diffConfig,
  parseConfig,
  parseEndpoint,
  redactConfig,
  RELOADABLE_KEYS,
  reloadedConfig,
} from "../../src/config.ts";

function refusal(text: string, env: Record<string, string> = {}): string {
  return assertThrows(() => parseConfig(text, "oxrelay.toml", env), ConfigError).message;
}

Deno.test("config: an empty file gives the defaults, deep-frozen", () => {
  const config = parseConfig("", "oxrelay.toml", {});
  assertEquals(config, DEFAULTS);
  assert(Object.isFrozen(config) && Object.isFrozen(config.destinations) && Object.isFrozen(config.dns));
  assert(Object.isFrozen(config.destinations.deny));
  assert(Object.isFrozen(config.listen) && Object.isFrozen(config.destinations.allow));
});

/** A file with one mistake, and what is said of it. */
const MISTAKES: [text: string, message: string][] = [
  [`listn = "[::]:1"`, `oxrelay.toml: listn: unknown key; did you mean "listen"?`],
  [`max-connections = 5`, `oxrelay.toml: max-connections: unknown key; did you mean "max_connections"?`],
  [
    `allow_private = true`,
    `oxrelay.toml: allow_private: unknown key here; it belongs below the line [destinations]`,
  ],
  [
    `[destinations]\nmtu = 1400`,
    `oxrelay.toml: destinations.mtu: unknown key here; it belongs above the line [destinations]`,
  ],
  [
    `[destinations]\nallow_privat = true`,
    `oxrelay.toml: destinations.allow_privat: unknown key; did you mean "allow_private"?`,
  ],
  [
    `[fallback]\nlisten = "0.0.0.0:443"\ncertificate = "a.crt"`,
    `oxrelay.toml: fallback.private_key: is missing; [fallback] needs listen, certificate and private_key, or none of them`,
  ],
  [
    `[fallback]\ncertificat = "a.crt"`,
    `oxrelay.toml: fallback.certificat: unknown key; did you mean "certificate"?`,
  ],
  [
    `certificate = "a.crt"`,
    `oxrelay.toml: certificate: unknown key here; it belongs below the line [fallback]`,
  ],
  [
    `fallback = 1`,
    `oxrelay.toml: line 1: fallback: expected a table: put [fallback] on a line of its own, found 1`,
  ],
  [`mtu = "big"`, `oxrelay.toml: mtu: expected a whole number from 576 to 1500, found "big"`],
  [`mtu = 1420.5`, `oxrelay.toml: mtu: expected a whole number from 576 to 1500, found 1420.5`],
  [`mtu = 1501`, `oxrelay.toml: mtu: expected a whole number from 576 to 1500, found 1501`],
  [
    `mtu = 1279`,
    `oxrelay.toml: mtu: expected at least 1280 with IPv6 in the tunnel, found 1279; ` +
    `set mtu = 1280 or tunnel_ipv6 = "off"`,
  ],
  [
    `max_connections = 0`,
    `oxrelay.toml: max_connections: expected a whole number from 1 to 250000, found 0`,
  ],
  [
    `max_connections = inf`,
    `oxrelay.toml: max_connections: expected a whole number from 1 to 250000, found Infinity`,
  ],
  [`kernels = "c"`, `oxrelay.toml: kernels: expected "auto" or "portable" or "native", found "c"`],
  [`exit = "vpn"`, `oxrelay.toml: exit: expected "auto" or "tun" or "userspace", found "vpn"`],
  [
    `listen = 4433`,
    `oxrelay.toml: listen: expected "host:port" such as "[::]:4433", found 4433`,
  ],
  [
    `listen = ":::4433"`,
    `oxrelay.toml: listen: expected "host:port" such as "[::]:4433", found ":::4433"`,
  ],
  [
    `tunnel_ipv4 = "10.66.0.1/16"`,
    `oxrelay.toml: tunnel_ipv4: expected a network without host bits, found "10.66.0.1/16"; ` +
    `did you mean "10.66.0.0/16"?`,
  ],
  [
    `tunnel_ipv4 = "8.8.8.0/24"`,
    `oxrelay.toml: tunnel_ipv4: expected a private network (RFC 1918) of /8 to /29 such as ` +
    `"10.66.0.0/16", found "8.8.8.0/24"`,
  ],
  [
    `dns = ["1.1.1.1", "one"]`,
    `oxrelay.toml: dns.1: expected an IP address such as "1.1.1.1", found "one"`,
  ],
  [
    `dns = "1.1.1.1"`,
    `oxrelay.toml: dns: expected a list of addresses such as ["1.1.1.1"], found "1.1.1.1"`,
  ],
  [
    `trusted = ["0.0.0.0/0"]`,
    `oxrelay.toml: trusted.0: expected a network of /8 or smaller such as "127.0.0.0/8", found "0.0.0.0/0"`,
  ],
  [
    `trusted = "127.0.0.0/8"`,
    `oxrelay.toml: trusted: expected a list of networks such as ["127.0.0.0/8"], found "127.0.0.0/8"`,
  ],
  [
    `workers = 17`,
    `oxrelay.toml: workers: expected a whole number from 1 to 16, found 17`,
  ],
  [
    `workers = 2\nio = "portable"`,
    `oxrelay.toml: workers: expected 1 with portable io, found 2; set workers = 1 or io = "auto"`,
  ],
  [
    `[repair]\nscheme = "best"`,
    `oxrelay.toml: repair.scheme: expected "auto" or "copy" or "spaced" or "window" or "block", found "best"`,
  ],
  [
    `[repair]\nbudget_percent = 20\nshare_percent = 21`,
    `oxrelay.toml: repair.share_percent: expected at most budget_percent (20), found 21; raise budget_percent or lower it`,
  ],
  [
    `cpus = [1, 1024]`,
    `oxrelay.toml: cpus.1: expected a whole number from 0 to 1023, found 1024`,
  ],
  [
    `cpus = "0-3"`,
    `oxrelay.toml: cpus: expected a list of processor numbers such as [0, 1], found "0-3"`,
  ],
  [
    `workers = 2\ncpus = [1, 1]`,
    `oxrelay.toml: cpus: expected each processor once, found a list`,
  ],
  [
    `workers = 2\ncpus = [1]`,
    `oxrelay.toml: cpus: expected one processor for each of 2 workers, found 1; name 2, or set cpus = []`,
  ],
  [
    `destinations = true`,
    `oxrelay.toml: line 1: destinations: expected a table: put [destinations] on a line of its own, found true`,
  ],
  [
    `mtu = 1400\n# more\n[[destinations]]\nallow_peers = true`,
    `oxrelay.toml: line 3: destinations: expected a table: put [destinations] on a line of its own, found a list`,
  ],
  [
    `mtu = 1400\nrepair = "off"`,
    `oxrelay.toml: line 2: repair: expected a table: put [repair] on a line of its own, found "off"`,
  ],
  [
    `mtu = 1400\ndns = []\nmtu = 1300`,
    `oxrelay.toml: line 3: a key or section that stands above already; keep one of the two`,
  ],
  [
    `[repair]\nenabled = true\n[repair]\nenabled = false`,
    `oxrelay.toml: line 3: a key or section that stands above already; keep one of the two`,
  ],
  [
    `[repair]\nenabled = true\nenabled = false`,
    `oxrelay.toml: line 3: a key or section that stands above already; keep one of the two`,
  ],
  [
    `destinations.allow_peers = true\n[destinations]\nallow_private = true`,
    `oxrelay.toml: line 2: a key or section that stands above already; keep one of the two`,
  ],
  [
    `exit = "tun"\nmtu = 1400 workers = 2`,
    `oxrelay.toml: line 2: more than one pair; each needs a line of its own`,
  ],
  [
    `[destinations]\nallow = ["192.168.1.7/24"]`,
    `oxrelay.toml: destinations.allow.0: expected a network without host bits, found "192.168.1.7/24"; ` +
    `did you mean "192.168.1.0/24"?`,
  ],
  [
    `[destinations]\nallow_peers = 1`,
    `oxrelay.toml: destinations.allow_peers: expected true or false, found 1`,
  ],
  [
    `tun_name = "all"`,
    `oxrelay.toml: tun_name: expected a letter and up to 14 more of a-z, 0-9, _ and -, not all, default or lo, ` +
    `found "all"`,
  ],
  [
    `[destinations]\nallow = ["fd00:0::/64", "10.0.0.0/8", "FD00::/64"]`,
    `oxrelay.toml: destinations.allow: expected each network once, found "fd00::/64" twice`,
  ],
  [
    `log_level = 1979-05-27`,
    `oxrelay.toml: log_level: expected "debug" or "info" or "warning" or "error", found a date`,
  ],
  [
    `mtu = 1400\nworkers =`,
    `oxrelay.toml: line 2: not valid TOML; expected lines like mtu = 1420 or listen = "[::]:4433", each key once`,
  ],
];

Deno.test("config: each mistake has its sentence", () => {
  for (const [text, message] of MISTAKES) assertEquals(refusal(text), message);
});

Deno.test("config: all mistakes are told at once, and inherited names are no keys", () => {
  assertEquals(refusal(`listn = 1\nmtu = 1`).split("\n").length, 2);
  const proto = [
    "__proto__",
    '"__proto__"',
    "'__proto__'",
    '"__pr\\u006fto__"',
    '"\\U0000005f_proto_\\x5f"',
    "a.__proto__",
  ];
  for (const key of ["constructor", "toString", "hasOwnProperty", ...proto]) {
    assertMatch(refusal(`${key} = 1`), /unknown key/);
    assertMatch(refusal(`[destinations]\n${key} = 1`), /unknown key/);
    assertMatch(refusal(`destinations = { ${key} = {} }`), /unknown key/);
  }
});

Deno.test("config: loopback is opened by its one normal text, however it is written", () => {
  const openings: [text: string, allow: string][] = [
    ["127.0.0.1/32", "127.0.0.1/32"],
    ["64.0.0.0/2", "64.0.0.0/2"],
    ["::1/128", "::1/128"],
    ["::ffff:127.0.0.0/104", "127.0.0.0/8"],
    ["::ffff:7f00:1/128", "127.0.0.1/32"],
  ];
  for (const [text, allow] of openings) {
    assertEquals(parseConfig(`[destinations]\nallow = ["${text}"]`, "f", {}).destinations.allow, [allow]);
  }
  assertEquals(
    parseConfig("[destinations]\nallow_loopback = true", "f", {}).destinations.allowLoopback,
    true,
  );
});

Deno.test("config: what is never routable cannot be opened, and device names are Linux's to give", () => {
  const never = [
    "0.0.0.0/0",
    "0.1.0.0/16",
    "192.0.0.0/2",
    "239.1.1.1/32",
    "255.255.255.255/32",
    "::/0",
    "::/128",
    "ff02::/16",
    "::ffff:224.0.0.0/100",
    "::ffff:0:0/96",
    "0:0:0:0:0:ffff:e000:0/120",
  ];
  for (const entry of never) {
    assertMatch(refusal(`[destinations]\nallow = ["${entry}"]`), /allow\.0: expected a network such as/);
  }
  for (const name of ["", "0x", "-a", "_a", "A", "default", "lo", "a".repeat(16)]) {
    assertMatch(refusal(`tun_name = "${name}"`), /tun_name: expected a letter/);
  }
  for (const name of ["a", "lo0", "a".repeat(15)]) parseConfig(`tun_name = "${name}"`, "f", {});
});

Deno.test("config: a prefix has one text, and the relay is its host 1", () => {
  const config = parseConfig(
    `tunnel_ipv6 = "FD12:3456:789a:0:0:0:0:0/64"\n[destinations]\nallow = ["fd00:0:0::/48"]`,
    "f",
    {},
  );
  assertEquals([config.tunnelIpv6, ...config.destinations.allow], ["fd12:3456:789a::/64", "fd00::/48"]);
});

Deno.test("config: an IPv4 address in IPv6's clothes is judged, and kept, as what it is", () => {
  assertEquals(
    refusal(`trusted = ["::ffff:0:0/96"]`),
    `oxrelay.toml: trusted.0: expected a network of /8 or smaller such as "127.0.0.0/8", found "::ffff:0:0/96"`,
  );
  for (const entry of ["::ffff:0:0/95", "::ffff:10.0.0.0/64", "::ffff:10.0.0.1"]) {
    assertMatch(refusal(`trusted = ["${entry}"]`), /trusted\.0: expected a network/);
  }
  const config = parseConfig(
    `trusted = ["::ffff:10.1.0.0/112"]\ndns = ["::ffff:9.9.9.9", "FD00:0::1"]\n` +
      `[destinations]\nallow = ["::ffff:a00:0/104"]\ndeny = ["::ffff:c0a8:0/112", "2001:DB8::/32"]`,
    "f",
    {},
  );
  assertEquals(config.trusted, ["10.1.0.0/16"]);
  assertEquals(config.dns, ["9.9.9.9", "fd00::1"]);
  assertEquals(config.destinations.allow, ["10.0.0.0/8"]);
  assertEquals(config.destinations.deny, ["192.168.0.0/16", "2001:db8::/32"]);
  assertMatch(
    refusal(`[destinations]\nallow = ["10.0.0.0/8", "::ffff:10.0.0.0/104"]`),
    /found "10\.0\.0\.0\/8" twice/,
  );
});

Deno.test("config: a refused secret is not repeated", () => {
  for (const text of [`admin_token = "hunter2"`, `admin_token = "hunter2 with spaces in it"`]) {
    assertNotMatch(refusal(text), /hunter2/);
  }
  assertNotMatch(refusal(`admin_token = "hunter2`), /hunter2/);
  assertNotMatch(refusal("", { OXRELAY_ADMIN_TOKEN: "hunter2" }), /hunter2/);
});

Deno.test("config: the environment wins where it should", () => {
  const config = parseConfig(`state_dir = "a"\nadmin_token = "0123456789abcdef"`, "f", {
    OXRELAY_STATE_DIR: "/data",
    OXRELAY_ADMIN_TOKEN: "fedcba9876543210",
  });
  assertEquals([config.stateDir, config.adminToken], ["/data", "fedcba9876543210"]);
  assertEquals(parseConfig("", "f", { OXRELAY_STATE_DIR: "", OXRELAY_ADMIN_TOKEN: "" }), DEFAULTS);
});

Deno.test("config: Fly.io changes the defaults and nothing that is written", () => {
  const fly = parseConfig("", "f", { FLY_APP_NAME: "edge" });
  assertEquals(fly.listen, { host: "fly-global-services", port: 4433 });
  assertEquals(fly.metricsListen, { host: "::", port: 9090 });
  assertEquals([fly.mtu, fly.tunnelIpv6], [1240, "off"]);
  const written = parseConfig(`listen = "0.0.0.0:5000"\nmtu = 1280\ntunnel_ipv6 = "auto"`, "f", {
    FLY_APP_NAME: "edge",
  });
  assertEquals([written.listen.port, written.mtu, written.tunnelIpv6], [5000, 1280, "auto"]);
  assertMatch(refusal(`tunnel_ipv6 = "auto"`, { FLY_APP_NAME: "edge" }), /set mtu = 1280/);
});

Deno.test("config: the example documents every key and shows its default", async () => {
  const example = await Deno.readTextFile(new URL("../../oxrelay.example.toml", import.meta.url));
  assertEquals(parseConfig(example, "example", {}), DEFAULTS);
  const assignments = example.replace(/^# (?=\w+ = )/gm, "");
  // These have no default: their example values must parse, and are then taken out.
  const optional =
    /^(public_endpoint|admin_token|share_percent|rate_per_peer_mbit) = .*$|^\[fallback\]$[^]*/gm;
  const shown = parseConfig(assignments, "example", {});
  assert(shown.publicEndpoint !== undefined && shown.adminToken !== undefined);
  assertEquals(shown.fallback?.listen, { host: "0.0.0.0", port: 443 });
  assertEquals(parseConfig(assignments.replace(optional, ""), "example", {}), DEFAULTS);
  const lines = example.split("\n");
  for (const key of CONFIG_KEYS) {
    const at = lines.findIndex((line) => line.startsWith(`# ${key.replace(/^\w+\./, "")} = `));
    assert(at > 0, `oxrelay.example.toml lacks ${key}`);
    assertMatch(lines[at - 1], /^# .{10,}[.)]$/, `oxrelay.example.toml: ${key} has no sentence`);
  }
  assertEquals(assignments.match(/^\w+ = /gm)?.length, CONFIG_KEYS.length);
});

Deno.test("config: a reload takes over every key that it may, what is gone from the file too, and no other", () => {
  const before = parseConfig(`admin_token = "0123456789abcdef"\nmax_connections = 9\nmtu = 1300`, "f", {});
  const after = parseConfig(
    `log_level = "debug"\nrate_limit_per_ip = 7\nmax_connections = 5\ndns = ["192.0.2.1"]\nmtu = 1350\n` +
      `public_endpoint = "a.example:1"\nenable_compression = false\ncompression_threshold = 333\nworkers = 3\ndevices_in_metrics = 3\n` +
      `[destinations]\nallow_private = true\n[classes]\napplications_in_metrics = true\n` +
      `[rollout_percent]\nscheduler = 50\n`,
    "f",
    {},
  );
  const reloaded = reloadedConfig(before, after);
  const { reloadable, needsRestart } = diffConfig(before, after);
  assertEquals(reloadable.toSorted(), RELOADABLE_KEYS.toSorted(), "each key differs here");
  assertEquals(diffConfig(reloaded, after), { reloadable: [], needsRestart });
  assertEquals([reloaded.mtu, reloaded.workers], [1300, before.workers]);
});

Deno.test("config: a difference is sorted into reload and restart", () => {
  const next = parseConfig(
    `listen = "[::]:5000"\nmtu = 1400\nlog_level = "debug"\ndns = []\npublic_endpoint = "a.example:1"\n` +
      `admin_token = "0123456789abcdef"\nenable_compression = false\ncompression_threshold = 100\n` +
      `[destinations]\nallow_peers = true`,
    "f",
    {},
  );
  const diff = diffConfig(DEFAULTS, next);
  assertEquals(diff.needsRestart, ["listen", "mtu"]);
  assertEquals(diff.reloadable.toSorted(), [
    "admin_token",
    "compression_threshold",
    "destinations",
    "dns",
    "enable_compression",
    "log_level",
    "public_endpoint",
  ]);
  assertEquals(diffConfig(next, next), { reloadable: [], needsRestart: [] });
});

Deno.test("config: what is shown has TOML's keys and no secret", () => {
  const config = parseConfig(`admin_token = "0123456789abcdef"\n[destinations]\nallow_peers = true`, "f", {});
  const shown = redactConfig(config);
  assertEquals(shown.admin_token, "(set)");
  assertEquals(shown.listen, "[::]:4433");
  assertEquals((shown.destinations as Record<string, unknown>).allow_peers, true);
  assertNotMatch(JSON.stringify(shown), /0123456789abcdef/);
});

Deno.test("config: endpoints, names with underscores and a trailing dot among them", () => {
  const names = ["a", "fly-global-services", "xn--a.example", "1a.2b", "10.0.0.255", "a".repeat(63)];
  for (const host of [...names, "my_relay.example", "relay.example.", "_a._b"]) {
    assertEquals(parseEndpoint(`${host}:1`), { host, port: 1 });
  }
  assertEquals(parseEndpoint("[fd00::1]:65535"), { host: "fd00::1", port: 65535 });
  assertEquals(parseEndpoint("[FD00:0::1]:1"), { host: "fd00::1", port: 1 });
  assertEquals(parseEndpoint("[::ffff:10.0.0.1]:1"), { host: "10.0.0.1", port: 1 });
  for (
    const text of [
      "a",
      "a:0",
      "a:65536",
      "[::]",
      "::1:80",
      "[1.2.3.4]:1",
      "10.0.0.256:1",
      "a b:1",
      "a:1\n",
      ".:1",
      "a..b:1",
      "-a:1",
      "a-.b:1",
      "a.b..:1",
      "a.1:1",
      "10.0.0.1.:1",
      `${"a".repeat(64)}:1`,
    ]
  ) {
    assertEquals(parseEndpoint(text), undefined, text);
  }
  assertEquals(parseEndpoint(`${"a.".repeat(127)}aa:1`), undefined);
});
