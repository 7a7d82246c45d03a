/**
 * What `connect` leads into the tunnel and what it leaves alone: the config's AllowedIPs family by family, search domains,
 * several addresses, long configs, and the sessions of whoever administers the machine from outside.
 */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { requires } from "../kit/requires.ts";
import { type Network, networkTest, RELAY, SERVER, SERVER_V6, until } from "../kit/namespaces.ts";

const OPEN =
  `dns = ["${SERVER}"]\nexit = "tun"\n[destinations]\nallow = ["10.200.0.0/24", "fd00:200::/64"]\n`;
const needs = requires({ root: true, programs: ["ip", "nft", "ping", "sh", "sysctl"] });

/** A client with default routes past the tunnel, and its config. */
async function prepare(net: Network): Promise<{ client: string; config: string }> {
  const client = await net.client(2);
  await net.ip(client, ["route", "add", "default", "via", RELAY]);
  await net.ip(client, ["-6", "route", "add", "default", "via", "fd00:201::1"]);
  await net.relay(OPEN);
  return { client, config: await net.addPeer("laptop") };
}

async function write(net: Network, config: string): Promise<string> {
  const file = `${net.directory}/laptop.conf`;
  await Deno.writeTextFile(file, config);
  return file;
}

async function wayTo(net: Network, client: string, target: string): Promise<string> {
  return /dev (\S+)/.exec((await net.run(client, ["ip", "route", "get", target])).stdout)?.[1] ?? "none";
}

const pings = async (net: Network, client: string, target: string) =>
  (await net.run(client, ["ping", "-c", "2", "-i", "0.2", "-W", "2", target])).success;

for (const protocol of ["wireguard", "oxtunnel"]) {
  networkTest(
    `connect: routes are what AllowedIPs says, family by family, ${protocol}`,
    needs,
    async (net) => {
      const { client, config } = await prepare(net);
      const cases = [
        { allowed: "10.200.0.0/24", inside: [SERVER], outside: ["198.51.100.1", SERVER_V6] },
        { allowed: "::/0", inside: [SERVER_V6, "2001:db8::1"], outside: [SERVER, "198.51.100.1"] },
        { allowed: "0.0.0.0/0", inside: [SERVER, "198.51.100.1"], outside: [SERVER_V6, "2001:db8::1"] },
      ];
      for (const { allowed, inside, outside } of cases) {
        const file = await write(net, config.replace(/AllowedIPs.*/, `AllowedIPs = ${allowed}`));
        const running = await net.connect(client, ["--config", file, "--protocol", protocol]);
        for (const target of inside) {
          assertEquals([target, await wayTo(net, client, target)], [target, "oxconnect0"]);
        }
        for (const target of outside) {
          assertEquals([target, await wayTo(net, client, target)], [target, "eth0"]);
        }
        assert(await pings(net, client, inside[0]), running.said);
        assertEquals(await wayTo(net, client, RELAY), "eth0");
        assertEquals(await running.stop("SIGINT"), 0, running.said);
      }
    },
  );
}

networkTest(
  "connect: what it does not carry out is named, search domains are set, and a second address is there",
  needs,
  async (net) => {
    const { client, config } = await prepare(net);
    const resolvConf = `${net.directory}/resolv.conf`;
    await Deno.writeTextFile(resolvConf, "nameserver 192.0.2.53\nsearch lan\n");
    const file = await write(
      net,
      config.replace(/DNS = .*/, `DNS = ${SERVER}, corp.example, other.example\nPostUp = touch x\nJc = 4`)
        .replace(/Address = (.*)/, "Address = $1, 10.77.0.5/32"),
    );
    const mount = `mount --bind ${resolvConf} /etc/resolv.conf && exec`;
    const running = await net.connect(client, ["--config", file], { before: mount });
    assertStringIncludes(running.said, "PostUp is not carried out: connect runs no commands of a config\n");
    assertStringIncludes(running.said, "Jc is not carried out: connect does not speak AmneziaWG");
    const now = await Deno.readTextFile(resolvConf);
    assert(now.startsWith(`nameserver ${SERVER}\nsearch corp.example other.example\n#oxrelay: `), now);
    const addresses = await net.must(client, ["ip", "-4", "addr", "show", "dev", "oxconnect0"]);
    assertStringIncludes(addresses, "10.77.0.5/32");
    assertStringIncludes(addresses, "10.66.0.2/32");
    assert(await pings(net, client, SERVER), running.said);
    await running.stop("SIGINT");
    assertEquals(await Deno.readTextFile(resolvConf), "nameserver 192.0.2.53\nsearch lan\n");
  },
);

