/**
 * The process that the store's tests kill: adds peers without end and says each name once it is stored.
 * Arguments: state directory, first name's prefix. On a refused write it says "refused" and stops.
 */
import { generatePrivateKey, keyToText, publicKeyOf } from "../../src/process/keys_text.ts";
import { PeerStore } from "../../src/serve/store.ts";

const [stateDir, prefix] = Deno.args;
const store = new PeerStore({ stateDir, tunnelIpv4: "10.66.0.0/16", tunnelIpv6: "fd00:1:2::/64" });
const encoder = new TextEncoder();
try {
  for (let i = 0;; i++) {
    const publicKey = keyToText(publicKeyOf(generatePrivateKey()));
    const { name } = await store.add({
      name: `${prefix}-${i}`,
      publicKey,
      created: new Date().toISOString(),
    });
    Deno.stdout.writeSync(encoder.encode(`${name}\n`));
  }
} catch (error) {
  const peers = await store.load();
  const left: string[] = [];
  for await (const { name } of Deno.readDir(stateDir)) left.push(name);
  console.log(
    `refused ${peers.length} ${left.sort().join(",")}\n${error instanceof Error ? error.message : error}`,
  );
}
