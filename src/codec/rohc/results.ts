/**
 * What came of a packet that was to be compressed or restored.
 */

export const RESULT = {
  /** A packet was restored. */
  PACKET: 0,
  /** The input held only feedback, padding or a context without a packet. */
  NOTHING: 1,
  /** The packet is not well formed, or of a format that is not spoken here. */
  MALFORMED: 2,
  /** Its context is unknown: the compressor has to send IR. */
  NO_CONTEXT: 3,
  /** Its context has no reliable dynamic part: the compressor has to send IR-DYN or more. */
  STATIC_CONTEXT: 4,
  /** Its checksum does not confirm the headers that were built. */
  BAD_CRC: 5,
  /** The output has no room. */
  NO_ROOM: 6,
} as const;
