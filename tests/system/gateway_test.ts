/**
 * `connect --share` with a console behind a box behind a relay, in namespaces: addresses and names by dnsmasq, an open NAT in the sense
 * of RFC 5780, ports by UPnP and PCP as the far end sees them, and what is left of the box after kill -9. Invariant: the NAT's
 * behaviour is judged by what two addresses of the far end hear and what reaches the console.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { requires } from "../kit/requires.ts";
import { type Background, type Network, networkTest, SERVER, SERVER_V6, until } from "../kit/namespaces.ts";

const needs = requires({ root: true, programs: ["ip", "nft", "ping", "dnsmasq", "sh"] });
/** A second address of the far end, and the relay's address there. */
const OTHER = "10.200.0.3", OUTSIDE = "10.200.0.1";

const CONFIG = `exit = "tun"
listen = "0.0.0.0:4433"
metrics_listen = "127.0.0.1:9090"
admin_token = "0123456789abcdef"
dns = ["${SERVER}"]
public_endpoint = "${OUTSIDE}:4433"
[destinations]
port_mappings = 8
allow = ["10.200.0.0/24", "fd00:200::/64"]
`;

/**
 * At both addresses and two ports each: answers a datagram with the address and port that it came from, as STUN's binding does (RFC
 * 5780 §3), and "from ADDRESS PORT HOST PORT" by a datagram from there to any host: what the console's filter is asked with.
 */
const STUN = `
const sockets = new Map();
for (const hostname of ["${SERVER}", "${OTHER}"]) for (const port of [3478, 3479]) {
  const socket = Deno.listenDatagram({ transport: "udp", hostname, port });
  sockets.set(hostname + " " + port, socket);
  (async () => { for await (const [data, from] of socket) {
    const [verb, ...words] = new TextDecoder().decode(data).split(" ");
    const seen = from.hostname + " " + from.port;
    if (verb === "bind") await socket.send(new TextEncoder().encode("seen " + seen), from);
    else if (verb === "change") {
      const by = sockets.get(words.join(" "));
      await by.send(new TextEncoder().encode("changed " + words.join(" ")), from);
    }
  } })();
}
console.log("ready");`;

/** On the console: from one port asks all four places where it is seen, then for answers from places never sent to. */
const CONSOLE = (port: number) => `
const socket = Deno.listenDatagram({ transport: "udp", hostname: "0.0.0.0", port: ${port} });
const heard = [];
(async () => { for await (const [data] of socket) heard.push(new TextDecoder().decode(data)); })();
const send = (text, hostname, port) => socket.send(new TextEncoder().encode(text), { transport: "udp", hostname, port });
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const ask = async (text, hostname, port) => {
  const before = heard.length;
  for (let tries = 0; tries < 20 && heard.length === before; tries++) { await send(text, hostname, port); await pause(150); }
  return heard.at(-1);
};
const filtering = [await ask("bind", "${SERVER}", 3478)];
for (const place of ["${SERVER} 3479", "${OTHER} 3478", "${OTHER} 3479"]) filtering.push(await ask("change " + place, "${SERVER}", 3478));
const mapping = [filtering[0]];
for (const [hostname, port] of [["${SERVER}", 3479], ["${OTHER}", 3478], ["${OTHER}", 3479]]) {
  heard.length = 0;
  mapping.push(await ask("bind", hostname, port));
}
console.log(JSON.stringify({ filtering, mapping }));
Deno.exit();`;

/** On the console: says what comes to a TCP and a UDP port. */
const SERVICE = `
const tcp = Deno.listen({ hostname: "0.0.0.0", port: 7777 });
(async () => { for await (const one of tcp) one.readable.pipeTo(one.writable).catch(() => {}); })();
const udp = Deno.listenDatagram({ transport: "udp", hostname: "0.0.0.0", port: 7778 });
(async () => { for await (const [data, from] of udp) await udp.send(data, from); })();
console.log("ready");`;

/** On the box: a program of its own at the port that the console asks for. */
const BOX_SERVICE = `
const tcp = Deno.listen({ hostname: "0.0.0.0", port: 7777 });
(async () => { for await (const one of tcp) { await one.write(new TextEncoder().encode("the box")); one.close(); } })();
console.log("ready");`;

