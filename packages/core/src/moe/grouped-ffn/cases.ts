import type { DType } from "../../dtype.js";
import type { AnyVariant } from "../../op/define.js";
import type { Case, InputRequest, OpCases, Tensors } from "../../testing/case.js";
import { changing, withTensors } from "../../testing/changed-call.js";
import { storedValues } from "../../testing/stored.js";
import { reference as align } from "../align/reference.js";
import type { FfnAxes, FfnTensors } from "./reference.js";

interface Size {
  tokens?: number;
  topK?: number;
  experts?: number;
  slots?: number;
  width?: [dim: number, hidden: number];
  block?: number;
}
function sizes({ tokens = 5, topK = 2, experts = 6, slots = experts, width: [dim, hidden] = [32, 32], block = 4 }: Size): FfnAxes {
  const capacity = tokens * topK + Math.min(experts, tokens * topK) * (block - 1);
  return { tokens, topK, experts, slots, dim, hidden, blockSize: block, capacity };
}

/** Tokens routed at random, aligned; every expert in a slot of its own as long as there are some, in no order. */
const routed =
  (skew = 1, spread = 1) =>
  (request: InputRequest): Tensors => {
    const { axes, variant, random } = request;
    const { tokens, topK, experts, slots, dim, hidden, blockSize, capacity } = axes as FfnAxes;
    const dtype = variant.gate as DType;
    const ids = Int32Array.from({ length: tokens * topK }, () => Math.floor(experts * random.uniform() ** skew));
    const sorted = new Int32Array(capacity);
    const blockExpert = new Int32Array(Math.ceil(capacity / blockSize));
    align({ axes, variant, scalars: {}, pitch: {}, tensors: { ids, sorted, blockExpert, total: new Int32Array(1) }, fail() {} });
    const expertSlot = new Int32Array(experts).fill(-1);
    const step = 1 + 2 * random.below(3);
    for (let i = 0; i < Math.min(slots, experts); i++) expertSlot[(i * step) % experts] = i;
    const matrix = (rows: number, columns: number) =>
      storedValues(
        dtype,
        random.values(slots * rows * columns, () => (spread * random.normal()) / Math.sqrt(columns)),
        columns,
      );
    return {
      x: random.values(tokens * dim, () => random.normal()),
      sorted,
      blockExpert,
      expertSlot,
      gate: matrix(hidden, dim),
      up: matrix(hidden, dim),
      down: matrix(dim, hidden),
    };
  };

const changed =
  (inputs: Case["inputs"], change: (tensors: FfnTensors, axes: FfnAxes) => void): Case["inputs"] =>
  (request) => {
    const tensors = inputs(request);
    change(tensors as unknown as FfnTensors, request.axes as FfnAxes);
    return tensors;
  };

const bad = changed(routed(), ({ sorted, blockExpert, expertSlot }, { tokens, topK, experts, slots }) => {
  [expertSlot[0], expertSlot[1]] = [slots, -5];
  blockExpert[0] = experts;
  sorted[0] = tokens * topK;
  sorted[sorted.length - 1] = -3;
});

/** An assignment that stands twice: the first is done. */
const twice = changed(routed(), ({ sorted }) => {
  const [first, second] = [...sorted.keys()].filter((i) => (sorted[i] as number) >= 0) as [number, number];
  sorted[second] = sorted[first] as number;
});

/** Token by token: a NaN, an infinity, gates far below and above 0. */
const special = changed(routed(), ({ x }, { dim }) => {
  x[1] = Number.NaN;
  x[dim + 2] = Number.POSITIVE_INFINITY;
  x.fill(3e4, 2 * dim, 3 * dim);
  x.fill(-3e4, 3 * dim, 4 * dim);
});

const isF32 = ({ gate }: AnyVariant): boolean => gate === "f32";

