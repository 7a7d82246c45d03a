/**
 * What systemd is told of the relay (sd_notify(3)): that it has started, that it still works, that it stops. Invariant: says
 * that the relay works only while every Worker's loop turns, so that systemd's watchdog ends a relay that stands still.
 * Does nothing where no service manager asked for it, and never stops the relay by an error of its own, nor by waiting.
 */
import { cString, libc } from "../../ffi/mod.ts";

const AF_UNIX = 1, SOCK_DGRAM = 2, SOCK_CLOEXEC = 0o2000000, MSG_NOSIGNAL = 0x4000, MSG_DONTWAIT = 0x40;
/** struct sockaddr_un (unix(7)): two bytes of family, then the path. */
const PATH_AT = 2, PATH_BYTES_MAX = 108;

/** What a service manager asked for, by the environment. */
export interface ServiceWishes {
  /** NOTIFY_SOCKET: a path, or an abstract name after "@". */
  socket: string;
  /** Milliseconds within which the next sign of life must come; undefined without a watchdog. */
  watchdogMs: number | undefined;
}

/** The wishes in NOTIFY_SOCKET and WATCHDOG_USEC; undefined where there is no service manager. */
export function serviceWishes(env: { socket?: string; watchdogUs?: string }): ServiceWishes | undefined {
  if (!env.socket) return undefined;
  const watchdogUs = Number(env.watchdogUs || NaN);
  return { socket: env.socket, watchdogMs: watchdogUs >= 1 ? watchdogUs / 1000 : undefined };
}

export class ServiceManager {
  readonly #descriptor: number;
  readonly #name: Uint8Array<ArrayBuffer>;
  readonly #isWorking: () => boolean;
  readonly #alive: ReturnType<typeof setInterval> | undefined;

  /** Throws a sentence when the socket's name is too long or the system gives no socket. */
  constructor({ socket, watchdogMs }: ServiceWishes, isWorking: () => boolean) {
    const path = cString(socket);
    if (path.length > PATH_BYTES_MAX) throw new Error(`NOTIFY_SOCKET: ${socket}: longer than 107 bytes`);
    // An abstract name begins with a zero byte and ends where the address ends.
    const isAbstract = socket.startsWith("@");
    this.#name = new Uint8Array(PATH_AT + path.length - (isAbstract ? 1 : 0));
    new DataView(this.#name.buffer).setUint16(0, AF_UNIX, true);
    this.#name.set(path.subarray(0, this.#name.length - PATH_AT), PATH_AT);
    if (isAbstract) this.#name[PATH_AT] = 0;
    this.#descriptor = libc().socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (this.#descriptor < 0) throw new Error("NOTIFY_SOCKET: the system gives no socket");
    this.#isWorking = isWorking;
    // Twice as often as must be, as sd_watchdog_enabled(3) advises.
    if (watchdogMs !== undefined) this.#alive = setInterval(() => this.#sayAlive(), watchdogMs / 2);
  }

  /** The relay carries packets. */
  ready(): void {
    this.#say("READY=1");
  }

  /** The relay was told to stop; its signs of life end. */
  stopping(): void {
    clearInterval(this.#alive);
    this.#say("STOPPING=1");
  }

  /** No word can be said after this. */
  close(): void {
    clearInterval(this.#alive);
    libc().close(this.#descriptor);
  }

  #sayAlive(): void {
    if (this.#isWorking()) this.#say("WATCHDOG=1");
  }

  /** A word that cannot be delivered is lost: the service manager then acts as for a relay that says nothing. */
  #say(state: string): void {
    const bytes = new TextEncoder().encode(state);
    const flags = MSG_NOSIGNAL | MSG_DONTWAIT;
    libc().sendto(this.#descriptor, bytes, BigInt(bytes.length), flags, this.#name, this.#name.length);
  }
}
