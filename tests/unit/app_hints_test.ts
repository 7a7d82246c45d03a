/**
 * `--priority app=…`: what is read of /proc, with this very process as the program; and which hints become of it, within
 * which bounds.
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { APP_HINTS_MAX, AppHints } from "../../src/connect/app_hints.ts";
import { type AppSocket, AppSockets, readSocket } from "../../src/connect/app_sockets.ts";
import { UsageError } from "../../src/process/help.ts";
import { readAppPriorities, readPriorities } from "../../src/connect/priorities.ts";
import { eachLine, firstLine, linkedName, numbersIn, socketInode } from "../../src/process/proc.ts";
import { CLASS_GAME, CLASS_VOICE } from "../../src/control/traffic_class.ts";

const UDP = 17, TCP = 6;
const linux = { ignore: Deno.build.os !== "linux" };

Deno.test("app: what --priority takes, and what it refuses", () => {
  const texts = ["app=csgo:game", "app=Web Content=voice", "bulk=tcp:443", "app=a.b-c:game"];
  assertEquals(readAppPriorities(texts), [
    { name: "csgo", trafficClass: CLASS_GAME },
    { name: "Web Content", trafficClass: CLASS_VOICE },
    { name: "a.b-c", trafficClass: CLASS_GAME },
  ]);
  assertEquals(readPriorities(texts).length, 1);
  for (
    const wrong of [
      "app=",
      "app=csgo",
      "app=:game",
      "app=csgo:fast",
      "app=/usr/bin/csgo:game",
      "app=a:toString",
    ]
  ) {
    assertThrows(() => readAppPriorities([wrong]), UsageError, "such as app=csgo:game");
  }
  assertThrows(() => readAppPriorities(Array(33).fill("app=a:game")), UsageError, "at most 32 programs");
  assertThrows(
    () => readPriorities(["app=a:game", ...Array(33).fill("game=udp:1")]),
    UsageError,
    "at most 32, found 33",
  );
});

Deno.test("app: lines of the kernel's tables, and what is none", () => {
  const line = (local: string, state = "07") =>
    `  421: ${local} 00000000:0000 ${state} 00000000:00000000 00:00000000 00000000  1000        0 40587 2 0 0`;
  assertEquals(readSocket(line("0201C90A:C001"), UDP), { protocol: UDP, port: 0xc001, isLoopback: false });
  assertEquals(readSocket(line("3500007F:0035"), UDP)!.isLoopback, true);
  const six = (address: string) => readSocket(line(`${address}:1F90`, "01"), TCP);
  assertEquals(six("00000000000000000000000001000000")!.isLoopback, true);
  assertEquals(six("0000000000000000FFFF00000100007F")!.isLoopback, true);
  assertEquals(six("B80D0120000000000000000001000000")!.isLoopback, false);
  assertEquals(six("0000000000000000000000000100007F")!.isLoopback, false, "no mapped address");
  for (const none of [line("00000000:0000"), line("0:1"), "", "a b c"]) {
    assertEquals(readSocket(none, UDP), undefined);
  }
  assertEquals(readSocket(line("00000000:1F90", "0A"), TCP), undefined, "it listens");
  assert(readSocket(line("00000000:1F90", "0A"), UDP));
});

Deno.test({
  name: "app: this process is found by its name and by its file's, with its sockets",
  ...linux,
  fn() {
    const comm = firstLine("/proc/self/comm")!, file = linkedName("/proc/self/exe")!;
    assertEquals(file, Deno.execPath().replace(/^.*\//, ""));
    const udp = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
    const tcp = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const { port } = udp.addr as Deno.NetAddr;
    try {
      for (const name of [comm, file]) {
        const found = new AppSockets([{ name, trafficClass: CLASS_GAME }]).look();
        const mine = found.find((one) => one.protocol === UDP && one.port === port);
        assertEquals(mine, { protocol: UDP, port, isLoopback: true, trafficClass: CLASS_GAME });
        assert(!found.some((one) => one.protocol === TCP && one.port === tcp.addr.port), "it only listens");
      }
      assertEquals(new AppSockets([{ name: "no-such-program", trafficClass: CLASS_GAME }]).look(), []);
    } finally {
      udp.close();
      tcp.close();
    }
    const later = new AppSockets([{ name: comm, trafficClass: CLASS_GAME }]).look();
    assert(!later.some((one) => one.protocol === UDP && one.port === port), "it is gone");
  },
});

Deno.test({
  name: "app: a young process that becomes the program is found at the next look",
  ...linux,
  async fn() {
    const directory = await Deno.makeTempDir({ prefix: "oxrelay-app-" });
    const name = `ox${Deno.pid % 1e6}`, program = `${directory}/${name}`;
    const script = `const s = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
      console.log(s.addr.port);
      await Deno.stdin.read(new Uint8Array(1));`;
    // A shell until it is told otherwise.
    const shell = `ln -s "$0" ${program}; echo; read line; exec ${program} eval --unstable-net '${script}'`;
    const child = new Deno.Command("sh", {
      args: ["-c", shell, Deno.execPath()],
      stdin: "piped",
      stdout: "piped",
    })
      .spawn();
    const writer = child.stdin.getWriter(), reader = child.stdout.getReader();
    try {
      await reader.read();
      const sockets = new AppSockets([{ name, trafficClass: CLASS_GAME }]);
      assertEquals(sockets.look(), []);
      await writer.write(new TextEncoder().encode("\n"));
      const port = Number(new TextDecoder().decode((await reader.read()).value));
      assert(port > 0);
      assertEquals(sockets.look().map((one) => one.port), [port]);
    } finally {
      await writer.close();
      await reader.cancel();
      await child.status;
      await Deno.remove(directory, { recursive: true });
    }
  },
});

Deno.test({
  name: "app: what cannot be read is nothing, and what is long is read to its bound",
  ...linux,
  fn() {
    assertEquals([firstLine("/proc/0/comm"), linkedName("/proc/0/exe"), socketInode("/proc/self/exe")], [
      undefined,
      undefined,
      0,
    ]);
    assertEquals(numbersIn("/proc/0/fd", 10), []);
    assertEquals(numbersIn("/proc", 1).length, 1);
    assert(numbersIn("/proc", 8192).includes(Deno.pid));
    const lines = (maxBytes: number) => {
      const all: string[] = [];
      eachLine("/proc/self/smaps", maxBytes, (bytes, start, end) => {
        all.push(new TextDecoder().decode(bytes.subarray(start, end)));
      });
      return all;
    };
    // Hundreds of kilobytes, over many reads, in which every line is whole.
    const all = lines(1 << 24);
    assert(all.length > 2000, `${all.length}`);
    for (const line of all) assert(/^[0-9a-f]+-[0-9a-f]+ |^\w+: /.test(line), line);
    assert(lines(8192).length < 1000);
    eachLine("/proc/none", 8192, () => assert(false));
  },
});

/** The hints that hold after each look. */
class Recorder {
  sockets: AppSocket[] = [];
  readonly held = new Map<string, number>();
  changes = 0;
  readonly #hints = new AppHints({
    apps: [{ name: "a", trafficClass: CLASS_GAME }],
    hint: ({ protocol, clientPort, remotePort }, trafficClass) => {
      assertEquals(remotePort, 0);
      this.changes++;
      if (trafficClass === undefined) assert(this.held.delete(`${protocol} ${clientPort}`));
      else this.held.set(`${protocol} ${clientPort}`, trafficClass);
    },
    innerPort: ({ port, isLoopback }) => isLoopback ? undefined : port,
    sockets: { look: () => this.sockets },
  });
  #nowMs = 0;

  /** One look, a second later. */
  look(): string[] {
    this.#nowMs += 1000;
    this.#hints.tend(this.#nowMs);
    this.#hints.tend(this.#nowMs + 500);
    return [...this.held.keys()];
  }
}

