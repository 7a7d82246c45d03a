/**
 * A small network for one test: namespaces for clients, relay and server, joined by veth pairs, with a real
 * wireguard-go as the client. Invariant: everything that it makes bears this process's number and is gone after
 * `close`, whatever the test did, or at the start of the next run if this one is killed; processes are ended by the handles
 * that started them.
 */
import project from "../../deno.json" with { type: "json" };

const MAIN = new URL("../../main.ts", import.meta.url).pathname;
const ROOT = new URL("../..", import.meta.url).pathname;

/** Address of the server that tests reach through the relay. */
export const SERVER = "10.200.0.2";
export const SERVER_V6 = "fd00:200::2";
/** The relay as the clients' network sees it. */
export const RELAY = "10.201.0.1";

/** What a network's relays are started with, and asked with. */
export const ADMIN_TOKEN = "0123456789abcdef";

export interface Outcome {
  success: boolean;
  stdout: string;
  stderr: string;
}

export class Network {
  readonly #tag: string;
  readonly #children: Deno.ChildProcess[] = [];
  readonly directory: string;
  #clients = 0;
  static #networks = 0;
  readonly #number = Network.#networks++;

  private constructor(tag: string, directory: string) {
    this.#tag = tag;
    this.directory = directory;
  }

  /** Relay and server, joined; clients are added by `client`. */
  static async open(): Promise<Network> {
    const tag = `ox${Deno.pid}x${Network.#networks}`;
    const network = new Network(tag, await Deno.makeTempDir({ prefix: `oxrelay-test-${Deno.pid}-` }));
    await removeLeftovers(network.directory.replace(/\/[^/]*$/, ""));
    try {
      for (const name of ["relay", "server"]) await network.#namespace(name);
      await network.#join(
        "relay",
        "srv",
        "10.200.0.1/24",
        "fd00:200::1/64",
        "server",
        `${SERVER}/24`,
        `${SERVER_V6}/64`,
      );
      await network.ip("relay", "link add br0 type bridge".split(" "));
      await network.ip("relay", `addr add ${RELAY}/24 dev br0`.split(" "));
      await network.ip("relay", "addr add fd00:201::1/64 dev br0 nodad".split(" "));
      await network.ip("relay", "link set br0 up".split(" "));
    } catch (error) {
      await network.close();
      throw error;
    }
    return network;
  }

  /**
   * The client's tunnel device. wireguard-go's control sockets share one directory, so no two may be alike, not even of
   * networks one after the other: a daemon may be slow to leave. At most 15 characters.
   */
  device(name: string): string {
    return `wg${(1296 * Deno.pid + this.#number % 1296).toString(36)}${name}`;
  }

  namespace(name: string): string {
    return `${this.#tag}-${name}`;
  }

  /** A client namespace on the relay's bridge; its addresses end in `host`. Returns its name. */
  async client(host: number): Promise<string> {
    const name = `c${++this.#clients}`;
    await this.#namespace(name);
    await this.ip("relay", [
      "link",
      "add",
      `v${name}`,
      "type",
      "veth",
      "peer",
      "name",
      "eth0",
      "netns",
      this.namespace(name),
    ]);
    await this.ip("relay", ["link", "set", `v${name}`, "master", "br0", "up"]);
    await this.ip(name, ["addr", "add", `10.201.0.${host}/24`, "dev", "eth0"]);
    await this.ip(name, ["addr", "add", `fd00:201::${host}/64`, "dev", "eth0", "nodad"]);
    await this.ip(name, ["link", "set", "eth0", "up"]);
    return name;
  }

  /** A namespace behind the client's, which is its way to the clients' network: 10.202.`number`.2. Returns its name. */
  async behind(router: string, number: number): Promise<string> {
    const name = `c${++this.#clients}`, gateway = `10.202.${number}.1`;
    await this.#namespace(name);
    const link = ["link", "add", `d${number}`, "type", "veth", "peer", "name", "eth0", "netns"];
    await this.ip(router, [...link, this.namespace(name)]);
    await this.ip(router, ["addr", "add", `${gateway}/24`, "dev", `d${number}`]);
    await this.ip(router, ["link", "set", `d${number}`, "up"]);
    await this.ip(name, ["addr", "add", `10.202.${number}.2/24`, "dev", "eth0"]);
    await this.ip(name, ["link", "set", "eth0", "up"]);
    await this.ip(name, ["route", "add", "10.201.0.0/24", "via", gateway]);
    return name;
  }

  /** Runs a program in a namespace, 20 s at most unless told. */
  async run(
    name: string,
    command: string[],
    { input, timeoutS = 20 }: { input?: string; timeoutS?: number } = {},
  ): Promise<Outcome> {
    const child = this.#command(
      name,
      ["timeout", "-k", "2", String(timeoutS), ...command],
      input !== undefined,
    ).spawn();
    if (input !== undefined) {
      const writer = child.stdin.getWriter();
      await writer.write(new TextEncoder().encode(input));
      await writer.close();
    }
    const { success, stdout, stderr } = await child.output();
    const text = new TextDecoder();
    return { success, stdout: text.decode(stdout), stderr: text.decode(stderr) };
  }

  /** The same, but a failure throws what the program said. */
  async must(
    name: string,
    command: string[],
    options: { input?: string; timeoutS?: number } = {},
  ): Promise<string> {
    const { success, stdout, stderr } = await this.run(name, command, options);
    if (!success) throw new Error(`${command.join(" ")} in ${name}: ${stderr || stdout}`);
    return stdout;
  }

  async ip(name: string, args: string[]): Promise<void> {
    await this.must(name, ["ip", ...args]);
  }

  /** Starts a program that runs until `close`; its output is collected for failures. */
  spawn(name: string, command: string[], env: Record<string, string> = {}): Background {
    const child = this.#command(name, command, false, env).spawn();
    this.#children.push(child);
    return new Background(child);
  }

  /** An iperf3 server that is listening. */
  async iperf(name: string): Promise<Background> {
    const server = this.spawn(name, ["iperf3", "-s", "--forceflush"]);
    await server.says("Server listening");
    return server;
  }

  /** Starts the relay with this config, in its own namespace or another, and waits until it says that it serves. */
  async relay(config: string, env: Record<string, string> = {}, name = "relay"): Promise<Background> {
    await Deno.writeTextFile(`${this.directory}/oxrelay.toml`, config);
    const relay = this.spawn(name, this.command("serve", ["--config", `${this.directory}/oxrelay.toml`]), {
      OXRELAY_STATE_DIR: `${this.directory}/state`,
      OXRELAY_ADMIN_TOKEN: ADMIN_TOKEN,
      ...env,
    });
    await relay.says("listening on");
    return relay;
  }

  /** `peer add`; returns the client's configuration as printed, or with --oxtunnel the invitation. */
  async addPeer(peer: string, endpoint = `${RELAY}:4433`, flags: string[] = []): Promise<string> {
    return await this.#peer(["add", ...flags, peer, "--endpoint", endpoint, "--no-qr"]);
  }

  /** `peer ACTION …`, and what it prints; rejects with what it says when it fails. */
  async changePeer(words: string[]): Promise<string> {
    return await this.#peer(words);
  }

  /** `peer forward`; rejects with what it says when it fails. */
  async forward(peer: string, words: string[]): Promise<string> {
    return await this.#peer(["forward", peer, ...words]);
  }

  async #peer(words: string[]): Promise<string> {
    const { args, rest } = {
      args: taskFlags("serve", this.directory),
      rest: [...words, "--config", `${this.directory}/oxrelay.toml`],
    };
    const command = new Deno.Command("ip", {
      args: ["netns", "exec", this.namespace("relay"), Deno.execPath(), ...args, MAIN, "peer", ...rest],
      env: { OXRELAY_STATE_DIR: `${this.directory}/state`, OXRELAY_ADMIN_TOKEN: ADMIN_TOKEN },
      cwd: ROOT,
    });
    const { success, stdout, stderr } = await command.output();
    if (!success) throw new Error(`peer ${words.join(" ")}: ${new TextDecoder().decode(stderr)}`);
    return new TextDecoder().decode(stdout);
  }

  /** The WireGuard client's program, to be followed by the device's name; a bench may take another. */
  daemon = ["wireguard-go", "-f"];

  /** Waits until a WireGuard program takes orders for its device: `wg` removes a socket that is bound and does not listen yet. */
  listens(name: string, device: string): Promise<void> {
    const command = ["grep", "-q", ` 00010000 .*/${device}\\.sock$`, "/proc/net/unix"];
    return until(async () => (await this.run(name, command)).success, `a WireGuard program makes ${device}`);
  }

  /** Runs a WireGuard client (Debian's wireguard-go in tests) in the namespace with the printed configuration, and routes all of it. */
  async wireguard(name: string, configuration: string): Promise<Background> {
    const file = `${this.directory}/${name}.conf`;
    await Deno.writeTextFile(file, configuration, { mode: 0o600 });
    const stripped = await this.must(name, ["wg-quick", "strip", file]);
    const device = this.device(name);
    const daemon = this.spawn(name, [...this.daemon, device], { WG_PROCESS_FOREGROUND: "1", WG_SUDO: "1" });
    await this.listens(name, device).catch((error: Error) => {
      throw new Error(`${error.message}; it says:\n${daemon.said}`);
    });
    await this.must(name, ["wg", "setconf", device, "/dev/stdin"], { input: stripped });
    const field = (key: string) =>
      new RegExp(`^${key} = (.*)$`, "m").exec(configuration)?.[1].split(", ") ?? [];
    for (const address of field("Address")) await this.ip(name, ["addr", "add", address, "dev", device]);
    await this.ip(name, ["link", "set", device, "mtu", field("MTU")[0], "up"]);
    await this.ip(name, ["route", "add", "default", "dev", device]);
    await this.ip(name, ["-6", "route", "add", "default", "dev", device]);
    return daemon;
  }

  /** A subcommand with its task's own permissions, and this network's directory in the place of the state directory. */
  command(task: Task, args: string[]): string[] {
    return [Deno.execPath(), ...taskFlags(task, this.directory), MAIN, task, ...args];
  }

  /** Runs `connect` in the namespace, after the shell words of `before`; resolves when it says `says`. */
  async connect(
    name: string,
    args: string[],
    { before = "exec", says = "The tunnel is up." } = {},
  ): Promise<Background> {
    const command = this.command("connect", args);
    const running = this.spawn(name, ["sh", "-c", `${before} "$0" "$@"`, ...command]);
    await running.says(says);
    return running;
  }

  /** Asks the relay's admin interface, from its own host. */
  async ask(path: string): Promise<{ status: number; text: string }> {
    const script = `const headers = { authorization: "Bearer ${ADMIN_TOKEN}" };
const r = await fetch("http://127.0.0.1:9090${path}", { headers });
console.log(JSON.stringify({ status: r.status, text: await r.text() }));`;
    return JSON.parse(await this.script("relay", script));
  }

  /** The relay's own words about itself. */
  async status(): Promise<{
    counters: Record<string, number>;
    drops: Record<string, number>;
    peers: {
      name: string;
      publicKey: string;
      endpoint?: string;
      connected: boolean;
      aead?: string;
      lastHandshakeAgeS?: number;
    }[];
  }> {
    return JSON.parse((await this.ask("/v1/status")).text);
  }

  /** Runs a few lines of TypeScript in a namespace and returns what they print. */
  async script(name: string, source: string, timeoutS = 20): Promise<string> {
    const file = `${this.directory}/script-${crypto.randomUUID()}.ts`;
    await Deno.writeTextFile(file, source);
    return await this.must(name, [
      Deno.execPath(),
      "run",
      "--no-lock",
      "--config",
      `${ROOT}deno.json`,
      "--allow-net",
      file,
    ], {
      timeoutS,
    });
  }

  /** The same as a server that runs until `close`; resolves when it has printed "ready". */
  async server(name: string, source: string): Promise<Background> {
    const file = `${this.directory}/server-${crypto.randomUUID()}.ts`;
    await Deno.writeTextFile(file, source);
    const server = this.spawn(name, [Deno.execPath(), "run", "--unstable-net", "--allow-net", file]);
    await server.says("ready");
    return server;
  }

  async close(): Promise<void> {
    for (const child of this.#children.reverse()) {
      try {
        child.kill("SIGTERM");
      } catch {
        continue; // it has ended
      }
      const ended = await Promise.race([child.status.then(() => true), pause(3000).then(() => false)]);
      if (!ended) child.kill("SIGKILL");
      await child.status;
    }
    const names = ["relay", "server", ...Array.from({ length: this.#clients }, (_, i) => `c${i + 1}`)];
    for (const name of names) {
      await new Deno.Command("ip", { args: ["netns", "del", this.namespace(name)] }).output();
    }
    await Deno.remove(this.directory, { recursive: true });
  }

  async #namespace(name: string): Promise<void> {
    const { success, stderr } = await new Deno.Command("ip", { args: ["netns", "add", this.namespace(name)] })
      .output();
    if (!success) throw new Error(new TextDecoder().decode(stderr));
    await this.ip(name, ["link", "set", "lo", "up"]);
  }

  async #join(
    a: string,
    device: string,
    v4: string,
    v6: string,
    b: string,
    otherV4: string,
    otherV6: string,
  ): Promise<void> {
    await this.ip(a, [
      "link",
      "add",
      device,
      "type",
      "veth",
      "peer",
      "name",
      "eth0",
      "netns",
      this.namespace(b),
    ]);
    for (const [name, dev, addresses] of [[a, device, [v4, v6]], [b, "eth0", [otherV4, otherV6]]] as const) {
      await this.ip(name, ["addr", "add", addresses[0], "dev", dev]);
      await this.ip(name, ["addr", "add", addresses[1], "dev", dev, "nodad"]);
      await this.ip(name, ["link", "set", dev, "up"]);
    }
  }

  #command(name: string, command: string[], piped: boolean, env: Record<string, string> = {}): Deno.Command {
    return new Deno.Command("ip", {
      args: ["netns", "exec", this.namespace(name), ...command],
      // Deno looks for a newer one of itself; nothing but the test may speak here.
      env: { DENO_NO_UPDATE_CHECK: "1", ...env },
      cwd: ROOT,
      stdin: piped ? "piped" : "null",
      stdout: "piped",
      stderr: "piped",
    });
  }
}

