/** LayerReuse over batches: sequences beside each other, tokens that are decoded together, and lists from elsewhere. */
import { attention, createHotset, FormatError, type Hotset, HotsetError, ShapeError } from "@hotset/core";
import { Random } from "@hotset/core/testing";
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { expectSequencesAlone } from "./layer-reuse-batch.js";

const { LayerReuse, checkLists, parsePolicy, speculativeRows } = attention;
let hotset: Hotset;
beforeAll(async () => {
  hotset = await createHotset();
});

const sizes = { queryHeads: 4, kvHeads: 2, headDim: 8, valueDim: 8, pages: 16, pageSize: 8, maxPages: 8 };
const random = new Random("batches");
const pages = () => random.values(sizes.pages * sizes.kvHeads * sizes.pageSize * 8, () => random.normal());
const queriesOf = (batch: number) => random.values(batch * sizes.queryHeads * 8, () => random.normal());

describe("LayerReuse over a batch", () => {
  it("gives each sequence the lists and bits that it has alone, whatever its neighbours do", () => expectSequencesAlone());

  it("makes lists of all anew where one place has another sequence, and only then", async () => {
    const policy = parsePolicy({
      layers: [
        { kind: "anchor", k: 8, refreshEvery: 5 },
        { kind: "reuse", source: 0 },
      ],
      granularity: 1,
    });
    const axes = { ...sizes, batch: 3, pages: 24 };
    const reuse = await LayerReuse.create(hotset, { policy, axes, keyPages: "f32" });
    const lengths = new Int32Array(3);
    const cache = () => ({
      queries: queriesOf(3),
      keyPages: random.values(24 * 2 * 8 * 8, () => random.normal()),
      valuePages: random.values(24 * 2 * 8 * 8, () => random.normal()),
      pageTable: Int32Array.from({ length: 24 }, (_, i) => i),
      lengths,
    });
    const steps = [0, 1].map((layer) => reuse.bind(layer, cache()));
    const anchorsAfter = (...now: number[]): number => {
      lengths.set(now);
      for (const step of steps) step.run();
      return reuse.counters.anchorRuns;
    };
    expect(anchorsAfter(30, 12, 0)).toBe(1);
    expect(anchorsAfter(31, 13, 0)).toBe(1);
    // It ends: its list is of no sequence. Another begins in an empty place, and all of it is listed as it grows.
    expect(anchorsAfter(32, 0, 1)).toBe(2);
    expect(anchorsAfter(33, 0, 2)).toBe(2);
    // A longer one in a place that was not empty looks like growth, which a list has room for: it must be told.
    reuse.reset(2);
    expect(anchorsAfter(34, 0, 3)).toBe(3);
    expect(reuse.listed(1, 2)).toEqual(Int32Array.of(0, 1, 2));
    // One that no list has room for needs no telling.
    expect(anchorsAfter(35, 60, 4)).toBe(4);
    expect(reuse.listed(0, 1)?.length).toBe(8);
    expect(reuse.listed(0, 1)?.at(-1)).toBe(59);
    expect(() => reuse.reset(3)).toThrow("a place from 0 to 2 but received 3");
    expect(() => reuse.listed(2, 0)).toThrow("a layer from 0 to 1");
    expect(() => reuse.listed(1, 0, 2)).toThrow("a kvHead from 0 to 1");
  });

  it("counts nothing for a batch of empty places, and gives 0", async () => {
    const policy = parsePolicy({
      version: 2,
      layers: [
        { kind: "anchor", k: 8, attends: "list" },
        { kind: "reuse", source: 0 },
      ],
    });
    const reuse = await LayerReuse.create(hotset, { policy, axes: { ...sizes, batch: 2 }, keyPages: "f32" });
    const given = { pageTable: new Int32Array(16), lengths: new Int32Array(2) };
    const steps = [0, 1].map((layer) => reuse.bind(layer, { queries: queriesOf(2), keyPages: pages(), valuePages: pages(), ...given }));
    for (const { outputs } of steps) outputs.out.fill(7);
    const outs = steps.map((step) => step.run().out);
    for (const out of outs) expect(out.every((value) => value === 0)).toBe(true);
    expect(reuse.counters).toMatchObject({ tokensAttended: 0, tokensVisible: 0, massKept: 1 });
  });
});

