/** From what was measured to a policy, and what a policy costs and keeps. */
import { HotsetError, ShapeError } from "../../errors.js";
import type { AnchorRule, LayerPolicy, LayerRule } from "../layer-reuse-policy.js";
import { entriesOf } from "./attend.js";
import { type LayerProfile, pairOf } from "./profile.js";
import { checkSources, maskOf, type Similarity, similarityOf, wholeFrom } from "./similarity.js";

/** `mass`: recovered mass; `overlap` of lists; `kept` mass; `kl`: e^-KL; `rnmse`: 1 - RNMSE of the output. */
export type Measure = "mass" | "overlap" | "kept" | "kl" | "rnmse";
export const measures: readonly Measure[] = ["mass", "overlap", "kept", "kl", "rnmse"];

export interface SimilaritySettings {
  /** Default mass: on real weights overlap picks worse layers. */
  readonly measure?: Measure | undefined;
  /** How the lists of a layer count together. Default mean; min is for the worst of them. */
  readonly heads?: "mean" | "min" | undefined;
  /** Whether each list takes the best of the source's (a head map) rather than that of its own number. Default true. */
  readonly headMaps?: boolean | undefined;
}

/** The matrix that the searches take. Throws HotsetError where the profile has no outputs and `rnmse` is asked. */
export function profileSimilarity(
  profile: LayerProfile,
  { measure = "mass", heads = "mean", headMaps = true }: SimilaritySettings = {},
): Similarity {
  const { layers } = profile.model;
  const rows = Array.from({ length: layers }, () => new Float64Array(layers));
  for (const pair of profile.pairs) {
    const row = rows[pair.source] as Float64Array;
    if (measure === "kl") row[pair.layer] = Math.exp(-pair.kl);
    else if (measure === "rnmse") {
      if (pair.rnmse === undefined) throw noOutputs();
      row[pair.layer] = 1 - pair.rnmse;
    } else {
      const map = headMaps ? headMap(profile, pair.source, pair.layer) : undefined;
      const values = pair[measure].map((of, list) => of[map?.[list] ?? list] as number);
      row[pair.layer] = heads === "min" ? Math.min(...values) : values.reduce((sum, value) => sum + value, 0) / values.length;
    }
  }
  return similarityOf(rows);
}

const noOutputs = (): HotsetError =>
  new HotsetError("argument", { where: "profile", expected: "outputs, for rnmse", received: "a profile that was made without values" });

/** Of each list of a layer, the list of the source with the most recovered mass; its own number among equals, then the lowest. */
export function headMap(profile: LayerProfile, source: number, layer: number): number[] {
  return pairOf(profile, source, layer).mass.map((row, list) => {
    let best = list;
    for (const [from, value] of row.entries()) if (value > (row[best] as number)) best = from;
    return best;
  });
}

/**
 * The layers that lists of their own serve worst, or that need most of the context: candidates for `own` and `full`. `by`
 * spread is UCM's proxy, rnmse and tokenKl are HyLRA's. The `count` worst, or those above `above`; ascending.
 */
export function sensitiveLayers(
  profile: LayerProfile,
  { by = "spread", count, above }: { readonly by?: Sensitivity; readonly count?: number; readonly above?: number },
): number[] {
  if (by === "tokenKl" && !profile.tokenKl)
    throw new HotsetError("argument", {
      where: "sensitiveLayers",
      expected: "a profile with tokenKl",
      received: "one that was measured without a model",
      hint: "hotset attention profile MODEL --kl measures it.",
    });
  const values = profile.layers.map((layer, i) => {
    if (by === "tokenKl") return profile.tokenKl?.layers[i]?.mean as number;
    if (by === "kl") return layer.kl;
    if (by === "rnmse") {
      if (layer.rnmse === undefined) throw noOutputs();
      return layer.rnmse;
    }
    return layer.spread.reduce((sum, value) => sum + value, 0) / layer.spread.length;
  });
  const most = wholeFrom("sensitiveLayers: count", count ?? values.length, 0, values.length);
  const order = values.map((_, layer) => layer).sort((a, b) => (values[b] as number) - (values[a] as number) || a - b);
  return order
    .filter((layer) => above === undefined || (values[layer] as number) > above)
    .slice(0, above === undefined && count === undefined ? 0 : most)
    .sort((a, b) => a - b);
}

/** What a layer's sensitivity is measured by: see LayerStatistics and TokenKl. */
export type Sensitivity = "spread" | "rnmse" | "kl" | "tokenKl";
export const sensitivities: readonly Sensitivity[] = ["spread", "rnmse", "kl", "tokenKl"];

export interface CompileSettings {
  /** Layers that attend to everything, whatever the others do. */
  readonly full?: Iterable<number> | undefined;
  /** What layers with lists of their own attend to. Default all: to everything, in layers that nobody reuses without a list. */
  readonly attends?: "all" | "list" | undefined;
  /** Default true where the profile has a list for each head. */
  readonly headMaps?: boolean | undefined;
  readonly refreshEvery?: number | undefined;
  readonly minContext?: number | undefined;
}

