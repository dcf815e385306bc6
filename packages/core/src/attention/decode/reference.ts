import { type DType, type HostArray, rowLength } from "../../dtype.js";
import type { ReferenceCall } from "../../op/define.js";
import { widenRow } from "../../op/elements.js";

export interface DecodeTensors {
  queries: Float32Array;
  keyPages: HostArray;
  keyScale?: Float32Array;
  valuePages: HostArray;
  valueScale?: Float32Array;
  pageTable: Int32Array;
  lengths: Int32Array;
  sinks?: Float32Array;
  slopes?: Float32Array;
  mask?: Float32Array | Uint32Array;
  out: Float32Array;
  lse: Float32Array;
}

export type DecodeAxes = Record<
  "batch" | "queryHeads" | "kvHeads" | "headDim" | "valueDim" | "pages" | "pageSize" | "maxPages" | "maskHeads",
  number
>;

/** logit_t = softCap(scale q k_t) - slope (length - 1 - t) + mask_t;  out = sum_t softmax(logit)_t v_t;  lse = ln(sum_t exp(logit_t) + exp(sink)). */
export function reference(call: ReferenceCall): void {
  const { batch, queryHeads, kvHeads } = call.axes as DecodeAxes;
  const tokens = visibleTokens(call);
  for (let b = 0; b < batch; b++)
    for (let h = 0; h < queryHeads; h++) attend(call, b, h, Math.floor((h * kvHeads) / queryHeads), tokens[b] as Seen);
}

/** Tokens, and where each lies in the cache: page * pageSize + offset. */
export interface Seen {
  readonly positions: readonly number[];
  readonly tokens: readonly number[];
}

/** What each sequence sees: tokens, and their positions in the cache, page * pageSize + offset. Reports what is out of range. */
export function visibleTokens({ axes, tensors, scalars, fail }: ReferenceCall): Seen[] {
  const { batch, pages, pageSize, maxPages } = axes as DecodeAxes;
  const { pageTable, lengths } = tensors as DecodeTensors;
  const seen: Seen[] = [];
  for (let b = 0; b < batch; b++) {
    const positions: number[] = [];
    const seenTokens: number[] = [];
    seen.push({ positions, tokens: seenTokens });
    const length = lengths[b] as number;
    if (length < 0 || length > maxPages * pageSize) continue;
    const first = scalars.window ? Math.max(0, length - scalars.window) : 0;
    for (let t = first; t < length; t++) {
      const entry = b * maxPages + Math.floor(t / pageSize);
      const page = pageTable[entry] as number;
      if (page < 0 || page >= pages) fail("pageTable", entry, page);
      else {
        positions.push(page * pageSize + (t % pageSize));
        seenTokens.push(t);
      }
    }
  }
  for (let b = 0; b < batch; b++) {
    const length = lengths[b] as number;
    if (length < 0 || length > maxPages * pageSize) fail("lengths", b, length);
  }
  return seen;
}

/** What a head makes of the tokens it sees: their logits, and what these sum to relative to the largest. */
export interface Attended {
  readonly logits: readonly number[];
  /** Sums of the |terms| of each logit. */
  readonly sizes: readonly number[];
  readonly largest: number;
  readonly sum: number;
  /** The sum with what the rounding of each logit makes of its weight. */
  readonly size: number;
}

