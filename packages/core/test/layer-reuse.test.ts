import { attention, createHotset, type Hotset, HotsetError, ShapeError } from "@hotset/core";
import { Random } from "@hotset/core/testing";
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { kascade } from "./layer-reuse-loop.js";

const { LayerReuse, parsePolicy } = attention;

/** Four layers of two sequences with 4 query and 2 KV heads of 8: what a model's loop gives attention, token by token. */
const axes = { batch: 2, queryHeads: 4, kvHeads: 2, headDim: 8, valueDim: 8, pages: 12, pageSize: 16, maxPages: 6 };
const most = axes.maxPages * axes.pageSize;

function madeModel(layers: number, seed: string) {
  const random = new Random(seed);
  const stored = axes.pages * axes.kvHeads * axes.pageSize * 8;
  const normal = () => random.normal();
  const caches = Array.from({ length: layers }, () => ({
    queries: new Float32Array(axes.batch * axes.queryHeads * 8),
    keyPages: random.values(stored, () => 2 * normal()),
    valuePages: random.values(stored, normal),
  }));
  const lengths = new Int32Array(axes.batch);
  const pageTable = Int32Array.from({ length: axes.batch * axes.maxPages }, (_, i) => (i * 5) % axes.pages);
  const step = (...now: number[]): void => {
    lengths.set(now);
    for (const { queries } of caches) queries.set(random.values(queries.length, normal));
  };
  return { caches, lengths, pageTable, step };
}
type Model = ReturnType<typeof madeModel>;

/** What dense or masked attention gives, with plain loops: out of each head, and the mass of each granule per KV head. */
function plainAttention(
  { caches, lengths, pageTable }: Model,
  layer: number,
  granularity: number,
  allowed?: (b: number, kvHead: number, g: number) => boolean,
) {
  const { queries, keyPages, valuePages } = caches[layer] as Model["caches"][number];
  const out = new Float64Array(axes.batch * axes.queryHeads * 8);
  const masses = new Map<string, number>();
  for (let row = 0; row < axes.batch * axes.queryHeads; row++) {
    const [b, kvHead] = [Math.floor(row / axes.queryHeads), Math.floor((row % axes.queryHeads) / 2)];
    const tokens = Array.from({ length: lengths[b] as number }, (_, t) => t).filter(
      (t) => allowed?.(b, kvHead, Math.floor(t / granularity)) ?? true,
    );
    const slot = (t: number): number =>
      ((pageTable[b * axes.maxPages + Math.floor(t / axes.pageSize)] as number) * axes.kvHeads + kvHead) * axes.pageSize +
      (t % axes.pageSize);
    const logits = tokens.map((t) => {
      let sum = 0;
      for (let i = 0; i < 8; i++) sum += (queries[row * 8 + i] as number) * (keyPages[slot(t) * 8 + i] as number);
      return sum / Math.sqrt(8);
    });
    const total = logits.reduce((sum, logit) => sum + Math.exp(logit), 0);
    for (const [i, t] of tokens.entries()) {
      const weight = Math.exp(logits[i] as number) / total;
      const key = `${b} ${kvHead} ${Math.floor(t / granularity)}`;
      masses.set(key, (masses.get(key) ?? 0) + weight / 2);
      for (let d = 0; d < 8; d++) out[row * 8 + d] = (out[row * 8 + d] as number) + weight * (valuePages[slot(t) * 8 + d] as number);
    }
  }
  return { out, mass: (b: number, kvHead: number, g: number): number => masses.get(`${b} ${kvHead} ${g}`) ?? 0 };
}

const near = (got: Float32Array, wanted: Float64Array): void => {
  for (const [i, value] of wanted.entries()) expect(Math.abs(value - (got[i] as number))).toBeLessThan(1e-5);
};