networkTest("connect: a megabyte of config on standard input leads all that it names", needs, async (net) => {
  const { client, config } = await prepare(net);
  const routes = Array.from({ length: 20_000 }, (_, i) => `10.${100 + (i >> 8)}.${i & 255}.0/24`);
  const text = config.replace(/AllowedIPs.*/, `AllowedIPs = ${routes.join(", ")}`).replace(
    /PersistentKeepalive.*/,
    "",
  );
  const padding = `# ${"x".repeat(80)}\n`;
  const end = `AllowedIPs = 10.200.0.0/24\n`;
  const whole = text + padding.repeat(Math.floor(((1 << 20) - text.length - end.length) / padding.length)) +
    end;
  assert(whole.length <= 1 << 20 && whole.length > (1 << 20) - 200);
  const file = await write(net, whole);
  const running = await net.connect(client, ["--protocol", "wireguard", "--kill-switch"], {
    before: `cat ${file} |`,
  });
  assertEquals(await wayTo(net, client, "10.177.200.9"), "oxconnect0");
  assertEquals(await wayTo(net, client, "198.51.100.1"), "eth0");
  assert(await pings(net, client, SERVER), running.said);
});

/** Echoes on TCP 2222 of every address, and speaks unasked on 2223. */
const SERVICES = `
const tcp = Deno.listen({ hostname: "0.0.0.0", port: 2222 });
(async () => { for await (const c of tcp) c.readable.pipeTo(c.writable).catch(() => {}); })();
const speaker = Deno.listen({ hostname: "0.0.0.0", port: 2223 });
console.log("ready");
for await (const c of speaker) {
  const timer = setInterval(() => c.write(new TextEncoder().encode("tick\\n")).catch(() => clearInterval(timer)), 100);
}`;

/** Says what comes, and nothing to the other end. */
const LISTENER = `
const c = await Deno.connect({ hostname: "10.201.0.2", port: 2223 });
const into = new Uint8Array(64);
for (let i = 0; await c.read(into) !== null; i++) console.log(i === 0 ? "ready" : "heard");`;

/** Sends a line now and then for so long as it runs, and says each that comes back. */
const SESSION = `
const c = await Deno.connect({ hostname: "10.201.0.2", port: 2222 });
const back = new Uint8Array(64);
for (let i = 0;; i++) {
  await c.write(new TextEncoder().encode("line " + i));
  await c.read(back);
  console.log(i === 0 ? "ready" : "echo " + i);
  await new Promise((resolve) => setTimeout(resolve, 100));
}`;

for (const strict of [false, true]) {
  networkTest(
    `connect: sessions that came in from outside stay outside the tunnel, older ones too${
      strict ? ", where sources are checked strictly" : ""
    }`,
    needs,
    async (net) => {
      const { client, config } = await prepare(net);
      // Whoever administers the client sits behind its default route.
      const admin = await net.client(9);
      await net.ip(admin, ["addr", "add", "192.0.2.10/32", "dev", "eth0"]);
      await net.ip(admin, ["route", "add", "10.201.0.2/32", "dev", "eth0", "src", "192.0.2.10"]);
      await net.ip(client, ["route", "replace", "default", "via", "10.201.0.9"]);
      if (strict) {
        for (const key of ["rp_filter", "src_valid_mark"]) {
          await net.must(client, ["sysctl", "-w", `net.ipv4.conf.all.${key}=1`]);
        }
      }
      await net.server(client, SERVICES);
      const older = [await net.server(admin, SESSION), await net.server(admin, LISTENER)];
      const running = await net.connect(client, ["--config", await write(net, config)]);
      assertEquals(await wayTo(net, client, "192.0.2.10"), "oxconnect0", "the rest goes through the tunnel");
      assert(await pings(net, client, SERVER), running.said);
      for (const one of older) {
        const before = one.said.length;
        await until(() => one.said.length > before + 30, `an older session goes on: ${running.said}`, 15_000);
      }
      const newer = await net.server(admin, SESSION);
      await until(() => /echo 3\n/.test(newer.said), "a new session is answered", 15_000);
      assert((await net.run(admin, ["ping", "-c", "1", "-W", "2", "10.201.0.2"])).success, "pings too");
      assertEquals(await running.stop("SIGINT"), 0, running.said);
    },
  );
}
