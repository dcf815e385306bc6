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

/** `most` of the items of each key, spread over them in their order: the first at or after each multiple of a step. */
export function mostOfEach<T>(items: readonly T[], keyOf: (item: T) => string, most: number): T[] {
  const totals = new Map<string, number>();
  for (const item of items) totals.set(keyOf(item), (totals.get(keyOf(item)) ?? 0) + 1);
  const seen = new Map<string, number>();
  return items.filter((item) => {
    const key = keyOf(item);
    const n = seen.get(key) ?? 0;
    seen.set(key, n + 1);
    const step = Math.max(1, (totals.get(key) as number) / most);
    return n - Math.floor(n / step) * step < 1;
  });
}
