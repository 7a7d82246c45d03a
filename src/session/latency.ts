/**
 * The latency budget of what packets pass here, for people: waits by class and processing, from counts that add up. Invariant: a class
 * without packets has no figures. Keeps nothing.
 */
import { addDelays, type DelayFigures, delayFigures } from "../control/delay_figures.ts";
import type { DelayCounts } from "../control/delays.ts";
import { CLASS_LABELS, type ClassLabel } from "../metrics.ts";
import type { LatencyCounts, LatencyFigures } from "./peer_record.ts";

/** Of classes that had any. @param counts by class. */
export function figuresByClass(counts: readonly DelayCounts[]): Partial<Record<ClassLabel, DelayFigures>> {
  return Object.fromEntries(
    CLASS_LABELS.map((label, i) => [label, delayFigures(counts[i])]).filter(([, figures]) =>
      figures !== undefined
    ),
  );
}

export function addLatencies(some: readonly LatencyCounts[]): LatencyCounts {
  return {
    queue: CLASS_LABELS.map((_, i) => addDelays(some.map(({ queue }) => queue[i]))),
    processing: addDelays(some.map(({ processing }) => processing)),
  };
}

export function latencyFigures({ queue, processing }: LatencyCounts): LatencyFigures {
  return {
    queue: delayFigures(addDelays(queue)),
    queueByClass: figuresByClass(queue),
    processing: delayFigures(processing),
  };
}
