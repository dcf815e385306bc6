/** The tolerance of attention/continual-retroactive accepts a kernel that does its arithmetic in f32, and says what a row may be. */
import { attention } from "@hotset/core";
import { casesOf, evaluate, judge, prepare } from "@hotset/core/testing";
import { expect, it } from "vitest";
import { kernel32 } from "../src/attention/continual-retroactive/kernel32.js";

const op = attention.continualRetroactive;
const cases = await casesOf(op);

it.each(cases.cases.map((test) => [test.name, test] as const))("accepts an honest f32 kernel: %s", (_, test) => {
  for (let seed = 0; seed < 3; seed++) {
    const prepared = prepare(op, test, {}, seed);
    const { expected: got } = evaluate(prepared, (call) => kernel32(call));
    expect(judge(prepared, cases, got, true), prepared.id).toBeUndefined();
  }
});

it("refuses rows where logits are large, and takes most", () => {
  const refused = cases.cases
    .filter(({ name }) => /deviation/.test(name))
    .map((test) => [0, 1].reduce((sum, seed) => sum + Number(prepare(op, test, {}, seed).expected.recomputed?.[0]), 0));
  expect(refused).toHaveLength(4);
  for (const count of refused.slice(2)) expect(count).toBeGreaterThan(0);
  for (const count of refused) expect(count).toBeLessThan(2 * 64);
});
