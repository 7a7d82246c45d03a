/** Mutations of the first minutes and of the helpers: src/cli/checks, src/cli/state, and what they have of src/serve and src/ingress. */
import type { Mutation } from "./mutation.ts";

const FIRST = "tests/system/first_minutes_test.ts", CHECKS = "tests/system/checks_test.ts";
const MOVING = "tests/system/moving_test.ts", DOCTOR = "tests/system/doctor_test.ts";
const BACKUP = "tests/unit/backup_test.ts", FACTS = "tests/unit/checks_test.ts";
const SERVER_FILES = "tests/unit/wireguard_server_test.ts";

export const HELP_ROWS: readonly Mutation[] = [
  {
    file: "src/serve/admin_address.ts",
    from: "if (!isTaken || !isDefault(config) || next === 0) throw error;",
    to: "throw error;",
    tests: [FIRST],
    note: "a taken 9090 ends the relay",
  },
  {
    file: "src/serve/admin_address.ts",
    from: "if (!isTaken || !isDefault(config) || next === 0) throw error;",
    to: "if (!isTaken || next === 0) throw error;",
    tests: [FIRST],
    note: "a chosen port is exchanged for another",
  },
  {
    file: "src/cli/status.ts",
    from: "if (!(error instanceof CommandError)) throw error;",
    to: "throw error;",
    tests: [FIRST],
    note: "status ends with the relay",
  },
  {
    file: "src/process/secret_output.ts",
    from: "fchmodSync(STDOUT, OWN);",
    to: "",
    tests: [FIRST],
    note: "a redirected private key is open to everybody",
  },
  {
    file: "src/cli/qr.ts",
    from: "if (columns > 0 && columns < needed) {",
    to: "if (columns < 0) {",
    tests: [FIRST],
    note: "a QR code is wider than the terminal",
  },
  {
    file: "src/process/permitted_line.ts",
    from: "...(isState && set.write !== undefined ?",
    to: "...(isState && set.write === undefined ?",
    tests: [FIRST],
    note: "the line that a refusal gives does not work",
  },
  {
    file: "src/ingress/pings.ts",
    from:
      "if (request.word !== word || request.peer !== id || !request.isSent || request.rttUs >= 0) continue;",
    to: "continue;",
    tests: [CHECKS],
    note: "no reply is taken",
  },
  {
    file: "src/exit/tun/conntrack.ts",
    from: "if (type === CT_NEW) count++;",
    to: "",
    tests: [CHECKS],
    note: "the connections of a tun exit are not counted",
  },
  {
    file: "src/cli/checks/nat.ts",
    from: "if (seen.length > 1) {",
    to: "if (seen.length < 0) {",
    tests: [CHECKS],
    note: "a strict NAT is not told from an open one",
  },
  {
    file: "src/session/oxtunnel/negotiation.ts",
    from: "...(said.probe ? { seen: seenIn(burst, row) } : {}),",
    to: "",
    tests: [CHECKS, "tests/sim/path_test.ts"],
    note: "a relay does not tell where a probe came from",
  },
  {
    file: "src/cli/checks/netcheck.ts",
    from: "return tls.up > THROTTLED_BY * udp.up || tls.down > THROTTLED_BY * udp.down;",
    to: "return false;",
    tests: [CHECKS],
    note: "UDP that is slowed down is not seen",
  },
  {
    file: "src/cli/admin_client.ts",
    from: 'if (status === 503 && new URL(url).pathname === "/healthz" && isHealth(answer)) return answer;',
    to: "",
    tests: [FACTS],
    note: "a relay that is not well is taken for another program",
  },
  {
    file: "src/cli/checks/findings.ts",
    from: "    if (relayMistake !== undefined) {",
    to: "    if (false) {",
    tests: [FACTS],
    note: "the port of a relay that cannot be asked is another program's",
  },
  {
    file: "src/cli/checks/firewall.ts",
    from: 'const isDropped = end === "drop" || (end === "next" && /policy drop;/.test(base));',
    to: 'const isDropped = end === "next" && /policy drop;/.test(base);',
    tests: [FACTS],
    note: "a firewall that ends with a drop is not seen",
  },
  {
    file: "src/cli/checks/scrub.ts",
    from: "for (const form of secrets.flatMap(formsOf)) clean = clean.replaceAll(form, REMOVED);",
    to: "",
    tests: [DOCTOR],
    note: "known secrets stay in a report",
  },
  {
    file: "src/cli/checks/scrub.ts",
    from: "for (const [pattern, by] of PATTERNS) clean = clean.replace(pattern, by);",
    to: "",
    tests: [DOCTOR],
    note: "keys that nobody here knows stay in a report",
  },
  {
    file: "src/admin/device_metrics.ts",
    from: "series.total[field] += peer[field] >= before[field] ? peer[field] - before[field] : peer[field];",
    to: "series.total[field] = peer[field];",
    tests: ["tests/unit/device_metrics_test.ts"],
    note: "a device's counters fall",
  },
  {
    file: "src/admin/device_metrics.ts",
    from: "const free = max - this.#own.size;",
    to: "const free = peers.length;",
    tests: ["tests/unit/device_metrics_test.ts"],
    note: "series of devices are not bounded",
  },
  {
    file: "src/admin/device_metrics.ts",
    from: "for (const field of COUNTED) this.#others.total[field] += total[field];",
    to: "",
    tests: ["tests/unit/device_metrics_test.ts"],
    note: "what a removed device counted is lost",
  },
  {
    file: "src/serve/relay_process.ts",
    from: "devicesInMetrics: () => this.#config.devicesInMetrics,",
    to: "devicesInMetrics: () => 0,",
    tests: ["tests/system/monitoring_test.ts"],
    note: "devices_in_metrics does nothing",
  },
  {
    file: "src/cli/state/backup.ts",
    from: "if (bytes === undefined || digestOf(bytes) !== one.sha256) {",
    to: "if (bytes === undefined) {",
    tests: [MOVING],
    note: "a damaged backup is restored",
  },
  {
    file: "src/cli/state/backup.ts",
    from: "if ((isFile || isSymlink) && NAME",
    to: "if (isFile && NAME",
    tests: [BACKUP],
    note: "links in the state directory are left out of a backup",
  },
  {
    file: "src/cli/state/backup.ts",
    from:
      "const ordered = [...found.files].toSorted(([a], [b]) => Number(b === KEY_NAME) - Number(a === KEY_NAME));",
    to: "const ordered = [...found.files];",
    tests: [BACKUP],
    note: "a crash in a restore leaves a state without the key",
  },
  {
    file: "src/process/durable.ts",
    from: "await Deno.link(temporary, path);",
    to: "await Deno.rename(temporary, path);",
    tests: [BACKUP],
    note: "a file that must not exist yet is overwritten",
  },
  {
    file: "src/cli/state/peer_import.ts",
    from: "if (isSame) return true;",
    to: "return true;",
    tests: [MOVING],
    note: "an import takes peers whose relay has another key",
  },
  {
    file: "src/cli/state/wireguard_server.ts",
    from: "if (client.enabled === false) {",
    to: "if (client.enabled === undefined) {",
    tests: [SERVER_FILES],
    note: "a disabled client is let in",
  },
];
