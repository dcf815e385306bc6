/** Mixture of experts: keeping the experts worth keeping. */
export {
  ExpertCache,
  type ExpertCacheSettings,
  type ExpertCounters,
  type ExpertEvent,
  never,
  type RetentionPolicy,
  retentionPolicies,
} from "./expert-cache.js";
export { nextUses, type ReplayResult, type ReplaySettings, replayMoeTrace } from "./replay.js";
export { openMoeTrace, parseMoeTrace, unzipped, writeMoeTrace } from "./trace/moetrc.js";
export { type SyntheticTraceSettings, syntheticMoeTrace } from "./trace/synthetic.js";
export { moeTraceFromCsv, moeTraceFromJson } from "./trace/tables.js";
export type { MoeTrace, Sequence } from "./trace/trace.js";
