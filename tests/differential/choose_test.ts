/**
 * The choice between io_uring and mmsg on this machine: `auto` measures both, in time and leaving nothing open; what is
 * asked for is taken; and where a seccomp filter forbids io_uring, as container runtimes do, mmsg is taken with the
 * reason, or the config's wish refused with it.
 */
import { assert, assertEquals, assertLess, assertMatch, assertStringIncludes } from "@std/assert";
import { loadNative } from "../../ffi/native.ts";
import { chooseNative, openNative } from "../../src/io/choose.ts";
import { uringObstacle } from "../../src/io/uring.ts";

const ROOT = new URL("../..", import.meta.url).href;
const native = loadNative();
const obstacle = typeof native === "string" ? native : uringObstacle(native);
if (obstacle) console.error(`SKIPPED tests/differential/choose_test.ts: ${obstacle}`);

Deno.test({
  name: "choose: auto measures both and says both figures, and leaves nothing open",
  ignore: obstacle !== undefined,
  fn: async () => {
    assert(typeof native !== "string");
    const open = () =>
      openNative({ io: "mmsg", reason: "" }, { native, host: "::1", port: 0, onRefused() {} });
    const before = open();
    await before.close();
    const { io, reason } = await chooseNative(native, "auto");
    const figures = /^([\d.]+) million datagrams\/s by io_uring, ([\d.]+) by mmsg, on loopback$/.exec(reason);
    assert(figures, reason);
    const [uring, mmsg] = figures.slice(1).map(Number);
    assertLess(0.01, Math.min(uring, mmsg));
    // The figures are rounded, so a close race may go either way.
    if (Math.abs(uring - 1.05 * mmsg) > 0.02) assertEquals(io, uring > 1.05 * mmsg ? "io_uring" : "mmsg");
    const after = open();
    assertEquals(after.descriptor, before.descriptor);
    await after.close();
  },
});

Deno.test({
  name: "choose: what the config asks for is what opens",
  ignore: obstacle !== undefined,
  fn: async () => {
    assert(typeof native !== "string");
    for (const io of ["io_uring", "mmsg"] as const) {
      const choice = await chooseNative(native, io);
      assertEquals(choice, { io, reason: "the config asks for it" });
      const port = openNative(choice, { native, host: "127.0.0.1", port: 0, onRefused() {} });
      assertStringIncludes(port.description, `/udp (${io}`);
      await port.close();
    }
  },
});

/** Puts a filter on its own thread under which io_uring_setup, call 425, fails with EPERM; then chooses. */
const FORBIDDEN = `
import { loadNative } from "${ROOT}ffi/native.ts";
import { chooseNative } from "${ROOT}src/io/choose.ts";
const { prctl } = Deno.dlopen("/lib/x86_64-linux-gnu/libc.so.6", {
  prctl: { parameters: ["i32", "usize", "buffer", "usize", "usize"], result: "i32" },
}).symbols;
const instruction = (code, jt, jf, k) => [code | jt << 16 | jf << 24, k];
const filter = new Uint32Array([
  ...instruction(0x20, 0, 0, 0),            // load the call's number
  ...instruction(0x15, 0, 1, 425),          // is it io_uring_setup?
  ...instruction(0x06, 0, 0, 0x00050001),   // SECCOMP_RET_ERRNO | EPERM
  ...instruction(0x06, 0, 0, 0x7fff0000),   // SECCOMP_RET_ALLOW
]);
const program = new BigUint64Array([4n, Deno.UnsafePointer.value(Deno.UnsafePointer.of(filter))]);
if (prctl(38, 1n, null, 0n, 0n) !== 0) throw new Error("PR_SET_NO_NEW_PRIVS");
if (prctl(22, 2n, program, 0n, 0n) !== 0) throw new Error("PR_SET_SECCOMP");
const native = loadNative();
console.log(JSON.stringify(await chooseNative(native, "auto")));
console.log(await chooseNative(native, "io_uring").catch((error) => error.message));
`;

Deno.test({
  name: "choose: where io_uring is forbidden mmsg is taken, with the reason",
  ignore: obstacle !== undefined,
  fn: async () => {
    const file = await Deno.makeTempFile({ suffix: ".ts" });
    try {
      await Deno.writeTextFile(file, FORBIDDEN);
      const { stdout, stderr } = await new Deno.Command(Deno.execPath(), {
        args: [
          "run",
          "--no-prompt",
          "--no-lock",
          "--config",
          new URL("../../deno.json", import.meta.url).pathname,
        ]
          .concat("--allow-ffi", "--allow-read", file),
        env: { DENO_NO_UPDATE_CHECK: "1" },
      }).output();
      const [auto, asked] = new TextDecoder().decode(stdout).trim().split("\n");
      assert(auto, new TextDecoder().decode(stderr));
      const because = "it is forbidden here, by kernel.io_uring_disabled or a seccomp filter (errno 1)";
      assertEquals(JSON.parse(auto), { io: "mmsg", reason: `io_uring cannot be used: ${because}` });
      assertMatch(asked, /^io = "io_uring" cannot be used: it is forbidden here, .* or set io = "auto"$/);
    } finally {
      await Deno.remove(file);
    }
  },
});