const ASK_TCP = (port: number) => `
try {
  const one = await Deno.connect({ hostname: "${OUTSIDE}", port: ${port} });
  await one.write(new TextEncoder().encode("hello"));
  const bytes = new Uint8Array(9);
  const got = await Promise.race([one.read(bytes), new Promise((resolve) => setTimeout(() => resolve(-1), 2000))]);
  console.log(new TextDecoder().decode(bytes.subarray(0, Math.max(0, got ?? 0))));
  Deno.exit();
} catch (error) { console.log("no: " + error.name); }`;

const ASK_UDP = (port: number) => `
const socket = Deno.listenDatagram({ transport: "udp", hostname: "0.0.0.0", port: 0 });
const ask = () => socket.send(new TextEncoder().encode("ping"), { transport: "udp", hostname: "${OUTSIDE}", port: ${port} });
setInterval(ask, 200);
const [data] = await Promise.race([socket.receive(), new Promise((resolve) => setTimeout(() => resolve([new Uint8Array()]), 5000))]);
console.log(new TextDecoder().decode(data));
Deno.exit();`;

/** On the console: finds the gateway by SSDP and has it act, as consoles do. */
const UPNP = (actions: [name: string, values: Record<string, string>][]) => `
const socket = Deno.listenDatagram({ transport: "udp", hostname: "192.168.77.60", port: 0 });
const search = "M-SEARCH * HTTP/1.1\\r\\nHOST: 239.255.255.250:1900\\r\\nMAN: \\"ssdp:discover\\"\\r\\nMX: 1\\r\\n" +
  "ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\\r\\n\\r\\n";
const ask = () => socket.send(new TextEncoder().encode(search), { transport: "udp", hostname: "239.255.255.250", port: 1900 });
const again = setInterval(ask, 300);
await ask();
const [answer] = await socket.receive();
clearInterval(again);
const location = /LOCATION: (\\S+)/.exec(new TextDecoder().decode(answer))[1];
const description = await (await fetch(location)).text();
const control = new URL(/<controlURL>([^<]+)</.exec(description)[1], location);
const said = [];
for (const [name, values] of ${JSON.stringify(actions)}) {
  const body = '<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><u:' + name +
    ' xmlns:u="urn:schemas-upnp-org:service:WANIPConnection:1">' +
    Object.entries(values).map(([key, value]) => "<New" + key + ">" + value + "</New" + key + ">").join("") +
    "</u:" + name + "></s:Body></s:Envelope>";
  const reply = await fetch(control, { method: "POST", body, headers: {
    soapaction: '"urn:schemas-upnp-org:service:WANIPConnection:1#' + name + '"', "content-type": "text/xml" } });
  const text = await reply.text();
  said.push(reply.status + " " + (/<errorCode>(\\d+)|<NewExternalIPAddress>([^<]+)/.exec(text)?.slice(1).join("") ?? ""));
}
console.log(JSON.stringify(said));
Deno.exit();`;

/** A box with a tunnel, and a console on the box's second interface; both are namespaces. */
async function home(net: Network): Promise<{ box: string; console: string }> {
  const box = await net.client(2), console = await net.client(3);
  // The console has no way but the box.
  await net.ip(console, ["link", "del", "eth0"]);
  await net.ip(box, [
    "link",
    "add",
    "lan0",
    "type",
    "veth",
    "peer",
    "name",
    "eth0",
    "netns",
    net.namespace(console),
  ]);
  await net.ip(console, ["link", "set", "eth0", "up"]);
  await net.ip("server", ["addr", "add", `${OTHER}/24`, "dev", "eth0"]);
  return { box, console };
}

