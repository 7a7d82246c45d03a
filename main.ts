/**
 * The program: picks the subcommand and turns its outcome into an exit code (0 done, 1 failed, 2 wrong command
 * line). Loads only the subcommand that runs. Decides nothing else.
 */
import project from "./deno.json" with { type: "json" };
import { CommandError, UsageError } from "./src/process/help.ts";
import { permittedLine } from "./src/process/permitted_line.ts";
import { ConfigError, nearest } from "./src/config.ts";

const HELP = `Oxrelay ${project.version}: an edge relay for WireGuard and OxTunnel devices, on one UDP port.

  deno task serve              run the relay
  deno task peer add phone     let a device connect: prints its config and QR code
  deno task peer list          who may connect (also show, set, disable, link, remove)
  deno task connect            send this machine's packets through a relay
  deno task speedtest          measure the path to a relay: rate, round trip, loss, jitter
  deno task status             a live table of a running relay
  deno task ping phone         round trips to a device inside the tunnel
  deno task netcheck           a device's network: UDP, NAT, packet sizes, the nearest relay
  deno task doctor             what a relay's host lacks, and the line that mends each
  deno task bugreport          one file for a bug report, without secrets
  deno task backup FILE        key, peers and token in one file
  deno task restore FILE       puts back what backup wrote
  deno task classify FILE      the class of each flow of a capture, and the reason
  deno task keygen             print a key
  deno task SUBCOMMAND --help  more about each

The configuration is oxrelay.toml, if that file exists; oxrelay.example.toml explains every key.
`;

const SUBCOMMANDS: Record<string, (args: string[]) => Promise<number>> = {
  backup: async (args) => (await import("./src/cli/state/backup.ts")).backup(args),
  bugreport: async (args) => (await import("./src/cli/checks/bugreport.ts")).bugreport(args),
  classify: async (args) => (await import("./src/cli/classify.ts")).classify(args),
  connect: async (args) => (await import("./src/connect/mod.ts")).connect(args),
  doctor: async (args) => (await import("./src/cli/checks/doctor.ts")).doctor(args),
  netcheck: async (args) => (await import("./src/cli/checks/netcheck.ts")).netcheck(args),
  ping: async (args) => (await import("./src/cli/checks/ping.ts")).ping(args),
  restore: async (args) => (await import("./src/cli/state/backup.ts")).restore(args),
  serve: async (args) => (await import("./src/serve/mod.ts")).serve(args),
  keygen: async (args) => (await import("./src/cli/keygen.ts")).keygen(args),
  peer: async (args) => (await import("./src/cli/peer.ts")).peer(args),
  speedtest: async (args) => (await import("./src/cli/speedtest.ts")).speedtest(args),
  status: async (args) => (await import("./src/cli/status.ts")).status(args),
};

async function main([subcommand, ...args]: string[]): Promise<number> {
  if (subcommand === undefined || ["help", "--help", "-h"].includes(subcommand)) {
    (subcommand === undefined ? console.error : console.log)(HELP);
    return subcommand === undefined ? 2 : 0;
  }
  if (subcommand === "--version") {
    console.log(project.version);
    return 0;
  }
  try {
    if (Object.hasOwn(SUBCOMMANDS, subcommand)) return await SUBCOMMANDS[subcommand](args);
    const near = nearest(subcommand, Object.keys(SUBCOMMANDS));
    throw new UsageError(
      `${subcommand}: there is no such subcommand; ` +
        (near === undefined
          ? `choose from ${Object.keys(SUBCOMMANDS).join(", ")}`
          : `did you mean "${near}"?`),
    );
  } catch (error) {
    return explain(error, subcommand, args);
  }
}

/** Expected failures get their sentence; anything else is a defect and keeps its stack. */
function explain(error: unknown, subcommand: string, args: string[]): number {
  if (error instanceof UsageError) {
    console.error(`oxrelay: ${error.message}`);
    return 2;
  }
  if (error instanceof ConfigError || error instanceof CommandError) {
    console.error(error.message);
  } else if (error instanceof Deno.errors.NotCapable) {
    const line = permittedLine(subcommand, args, error.message, project);
    console.error(
      `Deno's permissions forbid this: ${error.message.replace(/, run again .*/, "")}. ` +
        (line === undefined
          ? "The tasks in deno.json allow the project's own directory and loopback only; for other places run " +
            "main.ts with the wider permission."
          : `The tasks in deno.json allow the project's own directory only; in that directory this line may:\n  ${line}`),
    );
  } else if (error instanceof Error && /\(os error \d+\)/.test(error.message)) {
    console.error(error.message); // the system's own words, with the path
  } else {
    console.error(error);
  }
  return 1;
}

Deno.exit(await main(Deno.args));
