import { createHotset, DTypeError, HotsetError, kvCache, ShapeError, search, toF16, UnsupportedError } from "@hotset/core";
import { describe, expect, it } from "vitest";

const rows = Float32Array.from({ length: 50 * 8 }, (_, i) => Math.sin(i * 1.7));
const queries = rows.slice(80, 96);

async function refused(work: () => unknown): Promise<HotsetError> {
  try {
    await work();
  } catch (error) {
    if (error instanceof HotsetError) return error;
    throw error;
  }
  throw new Error("it was not refused");
}

describe("one-call form", () => {
  it("solves the axes of flat arrays", async () => {
    const { ids, scores, found, backend, kernel } = await search.scan({ queries, rows, dim: 8, k: 3 });
    expect([ids.length, scores.length, found.length]).toEqual([6, 6, 2]);
    expect([ids[0], ids[3]]).toEqual([10, 11]);
    expect(scores[0]).toBeCloseTo(1, 6);
    expect([backend, kernel]).toEqual(["js", "reference"]);
  });

  it("takes shapes, Float16Array-like bits with a dtype, and Node's Buffer as bytes", async () => {
    const half = await search.scan({ queries, rows: { data: toF16(rows), dtype: "f16", shape: [50, 8] }, k: 1 });
    expect([...half.ids]).toEqual([10, 11]);
    const state = new Uint32Array(8 + 3 * 4);
    await kvCache.poolApply({ state, blocks: 4, commands: Uint32Array.from([0, 0]) });
    expect(state[2]).toBe(3);
  });

  it("reads sub-array views where they lie", async () => {
    const wide = new Float32Array(rows.length + 13);
    wide.set(rows, 5);
    const padded = new Float32Array(queries.length + 3);
    padded.set(queries, 3);
    const { ids } = await search.scan({ queries: padded.subarray(3), rows: wide.subarray(5, 5 + rows.length), dim: 8, k: 2 });
    const { ids: expected } = await search.scan({ queries, rows, dim: 8, k: 2 });
    expect([...ids]).toEqual([...expected]);
  });

  it("writes into the outputs it is given", async () => {
    const ids = new Int32Array(6).fill(7);
    const result = await search.scan({ queries, rows, dim: 8, k: 3, ids });
    expect(result.ids).toBe(ids);
    expect(ids[0]).toBe(10);
  });
});

describe("bad input is refused with what was expected, what was received and what to do", () => {
  const cases: [string, () => unknown, abstract new (...parts: never[]) => HotsetError, RegExp][] = [
    ["k of 0", () => search.scan({ queries, rows, dim: 8, k: 0 }), ShapeError, /k to be a whole number from 1 to 1024 but received 0/],
    [
      "k above count",
      () => search.scan({ queries, rows, dim: 8, k: 51 }),
      ShapeError,
      /expected k at most count but received k = 51, count = 50/,
    ],
    ["k that is no whole number", () => search.scan({ queries, rows, dim: 8, k: 2.5 }), ShapeError, /k to be a whole number/],
    [
      "rows that are not whole",
      () => search.scan({ queries, rows: rows.subarray(1), dim: 8, k: 1 }),
      ShapeError,
      /rows \[count, dim\] to hold whole rows but received 399 values, not a multiple of 8/,
    ],
    [
      "shapes that disagree",
      () => search.scan({ queries: { data: queries, shape: [4, 4] }, rows: { data: rows, shape: [50, 8] }, k: 1 }),
      ShapeError,
      /one size of dim but received 4 in queries and 8 in rows/,
    ],
    [
      "a shape that the array does not fill",
      () => search.scan({ queries, rows: { data: rows, shape: [49, 8] }, k: 1 }),
      ShapeError,
      /392 Float32Array elements but received 400/,
    ],
    [
      "a shape of another rank",
      () => search.scan({ queries, rows: { data: rows, shape: [400] }, dim: 8, k: 1 }),
      ShapeError,
      /rows \[count, dim\] but received a shape of 1 axes/,
    ],
    [
      "an axis that nothing shows",
      () => search.scan({ queries, rows, k: 1 }),
      ShapeError,
      /the size of batch .* Pass batch, or a tensor with its shape/,
    ],
    [
      "a dtype the port does not take",
      () => search.scan({ queries, rows: new Int32Array(400) as never, dim: 8, k: 1 }),
      DTypeError,
      /rows as f32 \(Float32Array\) or f16/,
    ],
    [
      "sixteen bits that may be two dtypes",
      () => search.scan({ queries, rows: new Uint16Array(400), dim: 8, k: 1 }),
      DTypeError,
      /Say which with \{ data, dtype: "f16" \}/,
    ],
    ["a plain array", () => search.scan({ queries: [1, 2, 3] as never, rows, dim: 8, k: 1 }), DTypeError, /Float32Array\.from/],
    ["nothing at all", () => search.scan({ rows, dim: 8, k: 1, batch: 1 } as never), HotsetError, /expected queries/],
    [
      "a metric that is none",
      () => search.scan({ queries, rows, dim: 8, k: 1, metric: "dot" as never }),
      HotsetError,
      /metric to be one of cos, ip, l2 but received "dot"/,
    ],
    [
      "a word that means nothing",
      () => search.scan({ queries, rows, dim: 8, k: 1, metrics: "ip" } as never),
      HotsetError,
      /or backend but received "metrics"/,
    ],
    [
      "scales without i8 rows",
      () => search.scan({ queries, rows, dim: 8, k: 1, rowScale: new Float32Array(50) }),
      UnsupportedError,
      /rowScale only with rows of dtype i8/,
    ],
    ["i8 rows without scales", () => search.scan({ queries, rows: new Int8Array(400), dim: 8, k: 1 }), HotsetError, /expected rowScale/],
    [
      "a backend that is not there",
      () => search.scan({ queries, rows, dim: 8, k: 1, backend: "cuda" }),
      HotsetError,
      /backend cuda but received only js/,
    ],
    [
      "a row pitch that is too small",
      () => search.scan({ queries, rows: { data: rows, shape: [50, 8], rowPitch: 7 }, k: 1 }),
      ShapeError,
      /rowPitch of rows to be a whole number of at least 8/,
    ],
    [
      "a row pitch where rows must be dense",
      () => search.scan({ queries: { data: queries, shape: [2, 8], rowPitch: 9 }, rows, k: 1 }),
      ShapeError,
      /queries in dense rows/,
    ],
    [
      "a block out of range",
      () => kvCache.poolApply({ state: new Uint32Array(20), blocks: 4, commands: Uint32Array.from([1, 9]) }),
      HotsetError,
      /commands\[1\] to be an index the op can use \(below blocks = 4\) but received 9/,
    ],
    [
      "an output over an input",
      () => search.scan({ queries, rows, dim: 8, k: 1, scores: rows.subarray(0, 2) }),
      HotsetError,
      /scores, which is written, to share no memory with rows/,
    ],
  ];
  for (const [name, work, type, message] of cases) {
    it(name, async () => {
      const error = await refused(work);
      expect(error).toBeInstanceOf(type);
      expect(error.message).toMatch(message);
      expect(error.message.startsWith(`${error.where}: expected ${error.expected} but received ${error.received}`)).toBe(true);
    });
  }
});

