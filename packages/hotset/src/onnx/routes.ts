/**
 * A problem through Hotset's ops, by every way that can express it: all of them owe the same outputs.
 *
 * - `attention/decode`: each query is a sequence of its own, on its sequence's page, as long as what it sees.
 * - `attention/prefill`: causal, where each query sees one token more than the one before; otherwise as for decode.
 *   Both with a mask where the op has a port for it and the backend a kernel.
 * - `attention/decode-sparse`: masks that only hide: the list of each query (and head) is what the mask leaves.
 * - `attention/decode` and `attention/merge`: any mask: each key is a sequence of one token, whose lse is its logit; what the
 *   mask adds is added to that on the host, and merge is the softmax.
 */
import { attention, HotsetError, type Op } from "@hotset/core";
import { biasAt, onlyHides, type Problem, tensor, tokenPages } from "./problem.js";
import type { Runner } from "./runner.js";
import { notRun } from "./tensor.js";

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
  if (!bias) return [await byDecode(run, problem, width, values), await byPrefill(run, problem, width, values)];
  const ways = [byMerge];
  if (onlyHides(bias)) ways.unshift(bySparse);
  if ("mask" in attention.decode.ports) ways.push(byDecode);
  if ("mask" in attention.prefill.ports) ways.push(byPrefill);
  const found: Attended[] = [];
  let refused: unknown;
  for (const way of ways) {
    try {
      found.push(await way(run, problem, width, values));
    } catch (error) {
      // No kernel for masks here, or too much for single tokens: the other ways are judged all the same.
      if (!(error instanceof HotsetError && error.code === "unsupported")) throw error;
      refused ??= error;
    }
  }
  if (found.length === 0) throw refused;
  return found;
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

/** The bias as the port `mask` has it, [queries, maskHeads, capacity]: bits where it only hides. */
function masked({ sizes, bias, cache, seen }: Problem): { maskHeads?: number; mask?: Float32Array | Uint32Array } {
  if (!bias) return {};
  const { rows, tokens } = sizes;
  const { heads } = bias;
  const bits = onlyHides(bias);
  const pitch = bits ? Math.ceil(cache.capacity / 32) : cache.capacity;
  const mask = new (bits ? Uint32Array : Float32Array)(seen.length * heads * pitch);
  for (let i = 0; i < seen.length * heads; i++) {
    const [row, h] = [Math.floor(i / heads), i % heads];
    for (let t = 0; t < tokens; t++) {
      const added = bias.values[((Math.floor(row / rows) * heads + h) * rows + (row % rows)) * tokens + t] as number;
      if (!bits) mask[i * pitch + t] = added;
      else if (added === 0) mask[i * pitch + (t >> 5)] = (mask[i * pitch + (t >> 5)] as number) | (1 << (t & 31));
    }
  }
  return { maskHeads: heads, mask };
}

/** The page of each query's sequence. */
const rowPages = ({ batch, rows }: Problem["sizes"]): Int32Array =>
  Int32Array.from({ length: batch * rows }, (_, i) => Math.floor(i / rows));

/** The op's own count. */
export const stepsOf = (op: Op, axes: Readonly<Record<string, number>>, output: "out" | "lse", dtype: "f32" | "f16" = "f32"): number =>
  op.rounding(axes, { keyPages: dtype })[output] as number;

async function byDecode(run: Runner, problem: Problem, width: number, values: Pages): Promise<Attended> {
  const { axes, tensors, scalars } = shared(problem, width, values);
  const all = { ...axes, batch: problem.seen.length };
  const args = { ...all, ...tensors, ...scalars, ...masked(problem), pageTable: rowPages(problem.sizes), lengths: problem.seen };
  const { out } = await run.call(attention.decode, args);
  return {
    via: named(attention.decode.id, problem),
    out,
    steps: stepsOf(attention.decode, all, "out", problem.cache.dtype),
  };
}

async function byPrefill(run: Runner, problem: Problem, width: number, values: Pages): Promise<Attended> {
  const { batch, rows } = problem.sizes;
  const { axes, tensors, scalars } = shared(problem, width, values);
  const lengths = Int32Array.from({ length: batch }, (_, b) => problem.seen[(b + 1) * rows - 1] as number);
  const causal = problem.seen.every((seen, i) => seen === Math.max(0, (lengths[Math.floor(i / rows)] as number) - (rows - 1 - (i % rows))));
  const sequences = causal ? batch : batch * rows;
  const all = { ...axes, tokens: batch * rows, batch: sequences };
  const args = {
    ...all,
    ...tensors,
    ...scalars,
    ...masked(problem),
    pageTable: causal ? Int32Array.from({ length: batch }, (_, b) => b) : rowPages(problem.sizes),
    queryOffsets: Int32Array.from({ length: sequences + 1 }, (_, i) => (causal ? i * rows : i)),
    lengths: causal ? lengths : problem.seen,
  };
  const { out } = await run.call(attention.prefill, args);
  return {
    via: named(attention.prefill.id, problem),
    out,
    steps: stepsOf(attention.prefill, all, "out", problem.cache.dtype),
  };
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
    via: attention.decodeSparse.id,
    out,
    steps: stepsOf(attention.decodeSparse, all, "out", problem.cache.dtype),
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
  return {
    via: `${attention.decode.id} + ${attention.merge.id}`,
    out,
    steps: steps + 1 + (attention.merge.rounding(axes, {}).out as number),
  };
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
  return { via: attention.decode.id, out, steps };
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
  const most = tokens * each * queryHeads * Math.max(headDim, width);
  if (most > 2 ** 27) throw notRun("queries over single keys of at most 2^27 numbers", `${most} numbers for queries over single keys`);
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
  return { out, lse, steps: stepsOf(attention.decode, axes, "lse", cache.dtype) };
}

const named = (id: string, { bias }: Problem): string => (bias ? `${id} with a mask` : id);
