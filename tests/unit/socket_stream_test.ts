/**
 * TLS connections as a stream port has them, on loopback: what comes while nobody reads stays in the network, and what is
 * written waits for a reader, at both ends. Counted in bytes that the other end could get rid of, and, for the relay's
 * door, as memory of a process of its own.
 */
import { assert, assertEquals, assertLess } from "@std/assert";
import { createSecureContext, TLSSocket } from "node:tls";
import type { Socket } from "node:net";
import { dialFallback } from "../../src/connect/fallback_dial.ts";
import { PulledSocket, SocketStream } from "../../src/io/socket_stream.ts";
import type { ByteStream } from "../../src/io/stream_port.ts";
import { makeCertificate } from "../kit/certificate.ts";
import { requires } from "../kit/requires.ts";

const needs = requires({ programs: ["openssl"] });
/** What kernel and both ends may hold for one connection: Linux lets a socket buffer grow to 6 MB. */
const HELD_MAX = 24e6;
const options = { ...needs, sanitizeOps: false, sanitizeResources: false };

/** Both ends of a connection. */
async function connection(): Promise<{ near: ByteStream; far: ByteStream; close: () => void }> {
  const directory = await Deno.makeTempDir({ prefix: "oxrelay-stream-" });
  const { certificate, privateKey } = await makeCertificate(directory, "relay.test");
  const [cert, key] = await Promise.all([certificate, privateKey].map((file) => Deno.readTextFile(file)));
  await Deno.remove(directory, { recursive: true });
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr as Deno.NetAddr;
  const { promise, resolve } = Promise.withResolvers<ByteStream>();
  listener.accept().then((conn) => {
    const tcp = new PulledSocket(conn);
    const secureContext = createSecureContext({ cert, key });
    const tls = new TLSSocket(tcp as unknown as Socket, { isServer: true, secureContext });
    tls.on("secure", () => resolve(new SocketStream(tls, tcp)));
  });
  const { X509Certificate } = await import("node:crypto");
  const pin = new X509Certificate(cert).fingerprint256.replaceAll(":", "").toLowerCase();
  const far = await dialFallback({ host: "relay.test", port, pin }, "127.0.0.1");
  const near = await promise;
  const close = () => {
    far.close();
    near.close();
    listener.close();
  };
  return { near, far, close };
}

/** Writes until nothing has been taken for a second, or more than `bytesMax`; returns what was taken. */
async function push(stream: ByteStream, piece: Uint8Array, bytesMax: number): Promise<number> {
  let taken = 0, isOver = false;
  const writing = (async () => {
    while (!isOver && taken <= bytesMax) taken += await stream.write(piece);
  })().catch(() => {});
  for (let before = -1; before < taken && taken <= bytesMax;) {
    before = taken;
    await Promise.race([writing, new Promise((resolve) => setTimeout(resolve, 1000))]);
  }
  isOver = true;
  return taken;
}

async function readAll(stream: ByteStream, count: number): Promise<number> {
  const into = new Uint8Array(10_000);
  let sum = 0;
  for (let at = 0; at < count;) {
    const bytes = await stream.read(into) ?? 0;
    assert(bytes > 0, "it ended early");
    for (let i = 0; i < bytes; i++) sum += into[i];
    at += bytes;
  }
  return sum;
}

for (const reader of ["accepts", "dials"]) {
  Deno.test({
    name: `stream over TLS: who ${reader} and does not read lets the other end wait, and reads all later`,
    ...options,
    async fn() {
      const { near, far, close } = await connection();
      const [from, to] = reader === "accepts" ? [far, near] : [near, far];
      const piece = new Uint8Array(65_536).fill(1);
      const taken = await push(from, piece, 4 * HELD_MAX);
      assertLess(taken, HELD_MAX);
      assertEquals(await readAll(to, taken), taken);
      close();
    },
  });
}

Deno.test({
  name: "stream over TLS: the end comes through, and a write after it is refused",
  ...options,
  async fn() {
    const { near, far, close } = await connection();
    await far.write(Uint8Array.of(1, 2, 3));
    assertEquals(await readAll(near, 3), 6);
    far.close();
    assertEquals(await near.read(new Uint8Array(10)), null);
    const refused = await near.write(new Uint8Array(10)).then(() => false, () => true);
    assert(refused);
    close();
  },
});

interface Door {
  port: number;
  pin: string;
  /** How many bytes its memory has grown by since it began. */
  grown: () => Promise<number>;
}

/** A test of a relay's door in a process of its own. */
function doorTest(name: string, body: (door: Door) => Promise<void>): void {
  Deno.test({
    name: `fallback door: ${name}`,
    ...options,
    async fn() {
      const directory = await Deno.makeTempDir({ prefix: "oxrelay-door-" });
      const { certificate, privateKey } = await makeCertificate(directory, "relay.test");
      const child = new Deno.Command(Deno.execPath(), {
        args: [
          ...["run", "--no-prompt", "--allow-net=127.0.0.1", `--allow-read=${directory},.`],
          ...[
            "--allow-env",
            "--allow-ffi=/lib/x86_64-linux-gnu/libc.so.6,/lib/aarch64-linux-gnu/libc.so.6",
            new URL("fallback_door_child.ts", import.meta.url).pathname,
            certificate,
            privateKey,
          ],
        ],
        stdin: "piped",
        stdout: "piped",
        stderr: "inherit",
      }).spawn();
      const lines = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
      const writer = child.stdin.getWriter();
      const says = async () =>
        JSON.parse((await lines.read()).value!) as { port: number; pin: string; rss: number };
      try {
        const { port, pin, rss } = await says();
        const grown = async () => {
          await writer.write(Uint8Array.of(10));
          return (await says()).rss - rss;
        };
        await body({ port, pin, grown });
        await writer.close();
      } finally {
        await lines.cancel();
        child.kill("SIGKILL");
        await child.status;
        await Deno.remove(directory, { recursive: true });
      }
    },
  });
}

doorTest("four who push junk past a stopped Worker cost it less than 60 MB", async ({ port, pin, grown }) => {
  const opened: ByteStream[] = [];
  try {
    for (let i = 0; i < 4; i++) {
      opened.push(await dialFallback({ host: "relay.test", port, pin }, "127.0.0.1"));
    }
    const junk = new Uint8Array(24 * 2730);
    for (let at = 0; at < junk.length; at += 24) junk.set([22, 0, 0x40], at);
    const taken = await Promise.all(opened.map((stream) => push(stream, junk, 4 * HELD_MAX)));
    for (const bytes of taken) assertLess(bytes, HELD_MAX);
    assertLess(await grown(), 60e6);
  } finally {
    for (const stream of opened) stream.close();
  }
});

doorTest("thousands who connect and say nothing cost it less than 55 MB", async ({ port, pin, grown }) => {
  for (let i = 0; i < 4000; i++) {
    const silent = await Deno.connect({ hostname: "127.0.0.1", port });
    if (i % 2 === 0) silent.close();
    // The other half is closed by the door, which leaves one source 16.
    else silent.read(new Uint8Array(1)).catch(() => null).then(() => silent.close());
  }
  assertLess(await grown(), 55e6);
  (await dialFallback({ host: "relay.test", port, pin }, "127.0.0.1")).close();
});
