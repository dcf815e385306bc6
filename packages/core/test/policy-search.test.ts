/** The searches against brute force over all plans: the exact ones must find the optimum, ties included. */
import { attention, HotsetError } from "@hotset/core";
import { Random } from "@hotset/core/testing";
import { describe, expect, it } from "vitest";

const { anchorsOf, repairPlan, searchGreedy, searchHylra, searchKascade, searchPairs, searchUcm, similarityOf } = attention;

/** A matrix of so many levels between 0 and 1: sums of them are exact, and few levels make ties. */
const matrix = (random: Random, layers: number, levels: number) =>
  Array.from({ length: layers }, () => Array.from({ length: layers }, () => random.below(levels + 1) / levels));

interface Cover {
  readonly sources: number[];
  readonly anchors: number;
  readonly worst: number;
  readonly sum: number;
}

/** All ways to cut the layers into segments, with their worth by matrices. */
function covers(matrices: readonly number[][][], { weights, own = [] }: { weights?: number[]; own?: readonly number[] } = {}): Cover[] {
  const layers = matrices[0]?.length as number;
  const all: Cover[] = [];
  for (let bits = 1; bits < 2 ** layers; bits += 2) {
    const anchor = (layer: number) => ((bits >> layer) & 1) === 1;
    if (own.some((layer) => !anchor(layer))) continue;
    let [source, anchors, sum, worst] = [0, 0, 0, 1];
    const sources: number[] = [];
    for (let layer = 0; layer < layers; layer++) {
      if (anchor(layer)) [source, anchors] = [layer, anchors + 1];
      sources.push(source);
      for (const values of matrices) {
        const value = source === layer ? 1 : (values[source]?.[layer] as number);
        sum += (weights?.[layer] ?? 1) * value;
        if (source !== layer) worst = Math.min(worst, value);
      }
    }
    all.push({ sources, anchors, worst, sum });
  }
  return all;
}

const bestOf = (all: readonly Cover[], order: (a: Cover, b: Cover) => number): Cover => [...all].sort(order)[0] as Cover;

/** The plan as brute force sees it: what the search says of it must be true. */
function judged(all: readonly Cover[], { sources, similarity, worst }: attention.LayerPlan): Cover {
  const own = all.find((one) => one.sources.join() === sources.join()) as Cover;
  expect(own, `[${sources}] is a cover`).toBeDefined();
  expect([similarity, worst]).toEqual([own.sum, own.worst]);
  return own;
}

/** The best (worst, sum) over all layers where of each prefix only the lexicographically best pair is kept. */
function lexicographic(rows: readonly (readonly number[])[], resets: number): { worst: number; sum: number } {
  const layers = rows.length;
  let best = new Map<number, { worst: number; sum: number }>([[0, { worst: 1, sum: 0 }]]);
  const ends: { worst: number; sum: number }[] = [];
  const better = (a: { worst: number; sum: number }, b: { worst: number; sum: number } | undefined) =>
    !b || a.worst > b.worst || (a.worst === b.worst && a.sum > b.sum);
  for (let used = 0; used <= resets; used++) {
    const next = new Map<number, { worst: number; sum: number }>();
    for (const [anchor, before] of best) {
      let { worst, sum } = before;
      for (let end = anchor + 1; end <= layers; end++) {
        const value = end - 1 === anchor ? 1 : (rows[anchor]?.[end - 1] as number);
        [worst, sum] = [Math.min(worst, value), sum + value];
        if (better({ worst, sum }, next.get(end))) next.set(end, { worst, sum });
      }
    }
    const end = next.get(layers);
    if (end) ends.push(end);
    best = next;
    best.delete(layers);
  }
  return ends.reduce((a, b) => (better(b, a) ? b : a));
}

