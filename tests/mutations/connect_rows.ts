/**
 * Mutations of what is configured and of `connect`: addresses and special ranges, the configuration, invitations, the relay's
 * name, routes, sessions from outside, wishes and clocks.
 */
import type { Mutation } from "./mutation.ts";

const ADDRESS = "tests/unit/address_test.ts",
  CONFIG = "tests/unit/config_test.ts",
  POLICY = "tests/unit/policy_test.ts";
const INVITATION = "tests/unit/invitation_test.ts", SERVERS = "tests/unit/servers_test.ts";
const ROUTES = "tests/system/connect_routes_test.ts", NAMES = "tests/system/connect_names_test.ts";
const WISHES = "tests/system/connect_wishes_test.ts", RELAY_SIM = "tests/sim/relay_test.ts";

export const CONNECT_ROWS: readonly Mutation[] = [
  {
    file: "src/connect/link/local_plane.ts",
    from: "this.#client.connect(address, port, monotonicUs(), true);",
    to: "this.#client.connect(address, port, monotonicUs());",
    tests: ["tests/unit/link_test.ts"],
    note: "connect's handshakes never carry a packet",
  },
  {
    file: "src/session/outbox.ts",
    from: "this.#s.timers.hasten(peer.id, untilUs);",
    to: "",
    tests: ["tests/sim/ticket_test.ts"],
    note: "a client with a ticket waits for its first packet for ever",
  },
  {
    file: "src/client.ts",
    from: "if (isPatient && peer.ticket && this.associations",
    to: "if (isPatient && this.associations",
    tests: ["tests/sim/ticket_test.ts"],
    note: "a client without a ticket waits for its first packet",
  },
  {
    file: "src/connect/link/counts.ts",
    from: "if (!isOxtunnel) return",
    to: "if (isOxtunnel || !isOxtunnel) return",
    tests: ["tests/sim/ox_compression_test.ts"],
    note: "the client's totals are of compressed bytes",
  },
  {
    file: "src/wire/address.ts",
    from: "return bits > 128 || (isIpv4(address) && bits < MAPPED_BITS) ? undefined : { address, bits };",
    to: "return bits > 128 ? undefined : { address, bits };",
    tests: [ADDRESS],
    note: "a mapped prefix of neither family is taken",
  },
  {
    file: "src/wire/address.ts",
    from: "if (isIpv4(address) !== isIpv4(other)) return false;",
    to: "",
    tests: [ADDRESS],
    note: "IPv6 prefixes hold IPv4 addresses",
  },
  {
    file: "src/wire/address.ts",
    from: "if (last && prefixContains(last, one.address)) continue;",
    to: "",
    tests: [ADDRESS],
    note: "prefixes within others are kept",
  },
  {
    file: "src/wire/special_ranges.ts",
    from: '"168.63.129.16/32", ',
    to: "",
    tests: [POLICY],
    note: "a cloud's own service is the internet",
  },
  {
    file: "src/config.ts",
    from: "(one) => prefixLength(one) >= TRUSTED_BITS_MIN,",
    to: "(one) => one.bits >= TRUSTED_BITS_MIN,",
    tests: [CONFIG],
    note: "::ffff:0:0/96 trusts all of IPv4",
  },
  {
    file: "src/config.ts",
    from: 'const NEVER_ROUTABLE = rangesOf("never");',
    to: "const NEVER_ROUTABLE: Prefix[] = [];",
    tests: [CONFIG],
    note: "multicast may be opened",
  },
  {
    file: "src/config.ts",
    from: "delete raw[name];",
    to: "mistakes.pop();",
    tests: [CONFIG],
    note: "[[section]] is no mistake",
  },
  {
    file: "src/ingress/policy.ts",
    from: "const verdict = this.#denied.lookup(words, at) === NONE ? this.#table.lookup(words, at) : DENY;",
    to: "const verdict = this.#table.lookup(words, at);",
    tests: [POLICY],
    note: "deny denies nothing",
  },
  {
    file: "src/connect/invitation.ts",
    from: 'return texts.length === 2 && texts.every((text) => text.endsWith("/0")) ? [] : texts;',
    to: 'return texts.some((text) => text.endsWith("/0")) ? [] : texts;',
    tests: [INVITATION],
    note: "::/0 alone takes IPv4",
  },
  {
    file: "src/connect/invitation.ts",
    from: "if (!unused.has(key)) unused.set(key, `${source}: line ${i + 1}: ${notDone(section, entry[1])}`);",
    to: "",
    tests: [INVITATION],
    note: "keys that are not carried out are not named",
  },
  {
    file: "src/connect/invitation.ts",
    from: "export const TEXT_MAX = 1 << 20;",
    to: "export const TEXT_MAX = 1 << 14;",
    tests: [INVITATION],
    note: "a long config is refused",
  },
  {
    file: "src/connect/servers.ts",
    from: "if (at < 0 || isVain) server.address = addresses[(at + 1) % addresses.length];",
    to: "if (at < 0) server.address = addresses[0];",
    tests: [SERVERS],
    note: "only a name's first address is tried",
  },
  {
    file: "src/connect/through_device.ts",
    from: "const resolve = resolveOutside(host);",
    to: "const resolve = resolveHost;",
    tests: [NAMES],
    note: "the relay's name is asked for through the dead tunnel",
  },
  {
    file: "src/connect/mod.ts",
    from: "priorities: readPriorities(priorities),",
    to: "priorities: readPriorities([]),",
    tests: [WISHES],
    note: "--priority is not taken",
  },
  {
    file: "src/connect/mod.ts",
    from: 'compression: !flags["no-compression"],',
    to: "compression: false,",
    tests: [WISHES],
    note: "connect compresses nothing",
  },
  {
    file: "src/connect/mod.ts",
    from: 'compression: !flags["no-compression"],',
    to: "compression: true,",
    tests: [WISHES],
    note: "--no-compression is not taken",
  },
  {
    file: "src/exit/tun/client_rules.ts",
    from: "`ct direction reply ${MARK_INBOUND} accept`,",
    to: "",
    tests: [ROUTES],
    note: "answers to sessions from outside go into the tunnel",
  },
  {
    file: "src/exit/tun/client_rules.ts",
    from: "[`tcp sport ${setOf(listening)} tcp flags & syn == 0 ${MARK_INBOUND} accept`]",
    to: "[]",
    tests: [ROUTES],
    note: "sessions from outside that are older than the rules go into the tunnel",
  },
  {
    file: "src/exit/tun/client.ts",
    from: 'if (familyOf(address) === "-4") throw refusal;',
    to: "throw refusal;",
    tests: [NAMES],
    note: "connect wants IPv6",
  },
  {
    file: "src/exit/tun/client.ts",
    from: "await undo(this.#o.killSwitch && !this.#hasRules);",
    to: "await undo(false);",
    tests: [NAMES],
    note: "a start that fails opens a closed kill switch",
  },
  {
    file: "src/serve/doors.ts",
    from: 'result = bind("0.0.0.0");',
    to: "",
    tests: [NAMES],
    note: "a relay wants IPv6",
  },
  {
    file: "src/session/handshake_gate.ts",
    from: 'this.#epochs.note("stale", peer.id);',
    to: "",
    tests: [RELAY_SIM],
    note: "nobody says that a clock went back",
  },
  {
    file: "src/session/handshake_gate.ts",
    from: "if (isLater(peer.lastTimestamp, timestamp) && nowUs - peer.staleSaidUs >= STALE_SAID_US) {",
    to: "if (isLater(peer.lastTimestamp, timestamp)) {",
    tests: [RELAY_SIM],
    note: "an old handshake is told each time",
  },
];
