/**
 * `connect` as a person would use it, in network namespaces against a real relay or Debian's wireguard-go: what goes into
 * the tunnel and what does not, and that everything is put back, after a kill -9 too. Each test makes and removes its
 * own network.
 * Long because all its tests drive one command over the same kind of network.
 */
import { assert, assertEquals, assertGreater, assertMatch, assertStringIncludes } from "@std/assert";
import { requires } from "../kit/requires.ts";
import { Network, pause, RELAY, SERVER, SERVER_V6, until } from "../kit/namespaces.ts";

const DNS = `dns = ["${SERVER}"]\n`;
const OPEN = `${DNS}exit = "tun"\n[destinations]\nallow = ["10.200.0.0/24", "fd00:200::/64"]\n`;
const needs = requires({
  root: true,
  programs: ["ip", "nft", "ping", "wg", "wireguard-go", "bash", "sh", "setpriv"],
});

/** One relay with its client's namespace; the test connects as it likes. */
function scenario(
  name: string,
  body: (net: Network, client: string, file: string) => Promise<void>,
): void {
  Deno.test({
    name: `connect: ${name}`,
    ...needs,
    sanitizeResources: false,
    sanitizeOps: false,
    async fn() {
      const net = await Network.open();
      try {
        const client = await net.client(2);
        await net.relay(OPEN);
        const file = `${net.directory}/laptop.conf`;
        await Deno.writeTextFile(file, await net.addPeer("laptop"));
        await body(net, client, file);
      } finally {
        await net.close();
      }
    },
  });
}

async function reaches(net: Network, client: string, target: string, as: string[] = []): Promise<boolean> {
  return (await net.run(client, [...as, "ping", "-c", "2", "-i", "0.2", "-W", "1", target])).success;
}

/** What `connect` may change in a namespace, as text. */
async function hostState(net: Network, client: string): Promise<string> {
  const said = [];
  for (
    const words of [
      "ip -4 rule",
      "ip -6 rule",
      "ip -4 route show table all",
      "ip -6 route show table all",
      "ip link",
    ]
  ) said.push(await net.must(client, words.split(" ")));
  said.push(await net.must(client, ["nft", "list", "ruleset"]));
  // A link-local address is there when nobody else turns out to have it, some time after the link.
  return said.join("---\n").replace(/^local fe80:.*\n/gm, "");
}

for (const protocol of ["wireguard", "oxtunnel"]) {
  scenario(
    `everything goes through the tunnel, ${protocol}, and nothing is left behind`,
    async (net, client, file) => {
      const before = await hostState(net, client);
      assert(!await reaches(net, client, SERVER));
      const running = await net.connect(client, ["--config", file, "--protocol", protocol]);
      assert(await reaches(net, client, SERVER), running.said);
      assert(await reaches(net, client, SERVER_V6), running.said);
      assert(await reaches(net, client, RELAY), "networks that the host is in stay reachable");
      const sessions = JSON.parse((await net.ask("/v1/sessions")).text);
      assert(sessions.length > 0 && sessions.every((one: { protocol: string }) => one.protocol === protocol));
      assertEquals(await running.stop("SIGINT"), 0, running.said);
      assert(!await reaches(net, client, SERVER));
      assertEquals(await hostState(net, client), before);
    },
  );
}

/** What connects to the server's TCP port 8888 gets its own bytes back; UDP 7777 too; and UDP 53 knows one name. */
const SERVICES = `
const tcp = Deno.listen({ hostname: "${SERVER}", port: 8888 });
(async () => { for await (const c of tcp) c.readable.pipeTo(c.writable).catch(() => {}); })();
// What connects to 8889 gets half of what it asks for.
(await import("node:net")).createServer((socket) => {
  socket.on("error", () => {});
  socket.once("data", () => socket.write(new Uint8Array(100000), () => socket.resetAndDestroy()));
}).listen(8889, "${SERVER}");
const serve = async (port, answer) => {
  const socket = Deno.listenDatagram({ transport: "udp", hostname: "${SERVER}", port });
  for (;;) {
    const [data, from] = await socket.receive(new Uint8Array(65536));
    await socket.send(answer(data, from), from);
  }
};
serve(7777, (data) => data);
// The question comes back with one A record, whose name points at it.
serve(53, (query, from) => {
  console.log("asked by", from.hostname);
  const end = 12 + query.subarray(12).indexOf(0) + 5;
  const isA = query[end - 3] === 1;
  const record = isA ? [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 10, 200, 0, 2] : [];
  const answer = new Uint8Array([...query.subarray(0, end), ...record]);
  answer.set([0x81, 0x80, 0, 1, 0, isA ? 1 : 0, 0, 0, 0, 0], 2);
  return answer;
});
console.log("ready");`;

