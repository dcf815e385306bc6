import type { AnyVariant } from "../../op/define.js";
import type { Case, InputRequest, OpCases, Tensors } from "../../testing/case.js";
import { changedCall, withTensors } from "../../testing/changed-call.js";
import { accept } from "./accept.js";
import type { RouteAxes, RouteTensors } from "./reference.js";

const sizes = (tokens: number, experts: number, topK: number, groups = 1, keptGroups = groups): RouteAxes => ({
  tokens,
  experts,
  topK,
  groups,
  keptGroups,
});

const drawn =
  (spread: number, biasSpread = 0.2) =>
  ({ axes, variant, random }: InputRequest): Tensors => {
    const { tokens, experts } = axes as RouteAxes;
    const logits = random.values(tokens * experts, () => spread * random.normal());
    return { logits, ...(variant.bias ? { bias: random.values(experts, () => biasSpread * random.normal()) } : {}) };
  };

const changed =
  (inputs: Case["inputs"], change: (tensors: RouteTensors, axes: RouteAxes) => void): Case["inputs"] =>
  (request) => {
    const tensors = inputs(request);
    change(tensors as unknown as RouteTensors, request.axes as RouteAxes);
    return tensors;
  };

/** Few different values, so that most comparisons are ties. */
const ties = changed(drawn(1), ({ logits, bias }) => {
  logits.forEach((z, i) => {
    logits[i] = Math.round(z);
  });
  bias?.fill(0.25);
});

/** Token by token: a NaN, an infinity, two, -Inf among numbers, nothing but -Inf, huge numbers. */
const special = changed(drawn(1), ({ logits }, { experts }) => {
  logits[1] = Number.NaN;
  logits[experts + 2] = Number.POSITIVE_INFINITY;
  logits[2 * experts] = Number.POSITIVE_INFINITY;
  logits[2 * experts + 3] = Number.POSITIVE_INFINITY;
  logits.fill(Number.NEGATIVE_INFINITY, 3 * experts + 1, 4 * experts);
  logits.fill(Number.NEGATIVE_INFINITY, 4 * experts, 5 * experts);
  logits[5 * experts] = 3e38;
  logits[5 * experts + 1] = -3e38;
});

const plain = ({ bias }: AnyVariant): boolean => bias === false;