describe("speculativeRows", () => {
  const policy = parsePolicy({
    layers: [
      { kind: "anchor", k: 12 },
      { kind: "reuse", source: 0, headMap: [1, 0] },
    ],
    granularity: 2,
    sink: 2,
    recent: 3,
    minContext: 20,
  });

  it("has a list for each row, that of the row alone, and not their union", async () => {
    const [sequences, rows] = [2, 3];
    const pageTable = Int32Array.from({ length: sequences * sizes.maxPages }, (_, i) => (i * 5) % sizes.pages);
    const lengths = new Int32Array(sequences);
    const counts = new Int32Array(sequences);
    const batch = sequences * rows;
    const of = { rows, pageTable, lengths, counts };
    const expanded = speculativeRows({ ...of, lengths: lengths.fill(rows) }, undefined);
    const caches = [0, 1].map(() => ({ queries: queriesOf(batch), keyPages: pages(), valuePages: pages() }));
    const settings = { policy, keyPages: "f32", tokensPerStep: rows } as const;
    const together = await LayerReuse.create(hotset, { ...settings, axes: { ...sizes, batch } });
    const steps = caches.map((cache, layer) => together.bind(layer, { ...cache, ...expanded }));
    const each = await Promise.all(
      Array.from({ length: batch }, async (_, row) => {
        const reuse = await LayerReuse.create(hotset, { ...settings, axes: { ...sizes, batch: 1 } });
        const [own, table] = [new Int32Array(1), new Int32Array(sizes.maxPages)];
        const bound = caches.map(({ queries, ...cache }, layer) => {
          const size = queries.length / batch;
          return reuse.bind(layer, { ...cache, queries: queries.subarray(row * size, (row + 1) * size), pageTable: table, lengths: own });
        });
        return { reuse, own, table, bound };
      }),
    );
    let differ = 0;
    // A sequence grows by what was accepted. The second one is short at first, ends, and another takes its place.
    const script: [now: number[], drafted: number[]][] = [
      [
        [40, 18],
        [3, 3],
      ],
      [
        [42, 21],
        [3, 2],
      ],
      [
        [45, 0],
        [3, 0],
      ],
      [
        [46, 22],
        [1, 3],
      ],
      [
        [49, 25],
        [3, 3],
      ],
      [
        [52, 28],
        [3, 3],
      ],
    ];
    for (const [now, drafted] of script) {
      lengths.set(now);
      counts.set(drafted);
      expect(speculativeRows(of, expanded)).toBe(expanded);
      for (const [row, { own, table }] of each.entries()) {
        const s = Math.floor(row / rows);
        const r = row % rows;
        own[0] = r < (drafted[s] as number) ? (now[s] as number) - (drafted[s] as number) + r + 1 : 0;
        table.set(pageTable.subarray(s * sizes.maxPages, (s + 1) * sizes.maxPages));
      }
      for (const { queries } of caches) queries.set(queriesOf(batch));
      for (const [layer, whole] of steps.entries()) {
        const { out } = whole.run();
        for (const [row, { bound, reuse, own }] of each.entries()) {
          const single = (bound[layer] as (typeof steps)[number]).run().out;
          expect([...out.subarray(row * single.length, (row + 1) * single.length)]).toEqual([...single]);
          for (const head of [0, 1]) if (own[0]) expect(together.listed(layer, row, head)).toEqual(reuse.listed(layer, 0, head));
        }
        const lists = [0, 1, 2].map((row) => together.listed(layer, row)?.join());
        differ += Number(new Set(lists).size > 1);
        for (const row of [0, 1, 2]) expect(together.listed(layer, row)?.length ?? 0).toBeLessThanOrEqual(12);
      }
    }
    expect(differ).toBeGreaterThan(6);
    const sum = each.reduce((all, { reuse }) => all + reuse.counters.tokensAttended, 0);
    expect(together.counters.tokensAttended).toBe(sum);
  });

  it("leaves lists room for all tokens of the steps that they serve", async () => {
    const anchorRuns = async (tokensPerStep: number): Promise<number> => {
      const once = { ...policy, layers: policy.layers.map((rule) => (rule.kind === "anchor" ? { ...rule, refreshEvery: 4 } : rule)) };
      const reuse = await LayerReuse.create(hotset, { policy: once, axes: { ...sizes, batch: 4 }, keyPages: "f32", tokensPerStep });
      const lengths = Int32Array.of(28);
      const pageTable = Int32Array.from({ length: sizes.maxPages }, (_, i) => i);
      const expanded = speculativeRows({ pageTable, lengths, rows: 4 });
      const step = reuse.bind(0, { queries: queriesOf(4), keyPages: pages(), valuePages: pages(), ...expanded });
      for (let n = 0; n < 8; n++) {
        speculativeRows({ pageTable, lengths: Int32Array.of(28 + 4 * n), rows: 4 }, expanded);
        step.run();
      }
      return reuse.counters.anchorRuns;
    };
    expect([await anchorRuns(4), (await anchorRuns(1)) > 2]).toEqual([2, true]);
    for (const wrong of [0, 1.5]) await expect(anchorRuns(wrong)).rejects.toThrow("tokensPerStep: a whole number of at least 1");
  });

  it.each([
    [{ rows: 0 }, HotsetError, "rows: a whole number of at least 1 but received 0"],
    [{ lengths: new Int32Array() }, ShapeError, "a row of pageTable for each length"],
    [{ pageTable: new Int32Array(5) }, ShapeError, "5 and 2"],
    [{ counts: new Int32Array(3) }, ShapeError, "2 counts, one for each sequence but received 3"],
    [{ counts: Int32Array.of(1, 4) }, HotsetError, "sequence 1: expected 0 to 3 tokens of this step, within its length 9 but received 4"],
    [{ lengths: Int32Array.of(2, 9) }, HotsetError, "sequence 0: expected 0 to 3 tokens of this step, within its length 2 but received 3"],
  ])("refuses %j", (other, kind, message) => {
    const run = () => speculativeRows({ pageTable: new Int32Array(16), lengths: Int32Array.of(8, 9), rows: 3, ...other });
    expect(run).toThrow(kind as typeof HotsetError);
    expect(run).toThrow(message);
  });

  it("refuses arrays of other sizes to write into", () => {
    const into = { pageTable: new Int32Array(16), lengths: new Int32Array(5) };
    expect(() => speculativeRows({ pageTable: new Int32Array(16), lengths: Int32Array.of(8, 9), rows: 3 }, into)).toThrow(
      "into: expected pageTable [6, 8] and lengths [6] but received 16 and 5 entries",
    );
  });
});

