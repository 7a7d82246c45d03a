/**
 * docs/monitoring: every query of the dashboard is answered by a real Prometheus that scrapes a real relay which carries packets, the
 * alert rules do what their tests say, and neither names a metric or a reason that there is not.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { DROP_REASONS } from "../../src/metrics.ts";
import { requires } from "../kit/requires.ts";
import { Background, taskFlags, until } from "../kit/namespaces.ts";
import { freePort, type LoopbackRelay, relayTest } from "./loopback_relay.ts";

const FOLDER = new URL("../../docs/monitoring/", import.meta.url).pathname;
const ROOT = new URL("../..", import.meta.url).pathname;
const SCRAPE_MS = 250;

interface Panel {
  title: string;
  type: string;
  targets?: { expr: string }[];
}

async function dashboard() {
  const json = JSON.parse(await Deno.readTextFile(`${FOLDER}dashboard.json`));
  const panels = (json.panels as Panel[]).filter(({ type }) => type !== "row");
  const queries = panels.flatMap(({ title, targets }) => targets!.map(({ expr }) => ({ title, expr })));
  return { json, panels, queries };
}

/** As Grafana fills in the variables, for scrapes as frequent as here. */
const filled = (expr: string) =>
  expr.replaceAll("$__rate_interval", `${8 * SCRAPE_MS}ms`).replaceAll("$job", "oxrelay").replaceAll(
    "$instance",
    ".*",
  );

/** Starts a program in the project's folder. */
function start(program: string, args: string[]): Background {
  return new Background(
    new Deno.Command(program, { args, cwd: ROOT, stdin: "null", stdout: "piped", stderr: "piped" }).spawn(),
  );
}

/** A Prometheus that scrapes the relay, and what asks it. */
async function prometheusOf(relay: LoopbackRelay) {
  const { directory } = relay;
  await Deno.writeTextFile(
    `${directory}/prometheus.yml`,
    `global: { scrape_interval: ${SCRAPE_MS}ms, scrape_timeout: ${SCRAPE_MS}ms }
rule_files: ["${FOLDER}alerts.yml"]
scrape_configs: [{ job_name: oxrelay, static_configs: [{ targets: ["127.0.0.1:${relay.adminPort}"] }] }]
`,
  );
  const listen = `127.0.0.1:${freePort()}`;
  const running = start("prometheus", [
    `--config.file=${directory}/prometheus.yml`,
    `--storage.tsdb.path=${directory}/data`,
    `--web.listen-address=${listen}`,
  ]);
  return {
    running,
    query: async (expr: string) => {
      const response = await fetch(`http://${listen}/api/v1/query?query=${encodeURIComponent(filled(expr))}`);
      return await response.json() as { status: string; error?: string; data?: { result: unknown[] } };
    },
    /** The health of each alert rule. */
    rules: async (): Promise<string[]> => {
      const { data } = await (await fetch(`http://${listen}/api/v1/rules`)).json();
      return data.groups[0].rules.map(({ health }: { health: string }) => health);
    },
  };
}

/** That alerts and dashboard name only what there is. */
async function namesOnly(exposition: string): Promise<void> {
  const known = new Set(
    [...exposition.matchAll(/^# TYPE (oxrelay_\w+) (\w+)/gm)].flatMap(([, name, type]) =>
      type === "histogram" ? [`${name}_bucket`, `${name}_sum`, `${name}_count`] : [name]
    ),
  );
  const alerts = await Deno.readTextFile(`${FOLDER}alerts.yml`);
  const { json } = await dashboard();
  for (const [name] of `${alerts}${JSON.stringify(json)}`.matchAll(/\boxrelay_[a-z_]+/g)) {
    assert(known.has(name), `${name} is no metric of the relay`);
  }
  const reasons = [...alerts.matchAll(/reason="(\w+)"/g)].map(([, reason]) => reason);
  for (const reason of reasons) assert(DROP_REASONS.some(([label]) => label === reason), reason);
  assert(reasons.length >= 5);
}

/** Panels that show nothing where nothing is lost, queued or repaired. */
const QUIET =
  /^(Drops of each device|Drops by reason|Sessions with repair|Waits .*|What repair costs|Round trips|Losses)$/;

relayTest(
  "monitoring: a real Prometheus answers every query of the dashboard, with a device that has series of its own",
  requires({ programs: ["prometheus"] }),
  { config: "devices_in_metrics = 1\n" },
  async (relay) => {
    const { directory } = relay;
    const invitation = `${directory}/laptop.conf`;
    for (const name of ["laptop", "spare"]) {
      const endpoint = ["--endpoint", `127.0.0.1:${relay.port}`];
      const added = await relay.run("peer", [
        "add",
        name,
        "--oxtunnel",
        ...endpoint,
        "--out",
        `${directory}/${name}.conf`,
      ]);
      assertEquals(added.code, 0, added.stderr);
    }
    const prometheus = await prometheusOf(relay);
    const ping = start(Deno.execPath(), [
      ...taskFlags("ping", directory),
      "main.ts",
      ...["ping", "--from", invitation, "--count", "60"],
    ]);
    try {
      const own = 'rate(oxrelay_device_sent_bytes_total{device="laptop"}[2s]) > 0';
      await until(
        async () => (await prometheus.query(own).catch(() => undefined))?.data?.result.length === 1,
        "the device has series",
      );
      const { queries } = await dashboard();
      assert(queries.length > 40);
      for (const { title, expr } of queries) {
        const { status, error, data } = await prometheus.query(expr);
        assertEquals(status, "success", `${title}: ${expr}: ${error}`);
        if (!QUIET.test(title)) assert(data!.result.length > 0, `${title}: nothing for ${expr}`);
      }
      assert(!(await prometheus.rules()).includes("err"));
      // Of two devices one may have a series, and the rest is added up; the alerts and the dashboard name what there is.
      const { text } = await relay.ask("/metrics", { token: "" });
      assertEquals(
        [...text.matchAll(/^oxrelay_device_connected\{device="(.*)"\}/gm)].map(([, name]) => name),
        ["laptop", "(others)"],
      );
      await namesOnly(text);
    } finally {
      await ping.stop("SIGTERM");
      await prometheus.running.stop("SIGTERM");
    }
  },
);

Deno.test({
  name: "monitoring: promtool finds the alert rules right, and wrong once a threshold is another",
  ...requires({ programs: ["promtool"] }),
  async fn() {
    const directory = await Deno.makeTempDir({ prefix: "oxrelay-alerts-" });
    try {
      const test = async () => {
        const args = ["test", "rules", `${directory}/alerts_test.yml`];
        const { code, stdout, stderr } = await new Deno.Command("promtool", { args }).output();
        return { code, said: new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr) };
      };
      const rules = await Deno.readTextFile(`${FOLDER}alerts.yml`);
      const tests = await Deno.readTextFile(`${FOLDER}alerts_test.yml`);
      await Deno.writeTextFile(`${directory}/alerts_test.yml`, tests);
      await Deno.writeTextFile(`${directory}/alerts.yml`, rules);
      const right = await test();
      assertEquals(right.code, 0, right.said);
      for (const [, alert] of rules.matchAll(/alert: (\w+)/g)) {
        assertMatch(
          tests,
          new RegExp(`alertname: ${alert}\\n\\s+exp_alerts`),
          `${alert} never fires in a test`,
        );
      }
      await Deno.writeTextFile(`${directory}/alerts.yml`, rules.replace("> 100\n", "> 1000\n"));
      assertEquals((await test()).code, 1);
    } finally {
      await Deno.remove(directory, { recursive: true });
    }
  },
});
