import type { DType, HostArray } from "../../dtype.js";
import { toBf16, toF16, toI8Rows } from "../../half.js";
import type { AnyVariant } from "../../op/define.js";
import type { BenchCase, Case, InputRequest, OpCases, Tensors } from "../../testing/case.js";
import type { Random } from "../../testing/random.js";
import { spread } from "../../testing/spread.js";
import { accept } from "./accept.js";
import { laws } from "./laws.js";
import { mutants } from "./mutants.js";

/** How the values of queries and rows are made. */
type Fill = (random: Random, count: number, dim: number) => Float32Array;

const normal: Fill = (random, count, dim) => random.values(count * dim, () => random.normal());
/** Multiples of 1/4: sums are exact, and many rows score the same. */
const grid: Fill = (random, count, dim) => random.values(count * dim, () => Math.round(random.normal() * 2) / 4);
/** From 2^-40 to 2^40, both signs. */
const wide: Fill = (random, count, dim) => random.values(count * dim, () => random.normal() * 2 ** (random.below(81) - 40));
/** The same few rows over and over. */
const repeated: Fill = (random, count, dim) => {
  const few = normal(random, 3, dim);
  const out = new Float32Array(count * dim);
  for (let r = 0; r < count; r++) out.set(few.subarray((r % 3) * dim, ((r % 3) + 1) * dim), r * dim);
  return out;
};
/** Rows that differ in the last bit of one component: only exact scores rank them. */
const nearTies: Fill = (random, count, dim) => {
  const base = normal(random, 1, dim);
  const out = new Float32Array(count * dim);
  for (let r = 0; r < count; r++) {
    out.set(base, r * dim);
    const at = r * dim + random.below(dim);
    out[at] = (out[at] as number) * (1 + random.pick([-2, -1, 0, 1, 2]) * 2 ** -23);
  }
  return out;
};
/** Each row scores better than the one before, so that every row enters every list. */
const ascending: Fill = (random, count, dim) => {
  const base = normal(random, 1, dim);
  return Float32Array.from({ length: count * dim }, (_, i) => (base[i % dim] as number) * (1 + Math.floor(i / dim) / count));
};
/** NaN, infinities, zeros of both signs, huge and subnormal values among ordinary ones; some rows of zeros. */
const special: Fill = (random, count, dim) => {
  const odd = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 3e38, -3e38, 1e-40, -1e-45, -0, 0, 1e20];
  const out = normal(random, count, dim);
  for (let r = 0; r < count; r++) {
    const kind = random.below(4);
    if (kind === 0) out.fill(0, r * dim, (r + 1) * dim);
    else if (kind === 1) out[r * dim + random.below(dim)] = random.pick(odd);
  }
  return out;
};

/** The same, and the second query has a NaN in its last component. */
const specialQueries: Fill = (random, count, dim) => {
  const out = special(random, count, dim);
  if (count > 1) out[2 * dim - 1] = Number.NaN;
  return out;
};

/** Inputs of a variant from f32 values. */
function inputsFrom(rowFill: Fill, queryFill: Fill | "rows" = normal, share = 0.5): Case["inputs"] {
  return ({ axes, variant, random }: InputRequest): Tensors => {
    const { batch, count, dim } = axes as Record<"batch" | "count" | "dim", number>;
    const rows = rowFill(random, count, dim);
    const queries =
      queryFill === "rows" ? new Float32Array(batch * dim).map((_, i) => rows[i % rows.length] as number) : queryFill(random, batch, dim);
    // The last row, which kernels reach by their tails, is near the first query: there is something to find in it.
    if (rowFill === normal && queryFill === normal)
      for (let i = 0; i < dim && batch > 0; i++) rows[(count - 1) * dim + i] = 2 * (queries[i] as number);
    return { queries, ...rowsAs(variant.rows as DType, rows, dim), ...(variant.filter ? { filter: bitmap(random, count, share) } : {}) };
  };
}

function rowsAs(dtype: DType, values: Float32Array, dim: number): { rows: HostArray; rowScale?: Float32Array } {
  if (dtype === "f16") return { rows: toF16(values) };
  if (dtype === "bf16") return { rows: toBf16(values) };
  if (dtype === "f32") return { rows: values };
  const { data, scale } = toI8Rows(values, dim);
  return { rows: data, rowScale: scale };
}

function bitmap(random: Random, count: number, share: number): Uint32Array {
  const bits = new Uint32Array(Math.ceil(count / 32));
  // Bits beyond count are set on purpose: they belong to no row.
  if (count % 32) bits[bits.length - 1] = -1 << (count % 32);
  for (let r = 0; r < count; r++) if (random.uniform() < share) bits[r >> 5] = (bits[r >> 5] as number) | (1 << (r & 31));
  return bits;
}

const sizes = (batch: number, count: number, dim: number, k: number) => ({ batch, count, dim, k });