/** Whether the user may have its own bytes back by TCP. */
async function echoes(net: Network, client: string, uid = 0): Promise<boolean> {
  const talk =
    `exec 3<>/dev/tcp/${SERVER}/8888 && echo hello >&3 && read -t 2 line <&3 && test "$line" = hello`;
  const as = [
    "setpriv",
    `--reuid=${uid}`,
    `--regid=${uid}`,
    "--clear-groups",
    "timeout",
    "4",
    "bash",
    "-c",
    talk,
  ];
  return (await net.run(client, as)).success;
}

scenario("names are asked through the tunnel, and resolv.conf is itself again", async (net, client, file) => {
  const resolver = await net.server("server", SERVICES);
  const before = "# by hand\nnameserver 192.0.2.53\nsearch lan\n";
  const path = `${net.directory}/resolv.conf`;
  await Deno.writeTextFile(path, before);
  const mount = `mount --bind ${path} /etc/resolv.conf && exec`;
  for (const signal of ["SIGTERM", "SIGKILL"] as const) {
    const running = await net.connect(client, ["--config", file], { before: mount });
    const now = await Deno.readTextFile(path);
    assert(now.startsWith(`nameserver ${SERVER}\n#oxrelay: # by hand\n`), now);
    const lookup = ["sh", "-c", `mount --bind ${path} /etc/resolv.conf && getent ahostsv4 game.test`];
    assertStringIncludes(await net.must(client, lookup), SERVER);
    assertStringIncludes(resolver.said, "asked by 10.200.0.1");
    await running.stop(signal);
    if (signal === "SIGKILL") {
      assertEquals(await Deno.readTextFile(path), now);
      await net.connect(client, ["--restore"], { before: mount, says: "is undone" });
    }
    assertEquals(await Deno.readTextFile(path), before, signal);
  }
});

scenario("a killed client leaves no trap, and the next one cleans up", async (net, client, file) => {
  const before = await hostState(net, client);
  const killed = await net.connect(client, ["--config", file]);
  await killed.stop("SIGKILL");
  assert(await hostState(net, client) !== before);
  assert(await reaches(net, client, RELAY));
  const next = await net.connect(client, ["--config", file]);
  assert(await reaches(net, client, SERVER), next.said);
  const rules = await net.must(client, ["ip", "-4", "rule"]);
  assertEquals(rules.split("\n").filter((rule) => rule.includes("28539")).length, 1, rules);
  assertEquals(await next.stop("SIGINT"), 0);
  assertEquals(await hostState(net, client), before);
});

scenario("a second client is refused and disturbs nothing", async (net, client, file) => {
  const first = await net.connect(client, ["--config", file]);
  await net.connect(client, ["--config", file], { says: "if another connect runs here, stop it" });
  assert(await reaches(net, client, SERVER), first.said);
});

scenario("split by destination, and by user", async (net, client, file) => {
  await net.server("server", SERVICES);
  const by = async (target: string) => (await net.run(client, ["ip", "route", "get", target])).stdout;
  await net.ip(client, ["route", "add", "default", "via", RELAY]);
  const included = await net.connect(client, ["--config", file, "--include", "10.200.0.0/24,fd00:200::/64"]);
  assert(await reaches(net, client, SERVER));
  assert(await reaches(net, client, SERVER_V6));
  assertStringIncludes(await by("192.0.2.1"), "dev eth0");
  await included.stop("SIGINT");

  const excluded = await net.connect(client, ["--config", file, "--exclude", "192.0.2.0/24"]);
  assertStringIncludes(await by("192.0.2.1"), "dev eth0");
  assertStringIncludes(await by("198.51.100.1"), "dev oxconnect0");
  assertStringIncludes(await by(RELAY), "dev eth0");
  await excluded.stop("SIGINT");

  const ofUser = await net.connect(client, ["--config", file, "--only-user", "65534"]);
  assert(await echoes(net, client, 65534), "the user's connections go through");
  assert(!await echoes(net, client), "others' do not");
  await ofUser.stop("SIGINT");
});

