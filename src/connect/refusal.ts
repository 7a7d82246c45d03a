/**
 * What a relay's refusal (PROTOCOL §11) means to a person, in words that say what to do. Pure.
 */
import {
  REFUSED_AEAD,
  REFUSED_CRITICAL,
  REFUSED_DISABLED,
  REFUSED_DRAINING,
  REFUSED_EXPIRED,
  REFUSED_FULL,
  REFUSED_VOLUME,
} from "../wire/parameters.ts";

const COMMAND = "deno task peer";

/** Reason and remedy of each, of one who can ask the relay's operator. */
const WORDS: Record<number, string> = {
  [REFUSED_FULL]: "as many devices as it takes are connected to it (max_connections); it is asked again",
  [REFUSED_CRITICAL]: "it does not understand what this program asks for; update the relay",
  [REFUSED_AEAD]: "it has no cipher in common with this program; update the older one of the two",
  [REFUSED_DRAINING]: "it is about to stop; it is asked again",
  [REFUSED_DISABLED]:
    `its operator has disabled this device. Ask for it to be enabled: on the relay's page, or by ${COMMAND} enable NAME`,
  [REFUSED_EXPIRED]:
    `the date has come that its operator set for this device. Ask for a later one: on the relay's page, or ` +
    `by ${COMMAND} set NAME --expires 30d`,
  [REFUSED_VOLUME]:
    `this device has used up the volume of this month. It is let in again when the next month begins (UTC), or ` +
    `with a larger volume: on the relay's page, or by ${COMMAND} set NAME --volume 100G`,
};

/** The sentences about a refusal for REFUSED_* by the relay at `address`. */
export function explainRefusal(reason: number, address: string): string {
  const words = WORDS[reason] ?? `for a reason that this program does not know (${reason}); update it`;
  return `The relay at ${address} refuses this device: ${words}.`;
}