describe("a policy that no parser has seen", () => {
  const anchor = { kind: "anchor", k: 8, refreshEvery: 1 } as const;
  const rest = { granularity: 4, perHead: true, sink: 0, recent: 1, minContext: 0, score: "mass" } as const;
  it.each<[string, attention.LayerRule[], new (...parts: never[]) => HotsetError, string, object?]>([
    ["a later source", [{ kind: "reuse", source: 1 }, anchor], FormatError, "layers[0].source: expected a layer before 0 but received 1"],
    ["itself as source", [anchor, { kind: "reuse", source: 1 }], FormatError, "layers[1].source: expected a layer before 1"],
    ["a source that is full", [{ kind: "full" }, { kind: "reuse", source: 0 }], FormatError, "an anchor, which makes a list"],
    [
      "a chain of sources",
      [anchor, { kind: "reuse", source: 0 }, { kind: "reuse", source: 1 }],
      FormatError,
      "layer 1, which is a reuse layer itself",
    ],
    [
      "a head that there is not",
      [anchor, { kind: "reuse", source: 0, headMap: [0, 2] }],
      FormatError,
      "headMap[1]: expected a whole number from 0 to 1",
    ],
    ["too few heads", [anchor, { kind: "reuse", source: 0, headMap: [0] }], ShapeError, "headMap of layer 1: expected 2 KV heads"],
    ["heads of one list", [anchor, { kind: "reuse", source: 0, headMap: [0, 1] }], FormatError, "perHead", { perHead: false }],
    [
      "k above the context",
      [{ ...anchor, k: 65 }],
      ShapeError,
      "k of layer 0: expected at most the 64 tokens that the cache has of a sequence but received 65",
    ],
    ["k of 0", [{ ...anchor, k: 0 }], FormatError, "layers[0].k"],
    ["a share above 1", [{ kind: "anchor", ratio: 1.5, refreshEvery: 1 }], FormatError, "layers[0].ratio"],
    ["no layers", [], FormatError, "a list of 1 to 65536 layers"],
    ["half a granule", [anchor], FormatError, "granularity", { granularity: 0.5 }],
  ])("with %s is refused", async (_, layers, kind, message, other = {}) => {
    const made = LayerReuse.create(hotset, { policy: { ...rest, layers, ...other }, axes: { ...sizes, batch: 1 }, keyPages: "f32" });
    await expect(made).rejects.toThrow(kind);
    await expect(made).rejects.toThrow(message);
  });

  it("with all of the cache listed is none", async () => {
    const policy = { ...rest, layers: [{ ...anchor, k: 64 }] };
    await expect(LayerReuse.create(hotset, { policy, axes: { ...sizes, batch: 1 }, keyPages: "f32" })).resolves.toBeDefined();
  });
});