scenario(
  "a selected user's names are asked through the tunnel, whatever resolver it uses",
  async (net, client, file) => {
    const resolver = await net.server("server", SERVICES);
    await net.ip(client, ["route", "add", "default", "via", RELAY]);
    const running = await net.connect(client, ["--config", file, "--only-user", "65534"]);
    const path = `${net.directory}/resolv.conf`;
    for (const nameserver of ["127.0.0.53", "192.0.2.53"]) {
      await Deno.writeTextFile(path, `nameserver ${nameserver}\n`);
      const lookup = (uid: number) => [
        "sh",
        "-c",
        `mount --bind ${path} /etc/resolv.conf && setpriv --reuid=${uid} --clear-groups timeout 3 getent ahostsv4 game.test`,
      ];
      assertStringIncludes((await net.run(client, lookup(65534))).stdout, SERVER, nameserver);
      assert(!(await net.run(client, lookup(1000))).success, "others ask whom they asked before");
    }
    assertStringIncludes(resolver.said, "asked by 10.200.0.1");
    await running.stop("SIGINT");
  },
);

scenario("split by cgroup", async (net, client, file) => {
  await net.server("server", SERVICES);
  await net.ip(client, ["route", "add", "default", "via", RELAY]);
  // `ip netns exec` hides the hierarchy.
  const name = `oxrelay-test-${Deno.pid}`;
  const mount = "mount -t cgroup2 none /sys/fs/cgroup";
  const inside = (script: string) => ["sh", "-c", `${mount} && ${script}`];
  await net.must(client, inside(`mkdir /sys/fs/cgroup/${name}`));
  try {
    const running = await net.connect(client, ["--config", file, "--only-cgroup", name], {
      before: `${mount} && exec`,
    });
    const talk =
      `exec 3<>/dev/tcp/${SERVER}/8888 && echo hello >&3 && read -t 2 line <&3 && test "$line" = hello`;
    const join = `echo $$ > /sys/fs/cgroup/${name}/cgroup.procs`;
    const through = await net.run(client, inside(`${join} && timeout 4 bash -c '${talk}'`));
    assert(through.success, `${through.stderr} ${running.said}`);
    assert(!await echoes(net, client), "others do not go through");
    await running.stop("SIGINT");
  } finally {
    await net.must(client, inside(`rmdir /sys/fs/cgroup/${name}`));
  }
  await net.connect(client, ["--config", file, "--only-cgroup", "no/such"], {
    before: `${mount} && exec`,
    says: "expected an existing cgroup v2",
  });
});

/** Counts what leaves by the wire for anybody but the relay, behind every other rule. */
async function watchLeaks(net: Network, client: string): Promise<() => Promise<number>> {
  await net.must(client, ["nft", "-f", "-"], {
    input: `table inet probe {
  chain out {
    type filter hook postrouting priority 400;
    oifname "eth0" ip daddr != ${RELAY} counter
    oifname "eth0" ip6 daddr fd00:200::/64 counter
  }
}`,
  });
  return async () => {
    const said = await net.must(client, ["nft", "list", "table", "inet", "probe"]);
    return [...said.matchAll(/packets (\d+)/g)].reduce((sum, [, packets]) => sum + Number(packets), 0);
  };
}

scenario("the kill switch holds while the tunnel is down, killed or not", async (net, client, file) => {
  await net.ip(client, ["route", "add", "default", "via", RELAY]);
  await net.ip(client, ["-6", "route", "add", "default", "via", "fd00:201::1"]);
  const before = await hostState(net, client);
  const leaks = await watchLeaks(net, client);
  const running = await net.connect(client, ["--config", file, "--kill-switch"]);
  assert(await reaches(net, client, SERVER), running.said);
  await net.ip("relay", ["link", "set", "br0", "down"]);
  assert(!await reaches(net, client, SERVER), "while the relay is away");
  await net.ip("relay", ["link", "set", "br0", "up"]);
  await running.stop("SIGKILL");
  for (const target of [SERVER, SERVER_V6]) assert(!await reaches(net, client, target));
  assertEquals(await leaks(), 0);
  const again = await net.connect(client, ["--config", file, "--kill-switch"]);
  assert(await reaches(net, client, SERVER), again.said);
  assertEquals(await leaks(), 0, "also while the next one starts");
  assertEquals(await again.stop("SIGINT"), 0);
  await reaches(net, client, SERVER);
  assertGreater(await leaks(), 0, "the probe sees what leaves");
  await net.must(client, ["nft", "delete", "table", "inet", "probe"]);
  assertEquals(await hostState(net, client), before);
});

