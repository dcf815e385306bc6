/** Policies of layers that reuse lists: what is measured, the searches, and the files of other systems. */

export {
  type CompileSettings,
  compilePolicy,
  headMap,
  type KeptMass,
  keptMass,
  type Measure,
  measures,
  onlySparse,
  type PolicyCost,
  policyCost,
  policyCounts,
  policyLine,
  profileSimilarity,
  type Sensitivity,
  type SimilaritySettings,
  sensitiveLayers,
  sensitivities,
  sourcesOf,
} from "./compile.js";
export { type NamedArray, readRecord, recordOf, writeRecord } from "./dump.js";
export {
  type GreedySettings,
  type LossSearch,
  type LossStep,
  type PlanLoss,
  type RepairSettings,
  repairPlan,
  searchGreedy,
} from "./greedy.js";
export { type DuoSettings, importDuo, importMInference } from "./import-heads.js";
export { importHshare } from "./import-hshare.js";
export { importIndexer } from "./import-indexer.js";
export { importKascade, type KascadeSettings } from "./import-kascade.js";
export { importUcm } from "./import-ucm.js";
export type { HeadPattern, ImportedPolicy } from "./imported.js";
export { type MeasureSettings, profileLayers } from "./measure.js";
export { mergeProfiles } from "./merge.js";
export { type NpyArray, npyNumbers, readNpy } from "./npy.js";
export { searchPairs } from "./pairs.js";
export {
  formatProfile,
  type LayerProfile,
  type LayerStatistics,
  type PairStatistics,
  type ProfileSettings,
  pairOf,
  parseProfile,
  type TokenKl,
} from "./profile.js";
export type { AttentionRecord, LayerRecord } from "./record.js";
export { type SearchSettings, searchHylra, searchKascade, searchUcm } from "./search.js";
export { anchorsOf, type LayerPlan, type Similarity, similarityOf } from "./similarity.js";
