/** What is measured of layers, against plain arithmetic; profiles and records as files; policies compiled from them. */
import { attention, FormatError, HotsetError } from "@hotset/core";
import { Random } from "@hotset/core/testing";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { attentionRecord } from "./attention-record.js";

const { compilePolicy, formatPolicy, formatProfile, keptMass, parsePolicy, parseProfile, policyCost, profileLayers, profileSimilarity } =
  attention;
const { headMap, pairOf, policyLine, readRecord, searchKascade, sensitiveLayers, writeRecord } = attention;

const record = attentionRecord(new Random("profile"), { layers: 4, tokens: 60, queryHeads: 6, kvHeads: 3, headDim: 8 });

/** Softmax weights of a query head over all tokens before, by plain sums. */
function weightsOf(layer: attention.LayerRecord, head: number, position: number): number[] {
  const logits = Array.from({ length: position + 1 }, (_, t) => {
    const key = (t * 3 + Math.floor(head / 2)) * 8;
    let dot = 0;
    for (let i = 0; i < 8; i++) dot += (layer.queries[(position * 6 + head) * 8 + i] as number) * (layer.keys[key + i] as number);
    return dot / Math.sqrt(8);
  });
  const largest = Math.max(...logits);
  const sum = logits.reduce((all, logit) => all + Math.exp(logit - largest), 0);
  return logits.map((logit) => Math.exp(logit - largest) / sum);
}

/** Tokens of the granules that heads weigh most: forced ends first, the rest by mass. */
function listOf(
  weights: readonly number[][],
  { k, granularity, sink, recent }: { k: number; granularity: number; sink: number; recent: number },
): Set<number> {
  const length = weights[0]?.length as number;
  const granules = Math.ceil(length / granularity);
  const mass = (granule: number) =>
    weights.reduce((sum, row) => sum + row.slice(granule * granularity, (granule + 1) * granularity).reduce((a, b) => a + b, 0), 0);
  const order = Array.from({ length: granules }, (_, granule) => granule);
  const ends = (granule: number) => ((granule + 1) * granularity > length - recent ? 2 : granule * granularity < sink ? 1 : 0);
  order.sort((a, b) => ends(b) - ends(a) || mass(b) - mass(a) || a - b);
  const chosen = order.slice(0, Math.ceil(k / granularity));
  return new Set(
    chosen.flatMap((granule) => Array.from({ length: granularity }, (_, i) => granule * granularity + i)).filter((t) => t < length),
  );
}