export const cases: OpCases = {
  cases: [
    { name: "32 experts, 4 of them", axes: sizes(9, 32, 4), inputs: drawn(2) },
    { name: "64 experts, 6 of them, another scale", axes: sizes(5, 64, 6), scalars: { scale: 16 }, inputs: drawn(1) },
    { name: "experts that fill no vector", axes: sizes(7, 61, 5), inputs: drawn(2) },
    { name: "one expert", axes: sizes(4, 1, 1), inputs: drawn(3), seeds: 1 },
    { name: "every expert", axes: sizes(3, 8, 8), inputs: drawn(2) },
    { name: "8 groups, 4 kept", axes: sizes(6, 64, 8, 8, 4), scalars: { scale: 2.5 }, inputs: drawn(2) },
    { name: "groups of one", axes: sizes(6, 12, 3, 12, 5), inputs: drawn(2), seeds: 1 },
    { name: "3 groups, 1 kept", axes: sizes(6, 21, 7, 3, 1), inputs: drawn(1) },
    { name: "ties", axes: sizes(12, 24, 6, 4, 3), inputs: ties },
    { name: "far apart", axes: sizes(8, 16, 4), inputs: drawn(300), seeds: 1 },
    { name: "a negative bias beyond all scores", axes: sizes(5, 20, 4), variants: (v) => !plain(v), inputs: drawn(1, 30), seeds: 1 },
    { name: "no tokens", axes: sizes(0, 8, 2), inputs: drawn(1), seeds: 1 },
    { name: "fewer tokens at run time", axes: sizes(9, 16, 2), live: { tokens: 4 }, inputs: drawn(2), seeds: 1 },
    { name: "special values", axes: sizes(6, 10, 4), inputs: special, seeds: 1 },
  ],
  mutants: [
    changedCall("scale off by 1 %", "there are no weights", (call) => ({
      ...call,
      scalars: { ...call.scalars, scale: (call.scalars.scale as number) * 1.01 },
    })),
    changedCall("groups ignored", "the best experts lie in groups that are kept", (call) => ({
      ...call,
      axes: { ...call.axes, groups: 1, keptGroups: 1 },
    })),
    changedCall("tokens swapped", "there are no two that differ", (call) => {
      const { tokens, experts } = call.axes as RouteAxes;
      if (tokens < 2) return call;
      const logits = (call.tensors as RouteTensors).logits.slice();
      const first = logits.slice(0, experts);
      logits.copyWithin(0, experts, 2 * experts);
      logits.set(first, experts);
      return withTensors(call, { logits });
    }),
    changedCall(
      "bias ignored",
      "the bias changes no choice",
      (call) => withTensors(call, { bias: undefined }),
      (variant) => !plain(variant),
    ),
    changedCall("not renormalised as asked", "the chosen scores add up to 1", (call) => ({
      ...call,
      variant: { ...call.variant, renormalise: !call.variant.renormalise },
    })),
    changedCall("last expert never chosen", "the last expert is not among the best", (call) => {
      const { tokens, experts } = call.axes as RouteAxes;
      if (experts === 1) return call;
      const logits = (call.tensors as RouteTensors).logits.slice();
      for (let t = 0; t < tokens; t++) logits[(t + 1) * experts - 1] = Number.NEGATIVE_INFINITY;
      return withTensors(call, { logits });
    }),
    {
      name: "ties broken the other way",
      run(call, op) {
        // Experts in reverse order, and numbered back.
        const { tokens, experts, topK } = call.axes as RouteAxes;
        const { logits, bias, ids } = call.tensors as RouteTensors;
        const turned = logits.map((_, i) => logits[Math.floor(i / experts) * experts + experts - 1 - (i % experts)] as number);
        op.reference(withTensors(call, { logits: turned, bias: bias?.slice().reverse() }));
        for (let i = 0; i < tokens * topK; i++) ids[i] = experts - 1 - (ids[i] as number);
      },
      blind: ({ op, ...evidence }) => {
        const { tokens, experts, topK } = evidence.axes as RouteAxes;
        const { logits } = evidence.inputs as unknown as RouteTensors;
        for (let t = 0; t < tokens; t++) {
          const row = logits.subarray(t * experts, (t + 1) * experts);
          const chosen = [...(evidence.expected.ids as Int32Array).subarray(t * topK, (t + 1) * topK)].map((e) => row[e]);
          const last = row.filter((z) => chosen.includes(z)).length;
          if (last > topK || new Set(chosen).size < chosen.length)
            return evidence.variant.bias ? "ties need not be among the compared" : undefined;
        }
        return "there are no ties";
      },
      exactOnly: true,
    },
  ],
  laws: [
    {
      name: "softmax over the chosen logits is the renormalised softmax",
      axes: sizes(20, 32, 4),
      async check(run, request) {
        if (request.variant.score !== "softmax" || !request.variant.renormalise || request.variant.bias) return undefined;
        const { tokens, experts, topK } = request.axes as RouteAxes;
        const given = drawn(2)(request) as unknown as RouteTensors;
        const { ids, weights } = (await run(request.axes, request.variant, given as unknown as Tensors)) as unknown as RouteTensors;
        for (let t = 0; t < tokens; t++) {
          const chosen = Array.from({ length: topK }, (_, k) => given.logits[t * experts + (ids[t * topK + k] as number)] as number);
          const total = chosen.reduce((sum, z) => sum + Math.exp(z), 0);
          for (let k = 0; k < topK; k++) {
            const wanted = Math.exp(chosen[k] as number) / total;
            if (!(Math.abs((weights[t * topK + k] as number) - wanted) <= 1e-5 * wanted))
              return `weight ${k} of token ${t} is ${weights[t * topK + k]}, expected ${wanted}`;
          }
        }
        return undefined;
      },
    },
  ],
  bench: [
    {
      name: "2048 tokens, 8 of 128 experts",
      calibrate: true,
      axes: sizes(2048, 128, 8),
      variants: [{ score: "softmax", renormalise: true, bias: false }],
      inputs: drawn(2),
    },
    {
      name: "256 tokens, 8 of 256 experts in 8 groups",
      axes: sizes(256, 256, 8, 8, 4),
      variants: [{ score: "sigmoid", renormalise: true, bias: true }],
      inputs: drawn(2),
    },
  ],
  accept,
};
