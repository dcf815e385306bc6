import { ShapeError } from "../errors.js";
import type { CacheAxes } from "./layer-reuse.js";
import { type LayerPolicy, parsePolicy } from "./layer-reuse-policy.js";

/**
 * A policy, whoever made it, against itself and against the cache that it is for. Throws FormatError where it contradicts
 * itself (a source that comes later or makes no list, say), and ShapeError where it is for another cache.
 */
export function checkPolicy(policy: LayerPolicy, { kvHeads, maxPages, pageSize }: CacheAxes): LayerPolicy {
  const checked = parsePolicy({ version: 2, ...policy }, { where: "LayerReuse: policy" });
  const most = maxPages * pageSize;
  for (const [layer, rule] of checked.layers.entries()) {
    if (rule.kind === "reuse" && rule.headMap && rule.headMap.length !== kvHeads)
      throw new ShapeError({
        where: `LayerReuse: headMap of layer ${layer}`,
        expected: `${kvHeads} KV heads below ${kvHeads}`,
        received: `[${rule.headMap.join(", ")}]`,
      });
    if (rule.kind === "anchor" && rule.k !== undefined && rule.k > most)
      throw new ShapeError({
        where: `LayerReuse: k of layer ${layer}`,
        expected: `at most the ${most} tokens that the cache has of a sequence`,
        received: `${rule.k}`,
        hint: 'Nothing would be left out. "ratio": 1 lists everything on purpose.',
      });
  }
  return checked;
}
