/**
 * A thread that ends after the native library was closed: AWS-LC frees its state of a thread by a pthread key's destructor,
 * which glibc calls with the code unmapped, and the process dies. So no library with such keys may ever be unmapped.
 * Seen by what the file says of itself and by Workers that end, in a child. RESTARTS chooses how many relay workers; 6 unless told.
 */
import { assert, assertEquals } from "@std/assert";
import { loadNative } from "../../ffi/native.ts";

const native = loadNative();
if (typeof native === "string") console.error(`SKIPPED tests/system/library_test.ts: ${native}`);
const ignore = typeof native === "string";
const ROOT = new URL("../..", import.meta.url).pathname;
const LIBRARY = `${ROOT}ffi/prebuilt/x86_64-unknown-linux-gnu/liboxrelay.so`;
const ISA_L = "/usr/lib/x86_64-linux-gnu/libisal.so.2";
const LIBC = "/lib/x86_64-linux-gnu/libc.so.6,/lib/aarch64-linux-gnu/libc.so.6";
const CHILD = new URL("restarts_child.ts", import.meta.url).pathname;
const RESTARTS = Number(Deno.env.get("RESTARTS") ?? 6);

/** When a child is ended, on a machine however busy. */
const CHILD_S = 60, RESTART_S = 20;

const PT_DYNAMIC = 2;
const DT_FLAGS_1 = 0x6ffffffb, DF_1_NODELETE = 8;

/** Whether a 64-bit little-endian ELF file asks never to be unmapped (System V ABI, "Dynamic Section"). */
function isNeverUnmapped(elf: Uint8Array): boolean {
  const view = new DataView(elf.buffer, elf.byteOffset, elf.length);
  const u64 = (at: number) => Number(view.getBigUint64(at, true));
  const headers = u64(32), headerBytes = view.getUint16(54, true), count = view.getUint16(56, true);
  for (let header = headers; header < headers + count * headerBytes; header += headerBytes) {
    if (view.getUint32(header, true) !== PT_DYNAMIC) continue;
    const start = u64(header + 8), end = start + u64(header + 32);
    for (let entry = start; entry < end && u64(entry) !== 0; entry += 16) {
      if (u64(entry) === DT_FLAGS_1) return (u64(entry + 8) & DF_1_NODELETE) !== 0;
    }
  }
  return false;
}

const makesThreadKeys = (elf: Uint8Array) =>
  new TextDecoder("latin1").decode(elf).includes("pthread_key_create");

async function child(kind: "worker" | "forged", restarts: number): Promise<void> {
  const command = new Deno.Command("timeout", {
    args: [
      String(CHILD_S + restarts * RESTART_S),
      Deno.execPath(),
      "run",
      "--no-prompt",
      `--allow-read=${ROOT}`,
      "--allow-net=127.0.0.1",
      "--allow-sys=networkInterfaces",
      `--allow-ffi=${LIBC},${LIBRARY}`,
      CHILD,
      kind,
      String(restarts),
    ],
    cwd: ROOT,
    stdout: "piped",
    stderr: "piped",
  });
  const { code, signal, stdout, stderr } = await command.output();
  const text = new TextDecoder();
  assertEquals({ code, signal, lived: text.decode(stdout).trim() }, {
    code: 0,
    signal: null,
    lived: String(restarts),
  }, text.decode(stderr).slice(-2000));
}

Deno.test({
  name: "library: what leaves destructors with threads is never unmapped",
  ignore,
  async fn() {
    const elf = await Deno.readFile(LIBRARY);
    assert(makesThreadKeys(elf), "then nothing needs to be kept mapped, and these tests can go");
    assert(isNeverUnmapped(elf), "liboxrelay.so is linked without -z nodelete");
    const isal = await Deno.readFile(ISA_L).catch(() => undefined);
    if (isal) {
      assert(isNeverUnmapped(isal) || !makesThreadKeys(isal), "libisal.so.2 may crash threads that end");
    }
  },
});

Deno.test({
  name: "library: 25 Workers that met a forged message end one after the other, and the process lives",
  ignore,
  fn: () => child("forged", 25),
});

Deno.test({
  name: `library: a relay worker fails and is started again ${RESTARTS} times in one process`,
  ignore,
  fn: () => child("worker", RESTARTS),
});
