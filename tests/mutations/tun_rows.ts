/**
 * Mutations of where packets leave and come from: the TUN exit and its rules, what a removed peer leaves, `connect`'s rules.
 */
import type { Mutation } from "./mutation.ts";

const NAT = ["tests/system/tun_nat_test.ts"];
const SEGMENTS = ["tests/system/tun_segments_test.ts"];
const KILL_SWITCH = ["tests/system/connect_kill_switch_test.ts"];
const REMOVED = ["tests/system/removed_peer_test.ts"];

export const TUN_ROWS: readonly Mutation[] = [
  {
    file: "src/exit/tun_rules.ts",
    from: "`add @${set} { ct mark ct count over ${most} } counter ${refuse}`,",
    to: "",
    tests: NAT,
    note: "one peer fills conntrack",
  },
  {
    file: "src/exit/tun_rules.ts",
    from: '`iifname != "${device}" udp dport ${o.untracked} fib daddr type local notrack`',
    to: "",
    tests: NAT,
    note: "datagrams to the relay cost an entry of conntrack",
  },
  {
    file: "src/exit/tun_host.ts",
    from: "for (const mark of marks) this.#forget(mark, 0xffffffff);",
    to: "",
    tests: NAT,
    note: "a removed peer's connections stay",
  },
  {
    file: "src/exit/tun_rules.ts",
    from: "udplite, sctp, dccp } masquerade to :${ports.low}-${ports.high}`",
    to: "udplite, sctp, dccp } masquerade`",
    tests: NAT,
    note: "a client leaves by the relay's own port",
  },
  {
    file: "src/exit/tun_rules.ts",
    from: '"fib daddr type local dnat ip6 to udp dport map @opened6 : udp dport map @port6",',
    to: "",
    tests: NAT,
    note: "no open NAT over IPv6",
  },
  {
    file: "src/exit/tun_rules.ts",
    from: '"meta l4proto udp socket transparent { 0, 1 } return",',
    to: "",
    tests: NAT,
    note: "a client's mapping takes what is for a program of the host",
  },
  {
    file: "src/exit/tun_rules.ts",
    from: 'timeout("udp", "udp", family, `unreplied : ${UDP_S}, replied : ${UDP_S}`),',
    to: 'timeout("udp", "udp", family, `unreplied : 30, replied : ${UDP_S}`),',
    tests: NAT,
    note: "a UDP mapping ends after 30 s",
  },
  {
    file: "src/exit/tun_rules.ts",
    from: "...families.map((family) => `meta nfproto ipv${family} counter drop`),",
    to: "",
    tests: NAT,
    note: "the host is a router for its neighbours",
  },
  {
    file: "src/exit/tun_rules.ts",
    from: '\'meta iifkind "bridge" meta oifkind "bridge" accept\',',
    to: "",
    tests: NAT,
    note: "what a bridge passes on is dropped where br_netfilter is in use",
  },
  {
    file: "src/exit/tun_rules.ts",
    from: "`${from} ip saddr ${v4} ${CLAMP}`,",
    to: "",
    tests: SEGMENTS,
    note: "the relay lets a client say too large a segment",
  },
  {
    file: "src/exit/tun_rules.ts",
    from: "`${to} ip6 daddr ${v6} ${CLAMP}`",
    to: "",
    tests: SEGMENTS,
    note: "the relay lets a server say too large a segment over IPv6",
  },
  {
    file: "src/exit/tun_client.ts",
    from: "oifname ${device} tcp flags syn / syn,rst tcp option maxseg size set rt mtu",
    to: "",
    tests: SEGMENTS,
    note: "connect lets its guests say too large a segment",
  },
  {
    file: "src/exit/tun.ts",
    from: 'const offloads = typeof native === "string" ? 0 : IFF_VNET_HDR;',
    to: "const offloads = 0;",
    tests: SEGMENTS,
    note: "the device has no offloads",
  },
  {
    file: "ffi/src/tun.rs",
    from: "const TUNSETOFFLOAD: libc::Ioctl = 0x4004_54d0;",
    to: "const TUNSETOFFLOAD: libc::Ioctl = 0x4004_54df;",
    tests: SEGMENTS,
    note: "the kernel is not told of the device's offloads",
  },
  {
    file: "src/cli/connect.ts",
    from: "if (killSwitch) await sentence(() => host.shut(outer()));",
    to: "",
    tests: KILL_SWITCH,
    note: "the kill switch is open before the first tunnel",
  },
  {
    file: "src/exit/tun_client.ts",
    from: "...(who === undefined ? this.#killSwitch(relays, who) : []),",
    to: "",
    tests: KILL_SWITCH,
    note: "the kill switch lets what is forwarded out",
  },
  {
    file: "src/exit/tun_client.ts",
    from: "`iifname ${device} ct state established,related accept`,",
    to: "",
    tests: KILL_SWITCH,
    note: "the kill switch refuses guests their answers",
  },
  {
    file: "src/exit/tun_client.ts",
    from: "if (before !== undefined) writeResolvConf(before);",
    to: "",
    tests: KILL_SWITCH,
    note: "a killed client's resolv.conf stays",
  },
  {
    file: "src/exit/tun_client.ts",
    from: "await undo(options.killSwitch);",
    to: "",
    tests: KILL_SWITCH,
    note: "what a killed client left is not undone at the next start",
  },
  {
    file: "src/cli/dataplane.ts",
    from: "if (released.length > 0) plane.exit.forget?.(released);",
    to: "",
    tests: REMOVED,
    note: "the userspace exit keeps a removed peer's flows",
  },
  {
    file: "src/exit/child.ts",
    from: "clearEnv: true,",
    to: "clearEnv: false,",
    tests: ["tests/unit/child_test.ts"],
    note: "child programs see the relay's keys",
  },
  {
    file: "src/ingress/deliver.ts",
    from: "return !isDisguised && peers.routes.lookup(words, 0) === id;",
    to: "return !isDisguised && (version === 6 || peers.routes.lookup(words, 0) === id);",
    tests: ["tests/sim/deliver_test.ts", ...REMOVED],
    note: "every IPv6 source is believed",
  },
  {
    file: "src/ingress/deliver.ts",
    from: "if (protocol === PROTOCOL_TCP) length[row] = emitTcpReset(view, at, whole);",
    to: "if (protocol === PROTOCOL_TCP) length[row] = 0;",
    tests: ["tests/sim/deliver_test.ts"],
    note: "the relay's inner address says nothing to TCP",
  },
  {
    file: "src/ingress/deliver.ts",
    from: "if (isOpen && !(version === 4 && view.getUint8(at) > 0x45 && hasSourceRoute(view, at))) {",
    to: "if (isOpen) {",
    tests: ["tests/sim/deliver_test.ts"],
    note: "source routes pass",
  },
  {
    file: "src/exit/tun_rules.ts",
    from: "`${from} ct state invalid meta l4proto != tcp counter reject with icmpx admin-prohibited`,",
    to: "",
    tests: ["tests/system/legal_datagrams_test.ts"],
    note: "what conntrack cannot read is lost in silence",
  },
  {
    file: "src/cli/store.ts",
    from: "const given = Math.max(...leased.map((prefix) => since.get(prefix) ?? -1));",
    to: "const given = -1 + 0 * since.size;",
    tests: ["tests/unit/store_test.ts"],
    note: "a removed peer's address is leased again at once",
  },
];
