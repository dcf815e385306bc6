import { describe, expect, it } from "vitest";
import { attention, createHotset, kvCache } from "../src/index.js";
import { Random } from "../src/testing/random.js";

const { append, compact, freedPages, snapKv, snapKvMasses, streamingLlm } = kvCache;

describe("StreamingLLM", () => {
  it("keeps sinks and the last tokens, in each head", () => {
    const { kept, keptCount, maxKept } = streamingLlm({ length: 10, kvHeads: 2, budget: 6, sinks: 2 });
    expect([[...kept], [...keptCount], maxKept]).toEqual([[0, 1, 6, 7, 8, 9, 0, 1, 6, 7, 8, 9], [6, 6], 6]);
    expect([...streamingLlm({ length: 3, kvHeads: 1, budget: 6, sinks: 2 }).kept]).toEqual([0, 1, 2]);
    expect(streamingLlm({ length: 0, kvHeads: 1, budget: 9 }).maxKept).toBe(0);
  });

  it("refuses a budget without room", () => {
    expect(() => streamingLlm({ length: 9, kvHeads: 1, budget: 4 })).toThrow(/expected a budget of at least 5, one more than the 4 sinks/);
    expect(() => streamingLlm({ length: 9, kvHeads: 0, budget: 9 })).toThrow(/kvHeads of at least 1/);
    expect(() => streamingLlm({ length: -1, kvHeads: 1, budget: 9 })).toThrow(/a length of at least 0/);
  });
});

describe("SnapKV", () => {
  const random = new Random("snap");

  it("masses are those of a plain softmax, and sum to the share that is not in the window", () => {
    const [window, queryHeads, kvHeads, headDim, length] = [3, 4, 2, 5, 11];
    const queries = random.values(window * queryHeads * headDim, () => 2 * random.normal());
    const keys = random.values(kvHeads * length * headDim, () => random.normal());
    const masses = snapKvMasses({ queries, keys, window, queryHeads, kvHeads, headDim, length });
    for (let kv = 0; kv < kvHeads; kv++)
      for (let t = 0; t < length - window; t++) {
        const parts: number[] = [];
        for (let q = 0; q < window; q++)
          for (const h of [2 * kv, 2 * kv + 1]) {
            const dot = (token: number) => {
              const key = keys.subarray((kv * length + token) * headDim, (kv * length + token + 1) * headDim);
              return key.reduce((sum, k, i) => sum + k * (queries[(q * queryHeads + h) * headDim + i] as number), 0) / Math.sqrt(headDim);
            };
            const all = Array.from({ length: length - window + q + 1 }, (_, token) => Math.exp(dot(token)));
            parts.push((all[t] as number) / all.reduce((a, b) => a + b));
          }
        expect(masses[kv * (length - window) + t]).toBeCloseTo(parts.reduce((a, b) => a + b) / parts.length, 12);
      }
  });

  it("keeps the best after pooling, the window, and the earlier of equals", () => {
    const masses = [0, 0, 9, 0, 0, 0, 1, 0, /* head 1 */ 1, 1, 1, 1, 1, 1, 1, 1];
    const settings = { masses, length: 10, kvHeads: 2, window: 2, budget: 5 };
    expect([...snapKv({ ...settings, kernel: 1 }).kept]).toEqual([0, 2, 6, 8, 9, 0, 1, 2, 8, 9]);
    // Pooled over 3: head 0 has 3 at 1, 2, 3; head 1 has less at both ends.
    expect([...snapKv({ ...settings, kernel: 3 }).kept]).toEqual([1, 2, 3, 8, 9, 1, 2, 3, 8, 9]);
    expect([...snapKv({ ...settings, budget: 10 }).keptCount]).toEqual([10, 10]);
  });

  it("agrees with sorting all pairs, on many sizes, with ties and NaN", () => {
    for (let n = 0; n < 300; n++) {
      const [kvHeads, window, before] = [1 + random.below(3), 1 + random.below(4), random.below(30)];
      const budget = window + random.below(before + 3);
      const kernel = random.pick([1, 3, 5, 7]);
      const masses = Float64Array.from({ length: kvHeads * before }, () => (random.uniform() < 0.05 ? Number.NaN : random.below(4)));
      const { kept, maxKept } = snapKv({ masses, length: before + window, kvHeads, budget, window, kernel });
      expect(maxKept).toBe(Math.min(budget, before + window));
      for (let head = 0; head < kvHeads; head++) {
        const own = masses.subarray(head * before, (head + 1) * before);
        const score = (t: number) => {
          let sum = 0;
          for (let d = -(kernel - 1) / 2; d <= (kernel - 1) / 2; d++) sum += own[t + d] ?? 0;
          return Number.isNaN(sum) ? Number.NEGATIVE_INFINITY : sum;
        };
        const list = [...kept.subarray(head * maxKept, (head + 1) * maxKept)];
        expect(list).toEqual([...new Set(list)].sort((a, b) => a - b));
        expect(list.slice(-window)).toEqual(Array.from({ length: window }, (_, i) => before + i));
        const chosen = list.slice(0, -window);
        for (const t of chosen)
          for (let other = 0; other < before; other++)
            if (!chosen.includes(other)) expect(score(t) > score(other) || (score(t) === score(other) && t < other)).toBe(true);
      }
    }
  });

  it("refuses what does not fit", () => {
    const fine = { masses: [1, 2], length: 4, kvHeads: 1, window: 2, budget: 3 };
    expect(() => snapKv({ ...fine, budget: 1 })).toThrow(/expected a budget of at least 2, the window, but received 1/);
    expect(() => snapKv({ ...fine, masses: [1] })).toThrow(/expected 2 masses but received 1/);
    expect(() => snapKv({ ...fine, kernel: 4 })).toThrow(/an odd kernel/);
    expect(() => snapKv({ ...fine, length: 1 })).toThrow(/a length of at least 2, the window/);
    const shape = { queries: new Float32Array(4), keys: new Float32Array(12), window: 1, queryHeads: 2, kvHeads: 1, headDim: 2, length: 6 };
    expect(snapKvMasses(shape).length).toBe(5);
    expect(() => snapKvMasses({ ...shape, queryHeads: 3, kvHeads: 2 })).toThrow(/queryHeads a multiple of kvHeads/);
    expect(() => snapKvMasses({ ...shape, keys: new Float32Array(11) })).toThrow(/expected 12 keys but received 11/);
  });
});

