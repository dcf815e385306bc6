import { packCases, variantsOf } from "@hotset/core/testing";
import { casesOf } from "@hotset/core/testing/cases";
import { describe, expect, it } from "vitest";
import { variantKey } from "../src/op/variant.js";
import { ops } from "../src/ops.js";

/** Names of the cases in a pack, by op and variant. */
async function packed(most: number): Promise<Map<string, number>> {
  const bytes = Buffer.concat(await packCases({ most }));
  const counts = new Map<string, number>();
  for (const [, key] of bytes.toString("latin1").matchAll(/([a-z-]+\/[a-z-]+ \| [^|\0]*) \| [^|\0]+ \| seed 0/g))
    counts.set(key as string, (counts.get(key as string) ?? 0) + 1);
  expect(Number(bytes.readBigUInt64LE(8)), "the count in the head").toBe([...counts.values()].reduce((a, b) => a + b, 0));
  return counts;
}

describe("a case pack with a few cases of each variant", () => {
  it("has that many of every op's variant, or all there are", async () => {
    const wanted = new Map<string, number>();
    for (const op of ops)
      for (const test of (await casesOf(op)).cases)
        for (const variant of variantsOf(op, test)) {
          const key = `${op.id} | ${variantKey(op, variant)}`;
          wanted.set(key, (wanted.get(key) ?? 0) + 1);
        }
    for (const most of [1, 3]) {
      const counts = await packed(most);
      expect(Object.fromEntries(counts)).toEqual(Object.fromEntries([...wanted].map(([key, all]) => [key, Math.min(all, most)])));
    }
  });
});
