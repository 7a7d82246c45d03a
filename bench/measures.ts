/**
 * What the benches over network namespaces measure between a client and the server: rates that arrived, round trips,
 * processor time and memory of a process, bytes on the client's cable. Invariant: a rate is counted by its receiver.
 * Starts no relay and prints nothing.
 */
import { type Network, SERVER } from "../tests/kit/namespaces.ts";

export const LOSS_MAX_PERCENT = 1;
const OFFLOAD_NAMES = ["tx", "rx", "sg", "tso", "gso", "gro"];
const ETHERNET_BYTES = 14;

/** iperf3's report of one run from `client` to the server. */
export async function iperf(net: Network, client: string, seconds: number, more: string[] = []) {
  const text = await net.must(client, ["iperf3", "-J", "-c", SERVER, "-t", String(seconds), ...more], {
    timeoutS: seconds + 20,
  });
  return JSON.parse(text).end;
}

/** Highest rate in Mbit/s whose loss at the receiver stays under 1 %, by doubling and then halving the step. */
export async function udpRate(net: Network, client: string, bytes: number): Promise<number> {
  let best = 0, rate = 4, step = 0;
  for (let i = 0; i < 9; i++) {
    const { sum } = await iperf(net, client, 1, ["-u", "-b", `${rate}M`, "-l", String(bytes)]);
    const good = sum.lost_percent < LOSS_MAX_PERCENT;
    if (good) best = Math.max(best, sum.bits_per_second * (1 - sum.lost_percent / 100) / 1e6);
    if (step === 0 && good) rate *= 2;
    else {
      step = step === 0 ? rate / 4 : step / 2;
      rate += good ? step : -step;
    }
  }
  return best;
}

/** What arrives of `rate`, both in Mbit/s. What is not even sent counts as lost. */
export async function udpDelivered(
  net: Network,
  client: string,
  seconds: number,
  rate: number,
  bytes: number,
): Promise<number> {
  const { sum } = await iperf(net, client, seconds, ["-u", "-b", `${rate}M`, "-l", String(bytes)]);
  return sum.bits_per_second * (1 - sum.lost_percent / 100) / 1e6;
}

/** Processor time of the relay, microseconds, for each packet with `bytes` of UDP payload that it carries at `rate` Mbit/s. */
export async function packetCost(
  net: Network,
  client: string,
  pid: number,
  seconds: number,
  rate: number,
  bytes: number,
): Promise<number> {
  const before = await usage(net, pid);
  const { sum } = await iperf(net, client, seconds, ["-u", "-b", `${rate}M`, "-l", String(bytes)]);
  return ((await usage(net, pid)).cpuS - before.cpuS) * 1e6 / (sum.packets - sum.lost_packets);
}

/** Round trips of `count` pings 5 ms apart, as rows of a table. @param when what they were sent in: "idle", "under bulk". */
export async function pingFigures(
  net: Network,
  client: string,
  when: string,
  count = 500,
): Promise<Record<string, number>> {
  const text = await net.must(client, ["ping", "-c", String(count), "-i", "0.005", SERVER]);
  const times = [...text.matchAll(/time=([\d.]+)/g)].map(([, ms]) => Number(ms)).sort((a, b) => a - b);
  const at = (share: number) => times[Math.min(times.length - 1, Math.floor(times.length * share))];
  return {
    [`ping ${when} p50, ms`]: at(0.5),
    [`ping ${when} p99, ms`]: at(0.99),
    [`ping ${when} p99.9, ms`]: at(0.999),
    [`ping ${when} longest, ms`]: at(1),
  };
}

/** User and system seconds of a process, and its resident megabytes, from /proc. */
export async function usage(net: Network, pid: number): Promise<{ cpuS: number; residentMb: number }> {
  const stat = (await net.must("relay", ["cat", `/proc/${pid}/stat`])).split(") ")[1].split(" ");
  const status = await net.must("relay", ["cat", `/proc/${pid}/status`]);
  return {
    cpuS: (Number(stat[11]) + Number(stat[12])) / 100,
    residentMb: Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) / 1024,
  };
}

/** IP packets and their bytes that crossed the client's cable so far, both ways. */
export async function onTheWire(net: Network, client: string): Promise<{ packets: number; bytes: number }> {
  const [{ stats64: { rx, tx } }] = JSON.parse(
    await net.must(client, ["ip", "-j", "-s", "link", "show", "dev", "eth0"]),
  );
  const packets = rx.packets + tx.packets;
  return { packets, bytes: rx.bytes + tx.bytes - ETHERNET_BYTES * packets };
}

/** Takes their offloads from all veth pairs between client and server. */
export async function withoutOffloads(net: Network, client: string): Promise<void> {
  const off = OFFLOAD_NAMES.flatMap((name) => [name, "off"]);
  for (
    const [name, device] of [[client, "eth0"], ["relay", `v${client}`], ["relay", "srv"], ["server", "eth0"]]
  ) {
    await net.must(name, ["ethtool", "-K", device, ...off]);
  }
}
