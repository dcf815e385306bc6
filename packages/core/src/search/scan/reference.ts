import type { DType, HostArray } from "../../dtype.js";
import type { ReferenceCall } from "../../op/define.js";
import { bitAt, widenRow } from "../../op/elements.js";

export type Metric = "cos" | "ip" | "l2";

export interface ScanTensors {
  queries: Float32Array;
  rows: HostArray;
  rowScale?: Float32Array;
  filter?: Uint32Array;
  ids: Int32Array;
  scores: Float32Array;
  found: Uint32Array;
}

/** ip = sum q x;  cos = ip / sqrt(sum q q * sum x x);  l2 = sum (q - x)^2. */
export function reference({ axes, variant, tensors, pitch, magnitude }: ReferenceCall): void {
  const { batch, count, dim, k } = axes as Record<"batch" | "count" | "dim" | "k", number>;
  const { queries, rows, rowScale, filter, ids, scores, found } = tensors as ScanTensors;
  const metric = variant.metric as Metric;
  const worst = metric === "l2" ? Number.POSITIVE_INFINITY : Number.NEGATIVE_INFINITY;
  ids.fill(-1, 0, batch * k);
  scores.fill(worst, 0, batch * k);
  found.fill(0, 0, batch);
  if (batch === 0) return;
  const query = Array.from({ length: batch }, (_, q) => Float64Array.from(queries.subarray(q * dim, (q + 1) * dim)));
  const queryNorm = query.map((values) => dot(values, values));
  const row = new Float64Array(dim);

  for (let r = 0; r < count; r++) {
    if (filter && !bitAt(filter, r)) continue;
    widenRow(variant.rows as DType, rows, r * (pitch.rows as number), row);
    if (rowScale) for (let i = 0; i < dim; i++) row[i] = (row[i] as number) * (rowScale[r] as number);
    const rowNorm = metric === "cos" ? dot(row, row) : 0;
    for (let q = 0; q < batch; q++) {
      const score = scoreOf(metric, query[q] as Float64Array, row, (queryNorm[q] as number) * rowNorm);
      if (Number.isNaN(score)) continue;
      // Behind every better score, and every equal one: those are of lower rows.
      const first = q * k;
      const filled = found[q] as number;
      let at = filled;
      while (at > 0 && (metric === "l2" ? score < (scores[first + at - 1] as number) : score > (scores[first + at - 1] as number))) at--;
      if (at === k) continue;
      ids.copyWithin(first + at + 1, first + at, first + Math.min(filled, k - 1));
      scores.copyWithin(first + at + 1, first + at, first + Math.min(filled, k - 1));
      ids[first + at] = r;
      scores[first + at] = score;
      found[q] = Math.min(filled + 1, k);
    }
  }
  if (magnitude?.scores) writeMagnitudes(magnitude.scores);

  /** The sum of |terms| behind each returned score: what its rounding error is proportional to. */
  function writeMagnitudes(target: Float64Array): void {
    for (let i = 0; i < batch * k; i++) {
      const r = ids[i] as number;
      if (r < 0) continue;
      widenRow(variant.rows as DType, rows, r * (pitch.rows as number), row);
      if (rowScale) for (let j = 0; j < dim; j++) row[j] = (row[j] as number) * (rowScale[r] as number);
      target[i] = scoreMagnitude(metric, query[Math.floor(i / k)] as Float64Array, row);
    }
  }
}

/** The canonical score: f64 sums in a fixed order, rounded once to f32; -0 becomes 0. `norms` is for cos only. */
export function scoreOf(metric: Metric, query: Float64Array, row: Float64Array, norms: number): number {
  if (metric === "l2") return Math.fround(squaredDistance(query, row));
  const product = dot(query, row);
  if (metric === "ip") return Math.fround(product) + 0;
  return norms === 0 ? 0 : Math.fround(product / Math.sqrt(norms)) + 0;
}

/** For backends without f64: |q - x|^2 may be expanded to |q|^2 - 2 q x + |x|^2, so its terms count in full. */
export function scoreMagnitude(metric: Metric, query: Float64Array, row: Float64Array): number {
  let product = 0;
  for (let i = 0; i < row.length; i++) product += Math.abs((query[i] as number) * (row[i] as number));
  if (metric === "ip") return product;
  const [qq, xx] = [dot(query, query), dot(row, row)];
  if (metric === "l2") return qq + xx + 2 * product;
  return qq * xx === 0 ? 0 : (2 * product) / Math.sqrt(qq * xx);
}

// The fixed order of every canonical sum: 8 running sums, of components 0, 8, 16...; 1, 9, 17...; then a tree.
const sums = new Float64Array(8);

export function dot(a: Float64Array, b: Float64Array): number {
  sums.fill(0);
  for (let i = 0; i < a.length; i++) sums[i & 7] = (sums[i & 7] as number) + (a[i] as number) * (b[i] as number);
  return tree();
}

function squaredDistance(a: Float64Array, b: Float64Array): number {
  sums.fill(0);
  for (let i = 0; i < a.length; i++) {
    const difference = (a[i] as number) - (b[i] as number);
    sums[i & 7] = (sums[i & 7] as number) + difference * difference;
  }
  return tree();
}

function tree(): number {
  const s = sums as unknown as [number, number, number, number, number, number, number, number];
  return s[0] + s[4] + (s[2] + s[6]) + (s[1] + s[5] + (s[3] + s[7]));
}
