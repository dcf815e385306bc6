import { decode } from "../attention/decode/spec.js";
import { prefill } from "../attention/prefill/spec.js";
import type { Hotset } from "../hotset.js";
import type { Step } from "../step.js";
import type { Tensor } from "../tensor.js";
import type { SequenceCache } from "./cache.js";
import type { ModelConfig } from "./config.js";

/** What attention is given once: where queries come from, where results go, and the cache. */
export interface AttentionContext {
  readonly hotset: Hotset;
  readonly backend: string;
  readonly config: ModelConfig;
  readonly cache: SequenceCache;
  /** [most, heads, headDim], turned by their positions. */
  readonly queries: Tensor<"f32">;
  /** [most, heads, headDim]. */
  readonly out: Tensor<"f32">;
  /** Tokens of one call, at most. */
  readonly most: number;
}

/** How the layers of a model attend. This is the one place to put another method: see `reuseAttention`. */
export interface LayerAttention {
  /** Another text begins: nothing of the one before holds. */
  begin?(): void;
  /**
   * One layer, for the last `tokens` tokens of the cache, whose keys and values are in it: reads the first rows of
   * `queries`, writes those of `out`. `ofPrompt`: these tokens were given, not generated.
   */
  attend(layer: number, tokens: number, ofPrompt: boolean): void;
  dispose(): void;
}

/** Attention to everything before: `attention/decode` for one token, `attention/prefill` for more. */
export async function denseAttention(context: AttentionContext): Promise<LayerAttention> {
  const { hotset, backend, config, cache, queries, out, most } = context;
  const { heads: queryHeads, kvHeads, headDim } = config;
  const axes = {
    batch: 1,
    queryHeads,
    kvHeads,
    headDim,
    valueDim: headDim,
    pages: cache.pages,
    pageSize: cache.pageSize,
    maxPages: cache.pages,
  };
  const one = await hotset.plan(decode, axes, { keyPages: "f32" }, { backend });
  const many = await hotset.plan(prefill, { ...axes, tokens: most }, { keyPages: "f32" }, { backend });
  const queryOffsets = hotset.alloc("i32", [2], backend);
  const lse = hotset.alloc("f32", [most, queryHeads], backend);
  const pages = (layer: number) => ({
    keyPages: cache.keys[layer] as Tensor<"f32">,
    valuePages: cache.values[layer] as Tensor<"f32">,
    pageTable: cache.pageTable,
    lengths: cache.lengths,
  });
  const width = queryHeads * headDim;
  const steps = cache.keys.map((_, layer): [one: Step<typeof decode>, many: Step<typeof prefill>] => [
    one.bind(
      { ...pages(layer), queries: queries.data.subarray(0, width) },
      { out: out.data.subarray(0, width), lse: lse.data.subarray(0, queryHeads) },
    ),
    many.bind({ ...pages(layer), queries, queryOffsets }, { out, lse }),
  ]);
  let set = most;
  return {
    attend(layer, tokens) {
      const [single, several] = steps[layer] as (typeof steps)[number];
      if (tokens === 1) {
        single.run();
        return;
      }
      if (set !== tokens) for (const [, step] of steps) step.set("tokens", tokens);
      set = tokens;
      queryOffsets.data[1] = tokens;
      several.run();
    },
    dispose() {
      for (const pair of steps) for (const step of pair) step.dispose();
      queryOffsets.dispose();
      lse.dispose();
    },
  };
}
