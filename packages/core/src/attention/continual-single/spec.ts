import { defineOp, output } from "../../op/define.js";
import { reference } from "./reference.js";
import { ringAxes, ringPorts, scalePort, stepsPort } from "./ring.js";

/**
 * One step of sliding-window attention over a stream, of which only the newest query's answer is asked for (Continual
 * Single-output): its key and value take the place of those that leave the window, and it attends to the window.
 *
 * The caller owns the state and passes it on from step to step: `keyRing` and `valueRing`, in which the token that arrives
 * as number n lies at slot n % window, and `steps`, which is 0 for a new stream. Nothing else need be set: slots in which
 * nothing has arrived are not read, and before the window is full only what arrived counts. `steps` counts to
 * 2 * window - 1 and then again from `window`, so that it never overflows.
 *
 * out = sum_t p_t v_t, p = softmax(scale * q k_t); lse = ln(sum_t exp(scale * q k_t)): with `attention/merge` a prefix
 * that stays can be joined. Keys and queries may be rotated by their absolute position. A logit that is not finite makes
 * that head NaN, a value that is not finite its component, until it has left the window.
 *
 * `steps` below 0 or from 2 * window on is a fault: that stream's state stays as it is, with out 0 and lse -Inf; the
 * others step, and the call throws.
 */
export const continualSingle = defineOp({
  id: "attention/continual-single",
  doc: "One step of sliding-window attention over streams: the newest query over the window.",
  source: "Continual Single-output attention of Hedegaard and Iosifidis, Continual Transformers, ICLR 2023 (arXiv 2201.06268)",
  axes: ringAxes,
  ports: {
    ...ringPorts,
    steps: stepsPort,
    scale: scalePort,
    out: output("f32", ["streams", "heads", "headDim"], "the newest token's answer"),
    lse: output("f32", ["streams", "heads"], "log-sum-exp of its logits, natural logarithm"),
  },
  constraints: [],
  exact: false,
  cost: ({ streams, heads, window, headDim }) => ({
    flops: 4 * streams * heads * window * headDim,
    bytes: 4 * streams * heads * (2 * window * headDim + 6 * headDim + 1),
  }),
  // A logit: headDim products, the scale. A weight: the exponential. Then a sum over the window.
  rounding({ window, headDim }) {
    const steps = headDim + window + 32;
    return { out: steps, lse: steps };
  },
  reference,
});
