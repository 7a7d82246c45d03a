/**
 * A real relay on loopback, as `deno task serve` runs it, and the subcommands beside it: for what needs no packets to be
 * carried. Invariant: its ports, its state directory and whatever it says are its own, and `close` ends it. Makes no
 * namespace.
 */
import { Background, taskFlags } from "../kit/namespaces.ts";

const MAIN = new URL("../../main.ts", import.meta.url).pathname;
const ROOT = new URL("../..", import.meta.url).pathname;

export class LoopbackRelay {
  readonly directory: string;
  /** Of UDP, where clients come. */
  readonly port: number;
  readonly adminPort: number;
  readonly #relay: Background | undefined;

  private constructor(directory: string, port: number, adminPort: number, relay?: Background) {
    this.directory = directory;
    this.port = port;
    this.adminPort = adminPort;
    this.#relay = relay;
  }

  /** Starts it with these lines of configuration, behind the words of `before` (a limit, a tracer), and waits until it serves. */
  static async open(
    config = "",
    { before = [], env = {}, prepare = () => {} }: {
      before?: string[];
      env?: Record<string, string>;
      prepare?: (directory: string) => void | Promise<void>;
    } = {},
  ): Promise<LoopbackRelay> {
    const bare = await LoopbackRelay.without(config);
    const { directory, port, adminPort } = bare;
    await prepare(directory);
    const relay = new Background(bare.#command([...before, ...bare.line("serve", [])], env).spawn());
    try {
      await relay.says("listening on");
    } catch (error) {
      await Deno.remove(directory, { recursive: true });
      throw error;
    }
    return new LoopbackRelay(directory, port, adminPort, relay);
  }

  /** The files of one that is not started, for subcommands alone. */
  static async without(config = ""): Promise<LoopbackRelay> {
    const directory = await Deno.makeTempDir({ prefix: "oxrelay-loopback-" });
    const [port, adminPort] = [freePort(), freePort()];
    await Deno.writeTextFile(
      `${directory}/oxrelay.toml`,
      `listen = "127.0.0.1:${port}"\nmetrics_listen = "127.0.0.1:${adminPort}"\nexit = "userspace"\n${config}`,
    );
    return new LoopbackRelay(directory, port, adminPort);
  }

  get said(): string {
    return this.#relay!.said;
  }

  get pid(): number {
    return this.#relay!.child.pid;
  }

  says(text: string): Promise<void> {
    return this.#relay!.says(text);
  }

  /** Signals it and waits for its end; returns the exit code. */
  stop(signal: Deno.Signal): Promise<number> {
    return this.#relay!.stop(signal);
  }

  kill(signal: Deno.Signal): void {
    this.#relay!.child.kill(signal);
  }

  /** What runs a subcommand with its task's permissions on this relay's files. */
  line(task: "serve" | "peer" | "status" | "bugreport", args: string[]): string[] {
    const config = ["--config", `${this.directory}/oxrelay.toml`];
    const words = task === "peer" ? [args[0], ...config, ...args.slice(1)] : [...config, ...args];
    return [Deno.execPath(), ...taskFlags(task, this.directory), MAIN, task, ...words];
  }

  /** Runs a subcommand to its end. */
  async run(task: "peer" | "status" | "bugreport", args: string[], before: string[] = []) {
    const { code, stdout, stderr } = await this.#command([...before, ...this.line(task, args)], {}).output();
    const text = new TextDecoder();
    return { code, stdout: text.decode(stdout), stderr: text.decode(stderr) };
  }

  /** The token that the relay made at its first start. */
  async token(): Promise<string> {
    return (await Deno.readTextFile(`${this.directory}/state/admin.token`)).trim();
  }

  /** Asks the admin interface, by another port if told, with the relay's own token unless another or none (empty) is given. */
  async ask(
    path: string,
    { token, port = this.adminPort, ...init }: RequestInit & { token?: string; port?: number } = {},
  ): Promise<{ status: number; text: string }> {
    const bearer = token ?? await this.token();
    const response = await fetch(`http://127.0.0.1:${port}${path}`, {
      ...init,
      headers: { ...init.headers, ...bearer === "" ? {} : { authorization: `Bearer ${bearer}` } },
    });
    return { status: response.status, text: await response.text() };
  }

  async close(): Promise<void> {
    await this.#relay!.stop("SIGTERM");
    await Deno.remove(this.directory, { recursive: true });
  }

  #command([program, ...args]: string[], env: Record<string, string>): Deno.Command {
    return new Deno.Command(program, {
      args,
      cwd: ROOT,
      env: { DENO_NO_UPDATE_CHECK: "1", OXRELAY_STATE_DIR: `${this.directory}/state`, ...env },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    });
  }
}

/** A port of loopback that nobody has now, neither of TCP nor, most likely, of UDP. */
export function freePort(): number {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr as Deno.NetAddr;
  listener.close();
  return port;
}

/** A test with a relay of its own, gone at its end however it ends. `needs` is what `requires` returned. */
export function relayTest(
  name: string,
  needs: { ignore: boolean },
  options: { config?: string } & Parameters<typeof LoopbackRelay.open>[1],
  body: (relay: LoopbackRelay) => Promise<void>,
): void {
  Deno.test({
    name,
    ...needs,
    sanitizeResources: false,
    sanitizeOps: false,
    async fn() {
      const relay = await LoopbackRelay.open(options.config, options);
      try {
        await body(relay);
      } finally {
        await relay.close();
      }
    },
  });
}
