import { defineOp, dim, output } from "../../op/define.js";
import {
  addressable,
  biasAxes,
  biasPorts,
  cacheAxes,
  cachePorts,
  decodeCost,
  decodeSteps,
  granularity,
  groupedHeads,
  logitPorts,
  maskedHeads,
  statePorts,
} from "../decode/ports.js";
import { reference } from "./reference.js";

/**
 * `attention/decode` that also gives the attention mass of each granule of the context: what later layers, or later steps,
 * choose their tokens by. No logits are stored: each granule keeps a largest logit and a sum, in passing.
 *
 * masses[b][kvHead][g] is the mean, over the query heads of the KV head, of the softmax probabilities that the tokens
 * g * granularity to (g + 1) * granularity sum to, slopes and masks included: over a sequence they sum to 1, less what learned sinks take. Granules
 * outside the window or behind the sequence's length have 0; where a head's outputs are NaN, so are the masses of all
 * granules that it sees; a head whose logits are all -Inf adds 0.
 *
 * `out` and `lse` have the bits of `attention/decode` (native, wasm and js), and bad input is treated as there.
 */
export const decodeAnchor = defineOp({
  id: "attention/decode-anchor",
  doc: "One decode step of grouped-query attention over a paged KV cache, with the exact attention mass of each granule of the context.",
  source:
    "online softmax per page: (max, sum) kept, scaled by exp(max - lse); masses per KV head as in Kascade; softmax: Vaswani et al., arXiv 1706.03762, (1)",
  axes: { ...cacheAxes, ...biasAxes, granularity },
  ports: {
    ...cachePorts,
    ...biasPorts,
    ...logitPorts,
    ...statePorts,
    masses: output(
      "f32",
      ["batch", "kvHeads", dim("maxPages", { times: "pageSize", per: "granularity" })],
      "the attention mass of each granule, per KV head",
    ),
  },
  constraints: [groupedHeads, addressable, maskedHeads],
  exact: false,
  cost(axes, variant) {
    const tokens = axes.maxPages * axes.pageSize;
    const cost = decodeCost(axes, variant, tokens);
    const granules = axes.batch * axes.queryHeads * Math.ceil(tokens / axes.granularity);
    return { flops: cost.flops + axes.batch * axes.queryHeads * tokens + 8 * granules, bytes: cost.bytes + 16 * granules };
  },
  // A mass: the weights' own roundings, their sum over the granule, the scaling to the log-sum-exp, the mean of the heads.
  rounding({ queryHeads, kvHeads, headDim, pageSize, maxPages }) {
    const steps = decodeSteps(headDim, maxPages * pageSize);
    return { out: steps, lse: steps, masses: steps + queryHeads / kvHeads + 8 };
  },
  reference,
});
