/**
 * A relay that takes over another WireGuard server, is backed up and is restored elsewhere: the phone, a real wireguard-go whose
 * configuration nobody touches, goes on with it. And what neither may do: overwrite, or half of it.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { generatePrivateKey, keyToText, publicKeyOf } from "../../src/process/keys_text.ts";
import { requires } from "../kit/requires.ts";
import { ADMIN_TOKEN, type Network, networkTest, RELAY, SERVER, type Task } from "../kit/namespaces.ts";

const needs = requires({ root: true, programs: ["ip", "nft", "ping", "wg", "wg-quick", "wireguard-go"] });
const pair = () => {
  const key = generatePrivateKey();
  return { privateKey: keyToText(key), publicKey: keyToText(publicKeyOf(key)) };
};

const SETTINGS =
  `listen = "[::]:51820"\ntunnel_ipv4 = "10.8.0.0/24"\ntunnel_ipv6 = "fdcc:ad94:bacf:61a4::/64"\n`;
const MORE = `exit = "tun"\n[destinations]\nallow = ["10.200.0.0/24"]\n`;
const [OLD, PHONE, PSK] = [pair(), pair(), pair().privateKey];
/** As wg-easy 15 writes it. */
const SERVER_FILE = `[Interface]
PrivateKey = ${OLD.privateKey}
Address = 10.8.0.1/24, fdcc:ad94:bacf:61a4::cafe:1/112
ListenPort = 51820
PostUp = touch HARM

# Client: phone (1)
[Peer]
PublicKey = ${PHONE.publicKey}
PresharedKey = ${PSK}
AllowedIPs = 10.8.0.2/32, fdcc:ad94:bacf:61a4::cafe:2/128, 192.168.9.0/24
`;
const PHONE_FILE = `[Interface]
PrivateKey = ${PHONE.privateKey}
Address = 10.8.0.2/24, fdcc:ad94:bacf:61a4::cafe:2/112
MTU = 1420

[Peer]
PublicKey = ${OLD.publicKey}
PresharedKey = ${PSK}
AllowedIPs = 0.0.0.0/0, ::/0
PersistentKeepalive = 25
Endpoint = ${RELAY}:51820
`;

/** Runs a subcommand at the relay with this state directory and configuration. */
async function at(net: Network, state: string, task: Task, args: string[], config = "oxrelay.toml") {
  const env = [`OXRELAY_STATE_DIR=${net.directory}/${state}`, `OXRELAY_ADMIN_TOKEN=${ADMIN_TOKEN}`];
  const words = net.command(task, [...args, "--config", `${net.directory}/${config}`]);
  return await net.run("relay", ["env", ...env, ...words]);
}

/** Takes over the server's file; and what an import refuses. */
async function takeOver(net: Network): Promise<void> {
  const { directory } = net;
  const file = `${directory}/wg0.conf`;
  await Deno.writeTextFile(file, SERVER_FILE.replace("HARM", `${directory}/harm`));
  await Deno.writeTextFile(`${directory}/other.toml`, MORE);
  const other = await at(net, "state", "peer", ["import", file], "other.toml");
  assertMatch(
    other.stderr,
    /tunnel_ipv4 is "10\.66\.0\.0\/16", .* Nothing was changed; set these[^]*"10\.8\.0\.0\/24"/,
  );
  await Deno.writeTextFile(`${directory}/oxrelay.toml`, SETTINGS + MORE);
  const taken = await at(net, "state", "peer", ["import", file]);
  assert(taken.success, taken.stderr);
  assertMatch(taken.stderr, /peer "phone" loses 192\.168\.9\.0\/24/);
  assertEquals((await Deno.stat(`${directory}/state/private.key`)).mode! & 0o777, 0o600);
  for (const text of [taken.stdout, taken.stderr]) {
    assert(!text.includes(OLD.privateKey) && !text.includes(PSK));
  }
  // Again it changes nothing, and over a relay with another key it refuses.
  assertMatch((await at(net, "state", "peer", ["import", file])).stderr, /; 0 peers are new/);
  await Deno.mkdir(`${directory}/own`);
  await Deno.writeTextFile(`${directory}/own/private.key`, `${pair().privateKey}\n`, { mode: 0o600 });
  assertMatch((await at(net, "own", "peer", ["import", file])).stderr, /this relay has its own private key/);
}

/** Backs up, and restores as if on another machine; and what either refuses. */
async function moveElsewhere(net: Network): Promise<void> {
  const { directory } = net;
  const file = `${directory}/relay.backup`;
  const backed = await at(net, "state", "backup", [file]);
  assert(backed.success, backed.stderr);
  assertEquals((await Deno.stat(file)).mode! & 0o777, 0o600);
  assertMatch((await at(net, "state", "backup", [file])).stderr, /something of that name is there already/);
  const over = await at(net, "state", "restore", [file]);
  assertMatch(over.stderr, /has .*private\.key already, and nothing is overwritten/);
  const kept = await Deno.readTextFile(file);
  const damaged = kept.replace(/("name": "peers\.json",\s+"sha256": ")./, "$1x");
  await Deno.writeTextFile(`${directory}/damaged.backup`, damaged);
  const bad = await at(net, "elsewhere", "restore", [`${directory}/damaged.backup`]);
  assertMatch(bad.stderr, /cannot be restored, and nothing was changed: peers\.json is damaged/);
  assertEquals(await Deno.stat(`${directory}/elsewhere`).catch(() => "none"), "none");
  // Another machine has neither state nor configuration.
  await Deno.rename(`${directory}/state`, `${directory}/lost`);
  await Deno.remove(`${directory}/oxrelay.toml`);
  const restored = await at(net, "state", "restore", [file]);
  assert(restored.success, restored.stderr);
  assertEquals(await Deno.readTextFile(`${directory}/oxrelay.toml`), SETTINGS + MORE);
  assertEquals(await Deno.readTextFile(`${directory}/state/private.key`), `${OLD.privateKey}\n`);
}

networkTest(
  "moving: a WireGuard server's phone goes on with the relay that took it over, was backed up and was restored elsewhere",
  needs,
  async (net) => {
    await takeOver(net);
    await moveElsewhere(net);
    await net.relay(SETTINGS + MORE);
    const client = await net.client(2);
    await net.wireguard(client, PHONE_FILE);
    const reached = await net.run(client, ["ping", "-c", "5", "-i", "0.2", "-W", "3", SERVER]);
    assert(reached.success, reached.stdout);
    const isThere = await Deno.stat(`${net.directory}/harm`).then(() => true, () => false);
    assert(!isThere, "no command of the file is run");
  },
);