describe("profileLayers", () => {
  it.each([
    { perHead: true, granularity: 1, k: 8, sink: 2, recent: 3 },
    { perHead: true, granularity: 4, k: 16, sink: 0, recent: 1 },
    { perHead: false, granularity: 1, k: 12, sink: 0, recent: 1 },
  ])("is what plain arithmetic gives: %j", async (lists) => {
    const profile = await profileLayers(record, { ...lists, firstQuery: 40, queries: 10 });
    expect(profile.settings).toMatchObject({ ...lists, firstQuery: 40, stride: 2, queries: 10, ratio: 0 });
    const groups = lists.perHead
      ? [
          [0, 1],
          [2, 3],
          [4, 5],
        ]
      : [[0, 1, 2, 3, 4, 5]];
    const positions = Array.from({ length: 10 }, (_, i) => 40 + 2 * i);
    const mean = (of: (position: number) => number) => positions.reduce((sum, position) => sum + of(position), 0) / 10;
    const list = (layer: number, group: number, position: number) =>
      listOf(
        (groups[group] as number[]).map((head) => weightsOf(record.layers[layer] as attention.LayerRecord, head, position)),
        lists,
      );
    const kept = (layer: number, heads: readonly number[], tokens: Set<number>, position: number) =>
      heads.reduce((sum, head) => {
        const weights = weightsOf(record.layers[layer] as attention.LayerRecord, head, position);
        return sum + [...tokens].reduce((all, t) => all + (weights[t] as number), 0);
      }, 0) / heads.length;
    for (const [layer, own] of profile.layers.entries())
      for (const [group, heads] of groups.entries())
        expect(own.kept[group]).toBeCloseTo(
          mean((at) => kept(layer, heads, list(layer, group, at), at)),
          5,
        );
    for (const { source, layer } of [
      { source: 0, layer: 1 },
      { source: 1, layer: 3 },
    ]) {
      const pair = pairOf(profile, source, layer);
      expect([pair.source, pair.layer]).toEqual([source, layer]);
      for (const [to, heads] of groups.entries())
        for (const from of groups.keys()) {
          const tokens = (at: number) => list(source, from, at);
          const own = (at: number) => list(layer, to, at);
          expect(pair.kept[to]?.[from]).toBeCloseTo(
            mean((at) => kept(layer, heads, tokens(at), at)),
            5,
          );
          expect(pair.mass[to]?.[from]).toBeCloseTo(
            mean((at) => kept(layer, heads, tokens(at), at) / kept(layer, heads, own(at), at)),
            5,
          );
          if (lists.granularity === 1)
            expect(pair.overlap[to]?.[from]).toBeCloseTo(
              mean((at) => [...own(at)].filter((t) => tokens(at).has(t)).length / own(at).size),
              5,
            );
        }
      // The output over lists and its divergence, head by head.
      let [error, energy, divergence] = [0, 0, 0];
      for (const at of positions)
        for (let head = 0; head < 6; head++) {
          const weights = weightsOf(record.layers[layer] as attention.LayerRecord, head, at);
          const tokens = list(source, lists.perHead ? Math.floor(head / 2) : 0, at);
          const share = [...tokens].reduce((sum, t) => sum + (weights[t] as number), 0);
          // The sum of p ln(p / q) over the list, with p = q / share there.
          divergence += [...tokens].reduce((sum, t) => sum + ((weights[t] as number) / share) * Math.log(1 / share), 0) / 60;
          for (let i = 0; i < 8; i++) {
            const value = (t: number) => record.layers[layer]?.values?.[(t * 3 + Math.floor(head / 2)) * 8 + i] as number;
            const dense = weights.reduce((sum, weight, t) => sum + weight * value(t), 0);
            const sparse = [...tokens].reduce((sum, t) => sum + ((weights[t] as number) / share) * value(t), 0);
            error += (dense - sparse) ** 2;
            energy += dense ** 2;
          }
        }
      expect(pair.kl).toBeCloseTo(divergence, 5);
      expect(pair.rnmse).toBeCloseTo(Math.sqrt(error / energy), 4);
    }
  });

  it("of lists that hold everything is all ones, without error", async () => {
    const profile = await profileLayers(record, { k: 60, granularity: 1 });
    for (const pair of profile.pairs) {
      expect([...pair.mass, ...pair.overlap].flat()).toEqual(new Array(18).fill(1));
      expect([pair.kl, pair.rnmse]).toEqual([expect.closeTo(0, 8), expect.closeTo(0, 6)]);
    }
  });

  it("counts the granules for nine tenths of the mass", async () => {
    // Queries of zero: all tokens weigh the same, so of 57 tokens 52 are needed: 51.3.
    const flat = { ...record, layers: record.layers.map((layer) => ({ ...layer, queries: new Float32Array(layer.queries.length) })) };
    const { layers } = await profileLayers(flat, { granularity: 1, k: 4, firstQuery: 56, queries: 1 });
    expect(layers[0]?.spread).toEqual(new Array(3).fill(Number((52 / 57).toPrecision(6))));
  });

  it("says how far the recomputed output is from the recorded one", async () => {
    const profile = await profileLayers(record, { k: 8 });
    const doubled = { ...record, scale: 0.7 };
    for (const { denseError } of profile.layers) expect(denseError).toBeLessThan(1e-6);
    for (const { denseError } of (await profileLayers(doubled, { k: 8 })).layers) expect(denseError).toBeGreaterThan(0.01);
  });

  it.each([
    [{ k: 0 }, "k: expected a whole number from 1"],
    [{ ratio: 2 }, "ratio: expected a number from 0 to 1"],
    [{ firstQuery: 60 }, "firstQuery: expected a whole number from 0 to 59"],
    [{ queries: 0 }, "queries"],
    [{ granularity: 0.5 }, "granularity"],
    [{ importance: [1] }, "importance: expected 4 finite numbers"],
  ])("refuses %j", async (settings, message) => {
    await expect(profileLayers(record, settings)).rejects.toThrow(message);
  });

  it("refuses records whose sizes do not fit, or that hold no numbers", async () => {
    const first = record.layers[0] as attention.LayerRecord;
    await expect(profileLayers({ ...record, kvHeads: 4 })).rejects.toThrow("a multiple of 4");
    await expect(profileLayers({ ...record, layers: [{ ...first, keys: first.keys.subarray(1) }] })).rejects.toThrow("keys of layer 0");
    const queries = first.queries.slice();
    queries[7] = Number.NaN;
    await expect(profileLayers({ ...record, layers: [{ ...first, queries }] })).rejects.toThrow("queries[7] of layer 0");
  });
});

const measured = await profileLayers(record, { k: 8, granularity: 1, sink: 1, recent: 2, queries: 6, importance: [1, 2, 3, 4] });

