import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { HotsetError, moe } from "@hotset/core";
import { describe, expect, it } from "vitest";

const habits = { layers: 2, experts: 12, topK: 2, sequences: 30, length: 60 };
const make = (settings: object) =>
  moe.syntheticMoeTrace({ seed: "predict", ...habits, skew: 0, sticky: 0, bound: 0, vocabulary: 20, ...settings });
const recall = async (trace: moe.MoeTrace): Promise<Record<string, number>> =>
  Object.fromEntries((await moe.evaluatePredictors(trace)).map(({ predictor, recallAtK }) => [predictor, recallAtK]));

describe("predictors of the routing", () => {
  it("are as good as chance where there is nothing to learn", async () => {
    for (const [name, value] of Object.entries(await recall(make({})))) expect(Math.abs(value - 2 / 12), name).toBeLessThan(0.03);
  });

  it("find what is there: popular experts, experts kept, experts of a token", async () => {
    const popular = await recall(make({ skew: 2 }));
    expect(popular.frequency).toBeGreaterThan(0.5);
    expect(popular.ridge).toBeGreaterThan((popular.frequency as number) - 0.02);
    const sticky = await recall(make({ sticky: 0.8 }));
    expect(sticky.previous).toBeGreaterThan(0.75);
    expect(sticky.ridge).toBeGreaterThan((sticky.previous as number) - 0.02);
    const bound = await recall(make({ bound: 0.8 }));
    expect(bound.token).toBeGreaterThan(0.75);
    expect(bound.ridge).toBeGreaterThan((bound.token as number) - 0.02);
    const both = await recall(make({ sticky: 0.45, bound: 0.7, skew: 0.5 }));
    for (const name of ["previous", "ema", "frequency", "token", "pair"]) expect(both.ridge, name).toBeGreaterThan(both[name] as number);
  });

  it("split the sequences in three tenths and the rest, the same ones each time", () => {
    const trace = make({});
    const { fitted, held } = moe.splitSequences(trace, 1);
    expect([held.length, fitted.length]).toEqual([9, 21]);
    expect(new Set([...held, ...fitted].map(({ start }) => start)).size).toBe(30);
    expect(moe.splitSequences(trace, 1)).toEqual({ fitted, held });
    expect(moe.splitSequences(trace, 2).held).not.toEqual(held);
  });

  it("work without vocabulary numbers, and refuse to learn from nothing", async () => {
    const { tokenIds, ...unnamed } = make({ sticky: 0.6 });
    expect(tokenIds?.length).toBe(unnamed.tokens);
    const found = await recall(unnamed);
    expect(found.ridge).toBeGreaterThan(0.5);
    expect(found.token).toBe(found.pair);
    await expect(moe.RidgePredictor.fit(unnamed, [])).rejects.toThrow(HotsetError);
  });

  it("give every layer's scores at once, from what was observed", async () => {
    const trace = make({ sticky: 0.9 });
    const predictor = await moe.RidgePredictor.fit(trace, trace.sequences);
    predictor.reset();
    expect(() => predictor.observe(Uint8Array.of(1))).toThrow(/\[2, 2\] experts/);
    predictor.observe(Uint8Array.of(3, 4, 7, 8), 5);
    const scores = predictor.scores(6);
    expect(scores.length).toBe(2 * 12);
    const best = (layer: number) =>
      [...scores.subarray(12 * layer, 12 * layer + 12).entries()]
        .sort((a, b) => b[1] - a[1])
        .slice(0, 2)
        .map(([e]) => e)
        .sort((a, b) => a - b);
    expect([best(0), best(1)]).toEqual([
      [3, 4],
      [7, 8],
    ]);
  });

  const shared = fileURLToPath(new URL("../../../../shared/data/moe/gpt-oss-20b.mini.moetrc.gz", import.meta.url));
  it.skipIf(!existsSync(shared))("learn something of gpt-oss-20b from 8 short sequences (needs ../shared/data)", async () => {
    const whole = await moe.openMoeTrace(readFileSync(shared));
    // Three of its layers: the reference fits slowly.
    const ids = whole.ids.filter((_, i) => Math.floor(i / whole.topK) % whole.layers < 3);
    const found = await recall({ ...whole, layers: 3, ids });
    expect(found.ridge).toBeGreaterThan(found.ema as number);
    expect(found.ridge).toBeGreaterThan(0.4);
  });
});
