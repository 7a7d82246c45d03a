/**
 * Port forwards in a real relay with a real client, by both exits: strangers reach the client by UDP and TCP of both families, the
 * client's own packets leave by the same port, and what was added survives kill -9. Invariant: who sent what is read at the far end.
 */
import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { requires } from "../kit/requires.ts";
import { type Network, networkTest, SERVER, SERVER_V6, until } from "../kit/namespaces.ts";

const needs = requires({ root: true, programs: ["ip", "nft", "wg", "wg-quick", "wireguard-go"] });
const OUTSIDE = ["10.200.0.1", "fd00:200::1"];

const config = (exit: string) =>
  `exit = "${exit}"
listen = "0.0.0.0:4433"
metrics_listen = "127.0.0.1:9090"
admin_token = "0123456789abcdef"
[destinations]
port_mappings = 4
allow = ["${SERVER}/32", "${SERVER_V6}/128"]
`;

/** On the device: answers UDP to 3074 and TCP to 9000 with what came, and says from whom. */
const HOST = `
const udp = Deno.listenDatagram({ transport: "udp", hostname: "::", port: 3074 });
(async () => { for await (const [data, from] of udp) {
  const text = new TextDecoder().decode(data);
  console.log("udp " + text + " from " + from.hostname);
  await udp.send(data, text === "out" ? { ...from, port: 8005 } : from).catch(() => {});
} })();
for (const port of [9000, 9001]) {
  const tcp = Deno.listen({ hostname: "::", port });
  (async () => { for await (const one of tcp) one.readable.pipeTo(one.writable).catch(() => {}); })();
}
console.log("ready");`;

/** At the far end: sends a text to a UDP port of the relay until an answer comes, at port 8005 to "out"; prints from which port. */
const ASK_UDP = (hostname: string, port: number, text = "hi") => `
const any = "${hostname.includes(":") ? "::" : "0.0.0.0"}";
const socket = Deno.listenDatagram({ transport: "udp", hostname: any, port: 0 });
const answered = ${
  text === "out"
} ? Deno.listenDatagram({ transport: "udp", hostname: any, port: 8005 }) : socket;
const ask = () => socket.send(new TextEncoder().encode("${text}"), { transport: "udp", hostname: "${hostname}", port: ${port} });
const again = setInterval(ask, 200);
await ask();
const [got, from] = await answered.receive();
console.log(new TextDecoder().decode(got) + " " + from.port);
Deno.exit();`;

const ASK_TCP = (hostname: string, port: number, limitMs = 15_000) => `
// A port that is closed meanwhile lets nothing more through, no refusal either.
Deno.unrefTimer(setTimeout(() => { console.log("cut"); Deno.exit(); }, ${limitMs}));
try {
  const one = await Deno.connect({ hostname: "${hostname}", port: ${port} });
  const sent = new Uint8Array(100_000).fill(7);
  (async () => { for (let at = 0; at < sent.length;) at += await one.write(sent.subarray(at)); await one.closeWrite(); })();
  let got = 0;
  for await (const part of one.readable) got += part.length;
  console.log("back " + got);
} catch (error) { console.log("no: " + error.name); }`;

/** On the device: asks the relay for its TCP port 9000 as the outer port 9002 by PCP (RFC 6887); prints result, lifetime, port. */
const ASK_PCP = (own: string, lifetimeS: number) => `
const request = new Uint8Array(60);
const view = new DataView(request.buffer);
request.set([2, 1]);
view.setUint32(4, ${lifetimeS});
request.set([255, 255, ${own.split(".").join(",")}], 18);
request.fill(7, 24, 36);
request[36] = 6;
view.setUint16(40, 9000);
view.setUint16(42, 9002);
const socket = Deno.listenDatagram({ transport: "udp", hostname: "0.0.0.0", port: 0 });
const ask = () => socket.send(request, { transport: "udp", hostname: "10.66.0.1", port: 5351 });
const again = setInterval(ask, 500);
await ask();
const [answer] = await socket.receive();
const out = new DataView(answer.buffer, answer.byteOffset);
console.log(answer[3], out.getUint32(4), out.getUint16(42), answer.subarray(56, 60).join("."));
Deno.exit();`;

async function reached(net: Network, ask: string): Promise<string> {
  return (await net.script("server", ask)).trim();
}

for (const exit of ["tun", "userspace"]) {
  networkTest(
    `${exit} exit: forwarded ports lead strangers to the peer, by both protocols and families, also after kill -9, and by PCP`,
    needs,
    async (net) => {
      const before = await net.relay(config(exit));
      const configuration = await net.addPeer("console");
      await net.addPeer("other");
      await net.forward("console", ["udp:27015:3074", "tcp:27015:9000"]);
      await assertRejects(() => net.forward("console", ["tcp:9090"]), Error, "9090 is in use");
      await assertRejects(
        () => net.forward("other", ["udp:27000-27015"]),
        Error,
        "meets udp:27015:3074 of peer",
      );
      assertEquals(await net.forward("console", []), "udp:27015:3074\ntcp:27015:9000\n");
      before.child.kill("SIGKILL");
      await before.child.status;

      await net.relay(config(exit));
      const client = await net.client(2);
      await net.wireguard(client, configuration);
      const host = await net.server(client, HOST);
      // Shakes hands: a relay that has just started does not know where its peers are.
      await net.script(
        client,
        `Deno.listenDatagram({ transport: "udp", hostname: "0.0.0.0", port: 0 }).send(new Uint8Array(1), ` +
          `{ transport: "udp", hostname: "${SERVER}", port: 9 }).then(() => Deno.exit());`,
      );
      for (const address of OUTSIDE) {
        assertEquals(await reached(net, ASK_UDP(address, 27015)), "hi 27015");
        assertEquals(await reached(net, ASK_TCP(address, 27015)), "back 100000");
      }
      await until(
        () => host.said.includes(`udp hi from ::ffff:${SERVER}`),
        "the stranger's own address arrives",
      );
      // To a port of the stranger's that never sent: the mapping is the same for all of them (RFC 4787 REQ-1).
      assertEquals(await reached(net, ASK_UDP(OUTSIDE[0], 27015, "out")), "out 27015");

      await net.forward("console", ["tcp:9001"]);
      assertEquals(await reached(net, ASK_TCP(OUTSIDE[0], 9001)), "back 100000", "a running relay opens it");
      await net.forward("console", ["--remove", "tcp:27015:9000", "udp:27015:3074"]);
      assertMatch(await reached(net, ASK_TCP(OUTSIDE[0], 27015)), /ConnectionRefused/);
      assertEquals(await reached(net, ASK_TCP(OUTSIDE[0], 9001)), "back 100000", "the other stays");
      assertEquals(JSON.parse(await net.forward("console", ["--json"])), ["tcp:9001"]);

      const own = /^Address = ([\d.]+)/m.exec(configuration)![1];
      const leased = (await net.script(client, ASK_PCP(own, 4))).trim();
      assertEquals(leased, `0 4 9002 ${OUTSIDE[0]}`);
      assertEquals(
        await reached(net, ASK_TCP(OUTSIDE[0], 9002)),
        "back 100000",
        "a port that the device asked for",
      );
      await until(
        async () => (await reached(net, ASK_TCP(OUTSIDE[0], 9002, 2000))).startsWith("no"),
        "its time is over",
        20_000,
      );
    },
  );
}
