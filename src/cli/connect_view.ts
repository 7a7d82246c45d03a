/**
 * What `connect` shows: a few live lines on a terminal, else a line when something changes. Invariant: the same picture
 * from the same numbers, never wider than the terminal, and messages stand above it. Measures nothing.
 */
import { formatBytes, formatDuration, formatRate, sparkline } from "./status.ts";

/** The tunnel at one moment. */
export interface LinkStatus {
  /** "relay.example.com:4433". */
  server: string;
  /** The relay's address as it was resolved. */
  address: string;
  state: "connecting" | "connected" | "silent";
  /** Seconds since the last completed handshake; undefined before the first. */
  handshakeAgeS?: number;
  /** Round trip in milliseconds, at the last handshake. */
  rttMs?: number;
  /** Share 0..1 of the relay's packets that did not arrive, in this key's life. */
  lossRatio?: number;
  /** The largest inner packet that the path takes, bytes; undefined before it is found, and over WireGuard. */
  mtu?: number;
  bytesReceived: number;
  bytesSent: number;
  /** Bytes a second over the last interval. */
  rateReceived: number;
  rateSent: number;
  /** Seconds that `connect` has run. */
  uptimeS: number;
}

const HISTORY = 30;
const LIGHT = { connecting: "◌", connected: "●", silent: "○" };

/** The lines of the picture. `past` holds the rates of the last seconds; `about` says what the tunnel is for. */
export function renderLink(status: LinkStatus, past: readonly LinkStatus[], about: string): string[] {
  const { state, server, address, uptimeS, handshakeAgeS, rttMs, lossRatio } = status;
  const where = server.startsWith(address) || server.startsWith(`[${address}]`)
    ? server
    : `${server} (${address})`;
  const words = {
    connecting: `connecting to ${where}`,
    connected: `connected to ${where}`,
    silent: `no answer from ${where}, trying on`,
  };
  const flow = (arrow: string, rates: number[], total: number) =>
    `  ${arrow} ${formatRate(rates.at(-1) ?? 0).padStart(12)}  ${sparkline(rates).padStart(HISTORY)}  ${
      formatBytes(total)
    }`;
  return [
    `${LIGHT[state]} ${words[state]}  up ${formatDuration(uptimeS)}`,
    `  round trip ${rttMs === undefined ? "-" : `${rttMs.toFixed(1)} ms`}  loss ${
      lossRatio === undefined ? "-" : `${(100 * lossRatio).toFixed(2)} %`
    }  handshake ${handshakeAgeS === undefined ? "-" : `${formatDuration(handshakeAgeS)} ago`}`,
    flow("down", past.map(({ rateReceived }) => rateReceived), status.bytesReceived),
    flow("up  ", past.map(({ rateSent }) => rateSent), status.bytesSent),
    `  ${about}`,
  ];
}

/** Shows the picture where `connect` was started: live on a terminal, as JSON lines, or as words when the state changes. */
export class LinkView {
  readonly #isLive: boolean;
  readonly #isJson: boolean;
  readonly #past: LinkStatus[] = [];
  #drawn = 0;
  #state = "";
  about = "";

  constructor(isJson: boolean) {
    this.#isJson = isJson;
    this.#isLive = !isJson && Deno.stdout.isTerminal();
  }

  /** A message for people, on standard error. */
  say(message: string): void {
    this.#erase();
    console.error(message);
  }

  show(status: LinkStatus): void {
    this.#past.push(status);
    if (this.#past.length > HISTORY) this.#past.shift();
    if (this.#isJson) {
      console.log(JSON.stringify(status));
      return;
    }
    const lines = renderLink(status, this.#past, this.about);
    if (this.#isLive) {
      this.#erase();
      const columns = Deno.consoleSize().columns || 80; // a terminal that does not know its size
      write(lines.map((line) => `${[...line].slice(0, columns).join("")}\n`).join(""));
      this.#drawn = lines.length;
    } else if (status.state !== this.#state) {
      console.error(lines[0]);
    }
    this.#state = status.state;
  }

  #erase(): void {
    if (this.#drawn > 0) write(`\x1b[${this.#drawn}A\x1b[J`);
    this.#drawn = 0;
  }
}

function write(text: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(text));
}