/** In every dtype, metric and filter. */
const semantics: Case[] = [
  { name: "ordinary", axes: sizes(3, 100, 24, 10), inputs: inputsFrom(normal), seeds: 3 },
  { name: "ordinary batch", axes: sizes(14, 77, 33, 5), inputs: inputsFrom(normal), seeds: 3 },
  { name: "special values", axes: sizes(6, 160, 12, 40), inputs: inputsFrom(special, specialQueries), seeds: 4 },
  { name: "special values in a batch", axes: sizes(25, 90, 30, 20), inputs: inputsFrom(special, specialQueries), seeds: 4 },
];

// These need not meet every dtype and metric: each case in some variants, in others than its neighbours.
const arrangements: Case[] = [
  { name: "ties", axes: sizes(4, 200, 6, 20), inputs: inputsFrom(grid, grid) },
  { name: "ties in a batch", axes: sizes(20, 300, 5, 7), inputs: inputsFrom(grid, grid) },
  { name: "near ties", axes: sizes(2, 150, 40, 12), inputs: inputsFrom(nearTies, "rows") },
  { name: "near ties in a batch", axes: sizes(13, 150, 17, 12), inputs: inputsFrom(nearTies, "rows") },
  { name: "repeated rows", axes: sizes(2, 500, 9, 30), inputs: inputsFrom(repeated, "rows") },
  { name: "wide range", axes: sizes(5, 120, 19, 8), inputs: inputsFrom(wide, wide) },
  { name: "ascending", axes: sizes(2, 700, 16, 3), inputs: inputsFrom(ascending, "rows") },
  { name: "ascending in a batch", axes: sizes(12, 700, 16, 3), inputs: inputsFrom(ascending, "rows") },
  { name: "rows apart", axes: sizes(3, 70, 21, 6), extraPitch: { rows: 5 }, inputs: inputsFrom(normal) },
  { name: "rows apart in a batch", axes: sizes(11, 70, 37, 6), extraPitch: { rows: 3 }, inputs: inputsFrom(normal) },
  { name: "fewer at run time", axes: sizes(9, 100, 10, 4), live: { batch: 7, count: 61 }, inputs: inputsFrom(normal) },
  { name: "fewer than k at run time", axes: sizes(3, 100, 10, 40), live: { count: 25 }, inputs: inputsFrom(normal) },
];

const filtered = (variant: AnyVariant): boolean => variant.filter === true;

const filters: Case[] = [
  { name: "filter lets few through", axes: sizes(3, 400, 8, 10), variants: filtered, inputs: inputsFrom(normal, normal, 0.02) },
  { name: "filter lets few through in a batch", axes: sizes(10, 400, 8, 10), variants: filtered, inputs: inputsFrom(normal, normal, 0.02) },
  { name: "filter lets none through", axes: sizes(7, 130, 8, 10), variants: filtered, inputs: inputsFrom(normal, normal, 0), seeds: 1 },
  { name: "filter lets all through", axes: sizes(2, 131, 8, 10), variants: filtered, inputs: inputsFrom(normal, normal, 1), seeds: 1 },
];

const empties: Case[] = [
  { name: "no queries", axes: sizes(0, 20, 8, 3), inputs: inputsFrom(normal), seeds: 1 },
  { name: "no rows at run time", axes: sizes(4, 20, 8, 3), live: { count: 0 }, inputs: inputsFrom(normal), seeds: 1 },
  { name: "no rows at run time for a batch", axes: sizes(40, 20, 8, 3), live: { count: 0 }, inputs: inputsFrom(normal), seeds: 1 },
  { name: "one of everything", axes: sizes(1, 1, 1, 1), inputs: inputsFrom(normal) },
  { name: "k is count", axes: sizes(3, 50, 7, 50), inputs: inputsFrom(normal) },
];

// Around the vector lengths (4 to 32 lanes), the block of rows (8 to 32), the tile (4 to 12 queries) and k.
const dims = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 100, 127, 128, 129, 200, 384];
const counts = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 34, 63, 64, 65, 96, 97, 127, 128, 129, 250];
const batches = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 16, 17, 18, 23, 24, 25, 36, 37, 48, 61, 97];
const grids: Case[] = dims.map((dim, i) => {
  const count = counts[(i * 7 + 5) % counts.length] as number;
  const batch = batches[(i * 5 + 3) % batches.length] as number;
  return {
    name: `sizes ${batch} x ${count} x ${dim}`,
    axes: sizes(batch, count, dim, Math.min(count, 1 + ((i * 3) % 11))),
    inputs: inputsFrom(i % 2 ? normal : grid),
  };
});
const batchGrid: Case[] = batches.map((batch) => ({
  name: `batch ${batch}`,
  axes: sizes(batch, 45, 20, 4),
  inputs: inputsFrom(normal),
  seeds: 1,
}));

