/**
 * What a relay says to systemd (sd_notify(3)), heard on the socket that systemd would give: ready, signs of life while it works,
 * the end. That a Worker which stands still makes the relay not work is tested in health_test.ts.
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { dirname } from "node:path";
import { ServiceManager, serviceWishes } from "../../src/process/service_manager.ts";
import { Background, pause, until } from "../kit/namespaces.ts";
import { LoopbackRelay } from "./loopback_relay.ts";

const WATCHDOG_MS = 400;

/** Prints each datagram that comes to the socket of its first argument; a process of its own, as the tests may not listen there. */
const LISTENER = `
  const socket = Deno.listenDatagram({ transport: "unixpacket", path: Deno.args[0] });
  console.log("listening");
  for await (const [bytes] of socket) console.log(new TextDecoder().decode(bytes));
`;

/** Takes the socket and reads nothing of it; ends by itself, so that who waits for it would get on in the end. */
const DEAF = `
  const socket = Deno.listenDatagram({ transport: "unixpacket", path: Deno.args[0] });
  console.log("listening");
  setTimeout(() => Deno.exit(), 10_000);
`;

/** The service manager's end: what was said, in order. */
class Listener {
  readonly path: string;
  readonly #program: Background;

  private constructor(path: string) {
    this.path = path;
    const args = ["run", "--quiet", "--no-prompt", "--no-config", "--unstable-net"];
    const command = new Deno.Command(Deno.execPath(), {
      args: [...args, `--allow-net=unix:${path}`, `--allow-read=${path}`, `--allow-write=${path}`, "-", path],
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    });
    const child = command.spawn();
    this.#program = new Background(child);
  }

  static async open(program = LISTENER): Promise<Listener> {
    const folder = await Deno.makeTempDir({ prefix: "oxrelay-notify-" });
    const listener = new Listener(`${folder}/socket`);
    const writer = listener.#program.child.stdin.getWriter();
    await writer.write(new TextEncoder().encode(program));
    await writer.close();
    await listener.#program.says("listening");
    return listener;
  }

  get said(): string[] {
    return this.#program.said.trim().split("\n").slice(1);
  }

  /** Whether its program runs still. */
  async runs(): Promise<boolean> {
    const { status } = this.#program.child;
    return await Promise.race([status.then(() => false), pause(200).then(() => true)]);
  }

  count(word: string): number {
    return this.said.filter((said) => said === word).length;
  }

  async close(): Promise<void> {
    await this.#program.stop("SIGTERM");
    await Deno.remove(dirname(this.path), { recursive: true });
  }
}

/** A relay under a service manager that wants a sign of life within WATCHDOG_MS. */
async function withRelay(
  body: (relay: LoopbackRelay, listener: Listener) => Promise<void>,
): Promise<void> {
  const listener = await Listener.open();
  try {
    const relay = await LoopbackRelay.open("", {
      env: { NOTIFY_SOCKET: listener.path, WATCHDOG_USEC: String(1000 * WATCHDOG_MS) },
    });
    try {
      await body(relay, listener);
    } finally {
      await relay.close();
    }
  } finally {
    await listener.close();
  }
}

Deno.test("systemd: ready, signs of life for as long as the relay works, and its end", async () => {
  await withRelay(async (relay, listener) => {
    await until(() => listener.count("WATCHDOG=1") >= 3, "three signs of life");
    assertEquals(listener.said[0], "READY=1");
    assertEquals(await relay.stop("SIGTERM"), 0);
    await until(() => listener.said.at(-1) === "STOPPING=1", "the end is said last");
    assertEquals(listener.count("READY=1"), 1);
  });
});

Deno.test("systemd: no sign of life while the relay does not work", async () => {
  const listener = await Listener.open();
  let isWorking = true;
  const manager = new ServiceManager({ socket: listener.path, watchdogMs: 100 }, () => isWorking);
  try {
    manager.ready();
    await until(() => listener.count("WATCHDOG=1") >= 2, "signs of life");
    isWorking = false;
    await pause(200); // those on their way
    const before = listener.count("WATCHDOG=1");
    await pause(500);
    assertEquals(listener.count("WATCHDOG=1"), before);
    isWorking = true;
    await until(() => listener.count("WATCHDOG=1") > before, "a sign of life again");
  } finally {
    manager.close();
    await listener.close();
  }
});

Deno.test("systemd: a service manager that reads nothing holds nothing up", async () => {
  const listener = await Listener.open(DEAF);
  const manager = new ServiceManager({ socket: listener.path, watchdogMs: undefined }, () => true);
  try {
    // More than a socket's queue has room for (net.unix.max_dgram_qlen).
    for (let said = 0; said < 5000; said++) manager.ready();
    assert(await listener.runs(), "the words were waited for until the listener ended");
  } finally {
    manager.close();
    await listener.close();
  }
});

Deno.test("systemd: the wishes of the environment, and a name that no socket can have", () => {
  assertEquals(serviceWishes({}), undefined);
  assertEquals(serviceWishes({ socket: "", watchdogUs: "1" }), undefined);
  assertEquals(serviceWishes({ socket: "@a" }), { socket: "@a", watchdogMs: undefined });
  assertEquals(serviceWishes({ socket: "/a", watchdogUs: "20000000" })?.watchdogMs, 20_000);
  assertEquals(serviceWishes({ socket: "/a", watchdogUs: "soon" })?.watchdogMs, undefined);
  const long = { socket: `/${"a".repeat(107)}`, watchdogMs: undefined };
  assertThrows(() => new ServiceManager(long, () => true), Error, "107 bytes");
});
