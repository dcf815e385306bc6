/**
 * A problem through Hotset's ops, by every way that can express it: all of them owe the same outputs.
 *
 * - `attention/decode`: each query is a sequence of its own, on its sequence's page, as long as what it sees.
 * - `attention/prefill`: causal, where each query sees one token more than the one before; otherwise as for decode.
 * - `attention/decode-sparse`: masks that only hide: the list of each query (and head) is what the mask leaves.
 * - `attention/decode` and `attention/merge`: masks that add: each key is a sequence of one token, whose lse is its logit;
 *   what the mask adds is added to that on the host, and merge is the softmax. Softcap and biases go together so.
 */
import { attention } from "@hotset/core";
import { biasAt, onlyHides, type Problem, tensor, tokenPages } from "./problem.js";
import type { Runner } from "./runner.js";

export interface Attended {
  readonly via: string;
  /** [batch, rows, queryHeads, width] */
  readonly out: Float32Array;
  /** Roundings of f32 that it may carry: the ops' own counts. */
  readonly steps: number;
}

/** With these values in the pages, [batch, kvHeads, capacity, width]; default the cache's own. */
export async function attend(
  run: Runner,
  problem: Problem,
  width = problem.sizes.valueDim,
  values = problem.cache.values,
): Promise<Attended[]> {
  const { bias } = problem;
  if (bias && !onlyHides(bias)) return [await byMerge(run, problem, width, values)];
  if (bias) return [await bySparse(run, problem, width, values), await byMerge(run, problem, width, values)];
  return [await byDecode(run, problem, width, values), await byPrefill(run, problem, width, values)];
}

type Pages = Float32Array | Uint16Array;

/** Axes and arguments that decode, decode-sparse and prefill share. */
function shared({ sizes, queries, cache, scale, softCap }: Problem, width: number, values: Pages) {
  const { batch, queryHeads, kvHeads, headDim } = sizes;
  return {
    axes: { queryHeads, kvHeads, headDim, valueDim: width, pages: batch, pageSize: cache.capacity, maxPages: 1 },
    tensors: { queries, keyPages: tensor(cache.keys, cache.dtype), valuePages: tensor(values, cache.dtype) },
    scalars: { scale, softCap },
  };
}

/** The page of each query's sequence. */
const rowPages = ({ batch, rows }: Problem["sizes"]): Int32Array =>
  Int32Array.from({ length: batch * rows }, (_, i) => Math.floor(i / rows));

async function byDecode(run: Runner, problem: Problem, width: number, values: Pages): Promise<Attended> {
  const { axes, tensors, scalars } = shared(problem, width, values);
  const all = { ...axes, batch: problem.seen.length };
  const lengths = problem.seen;
  const { out } = await run.call(attention.decode, { ...all, ...tensors, ...scalars, pageTable: rowPages(problem.sizes), lengths });
  return { via: "attention/decode", out, steps: attention.decode.rounding(all, { keyPages: problem.cache.dtype }).out as number };
}

async function byPrefill(run: Runner, problem: Problem, width: number, values: Pages): Promise<Attended> {
  const { batch, rows } = problem.sizes;
  const { axes, tensors, scalars } = shared(problem, width, values);
  const lengths = Int32Array.from({ length: batch }, (_, b) => problem.seen[(b + 1) * rows - 1] as number);
  const causal = problem.seen.every((seen, i) => seen === Math.max(0, (lengths[Math.floor(i / rows)] as number) - (rows - 1 - (i % rows))));
  const sequences = causal ? batch : batch * rows;
  const all = { ...axes, tokens: batch * rows, batch: sequences };
  const { out } = await run.call(attention.prefill, {
    ...all,
    ...tensors,
    ...scalars,
    pageTable: causal ? Int32Array.from({ length: batch }, (_, b) => b) : rowPages(problem.sizes),
    queryOffsets: Int32Array.from({ length: sequences + 1 }, (_, i) => (causal ? i * rows : i)),
    lengths: causal ? lengths : problem.seen,
  });
  return { via: "attention/prefill", out, steps: attention.prefill.rounding(all, { keyPages: problem.cache.dtype }).out as number };
}

