/**
 * Why a packet keeps its headers, as the halves that send say it; the order is that of HEADERS_KEPT in metrics.ts, which has
 * the sentences. Constants and the tally of a session alone.
 */
export const KEPT_KIND = 0, KEPT_NEW = 1, KEPT_ROOM = 2, KEPT_CHANGED = 3, KEPT_UNANSWERED = 4;

/** Of one session: packets that went without their headers, what stood for these, and what was saved, octets. */
export class HeaderTally {
  packets = 0;
  bytesSent = 0;
  bytesSaved = 0;
}
