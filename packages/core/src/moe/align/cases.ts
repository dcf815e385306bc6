import type { Case, InputRequest, OpCases, Tensors } from "../../testing/case.js";
import { changedCall, withTensors } from "../../testing/changed-call.js";
import type { AlignAxes, AlignTensors } from "./reference.js";

function sizes(tokens: number, topK: number, experts: number, blockSize: number, spare = 0): AlignAxes {
  const capacity = tokens * topK + Math.min(experts, tokens * topK) * (blockSize - 1) + spare;
  return { tokens, topK, experts, blockSize, capacity };
}

/** Experts of tokens; `away`: the share of -1; few experts are popular where `skew` is large. */
const routed =
  (away = 0, skew = 1) =>
  ({ axes, random }: InputRequest): Tensors => {
    const { tokens, topK, experts } = axes as AlignAxes;
    const ids = new Int32Array(tokens * topK);
    for (let i = 0; i < ids.length; i++) ids[i] = random.uniform() < away ? -1 : Math.floor(experts * random.uniform() ** skew);
    return { ids };
  };

const bad: Case["inputs"] = (request) => {
  const { ids } = routed(0.2)(request) as unknown as AlignTensors;
  const { experts } = request.axes as AlignAxes;
  [ids[1], ids[4], ids[ids.length - 1]] = [experts, -2, 2 ** 31 - 1];
  return { ids };
};

const example: Case["inputs"] = () => ({ ids: Int32Array.of(2, 3, 4, 1, 2, 4, 1, 3, 4, 1, 2, 3) });

export const cases: OpCases = {
  cases: [
    { name: "a decode step", axes: sizes(1, 8, 64, 1), inputs: routed() },
    { name: "four tokens, blocks of 4", axes: sizes(4, 3, 5, 4), inputs: example, seeds: 1 },
    { name: "25 tokens, blocks of 16", axes: sizes(25, 4, 60, 16), inputs: routed(0, 2) },
    { name: "blocks larger than what there is", axes: sizes(6, 2, 3, 64), inputs: routed() },
    { name: "one expert", axes: sizes(19, 1, 1, 8), inputs: routed() },
    { name: "experts that are not here", axes: sizes(40, 4, 16, 4), inputs: routed(0.5) },
    { name: "nothing assigned", axes: sizes(5, 2, 4, 4), inputs: routed(1), seeds: 1 },
    { name: "room to spare", axes: sizes(7, 3, 6, 4, 33), inputs: routed() },
    { name: "many tokens", axes: sizes(3100, 4, 37, 8), inputs: routed(0.05, 3) },
    { name: "no tokens", axes: sizes(0, 2, 4, 4, 8), inputs: routed(), seeds: 1 },
    { name: "fewer tokens at run time", axes: sizes(50, 2, 8, 4), live: { tokens: 21 }, inputs: routed(0.1) },
    { name: "experts that do not exist", axes: sizes(9, 3, 7, 4), inputs: bad, seeds: 1 },
  ],
  mutants: [
    {
      name: "an expert's assignments in falling order",
      run(call, op) {
        op.reference(call);
        const { blockSize, capacity } = call.axes as AlignAxes;
        const { sorted, blockExpert } = call.tensors as AlignTensors;
        for (let block = 0; (block + 1) * blockSize <= capacity; block++)
          if ((blockExpert[block] as number) >= 0) {
            const rows = sorted.subarray(block * blockSize, (block + 1) * blockSize);
            rows.set([...rows.filter((i) => i >= 0)].reverse());
          }
      },
      blind: ({ axes, expected }) => {
        const { blockSize } = axes as AlignAxes;
        const rows = expected.sorted as Int32Array;
        for (let i = 1; i < rows.length; i++)
          if (i % blockSize && (rows[i] as number) >= 0 && (rows[i - 1] as number) >= 0) return undefined;
        return "no block has two rows";
      },
    },
    changedCall("last token forgotten", "the last token is assigned nothing", (call) => ({
      ...call,
      axes: { ...call.axes, tokens: Math.max(0, (call.axes.tokens as number) - 1) },
    })),
    changedCall("first two assignments swapped", "they are to the same expert", (call) => {
      const ids = (call.tensors as AlignTensors).ids.slice();
      if (ids.length > 1 && (call.axes.tokens as number) * (call.axes.topK as number) > 1)
        [ids[0], ids[1]] = [ids[1] as number, ids[0] as number];
      return withTensors(call, { ids });
    }),
    {
      name: "blocks not filled up",
      run: (call, op) => op.reference({ ...call, axes: { ...call.axes, blockSize: 1 } }),
      blind: ({ expected, axes }) => {
        const { blockSize } = axes as AlignAxes;
        const total = expected.total?.[0] as number;
        return blockSize === 1 || total === 0 ? "blocks have one row, or there are none" : undefined;
      },
    },
  ],
  laws: [],
  bench: [
    {
      name: "2048 tokens, 8 of 128 experts, blocks of 16",
      calibrate: true,
      axes: sizes(2048, 8, 128, 16),
      variants: [{}],
      inputs: routed(),
    },
  ],
};
