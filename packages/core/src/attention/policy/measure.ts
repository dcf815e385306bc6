/** Measures how much the layers of a model attend to the same tokens, from what they attended with over a text. */
import { describe, HotsetError } from "../../errors.js";
import { attendAt, massOf, Position, shareFor } from "./attend.js";
import type { LayerProfile, LayerStatistics, PairStatistics, ProfileSettings } from "./profile.js";
import { type AttentionRecord, checkRecord, type LayerRecord } from "./record.js";
import { wholeFrom } from "./similarity.js";

export interface MeasureSettings extends Partial<Pick<ProfileSettings, "k" | "ratio" | "granularity" | "sink" | "recent" | "perHead">> {
  /** The first position whose query is looked at. Default: half of the tokens. */
  readonly firstQuery?: number | undefined;
  /** Positions that are looked at, at most, at equal distances. Default 64. */
  readonly queries?: number | undefined;
  /** Whether outputs over lists are computed too, where there are values. Default true. */
  readonly outputs?: boolean | undefined;
  /** Of each layer: how much attention changes the stream, say 1 - cos(x, x + attention(x)); kept in the profile. */
  readonly importance?: readonly number[] | undefined;
  /** Called after each position; may be waited for. */
  readonly progress?: ((done: number, total: number) => void | Promise<void>) | undefined;
}

/**
 * The profile of a model over a text. Lists are made as a policy's anchors make them: granules by attention mass, with the
 * first `sink` and last `recent` tokens. All arithmetic is f64. Throws HotsetError.
 *
 * Defaults: k 128, ratio 0, granularity 16, sink 0, recent 1, perHead true: those of a policy.
 */
export async function profileLayers(record: AttentionRecord, settings: MeasureSettings = {}): Promise<LayerProfile> {
  checkRecord("profileLayers", record);
  const { tokens, queryHeads, kvHeads, headDim, layers, model } = record;
  const { k = 128, ratio = 0, granularity = 16, sink = 0, recent = 1, perHead = true, outputs = true, importance } = settings;
  if (typeof ratio !== "number" || !(ratio >= 0 && ratio <= 1))
    throw new HotsetError("argument", { where: "profileLayers: ratio", expected: "a number from 0 to 1", received: describe(ratio) });
  wholeFrom("profileLayers: k", k, 1, 2 ** 31 - 2);
  wholeFrom("profileLayers: granularity", granularity, 1, 65536);
  wholeFrom("profileLayers: sink", sink, 0, 2 ** 31 - 2);
  wholeFrom("profileLayers: recent", recent, 0, 2 ** 31 - 2);
  const firstQuery = wholeFrom("profileLayers: firstQuery", settings.firstQuery ?? Math.floor(tokens / 2), 0, tokens - 1);
  const most = wholeFrom("profileLayers: queries", settings.queries ?? 64, 1, 2 ** 31 - 2);
  if (importance && (importance.length !== layers.length || !importance.every((value) => Number.isFinite(value) && value >= 0)))
    throw new HotsetError("argument", {
      where: "profileLayers: importance",
      expected: `${layers.length} finite numbers of at least 0`,
      received: `[${importance.join(", ")}]`,
    });
  const stride = Math.ceil((tokens - firstQuery) / most);
  const positions = Array.from({ length: Math.ceil((tokens - firstQuery) / stride) }, (_, i) => firstQuery + i * stride);
  const lists = perHead ? kvHeads : 1;
  const own = { k, ratio, granularity, sink, recent, perHead };
  const at = layers.map(() => new Position(record, lists));
  const single = layers.map((layer) => new LayerSums(record, lists, outputs && layer.values !== undefined));
  const pairs = layers.flatMap((_, source) =>
    layers.slice(source + 1).map((to, i) => ({
      source,
      layer: source + 1 + i,
      sums: new PairSums(record, lists, outputs && to.values !== undefined),
    })),
  );
  for (const [done, position] of positions.entries()) {
    for (const [layer, one] of layers.entries()) attendAt(record, one, position, own, at[layer] as Position);
    for (const [layer, sums] of single.entries()) sums.add(layers[layer] as LayerRecord, at[layer] as Position, position, granularity);
    for (const { source, layer, sums } of pairs)
      sums.add(
        layers[layer] as LayerRecord,
        at[source] as Position,
        at[layer] as Position,
        single[layer] as LayerSums,
        position,
        granularity,
      );
    await settings.progress?.(done + 1, positions.length);
  }
  return {
    model: { ...(model === undefined ? {} : { name: model }), layers: layers.length, queryHeads, kvHeads, headDim },
    settings: { tokens, firstQuery, stride, queries: positions.length, ...own },
    layers: single.map((sums, layer) => sums.result(positions.length, importance?.[layer])),
    pairs: pairs.map(({ source, layer, sums }) => ({ source, layer, ...sums.result(positions.length, single[layer] as LayerSums) })),
  };
}