describe("eviction frees memory", () => {
  it("decode over the compacted pages is decode over the kept tokens", async () => {
    const random = new Random("evict");
    const hotset = await createHotset();
    const [kvHeads, queryHeads, headDim, pageSize, length] = [2, 4, 8, 4, 30];
    const pages = 9;
    const table = [7, 2, 5, 0, 8, 3, 1, 4];
    const keys = random.values(length * kvHeads * headDim, () => random.normal());
    const values = random.values(length * kvHeads * headDim, () => random.normal());
    const slots = Int32Array.from({ length }, (_, t) => (table[Math.floor(t / pageSize)] as number) * pageSize + (t % pageSize));
    const keyPages = new Float32Array(pages * kvHeads * pageSize * headDim);
    const valuePages = new Float32Array(keyPages.length);
    const sizes = { kvHeads, headDim, valueDim: headDim, pages, pageSize };
    await hotset.call(append, { ...sizes, tokens: length, keys, values, slots, keyPages, valuePages });

    const masses = Float64Array.from({ length: kvHeads * (length - 4) }, () => random.uniform());
    const plan = snapKv({ masses, length, kvHeads, window: 4, budget: 11 });
    const pageTable = Int32Array.from(table);
    const shape = { ...sizes, batch: 1, maxPages: table.length };
    await hotset.call(compact, { ...shape, ...plan, pageTable, lengths: Int32Array.of(length), keyPages, valuePages });
    const freed = freedPages(table, plan, pageSize);
    expect(freed).toEqual([0, 8, 3, 1, 4]);
    // What lies in freed pages is nobody's: decode must not see it.
    const rows = kvHeads * pageSize * headDim;
    for (const page of freed) {
      keyPages.fill(Number.NaN, page * rows, (page + 1) * rows);
      valuePages.fill(Number.NaN, page * rows, (page + 1) * rows);
    }
    const queries = random.values(queryHeads * headDim, () => random.normal());
    const lengths = Int32Array.of(plan.maxKept);
    const { out } = await hotset.call(attention.decode, { ...shape, queryHeads, queries, keyPages, valuePages, pageTable, lengths });
    for (let h = 0; h < queryHeads; h++) {
      const kv = Math.floor(h / 2);
      const tokens = [...plan.kept.subarray(kv * 11, (kv + 1) * 11)];
      const row = (of: Float32Array, t: number) => of.subarray((t * kvHeads + kv) * headDim, (t * kvHeads + kv + 1) * headDim);
      const query = queries.subarray(h * headDim, (h + 1) * headDim);
      const weights = tokens.map((t) =>
        Math.exp(row(keys, t).reduce((sum, k, i) => sum + k * (query[i] as number), 0) / Math.sqrt(headDim)),
      );
      const total = weights.reduce((a, b) => a + b);
      for (let i = 0; i < headDim; i++) {
        const wanted = tokens.reduce((sum, t, k) => sum + ((weights[k] as number) / total) * (row(values, t)[i] as number), 0);
        expect(out[h * headDim + i]).toBeCloseTo(wanted, 5);
      }
    }
    hotset.dispose();
  });
});
