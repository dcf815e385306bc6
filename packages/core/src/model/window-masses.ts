import { decodeAnchor } from "../attention/decode-anchor/spec.js";
import type { Tensor } from "../tensor.js";
import type { AttentionContext } from "./layer-attention.js";

/** What the last tokens of a prompt attend to, layer by layer. */
export interface WindowMasses {
  /** Copies those of a layer's `tokens` queries that are in the window; `place` is that of the first of them, from the window's first. */
  keep(layer: number, place: number, tokens: number): void;
  /** [kvHeads, length - window]: what `kvCache.snapKvMasses` gives, for the prompt that the cache holds. */
  of(layer: number): Float64Array;
  dispose(): void;
}

/**
 * `attention/decode-anchor` with the window's queries as a batch over one sequence, each as long as what its token sees,
 * and granules of one token: the masses of a granule are those of a token.
 */
export async function windowMasses(layers: AttentionContext, window: number): Promise<WindowMasses> {
  const { hotset, backend, cache, config, queries } = layers;
  const { heads: queryHeads, kvHeads, headDim } = config;
  const { pages, pageSize } = cache;
  const width = queryHeads * headDim;
  const room = pages * pageSize;
  const axes = { batch: window, queryHeads, kvHeads, headDim, valueDim: headDim, pages, pageSize, maxPages: pages, granularity: 1 };
  const plan = await hotset.plan(decodeAnchor, axes, { keyPages: "f32" }, { backend });
  const own = cache.keys.map(() => hotset.alloc("f32", [window, queryHeads, headDim], backend));
  const pageTable = hotset.alloc("i32", [window, pages], backend);
  const lengths = hotset.alloc("i32", [window], backend);
  const outputs = {
    out: hotset.alloc("f32", [window, queryHeads, headDim], backend),
    lse: hotset.alloc("f32", [window, queryHeads], backend),
    masses: hotset.alloc("f32", [window, kvHeads, room], backend),
  };
  const steps = own.map((kept, layer) =>
    plan.bind(
      {
        queries: kept,
        keyPages: cache.keys[layer] as Tensor<"f32">,
        valuePages: cache.values[layer] as Tensor<"f32">,
        pageTable,
        lengths,
      },
      outputs,
    ),
  );
  return {
    keep(layer, place, tokens) {
      const first = Math.max(0, -place);
      if (first < tokens) own[layer]?.data.set(queries.data.subarray(first * width, tokens * width), (place + first) * width);
    },
    of(layer) {
      const { length } = cache;
      for (let i = 0; i < window; i++) {
        pageTable.data.set(cache.pageTable.data, i * pages);
        lengths.data[i] = length - window + i + 1;
      }
      steps[layer]?.run();
      const before = length - window;
      const mean = new Float64Array(kvHeads * before);
      for (let i = 0; i < window; i++)
        for (let head = 0; head < kvHeads; head++)
          for (let t = 0; t < before; t++) {
            const at = head * before + t;
            mean[at] = (mean[at] as number) + (outputs.masses.data[(i * kvHeads + head) * room + t] as number) / window;
          }
      return mean;
    },
    dispose() {
      for (const one of [...steps, ...own, pageTable, lengths, ...Object.values(outputs)]) one.dispose();
    },
  };
}
