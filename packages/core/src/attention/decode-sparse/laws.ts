import type { AnyVariant } from "../../op/define.js";
import type { Law, Tensors } from "../../testing/case.js";
import { cache } from "../decode/inputs.js";
import { decode } from "../decode/spec.js";
import { all, listed, some } from "./inputs.js";
import type { SparseAxes, SparseTensors } from "./reference.js";

const cached = { batch: 2, queryHeads: 6, kvHeads: 2, headDim: 32, valueDim: 24, pages: 150, pageSize: 16, maxPages: 70, maskHeads: 1 };
const lengths = () => [1101, 90];
const axes: SparseAxes = { ...cached, granularity: 16, lists: 1, k: 70 };

/** Without sinks; with both biases or with none. */
const plain = ({ sinks, slopes, mask }: AnyVariant): boolean => sinks === false && slopes === (mask !== false);

const firstDifference = (a: Tensors, b: Tensors): string | undefined => {
  for (const name of ["out", "lse"]) {
    const at = (a[name] as Float32Array).findIndex((value, i) => !Object.is(value, b[name]?.[i]));
    if (at >= 0) return `${name}[${at}] is ${a[name]?.[at]}, then ${b[name]?.[at]}`;
  }
  return undefined;
};

/** With everything listed, in granules of each size and lists of each scope: the bits of attention/decode. */
const dense: Law = {
  name: "with everything listed it has the bits of attention/decode",
  axes,
  hostOnly: true,
  variants: plain,
  async check(run, request, other) {
    for (const scalars of [{}, { window: 700, softCap: 4 }]) {
      const given = cache(lengths)(request) as unknown as SparseTensors;
      const whole = await other(decode)(cached, request.variant, given as unknown as Tensors, scalars);
      for (const [granularity, lists] of [
        [1, 6],
        [16, 2],
        [64, 1],
      ] as const) {
        const sizes: SparseAxes = { ...cached, granularity, lists, k: Math.ceil((70 * 16) / granularity) };
        const selected = new Int32Array(2 * lists * sizes.k).fill(-1);
        for (let row = 0; row < 2 * lists; row++)
          selected.set(
            all(Math.ceil((given.lengths[Math.floor(row / lists)] as number) / granularity), sizes.k, request.random),
            row * sizes.k,
          );
        const problem = firstDifference(whole, await run(sizes, request.variant, { ...given, selected } as unknown as Tensors, scalars));
        if (problem) return `${lists} lists of granules of ${granularity}: ${problem}`;
      }
    }
    return undefined;
  },
};

export const laws: readonly Law[] = [
  dense,
  {
    name: "a list given once, per KV head or per query head gives the same bits",
    axes,
    hostOnly: true,
    variants: plain,
    async check(run, request) {
      const given = listed(lengths, some)(request) as unknown as SparseTensors;
      const once = await run(axes, request.variant, given as unknown as Tensors);
      for (const lists of [2, 6]) {
        const selected = new Int32Array(2 * lists * axes.k);
        for (let row = 0; row < 2 * lists; row++) {
          const b = Math.floor(row / lists);
          selected.set(given.selected.subarray(b * axes.k, (b + 1) * axes.k), row * axes.k);
        }
        const problem = firstDifference(once, await run({ ...axes, lists }, request.variant, { ...given, selected } as unknown as Tensors));
        if (problem) return `${lists} lists: ${problem}`;
      }
      return undefined;
    },
  },
  {
    name: "granules of 16 give the bits of their tokens listed one by one",
    axes,
    hostOnly: true,
    variants: plain,
    async check(run, request) {
      const given = listed(lengths, some)(request) as unknown as SparseTensors;
      const tokens: SparseAxes = { ...axes, granularity: 1, k: 70 * 16 };
      const selected = new Int32Array(2 * tokens.k).fill(-1);
      for (let b = 0; b < 2; b++) {
        const listedTokens = [...given.selected.subarray(b * axes.k, (b + 1) * axes.k)]
          .filter((granule) => granule >= 0)
          .flatMap((granule) => Array.from({ length: 16 }, (_, i) => granule * 16 + i))
          .filter((token) => token < (given.lengths[b] as number));
        selected.set(listedTokens, b * tokens.k);
      }
      return firstDifference(
        await run(axes, request.variant, given as unknown as Tensors),
        await run(tokens, request.variant, { ...given, selected } as unknown as Tensors),
      );
    },
  },
  {
    // Logits of 0 and whole values: what is seen is counted and summed exactly, in any order.
    name: "a mask that hides all but some granules is their list",
    axes,
    hostOnly: true,
    variants: ({ keyPages, sinks, slopes, mask }) => keyPages === "f32" && !sinks && !slopes && mask === "bits",
    async check(run, request, other) {
      const given = listed(lengths, some)(request) as unknown as SparseTensors;
      given.queries.fill(0);
      const values = given.valuePages as Float32Array;
      for (const [i, value] of values.entries()) values[i] = Math.round(4 * value);
      const words = (cached.maxPages * cached.pageSize) / 32;
      const mask = new Uint32Array(2 * words);
      for (const [i, granule] of given.selected.entries()) {
        if (granule < 0) continue;
        const half = granule * 16;
        const at = Math.floor(i / axes.k) * words + (half >> 5);
        mask[at] = (mask[at] as number) | (0xffff << (half & 31));
      }
      const { mask: _, selected: __, ...dense } = given;
      const hidden = await other(decode)(cached, request.variant, { ...dense, mask } as unknown as Tensors);
      const { mask: ___, ...unmasked } = given;
      const list = await run(axes, { ...request.variant, mask: false }, unmasked as unknown as Tensors);
      return firstDifference(hidden, list);
    },
  },
];
