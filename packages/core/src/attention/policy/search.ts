/**
 * Exact searches for the layers that make lists, where each other layer takes the list of the nearest one before it: the
 * layers fall into segments, each of which begins with an anchor; layer 0 always is one. Among equals the later anchors win,
 * and fewer where the number is free, so results do not depend on the machine.
 */
import { describe, HotsetError, ShapeError } from "../../errors.js";
import { type LayerPlan, maskOf, planOf, type Similarity, wholeFrom } from "./similarity.js";

export interface SearchSettings {
  /** Layers that must make a list of their own: sensitive ones. */
  readonly own?: Iterable<number> | undefined;
}

/**
 * HyLRA's form: the fewest anchors such that each list serves with at least `threshold`; among these the largest sum.
 * O(L^2). Source: Ai et al., arXiv 2602.00777. Throws HotsetError where the threshold is no number.
 */
export function searchHylra(similarity: Similarity, { threshold, own }: SearchSettings & { readonly threshold: number }): LayerPlan {
  if (typeof threshold !== "number" || Number.isNaN(threshold))
    throw new HotsetError("argument", { where: "searchHylra: threshold", expected: "a number", received: describe(threshold) });
  const { layers } = similarity;
  const reach = reachOf(similarity, maskOf("searchHylra: own", layers, own), threshold);
  // Of the layers before `end`: fewest anchors, then the largest sum, and the anchor that the last segment begins with.
  const best = Array.from({ length: layers + 1 }, () => ({ anchors: Number.POSITIVE_INFINITY, sum: 0, from: -1 }));
  best[0] = { anchors: 0, sum: 0, from: -1 };
  for (let anchor = 0; anchor < layers; anchor++) {
    const before = best[anchor] as (typeof best)[number];
    const anchors = before.anchors + 1;
    let sum = before.sum;
    for (let end = anchor + 1; end <= (reach[anchor] as number); end++) {
      sum += similarity.at(anchor, end - 1);
      const known = best[end] as (typeof best)[number];
      if (anchors < known.anchors || (anchors === known.anchors && sum >= known.sum)) best[end] = { anchors, sum, from: anchor };
    }
  }
  return planOf(
    similarity,
    sourcesOf(layers, (end) => (best[end] as (typeof best)[number]).from),
  );
}

/**
 * UCM's form: at most `resets` anchors besides layer 0; the best worst case, then the largest sum. Exact, where the published
 * dynamic programme over (worst, sum) loses sums. Of several matrices (calibration texts, heads) the worst case is over all
 * of them, and the sum too. The worst case by bisection over its possible values, then a cover under it: O(L^2 (resets + log L)).
 */
export function searchUcm(
  similarities: Similarity | readonly Similarity[],
  { resets, own }: SearchSettings & { readonly resets: number },
): LayerPlan {
  const all: readonly Similarity[] = "layers" in similarities ? [similarities] : similarities;
  const layers = all[0]?.layers ?? 0;
  if (all.length === 0 || all.some((one) => one.layers !== layers))
    throw new ShapeError({
      where: "searchUcm",
      expected: "matrices of the same layers, one at least",
      received: `[${all.map((one) => one.layers)}]`,
    });
  const fixed = maskOf("searchUcm: own", layers, own);
  const least = fixed.reduce((count, is, layer) => count + Number(is && layer > 0), 0);
  const most = wholeFrom("searchUcm: resets", resets, least, 2 ** 31) + 1;
  const worst: Similarity = { layers, at: (i, j) => all.reduce((value, one) => Math.min(value, one.at(i, j)), Number.POSITIVE_INFINITY) };
  const sum: Similarity = { layers, at: (i, j) => all.reduce((value, one) => value + one.at(i, j), 0) };
  const values = new Set<number>([1]);
  for (let i = 0; i < layers; i++) for (let j = i + 1; j < layers; j++) values.add(Math.min(1, worst.at(i, j)));
  const sorted = Float64Array.from(values).sort();
  // The least value admits one segment for each fixed layer; a plan without reuse counts as 1.
  let [low, high] = [0, sorted.length - 1];
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (segmentsUnder(reachOf(worst, fixed, sorted[middle] as number)) <= most) low = middle;
    else high = middle - 1;
  }
  const sources = cover(sum, reachOf(worst, fixed, sorted[low] as number), Math.min(most, layers), "most");
  return { ...planOf(sum, sources), worst: planOf(worst, sources).worst };
}

