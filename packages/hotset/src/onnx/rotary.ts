/** RotaryEmbedding, of ONNX's operator set 23 and of com.microsoft. */
import { attention } from "@hotset/core";
import { toleranceOf } from "@hotset/core/testing/cases";
import { headsOf } from "./attention.js";
import type { OnnxCase } from "./cases.js";
import type { Produced, Runner } from "./runner.js";
import { notRun, numbers, type OnnxTensor, roundoff, transposed, wholes } from "./tensor.js";
import { option, shapeError } from "./values.js";

export const rotaryAttributes = ["interleaved", "num_heads", "rotary_embedding_dim", "scale", "is_packed_batching"];

/**
 * ONNX gives a table of cosines and sines; `attention/rope` takes angles. A row (cos_i, sin_i) is an angle and a length, which
 * is 1 only in tables of real models: tokens of one row of the table are turned together, at position 1 with the angles as
 * frequencies, and their pairs are multiplied by the lengths before that, on the host.
 */
export async function rotary(run: Runner, { inputs, attributes, domain, expected }: OnnxCase): Promise<Produced[]> {
  // com.microsoft has the positions before the tables.
  const [x, second, third, fourth] = inputs;
  const [cos, sin, positions] = domain === "" ? [second, third, fourth] : [third, fourth, second];
  if (!x || !cos || !sin) throw shapeError("RotaryEmbedding", "an input and two caches", "fewer");
  if (option(attributes, "is_packed_batching", 0) !== 0 || option(attributes, "scale", 1) !== 1)
    throw notRun("RotaryEmbedding without scale and packed batches", "RotaryEmbedding with them");
  const half = cos.shape.at(-1) as number;
  const rotated = option(attributes, "rotary_embedding_dim", 0) || 2 * half;
  const { data, batch, tokens, heads, width } = headsOf(x, option(attributes, "num_heads", 0) || headsIn(x, rotated), "the input");
  const table = `${cos.shape}` === `${sin.shape}` && 2 * half === rotated && rotated <= width;
  if (!table)
    throw shapeError("RotaryEmbedding", `two caches of ${rotated / 2} columns for heads of ${width}`, `[${cos.shape}] and [${sin.shape}]`);

  const pairs = option(attributes, "interleaved", 0) !== 0 ? "interleaved" : "half";
  const [cosines, sines] = [numbers(cos, "cos_cache"), numbers(sin, "sin_cache")];
  const values = new Float32Array(data.length);
  const size = new Float64Array(data.length);
  // ONNX Runtime's files give four decimals of everything: what the numbers meant would have made of the results.
  const [inputCut, tableCut, resultCut] = [x.printed ?? 0, cos.printed ?? 0, expected[0]?.printed ?? 0];
  const cut = new Float64Array(data.length).fill(resultCut + inputCut);
  const row = heads * width;
  for (const [at, members] of grouped(rowsOfTable(positions, batch, tokens))) {
    if (!(at >= 0 && (at + 1) * half <= cosines.length)) throw shapeError("RotaryEmbedding", "positions within the caches", `${at}`);
    const [lengths, angles] = [new Float64Array(half), new Float32Array(half)];
    for (let i = 0; i < half; i++) {
      const [c, s] = [cosines[at * half + i] as number, sines[at * half + i] as number];
      lengths[i] = Math.hypot(c, s);
      angles[i] = Math.atan2(s, c);
    }
    const input = new Float32Array(members.length * row);
    for (const [m, token] of members.entries())
      for (let i = 0; i < row; i++) {
        const [place, component] = [m * row + i, i % width];
        const value = data[token * row + i] as number;
        const pair = pairs === "half" ? component % half : component >> 1;
        input[place] = component < rotated ? value * (lengths[pair] as number) : value;
        if (component >= rotated) continue;
        const partner = i - component + (pairs === "half" ? (component + half) % rotated : component ^ 1);
        const both = Math.abs(value) + Math.abs(data[token * row + partner] as number);
        const turn = Math.abs(cosines[at * half + pair] as number) + Math.abs(sines[at * half + pair] as number);
        size[token * row + i] = (lengths[pair] as number) * both;
        cut[token * row + i] = resultCut + inputCut * turn + tableCut * both;
      }
    const axes = { tokens: members.length, heads, headDim: width, rotaryPairs: half };
    const positionsOfOne = new Int32Array(members.length).fill(1);
    const { out } = await run.call(attention.rope, { ...axes, pairs, x: input, positions: positionsOfOne, frequencies: angles });
    for (const [m, token] of members.entries()) values.set(out.subarray(m * row, (m + 1) * row), token * row);
  }
  // Besides the op's: the length, its product, and an angle of at most pi that was rounded; then those of the maker.
  const steps = (attention.rope.rounding({ tokens, heads, headDim: width, rotaryPairs: half }, { pairs }).out as number) + 2 + 4;
  const unit = roundoff[x.type] as number;
  const within = size.map((one, i) => toleranceOf("f32", steps, 0, one) + 3 * unit * one + (cut[i] as number));
  const shape = [batch, tokens, heads, width];
  const turned = x.shape.length === 4;
  const order = [0, 2, 1, 3];
  return [
    {
      output: 0,
      shape: x.shape,
      values: turned ? transposed(values, shape, order) : values,
      within: turned ? transposed(within, shape, order) : within,
      via: attention.rope.id,
    },
  ];
}

/** com.microsoft does not say how many heads there are where the caches do. */
const headsIn = (x: OnnxTensor, rotated: number): number => (x.shape.length === 3 ? (x.shape[2] as number) / rotated : 0);

/** The row of the table of each token: its position, or its own number where the caches have a row for every token. */
function rowsOfTable(positions: OnnxTensor | undefined, batch: number, tokens: number): number[] {
  if (!positions) return Array.from({ length: batch * tokens }, (_, i) => i);
  const given = wholes(positions, "position_ids");
  if (given.length === batch * tokens && positions.shape.length === 2) return given;
  if (given.length !== 1) throw shapeError("RotaryEmbedding", `positions [${batch}, ${tokens}] or the first one`, `[${positions.shape}]`);
  return Array.from({ length: batch * tokens }, (_, i) => (given[0] as number) + (i % tokens));
}

function grouped(rows: readonly number[]): Map<number, number[]> {
  const groups = new Map<number, number[]>();
  for (const [token, row] of rows.entries()) groups.set(row, [...(groups.get(row) ?? []), token]);
  return groups;
}
