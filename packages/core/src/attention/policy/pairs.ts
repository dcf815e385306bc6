import { type LayerPlan, maskOf, planOf, type Similarity, wholeFrom } from "./similarity.js";

/**
 * HShare's form, cheap enough for each request: so many times, of all pairs of a layer and an earlier one the most alike is
 * taken, and the later layer takes the list of the earlier one, or of the one that this takes its own from. A layer that has
 * been turned to reuse is in no further pair. Among equals the earlier layer, then the earlier source. Sources need not be
 * the nearest. `merges`: how many layers reuse, at most layers - 1; fewer where `own` leaves fewer.
 */
export function searchPairs(
  similarity: Similarity,
  { merges, own }: { readonly merges: number; readonly own?: Iterable<number> | undefined },
): LayerPlan {
  const { layers } = similarity;
  const fixed = maskOf("searchPairs: own", layers, own);
  wholeFrom("searchPairs: merges", merges, 0, layers - 1);
  const sources = Array.from({ length: layers }, (_, layer) => layer);
  for (let merged = 0; merged < merges; merged++) {
    let [best, from, to] = [Number.NEGATIVE_INFINITY, -1, -1];
    for (let layer = 1; layer < layers; layer++) {
      if (fixed[layer] || sources[layer] !== layer) continue;
      for (let source = 0; source < layer; source++) {
        if (sources[source] !== source || similarity.at(source, layer) <= best) continue;
        [best, from, to] = [similarity.at(source, layer), layer, source];
      }
    }
    if (from < 0) break;
    for (const [layer, source] of sources.entries()) if (source === from) sources[layer] = to;
  }
  return planOf(similarity, sources);
}
