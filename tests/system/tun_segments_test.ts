/**
 * How large TCP's segments are on their way through a TUN device: the relay's rules and `connect`'s tell both ends what fits, and
 * bulk crosses the relay's device as super-packets. Counted in the namespaces at both sides, and by the device's own statistics.
 */
import { assert, assertEquals, assertGreater, assertLess } from "@std/assert";
import { loadNative } from "../../ffi/native.ts";
import { requires } from "../kit/requires.ts";
import { type Network, networkTest, RELAY, SERVER, SERVER_V6 } from "../kit/namespaces.ts";

const needs = requires({
  root: true,
  programs: ["ip", "nft", "wg", "wg-quick", "wireguard-go", "sysctl", "bash", "sh"],
});
const CONFIG = `exit = "tun"
admin_token = "0123456789abcdef"
dns = []
[destinations]
allow = ["10.200.0.0/24", "fd00:200::/64"]
`;
const BYTES = 20 << 20;

const LISTEN = `
for (const hostname of ["${SERVER}", "${SERVER_V6}"]) {
  const listener = Deno.listen({ hostname, port: 8888 });
  (async () => { for await (const c of listener) c.readable.pipeTo(c.writable).catch(() => {}); })();
}
console.log("ready");`;

/** Counts SYNs and SYN-ACKs to or from port 8888 that pass `device` here: those of exactly `size` bytes, and all. */
async function watch(
  net: Network,
  name: string,
  where: string,
  size: (isV6: boolean) => number,
): Promise<void> {
  const rules = ["ipv4", "ipv6"].flatMap((family, i) => {
    const syn = `${where} meta nfproto ${family} tcp flags & (syn | rst) == syn th dport 8888`;
    const answer = `${where} meta nfproto ${family} tcp flags & (syn | rst) == syn th sport 8888`;
    const fits = `tcp option maxseg size ${size(i === 1)} counter`;
    return [`${syn} ${fits}`, `${syn} counter`, `${answer} ${fits}`, `${answer} counter`];
  });
  const hook = where.startsWith("oif") ? "postrouting" : "prerouting";
  await net.must(name, ["nft", "-f", "-"], {
    input: `table inet watch { chain seen { type filter hook ${hook} priority 400;\n${
      rules.join("\n")
    }\n}; }\n`,
  });
}

async function counted(net: Network, name: string): Promise<number[]> {
  const said = await net.must(name, ["nft", "list", "table", "inet", "watch"]);
  return [...said.matchAll(/packets (\d+)/g)].map(([, packets]) => Number(packets));
}

/** Connects and has a line back, over both families. */
async function talk(net: Network, name: string, hosts = [SERVER, SERVER_V6]): Promise<void> {
  for (const host of hosts) {
    const script =
      `exec 3<>/dev/tcp/${host}/8888 && echo hello >&3 && read -t 5 line <&3 && test "$line" = hello`;
    await net.must(name, ["timeout", "15", "bash", "-c", script]);
  }
}

networkTest(
  "tun exit: SYNs that say too much are cut to the tunnel's MTU, out and back, in both families",
  needs,
  async (net) => {
    await net.relay(CONFIG);
    await net.server("server", LISTEN);
    const name = await net.client(2);
    await net.wireguard(name, await net.addPeer("one"));
    // Its kernel then says more than the relay's device, of 1420 bytes, can give back.
    await net.ip(name, ["link", "set", net.device(name), "mtu", "1500"]);
    const fits = (isV6: boolean) => isV6 ? 1360 : 1380;
    await watch(net, "server", `iifname "eth0"`, fits);
    await watch(net, name, `iifname "${net.device(name)}"`, fits);
    await talk(net, name);
    const [syn4, all4, , , syn6, all6] = await counted(net, "server");
    assertGreater(all4, 0);
    assertGreater(all6, 0);
    assertEquals([syn4, syn6], [all4, all6], "what the client says, as the server hears it");
    const [, , back4, answers4, , , back6, answers6] = await counted(net, name);
    assertGreater(answers4, 0);
    assertGreater(answers6, 0);
    assertEquals([back4, back6], [answers4, answers6], "what the server says, as the client hears it");
  },
);

networkTest(
  "connect: SYNs of those for whom the machine is the router are cut to the tunnel's MTU",
  needs,
  async (net) => {
    await net.relay(CONFIG);
    await net.server("server", LISTEN);
    const client = await net.client(2), guest = await net.client(7);
    await net.ip(client, ["route", "add", "default", "via", RELAY]);
    await net.must(client, ["sysctl", "-qw", "net.ipv4.ip_forward=1"]);
    await net.ip(guest, ["route", "add", "10.200.0.0/24", "via", "10.201.0.2"]);
    const file = `${net.directory}/invitation`;
    await Deno.writeTextFile(file, await net.addPeer("laptop", `${RELAY}:4433`, ["--oxtunnel"]));
    await net.connect(client, ["--config", file]);
    const mtu = async () =>
      JSON.parse(await net.must(client, ["ip", "-j", "link", "show", "dev", "oxconnect0"]))[0].mtu as number;
    await talk(net, guest, [SERVER]);
    const before = await mtu();
    assertLess(before, 1500);
    await watch(net, client, `oifname "oxconnect0"`, () => before - 40);
    await talk(net, guest, [SERVER]);
    assertEquals(await mtu(), before, "the path's size was found already");
    const [syn, all] = await counted(net, client);
    assertGreater(all, 0);
    assertEquals(syn, all);
  },
);

const isNative = typeof loadNative() !== "string";

networkTest(
  "tun exit: bulk crosses the relay's device in far fewer crossings than packets, both ways",
  { ignore: needs.ignore || !isNative },
  async (net) => {
    await net.relay(CONFIG);
    const name = await net.client(2);
    await net.wireguard(name, await net.addPeer("one"));
    await net.server(
      "server",
      `
const listener = Deno.listen({ hostname: "${SERVER}", port: 8888 });
(async () => { for await (const c of listener) {
  (async () => {
    const kind = new Uint8Array(1);
    await c.read(kind);
    if (kind[0] === 1) {
      const part = new Uint8Array(65536);
      for (let left = ${BYTES}; left > 0;) left -= await c.write(part);
      c.close();
    } else {
      const part = new Uint8Array(65536);
      while (await c.read(part) !== null);
      c.close();
    }
  })().catch(() => {});
} })();
console.log("ready");`,
    );
    const statistics = async () =>
      JSON.parse(await net.must("relay", ["ip", "-j", "-s", "link", "show", "dev", "oxrelay0"]))[0].stats64;
    for (const [kind, side] of [[1, "tx"], [2, "rx"]] as const) {
      const before = await statistics();
      await net.script(
        name,
        `
const c = await Deno.connect({ hostname: "${SERVER}", port: 8888 });
await c.write(Uint8Array.of(${kind}));
const part = new Uint8Array(65536);
if (${kind} === 1) while (await c.read(part) !== null);
else {
  for (let left = ${BYTES}; left > 0;) left -= await c.write(part);
  await c.closeWrite();
  await c.read(part);
}
Deno.exit();`,
        60,
      );
      const after = await statistics();
      const bytes = after[side].bytes - before[side].bytes,
        crossings = after[side].packets - before[side].packets;
      assert(bytes >= BYTES, `${bytes} bytes of ${side}`);
      assertLess(crossings, bytes / 1420 / 3, `${side}: ${crossings} crossings for ${bytes} bytes`);
    }
  },
);
