import type { Law, Tensors } from "../../testing/case.js";
import { cache } from "./inputs.js";
import type { DecodeAxes, DecodeTensors } from "./reference.js";

const axes: DecodeAxes = { batch: 3, queryHeads: 6, kvHeads: 2, headDim: 32, valueDim: 24, pages: 40, pageSize: 8, maxPages: 12 };
const lengths = () => [90, 41, 64];

/** Properties that hold bit for bit on every backend. */
export const laws: readonly Law[] = [
  {
    name: "a sequence gives the same bits alone as in a batch",
    axes,
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
