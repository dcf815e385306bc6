import { createHotset, DTypeError, HotsetError, ShapeError, search } from "@hotset/core";
import { Random } from "@hotset/core/testing/cases";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Bounds } from "../src/search/flat-index/bounds.js";
import { encodeRow, lengthOf, meanOf } from "../src/search/flat-index/codes.js";
import { Loose, looseRows } from "../src/search/flat-index/loose.js";
import { prepare } from "../src/search/flat-index/searcher.js";
import { dot, type Metric, scoreOf } from "../src/search/scan/reference.js";
import { bruteForce, fills } from "./flat-index-data.js";

const hotset = await createHotset();
const { FlatIndex } = search;
const metrics = ["cos", "ip", "l2"] as const;
const make = (settings: Partial<search.FlatIndexSettings> & { dim: number }) => new FlatIndex(hotset, { certify: true, ...settings });

/** Compares with brute force: ids, and scores bit for bit. */
async function same(index: search.FlatIndex, vectors: Float32Array, queries: Float32Array, k: number): Promise<void> {
  const hits = index.search(queries, { k });
  const expected = await bruteForce(index.metric, index.dtype, vectors, index.dim, queries, k);
  expect(hits.map(({ ids, scores }) => ({ rows: ids, scores: [...scores] }))).toEqual(expected);
}

describe("FlatIndex never answers otherwise than brute force", () => {
  describe.each(Object.keys(fills))("%s", (name) => {
    it.each(metrics)("%s", async (metric) => {
      const random = new Random(`${name} ${metric}`);
      const [count, dim, batch] = [700, 1 + random.below(40), 6];
      const vectors = (fills[name] as (typeof fills)[string])(random, count, dim);
      const own = vectors.slice(0, 3 * dim);
      const other = (fills[name] as (typeof fills)[string])(random, batch - 3, dim);
      const queries = Float32Array.from([...own, ...other]);
      for (const dtype of ["f32", "f16", "i8"] as const) {
        if (dtype === "f16" && vectors.some((value) => Math.abs(value) > 65000)) continue;
        const index = make({ dim, metric, dtype });
        index.add(vectors);
        for (const k of [1, 7, 40]) await same(index, vectors, queries, k);
        const { certified, fallbacks, scanned, queries: asked } = index.counters;
        expect(certified + fallbacks + scanned).toBe(asked);
        index.dispose();
      }
    });
  });

  it("proves most results of ordinary vectors, from few rows", async () => {
    const random = new Random("ordinary");
    const dim = 64;
    const vectors = (fills.normal as (typeof fills)[string])(random, 3000, dim);
    const queries = (fills.normal as (typeof fills)[string])(random, 8, dim);
    for (const metric of metrics) {
      const index = make({ dim, metric });
      index.add(vectors);
      await same(index, vectors, queries, 10);
      expect(index.counters).toMatchObject({ queries: 8, certified: 8, fallbacks: 0, scanned: 0 });
      expect(index.counters.survivors).toBeLessThan(8 * 150);
    }
  });

  it("falls back where codes cannot tell rows apart, and then leaves the codes alone for a while", async () => {
    const random = new Random("cluster");
    const dim = 24;
    const vectors = (fills["two tight clusters"] as (typeof fills)[string])(random, 3000, dim);
    const index = make({ dim, metric: "l2" });
    index.add(vectors);
    for (let i = 0; i < 12; i++) await same(index, vectors, vectors.slice(i * dim, (i + 1) * dim), 5);
    const { certified, fallbacks, scanned } = index.counters;
    expect({ certified, all: fallbacks + scanned }).toEqual({ certified: 0, all: 12 });
    expect(fallbacks).toBeLessThan(scanned);
  });

  it("proves results of vectors far from the origin, whose codes are taken from their mean", async () => {
    const random = new Random("far");
    const dim = 48;
    const vectors = (fills["far from the origin"] as (typeof fills)[string])(random, 3000, dim);
    const queries = (fills["far from the origin"] as (typeof fills)[string])(random, 5, dim);
    const index = make({ dim, metric: "l2" });
    for (let row = 0; row < 3000; row += 100) index.add(vectors.subarray(row * dim, (row + 100) * dim));
    await same(index, vectors, queries, 10);
    expect(index.counters).toMatchObject({ certified: 5, fallbacks: 0 });
  });

  it("finds a row whose code says nothing of it, and not once it is removed or filtered out", async () => {
    const random = new Random("bad code");
    const dim = 32;
    const vectors = (fills.normal as (typeof fills)[string])(random, 2000, dim);
    // One component takes the whole code; the query has nothing there.
    vectors.fill(10, 700 * dim, 701 * dim);
    vectors[700 * dim] = 1e7;
    const query = new Float32Array(dim).fill(1);
    query[0] = 0;
    const index = make({ dim, metric: "ip" });
    index.add(vectors);
    await same(index, vectors, query, 5);
    expect(index.search(query, { k: 1 })[0]?.ids).toEqual([700]);
    const without = (row: number): boolean => row !== 700;
    const [expected] = await bruteForce("ip", "f32", vectors, dim, query, 5, without);
    expect(index.search(query, { k: 5, filter: (id) => without(id as number) })[0]?.ids).toEqual(expected?.rows);
    index.remove(700);
    expect(index.search(query, { k: 5 })[0]?.ids).toEqual(expected?.rows);
    expect(index.counters).toMatchObject({ certified: 4, fallbacks: 0 });
  });

  it("lets a single row of another size spoil nothing", async () => {
    const random = new Random("outlier");
    const dim = 32;
    const vectors = (fills.normal as (typeof fills)[string])(random, 2000, dim);
    for (let i = 0; i < dim; i++) vectors[1234 * dim + i] = 1e5 * random.normal();
    const index = make({ dim, metric: "l2" });
    index.add(vectors);
    await same(index, vectors, vectors.slice(0, 4 * dim), 10);
    expect(index.counters).toMatchObject({ certified: 4, fallbacks: 0 });
  });
});