describe("profile.json", () => {
  const text = formatProfile(measured);

  it("is read as it was written", () => {
    expect(parseProfile(text)).toEqual(measured);
    expect(parseProfile(JSON.parse(text))).toEqual(measured);
  });

  it("cut anywhere, is a format error", () => {
    for (let end = 0; end < text.length - 1; end += 7) expect(() => parseProfile(text.slice(0, end), "p.json")).toThrow(FormatError);
  });

  it("damaged at any byte, is refused or holds sound numbers", () => {
    fc.assert(
      fc.property(fc.nat(text.length - 1), fc.constantFrom(...'09{}[],:-e"x .'), (at, letter) => {
        try {
          const { layers, pairs, model } = parseProfile(text.slice(0, at) + letter + text.slice(at + 1));
          expect([layers.length, pairs.length]).toEqual([model.layers, (model.layers * (model.layers - 1)) / 2]);
          for (const value of pairs.flatMap(({ mass, overlap, kept }) => [...mass, ...overlap, ...kept]).flat())
            expect(value >= 0 && value <= 1).toBe(true);
        } catch (error) {
          if (!(error instanceof FormatError)) throw error;
        }
      }),
      { numRuns: 2000, seed: 5 },
    );
  });

  it.each([
    [{ version: 3 }, "version: expected 1 to 2 but received 3. Read it with the version of Hotset that wrote it"],
    [{ format: "policy" }, "a layer profile"],
    [{ pairs: [] }, "pairs: expected all 6 pairs of layers"],
    [{ layers: measured.layers.slice(1) }, "layers: expected 4 layers, as the model has"],
    [{ pairs: [...measured.pairs].reverse() }, "pairs[0]: expected the pair of source 0 and layer 1"],
    [{ settings: { ...measured.settings, k: -1 } }, "settings.k: expected a number from 1"],
    [{ extra: 1 }, "extra"],
    [{ model: { ...measured.model, kvHeads: 4 } }, "a multiple of 4 KV heads"],
    [{ layers: [{ ...measured.layers[0], kl: -1 }, ...measured.layers.slice(1)] }, "layers[0].kl: expected a number of at least 0"],
  ])("refuses %j", (other, message) => {
    expect(() => parseProfile({ ...JSON.parse(text), ...other }, "p.json")).toThrow(message);
    expect(() => parseProfile({ ...JSON.parse(text), ...other }, "p.json")).toThrow(FormatError);
  });
});

describe("records as files", () => {
  it("are read as they were written, also out of a Buffer's pool", async () => {
    const file = await writeRecord({ ...record, model: "tiny", scale: 0.25 });
    expect(await readRecord(file)).toEqual({ ...record, model: "tiny", scale: 0.25 });
    expect((await readRecord(Buffer.from(file))).layers).toEqual(record.layers);
  });

  it("cut anywhere or with any byte changed, are format errors", async () => {
    const small = attentionRecord(new Random("small"), { layers: 1, tokens: 2, queryHeads: 1, kvHeads: 1, headDim: 2 });
    const file = await writeRecord(small);
    for (let end = 0; end < file.length; end++) await expect(readRecord(file.slice(0, end))).rejects.toThrow(FormatError);
    const start = 8 + Number(new DataView(file.buffer).getBigUint64(0, true));
    for (let at = 0; at < file.length; at++) {
      const damaged = file.slice();
      damaged[at] = (damaged[at] as number) ^ 0x40;
      if (at >= start) await expect(readRecord(damaged), `byte ${at}`).rejects.toThrow("SHA-256");
      else await readRecord(damaged).catch((error) => expect(error, `byte ${at}`).toBeInstanceOf(FormatError));
    }
  });

  it("of other programs need the tensors only", async () => {
    const named = new Map(
      record.layers.flatMap(({ queries, keys }, layer) => [
        [`q${layer}`, { shape: [60, 6, 8], data: queries }],
        [`k${layer}`, { shape: [60, 3, 8], data: keys }],
      ]),
    );
    const read = attention.recordOf(named as Map<string, attention.NamedArray>, "dump");
    expect(read).toMatchObject({ tokens: 60, queryHeads: 6, kvHeads: 3, headDim: 8 });
    named.delete("k2");
    expect(() => attention.recordOf(named as Map<string, attention.NamedArray>, "dump")).toThrow("keys of layer 2");
    expect(() => attention.recordOf(new Map(), "dump")).toThrow(
      "dump: expected tensors queries.0 and keys.0 (or q0 and k0) but received none",
    );
  });
});

