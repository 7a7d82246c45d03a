/**
 * Logging: text or JSON lines on stderr, categories ["oxrelay", area]. Invariant: a log line is one line whatever
 * is in its values, and a logger whose stderr is gone never stops the relay. Decides where lines go; what may be in
 * them (no secret, no whole client address below debug) is up to the caller, with `redactAddress`.
 */
import {
  configureSync,
  getJsonLinesFormatter,
  getLogger,
  getTextFormatter,
  type Logger,
} from "@logtape/logtape";
import type { Config } from "../config.ts";
import { addressBytes, parseAddress } from "../wire/address.ts";

export interface LoggingOptions {
  level: Config["logLevel"];
  format: Config["logFormat"];
}

let options: LoggingOptions = { level: "info", format: "text" };

/** Sets up logging for the process; call it once, at start. Before that nothing is logged. */
export function setupLogging(wanted: LoggingOptions): void {
  options = wanted;
  const format = wanted.format === "json"
    ? getJsonLinesFormatter({ categorySeparator: "." })
    : getTextFormatter({
      timestamp: "rfc3339",
      level: "full",
      category: ".",
      value: (value, inspect) => printable(typeof value === "string" ? value : inspect(value)),
    });
  const encoder = new TextEncoder();
  configureSync({
    reset: true,
    sinks: { stderr: (record) => writeLine(encoder.encode(format(record))) },
    loggers: [
      { category: "oxrelay", lowestLevel: wanted.level, sinks: ["stderr"] },
      { category: ["logtape", "meta"], lowestLevel: "warning", sinks: ["stderr"] },
    ],
  });
}

/** Changes the level while running, as a reload does. */
export function setLevel(level: LoggingOptions["level"]): void {
  setupLogging({ ...options, level });
}

/** The logger for an area of the program, such as "peers". */
export function logger(area: string): Logger {
  return getLogger(["oxrelay", area]);
}

/**
 * A client's address as it may stand in a log: its /24 ("203.0.113.x") or /48 ("2001:db8:7::x"); whole only when
 * the level is debug. Takes "address", "address:port" and "[address]:port"; what is none of these becomes "?".
 */
export function redactAddress(text: string): string {
  const address = text.match(/^\[(.+)\](?::\d+)?$/)?.[1] ?? text.match(/^([\d.]+):\d+$/)?.[1] ?? text;
  const words = parseAddress(address);
  if (words === undefined) return "?";
  if (options.level === "debug") return text;
  const bytes = addressBytes(words);
  if (bytes.length === 4) return `${bytes.slice(0, 3).join(".")}.x`;
  const groups = [0, 2, 4].map((i) => (bytes[i] << 8 | bytes[i + 1]).toString(16));
  return `${groups.join(":")}::x`;
}

/**
 * A warning that anybody on the wire can provoke: logs at most one in `intervalMs` milliseconds and says how many were
 * held back. `nowMs` is for tests.
 */
export function sparingWarning(
  log: Logger,
  intervalMs: number,
  nowMs = () => performance.now(),
): (message: string, properties?: Record<string, unknown>) => void {
  let nextMs = -Infinity;
  let suppressed = 0;
  return (message, properties = {}) => {
    if (nowMs() < nextMs) {
      suppressed++;
      return;
    }
    nextMs = nowMs() + intervalMs;
    log.warn(suppressed === 0 ? message : `${message} ({suppressed} more since the last)`, {
      ...properties,
      suppressed,
    });
    suppressed = 0;
  };
}

/** Keeps values from forging lines or moving the terminal's cursor. */
function printable(text: string): string {
  // deno-lint-ignore no-control-regex
  return text.replace(/[\x00-\x1f\x7f-\x9f]/g, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, "0")}`);
}

function writeLine(bytes: Uint8Array): void {
  try {
    for (let written = 0; written < bytes.length;) written += Deno.stderr.writeSync(bytes.subarray(written));
  } catch {
    // A closed or full stderr: the line is lost, the relay goes on.
  }
}
