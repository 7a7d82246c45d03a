/**
 * A home over network namespaces: devices behind a router whose line to the provider is `tc tbf` both ways with a modem's queue, first
 * in first out, and a stretch of path behind the line (delay_child.ts, for kernels without netem). Invariant: whoever crosses the line,
 * by a tunnel or not, crosses the same; what is made here goes with its network. Measures nothing.
 */
import { type Network, RELAY } from "../../tests/kit/namespaces.ts";

const ROOT = new URL("../..", import.meta.url).pathname;
/** What the modem holds. */
export const FIFO_MS = 200;
const DELAY_DEVICE = "far0", DELAY_TABLE = "100";

export interface Line {
  upMbit: number;
  downMbit: number;
  /** Of the path behind it, both ways. */
  rttMs: number;
}

export type Direction = "up" | "down";

/** A bench's own program, with what it needs of the native library. */
export function child(file: string, args: string[]): string[] {
  const path = new URL(file, import.meta.url).pathname;
  return [
    Deno.execPath(),
    "run",
    "--no-prompt",
    "--unstable-net",
    "--allow-net",
    `--allow-read=${ROOT}`,
    "--allow-ffi",
    path,
    ...args,
  ];
}

export class Home {
  readonly devices: string[] = [];
  readonly #net: Network;
  readonly #router: string;

  private constructor(net: Network, router: string) {
    this.#net = net;
    this.#router = router;
  }

  /** A router on the relay's bridge with as many devices behind it, each of which reaches the relay and nothing beyond. */
  static async open(net: Network, devices: number, { rttMs }: Line): Promise<Home> {
    const router = await net.client(2), home = new Home(net, router);
    await net.must(router, [
      "sysctl",
      "-qw",
      "net.ipv4.ip_forward=1",
      "net.ipv4.conf.all.rp_filter=0",
      "net.ipv4.conf.default.rp_filter=0",
    ]);
    for (let i = 0; i < devices; i++) home.devices.push(await net.behind(router, i + 1));
    await net.ip(router, ["route", "add", "default", "via", RELAY]);
    await net.ip("relay", ["route", "add", "10.202.0.0/16", "via", "10.201.0.2"]);
    if (rttMs > 0) await home.#lengthen(rttMs);
    return home;
  }

  /** Leads what crosses the router, both ways, through a path of half the round trip. */
  async #lengthen(rttMs: number): Promise<void> {
    const net = this.#net, router = this.#router;
    const delay = net.spawn(router, child("delay_child.ts", [DELAY_DEVICE, String(rttMs / 2)]));
    await delay.says("ready");
    await net.must(router, ["sysctl", "-qw", `net.ipv4.conf.${DELAY_DEVICE}.rp_filter=0`]);
    await net.ip(router, ["link", "set", DELAY_DEVICE, "up"]);
    await net.ip(router, ["route", "add", "default", "dev", DELAY_DEVICE, "table", DELAY_TABLE]);
    for (const device of ["eth0", ...this.devices.map((_, i) => `d${i + 1}`)]) {
      await net.ip(router, ["rule", "add", "iif", device, "lookup", DELAY_TABLE]);
    }
  }

  /** The line has its rates from now on. */
  async narrow({ upMbit, downMbit }: Line): Promise<void> {
    await this.#shape("add", "up", upMbit);
    await this.#shape("add", "down", downMbit);
  }

  async step(direction: Direction, mbit: number): Promise<void> {
    await this.#shape("change", direction, mbit);
  }

  async #shape(verb: "add" | "change", direction: Direction, mbit: number): Promise<void> {
    const [namespace, device] = direction === "up" ? [this.#router, "eth0"] : ["relay", `v${this.#router}`];
    await this.#net.must(namespace, [
      ...["tc", "qdisc", verb, "dev", device, "root", "tbf"],
      ...["rate", `${mbit}mbit`, "burst", "5kb", "latency", `${FIFO_MS}ms`],
    ]);
  }
}
