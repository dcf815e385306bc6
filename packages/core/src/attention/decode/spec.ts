import { defineOp } from "../../op/define.js";
import {
  addressable,
  biasAxes,
  biasPorts,
  cacheAxes,
  cachePorts,
  decodeCost,
  decodeSteps,
  groupedHeads,
  logitPorts,
  maskedHeads,
  statePorts,
} from "./ports.js";
import { reference } from "./reference.js";

/**
 * One decode step of grouped-query attention over a paged KV cache: the newest token of each sequence attends to
 * the tokens before it.
 *
 * Token t of sequence b lies in page `pageTable[b][floor(t / pageSize)]` at `t % pageSize`; a contiguous cache
 * [batch, kvHeads, tokens, headDim] is one page per sequence. Query head h uses KV head floor(h * kvHeads / queryHeads).
 *
 * logit_t = softCap(scale * q k_t) - slopes[h] * (length - 1 - t) + mask_t, softCap(x) = cap * tanh(x / cap) where `softCap` is
 * above 0; with `window` above 0 only the last `window` tokens are seen. out = sum_t p_t v_t with p = softmax(logits);
 * `sinks[h]` is one more logit, without a value. lse = ln(sum_t exp(logit_t) + exp(sink)): with `attention/merge`, states over
 * parts of a context join exactly (give the sink to one part only). A sequence of length 0, or whose logits are all -Inf,
 * has out 0 and lse -Inf (the sink, where there is one). A NaN, or a logit of +Inf, makes that head's outputs NaN.
 *
 * `slopes` (ALiBi) count the tokens between query and key: a slope of 0 changes nothing. `mask[b][h][t]`, or `mask[b][0][t]`
 * for all heads, hides token t of the sequence (a bit that is not set, or -Inf) or is added to its logit. What is hidden may
 * still be read and multiplied by 0: its key and value must be finite.
 *
 * A length above maxPages * pageSize, or a page that does not exist, is a fault: that sequence, or that page's tokens,
 * are left out, the rest is computed, and the call throws.
 */
export const decode = defineOp({
  id: "attention/decode",
  doc: "One decode step of grouped-query attention over a paged KV cache.",
  source:
    "Vaswani et al., arXiv 1706.03762, (1); grouped queries: Ainslie et al., arXiv 2305.13245; pages: Kwon et al., arXiv 2309.06180; slopes: Press et al., arXiv 2108.12409",
  axes: { ...cacheAxes, ...biasAxes },
  ports: { ...cachePorts, ...biasPorts, ...logitPorts, ...statePorts },
  constraints: [groupedHeads, addressable, maskedHeads],
  exact: false,
  cost: (axes, variant) => decodeCost(axes, variant, axes.maxPages * axes.pageSize),
  rounding({ headDim, pageSize, maxPages }) {
    const steps = decodeSteps(headDim, maxPages * pageSize);
    return { out: steps, lse: steps };
  },
  reference,
});
