/** Profiles of several texts as one, what they say of the next token, and the policy of one sparse layer. */
import { attention, FormatError, ShapeError } from "@hotset/core";
import { Random } from "@hotset/core/testing";
import { describe, expect, it } from "vitest";
import { attentionRecord } from "./attention-record.js";

const { formatProfile, mergeProfiles, onlySparse, pairOf, parseProfile, policyLine, profileLayers, profileSimilarity, sensitiveLayers } =
  attention;
const sizes = { layers: 3, tokens: 40, queryHeads: 4, kvHeads: 2, headDim: 8 };
const lists = { k: 8, granularity: 1, sink: 1, recent: 2 };
const random = new Random("texts");
const records = [attentionRecord(random, sizes), attentionRecord(random, { ...sizes, tokens: 60 })] as const;
const [a, b] = (await Promise.all(
  records.map((record, i) => profileLayers({ ...record, model: "tiny" }, { ...lists, queries: [4, 10][i], importance: [1 + i, 2, 3] })),
)) as [attention.LayerProfile, attention.LayerProfile];
const numbers = (profile: attention.LayerProfile): number[] => [
  ...profile.layers.flatMap(({ spread, kept, kl, rnmse, denseError }) => [...spread, ...kept, kl, rnmse as number, denseError as number]),
  ...profile.pairs.flatMap(({ overlap, mass, kept, kl, rnmse }) => [...overlap, ...mass, ...kept].flat().concat(kl, rnmse as number)),
];

describe("mergeProfiles", () => {
  it("of means weighs texts by their positions", () => {
    const merged = mergeProfiles([a, b]);
    const [one, two, both] = [a, b, merged].map(numbers) as [number[], number[], number[]];
    expect(both.length).toBe(one.length);
    for (const [i, value] of both.entries()) expect(value).toBeCloseTo((4 * (one[i] as number) + 10 * (two[i] as number)) / 14, 4);
    expect(merged.layers.map(({ importance }) => importance)).toEqual([1.71429, 2, 3]);
    expect(merged.settings).toEqual({ ...a.settings, tokens: 60, firstQuery: 20, stride: 5, queries: 14, texts: 2, over: "mean" });
    expect(merged.model).toEqual(a.model);
  });

  it("of the worst text has the least mass and the largest error", () => {
    const merged = mergeProfiles([a, b], "worst");
    expect(merged.settings.over).toBe("worst");
    const [p, q, both] = [a, b, merged].map((one) => pairOf(one, 0, 2)) as [
      attention.PairStatistics,
      attention.PairStatistics,
      attention.PairStatistics,
    ];
    for (const name of ["mass", "overlap", "kept"] as const)
      expect(both[name]).toEqual(p[name].map((row, i) => row.map((value, j) => Math.min(value, q[name][i]?.[j] as number))));
    expect([both.kl, both.rnmse]).toEqual([Math.max(p.kl, q.kl), Math.max(p.rnmse as number, q.rnmse as number)]);
    const spread = (one: attention.LayerProfile) => one.layers[1]?.spread[0] as number;
    expect(spread(merged)).toBe(Math.max(spread(a), spread(b)));
    expect(merged.layers.map(({ importance }) => importance)).toEqual([1.71429, 2, 3]);
    for (let layer = 1; layer < 3; layer++)
      expect(profileSimilarity(merged, { headMaps: false }).at(0, layer)).toBeLessThanOrEqual(
        profileSimilarity(mergeProfiles([a, b]), { headMaps: false }).at(0, layer),
      );
  });

  it("goes through a file, again into another, and leaves out what not all have", () => {
    const merged = mergeProfiles([a, b]);
    expect(parseProfile(formatProfile(merged))).toEqual(merged);
    expect(JSON.parse(formatProfile(merged)).version).toBe(2);
    expect(JSON.parse(formatProfile(a)).version).toBe(1);
    expect(mergeProfiles([merged, b]).settings).toMatchObject({ texts: 3, queries: 24 });
    expect(mergeProfiles([a])).toBe(a);
    const blind = { ...b, layers: b.layers.map(({ rnmse: _, ...rest }) => rest) };
    expect(mergeProfiles([a, blind]).layers[0]).not.toHaveProperty("rnmse");
    expect(mergeProfiles([a, { ...b, model: { ...b.model, name: "other" } }]).model).not.toHaveProperty("name");
  });

  it("refuses none, other models and other lists", () => {
    expect(() => mergeProfiles([])).toThrow(ShapeError);
    expect(() => mergeProfiles([a, { ...b, model: { ...b.model, headDim: 9 } }])).toThrow("profile 1: expected 8 headDim");
    expect(() => mergeProfiles([a, { ...b, settings: { ...b.settings, sink: 2 } }])).toThrow(
      "mergeProfiles: profile 1: expected lists with sink 1, as profile 0 has but received 2",
    );
  });
});

