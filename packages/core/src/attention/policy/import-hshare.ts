import { describe, FormatError } from "../../errors.js";
import type { LayerRule } from "../layer-reuse-policy.js";
import { checked, type ImportedPolicy, parsedObject, ranges, wholeIn } from "./imported.js";

/** Published layer maps of HShare have this one field. */
const field = "layer.share_config";

/**
 * A layer map of HShare (sharing_layer_N.json): for each layer the layer whose tokens it takes, its own number where it
 * chooses them. The fields that HShare keeps in the model's config.json are read from the same file where they are there:
 * `sink_const`, `heavy_const`, `local_const` (8, 88 and 32 tokens without) and `share_query_const` (2), for how many tokens
 * a choice serves. A layer that takes a list that was taken itself takes the first one's. Throws FormatError.
 */
export function importHshare(source: unknown, where = "hshare layer map"): ImportedPolicy {
  const file = parsedObject(where, source);
  const map = file[field];
  if (!Array.isArray(map) || map.length === 0)
    throw new FormatError({ where, expected: `${field}: a list with the source of each layer`, received: describe(map) });
  if (file.num_hidden_layers !== undefined && file.num_hidden_layers !== map.length)
    throw new FormatError({
      where: `${where}: ${field}`,
      expected: `${describe(file.num_hidden_layers)} layers`,
      received: `${map.length}`,
    });
  const constant = (name: string, otherwise: number, least: number): number => wholeIn(`${where}: ${name}`, file[name] ?? otherwise, least);
  const [sink, heavy, local] = [constant("sink_const", 8, 0), constant("heavy_const", 88, 0), constant("local_const", 32, 1)];
  const refreshEvery = constant("share_query_const", 2, 1);
  const sources = map.map((from, layer) => wholeIn(`${where}: ${field}[${layer}]`, from, 0, layer));
  const followed: number[] = [];
  // Sources come before: theirs are known.
  for (const [layer, from] of sources.entries()) if (sources[from] !== from) followed.push(layer);
  for (const layer of followed) sources[layer] = sources[sources[layer] as number] as number;
  const rules = sources.map(
    (from, layer): LayerRule =>
      from === layer ? { kind: "anchor", k: sink + heavy + local, refreshEvery, attends: "list" } : { kind: "reuse", source: from },
  );
  const heads = file.share_head_const;
  const notExpressed = [
    "Tokens are chosen by part of the channels of queries and keys (32, the outliers); the policy weighs them by their exact attention mass.",
    "In HShare a choice serves the steps up to the next multiple of share_query_const tokens; the policy counts from when it was made.",
    ...(heads === undefined || heads === 0
      ? ["Heads that share tokens inside a layer are chosen while a text is read and are in no file; each KV head has its own list."]
      : [
          `${describe(heads)} heads of a layer take the tokens of others, chosen while a text is read; each KV head has its own list here.`,
        ]),
    ...(followed.length > 0 ? [`Layers ${ranges(followed)} take from a layer that takes from another: they take from that one.`] : []),
  ];
  const name = Array.isArray(file.architectures) ? file.architectures[0] : file._name_or_path;
  return {
    format: "hshare",
    policy: checked(where, rules, { granularity: 1, perHead: true, sink, recent: local }),
    notExpressed,
    ...(typeof name === "string" ? { model: name } : {}),
  };
}
