/**
 * The relay's TLS door and the client's dial, on loopback with certificates of openssl's making: pins, bounds of one
 * source, a certificate that is exchanged while the door is open, a client's patience, and sentences for files that are
 * of no use.
 */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { X509Certificate } from "node:crypto";
import { type Config, formatEndpoint as formatEndpointOf, parseConfig } from "../../src/config.ts";
import { Doors } from "../../src/serve/doors.ts";
import { dialFallback } from "../../src/connect/fallback_dial.ts";
import { FallbackDoor } from "../../src/serve/fallback_door.ts";
import { invitedFallback } from "../../src/cli/fallback_invited.ts";
import { CommandError } from "../../src/process/help.ts";
import { LinkFallback, type LinkFallbackOptions } from "../../src/connect/link/fallback.ts";
import type { LinkPlane, PlaneState } from "../../src/connect/link/plane.ts";
import { closeMailboxes, Mailbox, openMailboxes } from "../../src/io/mailbox.ts";
import type { ByteStream } from "../../src/io/stream_port.ts";
import { Arena } from "../../src/vector/arena.ts";
import { Burst } from "../../src/vector/burst.ts";
import { formatEndpoint } from "../../src/wire/address.ts";
import { makeCertificate } from "../kit/certificate.ts";
import { requires } from "../kit/requires.ts";

const needs = requires({ programs: ["openssl"] });
const OF_ONE_SOURCE_MAX = 16;

interface Scene {
  directory: string;
  door: FallbackDoor;
  config: ReturnType<typeof parseConfig>;
  port: number;
  /** The Worker's mailbox. */
  mailbox: Mailbox;
}

function freePort(): number {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr as Deno.NetAddr;
  listener.close();
  return port;
}

function doorTest(name: string, body: (scene: Scene) => Promise<void>): void {
  Deno.test({
    name: `fallback door: ${name}`,
    ...needs,
    sanitizeOps: false,
    sanitizeResources: false,
    async fn() {
      const directory = await Deno.makeTempDir({ prefix: "oxrelay-door-" });
      const mailboxes = openMailboxes(2);
      try {
        const made = await makeCertificate(directory, "relay.test");
        await install(directory, made);
        const port = freePort();
        const config = parseConfig(
          `rate_limit_per_ip = 3\n[fallback]\nlisten = "127.0.0.1:${port}"\ncertificate = "${directory}/a.crt"\n` +
            `private_key = "${directory}/a.key"\n`,
          "test",
          {},
        );
        const mailbox = new Mailbox(0, mailboxes, () => {});
        const door = await FallbackDoor.open(config, config.fallback!, mailboxes);
        try {
          await body({ directory, door, config, port, mailbox });
        } finally {
          await door.close();
          await mailbox.close();
        }
      } finally {
        closeMailboxes(mailboxes);
        await Deno.remove(directory, { recursive: true });
      }
    },
  });
}

async function install(directory: string, made: { certificate: string; privateKey: string }): Promise<void> {
  await Deno.copyFile(made.certificate, `${directory}/a.crt`);
  await Deno.copyFile(made.privateKey, `${directory}/a.key`);
}

async function pinOf(file: string): Promise<string> {
  const { fingerprint256 } = new X509Certificate(await Deno.readTextFile(file));
  return fingerprint256.replaceAll(":", "").toLowerCase();
}

async function ended(stream: ByteStream): Promise<boolean> {
  const timer = Promise.withResolvers<boolean>();
  const id = setTimeout(() => timer.resolve(false), 300);
  const reading = stream.read(new Uint8Array(10)).then((count) => count === null, () => true);
  return await Promise.race([reading, timer.promise]).finally(() => clearTimeout(id));
}