scenario("the session goes on when the address and the default route change", async (net, client, file) => {
  await net.ip(client, ["route", "add", "default", "via", RELAY]);
  const running = await net.connect(client, ["--config", file]);
  assert(await reaches(net, client, SERVER), running.said);
  await net.ip(client, "addr add 10.201.0.77/24 dev eth0".split(" "));
  await net.ip(client, "addr del 10.201.0.2/24 dev eth0".split(" "));
  await net.run(client, ["ip", "addr", "add", "10.201.0.77/24", "dev", "eth0"]);
  await net.run(client, ["ip", "route", "replace", "default", "via", RELAY]);
  await until(() => reaches(net, client, SERVER), "the tunnel works from the new address", 10_000);
  const [peer] = (await net.status()).peers;
  assertStringIncludes(peer.endpoint!, "10.201.0.77");
});

scenario(
  "the kill switch of one user holds that user alone, and a flush does not open it",
  async (net, client, file) => {
    await net.server("server", SERVICES);
    await net.ip(client, ["route", "add", "default", "via", RELAY]);
    const running = await net.connect(client, ["--config", file, "--only-user", "65534", "--kill-switch"]);
    await net.must(client, ["nft", "flush", "ruleset"]);
    await running.says("have been put back");
    const leaks = await watchLeaks(net, client);
    assert(await echoes(net, client, 65534), running.said);
    await running.stop("SIGKILL");
    assert(!await echoes(net, client, 65534));
    assertEquals(await leaks(), 0);
    await echoes(net, client);
    assertGreater(await leaks(), 0, "others are free");
  },
);

/** Sends lines over one TCP connection for 6 s and prints how many came back. */
const CHATTER = `
const c = await Deno.connect({ hostname: "${SERVER}", port: 8888 });
const back = new Uint8Array(5);
let lines = 0;
for (const end = performance.now() + 6000; performance.now() < end; lines++) {
  await c.write(new TextEncoder().encode("line\\n"));
  for (let at = 0; at < 5;) at += await c.read(back.subarray(at)) ?? 5;
  await new Promise((resolve) => setTimeout(resolve, 100));
}
console.log(lines);
Deno.exit();`;

scenario("a connection survives a move between two networks", async (net, client, file) => {
  await net.server("server", SERVICES);
  // The relay has an address behind both networks, so that the default route alone decides between them.
  await net.ip("relay", "addr add 10.203.0.1/32 dev br0".split(" "));
  const eth1 = [
    "link",
    "add",
    "net2",
    "type",
    "veth",
    "peer",
    "name",
    "eth1",
    "netns",
    net.namespace(client),
  ];
  await net.ip("relay", eth1);
  await net.ip("relay", "addr add 10.202.0.1/24 dev net2".split(" "));
  await net.ip("relay", "link set net2 up".split(" "));
  await net.ip(client, "addr add 10.202.0.2/24 dev eth1".split(" "));
  await net.ip(client, "link set eth1 up".split(" "));
  await net.ip(client, ["route", "add", "default", "via", RELAY]);
  const running = await net.connect(client, ["--config", file, "--server", "10.203.0.1:4433"]);
  const endpoint = async () => (await net.status()).peers[0].endpoint!;
  assertStringIncludes(await endpoint(), "10.201.0.2");
  const chatter = net.script(client, CHATTER);
  await pause(2000);
  await net.ip(client, "route replace default via 10.202.0.1".split(" "));
  const lines = Number(await chatter);
  assertGreater(lines, 30, running.said);
  assertStringIncludes(await endpoint(), "10.202.0.2", "the source address follows the route");
  await net.ip(client, "link set eth1 down".split(" "));
  await net.ip(client, ["route", "replace", "default", "via", RELAY]);
  await until(() => reaches(net, client, SERVER), "the tunnel works from the first network again", 10_000);
  assertStringIncludes(await endpoint(), "10.201.0.2");
});

