/**
 * The share of each class in the packets and bytes of one direction, as words. Invariant: shares of one mix add up to 1, or
 * there is no mix. Measures nothing.
 */
import { CLASS_LABELS, type ClassCount, type ClassLabel } from "../metrics.ts";

/** Shares 0..1 of the packets and of their bytes, for each class that there was any of. */
export type ClassMix = Partial<Record<ClassLabel, ClassCount>>;

/** Classes that a line has room for. */
const SHOWN_MAX = 3;

/** What went between two moments, of the totals of each class in the order of CLASS_LABELS; undefined when nothing did. */
export function classMix(before: readonly ClassCount[], now: readonly ClassCount[]): ClassMix | undefined {
  // Totals that began anew in between count from zero.
  const gone = now.map(({ packets, bytes }, i) => {
    const isAnew = packets < before[i].packets;
    return {
      packets: packets - (isAnew ? 0 : before[i].packets),
      bytes: bytes - (isAnew ? 0 : before[i].bytes),
    };
  });
  const packets = gone.reduce((sum, one) => sum + one.packets, 0);
  const bytes = gone.reduce((sum, one) => sum + one.bytes, 0);
  if (packets === 0) return undefined;
  const mix: ClassMix = {};
  gone.forEach((one, i) => {
    if (one.packets > 0) mix[CLASS_LABELS[i]] = { packets: one.packets / packets, bytes: one.bytes / bytes };
  });
  return mix;
}

/** "game 62 % (4 %), bulk 38 % (96 %)": shares of packets and, in brackets, of bytes; the largest first, three at most. */
export function renderMix(mix: ClassMix | undefined): string {
  const percent = (share: number) => `${Math.round(100 * share)} %`;
  return CLASS_LABELS.map((label) => ({ label, packets: 0, bytes: 0, ...mix?.[label] }))
    .filter(({ packets }) => packets > 0)
    .toSorted((a, b) => b.packets - a.packets)
    .slice(0, SHOWN_MAX)
    .map(({ label, packets, bytes }) => `${label} ${percent(packets)} (${percent(bytes)})`)
    .join(", ") || "-";
}