describe("exact searches", () => {
  const random = new Random("policy-search");
  const cases = Array.from({ length: 600 }, (_, i) => {
    const layers = 1 + (i % 10);
    const own = i % 3 === 0 ? [random.below(layers)] : [];
    return { layers, own, rows: matrix(random, layers, [2, 4, 16, 256, 65536][i % 5] as number) };
  });

  it("hylra: the fewest anchors under a threshold, then the largest sum", () => {
    for (const { rows, own } of cases)
      for (const threshold of [0, 0.25, 0.5, 0.85, 1, 1.5]) {
        const all = covers([rows], { own });
        const sound = all.filter((one) =>
          one.sources.every((source, layer) => source === layer || (rows[source]?.[layer] as number) >= threshold),
        );
        const best = bestOf(sound, (a, b) => a.anchors - b.anchors || b.sum - a.sum);
        const found = judged(sound, searchHylra(similarityOf(rows), { threshold, own }));
        expect([found.anchors, found.sum]).toEqual([best.anchors, best.sum]);
      }
  });

  it("ucm: the best worst case with so many resets, then the largest sum; one matrix or several", () => {
    for (const { layers, rows, own } of cases)
      for (const sets of [[rows], [rows, matrix(random, layers, 4)]])
        for (const resets of [0, 1, 2, layers]) {
          if (own.some((layer) => layer > 0) && resets === 0) continue;
          const all = covers(sets, { own });
          const sound = all.filter(({ anchors }) => anchors <= resets + 1);
          const best = bestOf(sound, (a, b) => b.worst - a.worst || b.sum - a.sum || a.anchors - b.anchors);
          const found = judged(sound, searchUcm(sets.length === 1 ? similarityOf(rows) : sets.map(similarityOf), { resets, own }));
          expect([found.worst, found.sum, found.anchors]).toEqual([best.worst, best.sum, best.anchors]);
        }
  });

  it("ucm: keeps the sums that the published dynamic programme over (worst, sum) loses", () => {
    let lost = 0;
    for (let i = 0; i < 2000; i++) {
      const rows = matrix(random, 8, 65536);
      const resets = 1 + random.below(4);
      const [found, published] = [searchUcm(similarityOf(rows), { resets }), lexicographic(rows, resets)];
      expect(found.worst).toBe(published.worst);
      expect(found.similarity).toBeGreaterThanOrEqual(published.sum);
      lost += Number(found.similarity > published.sum);
    }
    expect(lost).toBeGreaterThan(0);
  });

  it("kascade: the largest weighted sum of exactly so many anchors", () => {
    for (const { layers, rows, own } of cases) {
      const weights = Array.from({ length: layers }, () => random.below(9) / 8);
      for (const anchors of new Set([1, 2, Math.ceil(layers / 2), layers])) {
        if (anchors > layers || own.some((layer) => layer > 0 && anchors < 2)) continue;
        const all = covers([rows], { weights, own }).filter((one) => one.anchors === anchors);
        const found = judged(all, searchKascade(similarityOf(rows), { anchors, weights, own }));
        expect(found.sum).toBe(bestOf(all, (a, b) => b.sum - a.sum).sum);
      }
    }
  });

  it("do sixty-four layers at once", () => {
    const similarity = similarityOf(matrix(random, 64, 65536));
    const under = searchHylra(similarity, { threshold: 0.5 });
    const anchors = anchorsOf(under.sources).length;
    expect(under.worst).toBeGreaterThanOrEqual(0.5);
    // What the others find with as many anchors cannot be worse in what they maximise.
    expect(searchUcm(similarity, { resets: anchors - 1 }).worst).toBeGreaterThanOrEqual(under.worst);
    expect(searchKascade(similarity, { anchors }).similarity).toBeGreaterThanOrEqual(under.similarity);
  });
});