scenario("a relay that was away for a while is found again", async (net, client, file) => {
  const running = await net.connect(client, ["--config", file]);
  assert(await reaches(net, client, SERVER), running.said);
  await net.ip("relay", ["link", "set", "br0", "down"]);
  assert(!await reaches(net, client, SERVER));
  await net.ip("relay", ["link", "set", "br0", "up"]);
  await until(() => reaches(net, client, SERVER), "the tunnel works again", 20_000);
});

Deno.test({
  name: "connect: Debian's wireguard-go as the server",
  ...needs,
  sanitizeResources: false,
  sanitizeOps: false,
  async fn() {
    const net = await Network.open();
    try {
      const client = await net.client(2);
      const key = async () => (await net.must(client, ["wg", "genkey"])).trim();
      const publicOf = async (key: string) =>
        (await net.must(client, ["wg", "pubkey"], { input: key })).trim();
      const [ours, theirs, shared] = [
        await key(),
        await key(),
        (await net.must(client, ["wg", "genpsk"])).trim(),
      ];
      const device = net.device("srv");
      net.spawn("relay", ["wireguard-go", "-f", device], { WG_PROCESS_FOREGROUND: "1" });
      await net.listens("relay", device);
      await net.must("relay", ["wg", "setconf", device, "/dev/stdin"], {
        input: `[Interface]\nPrivateKey = ${theirs}\nListenPort = 51820\n` +
          `[Peer]\nPublicKey = ${await publicOf(
            ours,
          )}\nPresharedKey = ${shared}\nAllowedIPs = 10.99.0.2/32\n`,
      });
      await net.ip("relay", ["addr", "add", "10.99.0.1/24", "dev", device]);
      await net.ip("relay", ["link", "set", device, "mtu", "1420", "up"]);
      const file = `${net.directory}/any.conf`;
      await Deno.writeTextFile(
        file,
        `[Interface]\nPrivateKey = ${ours}\nAddress = 10.99.0.2/24\n\n[Peer]\nPublicKey = ${await publicOf(
          theirs,
        )}\n` +
          `PresharedKey = ${shared}\nEndpoint = 192.0.2.1:9\nAllowedIPs = 10.99.0.0/24\n`,
      );
      const running = await net.connect(client, ["--config", file, "--server", `${RELAY}:51820`]);
      assert(
        (await net.run(client, ["ping", "-c", "20", "-i", "0.05", "-w", "5", "10.99.0.1"])).success,
        running.said,
      );
      assert(
        (await net.run(client, ["ping", "-c", "2", "-i", "0.2", "-s", "1392", "-M", "do", "10.99.0.1"]))
          .success,
      );
    } finally {
      await net.close();
    }
  },
});