async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; !condition(); i++) {
    assert(i < 2000, "it did not happen in time");
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

doorTest("a pinned certificate is dialled, another is not", async ({ directory, config, port }) => {
  const pin = await pinOf(`${directory}/a.crt`);
  const endpoint = { host: "relay.test", port };
  const stream = await dialFallback({ ...endpoint, pin }, "127.0.0.1");
  assert(!await ended(stream));
  stream.close();
  await assertRejects(
    () => dialFallback({ ...endpoint, pin: "00".repeat(32) }, "127.0.0.1"),
    Error,
    "is not the one that the invitation pins",
  );
  // Signed by nobody that is known, it is not taken without a pin.
  await assertRejects(() => dialFallback(endpoint, "127.0.0.1"), Error);
  await assertRejects(
    () => dialFallback({ ...endpoint, port: freePort() }, "127.0.0.1"),
    Error,
    "the connection is refused",
  );
  // What an invitation says of it.
  const { fallback } = config;
  assertEquals(await invitedFallback(fallback!, "r.example:4433"), { host: "r.example", port, pin });
  const named = { ...fallback!, publicEndpoint: "tls.example:443" };
  assertEquals(await invitedFallback(named, "r.example:4433"), { host: "tls.example", port: 443, pin });
});

doorTest("one source has so many connections and handshakes, and is named as itself", async (scene) => {
  const { directory, door, port, mailbox } = scene;
  const endpoint = { host: "relay.test", port, pin: await pinOf(`${directory}/a.crt`) };
  const open: ByteStream[] = [];
  for (let i = 0; i <= OF_ONE_SOURCE_MAX; i++) open.push(await dialFallback(endpoint, "127.0.0.1"));
  // The newest is let in, and the oldest from which nothing authentic came has to go.
  const buffer = new Uint8Array(10);
  assertEquals(await open.shift()!.read(buffer).catch(() => null), null);
  for (const stream of open) assert(!await ended(stream));

  // Three a second of one address, whatever connections they come by.
  const initiation = new Uint8Array(2 + 600);
  initiation.set([600 & 255, 600 >> 8, 0xc1]);
  const burst = new Burst(new Arena(64));
  for (const stream of open.slice(0, 5)) await stream.write(initiation);
  await until(() => (mailbox.receive(burst), burst.count + door.metrics.dropped("rate_limited") === 5));
  assertEquals([burst.count, door.metrics.dropped("rate_limited")], [3, 2]);
  const shown = door.named(formatEndpoint(burst.address, 0, burst.port[0]));
  assert(/^127\.0\.0\.1:\d+ \(TLS\)$/.test(shown!), shown);
  assertEquals(door.named("192.0.2.1:5"), "192.0.2.1:5");
  assertEquals(door.named("[100::ffff]:443"), "closed (TLS)");
  for (const stream of open) stream.close();
});

doorTest("a new certificate is taken over, and one of no use leaves the old in place", async (scene) => {
  const { directory, door, config, port } = scene;
  const endpoint = { host: "relay.test", port };
  const oldPin = await pinOf(`${directory}/a.crt`);
  const stays = await dialFallback({ ...endpoint, pin: oldPin }, "127.0.0.1");

  await Deno.writeTextFile(`${directory}/a.crt`, "nonsense");
  await assertRejects(() => door.tune(config), CommandError, "cannot be used");
  await Deno.remove(`${directory}/a.crt`);
  await assertRejects(() => door.tune(config), CommandError, "there is no such file");
  (await dialFallback({ ...endpoint, pin: oldPin }, "127.0.0.1")).close();

  await install(directory, await makeCertificate(directory, "relay.test"));
  await door.tune(config);
  const newPin = await pinOf(`${directory}/a.crt`);
  (await dialFallback({ ...endpoint, pin: newPin }, "127.0.0.1")).close();
  await assertRejects(() => dialFallback({ ...endpoint, pin: oldPin }, "127.0.0.1"));
  assert(!await ended(stays), "connections outlive their certificate");
  stays.close();
});

doorTest("a certificate of no use does not keep peers and limits from being reloaded", async (scene) => {
  const { directory, config } = scene;
  const { fallback } = config;
  const port = freePort();
  const listen = { ...fallback!.listen, port };
  const own: Config = { ...config, exit: "userspace", io: "portable", fallback: { ...fallback!, listen } };
  const doors = await Doors.open(own, undefined);
  const pin = await pinOf(`${directory}/a.crt`);
  await Deno.remove(`${directory}/a.crt`);
  await doors.tune({ ...own, rateLimitPerIp: 7 });
  // The old certificate stays, and the new limit holds.
  const stream = await dialFallback({ host: "relay.test", port, pin }, "127.0.0.1");
  const initiations = new Uint8Array(10 * 602);
  for (let i = 0; i < 10; i++) initiations.set([600 & 255, 600 >> 8, 0xc1], 602 * i);
  await stream.write(initiations);
  const burst = new Burst(new Arena(64));
  const mailbox = new Mailbox(0, doors.mailboxes!, () => {});
  const { metrics } = doors.fallback!;
  await until(() => (mailbox.receive(burst), burst.count + metrics.dropped("rate_limited") === 10));
  assertEquals([burst.count, metrics.dropped("rate_limited")], [7, 3]);
  stream.close();
  await mailbox.close();
  await doors.close();
});

doorTest(
  "a client's connection has its time for an answer, however long there was none before",
  async (scene) => {
    const { directory, port } = scene;
    const realNow = performance.now.bind(performance);
    let laterMs = 0;
    performance.now = () => realNow() + laterMs;
    const endpoint = { host: "relay.test", port, pin: await pinOf(`${directory}/a.crt`) };
    const link = linkTo({ endpoint, address: "127.0.0.1" });
    try {
      const relay = { connected: false, endpoint: undefined as string | undefined };
      const dialled = Promise.withResolvers<void>();
      const plane = {
        reach: () => dialled.resolve(),
        connect: (host: string, port: number) => void (relay.endpoint = formatEndpointOf({ host, port })),
      } as unknown as LinkPlane;
      const state = { relay, asked: 1 } as PlaneState;
      const look = () => link.look(state, { address: "192.0.2.1", port: 4433 }, plane);
      laterMs = 60_000;
      look();
      await dialled.promise;
      for (let looks = 0; looks < 3; looks++) look();
      assertEquals(formatEndpointOf({ host: link.target!.address, port: link.target!.port }), relay.endpoint);
      laterMs += 10_001;
      look();
      assertEquals(link.target, undefined, "and not more");
    } finally {
      performance.now = realNow;
      await link.close();
    }
  },
);

/** A link whose name leads to `address` and goes on leading there, unless it is told otherwise. */
function linkTo(options: Pick<LinkFallbackOptions, "endpoint" | "address"> & Partial<LinkFallbackOptions>) {
  const resolve = () => Promise.resolve(options.address);
  return new LinkFallback({ resolve, onMoved: () => Promise.resolve(), say: () => {}, ...options });
}

doorTest("a client dials where the name leads now, or led last when nobody says soon", async (scene) => {
  const { directory, port } = scene;
  const realNow = performance.now.bind(performance);
  const endpoint = { host: "relay.test", port, pin: await pinOf(`${directory}/a.crt`) };
  const never = new Promise<string>(() => {});
  const answers: [address: string, resolve: () => Promise<string>, moved: string[]][] = [
    ["127.0.0.9", () => Promise.resolve("127.0.0.1"), ["127.0.0.1"]],
    ["127.0.0.1", () => Promise.reject(new Error("nobody says")), []],
    ["127.0.0.1", () => never, []],
  ];
  for (const [address, resolve, expected] of answers) {
    const moved: string[] = [];
    const onMoved = () => Promise.resolve(void moved.push(link.outer.address));
    const dialled = Promise.withResolvers<void>();
    const say = (message: string) => dialled.reject(new Error(message));
    const link = linkTo({ endpoint, address, resolve, onMoved, say });
    try {
      const plane = { reach: () => dialled.resolve(), connect: () => {} } as unknown as LinkPlane;
      performance.now = () => realNow() + 60_000;
      link.look(
        { relay: { connected: false }, asked: 1 } as PlaneState,
        { address: "192.0.2.1", port: 1 },
        plane,
      );
      await dialled.promise;
      assertEquals(moved, expected);
    } finally {
      performance.now = realNow;
      await link.close();
    }
  }
});

doorTest(
  "a client goes on asking for a way past the tunnel to the new address, and does not dial before",
  async (scene) => {
    const { directory, port } = scene;
    const realNow = performance.now.bind(performance);
    const endpoint = { host: "relay.test", port, pin: await pinOf(`${directory}/a.crt`) };
    const said: string[] = [], asked: string[] = [];
    let onSaid = () => {}, aheadMs = 0;
    const link = linkTo({
      endpoint,
      address: "127.0.0.9",
      resolve: () => Promise.resolve("127.0.0.1"),
      onMoved: () => {
        asked.push(link.outer.address);
        return asked.length === 1 ? Promise.reject(new Error("no rules today")) : Promise.resolve();
      },
      say: (message) => {
        said.push(message);
        onSaid();
      },
    });
    const dial = async () => {
      const { promise, resolve } = Promise.withResolvers<void>();
      onSaid = resolve;
      aheadMs += 60_000;
      performance.now = () => realNow() + aheadMs;
      link.look(
        { relay: { connected: false }, asked: 1 } as PlaneState,
        { address: "192.0.2.1", port: 1 },
        { reach: () => {}, connect: () => {} } as unknown as LinkPlane,
      );
      await promise;
      await new Promise((resolve) => setTimeout(resolve, 0));
    };
    try {
      await dial();
      assertStringIncludes(said[0], "no rules today");
      assertEquals(link.outer.address, "127.0.0.9");
      await dial();
      assertEquals(asked, ["127.0.0.1", "127.0.0.1"]);
      assertStringIncludes(said[1], "the tunnel goes over TLS");
    } finally {
      performance.now = realNow;
      await link.close();
    }
  },
);

doorTest("what cannot be opened is said in a sentence", async ({ config }) => {
  const { fallback } = config;
  const refused = async (change: Partial<NonNullable<typeof fallback>>) => {
    const mailboxes = openMailboxes(2);
    const error = await assertRejects(
      () => FallbackDoor.open(config, { ...fallback!, ...change }, mailboxes),
      CommandError,
    );
    closeMailboxes(mailboxes);
    return error.message;
  };
  assertStringIncludes(await refused({}), "is taken");
  assertStringIncludes(
    await refused({ certificate: "/tmp/no-such.crt" }),
    "fallback.certificate: /tmp/no-such.crt: ",
  );
  const swapped = { certificate: fallback!.privateKey, privateKey: fallback!.certificate };
  assertStringIncludes(await refused(swapped), "cannot be used");
});
