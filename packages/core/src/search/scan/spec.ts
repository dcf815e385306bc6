import { byteLength, type DType } from "../../dtype.js";
import { axis, choice, defineOp, input, optional, output, scaleOf } from "../../op/define.js";
import { reference } from "./reference.js";

/** Queries that share one pass over the rows; native and wasm kernels read each row once per so many. */
export const queryBlock = 192;

/**
 * Exact top-k search: the k rows of `rows [count, dim]` that score best with each of `queries [batch, dim]`.
 *
 * Best first, equal scores by lower row. `cos` and `ip`: larger is better; `l2`: the squared distance, smaller
 * is better. A zero vector has cosine 0. A row whose score is NaN (a NaN in it or in the query, or Inf - Inf)
 * is never returned; an infinite score is an ordinary one. Where fewer than k rows qualify, `found` says how
 * many, and the tail holds id -1 and the worst score there is (-Inf, or +Inf under l2).
 *
 * Scores are sums in f64 in one fixed order, rounded once to f32, and rows are ranked by that f32: the same
 * ids and bits on every host backend, for one query or many, whatever the threads and the instruction set.
 */
export const scan = defineOp({
  id: "search/scan",
  doc: "Exact top-k: the k stored rows that score best with each query, by cosine, inner product or squared distance.",
  source: "brute-force maximum inner product and nearest-neighbour search; canonical rescoring is ours",
  axes: {
    batch: axis("queries", { live: true }),
    count: axis("stored rows", { min: 1, live: true }),
    dim: axis("components of a vector", { min: 1, max: 65536 }),
    k: axis("results per query", { min: 1, max: 1024 }),
  },
  ports: {
    metric: choice(["cos", "ip", "l2"], "how a row is scored: cosine, inner product, squared Euclidean distance"),
    queries: input("f32", ["batch", "dim"], "the vectors to search for"),
    rows: input(["f32", "f16", "bf16", "i8"], ["count", "dim"], "the vectors to search in", { pitched: true }),
    rowScale: scaleOf("rows", ["i8"], input("f32", ["count"], "what each i8 row is multiplied by")),
    filter: optional(input("bits", ["count"], "rows that may be returned: bit set")),
    ids: output("i32", ["batch", "k"], "row numbers, best first, -1 in the tail", { indexInto: "count", none: -1, counted: "found" }),
    scores: output("f32", ["batch", "k"], "their scores"),
    found: output("u32", ["batch"], "how many results each query has"),
  },
  constraints: [{ says: "k at most count", about: ["k", "count"], holds: ({ k, count }) => k <= count }],
  exact: true,
  cost({ batch, count, dim, k }, { rows, metric }) {
    const passes = Math.ceil(batch / queryBlock);
    return {
      // Cosine and squared distance need the norm of each row as well: once a pass.
      flops: 2 * batch * count * dim + (metric === "ip" ? 0 : 2 * passes * count * dim),
      bytes: passes * byteLength(rows as DType, [count, dim]) + 4 * batch * (dim + 2 * k + 1),
    };
  },
  // A sum of dim products, the division or subtraction, and the rounding of the two norms.
  rounding: ({ dim }) => ({ scores: dim + 4 }),
  reference,
});
