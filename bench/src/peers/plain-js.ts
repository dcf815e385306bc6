/** The loop one writes without a library: four running sums, and a sorted list of the best. One thread. */
import type { ScanJob, ScanPeer, ScanResult } from "./peer.js";

export const plainJs = (): ScanPeer => ({
  name: "plain JavaScript loop",
  version: process.version,
  settings: "1 thread, 4 running sums",
  supports: ({ rows }) => (rows instanceof Float32Array ? true : "f32 rows only"),
  ways: (job) => [() => run(job)],
});

function run({ queries, rows, batch, count, dim, k, metric }: ScanJob): ScanResult {
  const ids = new Int32Array(batch * k).fill(-1);
  const scores = new Float32Array(batch * k).fill(metric === "l2" ? Number.POSITIVE_INFINITY : Number.NEGATIVE_INFINITY);
  const sign = metric === "l2" ? -1 : 1;
  for (let q = 0; q < batch; q++) {
    const query = queries.subarray(q * dim, (q + 1) * dim);
    const norm = Math.sqrt(dot(query, query, 0, dim));
    for (let r = 0; r < count; r++) {
      const score =
        metric === "l2"
          ? squaredDistance(query, rows as Float32Array, r * dim, dim)
          : metric === "ip"
            ? dot(query, rows as Float32Array, r * dim, dim)
            : cosine(query, rows as Float32Array, r * dim, dim, norm);
      if (!(sign * score > sign * (scores[q * k + k - 1] as number))) continue;
      let at = k - 1;
      for (; at > 0 && sign * score > sign * (scores[q * k + at - 1] as number); at--) {
        scores[q * k + at] = scores[q * k + at - 1] as number;
        ids[q * k + at] = ids[q * k + at - 1] as number;
      }
      scores[q * k + at] = score;
      ids[q * k + at] = r;
    }
  }
  return { ids, scores };
}

function dot(query: Float32Array, rows: Float32Array, from: number, dim: number): number {
  let [a, b, c, d, i] = [0, 0, 0, 0, 0];
  for (; i + 3 < dim; i += 4) {
    a += (query[i] as number) * (rows[from + i] as number);
    b += (query[i + 1] as number) * (rows[from + i + 1] as number);
    c += (query[i + 2] as number) * (rows[from + i + 2] as number);
    d += (query[i + 3] as number) * (rows[from + i + 3] as number);
  }
  for (; i < dim; i++) a += (query[i] as number) * (rows[from + i] as number);
  return a + b + c + d;
}

function squaredDistance(query: Float32Array, rows: Float32Array, from: number, dim: number): number {
  let [a, b, c, d, i] = [0, 0, 0, 0, 0];
  for (; i + 3 < dim; i += 4) {
    const [w, x, y, z] = [
      (query[i] as number) - (rows[from + i] as number),
      (query[i + 1] as number) - (rows[from + i + 1] as number),
      (query[i + 2] as number) - (rows[from + i + 2] as number),
      (query[i + 3] as number) - (rows[from + i + 3] as number),
    ];
    a += w * w;
    b += x * x;
    c += y * y;
    d += z * z;
  }
  for (; i < dim; i++) a += ((query[i] as number) - (rows[from + i] as number)) ** 2;
  return a + b + c + d;
}

function cosine(query: Float32Array, rows: Float32Array, from: number, dim: number, norm: number): number {
  let [a, b, x, y, i] = [0, 0, 0, 0, 0];
  for (; i + 1 < dim; i += 2) {
    const [r, s] = [rows[from + i] as number, rows[from + i + 1] as number];
    a += (query[i] as number) * r;
    b += (query[i + 1] as number) * s;
    x += r * r;
    y += s * s;
  }
  if (i < dim) {
    a += (query[i] as number) * (rows[from + i] as number);
    x += (rows[from + i] as number) ** 2;
  }
  return (a + b) / (norm * Math.sqrt(x + y));
}
