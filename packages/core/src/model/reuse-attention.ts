import { LayerReuse } from "../attention/layer-reuse.js";
import type { LayerPolicy } from "../attention/layer-reuse-policy.js";
import type { ReuseCounters } from "../attention/layer-reuse-step.js";
import { ShapeError } from "../errors.js";
import type { Tensor } from "../tensor.js";
import { type AttentionContext, denseAttention, type LayerAttention } from "./layer-attention.js";

export interface ReuseAttention extends LayerAttention {
  /** Of the generated tokens of all texts. */
  readonly counters: ReuseCounters;
}

/**
 * Attention by a policy of full, anchor and reuse layers: the prompt is dense, and each generated token goes through
 * `attention.LayerReuse`. With a policy that lists every token the text is that of `denseAttention`.
 *
 *   const policy = attention.parsePolicy(text, { layers: loaded.config.layers, kvHeads: loaded.config.kvHeads });
 *   const model = await openModel(loaded, { attention: (context) => reuseAttention(context, policy) });
 *
 * Throws ShapeError where the policy has other layers than the model, or head maps for other heads.
 */
export async function reuseAttention(context: AttentionContext, policy: LayerPolicy): Promise<ReuseAttention> {
  const { hotset, backend, config, cache, queries, out } = context;
  const { heads: queryHeads, kvHeads, headDim } = config;
  if (policy.layers.length !== config.layers)
    throw new ShapeError({
      where: "reuseAttention: policy",
      expected: `${config.layers} layers, as the model has`,
      received: `${policy.layers.length}`,
    });
  const { pages, pageSize } = cache;
  const axes = { batch: 1, queryHeads, kvHeads, headDim, valueDim: headDim, pages, pageSize, maxPages: pages };
  const reuse = await LayerReuse.create(hotset, { policy, axes, keyPages: "f32", backend });
  const dense = await denseAttention(context);
  const lse = hotset.alloc("f32", [1, queryHeads], backend);
  const steps = cache.keys.map((keyPages, layer) =>
    reuse.bind(
      layer,
      {
        queries: queries.view([1, queryHeads, headDim]),
        keyPages,
        valuePages: cache.values[layer] as Tensor<"f32">,
        pageTable: cache.pageTable,
        lengths: cache.lengths,
      },
      { out: out.view([1, queryHeads, headDim]), lse },
    ),
  );
  return {
    get counters() {
      return reuse.counters;
    },
    begin() {
      reuse.reset();
    },
    attend(layer, tokens, ofPrompt) {
      if (ofPrompt || tokens > 1) dense.attend(layer, tokens, ofPrompt);
      else steps[layer]?.run();
    },
    dispose() {
      for (const step of steps) step.dispose();
      dense.dispose();
      lse.dispose();
    },
  };
}
