/**
 * The files of other WireGuard servers, as text and as records: wg-quick(8)'s wg0.conf with its peers, as its owner or an installer
 * wrote it (wg-easy 14 and 15 write one too), and wg-easy 14's wg0.json (src/lib/WireGuard.js of its version 14: `server` with
 * privateKey, publicKey and address, `clients` by id with name, address, publicKey, preSharedKey, createdAt and enabled). Invariant: a
 * mistake names line or client and never a value, since most values are secrets. Opens no file and changes nothing.
 */
import { CommandError } from "../../process/help.ts";
import { isKeyText } from "../../process/keys_text.ts";
import { formatPrefix, parseInterface, parsePrefix } from "../../wire/address.ts";

export interface ImportedPeer {
  /** As in a peer's record: 1 to 63 of [A-Za-z0-9._-], each once. */
  name: string;
  publicKey: string;
  presharedKey?: string;
  /** "10.8.0.2/32"; networks without host bits. */
  allowedIps: string[];
  /** ISO 8601; absent where the file does not say. */
  created?: string;
}

export interface ImportedServer {
  /** 44 characters of base64. Secret. */
  privateKey: string;
  /** The server's own addresses with their networks: "10.8.0.1/24". */
  addresses: string[];
  listenPort?: number;
  peers: ImportedPeer[];
  /** What is not taken over, a sentence each. */
  notes: string[];
}

export const IMPORT_BYTES_MAX = 16 << 20;
const NAME_MAX = 63, CREATED_MAX = 40;
/** A file of SQLite 3 begins so. */
const SQLITE = "SQLite format 3\0";
/** How installers write a peer's name above or into its section; a plain comment is a name too. */
const NAMES = [
  /^#+\s*Client:?\s+(.+?)(?:\s+\([0-9a-f-]+\))?$/i,
  /^#\s*BEGIN_PEER\s+(.+)$/,
  /^#\s*(?:friendly_)?name\s*[=:]\s*(.+)$/i,
  /^#+\s*([^=:]{1,60})$/,
];
const AMNEZIA = /^(jc|jmin|jmax|[sh][1-4]|i[1-5])$/;
const HOOKS = /^(pre|post)(up|down)$/;

/** Reads either form. `source` names it in errors. Throws CommandError. */
export function parseServer(text: string, source: string): ImportedServer {
  if (text.startsWith(SQLITE)) {
    throw new CommandError(
      `${source}: this is wg-easy 15's database; import the file wg0.conf beside it, which wg-easy writes with all peers`,
    );
  }
  const server = text.trimStart().startsWith("{") ? readJson(text, source) : readConf(text, source);
  if (server.peers.length === 0) throw new CommandError(`${source}: there is no peer in it`);
  return { ...server, peers: withNames(server.peers) };
}

function readJson(text: string, source: string): ImportedServer {
  const wrong = (what: string) => new CommandError(`${source}: this is no wg0.json of wg-easy 14: ${what}`);
  let json: { server?: Record<string, unknown>; clients?: Record<string, Record<string, unknown>> };
  try {
    json = JSON.parse(text);
  } catch {
    throw wrong("it is not JSON");
  }
  const { server, clients } = json;
  if (!isObject(server) || !isObject(clients)) throw wrong('it has no "server" and "clients"');
  const { privateKey, address } = server;
  if (typeof privateKey !== "string" || !isKeyText(privateKey)) throw wrong("server.privateKey is no key");
  const network = typeof address === "string" ? `${address}/24` : "";
  if (parseInterface(network) === undefined) throw wrong("server.address is no address");
  const peers: ImportedPeer[] = [], notes: string[] = [];
  for (const [i, client] of Object.values(clients).entries()) {
    const name = isObject(client) && typeof client.name === "string" ? client.name : "";
    const place = `client ${i + 1}${name === "" ? "" : ` (${printable(name)})`}`;
    if (!isObject(client)) throw wrong(`${place} is no object`);
    if (client.enabled === false) {
      notes.push(`${place} is disabled and left out`);
      continue;
    }
    const { publicKey, preSharedKey, createdAt } = client;
    if (typeof publicKey !== "string" || !isKeyText(publicKey)) throw wrong(`${place}: publicKey is no key`);
    if (preSharedKey && (typeof preSharedKey !== "string" || !isKeyText(preSharedKey))) {
      throw wrong(`${place}: preSharedKey is no key`);
    }
    const host = typeof client.address === "string" ? parsePrefix(`${client.address}/32`) : undefined;
    if (host === undefined) throw wrong(`${place}: address is no IPv4 address`);
    peers.push({
      name,
      publicKey,
      ...(preSharedKey ? { presharedKey: preSharedKey as string } : {}),
      allowedIps: [formatPrefix(host)],
      ...(typeof createdAt === "string" && createdAt.length <= CREATED_MAX ? { created: createdAt } : {}),
    });
  }
  return { privateKey, addresses: [network], peers, notes };
}

