import { axis, defineOp, dim, input } from "../../op/define.js";
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
 * A decode step over the listed tokens of each sequence only: `attention/decode`, with everything that it says, over a
 * part of the context.
 *
 * An entry of a list is a granule: tokens granule * granularity to (granule + 1) * granularity, as far as the sequence and
 * its window go; granules and the pages of the cache have nothing to do with each other. Each sequence has one list, one
 * for each KV head (of all its query heads), or one for each query head. Tokens are met in the order of the list, and one
 * that is listed twice counts twice; -1 is no entry, wherever it stands. An empty list gives out 0 and lse -Inf (the sink,
 * where there is one).
 *
 * Distances and masks go by a token's place in its sequence, wherever a list has it.
 *
 * The step depends on the listed tokens in their order and on nothing else: with all granules listed in ascending order
 * it has the bits of `attention/decode` (native, wasm and js).
 *
 * A granule that begins at or behind the sequence's length is a fault, as are a length and a page that do not exist: that
 * entry, that sequence or that page's tokens are left out, the rest is computed, and the call throws.
 */
export const decodeSparse = defineOp({
  id: "attention/decode-sparse",
  doc: "One decode step of grouped-query attention over the listed tokens of a paged KV cache.",
  source:
    "lists of a scope and a granularity as in cuDNN frontend's sparse_attention (pull request 793); per KV head: Kascade; grouped queries: Ainslie et al., arXiv 2305.13245",
  axes: {
    ...cacheAxes,
    ...biasAxes,
    granularity,
    lists: axis("lists of a sequence: 1, kvHeads or queryHeads", { min: 1, max: 65536 }),
    k: axis("entries of a list, at most", { min: 1 }),
  },
  ports: {
    ...cachePorts,
    selected: input("i32", ["batch", "lists", "k"], "the granules that each list holds, -1 for none", {
      indexInto: dim("maxPages", { times: "pageSize", per: "granularity" }),
      none: -1,
    }),
    ...biasPorts,
    ...logitPorts,
    ...statePorts,
  },
  constraints: [
    groupedHeads,
    addressable,
    maskedHeads,
    {
      says: "lists 1, kvHeads or queryHeads",
      about: ["lists", "kvHeads", "queryHeads"],
      holds: ({ lists, kvHeads, queryHeads }) => lists === 1 || lists === kvHeads || lists === queryHeads,
    },
    {
      says: "k at most the granules of maxPages * pageSize tokens",
      about: ["k", "granularity", "maxPages", "pageSize"],
      holds: ({ k, granularity: tokens, maxPages, pageSize }) => k <= Math.ceil((maxPages * pageSize) / tokens),
    },
  ],
  exact: false,
  cost(axes, variant) {
    const { queryHeads, kvHeads, lists, k } = axes;
    const tokens = Math.min(k * axes.granularity, axes.maxPages * axes.pageSize);
    const cost = decodeCost(axes, variant, tokens, lists === queryHeads ? queryHeads / kvHeads : 1);
    return { flops: cost.flops, bytes: cost.bytes + 4 * axes.batch * lists * k };
  },
  rounding({ headDim, granularity: tokens, k }) {
    const steps = decodeSteps(headDim, k * tokens);
    return { out: steps, lse: steps };
  },
  reference,
});
