/**
 * `doctor`: what stands between a relay and its devices on this host, and the line that mends each. Gathers and prints; host_facts.ts
 * reads, findings.ts judges. Changes nothing.
 */
import { loadConfig, readCommandLine, readEnvironment } from "../../process/help.ts";
import { findingsOf, renderFindings } from "./findings.ts";
import { gatherFacts } from "./host_facts.ts";

const HELP =
  `Checks the relay's host: ports, firewall, forwarding, buffers, limits, keys, certificate. Changes nothing.

  deno task doctor           as root it sees the firewall's rules, too
  --json                     the findings as JSON, for programs
  --config FILE              the relay's configuration (default oxrelay.toml)

The exit code is 1 when something is wrong. A line below a finding mends it; after a restart of the machine a sysctl is back,
unless it stands in a file of /etc/sysctl.d/.
`;

/** Runs the subcommand; the result is the exit code. */
export async function doctor(args: string[]): Promise<number> {
  const { values, flags } = readCommandLine(args, { values: ["config"], flags: ["json"], words: [0, 0] });
  if (flags.help) {
    console.log(HELP);
    return 0;
  }
  const { config } = await loadConfig(values.config, readEnvironment());
  const findings = findingsOf(await gatherFacts(config), config, Date.now());
  console.log(flags.json ? JSON.stringify(findings, null, 2) : renderFindings(findings, config.listen));
  return findings.some(({ state }) => state === "fail") ? 1 : 0;
}