/** Files hold six digits. */
const rounded = (value: number): number => Number(value.toPrecision(6));
const roundedAll = (values: Float64Array, count: number): number[] => Array.from(values, (value) => rounded(value / count));

/** Sums over positions for a layer with its own lists. */
class LayerSums {
  readonly #record: AttentionRecord;
  readonly #spread: Float64Array;
  readonly #kept: Float64Array;
  #kl = 0;
  #error = 0;
  #gap = 0;
  /** Squares of the dense outputs: the real ones where there are some. */
  energy = 0;
  /** [queryHeads, headDim] at the last position; undefined where outputs are not wanted. */
  readonly dense: Float64Array | undefined;

  constructor(record: AttentionRecord, lists: number, outputs: boolean) {
    this.#record = record;
    this.#spread = new Float64Array(lists);
    this.#kept = new Float64Array(lists);
    this.dense = outputs ? new Float64Array(record.queryHeads * record.headDim) : undefined;
  }

  add(layer: LayerRecord, own: Position, position: number, granularity: number): void {
    const { queryHeads, headDim } = this.#record;
    const granules = Math.ceil((position + 1) / granularity);
    for (const [list, kept] of own.kept.entries()) {
      this.#kept[list] = (this.#kept[list] as number) + kept;
      const masses = own.masses.subarray(list * own.room, list * own.room + granules);
      this.#spread[list] = (this.#spread[list] as number) + shareFor(masses, 0.9);
    }
    const width = queryHeads * headDim;
    if (this.dense) {
      for (let head = 0; head < queryHeads; head++) output(this.#record, layer, own, head, position, this.dense);
      const { dense } = this;
      const real = layer.out?.subarray(position * width, (position + 1) * width);
      for (let i = 0; i < width; i++) {
        const computed = dense[i] as number;
        const value = real ? (real[i] as number) : computed;
        this.#gap += (computed - value) ** 2;
        this.energy += value ** 2;
        dense[i] = value;
      }
    }
    const { kl, error } = overLists(this.#record, layer, own, own, position, granularity, this.dense);
    this.#kl += kl;
    this.#error += error;
  }

  result(count: number, importance: number | undefined): LayerStatistics {
    return {
      spread: roundedAll(this.#spread, count),
      kept: roundedAll(this.#kept, count),
      kl: rounded(this.#kl / count),
      ...(this.dense ? { rnmse: ratioOf(this.#error, this.energy), denseError: ratioOf(this.#gap, this.energy) } : {}),
      ...(importance === undefined ? {} : { importance: rounded(importance) }),
    };
  }
}

/** Sums over positions for a layer with the lists of an earlier one. */
class PairSums {
  readonly #record: AttentionRecord;
  readonly #lists: number;
  readonly #overlap: Float64Array;
  readonly #mass: Float64Array;
  readonly #kept: Float64Array;
  readonly #outputs: boolean;
  #kl = 0;
  #error = 0;

  constructor(record: AttentionRecord, lists: number, outputs: boolean) {
    this.#record = record;
    this.#lists = lists;
    this.#outputs = outputs;
    this.#overlap = new Float64Array(lists * lists);
    this.#mass = new Float64Array(lists * lists);
    this.#kept = new Float64Array(lists * lists);
  }

  add(layer: LayerRecord, source: Position, own: Position, sums: LayerSums, position: number, granularity: number): void {
    for (let target = 0; target < this.#lists; target++) {
      const masses = own.masses.subarray(target * own.room, (target + 1) * own.room);
      const best = own.kept[target] as number;
      const mine = own.selected[target] as Int32Array;
      for (let from = 0; from < this.#lists; from++) {
        const list = source.selected[from] as Int32Array;
        const kept = massOf(masses, list);
        const at = target * this.#lists + from;
        this.#kept[at] = (this.#kept[at] as number) + kept;
        this.#mass[at] = (this.#mass[at] as number) + Math.min(1, kept / best);
        this.#overlap[at] = (this.#overlap[at] as number) + common(mine, list) / mine.length;
      }
    }
    const { kl, error } = overLists(this.#record, layer, source, own, position, granularity, this.#outputs ? sums.dense : undefined);
    this.#kl += kl;
    this.#error += error;
  }

  result(count: number, sums: LayerSums): Omit<PairStatistics, "source" | "layer"> {
    const rows = (values: Float64Array): number[][] =>
      Array.from({ length: this.#lists }, (_, target) =>
        roundedAll(values.subarray(target * this.#lists, (target + 1) * this.#lists), count),
      );
    return {
      overlap: rows(this.#overlap),
      mass: rows(this.#mass),
      kept: rows(this.#kept),
      kl: rounded(this.#kl / count),
      ...(this.#outputs ? { rnmse: ratioOf(this.#error, sums.energy) } : {}),
    };
  }
}

const ratioOf = (error: number, energy: number): number => (error === 0 ? 0 : rounded(Math.sqrt(error / energy)));

/** Entries of two ascending lists that are the same. */
function common(a: Int32Array, b: Int32Array): number {
  let [i, j, count] = [0, 0, 0];
  while (i < a.length && j < b.length) {
    const [x, y] = [a[i] as number, b[j] as number];
    if (x === y) count++;
    if (x <= y) i++;
    if (y <= x) j++;
  }
  return count;
}

/**
 * A layer over lists, each KV head with the list of its own number: KL(over the list || dense) of the weights, which is
 * -ln(their mass in the list), mean over query heads; and the squared error of the outputs.
 */
function overLists(
  record: AttentionRecord,
  layer: LayerRecord,
  source: Position,
  own: Position,
  position: number,
  granularity: number,
  dense: Float64Array | undefined,
): { kl: number; error: number } {
  const { queryHeads, kvHeads, headDim } = record;
  const over = dense && new Float64Array(headDim);
  let [kl, error] = [0, 0];
  for (let head = 0; head < queryHeads; head++) {
    const kvHead = Math.floor((head * kvHeads) / queryHeads);
    const list = (source.selected[kvHead] ?? source.selected[0]) as Int32Array;
    const row = head * own.room;
    let kept = 0;
    over?.fill(0);
    for (const granule of list)
      for (let t = granule * granularity; t < Math.min(position + 1, (granule + 1) * granularity); t++) {
        const weight = own.weights[row + t] as number;
        kept += weight;
        if (over) accumulate(record, layer, kvHead, t, weight, over, 0);
      }
    kl -= Math.log(Math.min(1, Math.max(kept, Number.MIN_VALUE))) / queryHeads;
    if (!over || !dense) continue;
    for (let i = 0; i < headDim; i++) error += ((kept > 0 ? (over[i] as number) / kept : 0) - (dense[head * headDim + i] as number)) ** 2;
  }
  return { kl, error };
}

/** The dense output of a query head, into [queryHeads, headDim]. */
function output(record: AttentionRecord, layer: LayerRecord, own: Position, head: number, position: number, to: Float64Array): void {
  const { queryHeads, kvHeads, headDim } = record;
  const kvHead = Math.floor((head * kvHeads) / queryHeads);
  to.fill(0, head * headDim, (head + 1) * headDim);
  for (let t = 0; t <= position; t++) accumulate(record, layer, kvHead, t, own.weights[head * own.room + t] as number, to, head * headDim);
}

function accumulate(
  { kvHeads, headDim }: AttentionRecord,
  { values }: LayerRecord,
  kvHead: number,
  t: number,
  weight: number,
  to: Float64Array,
  at: number,
): void {
  const from = (t * kvHeads + kvHead) * headDim;
  for (let i = 0; i < headDim; i++) to[at + i] = (to[at + i] as number) + weight * ((values as Float32Array)[from + i] as number);
}
