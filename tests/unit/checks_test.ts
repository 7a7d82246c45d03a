/**
 * The judgements of doctor, netcheck and the refusal of a path, by facts: each fault is found with its line and no fault is found where
 * there is none.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import {
  findingsOf,
  type HostFacts,
  renderFindings,
  SOCKET_BUFFER_BYTES,
} from "../../src/cli/checks/findings.ts";
import { namesOfLinks, numbered } from "../../src/cli/checks/bugreport.ts";
import { scrub } from "../../src/cli/checks/scrub.ts";
import { Links } from "../../src/serve/access/links.ts";
import { gatherFacts } from "../../src/cli/checks/host_facts.ts";
import { relay, TOKEN, withAdmin } from "../kit/admin_relay.ts";
import { passageOf } from "../../src/cli/checks/firewall.ts";
import { judgeNat } from "../../src/cli/checks/nat.ts";
import { isThrottled } from "../../src/cli/checks/netcheck.ts";
import { type Config, parseConfig } from "../../src/config.ts";
import { permittedLine } from "../../src/process/permitted_line.ts";
import { fitQr } from "../../src/cli/qr.ts";

const NOW_MS = Date.parse("2026-01-01");
const CONFIG = parseConfig("", "oxrelay.toml", {});
const WELL: HostFacts = {
  isAdmin: true,
  sysctls: {
    "net.ipv4.ip_forward": "1",
    "net.ipv6.conf.all.forwarding": "1",
    "net.core.rmem_max": "212992",
    "net.core.wmem_max": "212992",
    "net.netfilter.nf_conntrack_max": "262144",
    "net.netfilter.nf_conntrack_count": "12",
    "net.ipv4.ping_group_range": "0 2147483647",
  },
  programs: { ip: true, nft: true },
  hasTunDevice: true,
  ruleset: "",
  udpPorts: [4433],
  tcpPorts: [],
  addresses: ["127.0.0.1", "8.8.4.4"],
  descriptors: 65536,
  nativeObstacle: undefined,
  availableBytes: 2 ** 30,
  keyMode: 0o100600,
  peersMistake: undefined,
  certificateEndMs: undefined,
  relay: { exit: "tun device oxrelay0", reasons: [] },
  relayMistake: undefined,
};

/** The findings that are not "ok". */
function faults(change: Partial<HostFacts>, config: Config = CONFIG) {
  return findingsOf({ ...WELL, ...change }, config, NOW_MS).filter(({ state }) => state !== "ok");
}

Deno.test("doctor: of a host in order nothing is wrong, running or not", () => {
  assertEquals(faults({}), []);
  assertEquals(faults({ relay: undefined, udpPorts: [] }).map(({ subject }) => subject), ["relay"]);
});

const sysctls = (more: Record<string, string>) => ({ sysctls: { ...WELL.sysctls, ...more } });
const userspace = { relay: { exit: "userspace", reasons: [] } };
/** A firewall that drops what no rule accepts. */
const table = (rules: string) =>
  `table inet filter {\n\tchain input {\n\t\ttype filter hook input priority filter; policy drop;\n${rules}\t}\n}\n`;
