import type { ReferenceCall } from "../../op/define.js";
import { attend, type DecodeAxes, type DecodeTensors, type Seen, visibleTokens } from "../decode/reference.js";

export interface AnchorTensors extends DecodeTensors {
  masses: Float32Array;
}
export type AnchorAxes = DecodeAxes & Record<"granularity", number>;

/** attention/decode;  masses_g = mean over the group of sum_{t in g} exp(logit_t - lse). */
export function reference(call: ReferenceCall): void {
  const { batch, queryHeads, kvHeads, pageSize, maxPages, granularity } = call.axes as AnchorAxes;
  const { lengths, masses } = call.tensors as AnchorTensors;
  const granules = Math.ceil((maxPages * pageSize) / granularity);
  const group = queryHeads / kvHeads;
  const seen = visibleTokens(call);
  for (let b = 0; b < batch; b++) {
    const { tokens } = seen[b] as Seen;
    const length = lengths[b] as number;
    const inRange = length >= 0 && length <= maxPages * pageSize;
    const first = call.scalars.window ? Math.max(0, length - call.scalars.window) : 0;
    for (let kvHead = 0; kvHead < kvHeads; kvHead++) {
      const sum = new Float64Array(granules);
      const size = new Float64Array(granules);
      for (let h = kvHead * group; h < (kvHead + 1) * group; h++) {
        const head = attend(call, b, h, kvHead, seen[b] as Seen);
        if (head.sum === 0) continue;
        const share = head.size / head.sum;
        // A NaN among the weights is one in every probability, also of granules whose pages do not exist.
        if (Number.isNaN(head.sum) && inRange)
          for (let g = Math.floor(first / granularity); g * granularity < length; g++) sum[g] = Number.NaN;
        for (const [i, logit] of head.logits.entries()) {
          if (logit === Number.NEGATIVE_INFINITY) continue;
          const g = Math.floor((tokens[i] as number) / granularity);
          const weight = Math.exp(logit - head.largest) / head.sum;
          sum[g] = (sum[g] as number) + weight;
          size[g] = (size[g] as number) + weight * (1 + (head.sizes[i] as number) + share);
        }
      }
      for (let g = 0; g < granules; g++) {
        const at = (b * kvHeads + kvHead) * granules + g;
        masses[at] = (sum[g] as number) / group;
        if (call.magnitude?.masses) call.magnitude.masses[at] = (size[g] as number) / group;
      }
    }
  }
}
