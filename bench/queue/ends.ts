/**
 * Who carries a home's packets over its line: nobody, wireguard-go at both ends, and this program with nothing known of the line
 * ("off"), with its rate found, and with its rate told. Invariant: all join the same home. Measures nothing.
 */
import type { Network } from "../../tests/kit/namespaces.ts";
import { type Contender, daemonOf, oxrelay, plain } from "../contest.ts";
import type { Line } from "./home.ts";

/** What of its line's rate `connect` is told. */
const TOLD = 0.95;
const ALLOW = `exit = "tun"\n[destinations]\nallow = ["10.200.0.0/24"]\n`;

export interface End {
  name: string;
  /** Starts the far end for as many devices; returns what each is to be given. */
  start(net: Network, devices: number): Promise<string[]>;
  join(net: Network, device: string, configuration: string, line: Line): Promise<void>;
}

/** A contender that knows one client. */
function single({ name, start }: Contender, join: End["join"]): End {
  return {
    name,
    async start(net, devices) {
      const { configuration = "" } = await start(net);
      return new Array<string>(devices).fill(configuration);
    },
    join,
  };
}

async function startOurs(net: Network, devices: number, sections: string, keys = ""): Promise<string[]> {
  await net.relay(`${keys}${ALLOW}${sections}`);
  const invitations: string[] = [];
  for (let i = 1; i <= devices; i++) invitations.push(await net.addPeer(`bench${i}`));
  return invitations;
}

/** A WireGuard client of ours, whose rate is looked for by the TCP inside where `percent` is 100. */
function wireguardClient(name: string, percent: number): End {
  return {
    name: `WireGuard client, ${oxrelay.name} ${name}`,
    start: (net, devices) => startOurs(net, devices, `[rollout_percent]\nack_clocking = ${percent}\n`),
    async join(net, device, configuration) {
      await net.wireguard(device, configuration);
    },
  };
}

function ours(name: string, config: string, words: (line: Line) => string[]): End {
  return {
    name: `oxrelay, ${name}`,
    start: (net, devices) => startOurs(net, devices, "", config),
    async join(net, device, invitation, line) {
      const file = `${net.directory}/${device}.conf`;
      await Deno.writeTextFile(file, invitation, { mode: 0o600 });
      await net.connect(device, ["--config", file, "--protocol", "oxtunnel", ...words(line)]);
    },
  };
}

export const OFF = `${oxrelay.name}, off`,
  FOUND = `${oxrelay.name}, rate found`;

export const ENDS: readonly End[] = [
  single(
    { ...plain, name: "no tunnel" },
    // Devices are behind client 1 and numbered from 2 (namespaces.ts).
    (net, device) =>
      net.ip(device, ["route", "add", "default", "via", `10.202.${Number(device.slice(1)) - 1}.1`]),
  ),
  single(daemonOf("wireguard-go", ["wireguard-go", "-f"]), async (net, device, configuration) => {
    await net.wireguard(device, configuration);
  }),
  wireguardClient("off", 0),
  wireguardClient("rate found", 100),
  ours("off", `congestion_algorithm = "none"\n`, () => ["--congestion", "none"]),
  ours("rate found", "", () => []),
  ours("rate told", "", ({ upMbit, downMbit }) => [
    "--up",
    `${Math.round(1000 * TOLD * upMbit)}k`,
    "--down",
    `${Math.round(1000 * TOLD * downMbit)}k`,
  ]),
];