describe("pair merging", () => {
  it("takes the most alike pair, follows chains, and turns no layer twice", () => {
    const rows = [
      [1, 0.1, 0.2, 0.3],
      [0, 1, 0.9, 0.1],
      [0, 0, 1, 0.8],
      [0, 0, 0, 1],
    ];
    const sources = (merges: number, own: number[] = []) => searchPairs(similarityOf(rows), { merges, own }).sources;
    expect(sources(0)).toEqual([0, 1, 2, 3]);
    expect(sources(1)).toEqual([0, 1, 1, 3]);
    // Layer 2 is taken: its .8 for layer 3 is gone, and .3 of layer 0 is the next.
    expect(sources(2)).toEqual([0, 1, 1, 0]);
    expect(sources(3)).toEqual([0, 0, 0, 0]);
    expect(sources(3, [1])).toEqual([0, 1, 1, 0]);
  });

  it("gives sound plans of so many lists, over any matrix", () => {
    const random = new Random("pairs");
    for (let i = 0; i < 200; i++) {
      const layers = 1 + random.below(12);
      const merges = random.below(layers);
      const { sources } = searchPairs(similarityOf(matrix(random, layers, 4)), { merges });
      expect(anchorsOf(sources).length).toBe(layers - merges);
      for (const [layer, source] of sources.entries()) expect([source <= layer, sources[source]]).toEqual([true, source]);
    }
  });
});

describe("searches by a loss", () => {
  /** What each layer loses with each source, with an effect between neighbours that no sum over layers has. */
  const lossOf = (random: Random, layers: number) => {
    const rows = matrix(random, layers, 1024);
    return (sources: readonly number[]) =>
      sources.reduce((sum, source, layer) => {
        if (source === layer) return sum;
        const chained = layer > 0 && sources[layer - 1] !== layer - 1 ? 0.25 : 0;
        return sum + (rows[source]?.[layer] as number) + chained;
      }, 0);
  };

  it("greedy: each step is the one that costs least, and no plan is measured twice", async () => {
    const random = new Random("greedy");
    for (let i = 0; i < 60; i++) {
      const layers = 2 + random.below(7);
      const loss = lossOf(random, layers);
      const asked: string[] = [];
      const asks = (sources: readonly number[]) => {
        asked.push(sources.join());
        return Promise.resolve(loss(sources));
      };
      const anchors = 1 + random.below(layers);
      const found = await searchGreedy(asks, { layers, anchors });
      expect(new Set(asked).size).toBe(asked.length);
      expect(found.evaluations).toBe(asked.length);
      expect(found.steps.length).toBe(layers - anchors + 1);
      for (const [at, { sources, loss: value }] of found.steps.entries()) {
        expect(anchorsOf(sources).length).toBe(layers - at);
        expect(value).toBe(loss(sources));
        const next = found.steps[at + 1];
        if (!next) continue;
        const kept = anchorsOf(sources);
        const choices = kept.slice(1).map((gone) => {
          const rest = kept.filter((one) => one !== gone);
          return loss(sources.map((_, layer) => rest.findLast((one) => one <= layer) as number));
        });
        expect(next.loss).toBe(Math.min(...choices));
      }
    }
  });

  it("greedy: ends before a loss that is too much, and keeps the layers it must", async () => {
    const loss = (sources: readonly number[]) => sources.filter((source, layer) => source !== layer).length;
    const ended = await searchGreedy(loss, { layers: 8, anchors: 1, maxLoss: 3 });
    expect([ended.loss, anchorsOf(ended.sources).length]).toEqual([3, 5]);
    const kept = await searchGreedy(loss, { layers: 8, anchors: 3, own: [5, 7] });
    expect(anchorsOf(kept.sources)).toEqual([0, 5, 7]);
  });

  it("repair: lowers the loss to the limit or as far as changes go, without more lists where sources suffice", async () => {
    const random = new Random("repair");
    let [mended, free] = [0, 0];
    for (let i = 0; i < 60; i++) {
      const layers = 3 + random.below(5);
      const loss = lossOf(random, layers);
      const sources = new Array<number>(layers).fill(0);
      const before = loss(sources);
      const maxLoss = before * random.uniform();
      const found = await repairPlan(sources, loss, { maxLoss });
      expect(found.steps[0]?.sources).toEqual(sources);
      for (let at = 1; at < found.steps.length; at++) expect(found.steps[at]?.loss).toBeLessThan(found.steps[at - 1]?.loss as number);
      expect(found.loss).toBe(loss(found.sources));
      // A list for every layer has no loss, so the limit is always met.
      expect(found.loss).toBeLessThanOrEqual(maxLoss);
      mended += Number(found.steps.length > 1);
      const { sources: limited } = await repairPlan(searchKascade(similarityOf(matrix(random, layers, 64)), { anchors: 2 }).sources, loss, {
        maxLoss: 0,
        maxAnchors: 2,
      });
      expect(anchorsOf(limited).length).toBeLessThanOrEqual(2);
      free += Number(limited.some((source, layer) => source !== layer && source !== anchorsOf(limited).findLast((one) => one <= layer)));
    }
    expect(mended).toBeGreaterThan(50);
    // Sources that are not the nearest are found too.
    expect(free).toBeGreaterThan(3);
  });

  it("repair leaves a plan that is good enough, and layers that must keep their lists", async () => {
    const fine = await repairPlan([0, 0, 2], () => 0.5, { maxLoss: 0.5 });
    expect([fine.sources, fine.evaluations]).toEqual([[0, 0, 2], 1]);
    const loss = (sources: readonly number[]) => Number(sources[2] === 2) + Number(sources[3] !== 1);
    const kept = await repairPlan([0, 0, 2, 2], loss, { maxLoss: 0, maxAnchors: 2, own: [2] });
    expect(kept.sources[2]).toBe(2);
  });
});

