/** Vectors that are hard on codes, for the tests of FlatIndex, and the plain search that its answers are compared with. */
import { createHotset, type Hotset, search, toF16, toI8Rows } from "@hotset/core";
import type { Random } from "@hotset/core/testing/cases";

type Fill = (random: Random, count: number, dim: number) => Float32Array;

const normal: Fill = (random, count, dim) => random.values(count * dim, () => random.normal());

export const fills: Readonly<Record<string, Fill>> = {
  normal,
  /** Many rows score the same. */
  grid: (random, count, dim) => random.values(count * dim, () => Math.round(random.normal()) / 2),
  /** The same five rows over and over. */
  duplicates(random, count, dim) {
    const few = normal(random, 5, dim);
    return Float32Array.from({ length: count * dim }, (_, i) => few[i % few.length] as number);
  },
  /** Rows that differ by less than a step of the codes. */
  "one tight cluster"(random, count, dim) {
    const base = normal(random, 1, dim);
    return Float32Array.from({ length: count * dim }, (_, i) => (base[i % dim] as number) * (1 + random.normal() * 1e-5));
  },
  "two tight clusters"(random, count, dim) {
    const base = normal(random, 1, dim);
    return Float32Array.from({ length: count * dim }, (_, i) => {
      const side = Math.floor(i / dim) % 2 ? 1 : -1;
      return side * (base[i % dim] as number) * (1 + random.normal() * 1e-5);
    });
  },
  "rows in the last bit"(random, count, dim) {
    const base = normal(random, 1, dim);
    return Float32Array.from({ length: count * dim }, (_, i) => (base[i % dim] as number) * (1 + random.below(3) * 2 ** -23));
  },
  "far from the origin": (random, count, dim) => random.values(count * dim, () => 1000 + random.normal()),
  "a few long rows"(random, count, dim) {
    const out = normal(random, count, dim);
    for (let r = 0; r < count; r += 97) for (let i = 0; i < dim; i++) out[r * dim + i] = (out[r * dim + i] as number) * 1e6;
    return out;
  },
  "one large component"(random, count, dim) {
    const out = normal(random, count, dim);
    for (let r = 0; r < count; r++) out[r * dim + (r % dim)] = 300 * random.normal();
    return out;
  },
  "zeros among them"(random, count, dim) {
    const out = normal(random, count, dim);
    for (let r = 0; r < count; r += 3) out.fill(0, r * dim, (r + 1) * dim);
    return out;
  },
  "from 2^-40 to 2^40": (random, count, dim) => random.values(count * dim, () => random.normal() * 2 ** (random.below(81) - 40)),
  "products beyond f32": (random, count, dim) => random.values(count * dim, () => random.normal() * 2 ** (100 + random.below(24))),
  "products below f32": (random, count, dim) => random.values(count * dim, () => random.normal() * 2 ** -(70 + random.below(78))),
};

/** What a search over the rows themselves gives, in plain JavaScript. */
export async function bruteForce(
  metric: "cos" | "ip" | "l2",
  dtype: "f32" | "f16" | "i8",
  rows: Float32Array,
  dim: number,
  queries: Float32Array,
  k: number,
  allowed: (row: number) => boolean = () => true,
): Promise<{ rows: number[]; scores: number[] }[]> {
  plain ??= createHotset();
  const count = rows.length / dim;
  const filter = new Uint32Array(Math.ceil(count / 32));
  let size = 0;
  for (let r = 0; r < count; r++) {
    if (!allowed(r)) continue;
    filter[r >> 5] = (filter[r >> 5] as number) | (1 << (r & 31));
    size++;
  }
  const batch = queries.length / dim;
  const few = Math.min(k, size);
  if (few === 0) return Array.from({ length: batch }, () => ({ rows: [], scores: [] }));
  const i8 = dtype === "i8" ? toI8Rows(rows, dim) : undefined;
  const stored = i8 ? { rows: i8.data, rowScale: i8.scale } : { rows: dtype === "f16" ? { data: toF16(rows), dtype: "f16" } : rows };
  const { ids, scores, found } = (await (
    await plain
  ).call(search.scan, { queries, ...stored, dim, k: few, metric, filter } as never)) as unknown as {
    ids: Int32Array;
    scores: Float32Array;
    found: Uint32Array;
  };
  return Array.from({ length: batch }, (_, q) => ({
    rows: [...ids.subarray(q * few, q * few + (found[q] as number))],
    scores: [...scores.subarray(q * few, q * few + (found[q] as number))],
  }));
}
let plain: Promise<Hotset> | undefined;
