import type { Case } from "./case.js";

/**
 * Each case in one of `every` variants only, each in others than its neighbours: for ops whose kernels differ by variant in
 * how they load, and by case in what they do. What runs in chosen variants already stays so.
 */
export const spread = (cases: readonly Case[], every: number): Case[] =>
  cases.map((test, n) => ({
    ...test,
    variants: test.variants ?? ((_, i) => (i + n) % every === 0),
  }));
