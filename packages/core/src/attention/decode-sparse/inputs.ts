/** Caches with lists of granules, for cases and benches. */
import type { InputRequest, Tensors } from "../../testing/case.js";
import type { Random } from "../../testing/random.js";
import { benchCache, cache, type Lengths } from "../decode/inputs.js";
import type { SparseAxes, SparseTensors } from "./reference.js";

/** What one list holds, of so many granules; at most k entries. */
export type Listing = (granules: number, k: number, random: Random) => number[];

export const all: Listing = (granules) => Array.from({ length: granules }, (_, i) => i);
export const none: Listing = () => [];
/** About half of the granules, or as many as fit, ascending. */
export const some: Listing = (granules, k, random) => {
  const chosen = all(granules, k, random);
  const wanted = Math.min(k, Math.ceil(granules / 2) + random.below(Math.ceil(granules / 4) + 1));
  while (chosen.length > wanted) chosen.splice(random.below(chosen.length), 1);
  return chosen;
};
/** In no order, with entries that are none between them, and one granule twice where there is room. */
export const turned: Listing = (granules, k, random) => {
  const chosen = some(granules, k, random);
  for (let i = chosen.length - 1; i > 0; i--) {
    const j = random.below(i + 1);
    [chosen[i], chosen[j]] = [chosen[j] as number, chosen[i] as number];
  }
  if (chosen.length && chosen.length < k) chosen.push(chosen[0] as number);
  while (chosen.length < k && random.uniform() < 0.7) chosen.splice(random.below(chosen.length + 1), 0, -1);
  return chosen;
};

/** A cache of these lengths (a full one, quick to make, without them), and lists over it. */
export const listed =
  (lengths: Lengths | undefined, listing: Listing) =>
  (request: InputRequest): Tensors => {
    const axes = request.axes as SparseAxes;
    const tensors = (lengths ? cache(lengths) : benchCache)(request);
    const held = (tensors as unknown as SparseTensors).lengths;
    const selected = new Int32Array(axes.batch * axes.lists * axes.k).fill(-1);
    for (let row = 0; row < axes.batch * axes.lists; row++) {
      const granules = Math.ceil((held[Math.floor(row / axes.lists)] as number) / axes.granularity);
      selected.set(listing(granules, axes.k, request.random), row * axes.k);
    }
    return { ...tensors, selected };
  };
