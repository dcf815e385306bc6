import type { ReferenceCall } from "../../op/define.js";
import { attend, component, insert, type RingAxes, type RingTensors, turnOf } from "./ring.js";

export interface SingleTensors extends RingTensors {
  out: Float32Array;
  lse: Float32Array;
}

/** out = sum_t softmax(scale q k)_t v_t and lse = ln sum_t exp(scale q k_t), over the newest `window` tokens. */
export function reference({ axes, scalars, tensors, magnitude, fail }: ReferenceCall): void {
  const { streams, heads, headDim, window } = axes as RingAxes;
  const { query, steps, out, lse } = tensors as SingleTensors;
  for (let stream = 0; stream < streams; stream++) {
    const turn = turnOf(steps[stream] as number, window);
    if (!turn) {
      fail("steps", stream, steps[stream] as number);
      out.fill(0, stream * heads * headDim, (stream + 1) * heads * headDim);
      lse.fill(Number.NEGATIVE_INFINITY, stream * heads, (stream + 1) * heads);
      continue;
    }
    for (let head = stream * heads; head < (stream + 1) * heads; head++) {
      insert(tensors, axes as RingAxes, head, turn);
      const own = query.subarray(head * headDim, (head + 1) * headDim);
      const row = attend(own, tensors, axes as RingAxes, head, turn.held, scalars.scale as number);
      for (let d = 0; d < headDim; d++) {
        out[head * headDim + d] = component(row, d);
        if (magnitude?.out)
          magnitude.out[head * headDim + d] = ((row.spread[d] as number) + ((row.terms[d] as number) * row.size) / row.sum) / row.sum;
      }
      lse[head] = row.finite ? row.base + Math.log(row.sum) : Number.NaN;
      if (magnitude?.lse) magnitude.lse[head] = row.size / row.sum + Math.abs(row.base);
    }
    steps[stream] = turn.next;
  }
}
