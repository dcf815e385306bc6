import { axis, choice, defineOp, flag, input, optional, output, scalar } from "../../op/define.js";
import { reference } from "./reference.js";

/**
 * Chooses the experts of each token from the router's logits z, and their weights.
 *
 * s = softmax(z) or sigmoid(z). The topK experts of highest score are chosen, in falling order, of equals the lower number
 * first: by z itself, or with `bias` by s + bias. With `groups` above 1 the experts are dealt to equal groups of
 * neighbours, and only those of the `keptGroups` best groups can be chosen: a group is as good as its best score, with `bias` as the sum
 * of its two best. weight = s (never with the bias), over the sum of the chosen s + 1e-20 with `renormalise`; times `scale`.
 *
 * So are Mixtral, Qwen3-MoE and gpt-oss (softmax of the chosen = softmax, renormalised): softmax, renormalise; OLMoE:
 * softmax; DeepSeek-V2: softmax, groups; DeepSeek-V3: sigmoid, renormalise, bias, groups; Llama 4: sigmoid.
 *
 * A NaN among the logits counts as -Inf and makes the weights of its token NaN, so that it shows; so does a NaN in
 * the bias for the scores it is part of. A token whose logits are all equal, -Inf included, has a uniform softmax. All in f64,
 * with one rounding to f32.
 */
export const route = defineOp({
  id: "moe/route",
  doc: "Chooses each token's experts from the router's logits, with their weights.",
  source: "Shazeer et al., arXiv 1701.06538, (3)-(5); groups and bias: DeepSeek-V3, arXiv 2412.19437, 2.1.2",
  axes: {
    tokens: axis("tokens", { live: true }),
    experts: axis("experts", { min: 1, max: 4096 }),
    topK: axis("experts of a token", { min: 1, max: 64 }),
    groups: axis("groups of neighbouring experts; 1 for none", { min: 1, max: 256 }),
    keptGroups: axis("groups that a token's experts may come from", { min: 1, max: 256 }),
  },
  ports: {
    score: choice(["softmax", "sigmoid"], "what logits become"),
    renormalise: flag("weights are divided by their sum"),
    logits: input("f32", ["tokens", "experts"], "the router's output"),
    bias: optional(input("f32", ["experts"], "added to the scores that are compared, not to the weights")),
    scale: scalar("f32", "what weights are multiplied by", { default: 1 }),
    ids: output("i32", ["tokens", "topK"], "the chosen experts, best first", { indexInto: "experts" }),
    weights: output("f32", ["tokens", "topK"], "their weights"),
  },
  constraints: [
    { says: "experts a multiple of groups", about: ["experts", "groups"], holds: ({ experts, groups }) => experts % groups === 0 },
    { says: "keptGroups at most groups", about: ["keptGroups", "groups"], holds: ({ keptGroups, groups }) => keptGroups <= groups },
    {
      says: "topK at most the experts of keptGroups groups",
      about: ["topK", "experts", "groups", "keptGroups"],
      holds: ({ topK, experts, groups, keptGroups }) => topK <= (experts / groups) * keptGroups,
    },
  ],
  exact: true,
  cost: ({ tokens, experts, topK }) => ({ flops: 40 * tokens * experts, bytes: tokens * (4 * experts + 8 * topK) }),
  // For devices, in f32: the difference to the largest, an exponential, their sum, a division, a product.
  rounding: ({ experts }) => ({ weights: experts + 16 }),
  reference,
});
