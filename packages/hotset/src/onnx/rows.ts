/** Softmax (operator set 13) and TopK (11 and later): operators over one axis, whose rows are what Hotset's ops work on. */
import { attention, search } from "@hotset/core";
import { toleranceOf } from "@hotset/core/testing/cases";
import type { OnnxCase } from "./cases.js";
import { stepsOf } from "./routes.js";
import type { Produced, Runner } from "./runner.js";
import { elementsOf, notRun, numbers, type OnnxTensor, roundoff, transposed, wholes } from "./tensor.js";
import { option, shapeError } from "./values.js";

/** Elements of the unit vectors of one call. */
const most = 2 ** 22;

/**
 * softmax(x) is what attention's weights are: `attention/decode` of the query 1 over keys x of one component, with unit vectors
 * as values. No op of Hotset's is a softmax by itself, as no kernel writes its weights; this is the one that all backends have.
 */
export async function softmax(run: Runner, { inputs, attributes }: OnnxCase): Promise<Produced[]> {
  const { x, data, shape, order, length } = rowsAlong(inputs[0], option(attributes, "axis", -1), "Softmax");
  if (length > 4096) throw notRun("Softmax of rows of at most 4096", `Softmax of rows of ${length}`);
  const rows = length === 0 ? 0 : data.length / length;
  const each = Math.max(1, Math.floor(most / (length * length)));
  const values = new Float32Array(data.length);
  const within = new Float64Array(data.length);
  for (let first = 0; first < rows; first += each) {
    const batch = Math.min(each, rows - first);
    const keys = data.subarray(first * length, (first + batch) * length);
    const valuePages = new Float32Array(batch * length * length);
    for (let i = 0; i < batch * length; i++) valuePages[i * length + (i % length)] = 1;
    const axes = { batch, queryHeads: 1, kvHeads: 1, headDim: 1, valueDim: length, pages: batch, pageSize: length, maxPages: 1 };
    const { out } = await run.call(attention.decode, {
      ...axes,
      queries: new Float32Array(batch).fill(1),
      keyPages: keys,
      valuePages,
      pageTable: Int32Array.from({ length: batch }, (_, i) => i),
      lengths: new Int32Array(batch).fill(length),
      scale: 1,
    });
    values.set(out, first * length);
    const steps = stepsOf(attention.decode, axes, "out");
    for (let row = 0; row < batch; row++) {
      const logits = keys.subarray(row * length, (row + 1) * length);
      const size = weightSizes(logits);
      // The maker: a difference, an exponential, a sum and a division in the case's type.
      for (const [i, one] of size.entries())
        within[(first + row) * length + i] = toleranceOf("f32", steps, 0, one) + (length + 4) * (roundoff[x.type] as number) * one;
    }
  }
  return [{ output: 0, shape: x.shape, ...back(values, within, shape, order), via: `${attention.decode.id} over unit vectors` }];
}

/** Of softmax's weights, the sums of |terms|, as in `magnitudes`: a logit's size goes into its weight. */
function weightSizes(logits: Float32Array): number[] {
  const largest = logits.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const weights = Array.from(logits, (logit) => Math.exp(logit - largest));
  const sum = weights.reduce((a, b) => a + b, 0);
  const shares = weights.map((weight) => weight / sum);
  const unsure = shares.map((p, i) => (p === 0 ? 0 : p * (1 + Math.abs(logits[i] as number))));
  const spread = unsure.reduce((a, b) => a + b, 0);
  return shares.map((p, i) => (unsure[i] as number) * (1 - p) + p * (spread - (unsure[i] as number)) + 2 * p);
}

/** `search/scan` over rows of one component with the query 1, or -1 for the smallest: a score is the value, or less it. */
export async function topK(run: Runner, { inputs, attributes, expected }: OnnxCase): Promise<Produced[]> {
  const [given, count] = inputs;
  if (given && !given.type.startsWith("float")) throw notRun("TopK of floats", `TopK of ${given.type}`);
  const { x, data, shape, order, length } = rowsAlong(given, option(attributes, "axis", -1), "TopK");
  const k = count ? (wholes(count, "k")[0] as number) : option(attributes, "k", 0);
  if (!(k >= 1 && k <= Math.min(length, 1024))) throw notRun("TopK of k from 1 to the axis, at most 1024", `TopK of k ${k}`);
  if (option(attributes, "sorted", 1) === 0) throw notRun("TopK in order", "TopK in any order");
  const sign = option(attributes, "largest", 1) !== 0 ? 1 : -1;
  const rows = data.length / length;
  const [values, indices] = [new Float32Array(rows * k), new Float64Array(rows * k)];
  for (let row = 0; row < rows; row++) {
    const { ids, scores } = await run.call(search.scan, {
      batch: 1,
      count: length,
      dim: 1,
      k,
      metric: "ip",
      queries: Float32Array.of(sign),
      rows: data.subarray(row * length, (row + 1) * length),
    });
    values.set(
      scores.map((score) => sign * score),
      row * k,
    );
    indices.set(ids, row * k);
  }
  const found = [...shape.slice(0, -1), k];
  const shapeOut = x.shape.map((size, i) => (i === order.at(-1) ? k : size));
  const produced: Produced[] = [{ output: 0, shape: shapeOut, ...back(values, undefined, found, order), via: search.scan.id }];
  const turned = back(Float32Array.from(indices), undefined, found, order).values;
  if (expected[1]) produced.push({ output: 1, shape: shapeOut, values: [...turned], via: search.scan.id });
  return produced;
}

interface Rows {
  readonly x: OnnxTensor;
  /** With the axis last. */
  readonly data: Float32Array;
  readonly shape: readonly number[];
  readonly order: readonly number[];
  readonly length: number;
}

function rowsAlong(x: OnnxTensor | undefined, axis: number, where: string): Rows {
  const rank = x?.shape.length ?? 0;
  if (!x || !(Number.isInteger(axis) && axis >= -rank && axis < rank)) throw shapeError(where, `an axis of ${rank}`, `${axis}`);
  const last = axis < 0 ? axis + rank : axis;
  const order = [...x.shape.keys()].filter((one) => one !== last);
  order.push(last);
  const shape = order.map((one) => x.shape[one] as number);
  return { x, data: transposed(numbers(x, where), x.shape, order), shape, order, length: x.shape[last] as number };
}

/** The axes in their own order again. */
function back(values: Float32Array, within: Float64Array | undefined, shape: readonly number[], order: readonly number[]) {
  const inverse = order.map((_, axis) => order.indexOf(axis));
  if (elementsOf(shape) !== values.length) throw shapeError("rows", `${elementsOf(shape)} values`, `${values.length}`);
  return { values: transposed(values, shape, inverse), ...(within && { within: transposed(within, shape, inverse) }) };
}