/**
 * Kascade's form: exactly `anchors` anchors and the largest sum, each layer counted by its weight (its importance; 1 by
 * default). O(anchors L^2). Source: Kascade (MIT).
 */
export function searchKascade(
  similarity: Similarity,
  { anchors, weights, own }: SearchSettings & { readonly anchors: number; readonly weights?: readonly number[] | undefined },
): LayerPlan {
  const { layers } = similarity;
  const fixed = maskOf("searchKascade: own", layers, own);
  fixed[0] = true;
  wholeFrom("searchKascade: anchors", anchors, fixed.filter(Boolean).length, layers);
  if (weights && (weights.length !== layers || !weights.every(Number.isFinite)))
    throw new ShapeError({
      where: "searchKascade: weights",
      expected: `${layers} finite numbers, one for each layer`,
      received: `[${weights.join(", ")}]`,
    });
  const weighted: Similarity = { layers, at: (i, j) => (weights?.[j] ?? 1) * similarity.at(i, j) };
  const reach = reachOf(similarity, fixed, Number.NEGATIVE_INFINITY);
  return planOf(similarity, cover(weighted, reach, anchors, "exactly"), weights);
}

/** Of each anchor, where its segment must end: before a layer it serves too badly, or one that makes a list of its own. */
function reachOf(similarity: Similarity, own: readonly boolean[], threshold: number): Int32Array {
  const { layers } = similarity;
  return Int32Array.from({ length: layers }, (_, anchor) => {
    let end = anchor + 1;
    while (end < layers && !own[end] && similarity.at(anchor, end) >= threshold) end++;
    return end;
  });
}

/** The fewest segments that cover all layers: a longer segment is not always the better one, since lists differ in reach. */
function segmentsUnder(reach: Int32Array): number {
  const fewest = new Float64Array(reach.length + 1).fill(Number.POSITIVE_INFINITY);
  fewest[0] = 0;
  for (const [anchor, most] of reach.entries())
    for (let end = anchor + 1; end <= most; end++) fewest[end] = Math.min(fewest[end] as number, (fewest[anchor] as number) + 1);
  return fewest[reach.length] as number;
}

/** The sources of the cover by exactly or at most `count` segments with the largest sum. */
function cover(similarity: Similarity, reach: Int32Array, count: number, how: "exactly" | "most"): number[] {
  const { layers } = similarity;
  const width = layers + 1;
  const best = new Float64Array((count + 1) * width).fill(Number.NEGATIVE_INFINITY);
  const from = new Int32Array((count + 1) * width);
  best[0] = 0;
  for (let used = 0; used < count; used++)
    for (let anchor = used; anchor < layers; anchor++) {
      let sum = best[used * width + anchor] as number;
      if (sum === Number.NEGATIVE_INFINITY) continue;
      for (let end = anchor + 1; end <= (reach[anchor] as number); end++) {
        sum += similarity.at(anchor, end - 1);
        const at = (used + 1) * width + end;
        if (sum < (best[at] as number)) continue;
        best[at] = sum;
        from[at] = anchor;
      }
    }
  let used = count;
  if (how === "most")
    for (let fewer = count - 1; fewer > 0; fewer--)
      if ((best[fewer * width + layers] as number) >= (best[used * width + layers] as number)) used = fewer;
  return sourcesOf(layers, (end) => from[used-- * width + end] as number);
}

/** The sources of all layers, from the anchor of the segment that ends before each one. */
function sourcesOf(layers: number, anchorOf: (end: number) => number): number[] {
  const sources = new Array<number>(layers);
  for (let end = layers; end > 0; ) {
    const anchor = anchorOf(end);
    sources.fill(anchor, anchor, end);
    end = anchor;
  }
  return sources;
}