describe("tokenKl", () => {
  const tokenKl = { tokens: 10, layers: [0.5, 0.1, 0.3].map((mean) => ({ mean, worst: 4 * mean })) };
  const known = { ...a, tokenKl };

  it("is kept in a file, merged by its tokens, and names the sensitive layers", () => {
    expect(parseProfile(formatProfile(known))).toEqual(known);
    expect(JSON.parse(formatProfile(known)).version).toBe(2);
    const other = { ...b, tokenKl: { tokens: 30, layers: [0.1, 0.1, 0.1].map((mean) => ({ mean, worst: 1 })) } };
    expect(mergeProfiles([known, other]).tokenKl).toEqual({
      tokens: 40,
      layers: [
        { mean: 0.2, worst: 2 },
        { mean: 0.1, worst: 1 },
        { mean: 0.15, worst: 1.2 },
      ],
    });
    expect(mergeProfiles([known, other], "worst").tokenKl?.layers.map(({ mean }) => mean)).toEqual([0.5, 0.1, 0.3]);
    expect(mergeProfiles([known, b])).not.toHaveProperty("tokenKl");
    expect(sensitiveLayers(known, { by: "tokenKl", count: 2 })).toEqual([0, 2]);
    expect(() => sensitiveLayers(a, { by: "tokenKl", count: 1 })).toThrow("hotset attention profile MODEL --kl");
  });

  it.each([
    [{ tokenKl: { ...tokenKl, layers: [] } }, "tokenKl.layers: expected 3 layers"],
    [{ tokenKl: { ...tokenKl, tokens: 0 } }, "tokenKl.tokens"],
    [
      { tokenKl: { tokens: 1, layers: [{ mean: -1, worst: 0 }, ...tokenKl.layers.slice(1)] } },
      "tokenKl.layers[0].mean: expected a number of",
    ],
    [{ version: 1 }, "version: expected 2: tokenKl and several texts are of that but received 1"],
    [{ version: 3 }, "version: expected 1 to 2 but received 3"],
    [{ settings: { ...a.settings, texts: 2 } }, "settings.over: expected texts and over together"],
    [{ settings: { ...a.settings, texts: 2, over: "best" } }, 'settings.over: expected "mean" or "worst"'],
  ])("is refused as %j", (other, message) => {
    const file = { ...JSON.parse(formatProfile(known)), ...other };
    expect(() => parseProfile(file, "p.json")).toThrow(FormatError);
    expect(() => parseProfile(file, "p.json")).toThrow(message);
  });

  it("is measured with policies that leave all layers dense but one", () => {
    expect(policyLine(onlySparse(a, 1))).toBe("F a F");
    const policy = onlySparse({ ...a, settings: { ...a.settings, ratio: 0.5 } }, 2);
    expect(policy.layers[2]).toEqual({ kind: "anchor", k: 8, ratio: 0.5, refreshEvery: 1, attends: "list" });
    expect(attention.parsePolicy(attention.formatPolicy(policy))).toEqual(policy);
    expect(policy).toMatchObject({ granularity: 1, sink: 1, recent: 2, perHead: true });
  });
});

describe("importHshare", () => {
  const { importHshare } = attention;
  const map = { "layer.share_config": [0, 1, 1, 0, 4, 4] };

  it("maps the layers of a file, with HShare's own numbers of tokens", () => {
    const { policy, format, notExpressed } = importHshare(JSON.stringify(map));
    expect(format).toBe("hshare");
    expect(policyLine(policy)).toBe("a a 1 0 a 4");
    expect(policy.layers[0]).toEqual({ kind: "anchor", k: 128, refreshEvery: 2, attends: "list" });
    expect(policy).toMatchObject({ granularity: 1, perHead: true, sink: 8, recent: 32 });
    expect(notExpressed.join(" ")).toContain("channels");
  });

  it("takes the constants of the model's config beside them, and follows chains", () => {
    const more = { sink_const: 4, heavy_const: 50, local_const: 10, share_query_const: 3, share_head_const: 16, num_hidden_layers: 4 };
    const { policy, notExpressed } = importHshare({ ...more, "layer.share_config": [0, 0, 1, 2], architectures: ["LlamaForCausalLM"] });
    expect(policyLine(policy)).toBe("a 0 0 0");
    expect(policy.layers[0]).toEqual({ kind: "anchor", k: 64, refreshEvery: 3, attends: "list" });
    expect(policy).toMatchObject({ sink: 4, recent: 10 });
    expect(notExpressed.join(" ")).toContain("Layers 2 to 3 take from a layer that takes from another");
    expect(notExpressed.join(" ")).toContain("16 heads of a layer");
  });

  it.each([
    [{}, "layer.share_config: a list with the source of each layer"],
    [{ "layer.share_config": [] }, "layer.share_config"],
    [{ "layer.share_config": [0, 2, 2] }, "layer.share_config[1]: expected a whole number from 0 to 1 but received 2"],
    [{ "layer.share_config": [0, -1] }, "layer.share_config[1]"],
    [{ "layer.share_config": [0, "1"] }, "layer.share_config[1]"],
    [{ ...map, num_hidden_layers: 32 }, "expected 32 layers but received 6"],
    [{ ...map, share_query_const: 0 }, "share_query_const"],
    ["[0, 1]", "expected a JSON object"],
    ["{", "expected JSON"],
  ])("refuses %j", (source, message) => {
    expect(() => importHshare(source)).toThrow(FormatError);
    expect(() => importHshare(source)).toThrow(message);
  });
});
