import { createHotset, type InputsOf, search, toBf16, toF16, toI8Rows } from "@hotset/core";
import { Random } from "@hotset/core/testing";
import { describe, expect, it } from "vitest";
import { wasm, wasmBuilds } from "../dist/node.js";

const dtypes = ["f32", "f16", "bf16", "i8"] as const;
const metrics = ["ip", "cos", "l2"] as const;
const seeds = 10;

const backends = await Promise.all(
  wasmBuilds().flatMap((build) => [wasm({ build, shared: false }), wasm({ build, threads: 1 }), wasm({ build, threads: 3 })]),
);
const hotsets = await Promise.all(backends.map((backend) => createHotset({ backends: [backend] })));
const reference = await createHotset();

/** Sizes around the limits of tiles, blocks and tasks: few and many queries, rows of one task and of several. */
function sizes(random: Random): { batch: number; count: number; dim: number; k: number } {
  const batch = random.pick([1, 2, 3, 4, 5, 7, 9, 13, 14, 21]);
  const dim = 1 + random.below(random.pick([8, 40, 140]));
  const count = random.pick([1 + random.below(40), 1 + random.below(900), batch > 5 ? 333 : Math.ceil(1.1e6 / (4 * dim))]);
  return { batch, count: Math.min(count, 20_000), dim, k: Math.min(count, random.pick([1, 3, 10, 40])) };
}

type Rows = Pick<InputsOf<typeof search.scan>, "rows" | "rowScale">;

function rowsOf(dtype: (typeof dtypes)[number], values: Float32Array, dim: number): Rows {
  if (dtype === "i8") {
    const { data, scale } = toI8Rows(values, dim);
    return { rows: { data, dtype }, rowScale: scale };
  }
  if (dtype === "f32") return { rows: { data: values, dtype } };
  return { rows: dtype === "f16" ? { data: toF16(values), dtype } : { data: toBf16(values), dtype } };
}

/** Everything that comes out, as bits. */
const bits = ({ ids, scores, found }: { ids: Int32Array; scores: Float32Array; found: Uint32Array }) => ({
  ids: [...ids],
  scores: [...new Uint32Array(scores.slice().buffer)],
  found: [...found],
});

describe("search/scan gives the bits of the reference", () => {
  const cases = dtypes.flatMap((dtype) => metrics.map((metric) => ({ dtype, metric })));
  it.each(cases)("for random shapes and sizes: $dtype, $metric", async ({ dtype, metric }) => {
    for (let seed = 0; seed < seeds; seed++) {
      const random = new Random(`${dtype} ${metric} ${seed}`);
      const axes = sizes(random);
      // Whole numbers have ties, and sums that are exact.
      const value = random.below(3) === 0 ? () => random.below(5) - 2 : () => random.normal();
      const queries = random.values(axes.batch * axes.dim, value);
      const filter = Uint32Array.from({ length: Math.ceil(axes.count / 32) }, () => random.bits());
      const given = {
        queries,
        ...rowsOf(dtype, random.values(axes.count * axes.dim, value), axes.dim),
        ...(random.below(2) ? { filter } : {}),
      };
      const variant = { rows: dtype, metric, filter: "filter" in given };
      const live = { batch: 1 + random.below(axes.batch), count: axes.k + random.below(axes.count - axes.k + 1) };
      const step = reference.planSync(search.scan, axes, variant).bind(given);
      const full = bits(step.run());
      const part = bits(step.set("batch", live.batch).set("count", live.count).run());
      for (const hotset of hotsets) {
        const where = `${hotset.backends[0]?.name}, seed ${seed}: ${JSON.stringify({ ...axes, live, filter: variant.filter })}`;
        const plan = hotset.planSync(search.scan, axes, variant, { backend: "wasm" });
        const own = plan.bind(given);
        expect(bits(own.run()), where).toEqual(full);
        expect(bits(await own.set("batch", live.batch).set("count", live.count).runAsync()), where).toEqual(part);
        const called = await hotset.call(search.scan, { ...given, dim: axes.dim, k: axes.k, metric, backend: "wasm" });
        expect(bits(called), where).toEqual(full);
        own.dispose();
      }
    }
  });
});
