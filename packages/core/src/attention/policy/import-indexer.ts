import { describe, FormatError } from "../../errors.js";
import type { LayerRule } from "../layer-reuse-policy.js";
import { checked, type ImportedPolicy, parsedObject, ranges, wholeIn } from "./imported.js";

/**
 * The config.json of a model with sparse attention by an indexer (DeepSeek, GLM; IndexCache, IndexShare): which layers run
 * the indexer and which take the list of the last one that did. `indexer_types` is the truth where it is there; else
 * `index_topk_pattern` ("FFSF..." or a list), else `index_topk_freq` with `index_skip_topk_offset`. Throws FormatError.
 *
 * By frequency, layer l runs it where max(l + 1 - offset, 0) is a multiple of the frequency; without an offset, 2, which is
 * what engines do that know none.
 */
export function importIndexer(source: unknown, where = "config.json"): ImportedPolicy {
  const file = parsedObject(where, source);
  const layers = wholeIn(`${where}: num_hidden_layers`, file.num_hidden_layers, 1, 65536);
  const k = wholeIn(`${where}: index_topk`, file.index_topk, 1);
  const types = flags(`${where}: indexer_types`, file.indexer_types, layers);
  const pattern = flags(`${where}: index_topk_pattern`, file.index_topk_pattern, layers);
  const frequency = byFrequency(where, file, layers);
  const runs = types ?? pattern ?? frequency;
  if (!runs) throw new FormatError({ where, expected: "indexer_types, index_topk_pattern or index_topk_freq", received: "none of them" });
  const notExpressed = ["An indexer that was trained with the model scores the tokens; the policy weighs them by their attention mass."];
  const compare = (name: string, other: readonly boolean[] | undefined): void => {
    const differ = other?.flatMap((runsHere, layer) => (runsHere === runs[layer] ? [] : [layer])) ?? [];
    if (differ.length > 0)
      notExpressed.push(`${name} says otherwise of ${differ.length === 1 ? "layer" : "layers"} ${ranges(differ)}; it was not followed.`);
  };
  if (types) compare("index_topk_pattern", pattern);
  if (types || pattern) compare("index_topk_freq", frequency);
  if (typeof file.num_nextn_predict_layers === "number" && file.num_nextn_predict_layers > 0)
    notExpressed.push(
      `${file.num_nextn_predict_layers} layers that predict further tokens run their own indexer and are not in the policy.`,
    );
  if (!runs[0]) throw new FormatError({ where, expected: "layer 0 to run the indexer", received: "a layer 0 that takes a list" });
  let last = 0;
  const rules = runs.map((runsHere, layer): LayerRule => {
    if (!runsHere) return { kind: "reuse", source: last };
    last = layer;
    return { kind: "anchor", k, refreshEvery: 1, attends: "list" };
  });
  const name = Array.isArray(file.architectures) ? file.architectures[0] : file.model_type;
  return {
    format: "indexer",
    policy: checked(where, rules, { granularity: 1, perHead: false, sink: 0, recent: 1 }),
    notExpressed,
    ...(typeof name === "string" ? { model: name } : {}),
  };
}

const words: Readonly<Record<string, boolean>> = { full: true, F: true, shared: false, S: false };

function flags(where: string, value: unknown, layers: number): boolean[] | undefined {
  if (value === undefined || value === null) return undefined;
  const list = typeof value === "string" ? [...value] : value;
  if (!Array.isArray(list) || list.length !== layers)
    throw new FormatError({ where, expected: `${layers} entries, one for each layer`, received: describe(value) });
  return list.map((word, layer) => {
    if (typeof word !== "string" || !Object.hasOwn(words, word))
      throw new FormatError({ where: `${where}[${layer}]`, expected: '"full" or "shared" (F or S)', received: describe(word) });
    return words[word] as boolean;
  });
}

function byFrequency(where: string, file: Record<string, unknown>, layers: number): boolean[] | undefined {
  if (file.index_topk_freq === undefined || file.index_topk_freq === null) return undefined;
  const every = wholeIn(`${where}: index_topk_freq`, file.index_topk_freq, 1, 65536);
  const offset = wholeIn(`${where}: index_skip_topk_offset`, file.index_skip_topk_offset ?? 2, 0, 65536);
  return Array.from({ length: layers }, (_, layer) => Math.max(layer + 1 - offset, 0) % every === 0);
}
