/**
 * `connect` to a relay that is known by name, with a real resolver behind the default route: every address of the name is
 * tried, a relay that moves is found although the tunnel is dead, a killed client starts again, and what leaves past a closed
 * kill switch for it is the one question. And networks without IPv6.
 */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { requires } from "../kit/requires.ts";
import {
  ADMIN_TOKEN,
  type Background,
  type Network,
  networkTest,
  RELAY,
  SERVER,
  until,
} from "../kit/namespaces.ts";

const OPEN =
  `dns = ["${SERVER}"]\nexit = "tun"\n[destinations]\nallow = ["10.200.0.0/24", "fd00:200::/64"]\n`;
const needs = requires({ root: true, programs: ["dnsmasq", "ip", "nft", "ping", "sh", "sysctl"] });
const withoutDns = requires({ root: true, programs: ["ip", "nft", "ping", "sh", "sysctl"] });
/** Reached by the client's default route only, as a provider's resolver is. */
const RESOLVER = "192.0.2.53";
const NOBODY = "10.201.0.99";

/** The relay's names as a hosts file, which may be written anew. */
class Names {
  #server: Background | undefined;

  constructor(readonly net: Network) {}

  async say(...lines: string[]): Promise<void> {
    await Deno.writeTextFile(`${this.net.directory}/names`, `${lines.join("\n")}\n`);
    await this.#server?.stop("SIGTERM");
    const words =
      "--keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --bind-interfaces --user=root " +
      `--log-queries --log-facility=- --pid-file= --listen-address=${RESOLVER} --except-interface=lo`;
    const command = ["dnsmasq", ...words.split(" "), `--addn-hosts=${this.net.directory}/names`];
    this.#server = this.net.spawn("relay", command);
    await this.#server.says("read ");
  }
}

/** A client whose resolver is RESOLVER, with the words that `connect` is to be started behind. */
async function prepare(
  net: Network,
): Promise<{ client: string; names: Names; before: string; resolvConf: string }> {
  const client = await net.client(2);
  await net.ip("relay", ["addr", "add", `${RESOLVER}/32`, "dev", "br0"]);
  await net.ip(client, ["route", "add", "default", "via", RELAY]);
  await net.ip(client, ["-6", "route", "add", "default", "via", "fd00:201::1"]);
  await net.relay(OPEN);
  const resolvConf = `${net.directory}/resolv.conf`;
  await Deno.writeTextFile(resolvConf, `nameserver ${RESOLVER}\n`);
  const before = `mount --bind ${resolvConf} /etc/resolv.conf && exec`;
  return { client, names: new Names(net), before, resolvConf };
}

async function invitation(net: Network, flags = ["--oxtunnel"]): Promise<string> {
  const file = `${net.directory}/laptop.conf`;
  await Deno.writeTextFile(file, await net.addPeer("laptop", "relay.test:4433", flags));
  return file;
}

const pings = async (net: Network, client: string) =>
  (await net.run(client, ["ping", "-c", "1", "-W", "1", SERVER])).success;

/** Counts what leaves by the wire for anybody but the relay's addresses and the resolver's port 53. */
async function watchLeaks(net: Network, client: string): Promise<() => Promise<number>> {
  await net.must(client, ["nft", "-f", "-"], {
    input: `table inet probe {
  chain out {
    type filter hook postrouting priority 400;
    oifname "eth0" ip daddr ${RESOLVER} udp dport 53 accept
    oifname "eth0" ip daddr != 10.201.0.0/24 counter
    oifname "eth0" ip6 daddr 2000::/3 counter
  }
}`,
  });
  return async () => {
    const said = await net.must(client, ["nft", "list", "table", "inet", "probe"]);
    return [...said.matchAll(/packets (\d+)/g)].reduce((sum, [, packets]) => sum + Number(packets), 0);
  };
}