describe("bounds", () => {
  /** Rows whose canonical score lies outside the bounds, with every error multiplied by `share`. */
  function violations(metric: Metric, share: number): number {
    const random = new Random(`bounds ${metric}`);
    let outside = 0;
    for (const [name, fill] of Object.entries(fills))
      for (const middle of [false, true]) {
        const dim = 1 + random.below(50);
        const [rows, queries] = [fill(random, 120, dim), fill(random, 4, dim)];
        const row = (r: number): Float64Array => Float64Array.from(rows.subarray(r * dim, (r + 1) * dim));
        const mean = meanOf(metric, 120, dim, row);
        // Any centre will do; the mean is only a good one.
        const centre = middle ? mean : name === "normal" ? mean.map(() => random.normal()) : new Float32Array(dim);
        const codes = new Int8Array(dim);
        const bounds = new Bounds(metric, dim);
        for (let q = 0; q < 4; q++) {
          const query = queries.subarray(q * dim, (q + 1) * dim);
          const prepared = new Float32Array(dim);
          const aim = prepare(metric, query, centre, prepared);
          for (let r = 0; r < 120; r++) {
            const code = encodeRow(metric, row(r), centre, codes, 0);
            const coded = Float64Array.from(codes, (value) => code.scale * value);
            const exact = Float64Array.from(query);
            const score = scoreOf(metric, exact, row(r), dot(exact, exact) * dot(row(r), row(r)));
            const truth = metric === "l2" ? -score : score;
            bounds.aim(aim, code.length, lengthOf(centre));
            bounds.set(scoreOf(metric === "l2" ? "l2" : "ip", Float64Array.from(prepared), coded, 0), code.error * share);
            if (!(bounds.low <= truth && truth <= bounds.high)) outside++;
          }
        }
      }
    return outside;
  }

  it.each(metrics)("hold for every row (%s)", (metric) => expect(violations(metric, 1)).toBe(0));
  it.each(metrics)("would not, were the errors a fifth of what they are (%s)", (metric) =>
    expect(violations(metric, 0.2)).toBeGreaterThan(0),
  );

  it("grow with the score and the error, so that the worst code returned speaks for the rest", () => {
    for (const metric of metrics) {
      const bounds = new Bounds(metric, 64);
      bounds.aim({ length: 3, offset: metric === "l2" ? 0 : -0.7 }, 2, 0.4);
      const high = (score: number, error: number) => {
        bounds.set(Math.fround(score), error);
        return bounds.high;
      };
      fc.assert(
        fc.property(
          fc.double({ min: 0, max: 1e30, noNaN: true }),
          fc.double({ min: 0, max: 1e30, noNaN: true }),
          fc.double({ min: 0, max: 10, noNaN: true }),
          (a, b, error) => {
            const [least, most] = metric === "l2" ? [Math.max(a, b), Math.min(a, b)] : [Math.min(a, b), Math.max(a, b)];
            expect(high(least, error)).toBeLessThanOrEqual(high(most, error));
            expect(high(a, error)).toBeLessThanOrEqual(high(a, error * 2));
          },
        ),
      );
    }
  });
});

describe("the rows that codes lose most of", () => {
  it("are kept apart; the others lose at most `rest`", () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(60), fc.double({ min: 0, max: 1, noNaN: true })), { maxLength: 200 }), (writes) => {
        const loose = new Loose();
        const errors = new Map<number, number>();
        for (const [row, error] of writes) {
          loose.add(row, error);
          errors.set(row, error);
        }
        expect(loose.rows.length).toBeLessThanOrEqual(looseRows);
        expect(new Set(loose.rows).size).toBe(loose.rows.length);
        for (const [row, error] of errors) if (!loose.rows.includes(row)) expect(error).toBeLessThanOrEqual(loose.rest);
      }),
    );
  });
});