describe("checkLists", () => {
  const where = { lengths: Int32Array.of(9, 0, 4), granularity: 4, lists: 1 };
  it.each([
    [[0, 0, -1], "list 0 of sequence 0: entry 1: expected another granule than entry 0: each is listed once but received 0"],
    [[2, 1, -1], "entry 1: expected a granule above 2, that of entry 0: lists are ascending but received 1"],
    [[0, 3, -1], "entry 1: expected a granule below 3: 9 tokens by 4 but received 3"],
    [[0, -2, -1], "entry 1: expected a granule below 3: 9 tokens by 4 but received -2"],
    [[0, -1, 2], "entry 1: expected a granule: entry 2 is one, and -1 stands behind all of them but received -1"],
  ])("refuses %j", (list, message) => {
    const run = () => checkLists(Int32Array.from([...list, -1, -1, -1, 0, -1, -1]), where);
    expect(run).toThrow(HotsetError);
    expect(run).toThrow(message);
    expect(() => checkLists(Int32Array.from([0, 1, 2, -1, -1, -1, 0, -1, -1]), where)).not.toThrow();
  });

  it("refuses an entry of an empty sequence, and lists that are not all there", () => {
    expect(() => checkLists(Int32Array.of(0, 1, 0, -1, 0, -1), where)).toThrow("list 0 of sequence 1: entry 0");
    expect(() => checkLists(new Int32Array(7), where)).toThrow(ShapeError);
    expect(() => checkLists(new Int32Array(6), { ...where, granularity: 0 })).toThrow("granularity");
  });

  it("agrees with the definition for any list", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: -2, max: 6 }), { minLength: 1, maxLength: 6 }), (list) => {
        const entries = list.filter((entry, i) => entry !== -1 || list.slice(i).some((later) => later !== -1));
        const sound = entries.every((entry, i) => entry >= 0 && entry < 5 && (i === 0 || entry > (entries[i - 1] as number)));
        const run = () => checkLists(Int32Array.from(list), { lengths: Int32Array.of(18), granularity: 4, lists: 1 });
        if (sound) expect(run).not.toThrow();
        else expect(run).toThrow(HotsetError);
      }),
      { numRuns: 2000, seed: 3 },
    );
  });

  it("takes what select makes", async () => {
    const axes = { batch: 3, heads: 2, granules: 16, granularity: 4, lists: 2, k: 5 };
    const scores = random.values(96, () => random.uniform());
    const { selected } = hotset
      .planSync(attention.select, axes, {})
      .bind({ scores, lengths: Int32Array.of(64, 3, 33) })
      .run();
    expect(() => checkLists(selected, { lengths: Int32Array.of(64, 3, 33), granularity: 4, lists: 2 })).not.toThrow();
  });
});
