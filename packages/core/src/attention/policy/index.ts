/** Policies of layers that reuse lists: what is measured, the searches, and the files of other systems. */
export {
  type GreedySettings,
  type LossSearch,
  type LossStep,
  type PlanLoss,
  type RepairSettings,
  repairPlan,
  searchGreedy,
} from "./greedy.js";
export { searchPairs } from "./pairs.js";
export { type SearchSettings, searchHylra, searchKascade, searchUcm } from "./search.js";
export { anchorsOf, type LayerPlan, type Similarity, similarityOf } from "./similarity.js";