/** A section that is being read: its keys in lower case, and comments that may name it. */
interface Section {
  kind: "interface" | "peer";
  line: number;
  values: Map<string, string[]>;
  comments: string[];
}

function readConf(text: string, source: string): ImportedServer {
  const sections = sectionsOf(text, source);
  const own = sections.filter(({ kind }) => kind === "interface");
  if (own.length !== 1) {
    throw new CommandError(
      `${source}: expected one [Interface], as wg-quick's server has it, found ${own.length}`,
    );
  }
  const privateKey = own[0].values.get("privatekey")?.[0];
  if (privateKey === undefined || !isKeyText(privateKey)) {
    throw new CommandError(`${source}: line ${own[0].line}: [Interface] has no PrivateKey that is a key`);
  }
  const addresses = own[0].values.get("address") ?? [];
  const bad = addresses.find((one) => parseInterface(one) === undefined);
  if (bad !== undefined || addresses.length === 0) {
    throw new CommandError(`${source}: line ${own[0].line}: [Interface] has no Address that can be read`);
  }
  const port = Number(own[0].values.get("listenport")?.[0]);
  const notes = [...own[0].values.keys()].flatMap((key) =>
    HOOKS.test(key)
      ? [`${key} is not carried out: the relay masquerades and forwards by itself`]
      : AMNEZIA.test(key)
      ? [`${key}: the relay does not speak AmneziaWG; devices that insist on it will not connect`]
      : []
  );
  const peers = sections.filter(({ kind }) => kind === "peer").map((section) => peerOf(section, source));
  return {
    privateKey,
    addresses,
    ...(Number.isInteger(port) && port > 0 && port < 65536 ? { listenPort: port } : {}),
    peers,
    notes,
  };
}

function sectionsOf(text: string, source: string): Section[] {
  const sections: Section[] = [];
  /** Comments since the last line that was none; they stand above what they name. */
  let above: string[] = [];
  for (const [i, raw] of text.split(/\r?\n/).entries()) {
    const line = raw.trim();
    if (line.startsWith("#")) {
      above.push(line);
      continue;
    }
    const body = line.replace(/#.*/, "").trim();
    if (body === "") {
      if (line === "") above = [];
      continue;
    }
    const header = /^\[(interface|peer)\]$/i.exec(body)?.[1].toLowerCase();
    const entry = /^(\w+)\s*=\s*(.*)$/.exec(body);
    const section = sections.at(-1);
    if (header !== undefined) {
      sections.push({ kind: header as Section["kind"], line: i + 1, values: new Map(), comments: above });
    } else if (entry && section) {
      const key = entry[1].toLowerCase();
      const values = entry[2].split(",").map((value) => value.trim()).filter((value) => value !== "");
      section.values.set(key, [...section.values.get(key) ?? [], ...values]);
      section.comments.push(...above);
    } else {
      throw new CommandError(`${source}: line ${i + 1} is neither "[Interface]", "[Peer]" nor "Key = value"`);
    }
    above = [];
  }
  return sections;
}

function peerOf({ line, values, comments }: Section, source: string): ImportedPeer {
  const wrong = (what: string) => new CommandError(`${source}: line ${line}: [Peer] ${what}`);
  const [publicKey] = values.get("publickey") ?? [];
  if (publicKey === undefined || !isKeyText(publicKey)) throw wrong("has no PublicKey that is a key");
  const [presharedKey] = values.get("presharedkey") ?? [];
  if (presharedKey !== undefined && !isKeyText(presharedKey)) {
    throw wrong("has a PresharedKey that is no key");
  }
  const allowedIps = (values.get("allowedips") ?? []).map((text) => {
    const prefix = parsePrefix(text.includes("/") ? text : `${text}/${text.includes(":") ? 128 : 32}`);
    if (prefix === undefined) throw wrong("has AllowedIPs that cannot be read");
    return formatPrefix(prefix);
  });
  if (allowedIps.length === 0) throw wrong("has no AllowedIPs");
  const name =
    comments.toReversed().flatMap((comment) =>
      NAMES.flatMap((pattern) => pattern.exec(comment)?.[1] ?? []).slice(0, 1)
    ).at(0) ?? "";
  return { name, publicKey, ...(presharedKey === undefined ? {} : { presharedKey }), allowedIps };
}

/** The peers with names that a record may have, each once. */
function withNames(peers: readonly ImportedPeer[]): ImportedPeer[] {
  const taken = new Set<string>();
  return peers.map((peer, i) => {
    const plain = peer.name.normalize("NFKD").replace(/[^A-Za-z0-9._-]+/g, "-").replace(/^-+|-+$/g, "");
    const stem = (plain === "" ? `peer-${i + 1}` : plain).slice(0, NAME_MAX - 6);
    let name = stem;
    for (let n = 2; taken.has(name); n++) name = `${stem}-${n}`;
    taken.add(name);
    return { ...peer, name };
  });
}

function printable(text: string): string {
  // deno-lint-ignore no-control-regex
  return text.slice(0, NAME_MAX).replace(/[\x00-\x1f\x7f-\x9f]/g, "?");
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
