/**
 * Which local ports belong to the programs that `--priority app=…` names. Invariant: a look costs a bounded number of
 * reads however many processes and sockets there are, most processes are asked for their name every eighth time only, and
 * this program sees of others' processes what the system shows it. Knows no tunnel.
 */
import { PROTOCOL_TCP, PROTOCOL_UDP } from "../wire/inner.ts";
import { eachLine, firstLine, linkedName, numberAt, numbersIn, socketInode } from "../process/proc.ts";

export interface AppPriority {
  /** Of the process, or of the file that it runs. */
  name: string;
  /** CLASS_*. */
  trafficClass: number;
}

export interface AppSocket {
  /** IP protocol number. */
  protocol: number;
  /** Its local port. */
  port: number;
  /** Whether it is bound to this host's loopback. */
  isLoopback: boolean;
  trafficClass: number;
}

const PROCESSES_MAX = 8192;
/** Processes of the names, and descriptors of each. */
const FOUND_MAX = 64, DESCRIPTORS_MAX = 1024;
const SOCKETS_MAX = 256;
const TABLE_BYTES_MAX = 4 << 20;
/** Characters of a process's name that the kernel keeps (TASK_COMM_LEN without its end). */
const COMM_CHARS = 15;
/** A process may become another program: young ones soon, others seldom. */
const LOOKS_AGAIN = 8;
const TABLES: [name: string, protocol: number][] = [
  ["udp", PROTOCOL_UDP],
  ["udp6", PROTOCOL_UDP],
  ["tcp", PROTOCOL_TCP],
  ["tcp6", PROTOCOL_TCP],
];
/** Place of the inode among a line's fields. */
const INODE_FIELD = 9;
const LISTENING = "0A";
const SPACE = 32;

interface Process {
  /** The app that it is; undefined for none. */
  app: AppPriority | undefined;
  isYoung: boolean;
}

export class AppSockets {
  readonly #apps: readonly AppPriority[];
  #processes = new Map<number, Process>();
  #looks = 0;

  constructor(apps: readonly AppPriority[]) {
    this.#apps = apps;
  }

  /** The sockets that the programs have now, listening ones left out; the first 256. */
  look(): AppSocket[] {
    this.#followProcesses();
    const owners = new Map<number, AppPriority>();
    let found = 0;
    for (const [pid, { app }] of this.#processes) {
      if (app === undefined || ++found > FOUND_MAX) continue;
      for (const fd of numbersIn(`/proc/${pid}/fd`, DESCRIPTORS_MAX)) {
        const inode = socketInode(`/proc/${pid}/fd/${fd}`);
        if (inode > 0) owners.set(inode, app);
      }
    }
    const sockets: AppSocket[] = [];
    if (owners.size === 0) return sockets;
    for (const [table, protocol] of TABLES) {
      eachLine(`/proc/net/${table}`, TABLE_BYTES_MAX, (bytes, start, end) => {
        const app = owners.get(inodeOf(bytes, start, end));
        if (app === undefined || sockets.length >= SOCKETS_MAX) return;
        const socket = readSocket(new TextDecoder().decode(bytes.subarray(start, end)), protocol);
        if (socket) sockets.push({ ...socket, trafficClass: app.trafficClass });
      });
    }
    return sockets;
  }

  #followProcesses(): void {
    const look = ++this.#looks, before = this.#processes, now = new Map<number, Process>();
    for (const pid of numbersIn("/proc", PROCESSES_MAX)) {
      const known = before.get(pid);
      const isDue = known === undefined || known.isYoung || (pid + look) % LOOKS_AGAIN === 0;
      now.set(pid, isDue ? { app: this.#appOf(pid), isYoung: known === undefined } : known);
    }
    this.#processes = now;
  }

  #appOf(pid: number): AppPriority | undefined {
    const comm = firstLine(`/proc/${pid}/comm`);
    if (comm === undefined) return undefined;
    const byName = this.#apps.find(({ name }) => name.slice(0, COMM_CHARS) === comm);
    if (byName) return byName;
    // Many a game gives its first thread a name of its own.
    const file = linkedName(`/proc/${pid}/exe`);
    return this.#apps.find(({ name }) => name === file);
  }
}

function inodeOf(bytes: Uint8Array, start: number, end: number): number {
  let at = start;
  for (let field = 0; at < end; field++) {
    while (at < end && bytes[at] === SPACE) at++;
    if (field === INODE_FIELD) return numberAt(bytes, at, end);
    while (at < end && bytes[at] !== SPACE) at++;
  }
  return -1;
}

/**
 * Reads a line of /proc/net/udp, tcp, udp6 or tcp6 (proc_pid_net(5)); undefined for a socket that listens or has no port.
 */
export function readSocket(
  line: string,
  protocol: number,
): Omit<AppSocket, "trafficClass"> | undefined {
  const [, local, , state] = line.trim().split(/\s+/);
  const [, address, digits] = /^([0-9A-F]{8}|[0-9A-F]{32}):([0-9A-F]{4})$/.exec(local ?? "") ?? [];
  const port = parseInt(digits ?? "0", 16);
  if (port === 0 || (protocol === PROTOCOL_TCP && state === LISTENING)) return undefined;
  // Words are in the host's order, and hosts here are little-endian.
  const isLoopback = /^(0{16}FFFF0000)?[0-9A-F]{6}7F$|^0{24}01000000$/.test(address);
  return { protocol, port, isLoopback };
}
