import type { DType } from "../../dtype.js";
import { bitAt, widenRow } from "../../op/elements.js";
import type { OpCases } from "../../testing/case.js";
import { dot, type Metric, type ScanTensors, scoreMagnitude, scoreOf } from "./reference.js";

/**
 * Judges a result whose scores may carry f32 rounding: each score within the tolerance of its row's, each row
 * once, in order, and no row left out that scores better than the last result by more than twice the tolerance.
 */
export const accept: NonNullable<OpCases["accept"]> = ({ axes, variant, inputs, pitch, got, tolerance }) => {
  const { batch, count, dim, k } = axes as Record<"batch" | "count" | "dim" | "k", number>;
  const { queries, rows, rowScale, filter } = inputs as unknown as ScanTensors;
  const { ids, scores, found } = got as unknown as ScanTensors;
  const metric = variant.metric as Metric;
  const sign = metric === "l2" ? -1 : 1;
  const row = new Float64Array(dim);
  for (let q = 0; q < batch; q++) {
    const query = Float64Array.from(queries.subarray(q * dim, (q + 1) * dim));
    const queryNorm = dot(query, query);
    const expected: { row: number; score: number; within: number }[] = [];
    for (let r = 0; r < count; r++) {
      if (filter && !bitAt(filter, r)) continue;
      widenRow(variant.rows as DType, rows, r * (pitch.rows as number), row);
      if (rowScale) for (let i = 0; i < dim; i++) row[i] = (row[i] as number) * (rowScale[r] as number);
      const score = scoreOf(metric, query, row, queryNorm * dot(row, row));
      if (!Number.isNaN(score)) expected.push({ row: r, score, within: tolerance("scores", score, scoreMagnitude(metric, query, row)) });
    }
    const wanted = Math.min(k, expected.length);
    if (found[q] !== wanted) return `query ${q}: found ${found[q]}, expected ${wanted}`;
    const byRow = new Map(expected.map((entry) => [entry.row, entry]));
    let worst = { score: sign * Number.POSITIVE_INFINITY, within: 0 };
    for (let i = 0; i < k; i++) {
      const id = ids[q * k + i] as number;
      const score = scores[q * k + i] as number;
      if (i >= wanted) {
        if (id !== -1) return `query ${q}: entry ${i} is row ${id}, expected -1`;
        continue;
      }
      const entry = byRow.get(id);
      if (!entry) return `query ${q}: row ${id} at ${i} may not be a result, or is one twice`;
      byRow.delete(id);
      if (entry.score !== score && !(Math.abs(entry.score - score) <= entry.within))
        return `query ${q}: row ${id} scores ${score}, expected ${entry.score} within ${entry.within}`;
      if (i > 0 && sign * score > sign * (scores[q * k + i - 1] as number)) return `query ${q}: entries ${i - 1} and ${i} are out of order`;
      if (sign * entry.score <= sign * worst.score) worst = entry;
    }
    for (const { row: missed, score, within } of byRow.values()) {
      if (wanted > 0 && sign * (score - worst.score) > within + worst.within)
        return `query ${q}: row ${missed} scores ${score} and was left out for ${worst.score}`;
    }
  }
  return undefined;
};