/** What is wrong with a host, what is said of it, and the line that mends it. */
const FAULTS: [change: Partial<HostFacts>, subject: string, state: string, line: RegExp][] = [
  [{ udpPorts: [] }, "UDP 4433", "fail", /^$/],
  [{ relay: undefined }, "UDP 4433", "fail", /^ss -lnp sport = 4433$/],
  [{ relay: { exit: "tun", reasons: ["it stalls"] } }, "relay", "fail", /^$/],
  [{ ruleset: undefined }, "firewall", "unknown", /^sudo deno task doctor$/],
  [
    { ruleset: table("\t\tudp dport 53 accept\n") },
    "firewall",
    "fail",
    /^nft insert rule inet filter input udp dport 4433 accept$/,
  ],
  [{ addresses: ["192.168.1.2"] }, "address", "warn", /^public_endpoint = /],
  [{ ...userspace, programs: { ip: true, nft: false } }, "exit", "warn", /^apt-get install nftables$/],
  [{ ...userspace, programs: { ip: false, nft: true } }, "exit", "warn", /^apt-get install iproute2$/],
  [{ ...userspace, hasTunDevice: false }, "exit", "warn", /^modprobe tun$/],
  [
    {
      ...userspace,
      isAdmin: false,
      ...sysctls({ "net.core.rmem_max": "9000000", "net.core.wmem_max": "9000000" }),
    },
    "exit",
    "warn",
    /^sudo /,
  ],
  [sysctls({ "net.ipv4.ip_forward": "0" }), "forwarding", "fail", /^sysctl -w net\.ipv4\.ip_forward=1$/],
  [
    sysctls({ "net.ipv6.conf.all.forwarding": "0" }),
    "forwarding",
    "fail",
    /^sysctl -w net\.ipv6\.conf\.all\.forwarding=1$/,
  ],
  [
    sysctls({ "net.netfilter.nf_conntrack_count": "250000" }),
    "conntrack",
    "fail",
    /nf_conntrack_max=1048576$/,
  ],
  [sysctls({ "net.netfilter.nf_conntrack_max": "4096" }), "conntrack", "warn", /nf_conntrack_max=262144$/],
  [
    { ...userspace, ...sysctls({ "net.ipv4.ping_group_range": "1\t0" }) },
    "pings",
    "warn",
    /ping_group_range="0 2147483647"$/,
  ],
  [{ descriptors: 1024 }, "descriptors", "warn", /^ulimit -n 65536/],
  [{ nativeObstacle: "no AVX" }, "library", "warn", /^$/],
  [{ availableBytes: 2 ** 20 }, "memory", "warn", /^$/],
  [{ keyMode: 0o100644 }, "state", "fail", /^chmod 600 state\/private\.key$/],
  [{ peersMistake: "state/peers.json cannot be used: it is not JSON" }, "state", "fail", /^$/],
  [{ certificateEndMs: NOW_MS - 1 }, "certificate", "fail", /^$/],
  [{ certificateEndMs: NOW_MS + 86_400_000 }, "certificate", "warn", /^$/],
];

Deno.test("doctor: each fault is found with the line that mends it", () => {
  for (const [change, subject, state, line] of FAULTS) {
    // That none runs is no fault here.
    const found = faults(change).filter(({ subject, state }) => subject !== "relay" || state === "fail");
    assertEquals(found.map((one) => [one.subject, one.state]), [[subject, state]], JSON.stringify(change));
    assertMatch(found[0].line ?? "", line);
  }
  const buffers = faults({ isAdmin: false });
  assertEquals(buffers.map(({ line }) => line), [
    `sysctl -w net.core.rmem_max=${SOCKET_BUFFER_BYTES}`,
    `sysctl -w net.core.wmem_max=${SOCKET_BUFFER_BYTES}`,
  ]);
  assertEquals(faults({ ruleset: table("\t\tudp dport { 53, 4433 } accept\n") }), []);
  const text = renderFindings(faults({ keyMode: 0o100644 }), CONFIG.listen);
  assertMatch(
    text,
    /^WRONG +state +other users may read state\/private\.key\n +chmod 600 state\/private\.key\n\n1 wrong, 0 warnings\./,
  );
});

Deno.test("doctor: what a relay says is wrong is found, and of one that cannot be asked nothing is concluded", async () => {
  const stateDir = await Deno.makeTempDir({ prefix: "oxrelay-doctor-" });
  const reasons = ["worker 0's loop has stood still for 5000 ms"];
  let url = "";
  const deps = relay({ url: () => url, health: () => ({ ok: false, reasons }) });
  const asked = async (settings: string) => {
    const text = `state_dir = "${stateDir}"\nmetrics_listen = "${url.slice("http://".length)}"\n${settings}`;
    const { relay, relayMistake } = await gatherFacts(parseConfig(text, "oxrelay.toml", {}));
    return { relay, relayMistake };
  };
  try {
    await withAdmin(deps, async (_ask, port) => {
      url = `http://127.0.0.1:${port}`;
      const unwell = await asked(`admin_token = "${TOKEN}"\n`);
      assertEquals(unwell, { relay: { exit: "userspace", reasons }, relayMistake: undefined });
      const stranger = await asked(`admin_token = "another-token-of-an-operator"\n`);
      assertMatch(stranger.relayMistake!, /does not prove to know the admin token/);
      const found = faults(stranger).map(({ subject, state }) => [subject, state]);
      assertEquals(found, [["relay", "unknown"], ["UDP 4433", "unknown"]]);
    });
    const stopped = await asked(`admin_token = "${TOKEN}"\n`);
    assertEquals(stopped, { relay: undefined, relayMistake: undefined });
  } finally {
    await Deno.remove(stateDir, { recursive: true });
  }
});

