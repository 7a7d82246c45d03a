/**
 * One-time links: each lets somebody without the token add one device, once, until a time. Invariant: what is stored is the SHA-256 of a
 * link's token, and the device's keys are made when the link is used, so neither the disk nor the log ever holds a configuration or a
 * link that works; a link is spent on the disk before its device is added, so that kill -9 cannot make it work twice. Serves no peer.
 */
import { createHash, randomBytes } from "node:crypto";
import { join } from "node:path";
import { type Link, Refusal } from "../../admin/mod.ts";
import { makeStateDirectory, readIfPresent, replaceFile, withLock } from "../../process/durable.ts";
import { CommandError } from "../../process/help.ts";
import type { PeerRecord } from "../../session/peer_record.ts";
import { Turns } from "./turns.ts";

/** Links that are kept at a time. */
export const LINKS_MAX = 1000;
/** How long a link that was used or has expired is still listed, milliseconds. */
const LISTED_MS = 86_400_000;
const TOKEN_BYTES = 32, ID_BYTES = 6;
const VERSION = 1;

/** What a device made by a link is added with. */
export type LinkedPeer =
  & Pick<PeerRecord, "name">
  & Partial<Omit<PeerRecord, "publicKey" | "allowedIps" | "created">>;

interface StoredLink {
  id: string;
  /** SHA-256 of the token, base64. */
  digest: string;
  peer: LinkedPeer;
  created: string;
  expires: string;
  used?: string;
}

export class Links {
  readonly path: string;
  readonly #stateDir: string;
  readonly #wallMs: () => number;
  readonly #turns = new Turns();
  #links: readonly StoredLink[] = [];
  /** Why the stored links could not be read. */
  #fault: string | undefined;

  private constructor(stateDir: string, wallMs: () => number) {
    this.#stateDir = stateDir;
    this.path = join(stateDir, "links.json");
    this.#wallMs = wallMs;
  }

  /** Reads the stored links. A file that cannot be used stays as it is, and no link is made until it is gone. */
  static async open(
    stateDir: string,
    wallMs: () => number,
    say: (message: string) => void,
  ): Promise<Links> {
    const links = new Links(stateDir, wallMs);
    try {
      const text = await readIfPresent(links.path);
      if (text !== undefined) links.#links = parse(text, links.path);
    } catch (error) {
      if (!(error instanceof CommandError)) throw error;
      links.#fault = error.message;
      say(`no one-time link works: ${error.message}`);
    }
    return links;
  }

  /** All links, without their tokens, the newest first. */
  list(): Link[] {
    const wallMs = this.#wallMs();
    return this.#links.filter((link) => isListed(link, wallMs)).map((link) => viewOf(link, wallMs)).reverse();
  }

  /** Whether a link that still works will make a device of this name. */
  reserves(name: string): boolean {
    return this.#links.some((link) => link.peer.name === name && isOpen(link, this.#wallMs()));
  }

  /** Makes a link and returns it with its token, which nobody can ask for again. Throws Refusal. */
  make(peer: LinkedPeer, expires: string): Promise<Link & { token: string }> {
    return this.#turns.take(async () => {
      if (this.#fault !== undefined) throw new Refusal("store", this.#fault);
      if (this.reserves(peer.name)) {
        throw new Refusal("name", `a one-time link for "${peer.name}" waits already`);
      }
      const wallMs = this.#wallMs();
      const kept = this.#links.filter((link) => isListed(link, wallMs));
      if (kept.length >= LINKS_MAX) throw new Refusal("link", `${LINKS_MAX} links are the limit; revoke one`);
      const token = randomBytes(TOKEN_BYTES).toString("base64url");
      const link: StoredLink = {
        id: randomBytes(ID_BYTES).toString("hex"),
        digest: digestOf(token),
        peer,
        created: new Date(wallMs).toISOString(),
        expires,
      };
      await this.#store([...kept, link]);
      return { ...viewOf(link, wallMs), token };
    });
  }

  /** Makes a link useless; undefined when there is none of that id. Throws Refusal when the disk refuses. */
  revoke(id: string): Promise<Link | undefined> {
    return this.#turns.take(async () => {
      const link = this.#links.find((link) => link.id === id);
      if (link === undefined) return undefined;
      await this.#store(this.#links.filter((other) => other !== link));
      return viewOf(link, this.#wallMs());
    });
  }

  /**
   * Spends the link of this token and adds its device by `add`; undefined when no link that still works has it. A device that cannot be
   * added leaves the link as it was. Throws what `add` throws, or Refusal when the disk refuses.
   */
  redeem<T>(token: string, add: (peer: LinkedPeer) => Promise<T>): Promise<T | undefined> {
    return this.#turns.take(async () => {
      const wallMs = this.#wallMs();
      const digest = digestOf(token);
      const link = this.#links.find((link) => link.digest === digest && isOpen(link, wallMs));
      if (link === undefined) return undefined;
      const before = this.#links;
      const spent = { ...link, used: new Date(wallMs).toISOString() };
      await this.#store(before.map((other) => other === link ? spent : other));
      try {
        return await add(link.peer);
      } catch (error) {
        await this.#store(before);
        throw error;
      }
    });
  }

  async #store(links: readonly StoredLink[]): Promise<void> {
    try {
      await makeStateDirectory(this.#stateDir);
      const text = `${JSON.stringify({ version: VERSION, links }, null, 2)}\n`;
      await withLock(`${this.path}.lock`, () => replaceFile(this.path, text));
    } catch (error) {
      if (error instanceof CommandError) throw new Refusal("store", error.message);
      throw error;
    }
    this.#links = links;
  }
}

const digestOf = (token: string) => createHash("sha256").update(token).digest("base64");

const isOpen = ({ used, expires }: StoredLink, wallMs: number) =>
  used === undefined && Date.parse(expires) > wallMs;

const isListed = ({ used, expires }: StoredLink, wallMs: number) =>
  Date.parse(used ?? expires) > wallMs - LISTED_MS;

function viewOf({ id, peer, created, expires, used }: StoredLink, wallMs: number): Link {
  const state = used !== undefined ? "used" : Date.parse(expires) > wallMs ? "open" : "expired";
  return { id, name: peer.name, created, expires, state, ...(used === undefined ? {} : { used }) };
}

function parse(text: string, path: string): StoredLink[] {
  try {
    const { version, links } = JSON.parse(text);
    const isText = (value: unknown) => typeof value === "string";
    const isSound = (link: StoredLink) =>
      [link.id, link.digest, link.peer.name, link.created, link.expires, link.used ?? ""].every(isText);
    if (version === VERSION && Array.isArray(links) && links.every(isSound)) return links;
  } catch {
    // Falls through: it is not JSON, or not of this shape.
  }
  throw new CommandError(
    `${path}: cannot be used: it is not what a relay has written. Restore a backup, or move it away, which makes all one-time ` +
      `links useless: mv ${path} ${path}.damaged`,
  );
}