let leftovers: Promise<void> | undefined;

/**
 * Removes, once in a process, what runs that were killed have left: the networks that bear the number of a process that is gone,
 * whatever still runs in them, and these runs' folders in `temporary`. Needs `ip` and a shell.
 */
export function removeLeftovers(temporary: string): Promise<void> {
  return leftovers ??= (async () => {
    const ip = async (...args: string[]) =>
      await new Deno.Command("ip", { args: ["netns", ...args], stderr: "null" }).output();
    const listed = new TextDecoder().decode((await ip("list")).stdout);
    for (const [name, pid] of listed.matchAll(/^ox(\d+)x\d+-\w+/gm)) {
      // One that another run is just making cannot be entered yet; only what says so is a dead one's.
      const { stdout } = await ip("exec", name, "sh", "-c", `kill -0 ${pid} || echo gone`);
      if (new TextDecoder().decode(stdout) !== "gone\n") continue;
      // What runs there would keep it. Nothing but a test's own programs ever does.
      await ip("exec", name, "sh", "-c", `kill -9 $(ip netns pids ${name} | grep -vx $$)`);
      await ip("del", name);
      for await (const folder of Deno.readDir(temporary)) {
        if (!folder.name.startsWith(`oxrelay-test-${pid}-`)) continue;
        await Deno.remove(`${temporary}/${folder.name}`, { recursive: true }).catch(() => {}); // by another run
      }
    }
  })();
}