/** Rules of an input chain whose policy is to accept, other blocks of the table, and what becomes of UDP 4433. */
const RULESETS: [rules: string, state: string, blocks?: string, policy?: string][] = [
  ["", "open"],
  ["", "closed", "", "drop"],
  ["counter packets 3 bytes 90 drop", "closed"],
  ["reject with icmpx admin-prohibited", "closed"],
  ['log prefix "refused: " counter packets 1 bytes 1 reject comment "all else"', "closed"],
  ["ct state established,related accept\ntcp dport 22 accept\nicmp type echo-request accept\ndrop", "closed"],
  ["ct state vmap { established : accept, related : accept, invalid : drop }\ndrop", "closed"],
  ['iifname "lo" accept\nudp dport { 53, 4434-5000 } accept\ndrop', "closed"],
  ["udp dport 4000-5000 accept\ndrop", "open"],
  ["udp dport { 53,\n\t\t\t 4000-5000 } counter packets 0 bytes 0 accept\ndrop", "open"],
  ["udp dport 14433 accept\ndrop", "closed"],
  ["udp sport 4433 accept\ndrop", "unknown"],
  ["tcp dport 4433 accept\ndrop", "closed"],
  ["meta l4proto { tcp, udp } th dport 4433 accept\ndrop", "open"],
  ["ct state new udp dport 4433 accept\ndrop", "open"],
  ["udp dport @ports accept\ndrop", "open", "set ports {\ntype inet_service\nelements = { 53,\n 4433 }\n}"],
  [
    "udp dport @ports accept\ndrop",
    "closed",
    "set ports {\ntype inet_service\n}\nmap m {\nelements = { 4433 : 1 }\n}",
  ],
  ["udp dport != 4433 drop", "open"],
  ["udp dport 4433 drop\naccept", "closed"],
  ["accept\ndrop", "open"],
  ["ip saddr 192.0.2.0/24 udp dport 4433 accept\ndrop", "unknown"],
  ["ip saddr 192.0.2.0/24 drop", "unknown"],
  ["ip saddr 192.0.2.0/24 drop\ndrop", "closed"],
  ["udp dport vmap { 53 : accept, 4433 : accept }\ndrop", "unknown"],
  ["jump more\ndrop", "open", "chain more {\nudp dport 4433 accept\n}"],
  ["jump more\ndrop", "closed", "chain more {\nudp dport 53 accept\nreturn\naccept\n}"],
  ["jump more\ndrop", "unknown", "chain more {\njump more\n}"],
  ["", "open", "chain forward {\ntype filter hook forward priority filter; policy drop;\n}"],
  [
    "drop",
    "closed",
    "chain forward {\ntype filter hook forward priority filter; policy drop;\nudp dport 4433 accept\n}",
  ],
];

Deno.test("doctor: of the firewall only input chains count, walked as the kernel does, and doubt is unknown", () => {
  for (const [rules, state, blocks = "", policy = "accept"] of RULESETS) {
    const chain = `chain input {\ntype filter hook input priority filter; policy ${policy};\n${rules}\n}`;
    const ruleset = `table inet filter {\n${blocks}\n${chain}\n}\n`;
    assertEquals(passageOf(ruleset, 4433).state, state, ruleset);
  }
  const rule = "chain input {\ntype filter hook input priority filter; policy accept;\ndrop\n}\n}\n";
  assertEquals(passageOf(`table ip oxrelay0 {\n${rule}`, 4433).state, "none");
  const mending = faults({ ruleset: `table ip6 x {\n${rule}` }).map(({ state, line }) => [state, line]);
  assertEquals(mending, [["fail", "nft insert rule ip6 x input udp dport 4433 accept"]]);
  const doubtful = faults({ ruleset: table("\t\tip saddr 192.0.2.1 accept\n") });
  assertEquals(doubtful.map(({ subject, state }) => [subject, state]), [["firewall", "unknown"]]);
});