/** One head over these tokens: writes its rows of out and lse. */
export function attend(call: ReferenceCall, b: number, h: number, kvHead: number, { positions, tokens }: Seen): Attended {
  const { axes, variant, tensors, scalars, magnitude } = call;
  const { queryHeads, kvHeads, headDim, valueDim, pageSize } = axes as DecodeAxes;
  const { queries, keyPages, keyScale, valuePages, valueScale, sinks, out, lse } = tensors as DecodeTensors;
  const dtype = variant.keyPages as DType;
  const row = b * queryHeads + h;
  const query = queries.subarray(row * headDim, (row + 1) * headDim);
  const slots = positions.map((position) => (Math.floor(position / pageSize) * kvHeads + kvHead) * pageSize + (position % pageSize));

  const key = new Float64Array(headDim);
  const sizes: number[] = [];
  const biases = biasesOf(call, b, h);
  const logits = slots.map((slot, i) => {
    widenRow(dtype, keyPages, slot * headDim, key);
    const scale = (scalars.scale as number) * (keyScale ? (keyScale[slot] as number) : 1);
    let [sum, size] = [0, 0];
    for (let i = 0; i < headDim; i++) {
      sum += (query[i] as number) * (key[i] as number);
      size += Math.abs((query[i] as number) * (key[i] as number));
    }
    let logit = capped(sum * scale, scalars.softCap as number);
    size *= Math.abs(scale);
    for (const bias of biases) {
      const added = bias(tokens[i] as number);
      logit += added;
      size += Math.abs(added);
    }
    sizes.push(size);
    return logit;
  });

  const sink = sinks ? (sinks[h] as number) : Number.NEGATIVE_INFINITY;
  const largest = logits.reduce((a, logit) => Math.max(a, logit), sink);
  const value = new Float64Array(valueDim);
  const attended = new Float64Array(valueDim);
  // Sums of |terms|, and of |terms| times what the rounding of a logit makes of them.
  const terms = new Float64Array(valueDim);
  const spread = new Float64Array(valueDim);
  let sum = sink === Number.NEGATIVE_INFINITY ? 0 : Math.exp(sink - largest);
  let size = sum === 0 ? 0 : sum * (1 + Math.abs(sink));
  for (const [i, slot] of slots.entries()) {
    if (logits[i] === Number.NEGATIVE_INFINITY) continue;
    const weight = Math.exp((logits[i] as number) - largest);
    const unsure = 1 + (sizes[i] as number);
    sum += weight;
    size += weight * unsure;
    widenRow(dtype, valuePages, slot * valueDim, value);
    const scale = valueScale ? (valueScale[slot] as number) : 1;
    for (let d = 0; d < valueDim; d++) {
      const term = weight * scale * (value[d] as number);
      attended[d] = (attended[d] as number) + term;
      terms[d] = (terms[d] as number) + Math.abs(term);
      spread[d] = (spread[d] as number) + Math.abs(term) * unsure;
    }
  }
  for (let d = 0; d < valueDim; d++) {
    out[row * valueDim + d] = sum === 0 ? 0 : (attended[d] as number) / sum;
    if (magnitude?.out)
      magnitude.out[row * valueDim + d] = sum === 0 ? 0 : ((spread[d] as number) + ((terms[d] as number) * size) / sum) / sum;
  }
  lse[row] = sum === 0 ? Number.NEGATIVE_INFINITY : largest + Math.log(sum);
  if (magnitude?.lse) magnitude.lse[row] = sum === 0 ? 0 : size / sum + Math.abs(largest);
  return { logits, sizes, largest, sum, size };
}

/** What is added to a head's logits, given the token: less for distance, then the mask. */
function biasesOf({ axes, variant, tensors }: ReferenceCall, b: number, h: number): ((token: number) => number)[] {
  const { maskHeads, maxPages, pageSize } = axes as DecodeAxes;
  const { lengths, slopes, mask } = tensors as DecodeTensors;
  const biases: ((token: number) => number)[] = [];
  if (slopes) biases.push((token) => -(slopes[h] as number) * ((lengths[b] as number) - 1 - token));
  if (mask) {
    const width = rowLength(variant.mask as DType, maxPages * pageSize);
    const row = mask.subarray((b * maskHeads + (maskHeads === 1 ? 0 : h)) * width);
    biases.push((token) => {
      if (variant.mask === "f32") return row[token] as number;
      return ((row[token >> 5] as number) >>> (token & 31)) & 1 ? 0 : Number.NEGATIVE_INFINITY;
    });
  }
  return biases;
}

const capped = (logit: number, cap: number): number => (cap > 0 ? cap * Math.tanh(logit / cap) : logit);