const socket = (port: number, more: Partial<AppSocket> = {}): AppSocket => ({
  protocol: UDP,
  port,
  isLoopback: false,
  trafficClass: CLASS_GAME,
  ...more,
});

Deno.test("app: a socket's hint comes and goes with it, and follows its class", () => {
  const recorder = new Recorder();
  recorder.sockets = [socket(5000), socket(5000, { protocol: TCP }), socket(5001, { isLoopback: true })];
  assertEquals(recorder.look(), ["17 5000", "6 5000"]);
  recorder.sockets = [socket(5000, { trafficClass: CLASS_VOICE })];
  assertEquals(recorder.look(), ["17 5000"]);
  assertEquals(recorder.held.get("17 5000"), CLASS_VOICE);
  const { changes } = recorder;
  recorder.look();
  assertEquals(recorder.changes, changes, "what is known is not said again");
  recorder.sockets = [];
  assertEquals(recorder.look(), []);
});

Deno.test("app: of many sockets few are hinted at, and few changes a second are made", () => {
  const recorder = new Recorder();
  recorder.sockets = Array.from({ length: 200 }, (_, i) => socket(5000 + i));
  assertEquals(recorder.look().length, 5);
  for (let i = 0; i < 20; i++) recorder.look();
  assertEquals(recorder.held.size, APP_HINTS_MAX);
  // All at once others take their places: never more than there may be.
  recorder.sockets = Array.from({ length: 200 }, (_, i) => socket(9000 + i));
  for (let i = 0; i < 30; i++) assert(recorder.look().length <= APP_HINTS_MAX);
  assertEquals(recorder.held.size, APP_HINTS_MAX);
  assert([...recorder.held.keys()].every((name) => name.startsWith("17 9")));
});
