/** Attention: finding the tokens worth attending to. */
export { continualRetroactive } from "./continual-retroactive/spec.js";
export { continualSingle } from "./continual-single/spec.js";
export { decode } from "./decode/spec.js";
export { decodeAnchor } from "./decode-anchor/spec.js";
export { decodeSparse } from "./decode-sparse/spec.js";
export { type LayerInputs, type LayerOutputs, LayerReuse, type LayerReuseSettings } from "./layer-reuse.js";
export { formatPolicy, type LayerPolicy, type LayerRule, type PolicyChecks, parsePolicy } from "./layer-reuse-policy.js";
export { type SpeculativeRows, type SpeculativeSettings, speculativeRows } from "./layer-reuse-rows.js";
export type { LayerStep, ReuseCounters } from "./layer-reuse-step.js";
export { checkLists, type ListChecks } from "./lists.js";
export { merge } from "./merge/spec.js";
export { pageScores } from "./page-scores/spec.js";
export { pageStats } from "./page-stats/spec.js";
export * from "./policy/index.js";
export { prefill } from "./prefill/spec.js";
export { rope } from "./rope/spec.js";
export { select } from "./select/spec.js";
export * from "./stream/index.js";