/** What is asked by PCP (RFC 6887) at the gateway: a TCP port with a lifetime; prints result, lifetime, port and address outside. */
const PCP = (port: number, wanted: number, lifetimeS: number, net = 77) => `
const request = new Uint8Array(60);
const view = new DataView(request.buffer);
request.set([2, 1]);
view.setUint32(4, ${lifetimeS});
request.set([255, 255, 192, 168, ${net}, 60], 18);
request.fill(9, 24, 36);
request[36] = 6;
view.setUint16(40, ${port});
view.setUint16(42, ${wanted});
const socket = Deno.listenDatagram({ transport: "udp", hostname: "192.168.${net}.60", port: 0 });
const ask = () => socket.send(request, { transport: "udp", hostname: "192.168.${net}.1", port: 5351 });
setInterval(ask, 1000);
await ask();
const [answer] = await socket.receive();
const out = new DataView(answer.buffer, answer.byteOffset);
console.log(answer[3], out.getUint32(4), out.getUint16(42), answer.subarray(56, 60).join("."));
Deno.exit();`;

networkTest(
  "connect --share: a console behind the box has addresses, an open NAT and ports by UPnP and PCP; kill -9 leaves nothing that stays",
  needs,
  async (net) => {
    await net.relay(CONFIG);
    const { box, console } = await home(net);
    const invitation = await net.addPeer("box", undefined, ["--oxtunnel"]);
    await net.server("server", STUN);
    const args = ["--kill-switch", "--share", "lan0", "--device", "game=192.168.77.60", invitation.trim()];
    const running = await net.connect(box, args, { says: "is shared" });

    // Deno's sockets may not send to everybody, so the question for a lease goes to the box.
    await net.ip(console, ["addr", "add", "192.168.77.60/24", "dev", "eth0"]);
    await net.ip(console, ["route", "add", "default", "via", "192.168.77.1"]);
    await leases(net, console);
    await until(
      async () => / fd[^ ]*:77:/.test(await net.must(console, ["ip", "-6", "addr", "show", "eth0"])),
      "the console makes itself an address of the LAN's IPv6 network",
    );
    await until(
      async () => (await net.run(console, ["ping", "-6", "-c", "1", "-w", "2", SERVER_V6])).success,
      "IPv6 of the LAN goes through the tunnel",
    );

    const { filtering, mapping } = JSON.parse(await net.script(console, CONSOLE(3074), 40));
    assertEquals(new Set(mapping).size, 1, `one mapping for all far ends (RFC 4787 REQ-1): ${mapping}`);
    assertMatch(mapping[0], new RegExp(`^seen ${OUTSIDE} \\d+$`));
    assertEquals(filtering.slice(1), [
      `changed ${SERVER} 3479`,
      `changed ${OTHER} 3478`,
      `changed ${OTHER} 3479`,
    ], "any far end may answer (REQ-8)");

    // The box's own program listens where the console's wish would lead.
    await net.server(box, BOX_SERVICE);
    await ports(net, console);
    await classes(net, box);
    await killed(net, box, running);
  },
);

networkTest(
  "connect --share: a kill switch leaves the LAN to the box where the interface has its own address, and ports end with the gateway",
  needs,
  async (net) => {
    await net.relay(CONFIG);
    const { box, console } = await home(net);
    await net.ip(box, ["addr", "add", "192.168.88.1/24", "dev", "lan0"]);
    const invitation = await net.addPeer("box", undefined, ["--oxtunnel"]);
    const args = ["--kill-switch", "--share", "lan0", invitation.trim()];
    const running = await net.connect(box, args, { says: "is shared" });
    await net.ip(console, ["addr", "add", "192.168.88.60/24", "dev", "eth0"]);
    const { success } = await net.run(console, ["ping", "-c", "1", "-w", "3", "192.168.88.1"]);
    assert(success, "the box answers its LAN");

    assertEquals((await net.script(console, PCP(7777, 7007, 600, 88))).trim(), `0 600 7007 ${OUTSIDE}`);
    const open = () => net.must("relay", ["nft", "list", "map", "inet", "oxrelay_oxrelay0", "forward4"]);
    assertMatch(await open(), /7007/);
    await running.stop("SIGTERM");
    assert(!(await open()).includes("7007"), "the relay closes the LAN's ports at the gateway's end");
    assertMatch(await net.must(box, ["ip", "addr", "show", "lan0"]), /192\.168\.88\.1/);
  },
);

