/**
 * The options of loss repair in one tunnel (PROTOCOL §13), as config.ts reads them. Holds values alone.
 */
import type { ShardKernel } from "../codec/kernels.ts";
import type { PredictorKind } from "./prediction/predictor.ts";
import type { RepairScheme } from "./redundancy.ts";

export interface RepairOptions {
  kernel: ShardKernel;
  /** Age at which a game's or a call's packet is of no more use, microseconds. */
  gameDeadlineUs: number;
  voiceDeadlineUs: number;
  /** Most bytes of repair for each byte protected, 0 to 1. */
  budget: number;
  scheme: RepairScheme;
  /** Fixed bytes of repair for each byte protected, 0 to the budget, whatever the path does; undefined adapts. */
  share: number | undefined;
  /** Whether games and calls are protected as their deadlines ask and bulk hardly at all, or every class like a game. */
  isTrafficAware: boolean;
  /** Whether repair rises with losses that are predicted, and by which predictor. */
  isProactive: boolean;
  predictor: PredictorKind | "default";
  /** Whether lost packets are asked for, and sent again when the other end asks. */
  isAsking: boolean;
  /** Share of a class's packets that may stay lost: repair that would leave less is not sent. */
  target: number;
}

/** The options for the `[repair]` section of a configuration; `kernel` combines the shards. */
export function repairOptions(
  kernel: ShardKernel,
  config: {
    budgetPercent: number;
    gameDeadlineMs: number;
    voiceDeadlineMs: number;
    scheme?: RepairScheme;
    sharePercent?: number;
    trafficAware?: boolean;
    proactive?: boolean;
    predictor?: PredictorKind | "default";
    requests?: boolean;
    targetPercent?: number;
  },
): RepairOptions {
  return {
    kernel,
    budget: config.budgetPercent / 100,
    gameDeadlineUs: 1000 * config.gameDeadlineMs,
    voiceDeadlineUs: 1000 * config.voiceDeadlineMs,
    scheme: config.scheme ?? "auto",
    share: config.sharePercent === undefined ? undefined : config.sharePercent / 100,
    isTrafficAware: config.trafficAware ?? true,
    isProactive: config.proactive ?? true,
    predictor: config.predictor ?? "default",
    isAsking: config.requests ?? true,
    target: (config.targetPercent ?? 0.1) / 100,
  };
}
