/** A decode loop of four layers by a policy, with caches, queries and lengths that are the same every time. */
import { attention, createHotset, type HostBackend } from "@hotset/core";
import { Random } from "@hotset/core/testing";
import { expect } from "vitest";

/** A policy with one of everything. */
export const kascade = {
  about: { made: "by hand" },
  layers: [
    { kind: "full" },
    { kind: "anchor", k: 32, ratio: 0.1 },
    { kind: "reuse", source: 1, headMap: [1, 0] },
    { kind: "anchor", ratio: 0.25, refreshEvery: 4 },
    { kind: "reuse", source: 3 },
  ],
  granularity: 4,
  perHead: true,
  sink: 4,
  recent: 8,
  minContext: 64,
  score: "mass",
};

const axes = { batch: 2, queryHeads: 8, kvHeads: 2, headDim: 32, valueDim: 32, pages: 64, pageSize: 16, maxPages: 32 };
const policy = attention.parsePolicy({
  layers: [
    { kind: "anchor", k: 64, refreshEvery: 2 },
    { kind: "reuse", source: 0, headMap: [1, 0] },
    { kind: "anchor", ratio: 0.2 },
    { kind: "reuse", source: 2 },
  ],
  sink: 4,
  recent: 16,
  minContext: 100,
});

async function decoded(backends: HostBackend[], keyPages: "f32" | "i8", asynchronous: boolean) {
  const hotset = await createHotset({ backends });
  const reuse = await attention.LayerReuse.create(hotset, { policy, axes, keyPages, backend: backends[0]?.id ?? "js" });
  const random = new Random("layer-reuse");
  const slots = axes.pages * axes.kvHeads * axes.pageSize;
  const queries = new Float32Array(axes.batch * axes.queryHeads * axes.headDim);
  const lengths = new Int32Array(axes.batch);
  const shared = { queries, lengths, pageTable: Int32Array.from({ length: 64 }, (_, i) => (i * 29) % 64) };
  const rows = () =>
    keyPages === "f32"
      ? random.values(slots * 32, () => random.normal())
      : Int8Array.from({ length: slots * 32 }, () => random.below(255) - 127);
  const scale = () => (keyPages === "f32" ? undefined : random.values(slots, () => 0.01 + 0.01 * random.uniform()));
  const steps = policy.layers.map((_, layer) =>
    reuse.bind(layer, { ...shared, keyPages: rows(), keyScale: scale(), valuePages: rows(), valueScale: scale() } as attention.LayerInputs),
  );
  const outs: Float32Array[] = [];
  for (const length of [90, 480, 481, 482, 483]) {
    lengths.set([length, length - 77]);
    queries.set(random.values(queries.length, () => random.normal()));
    for (const step of steps) {
      const { out } = asynchronous ? await step.runAsync() : step.run();
      outs.push(out.slice());
    }
  }
  for (const step of steps) step.dispose();
  return { outs, counters: reuse.counters };
}

/** A backend attends to what js attends to, and counts the same; run by run and asynchronously. */
export async function expectSameAsJs(backend: HostBackend, keyPages: "f32" | "i8"): Promise<void> {
  const wanted = await decoded([], keyPages, false);
  const found = await decoded([backend], keyPages, false);
  expect(found.counters).toEqual({ ...wanted.counters, massKept: expect.closeTo(wanted.counters.massKept, 4) });
  expect(found.counters).toMatchObject({ steps: 5, denseRuns: 4, anchorRuns: 6, sparseRuns: 10, sparseActive: true });
  for (const [i, out] of wanted.outs.entries())
    for (const [j, value] of out.entries()) expect(Math.abs(value - (found.outs[i]?.[j] as number))).toBeLessThan(1e-4);
  expect(await decoded([backend], keyPages, true)).toEqual(found);
}