describe("stated answers", () => {
  const scan = (queries: number[], rows: number[], metric: "cos" | "ip" | "l2", k = rows.length / 2) =>
    search.scan({ queries: Float32Array.from(queries), rows: Float32Array.from(rows), dim: 2, k, metric });

  it("never returns a row whose score is NaN", async () => {
    const { ids, scores, found } = await scan([1, 2], [Number.NaN, 0, 1, 1, 3, 3], "ip");
    expect([...ids]).toEqual([2, 1, -1]);
    expect([...scores]).toEqual([9, 3, Number.NEGATIVE_INFINITY]);
    expect([...found]).toEqual([2]);
  });

  it("finds nothing for a query with a NaN", async () => {
    const { ids, scores, found } = await scan([Number.NaN, 1], [1, 2, 3, 4], "l2");
    expect([...ids, ...scores, ...found]).toEqual([-1, -1, Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY, 0]);
  });

  it("ranks infinite scores like any other", async () => {
    const infinity = Number.POSITIVE_INFINITY;
    expect([...(await scan([1, 1], [1, 1, infinity, 0, -infinity, 0], "ip")).ids]).toEqual([1, 0, 2]);
    expect([...(await scan([1, 1], [infinity, 0, 1, 1], "l2")).ids]).toEqual([1, 0]);
    // Inf / Inf is NaN under cosine.
    expect([...(await scan([1, 1], [infinity, 0, 1, 1], "cos")).ids]).toEqual([1, -1]);
  });

  it("gives a zero vector the cosine 0", async () => {
    const { ids, scores } = await scan([1, 0], [0, 0, -1, 0, 1, 0], "cos");
    expect([...ids]).toEqual([2, 0, 1]);
    expect([...scores]).toEqual([1, 0, -1]);
  });

  it("breaks ties by the lower row", async () => {
    expect([...(await scan([1, 1], [1, 0, 0, 1, 1, 0, 0.5, 0.5], "ip")).ids]).toEqual([0, 1, 2, 3]);
  });
});

describe("createHotset", () => {
  it("lists backends that do not load, with the reason", async () => {
    const hotset = await createHotset({ backends: [{ id: "native", load: () => Promise.reject(new Error("no such processor")) }] });
    expect(hotset.backends.map(({ id }) => id)).toEqual(["js"]);
    expect(hotset.missing).toEqual([{ id: "native", reason: "no such processor" }]);
    const error = await refused(() => hotset.call(search.scan, { queries, rows, dim: 8, k: 1, backend: "native" }));
    expect(error.message).toMatch(/backend native but received it is not available: no such processor/);
  });

  it("refuses to work after dispose", async () => {
    const hotset = await createHotset();
    hotset.dispose();
    expect((await refused(() => hotset.call(search.scan, { queries, rows, dim: 8, k: 1 }))).code).toBe("disposed");
  });
});