for (const flags of [[], ["--kill-switch"]]) {
  const name = flags.length > 0 ? ", past a closed kill switch" : "";
  networkTest(
    `connect: a relay that moves is found by its name outside the dead tunnel${name}`,
    needs,
    async (net) => {
      const { client, names, before } = await prepare(net);
      await net.ip("relay", "addr add 10.201.0.8/24 dev br0".split(" "));
      await names.say("10.201.0.8 relay.test");
      const running = await net.connect(client, ["--config", await invitation(net), ...flags], { before });
      assert(await pings(net, client), running.said);
      const leaks = flags.length > 0 ? await watchLeaks(net, client) : undefined;
      await net.ip("relay", "addr del 10.201.0.8/24 dev br0".split(" "));
      await net.ip("relay", "addr add 10.201.0.7/24 dev br0".split(" "));
      await names.say("10.201.0.7 relay.test");
      await until(() => pings(net, client), `the tunnel leads to the new address: ${running.said}`, 60_000);
      assertEquals(await leaks?.() ?? 0, 0);
      const rules = await net.must(client, ["ip", "-4", "rule"]);
      assert(!rules.includes(RESOLVER), `no way out is left open: ${rules}`);
      assertEquals(await running.stop("SIGINT"), 0, running.said);
    },
  );

  networkTest(`connect: a killed client starts again by the relay's name${name}`, needs, async (net) => {
    const { client, names, before, resolvConf } = await prepare(net);
    await names.say(`${RELAY} relay.test`);
    const file = await invitation(net);
    const killed = await net.connect(client, ["--config", file, ...flags], { before });
    await killed.stop("SIGKILL");
    // The tunnel's resolver, which nobody reaches now.
    assertStringIncludes(await Deno.readTextFile(resolvConf), `nameserver ${SERVER}\n`);
    const leaks = flags.length > 0 ? await watchLeaks(net, client) : undefined;
    const next = await net.connect(client, ["--config", file, ...flags], { before });
    assert(await pings(net, client), next.said);
    assertEquals(await leaks?.() ?? 0, 0);
    assertEquals(await next.stop("SIGINT"), 0, next.said);
    assertEquals(await Deno.readTextFile(resolvConf), `nameserver ${RESOLVER}\n`);
  });
}

networkTest("connect: a start that fails leaves a closed kill switch closed", needs, async (net) => {
  const { client, names, before } = await prepare(net);
  await names.say(`${RELAY} relay.test`);
  const file = await invitation(net);
  const killed = await net.connect(client, ["--config", file, "--kill-switch"], { before });
  await killed.stop("SIGKILL");
  await names.say(`${RELAY} another.test`);
  await net.connect(client, ["--config", file, "--kill-switch"], { before, says: "cannot be resolved" });
  assert(
    (await net.run(client, ["nft", "list", "chain", "inet", "oxconnect", "output"])).stdout.includes(
      "reject",
    ),
  );
  assert(!await pings(net, client));
});

for (const protocol of ["oxtunnel", "wireguard"]) {
  networkTest(`connect: every address of the relay's name is tried, ${protocol}`, needs, async (net) => {
    const { client, names, before } = await prepare(net);
    const file = await invitation(net, []);
    // Whichever family the resolver's order puts first, one of the two has nobody there.
    for (
      const lines of [[`${NOBODY} relay.test`, "fd00:201::1 relay.test"], [
        `${RELAY} relay.test`,
        "fd00:201::99 relay.test",
      ]]
    ) {
      await names.say(...lines);
      const running = await net.connect(client, ["--config", file, "--protocol", protocol], { before });
      assert(await pings(net, client), running.said);
      assertEquals(await running.stop("SIGINT"), 0, running.said);
    }
  });
}

networkTest("connect: without IPv6 on client and relay the tunnel carries IPv4", withoutDns, async (net) => {
  for (const key of ["all", "default"]) {
    await net.must("relay", ["sysctl", "-w", `net.ipv6.conf.${key}.disable_ipv6=1`]);
  }
  const client = await net.client(2).catch(() => "c1");
  for (const key of ["all", "default"]) {
    await net.must(client, ["sysctl", "-w", `net.ipv6.conf.${key}.disable_ipv6=1`]);
  }
  const relay = await net.relay(OPEN);
  assertStringIncludes(relay.said, "IPv6 stays off in the tunnel");
  const file = `${net.directory}/laptop.conf`;
  await Deno.writeTextFile(file, await net.addPeer("laptop"));
  const running = await net.connect(client, ["--config", file]);
  assertStringIncludes(running.said, "IPv6 is off on this system");
  assert(await pings(net, client), running.said);
  assertEquals(await running.stop("SIGINT"), 0, running.said);
});

networkTest(
  "connect: a clock that went back is told at both ends, with the remedy",
  withoutDns,
  async (net) => {
    const client = await net.client(2);
    const relay = await net.relay(OPEN);
    const file = `${net.directory}/laptop.conf`;
    await Deno.writeTextFile(file, await net.addPeer("laptop"));
    const first = await net.connect(client, ["--config", file, "--socks", "1080"]);
    assertEquals(await first.stop("SIGINT"), 0, first.said);
    const clock = `${net.directory}/clock.ts`;
    await Deno.writeTextFile(clock, `const now = Date.now;\nDate.now = () => now() - 3_600_000;\n`);
    const [deno, run, ...rest] = net.command("connect", ["--config", file, "--socks", "1080"]);
    const second = net.spawn(client, [deno, run, "--preload", clock, ...rest]);
    await second.says("this machine's clock, which says");
    assertStringIncludes(relay.said, "a handshake of laptop was refused, as its time is older");
    assertStringIncludes(second.said, "Set the clock, or restart the relay");
    await second.stop("SIGINT");
  },
);

