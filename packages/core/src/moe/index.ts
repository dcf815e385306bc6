/** Mixture of experts: keeping the experts worth keeping. */
export { align } from "./align/spec.js";
export { combine } from "./combine/spec.js";
export {
  ExpertCache,
  type ExpertCacheSettings,
  type ExpertCounters,
  type ExpertEvent,
  never,
  type RetentionPolicy,
  retentionPolicies,
} from "./expert-cache.js";
export { groupedFfn } from "./grouped-ffn/spec.js";
export {
  type EvaluateSettings,
  evaluatePredictors,
  type PredictionQuality,
  type PredictorName,
  predictors,
  splitSequences,
} from "./predict/evaluate.js";
export { unknownToken } from "./predict/features.js";
export { RidgePredictor, type RidgePredictorSettings } from "./predict/ridge-predictor.js";
export { nextUses, type ReplayResult, type ReplaySettings, replayMoeTrace } from "./replay.js";
export { route } from "./route/spec.js";
export { openMoeTrace, parseMoeTrace, unzipped, writeMoeTrace } from "./trace/moetrc.js";
export { type SyntheticTraceSettings, syntheticMoeTrace } from "./trace/synthetic.js";
export { moeTraceFromCsv, moeTraceFromJson } from "./trace/tables.js";
export type { MoeTrace, Sequence } from "./trace/trace.js";
