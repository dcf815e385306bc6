import type { InputRequest, OpCases, Tensors } from "../../testing/case.js";
import { changedCall, withTensors } from "../../testing/changed-call.js";
import type { CombineAxes, CombineTensors } from "./reference.js";

const sizes = (tokens: number, topK: number, dim: number): CombineAxes => ({ tokens, topK, dim });

/** `away`: the share of weights that are 0; their rows hold NaN. */
const rowsOf =
  (away = 0) =>
  ({ axes, random }: InputRequest): Tensors => {
    const { tokens, topK, dim } = axes as CombineAxes;
    const rows = random.values(tokens * topK * dim, () => random.normal());
    const weights = random.values(tokens * topK, () => random.uniform());
    for (let i = 0; i < tokens * topK; i++) {
      if (random.uniform() >= away) continue;
      weights[i] = 0;
      rows.fill(Number.NaN, i * dim, (i + 1) * dim);
    }
    return { rows, weights } as unknown as Tensors;
  };

const special = (request: InputRequest): Tensors => {
  const { topK, dim } = request.axes as CombineAxes;
  const tensors = rowsOf()(request) as unknown as CombineTensors;
  tensors.rows[1] = Number.NaN;
  tensors.rows[topK * dim] = Number.POSITIVE_INFINITY;
  tensors.weights[2 * topK] = Number.NaN;
  return tensors as unknown as Tensors;
};

export const cases: OpCases = {
  cases: [
    ...[1, 3, 16, 33, 100].map((dim) => ({ name: `rows of ${dim}`, axes: sizes(5, 4, dim), inputs: rowsOf(), seeds: 1 })),
    { name: "one expert", axes: sizes(6, 1, 40), inputs: rowsOf() },
    { name: "8 experts", axes: sizes(3, 8, 72), inputs: rowsOf() },
    { name: "experts that are not here", axes: sizes(9, 4, 21), inputs: rowsOf(0.4) },
    { name: "nothing here", axes: sizes(2, 3, 9), inputs: rowsOf(1), seeds: 1 },
    { name: "no tokens", axes: sizes(0, 2, 8), inputs: rowsOf(), seeds: 1 },
    { name: "fewer tokens at run time", axes: sizes(7, 2, 30), live: { tokens: 3 }, inputs: rowsOf(), seeds: 1 },
    { name: "special values", axes: sizes(4, 2, 13), inputs: special, seeds: 1 },
  ],
  mutants: [
    changedCall("weights off by 1 %", "there are no weights", (call) =>
      withTensors(call, { weights: (call.tensors as CombineTensors).weights.map((weight) => weight * 1.01) }),
    ),
    changedCall("last expert left out", "the last experts have weight 0", (call) => {
      const { topK } = call.axes as CombineAxes;
      return withTensors(call, { weights: (call.tensors as CombineTensors).weights.map((weight, i) => ((i + 1) % topK ? weight : 0)) });
    }),
    changedCall("weights of the first two experts swapped", "there are no two that differ", (call) => {
      const { tokens, topK } = call.axes as CombineAxes;
      const weights = (call.tensors as CombineTensors).weights.slice();
      for (let t = 0; topK > 1 && t < tokens; t++) weights.subarray(t * topK, t * topK + 2).reverse();
      return withTensors(call, { weights });
    }),
    changedCall("weights of 0 multiplied", "no weight is 0", (call) =>
      withTensors(call, { weights: (call.tensors as CombineTensors).weights.map((weight) => (weight === 0 ? 1e-40 : weight)) }),
    ),
  ],
  laws: [],
  bench: [
    { name: "2048 tokens, 4 experts, 2880", calibrate: true, axes: sizes(2048, 4, 2880), variants: [{}], inputs: rowsOf() },
    { name: "1 token, 8 experts, 2048", axes: sizes(1, 8, 2048), variants: [{}], inputs: rowsOf() },
  ],
};