/** DHCP: dnsmasq offers an address of the LAN to whoever asks, with this box as router and resolver. */
async function leases(net: Network, console: string): Promise<void> {
  const said = await net.script(
    console,
    `
const socket = Deno.listenDatagram({ transport: "udp", hostname: "0.0.0.0", port: 68 });
const discover = new Uint8Array(300);
discover.set([1, 1, 6, 0, 1, 2, 3, 4, 0, 0, 0x80]);
discover.set([2, 0, 0, 0, 0, 9], 28);
discover.set([99, 130, 83, 99, 53, 1, 1, 55, 3, 1, 3, 6, 255], 236);
const ask = () => socket.send(discover, { transport: "udp", hostname: "192.168.77.1", port: 67 }).catch(() => {});
setInterval(ask, 500);
const [offer] = await socket.receive();
const options = {};
for (let at = 240; offer[at] !== 255; at += 2 + offer[at + 1]) options[offer[at]] = [...offer.subarray(at + 2, at + 2 + offer[at + 1])].join(".");
console.log(offer.subarray(16, 20).join("."), options[3], options[6]);
Deno.exit();`,
    20,
  ).catch((error: Error) => error.message);
  assertMatch(said, /^192\.168\.77\.\d+ 192\.168\.77\.1 192\.168\.77\.1/);
}

/** A port by UPnP and one by PCP, reached from outside; one ends by a word, one with its time. */
async function ports(net: Network, console: string): Promise<void> {
  await net.server(console, SERVICE);
  const mapping = (client: string, port = "7778", protocol = "UDP") => ({
    RemoteHost: "",
    ExternalPort: port,
    Protocol: protocol,
    InternalPort: "7778",
    InternalClient: client,
    Enabled: "1",
    PortMappingDescription: "a game",
    LeaseDuration: "0",
  });
  const said = JSON.parse(
    await net.script(
      console,
      UPNP([
        ["GetExternalIPAddress", {}],
        ["AddPortMapping", mapping("192.168.77.60")],
        ["AddPortMapping", mapping("192.168.77.61", "7000")],
        ["GetSpecificPortMappingEntry", mapping("", "7001")],
      ]),
      30,
    ),
  );
  assertEquals(said, [`200 ${OUTSIDE}`, "200 ", "500 606", "500 714"], "a host maps to itself alone");
  assertEquals((await net.script("server", ASK_UDP(7778))).trim(), "ping");

  assertEquals((await net.script(console, PCP(7777, 7007, 5))).trim(), `0 5 7007 ${OUTSIDE}`);
  assertEquals((await net.script("server", ASK_TCP(7007))).trim(), "hello");
  await until(
    async () => (await net.script("server", ASK_TCP(7007))).trim() !== "hello",
    "a lease ends with its time",
    20_000,
  );
  const gone = await net.script(console, UPNP([["DeletePortMapping", mapping("", "7778")]]), 30);
  assertEquals(JSON.parse(gone), ["200 "]);
}

/** The device's class, its size, and that nothing of the LAN goes out beside the tunnel. */
async function classes(net: Network, box: string): Promise<void> {
  const rules = await net.must(box, ["nft", "list", "table", "inet", "oxconnect_share"]);
  assertMatch(rules, /ip saddr 192\.168\.77\.60 ip dscp set cs4/);
  assertMatch(rules, /iifname "lan0" oifname != "oxconnect0" counter packets \d+ bytes \d+ reject/);
  assertMatch(rules, /maxseg size set rt mtu/);
}

/** kill -9: the LAN reaches nothing beside the tunnel, and the next start, or --restore, undoes everything. */
async function killed(net: Network, box: string, running: Background): Promise<void> {
  running.child.kill("SIGKILL");
  await running.child.status;
  assert((await net.must(box, ["nft", "list", "tables"])).includes("oxconnect_share"), "the LAN stays shut");
  await net.must(box, net.command("connect", ["--restore"]));
  assert(!(await net.must(box, ["nft", "list", "tables"])).includes("oxconnect_share"));
  assertEquals((await net.must(box, ["cat", "/proc/sys/net/ipv4/ip_forward"])).trim(), "0");
  assert(!(await net.must(box, ["ip", "addr", "show", "lan0"])).includes("192.168.77.1"));
  await until(
    async () => !(await net.must(box, ["cat", "/proc/net/udp"])).includes(":0043 "),
    "dnsmasq has ended",
  );
}
