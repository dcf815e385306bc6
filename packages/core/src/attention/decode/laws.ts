import type { AnyVariant } from "../../op/define.js";
import type { Law, Tensors } from "../../testing/case.js";
import { cache } from "./inputs.js";
import type { DecodeAxes, DecodeTensors } from "./reference.js";

const axes: DecodeAxes = {
  batch: 3,
  queryHeads: 6,
  kvHeads: 2,
  headDim: 32,
  valueDim: 24,
  pages: 40,
  pageSize: 8,
  maxPages: 12,
  maskHeads: 1,
};
const lengths = () => [90, 41, 64];

const unbiased = ({ slopes, mask }: AnyVariant): boolean => !slopes && !mask;

/** Properties that hold bit for bit on every backend. */
export const laws: readonly Law[] = [
  {
    name: "a sequence gives the same bits alone as in a batch",
    axes,
    variants: unbiased,
    async check(run, request) {
      const given = cache(lengths)(request) as unknown as DecodeTensors;
      const { queryHeads, headDim, valueDim, maxPages } = axes;
      const together = await run(axes, request.variant, given as unknown as Tensors);
      for (let b = 0; b < axes.batch; b++) {
        const alone = await run({ ...axes, batch: 1 }, request.variant, {
          ...given,
          queries: given.queries.slice(b * queryHeads * headDim, (b + 1) * queryHeads * headDim),
          pageTable: given.pageTable.slice(b * maxPages, (b + 1) * maxPages),
          lengths: given.lengths.slice(b, b + 1),
        } as unknown as Tensors);
        const part = (together.out as Float32Array).subarray(b * queryHeads * valueDim, (b + 1) * queryHeads * valueDim);
        const at = part.findIndex((value, i) => !Object.is(value, alone.out?.[i]));
        if (at >= 0) return `sequence ${b}: out[${at}] is ${alone.out?.[at]} alone and ${part[at]} in the batch`;
      }
      return undefined;
    },
  },
  {
    name: "where the pages lie, and how large they are, changes no bit",
    axes,
    variants: unbiased,
    async check(run, request) {
      const given = cache(lengths)(request) as unknown as DecodeTensors;
      const paged = await run(axes, request.variant, given as unknown as Tensors);
      const contiguous = { ...axes, pages: axes.batch, pageSize: axes.maxPages * axes.pageSize, maxPages: 1 };
      const moved = await run(contiguous, request.variant, {
        ...given,
        ...Object.fromEntries(
          (["keyPages", "keyScale", "valuePages", "valueScale"] as const)
            .filter((name) => given[name])
            .map((name) => [name, gathered(given, name)]),
        ),
        pageTable: Int32Array.from({ length: axes.batch }, (_, b) => b),
      } as unknown as Tensors);
      const at = (paged.out as Float32Array).findIndex((value, i) => !Object.is(value, moved.out?.[i]));
      return at < 0 ? undefined : `out[${at}] is ${paged.out?.[at]} in pages and ${moved.out?.[at]} in one piece`;
    },
  },
];

/** A cache tensor with each sequence's tokens in one piece; what no sequence holds stays 0. */
function gathered(given: DecodeTensors, name: "keyPages" | "keyScale" | "valuePages" | "valueScale") {
  const source = given[name] as Float32Array;
  const { batch, kvHeads, pageSize, maxPages, pages } = axes;
  const width = source.length / (pages * kvHeads * pageSize);
  const tokens = maxPages * pageSize;
  const target = new (source.constructor as Float32ArrayConstructor)(batch * kvHeads * tokens * width);
  for (let b = 0; b < batch; b++)
    for (let t = 0; t < (given.lengths[b] as number); t++)
      for (let head = 0; head < kvHeads; head++) {
        const page = given.pageTable[b * maxPages + Math.floor(t / pageSize)] as number;
        const from = ((page * kvHeads + head) * pageSize + (t % pageSize)) * width;
        target.set(source.subarray(from, from + width), ((b * kvHeads + head) * tokens + t) * width);
      }
  return target;
}

const biasedAxes: DecodeAxes = { ...axes, maskHeads: 6 };
const one = ({ keyPages, sinks }: AnyVariant): boolean => !sinks && (keyPages === "f32" || keyPages === "i8");
function firstDifference(a: Tensors, b: Tensors): string | undefined {
  for (const name of ["out", "lse"]) {
    const at = (a[name] as Float32Array).findIndex((value, i) => !Object.is(value, b[name]?.[i]));
    if (at >= 0) return `${name}[${at}] is ${a[name]?.[at]}, then ${b[name]?.[at]}`;
  }
  return undefined;
}

/** What slopes and masks have to do with each other, and with what is there without them; bit for bit. */
export const biasLaws: readonly Law[] = [
  {
    name: "slopes of 0 change no bit",
    axes: biasedAxes,
    variants: (v) => one(v) && v.slopes === true && v.mask !== "f32",
    async check(run, request) {
      const given = cache(lengths)(request);
      const { slopes, ...without } = given as unknown as DecodeTensors;
      const flat = await run(biasedAxes, request.variant, { ...given, slopes: new Float32Array(6) });
      return firstDifference(flat, await run(biasedAxes, { ...request.variant, slopes: false }, without as unknown as Tensors));
    },
  },
  {
    name: "a mask of bits has the bits of one of 0 and -Inf",
    axes: biasedAxes,
    variants: (v) => one(v) && v.mask === "bits",
    async check(run, request) {
      const given = cache(lengths)(request) as unknown as DecodeTensors;
      const bits = given.mask as Uint32Array;
      const { maxPages, pageSize, batch, maskHeads } = biasedAxes;
      const tokens = maxPages * pageSize;
      const mask = Float32Array.from({ length: batch * maskHeads * tokens }, (_, i) => {
        const t = i % tokens;
        const word = bits[Math.floor(i / tokens) * Math.ceil(tokens / 32) + (t >> 5)] as number;
        return (word >>> (t & 31)) & 1 ? 0 : Number.NEGATIVE_INFINITY;
      });
      const packed = await run(biasedAxes, request.variant, given as unknown as Tensors);
      const floats = await run(biasedAxes, { ...request.variant, mask: "f32" }, { ...given, mask } as unknown as Tensors);
      return firstDifference(packed, floats);
    },
  },
  {
    // Logits of 0 and whole values: what is seen is counted and summed exactly, in any order.
    name: "a mask that hides all but the last tokens is a window",
    axes,
    hostOnly: true,
    variants: (v) => one(v) && v.mask === "bits" && !v.slopes && v.keyPages === "f32",
    async check(run, request) {
      const given = cache(lengths)(request) as unknown as DecodeTensors;
      given.queries.fill(0);
      const values = given.valuePages as Float32Array;
      for (const [i, value] of values.entries()) values[i] = Math.round(4 * value);
      const mask = new Uint32Array(axes.batch * 3);
      for (const [b, length] of given.lengths.entries())
        for (let t = length - 32; t < length; t++) mask[b * 3 + (t >> 5)] = (mask[b * 3 + (t >> 5)] as number) | (1 << (t & 31));
      const masked = await run(axes, request.variant, { ...given, mask } as unknown as Tensors);
      const { mask: _, ...without } = given;
      const windowed = await run(axes, { ...request.variant, mask: false }, without as unknown as Tensors, { window: 32 });
      return firstDifference(masked, windowed);
    },
  },
];