describe("LayerReuse", () => {
  let hotset: Hotset;
  beforeAll(async () => {
    hotset = await createHotset();
  });

  const bound = async (policy: unknown, model: Model) => {
    const read = parsePolicy(policy);
    const reuse = await LayerReuse.create(hotset, { policy: read, axes, keyPages: "f32" });
    const { pageTable, lengths } = model;
    const steps = model.caches.map((cache, layer) => reuse.bind(layer, { ...cache, pageTable, lengths }));
    return { reuse, steps };
  };

  it("attends to what the anchor found, as plain loops do", async () => {
    const policy = {
      ...kascade,
      minContext: 0,
      granularity: 4,
      layers: [{ kind: "full" }, { kind: "anchor", k: 24 }, { kind: "reuse", source: 1 }, { kind: "reuse", source: 1, headMap: [1, 1] }],
    };
    const model = madeModel(4, "plain loops");
    const { reuse, steps } = await bound(policy, model);
    let [attended, kept] = [0, 0];
    for (let n = 0; n < 6; n++) {
      model.step(70 + n, 33 - n);
      const outs = steps.map((step) => step.run().out);
      const anchor = plainAttention(model, 1, 4);
      near(outs[0] as Float32Array, plainAttention(model, 0, 4).out);
      near(outs[1] as Float32Array, anchor.out);
      const listed = new Map<string, number[]>();
      for (let row = 0; row < 4; row++) {
        const [b, kvHead] = [Math.floor(row / 2), row % 2];
        const length = model.lengths[b] as number;
        const all = Array.from({ length: Math.ceil(length / 4) }, (_, g) => g);
        const forced = all.filter((g) => g === 0 || (g + 1) * 4 > length - 8);
        const rest = all.filter((g) => !forced.includes(g)).sort((i, j) => anchor.mass(b, kvHead, j) - anchor.mass(b, kvHead, i));
        const list = [...forced, ...rest.slice(0, Math.max(0, 6 - forced.length))];
        listed.set(`${b} ${kvHead}`, list);
        const tokens = list.reduce((sum, g) => sum + Math.min(4, length - 4 * g), 0);
        // Layers 0 and 1 see everything, layer 2 its own list, layer 3 twice that of head 1.
        attended += 2 * length + tokens * (kvHead === 1 ? 3 : 1);
        kept += list.reduce((sum, g) => sum + anchor.mass(b, kvHead, g), 0) / 4;
      }
      near(outs[2] as Float32Array, plainAttention(model, 2, 4, (b, kvHead, g) => listed.get(`${b} ${kvHead}`)?.includes(g) ?? false).out);
      near(outs[3] as Float32Array, plainAttention(model, 3, 4, (b, _, g) => listed.get(`${b} 1`)?.includes(g) ?? false).out);
    }
    const { massKept, ...counters } = reuse.counters;
    expect(counters).toEqual({
      steps: 6,
      denseRuns: 6,
      anchorRuns: 6,
      sparseRuns: 12,
      tokensAttended: attended,
      tokensVisible: 6 * 4 * 2 * 103,
      sparseActive: true,
    });
    expect(massKept).toBeCloseTo(kept / 6, 5);
  });

  it("an anchor that attends to its list gives what a layer with the same keys gives that reuses it", async () => {
    const model = madeModel(3, "attends to its list");
    model.caches[2] = model.caches[1] as Model["caches"][number];
    const rules = (attends: object) => [
      { kind: "anchor", k: 12 },
      { kind: "anchor", k: 24, ...attends },
      { kind: "reuse", source: 1 },
    ];
    const [list, all] = await Promise.all(
      [{ attends: "list" }, {}].map((attends) => bound({ version: 2, granularity: 4, layers: rules(attends) }, model)),
    );
    model.step(70, 33);
    const [lists, everything] = [list, all].map((one) => one?.steps.map((step) => step.run().out.slice())) as [
      Float32Array[],
      Float32Array[],
    ];
    expect(lists[1]).toEqual(lists[2]);
    near(everything[1] as Float32Array, plainAttention(model, 1, 4).out);
    expect(everything[2]).toEqual(lists[2]);
    expect(everything[1]).not.toEqual(lists[1]);
    expect(list?.reuse.counters).toEqual(all?.reuse.counters);
    // Without a layer that reuses, the list of the anchor is still attended to.
    const alone = await bound(
      { version: 2, granularity: 4, layers: [{ kind: "anchor", k: 8, attends: "list" }, { kind: "full" }, { kind: "full" }] },
      model,
    );
    alone.steps[0]?.run();
    expect(alone.reuse.counters).toMatchObject({ sparseActive: true, anchorRuns: 1, sparseRuns: 0 });
  });

  it("with everything listed has the bits of dense attention, whatever the policy", async () => {
    const rules = fc.array(fc.constantFrom("full", "anchor", "list", "reuse"), { minLength: 1, maxLength: 5 });
    await fc.assert(
      fc.asyncProperty(
        rules,
        fc.constantFrom(1, 4, 16, 64),
        fc.boolean(),
        fc.integer({ min: 1, max: 3 }),
        async (kinds, granularity, perHead, refreshEvery) => {
          const layers = kinds.map((kind, layer) => {
            const source = kinds.slice(0, layer).findLastIndex((one) => one === "anchor" || one === "list");
            if (kind === "reuse" && source >= 0) return { kind, source };
            if (kind === "list") return { kind: "anchor", ratio: 1, refreshEvery, attends: "list" };
            return kind === "anchor" ? { kind, ratio: 1, refreshEvery } : { kind: "full" };
          });
          const model = madeModel(layers.length, kinds.join());
          const { reuse, steps } = await bound({ version: 2, layers, granularity, perHead }, model);
          const dense = model.caches.map((cache) =>
            hotset
              .planSync(attention.decode, axes, { keyPages: "f32" })
              .bind({ ...cache, pageTable: model.pageTable, lengths: model.lengths }),
          );
          for (let n = 0; n < 4; n++) {
            model.step(60 + n, n);
            for (const [layer, step] of steps.entries()) {
              const { out, lse } = step.run();
              const wanted = (dense[layer] as (typeof dense)[number]).run();
              expect([...out]).toEqual([...wanted.out]);
              expect([...lse]).toEqual([...wanted.lse]);
            }
          }
          const { tokensAttended, tokensVisible, sparseActive, massKept } = reuse.counters;
          expect(tokensAttended).toBe(tokensVisible);
          // The fourth step is the last one: an anchor is not new in it where 3 is not a multiple of refreshEvery.
          const attendsToLists = layers.some(
            ({ kind, attends }) => kind === "reuse" || attends || (kind === "anchor" && 3 % refreshEvery !== 0),
          );
          expect(sparseActive).toBe(attendsToLists);
          if (layers.some(({ kind }) => kind === "anchor")) expect(massKept).toBeCloseTo(1, 5);
        },
      ),
      { numRuns: 25, seed: 20261121 },
    );
  });

  it("is dense below minContext, and says so", async () => {
    const model = madeModel(5, "short");
    const { reuse, steps } = await bound(kascade, model);
    for (const length of [40, 63]) {
      model.step(length, 10);
      for (const step of steps) step.run();
    }
    expect(reuse.counters).toMatchObject({ steps: 2, denseRuns: 10, anchorRuns: 0, sparseRuns: 0, sparseActive: false });
    expect(reuse.counters.massKept).toBeNaN();
    model.step(64, 10);
    for (const step of steps) step.run();
    expect(reuse.counters).toMatchObject({ steps: 3, denseRuns: 11, anchorRuns: 2, sparseRuns: 2, sparseActive: true });
    expect(reuse.counters.tokensAttended).toBeLessThan(reuse.counters.tokensVisible);
    model.step(63, 11);
    for (const step of steps) step.run();
    expect(reuse.counters).toMatchObject({ denseRuns: 16, sparseActive: false });
  });

  it("keeps a list for refreshEvery steps, with the tokens that came since", async () => {
    const model = madeModel(2, "refresh");
    const { reuse, steps } = await bound(
      {
        layers: [
          { kind: "anchor", k: 8, refreshEvery: 3 },
          { kind: "reuse", source: 0 },
        ],
        granularity: 1,
        recent: 2,
      },
      model,
    );
    const attended: number[] = [];
    for (let n = 0; n < 7; n++) {
      const before = reuse.counters.tokensAttended;
      model.step(50 + n, 20 + n);
      for (const step of steps) step.run();
      attended.push(reuse.counters.tokensAttended - before);
    }
    // Two sequences of two KV heads list 8 tokens at steps 0, 3 and 6, and one more for each token that is new.
    expect(reuse.counters).toMatchObject({ steps: 7, anchorRuns: 3, sparseRuns: 4 + 7 });
    expect(attended).toEqual([0, 1, 2, 3, 4, 5, 6].map((n) => (n % 3 === 0 ? 2 * (70 + 2 * n) + 32 : 2 * (32 + 4 * (n % 3)))));
    // A sequence that is shorter is another one.
    model.step(58, 3);
    for (const step of steps) step.run();
    expect(reuse.counters.anchorRuns).toBe(4);
    reuse.reset();
    model.step(59, 4);
    for (const step of steps) step.run();
    expect(reuse.counters.anchorRuns).toBe(5);
  });

  it("runs asynchronously too", async () => {
    const model = madeModel(5, "async");
    const { steps } = await bound({ ...kascade, minContext: 0 }, model);
    const other = await bound({ ...kascade, minContext: 0 }, model);
    model.step(80, 77);
    for (const [layer, step] of steps.entries())
      expect([...(await step.runAsync()).out]).toEqual([...(other.steps[layer] as (typeof steps)[number]).run().out]);
  });

  it("refuses layers in another order, layers there are not, and head maps of another model", async () => {
    const model = madeModel(5, "order");
    const { reuse, steps } = await bound({ ...kascade, minContext: 0 }, model);
    model.step(70, 70);
    expect(() => steps[2]?.run()).toThrow(
      "expected layer 1, its anchor, to have run before it in this step but received layers in another order",
    );
    for (const step of steps) step.run();
    model.step(71, 71);
    steps[0]?.run();
    expect(() => steps[2]?.run()).toThrow("layer 1, its anchor");
    expect(() =>
      reuse.bind(5, { ...(model.caches[0] as Model["caches"][number]), pageTable: model.pageTable, lengths: model.lengths }),
    ).toThrow("a layer from 0 to 4");
    const policy = parsePolicy({
      layers: [
        { kind: "anchor", k: 8 },
        { kind: "reuse", source: 0, headMap: [0, 1, 2] },
      ],
    });
    await expect(LayerReuse.create(hotset, { policy, axes, keyPages: "f32" })).rejects.toThrow(ShapeError);
  });

  it("passes on a fault, and counts nothing for it", async () => {
    const model = madeModel(2, "fault");
    const { reuse, steps } = await bound(
      {
        layers: [
          { kind: "anchor", k: 8 },
          { kind: "reuse", source: 0 },
        ],
      },
      model,
    );
    model.step(most + 1, 5);
    expect(() => steps[0]?.run()).toThrow(HotsetError);
    expect(reuse.counters).toMatchObject({ anchorRuns: 0, tokensAttended: 0, tokensVisible: 0 });
  });
});