describe("vectors come and go", () => {
  it("as in a model that is a list", async () => {
    const dim = 5;
    const vector = fc.array(fc.integer({ min: -3, max: 3 }), { minLength: dim, maxLength: dim });
    const command = fc.oneof(
      fc.record({
        kind: fc.constant("add" as const),
        ids: fc.uniqueArray(fc.integer({ min: 0, max: 60 }), { maxLength: 25 }),
        seed: fc.nat(),
      }),
      fc.record({ kind: fc.constant("remove" as const), ids: fc.array(fc.integer({ min: 0, max: 60 }), { maxLength: 25 }) }),
      fc.record({ kind: fc.constant("update" as const), id: fc.integer({ min: 0, max: 60 }), vector }),
      fc.record({ kind: fc.constant("compact" as const) }),
      fc.record({
        kind: fc.constant("search" as const),
        vector,
        k: fc.integer({ min: 1, max: 12 }),
        modulus: fc.integer({ min: 1, max: 3 }),
      }),
    );
    await fc.assert(
      fc.asyncProperty(
        fc.array(command, { maxLength: 30 }),
        fc.constantFrom(...metrics),
        fc.boolean(),
        async (commands, metric, strings) => {
          const name = (id: number): search.Id => (strings ? `v${id}` : id);
          const index = make({ dim, metric });
          const model: { id: search.Id; vector: number[] }[] = [];
          for (const step of commands) {
            if (step.kind === "add") {
              const random = new Random(`${step.seed}`);
              const ids = step.ids.map(name);
              const vectors = ids.map(() => Array.from({ length: dim }, () => random.below(7) - 3));
              const known = ids.some((id) => model.some((entry) => entry.id === id));
              if (known) expect(() => index.add(vectors.flat(), ids)).toThrow(HotsetError);
              else {
                index.add(vectors.flat(), ids);
                model.push(...ids.map((id, i) => ({ id, vector: vectors[i] as number[] })));
              }
            } else if (step.kind === "remove") {
              const gone = new Set(step.ids.map(name));
              const before = model.length;
              model.splice(0, before, ...model.filter(({ id }) => !gone.has(id)));
              expect(index.remove(gone)).toBe(before - model.length);
            } else if (step.kind === "update") {
              const entry = model.find(({ id }) => id === name(step.id));
              if (entry) {
                index.update(entry.id, step.vector);
                entry.vector = step.vector;
              } else expect(() => index.update(name(step.id), step.vector)).toThrow(HotsetError);
            } else if (step.kind === "compact") {
              index.compact();
              expect(index.dead).toBe(0);
            } else {
              const passes = (id: search.Id) => Number(String(id).replace("v", "")) % step.modulus === 0;
              const [hit] = index.search(step.vector, { k: step.k, ...(step.modulus > 1 ? { filter: passes } : {}) });
              const rows = Float32Array.from(model.flatMap((entry) => entry.vector));
              const [expected] = await bruteForce(metric, "f32", rows, dim, Float32Array.from(step.vector), step.k, (row) =>
                passes(model[row]?.id as search.Id),
              );
              expect(hit?.ids).toEqual(expected?.rows.map((row) => model[row]?.id));
              expect([...(hit?.scores ?? [])]).toEqual(expected?.scores);
            }
            expect(index.size).toBe(model.length);
            expect(index.dead).toBeLessThanOrEqual(Math.floor((index.size + index.dead) / 4));
          }
          for (const { id, vector: values } of model) expect([...(index.get(id) ?? [])]).toEqual(values.map((value) => value + 0));
          expect(index.has(name(99))).toBe(false);
          index.dispose();
        },
      ),
      { numRuns: 150, seed: 4 },
    );
  });

  it("with a filter made once, which ends with the next change", async () => {
    const random = new Random("filter");
    const dim = 16;
    const vectors = (fills.normal as (typeof fills)[string])(random, 2500, dim);
    const index = make({ dim });
    index.add(vectors);
    const filter = index.filter((id) => Number(id) % 5 !== 0);
    expect(filter.size).toBe(2000);
    const query = vectors.slice(0, dim);
    const [hit] = index.search(query, { filter });
    const [expected] = await bruteForce("cos", "f32", vectors, dim, query, 10, (row) => row % 5 !== 0);
    expect(hit?.ids).toEqual(expected?.rows);
    expect(index.counters.certified).toBe(1);
    index.remove(7);
    expect(() => index.search(query, { filter })).toThrow(/made before the index changed/);
    const other = make({ dim });
    other.add(vectors);
    expect(() => other.search(query, { filter: index.filter(() => true) })).toThrow(/of another index/);
  });

  it("and memory goes with them", () => {
    const dim = 32;
    const index = make({ dim });
    const ids = index.add(new Float32Array(20_000 * dim).fill(1));
    const full = index.bytes;
    expect(full).toBeGreaterThanOrEqual(20_000 * (4 * dim + dim + 8));
    index.remove(ids.slice(500));
    expect(index.dead).toBe(0);
    expect(index.bytes).toBeLessThan(full / 30);
    index.dispose();
    expect(index.bytes).toBe(0);
  });
});