/** A policy with these sources, and lists as the profile measured them. Throws HotsetError. */
export function compilePolicy(profile: LayerProfile, sources: readonly number[], settings: CompileSettings = {}): LayerPolicy {
  const { k, ratio, granularity, sink, recent, perHead } = profile.settings;
  const { attends = "all", headMaps = true, refreshEvery = 1, minContext = 0 } = settings;
  const { layers } = profile.model;
  if (sources.length !== layers)
    throw new ShapeError({
      where: "compilePolicy: sources",
      expected: `${layers} layers, as the profile has`,
      received: `${sources.length}`,
    });
  checkSources("compilePolicy", sources);
  wholeFrom("compilePolicy: refreshEvery", refreshEvery, 1, 2 ** 31 - 2);
  wholeFrom("compilePolicy: minContext", minContext, 0, 2 ** 31 - 2);
  const full = maskOf("compilePolicy: full", layers, settings.full);
  const rules = sources.map((source, layer): LayerRule => {
    if (source !== layer) {
      if (full[layer]) return { kind: "full" };
      const map = perHead && headMaps ? headMap(profile, source, layer) : [];
      return map.every((from, list) => from === list) ? { kind: "reuse", source } : { kind: "reuse", source, headMap: map };
    }
    const reused = sources.some((one, later) => later > layer && one === layer && !full[later]);
    const list = attends === "list" && !full[layer];
    if (!reused && !list && (refreshEvery === 1 || full[layer])) return { kind: "full" };
    const anchor: AnchorRule = { kind: "anchor", k, ...(ratio > 0 ? { ratio } : {}), refreshEvery: full[layer] ? 1 : refreshEvery };
    return list ? { ...anchor, attends: "list" } : anchor;
  });
  return { layers: rules, granularity, perHead, sink, recent, minContext, score: "mass" };
}

/** The policy by which a layer's sensitivity is measured: it attends to its own list, and all others to everything. */
export function onlySparse({ model, settings }: Pick<LayerProfile, "model" | "settings">, layer: number): LayerPolicy {
  const { k, ratio, granularity, sink, recent, perHead } = settings;
  const rule: AnchorRule = { kind: "anchor", k, ...(ratio > 0 ? { ratio } : {}), refreshEvery: 1, attends: "list" };
  const layers = Array.from({ length: model.layers }, (_, i): LayerRule => (i === layer ? rule : { kind: "full" }));
  return { layers, granularity, perHead, sink, recent, minContext: 0, score: "mass" };
}

/** Whose list each layer takes; its own number for layers that attend to everything or make a list. */
export const sourcesOf = ({ layers }: LayerPolicy): number[] => layers.map((rule, layer) => (rule.kind === "reuse" ? rule.source : layer));

export interface PolicyCost {
  readonly context: number;
  /** Of each layer: tokens whose keys or values a generated token reads, over those of the context. */
  readonly layers: readonly number[];
  /** Their mean: 1 is what dense attention reads, and a policy that lists much may read more. */
  readonly share: number;
}

/**
 * What a generated token reads at a context of so many tokens. An anchor reads everything to weigh it; one that attends to
 * its list reads that too.
 */
export function policyCost({ layers, granularity, minContext }: LayerPolicy, context: number): PolicyCost {
  wholeFrom("policyCost: context", context, 1, 2 ** 31 - 2);
  const listed = ({ k = 0, ratio = 0 }: AnchorRule): number =>
    Math.min(context, entriesOf({ k, ratio, granularity }, context) * granularity) / context;
  const shares = layers.map((rule) => {
    if (rule.kind === "full" || context < minContext) return 1;
    if (rule.kind === "reuse") return listed(layers[rule.source] as AnchorRule);
    const own = listed(rule);
    return (1 + (rule.attends ? own : 0) + (rule.refreshEvery - 1) * own) / rule.refreshEvery;
  });
  return { context, layers: shares, share: shares.reduce((sum, share) => sum + share, 0) / shares.length };
}

export interface KeptMass {
  /** Of each layer: the share of its attention mass that lies in what it attends to, as profiled. */
  readonly layers: readonly number[];
  readonly mean: number;
  readonly worst: number;
}

/**
 * What a policy keeps of the mass that was profiled, before errors add up from layer to layer; lists that are not renewed
 * count as if they were. Throws HotsetError where its lists are not those of the profile.
 */
export function keptMass(profile: LayerProfile, policy: LayerPolicy): KeptMass {
  const { k, ratio, granularity, sink, recent, perHead } = profile.settings;
  const anchors = policy.layers.filter((rule) => rule.kind === "anchor");
  const same =
    policy.layers.length === profile.model.layers &&
    policy.granularity === granularity &&
    policy.perHead === perHead &&
    policy.sink === sink &&
    policy.recent === recent &&
    anchors.every((rule) => rule.k === k && (rule.ratio ?? 0) === ratio);
  if (!same && anchors.length > 0)
    throw new HotsetError("argument", {
      where: "keptMass",
      expected: "a policy with the layers and lists of the profile (k, ratio, granularity, sink, recent, perHead)",
      received: "one with others",
      hint: "Measure with the lists that the policy has.",
    });
  const layers = policy.layers.map((rule, layer) => {
    if (rule.kind === "full" || (rule.kind === "anchor" && !rule.attends && rule.refreshEvery === 1)) return 1;
    const own = profile.layers[layer]?.kept as readonly number[];
    if (rule.kind === "anchor") return own.reduce((sum, value) => sum + value, 0) / own.length;
    const { kept } = pairOf(profile, rule.source, layer);
    return kept.reduce((sum, row, list) => sum + (row[rule.headMap?.[list] ?? list] as number), 0) / kept.length;
  });
  return { layers, mean: layers.reduce((sum, value) => sum + value, 0) / layers.length, worst: Math.min(...layers) };
}

/** A letter or number for each layer: F everything, A an anchor, a its list alone, and the source's number. */
export const policyLine = ({ layers }: LayerPolicy): string =>
  layers.map((rule) => (rule.kind === "full" ? "F" : rule.kind === "reuse" ? `${rule.source}` : rule.attends ? "a" : "A")).join(" ");

/** How many layers do what. */
export function policyCounts(policy: LayerPolicy): { full: number; anchors: number; reuse: number } {
  const of = (kind: LayerRule["kind"]) => policy.layers.filter((rule) => rule.kind === kind).length;
  return { full: of("full"), anchors: of("anchor"), reuse: of("reuse") };
}
