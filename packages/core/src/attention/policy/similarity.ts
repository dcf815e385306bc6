/** How well one layer's list serves another, and which layer takes whose list. */
import { describe, HotsetError, ShapeError } from "../../errors.js";

/** `at(source, layer)`: how well the list of `source` serves `layer`; 1 is as well as its own. Only source < layer is read. */
export interface Similarity {
  readonly layers: number;
  at(source: number, layer: number): number;
}

/** Which layers make a list and who takes it. */
export interface LayerPlan {
  /** [layers] Whose list each layer takes; its own number where it makes its own. */
  readonly sources: readonly number[];
  /** Sum over layers of how well their list serves them, 1 for their own (times the weights of the search, where it has any). */
  readonly similarity: number;
  /** The least of those that take another's; 1 where none does. */
  readonly worst: number;
}

/**
 * A matrix [layers][layers] as a Similarity. Entries at or below the diagonal are not read. Throws ShapeError where it is
 * not square, and HotsetError where an entry above the diagonal is no number.
 */
export function similarityOf(rows: readonly (readonly number[] | Float32Array | Float64Array)[]): Similarity {
  const layers = rows.length;
  if (layers === 0) throw new ShapeError({ where: "similarity", expected: "a layer at least", received: "none" });
  const values = new Float64Array(layers * layers);
  for (const [i, row] of rows.entries()) {
    if (row.length !== layers)
      throw new ShapeError({ where: `similarity[${i}]`, expected: `${layers} entries, one for each layer`, received: `${row.length}` });
    for (let j = i + 1; j < layers; j++) {
      const value = row[j] as number;
      if (typeof value !== "number" || !Number.isFinite(value))
        throw new HotsetError("argument", { where: `similarity[${i}][${j}]`, expected: "a finite number", received: describe(value) });
      values[i * layers + j] = value;
    }
  }
  return { layers, at: (source, layer) => (source === layer ? 1 : (values[source * layers + layer] as number)) };
}

/** A plan with its sums, for sources that are known to be sound. */
export function planOf(similarity: Similarity, sources: readonly number[], weights?: readonly number[]): LayerPlan {
  let [sum, worst] = [0, 1];
  for (const [layer, source] of sources.entries()) {
    const value = similarity.at(source, layer);
    sum += (weights?.[layer] ?? 1) * value;
    if (source !== layer) worst = Math.min(worst, value);
  }
  return { sources, similarity: sum, worst };
}

/** Layers that make their own list. */
export const anchorsOf = (sources: readonly number[]): number[] => sources.flatMap((source, layer) => (source === layer ? [layer] : []));

/** Throws HotsetError unless each source is the layer itself, or an earlier one that makes its own list. */
export function checkSources(where: string, sources: readonly number[]): void {
  for (const [layer, source] of sources.entries()) {
    if (!Number.isInteger(source) || source < 0 || source > layer)
      throw new HotsetError("argument", {
        where: `${where}: sources[${layer}]`,
        expected: `a layer from 0 to ${layer}`,
        received: describe(source),
      });
    if (sources[source] !== source)
      throw new HotsetError("argument", {
        where: `${where}: sources[${layer}]`,
        expected: "a layer that makes its own list",
        received: `layer ${source}, which takes that of ${sources[source]}`,
      });
  }
}

/** Layers as a mask, each once. Throws HotsetError where one is not a layer. */
export function maskOf(where: string, layers: number, named: Iterable<number> = []): boolean[] {
  const mask = new Array<boolean>(layers).fill(false);
  for (const layer of named) {
    if (!Number.isInteger(layer) || layer < 0 || layer >= layers)
      throw new HotsetError("argument", { where, expected: `layers from 0 to ${layers - 1}`, received: describe(layer) });
    mask[layer] = true;
  }
  return mask;
}

/** A whole number in a range, or HotsetError. */
export function wholeFrom(where: string, value: number, least: number, most: number): number {
  if (!Number.isInteger(value) || value < least || value > most)
    throw new HotsetError("argument", { where, expected: `a whole number from ${least} to ${most}`, received: describe(value) });
  return value;
}