/** Through the SOCKS proxy: a name by TCP, a megabyte there and back; and a datagram by UDP. Prints what came of it. */
const SOCKS_CLIENT = `
const greet = async () => {
  const c = await Deno.connect({ hostname: "127.0.0.1", port: 1080 });
  await c.write(Uint8Array.of(5, 1, 0));
  const answer = await take(c, 2);
  if (answer.join() !== "5,0") throw new Error("no method: " + answer);
  return c;
};
const take = async (c, count) => {
  const bytes = new Uint8Array(count);
  for (let at = 0; at < count;) {
    const more = await c.read(bytes.subarray(at));
    if (more === null) throw new Error("ended after " + at + " of " + count);
    at += more;
  }
  return bytes;
};
const port = (n) => [n >> 8, n & 255];
const name = new TextEncoder().encode("game.test");
const c = await greet();
await c.write(Uint8Array.of(5, 1, 0, 3, name.length, ...name, ...port(8888)));
console.log("connect", (await take(c, 10))[1]);
const sent = new Uint8Array(1 << 20);
for (let i = 0; i < sent.length; i += 65536) crypto.getRandomValues(sent.subarray(i, i + 65536));
(async () => {
  for (let at = 0; at < sent.length;) at += await c.write(sent.subarray(at));
  await c.closeWrite();
})();
const got = await take(c, sent.length);
console.log("echo", got.every((byte, i) => byte === sent[i]), await c.read(new Uint8Array(1)));
const refused = await greet();
await refused.write(Uint8Array.of(5, 1, 0, 1, 10, 200, 0, 2, ...port(9)));
console.log("refused", (await take(refused, 10))[1]);
for (const [what, host] of [["unrouted", [203, 0, 113, 1]], ["forbidden", [192, 168, 77, 1]]]) {
  const c = await greet();
  await c.write(Uint8Array.of(5, 1, 0, 1, ...host, ...port(80)));
  console.log(what, (await take(c, 10))[1]);
}
const half = await greet();
await half.write(Uint8Array.of(5, 1, 0, 1, 10, 200, 0, 2, ...port(8889)));
await take(half, 10);
await half.write(Uint8Array.of(1));
let end;
try {
  while ((end = await half.read(new Uint8Array(65536))) !== null);
} catch (error) {
  end = error.name;
}
console.log("half", end);
const u = await greet();
await u.write(Uint8Array.of(5, 3, 0, 1, 0, 0, 0, 0, 0, 0));
const answer = await take(u, 10);
const socket = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
const to = { transport: "udp", hostname: "127.0.0.1", port: answer[8] << 8 | answer[9] };
for (const size of [5, 4000]) {
  const payload = new Uint8Array(size).fill(7);
  await socket.send(Uint8Array.of(0, 0, 0, 1, 10, 200, 0, 2, ...port(7777), ...payload), to);
  const [back] = await Promise.race([socket.receive(new Uint8Array(65536)), new Promise((r) => setTimeout(() => r([[]]), 20_000))]);
  console.log("udp", back.length, [...back.slice(3, 10)].join());
}
const forwarded = await Deno.connect({ hostname: "127.0.0.1", port: 18888 });
await forwarded.write(new TextEncoder().encode("through"));
console.log("forward", new TextDecoder().decode(await take(forwarded, 7)));
Deno.exit();`;

scenario(
  "without privilege and without the native library: the same by WebAssembly",
  async (net, client, file) => {
    await net.server("server", SERVICES);
    const [deno, ...words] = net.command("connect", [
      ...["--config", file, "--socks", "1080", "-L", "18888:game.test:8888"],
    ]);
    const at = words.findIndex((word) => word.endsWith("main.ts"));
    const running = net.spawn(client, [
      deno,
      ...words.slice(0, at),
      "--allow-ffi=/nowhere",
      ...words.slice(at),
    ]);
    await running.says("The tunnel is up.");
    assertMatch(running.said, /TCP by WebAssembly/);
    const said = (await net.script(client, SOCKS_CLIENT)).trim().split("\n");
    assertEquals(said, [
      "connect 0",
      "echo true null",
      "refused 5",
      "unrouted 3",
      "forbidden 2",
      // A reset needs the system's own call; what broke ends like what is whole.
      "half null",
      "udp 15 1,10,200,0,2,30,97",
      "udp 4010 1,10,200,0,2,30,97",
      "forward through",
    ], running.said);
  },
);

scenario("without any privilege: SOCKS5 by TCP and UDP, and a forwarded port", async (net, client, file) => {
  await net.server("server", SERVICES);
  const before = await hostState(net, client);
  const bare = "exec setpriv --bounding-set=-all --inh-caps=-all --no-new-privs";
  const args = ["--config", file, "--socks", "1080", "-L", `18888:game.test:8888`];
  const running = await net.connect(client, args, { before: bare });
  const said = await net.script(client, SOCKS_CLIENT);
  assertEquals(
    said.trim().split("\n"),
    [
      "connect 0",
      "echo true null",
      "refused 5",
      "unrouted 3",
      "forbidden 2",
      "half ConnectionReset",
      "udp 15 1,10,200,0,2,30,97",
      "udp 4010 1,10,200,0,2,30,97",
      "forward through",
    ],
    running.said,
  );
  assertEquals(await hostState(net, client), before);
  assertEquals(await running.stop("SIGINT"), 0);
  // Without being told it takes the proxy, and says why.
  await net.connect(client, ["--config", file], { before: bare, says: "so a SOCKS proxy stands in for it" });
});