const large: Case[] = [
  // Several tasks, lists that overflow and are merged across threads.
  { name: "several tasks", axes: sizes(2, 5000, 128, 10), inputs: inputsFrom(normal), seeds: 1 },
  { name: "several tasks in a batch", axes: sizes(10, 2600, 200, 10), inputs: inputsFrom(normal), seeds: 1 },
  { name: "several tasks of small rows", axes: sizes(1, 40000, 32, 5), inputs: inputsFrom(grid), seeds: 1 },
  { name: "large k", axes: sizes(3, 1500, 12, 1024), inputs: inputsFrom(normal), seeds: 1 },
  { name: "large k in a batch with ties", axes: sizes(14, 1300, 4, 1000), inputs: inputsFrom(grid, grid), seeds: 1 },
  { name: "blocks of queries", axes: sizes(420, 90, 24, 6), inputs: inputsFrom(normal), seeds: 1 },
  { name: "many blocks of queries", axes: sizes(1700, 40, 6, 3), inputs: inputsFrom(grid), seeds: 1 },
  { name: "long rows", axes: sizes(3, 40, 3000, 4), inputs: inputsFrom(normal), seeds: 1 },
  { name: "very long rows in a batch", axes: sizes(9, 34, 20000, 4), inputs: inputsFrom(normal), seeds: 1 },
];

/** Values without a generator call each: large shapes are ready in a second. */
const quick = ({ axes, variant, random }: InputRequest): Tensors => {
  const { batch, count, dim } = axes as Record<"batch" | "count" | "dim", number>;
  let state = random.bits();
  const next = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    return state / 2 ** 31 + ((state << 11) >> 23) / 256;
  };
  const fill = (length: number): Float32Array => {
    const out = new Float32Array(length);
    for (let i = 0; i < length; i++) out[i] = next();
    return out;
  };
  const rows = fill(count * dim);
  return {
    queries: fill(batch * dim),
    ...rowsAs(variant.rows as DType, rows, dim),
    ...(variant.filter ? { filter: bitmap(random, count, 0.5) } : {}),
  };
};

/** The first query, for the reference. */
const firstQuery: NonNullable<BenchCase["sample"]> = (axes, inputs) => {
  const { batch, dim, k } = axes as Record<"batch" | "dim" | "k", number>;
  const few = Math.min(batch, 1);
  return {
    axes: { ...axes, batch: few },
    inputs: { ...inputs, queries: (inputs.queries as Float32Array).subarray(0, few * dim) },
    pick: ({ ids, scores, found }) => ({
      ids: (ids as Int32Array).subarray(0, few * k),
      scores: (scores as Float32Array).subarray(0, few * k),
      found: (found as Uint32Array).subarray(0, few),
    }),
  };
};

const variant = (rows: string, metric = "ip", filter = false): AnyVariant => ({ metric, rows, filter });
const each = (rows: readonly string[]): AnyVariant[] => rows.map((dtype) => variant(dtype));
const bench = (name: string, axes: BenchCase["axes"], variants: readonly AnyVariant[], calibrate = false): BenchCase => ({
  name,
  axes,
  variants,
  calibrate,
  inputs: quick,
  sample: firstQuery,
});

export const cases: OpCases = {
  cases: [
    ...semantics,
    ...filters,
    ...spread(arrangements, 3),
    ...spread(empties, 5),
    ...spread(grids, 7),
    ...spread(batchGrid, 7),
    ...spread(large, 5),
  ],
  mutants,
  laws: laws(inputsFrom(normal)),
  bench: [
    bench("one query, 100 x 128", sizes(1, 100, 128, 10), each(["f32"])),
    bench("one query, 3k x 128", sizes(1, 3000, 128, 10), each(["f32", "i8"])),
    bench("one query, 40k x 100", sizes(1, 40_000, 100, 10), [variant("f32", "cos")], true),
    bench("batch of 48, 20k x 100", sizes(48, 20_000, 100, 10), [variant("f32", "cos")], true),
    bench("one query, 100k x 128", sizes(1, 100_000, 128, 10), each(["f32", "f16", "bf16", "i8"])),
    bench("batch of 64, 100k x 128", sizes(64, 100_000, 128, 10), each(["f32", "f16", "i8"])),
    bench("one query, half filtered", sizes(1, 100_000, 128, 10), [variant("f32", "cos", true)]),
    bench("16 queries, 20k x 784, l2, 100 results", sizes(16, 20_000, 784, 100), [variant("f32", "l2")]),
    bench("one query, 1M x 128", sizes(1, 1_000_000, 128, 10), each(["f32", "f16", "i8"])),
    bench("batch of 6, 1M x 128", sizes(6, 1_000_000, 128, 10), each(["f32"])),
    bench("batch of 64, 1M x 128", sizes(64, 1_000_000, 128, 10), each(["f32"])),
  ],
  accept,
};