describe("refusals", () => {
  const sound = similarityOf(matrix(new Random("refusals"), 4, 8));
  it.each([
    ["an empty matrix", () => similarityOf([]), "a layer at least but received none"],
    ["a matrix that is not square", () => similarityOf([[1, 1], [1]]), "similarity[1]: expected 2 entries"],
    [
      "a NaN",
      () =>
        similarityOf([
          [1, Number.NaN],
          [1, 1],
        ]),
      "similarity[0][1]: expected a finite number but received NaN",
    ],
    ["a threshold that is none", () => searchHylra(sound, { threshold: Number.NaN }), "searchHylra: threshold: expected a number"],
    ["too few resets", () => searchUcm(sound, { resets: 0, own: [2] }), "resets: expected a whole number from 1"],
    ["half a reset", () => searchUcm(sound, { resets: 0.5 }), "received 0.5"],
    ["matrices of other layers", () => searchUcm([sound, similarityOf([[1]])], { resets: 1 }), "received [4,1]"],
    ["no matrix", () => searchUcm([], { resets: 1 }), "one at least"],
    ["more anchors than layers", () => searchKascade(sound, { anchors: 5 }), "from 1 to 4 but received 5"],
    ["weights of other layers", () => searchKascade(sound, { anchors: 1, weights: [1, 2] }), "4 finite numbers"],
    ["a layer that is none", () => searchKascade(sound, { anchors: 2, own: [4] }), "own: expected layers from 0 to 3 but received 4"],
    ["too many merges", () => searchPairs(sound, { merges: 4 }), "from 0 to 3"],
  ])("%s", (_, call, message) => {
    expect(call).toThrow(HotsetError);
    expect(call).toThrow(message);
  });

  it("plans that reuse a later layer, or one that reuses itself, and losses that are none", async () => {
    await expect(repairPlan([0, 2, 2], () => 0, { maxLoss: 0 })).rejects.toThrow("sources[1]: expected a layer from 0 to 1 but received 2");
    await expect(repairPlan([0, 0, 1], () => 0, { maxLoss: 0 })).rejects.toThrow("layer 1, which takes that of 0");
    await expect(repairPlan([0], () => Number.NaN, { maxLoss: 0 })).rejects.toThrow("loss of [0]: expected a number but received NaN");
    await expect(searchGreedy(() => Number.NaN, { layers: 3, anchors: 1 })).rejects.toThrow("searchGreedy: loss of [0,1,2]");
    await expect(searchGreedy(() => 0, { layers: 3, anchors: 1, own: [2] })).rejects.toThrow(
      "anchors: expected a whole number from 2 to 3",
    );
  });
});
