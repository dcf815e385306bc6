import { search } from "@hotset/core";
import { type AnyVariant, variants } from "@hotset/core/backend";
import { casesOf, difference, evaluate, judge, prepare, toleranceOf, variantsOf } from "@hotset/core/testing";
import { describe, expect, it } from "vitest";
import type { ReferenceCall } from "../src/op/define.js";
import { widenRow } from "../src/op/elements.js";

describe("the tolerance", () => {
  it("is the formula of docs/tolerances.md", () => {
    expect(toleranceOf("f32", 0, 5, 5)).toBe(0);
    expect(toleranceOf("f32", 10, 2, 3)).toBe(10 * 2 ** -24 * 3 + 2 ** -24 * 2 + 11 * 2 ** -126);
    expect(toleranceOf("f16", 1, 1, 1)).toBeCloseTo(2 ** -11 + 2 ** -24, 12);
  });

  it("finds the worst element, and takes NaN and infinities as they are", () => {
    const expected = Float32Array.from([1, 2, Number.NaN, Number.POSITIVE_INFINITY]);
    const magnitude = Float64Array.from([1, 2, 1, 1]);
    expect(difference("x", "f32", expected.slice(), expected, 4, magnitude)).toBeUndefined();
    expect(difference("x", "f32", Float32Array.from([1, 2.00001, Number.NaN, Number.POSITIVE_INFINITY]), expected, 4, magnitude)).toMatch(
      /^x\[1\] is 2\.0000\d+, expected 2 within/,
    );
    expect(difference("x", "f32", Float32Array.from([1, 2, 0, Number.POSITIVE_INFINITY]), expected, 4, magnitude)).toMatch(/^x\[2\]/);
    expect(difference("x", "f32", Float32Array.from([1, 2, Number.NaN, 3e38]), expected, 4, magnitude)).toMatch(/^x\[3\]/);
    expect(difference("x", "f32", Float32Array.from([1]), expected, 4, magnitude)).toMatch(/has 1 elements/);
  });

  it("demands equal bits where there are no steps", () => {
    expect(difference("x", "f32", Float32Array.from([-0]), Float32Array.from([0]), 0, undefined)).toMatch(/the same bits/);
  });
});

/** A scan as an honest device without f64 would do it: f32 sums, another order, norms expanded. */
function singlePrecision({ axes, variant, tensors, pitch }: ReferenceCall): void {
  const { batch, count, dim, k } = axes as Record<"batch" | "count" | "dim" | "k", number>;
  const { queries, rows, rowScale, filter, ids, scores, found } = tensors;
  const sign = variant.metric === "l2" ? -1 : 1;
  const row = new Float64Array(dim);
  for (let q = 0; q < batch; q++) {
    const results: [number, number][] = [];
    for (let r = 0; r < count; r++) {
      if (filter && !((filter[r >> 5] >>> (r & 31)) & 1)) continue;
      widenRow(variant.rows as "f32", rows, r * (pitch.rows as number), row);
      let [dot, xx, qq] = [0, 0, 0];
      for (let i = dim - 1; i >= 0; i--) {
        const x = Math.fround((row[i] as number) * (rowScale ? rowScale[r] : 1));
        const y = queries[q * dim + i];
        dot = Math.fround(dot + Math.fround(x * y));
        xx = Math.fround(xx + Math.fround(x * x));
        qq = Math.fround(qq + Math.fround(y * y));
      }
      const score =
        variant.metric === "ip"
          ? dot
          : variant.metric === "l2"
            ? Math.max(0, Math.fround(qq - 2 * dot + xx))
            : xx * qq === 0
              ? 0
              : Math.fround(dot / Math.fround(Math.sqrt(xx) * Math.sqrt(qq)));
      if (!Number.isNaN(score)) results.push([score, r]);
    }
    results.sort((a, b) => sign * (b[0] - a[0]) || a[1] - b[1]);
    for (let i = 0; i < k; i++) {
      ids[q * k + i] = results[i]?.[1] ?? -1;
      scores[q * k + i] = results[i]?.[0] ?? -sign * Number.POSITIVE_INFINITY;
    }
    found[q] = Math.min(k, results.length);
  }
}

describe("judging by tolerance", async () => {
  const cases = await casesOf(search.scan);
  const ordinary = cases.cases.filter(({ name }) => !/special|wide|very long|many blocks|several tasks/.test(name));

  for (const variant of variants(search.scan) as AnyVariant[]) {
    it(`accepts an honest f32 kernel: ${JSON.stringify(variant)}`, () => {
      let judged = 0;
      for (const test of ordinary) {
        if (!variantsOf(search.scan, test).some((other) => JSON.stringify(other) === JSON.stringify(variant))) continue;
        const prepared = prepare(search.scan, test, variant, 0);
        const { expected: got } = evaluate(prepared, singlePrecision);
        expect(judge(prepared, cases, got, false), prepared.id).toBeUndefined();
        judged++;
      }
      expect(judged).toBeGreaterThan(10);
    });
  }
});
