/**
 * A relay's TLS door whose only Worker never takes anything, as a process of its own whose memory is that door's. Says port,
 * pin and resident memory as a line, and the memory again for each line that it reads; ends with its input.
 */
import { X509Certificate } from "node:crypto";
import { FallbackDoor } from "../../src/serve/fallback_door.ts";
import { parseConfig } from "../../src/config.ts";
import { openMailboxes } from "../../src/io/mailbox.ts";

const [certificate, privateKey] = Deno.args;
const probe = Deno.listen({ hostname: "127.0.0.1", port: 0 });
const { port } = probe.addr as Deno.NetAddr;
probe.close();
const text =
  `[fallback]\nlisten = "127.0.0.1:${port}"\ncertificate = "${certificate}"\nprivate_key = "${privateKey}"\n`;
const config = parseConfig(text, "test", {});
await FallbackDoor.open(config, config.fallback!, openMailboxes(2));
const { fingerprint256 } = new X509Certificate(await Deno.readTextFile(certificate));
const pin = fingerprint256.replaceAll(":", "").toLowerCase();
const say = () => console.log(JSON.stringify({ port, pin, rss: Deno.memoryUsage().rss }));
say();
for await (const _ of Deno.stdin.readable) say();
Deno.exit();
