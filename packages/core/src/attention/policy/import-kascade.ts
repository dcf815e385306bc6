import { FormatError } from "../../errors.js";
import type { LayerRule } from "../layer-reuse-policy.js";
import { checked, type ImportedPolicy, wholeIn } from "./imported.js";

export interface KascadeSettings {
  /**
   * The layers that make lists. Default: those that the file's name ends with, as in `model_layers_0_2_8_13_14.npy`, else
   * every layer whose heads all take the list of their own number.
   */
  readonly anchors?: readonly number[] | undefined;
  /** Tokens of a list, and the share of the context where that is more. Kascade's own: 128 and 0.1. */
  readonly k?: number | undefined;
  readonly ratio?: number | undefined;
  readonly where?: string | undefined;
}

/**
 * A head map of Kascade (MIT, Microsoft): [layers, kvHeads] numbers, as `readNpy` gives those of its .npy files. Layer 0 and
 * anchors, which take their own heads; others take the lists of the last anchor by the map. Throws FormatError.
 */
export function importKascade(
  { shape, data }: { readonly shape: readonly number[]; readonly data: ArrayLike<number> },
  { anchors, k = 128, ratio = 0.1, where = "kascade head map" }: KascadeSettings = {},
): ImportedPolicy {
  const [layers = 0, kvHeads = 0] = shape;
  if (shape.length !== 2 || layers < 1 || kvHeads < 1 || data.length !== layers * kvHeads)
    throw new FormatError({ where, expected: "a map [layers, kvHeads]", received: `[${shape.join(", ")}] of ${data.length} numbers` });
  const rows = Array.from({ length: layers }, (_, layer) =>
    Array.from({ length: kvHeads }, (_, head) => wholeIn(`${where}[${layer}][${head}]`, data[layer * kvHeads + head], 0, kvHeads - 1)),
  );
  const isOwn = (layer: number): boolean => rows[layer]?.every((from, head) => from === head) ?? false;
  const named = anchors ?? anchorsInName(where) ?? rows.flatMap((_, layer) => (isOwn(layer) ? [layer] : []));
  for (const layer of named) wholeIn(`${where}: anchors`, layer, 0, layers - 1);
  const own = new Set(named);
  if (!own.has(0))
    throw new FormatError({ where: `${where}: anchors`, expected: "layer 0 among them", received: named.join(", ") || "none" });
  let anchor = 0;
  const rules = rows.map((headMap, layer): LayerRule => {
    if (!own.has(layer)) return isOwn(layer) ? { kind: "reuse", source: anchor } : { kind: "reuse", source: anchor, headMap };
    if (!isOwn(layer))
      throw new FormatError({
        where: `${where}[${layer}]`,
        expected: `each head its own: layer ${layer} is an anchor`,
        received: `[${headMap}]`,
      });
    anchor = layer;
    return { kind: "anchor", k, ratio, refreshEvery: 1, ...(layer === 0 ? {} : { attends: "list" as const }) };
  });
  return {
    format: "kascade",
    policy: checked(where, rules, { granularity: 1, perHead: true, sink: 0, recent: 1 }),
    notExpressed: [
      "In prefill, 32 queries share a list, see the tokens of their own tile, and reuse layers gather too; the policy is for decoding.",
      "Lists are rounded to 128 tokens.",
    ],
  };
}

function anchorsInName(where: string): number[] | undefined {
  return /_layers((?:_\d+)+)(?:\.\w+)?$/.exec(where)?.[1]?.slice(1).split("_").map(Number);
}