async function bySparse(run: Runner, problem: Problem, width: number, values: Pages): Promise<Attended> {
  const { sizes, seen } = problem;
  const bias = problem.bias as NonNullable<Problem["bias"]>;
  const { axes, tensors, scalars } = shared(problem, width, values);
  const lists = bias.heads;
  const k = sizes.tokens;
  const selected = new Int32Array(seen.length * lists * k).fill(-1);
  for (const [row, length] of seen.entries()) {
    const [b, s] = [Math.floor(row / sizes.rows), row % sizes.rows];
    for (let list = 0; list < lists; list++) {
      const head = (list * sizes.queryHeads) / lists;
      let at = (row * lists + list) * k;
      for (let t = 0; t < length; t++) if (biasAt(sizes, bias, b, head, s, t) === 0) selected[at++] = t;
    }
  }
  const all = { ...axes, batch: seen.length, granularity: 1, lists, k };
  const pageTable = rowPages(sizes);
  const { out } = await run.call(attention.decodeSparse, { ...all, ...tensors, ...scalars, pageTable, lengths: seen, selected });
  return {
    via: "attention/decode-sparse",
    out,
    steps: attention.decodeSparse.rounding(all, { keyPages: problem.cache.dtype }).out as number,
  };
}

async function byMerge(run: Runner, problem: Problem, width: number, values: Pages): Promise<Attended> {
  const { sizes, seen, bias } = problem;
  const { tokens, queryHeads } = sizes;
  const { out: partOut, lse: partLse, steps } = await singleTokens(run, problem, width, values);
  // [tokens, batch, rows, queryHeads]
  for (let i = 0; i < partLse.length; i++) {
    const t = Math.floor(i / (seen.length * queryHeads));
    const [row, h] = [Math.floor(i / queryHeads) % seen.length, i % queryHeads];
    const added = bias ? biasAt(sizes, bias, Math.floor(row / sizes.rows), h, row % sizes.rows, t) : 0;
    partLse[i] = t < (seen[row] as number) ? (partLse[i] as number) + added : Number.NEGATIVE_INFINITY;
  }
  const axes = { parts: tokens, rows: seen.length * queryHeads, valueDim: width };
  const { out } = await run.call(attention.merge, { ...axes, partOut, partLse });
  return { via: "attention/decode + attention/merge", out, steps: steps + 1 + (attention.merge.rounding(axes, {}).out as number) };
}

/** The logits after the cap, before any mask, [batch, queryHeads, rows, tokens]: the lse of sequences of one token. */
export async function logits(run: Runner, problem: Problem): Promise<Attended> {
  const { batch, rows, tokens, queryHeads, valueDim } = problem.sizes;
  const { lse, steps } = await singleTokens(run, problem, valueDim, problem.cache.values);
  const out = new Float32Array(lse.length);
  for (let b = 0; b < batch; b++)
    for (let h = 0; h < queryHeads; h++)
      for (let s = 0; s < rows; s++)
        for (let t = 0; t < tokens; t++)
          out[((b * queryHeads + h) * rows + s) * tokens + t] = lse[((t * batch + b) * rows + s) * queryHeads + h] as number;
  return { via: "attention/decode", out, steps };
}

/** Each query over each token alone: `out` [tokens, batch, rows, queryHeads, width] holds the values, `lse` the logits. */
async function singleTokens(
  run: Runner,
  { sizes, queries, cache, scale, softCap }: Problem,
  width: number,
  values: Pages,
): Promise<{ out: Float32Array; lse: Float32Array; steps: number }> {
  const { batch, rows, tokens, queryHeads, kvHeads, headDim } = sizes;
  const each = batch * rows;
  const repeated = new Float32Array(tokens * queries.length);
  for (let t = 0; t < tokens; t++) repeated.set(queries, t * queries.length);
  const axes = { batch: tokens * each, queryHeads, kvHeads, headDim, valueDim: width, pages: batch * tokens, pageSize: 1, maxPages: 1 };
  const { out, lse } = await run.call(attention.decode, {
    ...axes,
    queries: repeated,
    keyPages: tensor(tokenPages(sizes, cache.keys, cache.capacity, headDim), cache.dtype),
    valuePages: tensor(tokenPages(sizes, values, cache.capacity, width), cache.dtype),
    pageTable: Int32Array.from({ length: tokens * each }, (_, i) => Math.floor((i % each) / rows) * tokens + Math.floor(i / each)),
    lengths: new Int32Array(tokens * each).fill(1),
    scale,
    softCap,
  });
  return { out, lse, steps: attention.decode.rounding(axes, { keyPages: cache.dtype }).lse as number };
}
