/** How good the choice between backends is: the time of the chosen one over the time of the best. */
import type { AxesOf, Hotset, Op } from "@hotset/core";
import { variantKey } from "@hotset/core/backend";
import type { Work } from "../cli/bench.js";
import type { Row } from "./measure.js";

export interface Regret {
  readonly rows: readonly {
    readonly case: string;
    readonly variant: string;
    readonly chosen: string;
    readonly best: string;
    readonly regret: number;
  }[];
  readonly median: number;
  readonly worst: number;
}

/** Over the cases that calibration does not use, where at least two backends were timed. */
export function regretOf(hotset: Hotset, work: readonly Work[], timed: readonly Row[]): Regret {
  const rows = work
    .filter(({ test }) => !test.calibrate)
    .flatMap(({ op, test, variant }) => {
      const key = variantKey(op, variant);
      const candidates = timed
        .filter((row) => row.op === op.id && row.case === test.name && row.variant === key)
        .sort((a, b) => a.medianUs - b.medianUs);
      // Inputs were in each backend's own memory when they were timed.
      const resident = Object.keys(op.ports);
      const chosen = hotset
        .explain(op as Op, test.axes as AxesOf<Op>, variant, { resident })
        .find(({ backend }) => candidates.some((row) => row.backend === backend));
      const [best] = candidates;
      const taken = candidates.find((row) => row.backend === chosen?.backend);
      if (!best || !taken || candidates.length < 2) return [];
      return [
        { case: `${op.id}: ${test.name}`, variant: key, chosen: taken.backend, best: best.backend, regret: taken.medianUs / best.medianUs },
      ];
    });
  const sorted = rows.map(({ regret }) => regret).sort((a, b) => a - b);
  return { rows, median: sorted[sorted.length >> 1] ?? Number.NaN, worst: sorted.at(-1) ?? Number.NaN };
}
