import { defineOp, dim, inout, output, scalar } from "../../op/define.js";
import { ringAxes, ringPorts, scalePort, stepsPort } from "../continual-single/ring.js";
import { reference, rowExtra, unit } from "./reference.js";

/**
 * One step of sliding-window attention over a stream, with the answers of all queries of the window brought up to date
 * (Continual Retroactive): each attends to the whole window, to what came after it too.
 *
 * The state is that of `attention/continual-single`, with the queries, and for each of them a row: its weighted values,
 * the power of two m these are relative to, its sum of weights d, and an estimate of its relative error. A row is not computed
 * anew: what the leaving key weighed is taken off and what the new one weighs is added,
 *   d' = d 2^(m - m') - L + R,  AV' = AV 2^(m - m') - L v_old + R v_new,  out = AV' / d',  m' = max(m, that of R),
 * so a step costs O(window * headDim) and not O(window^2 * headDim). Since m is a whole number, a pair of query and key has
 * the same weight when it comes and when it goes. The published form has no m and overflows, and where the leaving key held most of
 * the mass nothing is left of the difference: so, with u = 2^-24, the estimate
 *   error' = (error d + 2 u max(d, L) + u R) / d'
 * is kept, and a row in which it is not below `tolerance` (or d' not above 0) is computed exactly, from its query and the
 * window, and starts again with error 0. The estimate is no strict bound: it takes the weights for exact, and these carry
 * the rounding of their logits, so that answers far from 0 may be off by many times as much.
 *
 * Without cancellation a row's estimate grows by 2 u a step, so it is refreshed every tolerance / 2 u steps: 84 at 1e-5.
 * The default lets a row of a larger window live as long as its query, 2.5 u window, so that the rows refreshed in a step
 * do not grow with the window.
 *
 * `out` has the oldest query first, and 0 in the places that the window has not yet filled. A logit that is not finite makes
 * that row NaN, a value that is not finite its component, until it has left the window; such a row is refused at every step, and
 * `error` is +Inf. Without them `error` is below `tolerance`. `recomputed` does not count the newest row, which is always
 * computed exactly.
 *
 * `steps` out of range is a fault: that stream's state stays as it is and its outputs are 0; the others step, and the call
 * throws.
 */
export const continualRetroactive = defineOp({
  id: "attention/continual-retroactive",
  doc: "One step of sliding-window attention over streams: the answers of all queries of the window, updated.",
  source: "Continual Retroactive attention of Hedegaard and Iosifidis, Continual Transformers, ICLR 2023 (arXiv 2201.06268), with a guard",
  axes: ringAxes,
  ports: {
    ...ringPorts,
    queryRing: inout("f32", ["streams", "heads", "window", "headDim"], "the queries of the window"),
    rows: inout(
      "f32",
      ["streams", "heads", "window", dim("headDim", { plus: rowExtra })],
      "of each query: weighted values, their power of two, sum of weights, error",
    ),
    steps: stepsPort,
    scale: scalePort,
    tolerance: scalar("f32", "the estimated relative error from which on a row is computed exactly", {
      min: 0,
      default: ({ window }) => Math.max(1e-5, 2.5 * unit * (window as number)),
    }),
    out: output("f32", ["streams", "heads", "window", "headDim"], "the answers, oldest first"),
    error: output("f32", ["streams", "heads"], "the largest estimate of a row"),
    recomputed: output("i32", ["streams", "heads"], "rows that the guard had computed exactly"),
  },
  constraints: [],
  exact: false,
  // Updates, the newest row, and one row that is computed exactly.
  cost: ({ streams, heads, window, headDim }) => ({
    flops: 16 * streams * heads * window * headDim,
    bytes: 4 * streams * heads * (8 * window * headDim + 9 * headDim + 6 * window),
  }),
  // As attention/continual-single; what an update adds is in its sum of |terms|.
  rounding({ window, headDim }) {
    const steps = headDim + window + 32;
    return { out: steps, error: steps, rows: steps };
  },
  reference,
});