export const cases: OpCases = {
  cases: [
    { name: "one token, two of six experts", axes: sizes({ tokens: 1, width: [64, 48], block: 1 }), inputs: routed() },
    { name: "rows that fill no vector", axes: sizes({ tokens: 3, width: [37, 21] }), inputs: routed() },
    { name: "a component of each", axes: sizes({ tokens: 2, width: [1, 1], block: 1 }), inputs: routed(), seeds: 1 },
    { name: "runs of 512 and a rest", axes: sizes({ tokens: 3, experts: 2, width: [545, 9] }), inputs: routed(), seeds: 1 },
    { name: "a wide inside", axes: sizes({ tokens: 2, experts: 3, width: [12, 530], block: 2 }), inputs: routed(), seeds: 1 },
    { name: "rows of experts from none to many", axes: sizes({ tokens: 13, experts: 5, width: [33, 34], block: 8 }), inputs: routed(2) },
    {
      name: "more rows than a group",
      axes: sizes({ tokens: 70, topK: 1, experts: 2, width: [40, 35], block: 16 }),
      inputs: routed(6),
      seeds: 1,
    },
    { name: "slots for half of the experts", axes: sizes({ tokens: 9, experts: 8, slots: 4, width: [32, 16] }), inputs: routed() },
    { name: "large weights", axes: sizes({ width: [48, 40] }), inputs: routed(1, 30), seeds: 1 },
    { name: "no tokens", axes: { ...sizes({ tokens: 0 }), capacity: 4 }, inputs: routed(), seeds: 1 },
    {
      name: "nothing loaded",
      axes: sizes({ tokens: 3 }),
      inputs: changed(routed(), ({ expertSlot }) => {
        expertSlot.fill(-1);
      }),
      seeds: 1,
    },
    { name: "special values", axes: sizes({ tokens: 4, width: [13, 6] }), variants: isF32, inputs: special, seeds: 1 },
    { name: "indices that do not exist", axes: sizes({ tokens: 6 }), inputs: bad, seeds: 1 },
    { name: "an assignment twice", axes: sizes({ tokens: 6, experts: 2 }), inputs: twice, seeds: 1 },
  ],
  mutants: [
    changing("gate and up swapped", "nothing is computed, or it makes no difference", (call) => {
      const { gate, up } = call.tensors as FfnTensors;
      return withTensors(call, { gate: up, up: gate });
    }),
    changing("slots taken for experts", "each expert lies in the slot of its number", (call) => {
      const { slots } = call.axes as FfnAxes;
      const { expertSlot } = call.tensors as FfnTensors;
      return withTensors(call, { expertSlot: expertSlot.map((slot, e) => (slot < 0 ? slot : e % slots)) });
    }),
    changing("first slot for experts that are not loaded", "every expert is loaded, or not used", (call) => {
      const { expertSlot } = call.tensors as FfnTensors;
      return withTensors(call, { expertSlot: expertSlot.map((slot) => (slot === -1 ? 0 : slot)) });
    }),
    changing("last component dropped", "there is nothing to compute, or it is below the roundings", (call) => {
      const { dim } = call.axes as FfnAxes;
      const { x } = call.tensors as FfnTensors;
      return withTensors(call, { x: x.map((value, i) => ((i + 1) % dim ? value : 0)) });
    }),
    changing("blocks of another expert", "no block has a neighbour", (call) => {
      const { blockExpert } = call.tensors as FfnTensors;
      return withTensors(call, { blockExpert: blockExpert.map((_, i) => blockExpert[Math.max(0, i - 1)] as number) });
    }),
    {
      name: "ReLU for SiLU",
      run(call, op) {
        // Of gates far from 0, silu is ReLU.
        const { x, out } = call.tensors as FfnTensors;
        op.reference(withTensors(call, { x: x.map((value) => value * 2 ** 20) }));
        for (let i = 0; i < out.length; i++) out[i] = (out[i] as number) * 2 ** -40;
      },
      blind: ({ expected, inputs }) => {
        const { x } = inputs as unknown as FfnTensors;
        const numbers = (expected.out as Float32Array).some(
          (value) => Number.isFinite(value) && Math.abs(value) > 1e-2 && Math.abs(value) < 1e2,
        );
        return numbers && x.every(Number.isFinite) && x.every((value) => Math.abs(value) < 100) ? undefined : "no result depends on it";
      },
    },
  ],
  laws: [
    {
      name: "a token gives the same bits alone as among others",
      axes: sizes({ tokens: 11, topK: 1, experts: 1, width: [70, 45], block: 4 }),
      async check(run, request) {
        const given = routed()(request) as unknown as FfnTensors;
        const { dim } = request.axes as FfnAxes;
        const together = (await run(request.axes, request.variant, given as unknown as Tensors)).out as Float32Array;
        const alone = { ...request.axes, tokens: 1, capacity: 4 };
        for (const token of [0, 6, 10]) {
          const { out } = await run(alone, request.variant, {
            ...given,
            x: given.x.slice(token * dim, (token + 1) * dim),
            sorted: Int32Array.of(0, -1, -1, -1),
            blockExpert: Int32Array.of(0),
          } as unknown as Tensors);
          const at = (out as Float32Array).findIndex((value, i) => !Object.is(value, together[token * dim + i]));
          if (at >= 0) return `token ${token}: out[${at}] is ${out?.[at]} alone and ${together[token * dim + at]} among others`;
        }
        return undefined;
      },
    },
    {
      name: "runs over halves of the experts add up to the run over all",
      axes: sizes({ tokens: 8, experts: 6, width: [32, 24] }),
      async check(run, request) {
        const given = routed()(request) as unknown as FfnTensors;
        const half = (odd: number) => given.expertSlot.map((slot, e) => (e % 2 === odd ? slot : -1));
        const results: Float32Array[] = [];
        for (const expertSlot of [given.expertSlot, half(0), half(1)])
          results.push((await run(request.axes, request.variant, { ...given, expertSlot } as unknown as Tensors)).out as Float32Array);
        const [all, even, odd] = results as [Float32Array, Float32Array, Float32Array];
        const at = all.findIndex((value, i) => !(value === (even[i] as number) + (odd[i] as number)));
        return at < 0 ? undefined : `out[${at}] is ${all[at]}, in halves ${even[at]} and ${odd[at]}`;
      },
    },
  ],
  bench: [
    bench("1 token, 4 of 32 experts, 1024 x 1024", { tokens: 1, topK: 4, experts: 32, width: [1024, 1024], block: 1 }, true),
    bench("256 tokens, 4 of 8 experts, 512 x 1024", { tokens: 256, topK: 4, experts: 8, width: [512, 1024], block: 16 }, true),
  ],
};

