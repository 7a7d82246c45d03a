/**
 * The classes of traffic and what each is owed (PROTOCOL §14, hint). Invariant: the numbers are those on the wire.
 * Says nothing of how a flow gets its class.
 */

/** Unknown as yet: treated as if somebody waited for it. */
export const CLASS_DEFAULT = 0;
/** Small packets at a game's pace; never held. */
export const CLASS_GAME = 1;
/** Calls; never held. */
export const CLASS_VOICE = 2;
/** Requests whose sender waits for the answer: names, shells, the first packets of a page. */
export const CLASS_INTERACTIVE = 3;
/** Transfers and their acknowledgements; may be held so that others join the datagram. */
export const CLASS_BULK = 4;

export const CLASS_COUNT = 5;

/** Whether packets of the class have a deadline after which they are of no use: a game's and a call's. */
export function isRealTime(trafficClass: number): boolean {
  return trafficClass === CLASS_GAME || trafficClass === CLASS_VOICE;
}
