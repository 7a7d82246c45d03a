/** A real Prometheus scrapes the metrics, and its own query interface tells the right values. Loopback only. */
import { assertEquals } from "@std/assert";
import { getLogger } from "@logtape/logtape";
import { createServer } from "node:net";
import { createAdmin } from "../../src/admin/mod.ts";
import { serveAdmin } from "../../src/admin/server.ts";
import { DROP, Metrics } from "../../src/metrics.ts";
import { relay } from "../kit/admin_relay.ts";
import type { RelaySnapshot } from "../../src/session/peer_record.ts";
import { requires } from "../kit/requires.ts";

const SCRAPE_MS = 200;
const PATIENCE_MS = 30_000;
const EMPTY: RelaySnapshot = {
  peers: [],
  sessions: [],
  applications: {},
  delays: { queue: [], processing: [] },
};

/** A TCP port of loopback that nobody has now. */
function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}

/** The values of an instant query, by the label asked for; undefined while Prometheus does not answer. */
async function query(url: string, expression: string, label: string) {
  try {
    const response = await fetch(`${url}/api/v1/query?query=${encodeURIComponent(expression)}`);
    const { data } = await response.json();
    return Object.fromEntries(
      data.result.map(
        (
          { metric, value }: { metric: Record<string, string>; value: [number, string] },
        ) => [metric[label], value[1]],
      ),
    );
  } catch {
    return undefined;
  }
}

/** Asks until the answer is as expected; fails with the last answer when patience ends. */
async function queryUntil(url: string, expression: string, label: string, expected: Record<string, string>) {
  const endMs = performance.now() + PATIENCE_MS;
  while (true) {
    const answer = await query(url, expression, label);
    if (performance.now() > endMs || JSON.stringify(answer) === JSON.stringify(expected)) {
      assertEquals(answer, expected, expression);
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, SCRAPE_MS));
  }
}

Deno.test({
  name: "prometheus: scrapes the relay, and sees counters move and the target go away",
  ...requires({ programs: ["prometheus"] }),
  async fn() {
    const metrics = [new Metrics(), new Metrics()];
    const app = createAdmin({
      ...relay(),
      metrics,
      snapshot: () => Promise.resolve({ ...EMPTY, applications: { zoom: 1 } }),
      applicationsInMetrics: () => true,
    });
    const directory = await Deno.makeTempDir({ prefix: "oxrelay-prometheus-" });
    const server = serveAdmin(app, { host: "127.0.0.1", port: 0 }, getLogger(["oxrelay", "test"]));
    const target = `127.0.0.1:${server.addr.port}`;
    await Deno.writeTextFile(
      `${directory}/prometheus.yml`,
      `global: { scrape_interval: ${SCRAPE_MS}ms, scrape_timeout: ${SCRAPE_MS}ms }
scrape_configs: [{ job_name: oxrelay, static_configs: [{ targets: ["${target}"] }] }]
`,
    );
    const listen = `127.0.0.1:${await freePort()}`;
    const prometheus = new Deno.Command("prometheus", {
      args: [
        `--config.file=${directory}/prometheus.yml`,
        `--storage.tsdb.path=${directory}/data`,
        `--web.listen-address=${listen}`,
        "--log.level=error",
      ],
      stdin: "null",
      stdout: "null",
      stderr: "inherit",
    }).spawn();
    try {
      const url = `http://${listen}`;
      metrics[0].add("bytes_received", 1000);
      metrics[1].add("bytes_received", 234);
      metrics[1].drop(DROP.replayed);
      await queryUntil(url, "up", "job", { oxrelay: "1" });
      await queryUntil(url, "oxrelay_received_bytes_total", "job", { oxrelay: "1234" });
      await queryUntil(url, "oxrelay_dropped_packets_total > 0", "reason", { replayed: "1" });
      metrics[0].add("bytes_received", 2 ** 40);
      await queryUntil(url, "oxrelay_received_bytes_total", "job", { oxrelay: String(2 ** 40 + 1234) });
      await queryUntil(url, "oxrelay_build_info", "exit", { userspace: "1" });
      await server.shutdown();
      await queryUntil(url, "up", "job", { oxrelay: "0" });
    } finally {
      prometheus.kill("SIGTERM");
      await prometheus.status;
      await server.shutdown();
      await Deno.remove(directory, { recursive: true });
    }
  },
});