/**
 * Runs a command to which, with all its children, the kernel has no IPv6: socket(2) refuses AF_INET6, as with
 * ipv6.disable=1. By a filter of seccomp(2), for x86-64.
 */
const WITHOUT_IPV6 = `const library = Deno.dlopen("libc.so.6", {
  prctl: { parameters: ["i32", "u64", "u64", "u64", "u64"], result: "i32" },
  syscall: { parameters: ["i64", "u64", "u64", "buffer"], result: "i64" },
});
const PR_SET_NO_NEW_PRIVS = 38, SYS_SECCOMP = 317, SET_MODE_FILTER = 1n, FLAG_TSYNC = 1n;
const SYS_SOCKET = 41, AF_INET6 = 10, EAFNOSUPPORT = 97;
const LOAD = 0x20, IF_EQUAL = 0x15, RETURN = 0x06, ALLOW = 0x7fff0000, ERRNO = 0x00050000;
const NUMBER_AT = 0, FIRST_ARGUMENT_AT = 16;

/** Of struct sock_filter: code, jumps when true and when false, operand. */
const program: [code: number, yes: number, no: number, operand: number][] = [
  [LOAD, 0, 0, NUMBER_AT],
  [IF_EQUAL, 0, 3, SYS_SOCKET],
  [LOAD, 0, 0, FIRST_ARGUMENT_AT],
  [IF_EQUAL, 0, 1, AF_INET6],
  [RETURN, 0, 0, ERRNO | EAFNOSUPPORT],
  [RETURN, 0, 0, ALLOW],
];
const instructions = new Uint8Array(8 * program.length);
program.forEach(([code, yes, no, operand], i) => {
  const view = new DataView(instructions.buffer, 8 * i);
  view.setUint16(0, code, true);
  view.setUint8(2, yes);
  view.setUint8(3, no);
  view.setUint32(4, operand, true);
});
const filter = new Uint8Array(16);
new DataView(filter.buffer).setUint16(0, program.length, true);
const address = Deno.UnsafePointer.value(Deno.UnsafePointer.of(instructions));
new DataView(filter.buffer).setBigUint64(8, BigInt(address), true);
if (library.symbols.prctl(PR_SET_NO_NEW_PRIVS, 1n, 0n, 0n, 0n) !== 0) throw new Error("prctl");
if (library.symbols.syscall(BigInt(SYS_SECCOMP), SET_MODE_FILTER, FLAG_TSYNC, filter) !== 0n) throw new Error("seccomp");

const [command, ...args] = Deno.args;
const child = new Deno.Command(command, { args, stdin: "null" }).spawn();
for (const signal of ["SIGTERM", "SIGINT"] as const) Deno.addSignalListener(signal, () => child.kill(signal));
Deno.exit((await child.status).code);`;

for (const io of ["mmsg", "portable"]) {
  networkTest(`connect: a kernel without IPv6 on client and relay, io = "${io}"`, withoutDns, async (net) => {
    const client = await net.client(2);
    const script = `${net.directory}/without.ts`;
    await Deno.writeTextFile(script, WITHOUT_IPV6);
    const without = (
      command: string[],
    ) => [Deno.execPath(), "run", "--no-check", "--allow-ffi", "--allow-run", script, ...command];
    const config = `${net.directory}/oxrelay.toml`;
    await Deno.writeTextFile(config, `io = "${io}"\n${OPEN.replace('exit = "tun"', 'exit = "userspace"')}`);
    const state = { OXRELAY_STATE_DIR: `${net.directory}/state`, OXRELAY_ADMIN_TOKEN: ADMIN_TOKEN };
    const relay = net.spawn("relay", without(net.command("serve", ["--config", config])), state);
    await relay.says("listening on");
    const file = `${net.directory}/laptop.conf`;
    await Deno.writeTextFile(file, await net.addPeer("laptop"));
    const running = net.spawn(client, without(net.command("connect", ["--config", file])));
    await running.says("The tunnel is up.");
    assert(
      (await net.run(client, ["ping", "-c", "2", "-i", "0.2", "-W", "2", "10.66.0.1"])).success,
      running.said,
    );
    const refused = await net.run(client, without(["ping", "-6", "-c", "1", "::1"]));
    assert(!refused.success && /Address family not supported/.test(refused.stderr), refused.stderr);
    assertEquals(await running.stop("SIGINT"), 0, running.said);
    assertEquals(await relay.stop("SIGTERM"), 0, relay.said);
  });
}