/** A test that has a network of its own, gone at its end however it ends. `needs` is what `requires` returned. */
export function networkTest(
  name: string,
  needs: { ignore: boolean },
  body: (net: Network) => Promise<void>,
): void {
  Deno.test({
    name,
    ...needs,
    sanitizeResources: false,
    sanitizeOps: false,
    async fn() {
      const net = await Network.open();
      try {
        await body(net);
      } finally {
        await net.close();
      }
    },
  });
}

/** What a child gets to end after its signal, on a busy machine too; then it is killed, and its code says so. */
const STOP_MS = 60_000;

/** A running program and what it has said so far. */
export class Background {
  #said = "";
  readonly #reading: Promise<unknown>;

  constructor(readonly child: Deno.ChildProcess) {
    const read = async (stream: ReadableStream<Uint8Array>) => {
      const text = new TextDecoder();
      for await (const chunk of stream) {
        this.#said = (this.#said + text.decode(chunk, { stream: true })).slice(-65536);
      }
    };
    this.#reading = Promise.all([read(child.stdout), read(child.stderr)]);
  }

  get said(): string {
    return this.#said;
  }

  async says(text: string): Promise<void> {
    let ended = false;
    this.child.status.then(() => ended = true);
    await until(() => this.#said.includes(text) || ended, `a program says "${text}"`);
    await pause(20);
    if (!this.#said.includes(text)) throw new Error(`it ended without saying "${text}":\n${this.#said}`);
  }

  /** Signals it, unless it has ended by itself, and waits for its end; returns the exit code. */
  async stop(signal: Deno.Signal): Promise<number> {
    try {
      this.child.kill(signal);
    } catch (reason) {
      // Between an end and our hearing of it, kill() has nobody to reach.
      if (!(reason instanceof TypeError) || !/already terminated/.test(reason.message)) throw reason;
    }
    const limit = setTimeout(() => this.child.kill("SIGKILL"), STOP_MS);
    const { code } = await this.child.status.finally(() => clearTimeout(limit));
    await this.#reading;
    return code;
  }
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Polls until the condition holds; throws with the name of what did not happen in 30 s. */
export async function until(
  condition: () => boolean | Promise<boolean>,
  what: string,
  timeoutMs = 30_000,
): Promise<void> {
  const end = performance.now() + timeoutMs;
  while (performance.now() < end) {
    if (await condition()) return;
    await pause(100);
  }
  throw new Error(`timed out: ${what}`);
}

/** The subcommands, which have a permission set each; `restore` has that of `backup`. */
export type Task = "restore" | Exclude<keyof typeof project.permissions, "native" | "namespaces" | "test">;

/** The permissions of a task, with the test's directory in the place of the state directory. */
export function taskFlags(
  task: Task,
  directory: string,
): string[] {
  const words = project.tasks[task].split(" ");
  // Deno asks the registry in the background for what this machine has no copy of, past a kill switch or into a closed net.
  return [
    ...["run", "--cached-only", ...words.slice(2, words.indexOf("main.ts"))],
    // A flag takes the place of what the task's permission set says of the same permission.
    `--allow-read=${ROOT},${directory}`,
    ...("write" in project.permissions[task === "restore" ? "backup" : task]
      ? [`--allow-write=${directory}`]
      : []),
  ];
}
