/** Attention of one query position of one layer in f64, and the granules that weigh most. */
import { forced, type SelectAxes } from "../select/reference.js";
import type { AttentionRecord, LayerRecord } from "./record.js";

/** What a list holds; the terms are those of a policy. */
export interface ListSettings {
  /** Tokens of a list: `k`, or `ratio` of the context where that is more. */
  readonly k: number;
  readonly ratio: number;
  readonly granularity: number;
  readonly sink: number;
  readonly recent: number;
  /** A list for each KV head, or one for all. */
  readonly perHead: boolean;
}

/** Entries of a list over a context of so many tokens. */
export const entriesOf = ({ k, ratio, granularity }: Pick<ListSettings, "k" | "ratio" | "granularity">, tokens: number): number =>
  Math.max(1, Math.ceil(Math.max(k, Math.ceil(ratio * tokens)) / granularity));

/** One layer at one query position; its arrays are written again for the next position. */
export class Position {
  /** [queryHeads, room] Weights of the tokens; each head's sum is 1. */
  readonly weights: Float64Array;
  /** [lists, room] Mass of the granules, mean over the query heads that share the list; each list's sum is 1. */
  readonly masses: Float64Array;
  /** Of each list, ascending. */
  readonly selected: Int32Array[] = [];
  /** Mass of each list. */
  readonly kept: number[] = [];
  readonly room: number;

  constructor({ queryHeads, tokens }: AttentionRecord, lists: number) {
    this.room = tokens;
    this.weights = new Float64Array(queryHeads * tokens);
    this.masses = new Float64Array(lists * tokens);
  }
}

/** Softmax of the query at `position` over itself and all before, the masses of granules, and the lists they make. */
export function attendAt(record: AttentionRecord, layer: LayerRecord, position: number, settings: ListSettings, to: Position): void {
  const { queryHeads, kvHeads, headDim } = record;
  const scale = record.scale ?? 1 / Math.sqrt(headDim);
  const { queries, keys } = layer;
  const { granularity, sink, recent, perHead } = settings;
  const { room, weights, masses } = to;
  const [count, group] = [position + 1, queryHeads / kvHeads];
  const lists = perHead ? kvHeads : 1;
  const shared = perHead ? group : queryHeads;
  masses.fill(0);
  for (let head = 0; head < queryHeads; head++) {
    const query = (position * queryHeads + head) * headDim;
    const [kvHead, row] = [Math.floor(head / group), head * room];
    let largest = Number.NEGATIVE_INFINITY;
    for (let t = 0; t < count; t++) {
      const key = (t * kvHeads + kvHead) * headDim;
      let dot = 0;
      for (let i = 0; i < headDim; i++) dot += (queries[query + i] as number) * (keys[key + i] as number);
      weights[row + t] = dot * scale;
      largest = Math.max(largest, dot * scale);
    }
    let sum = 0;
    for (let t = 0; t < count; t++) {
      const weight = Math.exp((weights[row + t] as number) - largest);
      weights[row + t] = weight;
      sum += weight;
    }
    const list = perHead ? kvHead : 0;
    for (let t = 0; t < count; t++) {
      const weight = (weights[row + t] as number) / sum;
      weights[row + t] = weight;
      const at = list * room + Math.floor(t / granularity);
      masses[at] = (masses[at] as number) + weight / shared;
    }
  }
  const granules = Math.ceil(count / granularity);
  const entries = Math.min(granules, entriesOf(settings, count));
  const ends = forced({ granularity, k: entries } as SelectAxes, { budget: 0, sink, recent: Math.max(1, recent) }, count);
  for (let list = 0; list < lists; list++) {
    const own = masses.subarray(list * room, list * room + granules);
    const chosen = heaviest(own, ends);
    to.selected[list] = chosen;
    to.kept[list] = massOf(own, chosen);
  }
}

/** As `attention/select` lists: the forced ends, then the heaviest of the rest, equals by lower index; ascending. */
function heaviest(masses: Float64Array, { first, last, total }: { first: number; last: number; total: number }): Int32Array {
  const end = masses.length - last;
  const wanted = total - first - last;
  const sorted = masses.slice(first, end).sort();
  const least = wanted > 0 ? (sorted[sorted.length - wanted] as number) : Number.POSITIVE_INFINITY;
  let above = 0;
  for (let i = sorted.length - 1; i >= 0 && (sorted[i] as number) > least; i--) above++;
  let equal = wanted - above;
  const chosen = new Int32Array(total);
  let at = 0;
  for (let granule = 0; granule < masses.length; granule++) {
    const mass = masses[granule] as number;
    if (granule < first || granule >= end || mass > least || (mass === least && equal-- > 0)) chosen[at++] = granule;
  }
  return chosen;
}

export function massOf(masses: Float64Array, granules: Int32Array): number {
  let sum = 0;
  for (const granule of granules) sum += masses[granule] as number;
  return sum;
}

/** The least share of granules that holds `mass` of the sum. */
export function shareFor(masses: Float64Array, mass: number): number {
  const sorted = masses.slice().sort();
  let sum = 0;
  for (const value of sorted) sum += value;
  let [kept, count] = [0, 0];
  while (count < sorted.length && kept < mass * sum) kept += sorted[sorted.length - ++count] as number;
  return count / sorted.length;
}
