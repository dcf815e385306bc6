import { LayerReuse } from "../attention/layer-reuse.js";
import type { LayerPolicy } from "../attention/layer-reuse-policy.js";
import type { ReuseCounters } from "../attention/layer-reuse-step.js";
import { isDevice } from "../backend.js";
import { ShapeError } from "../errors.js";
import type { Tensor } from "../tensor.js";
import { type AttentionContext, attentionAxes, denseAttention, type LayerAttention } from "./layer-attention.js";

export interface ReuseAttention extends LayerAttention {
  /** Of the generated tokens of all texts. */
  readonly counters: ReuseCounters;
}

/**
 * Attention by a policy of full, anchor and reuse layers: the prompt is dense, and each generated token goes through
 * `attention.LayerReuse`. With a policy that lists every token the text is that of `denseAttention`. On a device the lists
 * stay there, and `counters.massKept` is NaN.
 *
 *   const policy = attention.parsePolicy(text, { layers: loaded.config.layers, kvHeads: loaded.config.kvHeads });
 *   const model = await openModel(loaded, { attention: (context) => reuseAttention(context, policy) });
 *
 * Throws ShapeError where the policy has other layers than the model, or head maps for other heads.
 */
export async function reuseAttention(context: AttentionContext, policy: LayerPolicy): Promise<ReuseAttention> {
  const { hotset, backend, config, cache, queries, out } = context;
  const { heads: queryHeads, headDim } = config;
  if (policy.layers.length !== config.layers)
    throw new ShapeError({
      where: "reuseAttention: policy",
      expected: `${config.layers} layers, as the model has`,
      received: `${policy.layers.length}`,
    });
  const device = hotset.backends.some((one) => one.id === backend && isDevice(one));
  const axes = attentionAxes(config, cache.pages, cache.pageSize);
  const held: { dispose(): void }[] = [];
  const keep = <T extends { dispose(): void }>(value: T): T => {
    held.push(value);
    return value;
  };
  const dispose = () => {
    for (const one of held.splice(0).reverse()) one.dispose();
  };
  try {
    const reuse = keep(await LayerReuse.create(hotset, { policy, axes, keyPages: "f32", backend, resident: device }));
    const dense = keep(await denseAttention(context));
    const lse = keep(hotset.alloc("f32", [1, queryHeads], backend));
    const first = (tensor: Tensor<"f32">) => tensor.view([1, queryHeads, headDim]);
    const { pageTable, lengths } = cache;
    const steps = cache.keys.map((keyPages, layer) => {
      const pages = { keyPages, valuePages: cache.values[layer] as Tensor<"f32">, pageTable, lengths };
      return keep(reuse.bind(layer, { ...pages, queries: first(queries) }, { out: first(out), lse }, {}, cache.hostLengths));
    });
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
      dispose,
    };
  } catch (error) {
    dispose();
    throw error;
  }
}