describe("bad input is refused, and changes nothing", () => {
  const dim = 4;
  const index = make({ dim, dtype: "f16" });
  index.add([1, 2, 3, 4, 5, 6, 7, 8], ["a", "b"]);
  const row = [1, 1, 1, 1];
  const cases: [string, () => unknown, abstract new (...parts: never[]) => HotsetError, RegExp][] = [
    ["half a vector", () => index.add([1, 2, 3], ["c"]), ShapeError, /multiple of dim = 4 numbers but received 3/],
    [
      "a NaN",
      () => index.add([...row, 1, Number.NaN, 1, 1], ["c", "d"]),
      HotsetError,
      /finite numbers .* received NaN in row 1, component 1/,
    ],
    ["an infinity", () => index.add([1, 1, 1, 1e39], ["c"]), HotsetError, /finite .* received 1e\+39 in row 0, component 3/],
    ["beyond f16", () => index.add([1, 1, 1, 70000], ["c"]), HotsetError, /below 65520 .* received 70000 in row 0/],
    ["too few ids", () => index.add([...row, ...row], ["c"]), HotsetError, /2 ids, one a row but received 1/],
    ["no ids among strings", () => index.add(row), HotsetError, /ids, as the index's rows are named by strings/],
    ["an id of another kind", () => index.add(row, [3]), DTypeError, /ids of one kind, strings but received 3/],
    ["an id that is a fraction", () => make({ dim }).add(row, [0.5]), DTypeError, /whole numbers up to 2\^53 but received 0.5/],
    ["an id that is there", () => index.add([...row, ...row], ["c", "a"]), HotsetError, /received "a" again. Use update/],
    ["an id twice", () => index.add([...row, ...row], ["c", "c"]), HotsetError, /received "c" again/],
    ["text", () => index.add("text" as never, ["c"]), DTypeError, /numbers: a typed array or an array but received "text"/],
    ["an update of nothing", () => index.update("z", row), HotsetError, /an id of the index but received "z"/],
    ["an update by two rows", () => index.update("a", [...row, ...row]), ShapeError, /4 numbers but received 8/],
    ["an update by NaN", () => index.update("a", [1, Number.NaN, 1, 1]), HotsetError, /NaN in row 0, component 1/],
    ["a query of NaN", () => index.search([1, Number.NaN, 1, 1]), HotsetError, /NaN in row 0, component 1/],
    ["k of 0", () => index.search(row, { k: 0 }), ShapeError, /k to be a whole number from 1 to 1024 but received 0/],
    ["k of 1025", () => index.search(row, { k: 1025 }), ShapeError, /from 1 to 1024 but received 1025/],
    ["dim of 0", () => make({ dim: 0 }), ShapeError, /dim to be a whole number from 1 to 65536/],
    ["another metric", () => make({ dim, metric: "dot" as never }), HotsetError, /a metric of cos, ip, l2 but received "dot"/],
    ["another dtype", () => make({ dim, dtype: "f64" as never }), DTypeError, /a dtype of f32, f16, i8 but received "f64"/],
    ["another backend", () => make({ dim, backend: "abacus" }), HotsetError, /abacus/],
  ];
  it.each(cases)("%s", (_, work, kind, message) => {
    expect(work).toThrow(kind);
    expect(work).toThrow(message);
    expect([index.size, index.dead, [...index.ids()]]).toEqual([2, 0, ["a", "b"]]);
    expect([...(index.get("a") ?? [])]).toEqual([1, 2, 3, 4]);
  });

  it("an index that was disposed", () => {
    const gone = make({ dim });
    gone.dispose();
    expect(() => gone.search(row)).toThrow(/a live index but received one that was disposed/);
  });

  it("an empty index, no queries, and k above the size have an answer", () => {
    const empty = make({ dim });
    expect(empty.search(row)).toEqual([{ ids: [], scores: new Float32Array(0) }]);
    expect(empty.add([])).toEqual([]);
    expect(index.search([])).toEqual([]);
    expect(index.search(row, { k: 50 })[0]?.ids.length).toBe(2);
    expect(index.search(new Float32Array(dim))[0]).toEqual({ ids: ["a", "b"], scores: new Float32Array(2) });
  });
});
