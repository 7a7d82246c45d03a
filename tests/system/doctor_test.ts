/**
 * `doctor` and `bugreport` beside a real relay: each line that doctor prints mends what it stands for, and doctor itself changes
 * nothing; and of secrets planted in every place that a report reads, no form is found in it.
 */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { Buffer } from "node:buffer";
import { generatePrivateKey, keyToText, publicKeyOf } from "../../src/process/keys_text.ts";
import { requires } from "../kit/requires.ts";
import { ADMIN_TOKEN, type Network, networkTest } from "../kit/namespaces.ts";
import { LoopbackRelay } from "./loopback_relay.ts";
import type { Finding } from "../../src/cli/checks/findings.ts";

const CONFIG = `exit = "userspace"\n`;

async function doctor(net: Network): Promise<{ isWell: boolean; findings: Finding[] }> {
  const env = [`OXRELAY_STATE_DIR=${net.directory}/state`, `OXRELAY_ADMIN_TOKEN=${ADMIN_TOKEN}`];
  const words = net.command("doctor", ["--json", "--config", `${net.directory}/oxrelay.toml`]);
  const { success, stdout, stderr } = await net.run("relay", ["env", ...env, ...words]);
  assert(stdout.startsWith("["), stderr);
  return { isWell: success, findings: JSON.parse(stdout) };
}

networkTest(
  "doctor: names what is wrong with the line that mends it, and changes nothing",
  requires({ root: true, programs: ["ip", "nft", "sh", "sysctl"] }),
  async (net) => {
    const firewall = `table inet filter {
  chain input { type filter hook input priority 0; policy drop; iifname "lo" accept; udp dport 53 accept; }
}
`;
    await net.must("relay", ["nft", "-f", "-"], { input: firewall });
    await net.must("relay", ["sysctl", "-qw", "net.ipv4.ping_group_range=1 0"]);
    await net.relay(CONFIG);
    await Deno.chmod(`${net.directory}/state/private.key`, 0o644);
    const picture = async () => [
      await net.must("relay", ["nft", "list", "ruleset"]),
      await net.must("relay", ["sysctl", "-a"]).then((all) =>
        all.split("\n").filter((line) => /ipv4|rmem|wmem/.test(line))
      ),
      [...Deno.readDirSync(`${net.directory}/state`)].map((
        { name },
      ) => [name, Deno.statSync(`${net.directory}/state/${name}`)]),
    ];
    const before = await picture();
    const { isWell, findings } = await doctor(net);
    assertEquals(await picture(), before);
    assertEquals(isWell, false);
    const wrong = findings.filter(({ state }) => state === "fail" || state === "warn");
    assertEquals(wrong.map(({ subject, state }) => [subject, state]), [
      ["firewall", "fail"],
      ["address", "warn"],
      ["pings", "warn"],
      ["state", "fail"],
    ]);
    assertMatch(findings[0].text, /^runs, listens on UDP 4433, exit userspace/);
    for (const { subject, line } of wrong) {
      if (subject !== "address") await net.must("relay", ["sh", "-c", line!]);
    }
    const after = await doctor(net);
    assertEquals(after.isWell, true);
    assertEquals(after.findings.filter(({ state }) => state !== "ok").map(({ subject }) => subject), [
      "address",
    ]);
  },
);

/** The forms in which a secret may be in a log or a file. */
function forms(secret: string): string[] {
  const raw = Buffer.from(secret, secret.length === 44 ? "base64" : "utf8");
  const hex = raw.toString("hex");
  const alone = [
    secret,
    raw.toString("base64url"),
    hex,
    hex.toUpperCase(),
    hex.match(/../g)!.join(":"),
    encodeURIComponent(secret),
  ];
  const inside = ["", "a", "ab"].map((before) => Buffer.from(`${before}${secret}`).toString("base64"));
  return [...alone, ...inside, Buffer.from(secret).toString("hex")];
}

/** What of a secret must not be in a report: its forms, and of base64 around it the part that does not depend on what is before. */
function traces(secret: string): string[] {
  return forms(secret).map((form) => form.slice(4, Math.max(16, form.length - 4)));
}

Deno.test({
  name: "bugreport: of secrets planted in every place it reads, no form is in it",
  ...requires({}),
  sanitizeResources: false,
  sanitizeOps: false,
  async fn() {
    const psk = keyToText(generatePrivateKey()), foreign = keyToText(generatePrivateKey());
    const token = "an-admin-token/of+this:relay";
    const device = keyToText(publicKeyOf(generatePrivateKey()));
    const relay = await LoopbackRelay.open(`admin_token = "${token}"\n`);
    try {
      const { directory } = relay;
      const added = await relay.ask("/v1/peers", {
        token,
        method: "POST",
        body: JSON.stringify({ name: "annas-phone", publicKey: device, presharedKey: psk }),
        headers: { "content-type": "application/json" },
      });
      assertEquals(added.status, 201, added.text);
      const own = (await Deno.readTextFile(`${directory}/state/private.key`)).trim();
      const known = [psk, token, own];
      const lines = [
        ...known.flatMap(forms),
        ...forms(foreign).slice(0, 6), // nobody's that is known here, but it has the form of a key
        `oxrelay://relay.example.com:4433?key=${foreign}&relay=${own}&address=10.66.0.2/32`,
        `Authorization: Bearer ${token}`,
        `PrivateKey = ${foreign}`,
        `{"presharedKey":"${psk}"}`,
        `-----BEGIN PRIVATE KEY-----\n${foreign}\n-----END PRIVATE KEY-----`,
        "annas-phone roamed from 203.0.113.77:4711 to [2a02:aaaa:bbbb:cccc::77]:4711, 192.168.1.7 stays",
      ];
      await Deno.writeTextFile(`${directory}/relay.log`, lines.join("\n"));
      const words = ["--log", `${directory}/relay.log`, "--out", `${directory}/report.txt`];
      const made = await relay.run("bugreport", words);
      assertEquals(made.code, 0, made.stderr);
      const report = await Deno.readTextFile(`${directory}/report.txt`);
      assertEquals((await Deno.stat(`${directory}/report.txt`)).mode! & 0o777, 0o600);
      for (const secret of [...known, foreign]) {
        for (const trace of traces(secret)) assert(!report.includes(trace), `${trace} is in the report`);
      }
      for (const personal of ["annas-phone", device, "203.0.113.77", "2a02:aaaa:bbbb:cccc::77"]) {
        assert(!report.includes(personal), personal);
      }
      // It is of use all the same.
      assertStringIncludes(report, "device-1 roamed from 203.0.113.77".replace("77", "x"));
      assertStringIncludes(report, "192.168.1.7 stays");
      for (
        const word of [
          '"rate_limit_per_ip": 20',
          "handshake_initiations",
          "the relay listens",
          "Deno 2.",
          '"ok": true',
        ]
      ) {
        assertStringIncludes(report, word);
      }
      assertMatch(
        (await relay.run("bugreport", words)).stderr,
        /report\.txt: .*something of that name is there already/,
      );
    } finally {
      await relay.close();
    }
  },
});
