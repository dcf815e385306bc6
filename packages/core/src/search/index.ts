/** Embedding search: finding the vectors worth reading. */

export { FlatIndex, type FlatIndexSettings, type OpenSettings, type SearchSettings } from "./flat-index/flat-index.js";
export type { Id } from "./flat-index/ids.js";
export type { RowFilter } from "./flat-index/row-filter.js";
export type { Hit, SearchCounters } from "./flat-index/searcher.js";
export type { RowDType, Vectors } from "./flat-index/vectors.js";
export { scan } from "./scan/spec.js";