function bench(name: string, size: Size, calibrate: boolean): OpCases["bench"][number] {
  return {
    name,
    calibrate,
    axes: sizes(size),
    variants: (["f32", "f16", "q8_0"] as const).map((gate) => ({ gate })),
    inputs: ({ axes, variant, random }) => {
      const { tokens, topK, experts, slots, dim, hidden, blockSize, capacity } = axes as FfnAxes;
      const pattern = random.values(2 ** 16 + 1, () => 0.06 * (2 * random.uniform() - 1));
      const matrix = (rows: number, columns: number) => {
        const values = new Float32Array(slots * rows * columns);
        for (let at = 0; at < values.length; at += pattern.length)
          values.set(pattern.subarray(0, Math.min(pattern.length, values.length - at)), at);
        return storedValues(variant.gate as DType, values, columns);
      };
      const ids = Int32Array.from({ length: tokens * topK }, (_, i) => (i * 5 + Math.floor(i / topK)) % experts);
      const sorted = new Int32Array(capacity);
      const blockExpert = new Int32Array(Math.ceil(capacity / blockSize));
      align({ axes, variant, scalars: {}, pitch: {}, tensors: { ids, sorted, blockExpert, total: new Int32Array(1) }, fail() {} });
      return {
        x: random.values(tokens * dim, () => random.normal()),
        sorted,
        blockExpert,
        expertSlot: Int32Array.from({ length: experts }, (_, e) => e),
        gate: matrix(hidden, dim),
        up: matrix(hidden, dim),
        down: matrix(dim, hidden),
      };
    },
    // One assignment.
    sample: (axes, inputs) => {
      const { dim, blockSize } = axes as FfnAxes;
      const given = inputs as unknown as FfnTensors;
      const at = given.sorted.indexOf(0);
      const blockExpert = Int32Array.of(given.blockExpert[Math.floor(at / blockSize)] as number);
      const sorted = new Int32Array(blockSize).fill(-1);
      sorted[0] = 0;
      return {
        axes: { ...axes, tokens: 1, topK: 1, capacity: blockSize },
        inputs: { ...given, x: given.x.slice(0, dim), sorted, blockExpert } as unknown as Tensors,
        pick: ({ out }: Tensors) => ({ out: (out as Float32Array).subarray(0, dim) }) as Tensors,
      };
    },
  };
}
