// Hot path.
/**
 * A user's rules about flows: finds the first rule that matches a packet. Invariant: a look reads
 * the packet's header and the first 64 bytes of its payload, and allocates nothing. direction.ts ranks rules among hints and
 * marks; rule_text.ts reads their text.
 */
import { type Pattern, Signatures } from "./signatures.ts";

export const CLASS_RULES_MAX = 64;
/** The `dscp` of a rule for any DSCP. */
export const ANY_DSCP = 255;

/** A parsed rule: all of its conditions must hold. */
export interface ClassRule {
  /** CLASS_*. */
  readonly trafficClass: number;
  /** IP protocol number; 0 is any. */
  readonly protocol: number;
  /** Range in which one of the two ports lies. */
  readonly ports: readonly [from: number, to: number];
  /** Prefix in which one of the two addresses lies: words as in wire/address.ts, bits of 128. */
  readonly prefix?: { readonly address: Uint32Array; readonly bits: number };
  /** 0 to 63, or 255 for any. */
  readonly dscp: number;
  /** Pattern of the UDP payload. */
  readonly pattern?: { readonly bytes: string; readonly at: number };
  /** A program of this host, which stands for its ports; such a rule has no other condition. */
  readonly program?: string;
}

/** The pattern of a rule, with its ports. */
export function patternOf({ pattern, ports }: ClassRule): Pattern {
  return { app: 0, points: 0, bytes: pattern === undefined ? "" : pattern.bytes, at: pattern?.at, ports };
}

/** What a rule may ask of a packet. */
export interface RuledPacket {
  protocol: number;
  /** Two of 16 bits. */
  ports: number;
  /** TOS or traffic class byte. */
  tos: number;
  /** Where its IP header begins. */
  packetAt: number;
  payloadAt: number;
  payloadBytes: number;
}

export class ClassRules {
  readonly count: number;
  readonly #class: Uint8Array;
  readonly #protocol: Uint8Array;
  readonly #dscp: Uint8Array;
  readonly #portFrom: Uint16Array;
  readonly #portTo: Uint16Array;
  readonly #hasPattern: Uint8Array;
  /** -1 for any address. */
  readonly #bits: Int16Array;
  readonly #address: Uint32Array;
  /** One pattern each, so that a later rule is tried where an earlier one's address does not match. */
  readonly #patterns: Signatures[] = [];

  /** Of rules without programs. Throws RangeError when there are more than 64. */
  constructor(rules: readonly ClassRule[]) {
    if (rules.length > CLASS_RULES_MAX) {
      throw new RangeError(`at most ${CLASS_RULES_MAX} rules, found ${rules.length}`);
    }
    const count = this.count = rules.length;
    this.#class = new Uint8Array(count);
    this.#protocol = new Uint8Array(count);
    this.#dscp = new Uint8Array(count);
    this.#portFrom = new Uint16Array(count);
    this.#portTo = new Uint16Array(count);
    this.#hasPattern = new Uint8Array(count);
    this.#bits = new Int16Array(count).fill(-1);
    this.#address = new Uint32Array(4 * count);
    for (let i = 0; i < count; i++) {
      const rule = rules[i];
      this.#class[i] = rule.trafficClass;
      this.#protocol[i] = rule.protocol;
      this.#dscp[i] = rule.dscp;
      this.#portFrom[i] = rule.ports[0];
      this.#portTo[i] = rule.ports[1];
      this.#hasPattern[i] = rule.pattern === undefined ? 0 : 1;
      if (rule.prefix !== undefined) {
        this.#bits[i] = rule.prefix.bits;
        this.#address.set(rule.prefix.address, 4 * i);
      }
      this.#patterns.push(new Signatures([patternOf(rule)]));
    }
  }

  /** The class of the first rule that matches the packet in `view`, or -1. */
  find(view: DataView, packet: RuledPacket): number {
    for (let i = 0; i < this.count; i++) if (this.#fits(i, view, packet)) return this.#class[i];
    return -1;
  }

  #fits(i: number, view: DataView, packet: RuledPacket): boolean {
    const { protocol, ports, tos, packetAt, payloadAt, payloadBytes } = packet;
    if (this.#protocol[i] !== 0 && this.#protocol[i] !== protocol) return false;
    if (this.#dscp[i] !== ANY_DSCP && this.#dscp[i] !== tos >> 2) return false;
    const from = this.#portFrom[i], to = this.#portTo[i], one = ports >>> 16, other = ports & 0xffff;
    if ((one < from || one > to) && (other < from || other > to)) return false;
    if (this.#bits[i] >= 0 && !this.#contains(i, view, packetAt)) return false;
    if (this.#hasPattern[i] === 0) return true;
    return payloadBytes > 0 && this.#patterns[i].find(view, payloadAt, payloadBytes, one, other) === 0;
  }

  /** Whether one of the packet's two addresses is in the rule's prefix. */
  #contains(i: number, view: DataView, at: number): boolean {
    return view.getUint8(at) >> 4 === 4
      ? this.#containsIpv4(i, view.getUint32(at + 12)) || this.#containsIpv4(i, view.getUint32(at + 16))
      : this.#containsIpv6(i, view, at + 8) || this.#containsIpv6(i, view, at + 24);
  }

  #containsIpv4(i: number, address: number): boolean {
    return this.#agrees(i, 0, 0) && this.#agrees(i, 1, 0) && this.#agrees(i, 2, 0xffff) &&
      this.#agrees(i, 3, address);
  }

  #containsIpv6(i: number, view: DataView, at: number): boolean {
    for (let word = 0; word < 4; word++) {
      if (!this.#agrees(i, word, view.getUint32(at + 4 * word))) return false;
    }
    return true;
  }

  /** Whether the word of an address is the prefix's, as far as that goes. */
  #agrees(i: number, word: number, value: number): boolean {
    const bits = Math.min(32, this.#bits[i] - 32 * word);
    return bits <= 0 || (this.#address[4 * i + word] ^ value) >>> 32 - bits === 0;
  }
}
