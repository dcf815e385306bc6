/** Attention as ONNX's operators mean it, in Hotset's terms: what each of them is made into. */
import { type DType, kvCache } from "@hotset/core";
import type { Runner } from "./runner.js";
import { notRun, transposed } from "./tensor.js";

export interface Sizes {
  readonly batch: number;
  /** Queries of each sequence. */
  readonly rows: number;
  /** Keys that there are of each sequence, past and present. */
  readonly tokens: number;
  readonly queryHeads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly valueDim: number;
}

/** The cache of all sequences, one page each. */
export interface Cache {
  readonly dtype: "f32" | "f16";
  /** [batch, kvHeads, capacity, headDim] and the same of valueDim. */
  readonly keys: Float32Array | Uint16Array;
  readonly values: Float32Array | Uint16Array;
  /** Tokens of a page: at least those of the problem. */
  readonly capacity: number;
}

export interface Problem {
  readonly sizes: Sizes;
  /** [batch, rows, queryHeads, headDim] */
  readonly queries: Float32Array;
  readonly cache: Cache;
  readonly scale: number;
  /** 0 for none. */
  readonly softCap: number;
  /** How many of the first tokens each query may see at all, [batch, rows]: causality, and keys that are padding. */
  readonly seen: Int32Array;
  readonly bias?: Bias | undefined;
}

/** What is added to the logits after the cap, [batch, heads, rows, tokens]; -Inf hides a token. */
export interface Bias {
  /** 1 for all query heads, or as many as there are. */
  readonly heads: number;
  readonly values: Float32Array;
}

export interface NewTokens {
  /** [batch, tokens, kvHeads, headDim] and the same of valueDim. */
  readonly keys: Float32Array;
  readonly values: Float32Array;
  readonly tokens: number;
}

export interface Past {
  /** [batch, kvHeads, capacity, headDim] in the cache's dtype, of which the first `tokens` are there. */
  readonly keys: Float32Array | Uint16Array;
  readonly values: Float32Array | Uint16Array;
  readonly tokens: number;
  readonly capacity: number;
}

/** A cache with what was there, where the new tokens are put by `kv-cache/append`. */
export async function cacheOf(
  run: Runner,
  { batch, kvHeads, headDim, valueDim }: Sizes,
  dtype: "f32" | "f16",
  past: Past | undefined,
  fresh: NewTokens,
): Promise<Cache> {
  const before = past?.tokens ?? 0;
  const capacity = Math.max(before + fresh.tokens, past?.capacity ?? 0);
  const pages = (width: number, kept: Float32Array | Uint16Array | undefined): Float32Array | Uint16Array => {
    const all = new (dtype === "f32" ? Float32Array : Uint16Array)(batch * kvHeads * capacity * width);
    const size = (past?.capacity ?? 0) * width;
    for (let page = 0; kept && page < batch * kvHeads; page++)
      all.set(kept.subarray(page * size, (page + 1) * size), page * capacity * width);
    return all;
  };
  const keys = pages(headDim, past?.keys);
  const values = pages(valueDim, past?.values);
  const slots = Int32Array.from({ length: batch * fresh.tokens }, (_, i) => {
    const sequence = Math.floor(i / fresh.tokens);
    return sequence * capacity + before + (i - sequence * fresh.tokens);
  });
  const paged = (data: Float32Array | Uint16Array): { data: Float32Array; dtype: "f32" } => ({ data, dtype }) as never;
  await run.call(kvCache.append, {
    tokens: slots.length,
    kvHeads,
    headDim,
    valueDim,
    pages: batch,
    pageSize: capacity,
    keys: fresh.keys,
    values: fresh.values,
    slots,
    keyPages: paged(keys),
    valuePages: paged(values),
  });
  return { dtype, keys, values, capacity };
}

/** The cache in pages of one token each, [batch * tokens, kvHeads, 1, width]. */
export const tokenPages = (
  { batch, kvHeads, tokens }: Sizes,
  pages: Float32Array | Uint16Array,
  capacity: number,
  width: number,
): Float32Array | Uint16Array => {
  const byToken = transposed(pages, [batch, kvHeads, capacity, width], [0, 2, 1, 3]);
  if (capacity === tokens) return byToken;
  const out = new (byToken.constructor as Float32ArrayConstructor)(batch * tokens * kvHeads * width);
  const [from, to] = [capacity * kvHeads * width, tokens * kvHeads * width];
  for (let b = 0; b < batch; b++) out.set(byToken.subarray(b * from, b * from + to), b * to);
  return out;
};

/** Values with which attention gives its own weights: token t of each page is unit vector t. */
export function unitValues({ batch, kvHeads, tokens }: Sizes, { dtype, capacity }: Cache): Float32Array | Uint16Array {
  const most = batch * kvHeads * capacity * tokens;
  if (most > 2 ** 27) throw notRun("unit vectors of at most 2^27 numbers", `${most} numbers of unit vectors`);
  const values = new (dtype === "f32" ? Float32Array : Uint16Array)(most);
  for (let page = 0; page < batch * kvHeads; page++)
    for (let t = 0; t < tokens; t++) values[(page * capacity + t) * tokens + t] = dtype === "f32" ? 1 : 0x3c00;
  return values;
}

/** Is nothing added but -Inf and 0? */
export const onlyHides = ({ values }: Bias): boolean => values.every((value) => value === 0 || value === Number.NEGATIVE_INFINITY);

/** An element of the bias, for a query head. */
export const biasAt = (
  { queryHeads, rows, tokens }: Sizes,
  { heads, values }: Bias,
  b: number,
  h: number,
  row: number,
  t: number,
): number => values[((b * heads + Math.floor((h * heads) / queryHeads)) * rows + row) * tokens + t] as number;

export const tensor = (data: Float32Array | Uint16Array, dtype: DType): { data: Float32Array; dtype: "f32" } => ({ data, dtype }) as never;
