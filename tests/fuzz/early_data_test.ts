/**
 * Hostile early data: initiations of a peer with a good ticket whose plaintext, ticket and lengths are anything, and sound
 * ones with bytes changed under a MAC that anyone can make. Held: nothing is thrown, no answer is longer than its
 * question, no slot and no row is lost, only what is sealed soundly and judged open is delivered, and another client is
 * served. FUZZ_SEED and FUZZ_RUNS choose the run.
 */
import { assert, assertEquals, assertGreater } from "@std/assert";
import fc from "fast-check";
import { oxMac1At } from "../../src/wire/oxtunnel.ts";
import { initiationOf, signed } from "../kit/early_peer.ts";
import { udpPacket } from "../kit/packets.ts";
import { World } from "../kit/world.ts";

const SECOND = 1_000_000;
const options = {
  numRuns: Number(Deno.env.get("FUZZ_RUNS") ?? 300),
  seed: Number(Deno.env.get("FUZZ_SEED") ?? 20260301),
};

Deno.test("fuzz: early data of any kind is survived, answered with less, and delivers nothing that is not open", () => {
  const world = new World(options.seed);
  world.protocol = "oxtunnel";
  const server = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1", maxConnections: 4 });
  const privateKey = new Uint8Array(32).fill(3);
  const client = world.client("198.51.100.7:5555", server, { ipv4: "10.66.0.2", privateKey });
  const other = world.client("198.51.100.8:5555", server, { ipv4: "10.66.0.3" });
  for (const [host, ip] of [[client, "10.66.0.2"], [other, "10.66.0.3"]] as const) {
    host.send(udpPacket(ip, "8.8.8.8", new Uint8Array(4)));
  }
  world.runFor(2 * SECOND);
  const ticket = client.core.ticket!;
  client.core.close();
  world.hosts.splice(world.hosts.indexOf(client), 1);
  const { free } = server.arena;
  const good = udpPacket("10.66.0.2", "8.8.8.8", Uint8Array.of(1));
  const frames = fc.tuple(fc.nat(15), fc.uint8Array({ minLength: 1, maxLength: 200 })).map(([kind, body]) =>
    Uint8Array.of(0x80 | (kind << 3), body.length, ...body)
  );
  const plaintext = fc.oneof(
    fc.uint8Array({ minLength: 1, maxLength: 600 }),
    fc.array(fc.oneof(frames, fc.constant(good)), { minLength: 1, maxLength: 4 }).map((all) =>
      Uint8Array.from(all.flatMap((one) => [...one]))
    ),
  );
  const tickets = fc.oneof(
    { weight: 3, arbitrary: fc.constant(ticket.bytes) },
    { weight: 1, arbitrary: fc.uint8Array({ minLength: 1, maxLength: 192 }) },
  );
  const changes = fc.array(fc.tuple(fc.nat(1199), fc.nat(255)), { maxLength: 2 });
  let delivered = 0;
  fc.assert(
    fc.property(plaintext, tickets, changes, (plaintext, bytes, changes) => {
      const early = { plaintext, ticketSecret: ticket.secret };
      const message = initiationOf(world, server, privateKey, { ticket: bytes }, early);
      for (const [at, value] of changes) message[at] = value;
      if (changes.some(([at]) => at < oxMac1At(message.length))) signed(server, message);
      const answers: number[] = [];
      world.tap = (from, to, bytes) => {
        if (from === server.endpoint && to === "203.0.113.9:9") answers.push(bytes.length);
        return bytes;
      };
      server.delivered.length = 0;
      server.receive(message, "203.0.113.9:9");
      assert(answers.length <= 1 && (answers[0] ?? 0) <= message.length, `${answers}`);
      for (const packet of server.delivered) {
        assertEquals([...packet.subarray(12, 16)], [10, 66, 0, 2]);
        delivered++;
      }
      world.runFor(30_000);
    }),
    options,
  );
  assertGreater(delivered, 0, "some of it is sound");
  world.tap = undefined;
  world.runFor(300 * SECOND);
  assertEquals(server.arena.free, free);
  server.delivered.length = 0;
  other.send(udpPacket("10.66.0.3", "8.8.8.8", new Uint8Array(4)));
  world.runFor(2 * SECOND);
  assertEquals(server.delivered.length, 1);
});