Deno.test("bugreport: an address loses its last part before a full stop too, and names of links are numbered", async () => {
  const clean = (text: string, names = new Map<string, string>()) => scrub(text, [], names);
  assertEquals(clean("it came from 203.0.113.77."), "it came from 203.0.113.x.");
  assertEquals(clean("203.0.113.77, 203.0.113.78"), "203.0.113.x, 203.0.113.x");
  assertEquals(clean("2a02:aaaa:bbbb:cccc::77: refused"), "2a02:aaaa:bbbb::x: refused");
  assertEquals(clean("version 1.2.3.4.5"), "version 1.2.3.4.5");
  const stateDir = await Deno.makeTempDir({ prefix: "oxrelay-links-" });
  try {
    assertEquals(await namesOfLinks({ stateDir }), []);
    const links = await Links.open(stateDir, () => NOW_MS, () => {});
    await links.make({ name: "annas-tablet" }, new Date(NOW_MS + 1000).toISOString());
    const names = numbered([{ name: "phone", publicKey: "KEY" }], await namesOfLinks({ stateDir }));
    assertEquals(clean("phone (KEY), annas-tablet", names), "device-1 (key-of-device-1), device-2");
  } finally {
    await Deno.remove(stateDir, { recursive: true });
  }
});

Deno.test("netcheck: what relays see of one socket is a kind of NAT, or unknown", () => {
  const seen = (last: number, port: number) => ({
    address: Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 198, 51, 100, last),
    port,
  });
  const kind = (...answers: Parameters<typeof judgeNat>[1]) =>
    judgeNat("IPv4", answers, ["198.51.100.1"], 4000).kind;
  assertEquals(kind(seen(1, 4000), seen(1, 4000)), "none");
  assertEquals(kind(seen(1, 4001), seen(1, 4001)), "endpoint-independent");
  assertEquals(kind(seen(2, 4000), seen(2, 4000)), "endpoint-independent");
  assertEquals(kind(seen(2, 4000), seen(2, 4001)), "address-dependent");
  assertEquals(kind(seen(2, 4000)), "unknown");
  assertEquals(kind(undefined, undefined), "unknown", "older relays do not tell");
});

Deno.test("netcheck: UDP is slowed down where TLS carries more than twice as much", () => {
  assert(isThrottled({ up: 1, down: 10 }, { up: 2.1, down: 10 }));
  assert(isThrottled({ up: 10, down: 1 }, { up: 10, down: 2.1 }));
  assert(!isThrottled({ up: 10, down: 10 }, { up: 19, down: 1 }));
});

Deno.test("permissions: the line for a refused path is safe to paste and repeats no secret", () => {
  const project = {
    permissions: { backup: { read: ["."], write: { allow: ["."] } }, connect: { read: ["."] } },
    tasks: { restore: "deno run -P=backup main.ts restore", connect: "deno run -P=connect main.ts connect" },
  };
  const refusal = (kind: string, path: string) =>
    `Requires ${kind} access to "${path}", run again with the --allow-${kind} flag`;
  assertEquals(
    permittedLine(
      "restore",
      ["/mnt/my disk/it's.backup"],
      refusal("read", "/mnt/my disk/it's.backup"),
      project,
    ),
    `deno run --no-prompt -P=backup --allow-read=.,'/mnt/my disk' main.ts restore '/mnt/my disk/it'\\''s.backup'`,
  );
  const secret = "oxrelay://relay.example:4433?key=AAAA";
  const line = permittedLine(
    "connect",
    [secret, "--config", "/etc/a.conf"],
    refusal("read", "/etc/a.conf"),
    project,
  );
  assert(!line!.includes("AAAA") && line!.includes("--allow-read=.,/etc"));
  assertEquals(permittedLine("connect", [], refusal("net", "192.0.2.1:80"), project), undefined);
  assertEquals(permittedLine("restore", [], refusal("write", "src/a.ts"), project), undefined);
});

Deno.test("qr: the code fits the terminal, with less white where needed, or the reason says what it lacks", () => {
  const text = "x".repeat(300);
  // deno-lint-ignore no-control-regex
  const width = (code = "") => code.split("\n")[0].replace(/\x1b\[[\d;]*m/g, "").length;
  const full = width(fitQr(text, { columns: 0, rows: 0 }).code);
  assertEquals(width(fitQr(text, { columns: full, rows: 100 }).code), full);
  assertEquals(width(fitQr(text, { columns: full - 1, rows: 100 }).code), full - 6);
  const narrow = fitQr(text, { columns: full - 7, rows: 100 });
  assertEquals([narrow.code, /needs (\d+) columns/.exec(narrow.note!)?.[1]], [undefined, String(full - 6)]);
  const low = fitQr(text, { columns: 200, rows: 24 });
  assert(low.code !== undefined && /this terminal 24: enlarge/.test(low.note!));
  assertEquals(fitQr(text, { columns: 200, rows: 100 }).note, undefined);
});