describe("policies of a profile", () => {
  it("take the best head of the source, and are read back as they were compiled", () => {
    const sources = [0, 0, 2, 2];
    const policy = compilePolicy(measured, sources, { attends: "list", full: [0], minContext: 32 });
    expect(parsePolicy(formatPolicy(policy, { made: "here" }), { layers: 4, kvHeads: 3 })).toEqual(policy);
    expect(policy.layers[0]).toEqual({ kind: "anchor", k: 8, refreshEvery: 1 });
    expect(policy.layers[2]).toEqual({ kind: "anchor", k: 8, refreshEvery: 1, attends: "list" });
    expect(policyLine(policy)).toBe("A 0 a 2");
    expect(attention.sourcesOf(policy)).toEqual(sources);
    const map = headMap(measured, 0, 1);
    for (const [to, from] of map.entries())
      expect(pairOf(measured, 0, 1).mass[to]?.[from]).toBe(Math.max(...(pairOf(measured, 0, 1).mass[to] as number[])));
    const rule = policy.layers[1] as { headMap?: readonly number[] };
    expect(rule.headMap ?? [0, 1, 2]).toEqual(map);
  });

  it("leave out lists that nobody takes, and say version 2 only where it is needed", () => {
    const policy = compilePolicy(measured, [0, 1, 1, 3]);
    expect(policy.layers.map(({ kind }) => kind)).toEqual(["full", "anchor", "reuse", "full"]);
    expect(JSON.parse(formatPolicy(policy)).version).toBeUndefined();
    expect(JSON.parse(formatPolicy(compilePolicy(measured, [0, 1, 1, 3], { attends: "list" }))).version).toBe(2);
  });

  it("cost what a token reads, and keep what was measured", () => {
    const policy = compilePolicy(measured, [0, 1, 1, 3], { attends: "list", full: [0], headMaps: false });
    const cost = policyCost(policy, 80);
    expect(cost.layers).toEqual([1, 1.1, 0.1, 1.1]);
    expect(cost.share).toBeCloseTo(3.3 / 4, 12);
    expect(policyCost(policy, 4).layers).toEqual([1, 2, 1, 2]);
    expect(policyCost(compilePolicy(measured, [0, 1, 1, 3], { minContext: 100 }), 80).share).toBe(1);
    const kept = keptMass(measured, policy);
    const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;
    const pair = pairOf(measured, 1, 2);
    expect(kept.layers).toEqual([
      1,
      mean(measured.layers[1]?.kept as number[]),
      mean(pair.kept.map((row, list) => row[list] as number)),
      mean(measured.layers[3]?.kept as number[]),
    ]);
    expect(kept.worst).toBe(Math.min(...kept.layers));
    expect(() => keptMass(measured, { ...policy, sink: 7 })).toThrow(HotsetError);
  });

  it("anchors that are renewed seldom cost less", () => {
    const every = (refreshEvery: number) => policyCost(compilePolicy(measured, [0, 0, 0, 0], { refreshEvery }), 80).layers[0];
    expect([every(1), every(4)]).toEqual([1, (1 + 3 * 0.1) / 4]);
  });

  it("come from any measure, by mean or worst head, with or without head maps", async () => {
    for (const measure of attention.measures)
      for (const heads of ["mean", "min"] as const) {
        const [mapped, plain] = [true, false].map((headMaps) => profileSimilarity(measured, { measure, heads, headMaps }));
        for (let i = 0; i < 4; i++)
          for (let j = i + 1; j < 4; j++) {
            expect(mapped?.at(i, j)).toBeLessThanOrEqual(1);
            if (measure === "mass") expect(mapped?.at(i, j)).toBeGreaterThanOrEqual(plain?.at(i, j) as number);
          }
      }
    const plain = profileSimilarity(measured, { heads: "min", headMaps: false });
    expect(plain.at(0, 2)).toBe(Math.min(...pairOf(measured, 0, 2).mass.map((row, i) => row[i] as number)));
    const blind = await profileLayers(record, { k: 8, outputs: false });
    expect(() => profileSimilarity(blind, { measure: "rnmse" })).toThrow("expected outputs, for rnmse");
    expect(searchKascade(plain, { anchors: 2 }).sources.length).toBe(4);
  });

  it("know the layers that lists serve worst", () => {
    const kl = measured.layers.map((layer) => layer.kl);
    const worst = kl.indexOf(Math.max(...kl));
    expect(sensitiveLayers(measured, { by: "kl", count: 1 })).toEqual([worst]);
    expect(sensitiveLayers(measured, { by: "kl", above: Math.min(...kl) }).length).toBe(3);
    expect(sensitiveLayers(measured, {})).toEqual([]);
    expect(sensitiveLayers(measured, { by: "rnmse", count: 4 })).toEqual([0, 1, 2, 3]);
  });

  it("are refused for later sources, sources without a list, and other layers", () => {
    expect(() => compilePolicy(measured, [0, 2, 2, 3])).toThrow("sources[1]: expected a layer from 0 to 1 but received 2");
    expect(() => compilePolicy(measured, [0, 0, 1, 3])).toThrow("a layer that makes its own list but received layer 1");
    expect(() => compilePolicy(measured, [0])).toThrow("4 layers, as the profile has but received 1");
    expect(() => compilePolicy(measured, [0, 0, 0, 0], { full: [9] })).toThrow("full: expected layers from 0 to 3");
  });
});
