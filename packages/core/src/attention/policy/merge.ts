/** Profiles of one model over several texts as one. */
import { HotsetError, ShapeError } from "../../errors.js";
import type { LayerProfile, LayerStatistics, PairStatistics, ProfileSettings } from "./profile.js";

/** What is one number for each text: how they become one. */
type Join = (values: readonly number[]) => number;

/**
 * One profile of several texts: each number is the mean, a text counting by its positions, or that of the worst text: the
 * least mass or overlap, the largest error, divergence or spread. What not all of them have is left out. `importance`, which
 * is neither good nor bad, is always the mean. Throws ShapeError where they are of different models, and HotsetError where
 * their lists are not the same.
 */
export function mergeProfiles(profiles: readonly LayerProfile[], over: "mean" | "worst" = "mean"): LayerProfile {
  const [first, ...others] = profiles;
  if (!first) throw new ShapeError({ where: "mergeProfiles", expected: "a profile at least", received: "none" });
  for (const [i, other] of others.entries()) compare(first, other, i + 1);
  if (others.length === 0) return first;
  const weights = profiles.map(({ settings }) => settings.queries);
  const queries = weights.reduce((sum, weight) => sum + weight, 0);
  const mean: Join = (values) => rounded(values.reduce((sum, value, i) => sum + value * ((weights[i] as number) / queries), 0));
  const joins = over === "mean" ? { mean, good: mean, bad: mean } : { mean, good: (v: readonly number[]) => Math.min(...v), bad: largest };
  const { tokenKl: _, ...rest } = first;
  const tokenKl = joinedTokenKl(profiles, over);
  return {
    ...rest,
    model: sameName(profiles) ? first.model : withoutName(first.model),
    settings: joinedSettings(profiles, queries, over),
    layers: first.layers.map((_, layer) =>
      joinedLayer(
        profiles.map((one) => one.layers[layer] as LayerStatistics),
        joins,
      ),
    ),
    pairs: first.pairs.map((_, pair) =>
      joinedPair(
        profiles.map((one) => one.pairs[pair] as PairStatistics),
        joins,
      ),
    ),
    ...(tokenKl ? { tokenKl } : {}),
  };
}

const rounded = (value: number): number => Number(value.toPrecision(6));
const largest: Join = (values) => Math.max(...values);
const sameName = (profiles: readonly LayerProfile[]): boolean => profiles.every(({ model }) => model.name === profiles[0]?.model.name);
const withoutName = ({ name: _, ...model }: LayerProfile["model"]): LayerProfile["model"] => model;

function compare(first: LayerProfile, other: LayerProfile, index: number): void {
  const where = `mergeProfiles: profile ${index}`;
  for (const name of ["layers", "queryHeads", "kvHeads", "headDim"] as const)
    if (other.model[name] !== first.model[name])
      throw new ShapeError({ where, expected: `${first.model[name]} ${name}, as profile 0 has`, received: `${other.model[name]}` });
  for (const name of ["k", "ratio", "granularity", "sink", "recent", "perHead"] as const)
    if (other.settings[name] !== first.settings[name])
      throw new HotsetError("argument", {
        where,
        expected: `lists with ${name} ${first.settings[name]}, as profile 0 has`,
        received: `${other.settings[name]}`,
      });
}

function joinedSettings(profiles: readonly LayerProfile[], queries: number, over: "mean" | "worst"): ProfileSettings {
  const all = profiles.map(({ settings }) => settings);
  const most = (name: "tokens" | "stride"): number => Math.max(...all.map((one) => one[name]));
  return {
    ...(all[0] as ProfileSettings),
    tokens: most("tokens"),
    firstQuery: Math.min(...all.map(({ firstQuery }) => firstQuery)),
    stride: most("stride"),
    queries,
    texts: all.reduce((sum, { texts = 1 }) => sum + texts, 0),
    over,
  };
}

interface Joins {
  readonly mean: Join;
  /** Of numbers of which more is better, and of which less is. */
  readonly good: Join;
  readonly bad: Join;
}

function joinedLayer(layers: readonly LayerStatistics[], { mean, good, bad }: Joins): LayerStatistics {
  const lists = (name: "spread" | "kept", join: Join) =>
    (layers[0] as LayerStatistics)[name].map((_, list) => join(layers.map((one) => one[name][list] as number)));
  return {
    spread: lists("spread", bad),
    kept: lists("kept", good),
    kl: bad(layers.map(({ kl }) => kl)),
    ...optional(layers, "rnmse", bad),
    ...optional(layers, "denseError", bad),
    ...optional(layers, "importance", mean),
  };
}

function joinedPair(pairs: readonly PairStatistics[], { good, bad }: Joins): PairStatistics {
  const { source, layer, overlap } = pairs[0] as PairStatistics;
  const matrix = (name: "overlap" | "mass" | "kept") =>
    overlap.map((row, to) => row.map((_, from) => good(pairs.map((pair) => pair[name][to]?.[from] as number))));
  return {
    source,
    layer,
    overlap: matrix("overlap"),
    mass: matrix("mass"),
    kept: matrix("kept"),
    kl: bad(pairs.map(({ kl }) => kl)),
    ...optional(pairs, "rnmse", bad),
  };
}

function optional<N extends string>(from: readonly { readonly [K in N]?: number }[], name: N, join: Join): { [K in N]?: number } {
  const values = from.map((one) => one[name]);
  return values.every((value) => value !== undefined) ? ({ [name]: join(values as number[]) } as { [K in N]?: number }) : {};
}

function joinedTokenKl(profiles: readonly LayerProfile[], over: "mean" | "worst"): LayerProfile["tokenKl"] {
  const all = profiles.map(({ tokenKl }) => tokenKl);
  if (!all.every((one) => one !== undefined)) return undefined;
  const tokens = all.reduce((sum, one) => sum + one.tokens, 0);
  return {
    tokens,
    layers: (all[0] as NonNullable<LayerProfile["tokenKl"]>).layers.map((_, layer) => {
      const own = all.map((one) => one.layers[layer] as { mean: number; worst: number });
      const mean = own.reduce((sum, one, i) => sum + one.mean * ((all[i]?.tokens as number) / tokens), 0);
      return {
        mean: rounded(over === "mean" ? mean : largest(own.map((one) => one.mean))),
        worst: largest(own.map(({ worst }) => worst)),
      };
    }),
  };
}
