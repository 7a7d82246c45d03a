/**
 * The native libraries on processors that the machine does not have, emulated by qemu-user: arm64, and an x86-64 without AVX, AES
 * and VAES (Nehalem, the first with x86-64-v2). The kernels against published vectors; `deno task test:arm64` runs all the rest.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { requires } from "../kit/requires.ts";

const ROOT = new URL("../..", import.meta.url).pathname;

async function run(program: string, args: string[]): Promise<string> {
  const { code, stdout, stderr } = await new Deno.Command(program, {
    args,
    cwd: ROOT,
    env: { DENO_NO_UPDATE_CHECK: "1", NO_COLOR: "1" },
    stdin: "null",
  }).output();
  const text = new TextDecoder();
  const said = text.decode(stdout) + text.decode(stderr);
  assertEquals(code, 0, said);
  return said;
}

Deno.test({
  name: "processors: arm64: the library is this tree's, and does what the published vectors say",
  ...requires({ programs: ["qemu-aarch64-static", "npm"] }),
  async fn() {
    const said = await run(Deno.execPath(), ["task", "test:arm64", "--quick"]);
    for (
      const name of [
        /^native: the committed library was built from this tree's sources \.\.\. ok/m,
        /^Wycheproof: chacha20Poly1305 by native, AWS-LC \.\.\. ok/m,
        /^Wycheproof: aes256Gcm by native, AWS-LC \.\.\. ok/m,
        /^Wycheproof: x25519 by native \.\.\. ok/m,
        /^datagram, native, AWS-LC: published masks \.\.\. ok/m,
        /^datagram, native, AWS-LC: seals, unprotects and opens mixed bursts byte for byte .* ok/m,
        /^ChaCha20-Poly1305 by AWS-LC: seals and opens random bursts byte for byte .* ok/m,
        /^AES-256-GCM by AWS-LC: seals and opens random bursts byte for byte .* ok/m,
        /^native: OxTunnel's handshake is what the text says \.\.\. ok/m,
        /^shards: products are those of GF\(2\^8\) with 0x11d, whatever the kernel \.\.\. ok/m,
      ]
    ) assertMatch(said, name);
    assert(!said.includes("SKIPPED tests/differential/shards_test.ts, neon"), said);
  },
});

Deno.test({
  name: "processors: an x86-64 without AVX: the library does what the published vectors say",
  ...requires({ programs: ["qemu-x86_64-static"] }),
  async fn() {
    const files = ["tests/vectors/primitives_test.ts", "tests/vectors/wycheproof_test.ts"];
    const names = "/^native: (RFC|keyed|low|the AEAD|IKpsk2)|by native/";
    const flags = ["--no-check", "--cached-only", "--no-prompt", "-P=test", "--filter", names];
    const said = await run("qemu-x86_64-static", [
      "-cpu",
      "Nehalem",
      Deno.execPath(),
      "test",
      ...flags,
      ...files,
    ]);
    assertMatch(said, /^Wycheproof: aes256Gcm by native, AWS-LC \.\.\. ok/m);
    assertMatch(said, /^SKIPPED aes256Gcm, native 2: this processor lacks the instructions/m);
    assert(!/FAILED/.test(said), said);
  },
});
