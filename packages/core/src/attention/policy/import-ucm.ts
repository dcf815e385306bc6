import { describe, FormatError } from "../../errors.js";
import type { LayerRule } from "../layer-reuse-policy.js";
import { checked, type ImportedPolicy, parsedObject, perLayer, wholeIn } from "./imported.js";

/**
 * A gsa_on_device config of unified-cache-management (MIT): its rollback layers are full, its skip layers reuse the list of
 * the last layer that is neither, and these attend to the blocks they select. A file without those lists is read by its
 * older fields, a share of the context and a source for each layer. Throws FormatError.
 */
export function importUcm(source: unknown, where = "ucm config"): ImportedPolicy {
  const file = parsedObject(where, source);
  const layers = wholeIn(`${where}: num_hidden_layers`, file.num_hidden_layers, 1, 65536);
  const block = wholeIn(`${where}: chunk_size`, file.chunk_size, 1, 65536);
  const minContext = wholeIn(`${where}: gpu_seq_len_threshold`, file.gpu_seq_len_threshold ?? 0, 0);
  const { sink, recent, others } = forcedBlocks(where, file.must_select_blocks ?? [], block);
  const rollback = file.vllm_hash_attention_rollback_layers;
  const skip = file.vllm_hash_attention_skip_layers;
  const notExpressed: string[] = [
    "Blocks are selected by the Hamming distance of hashed queries and keys, the nearest token of a block deciding; the policy weighs blocks by their exact attention mass.",
  ];
  const say = (name: string, what: string): void => {
    if (file[name] !== undefined && file[name] !== null) notExpressed.push(what.replace("$", JSON.stringify(file[name])));
  };
  say("gpu_concurrency_threshold", "Sparse attention begins at $ requests at a time on a GPU.");
  say("npu_seq_len_threshold", "On an NPU it begins at a context of $ tokens.");
  say("npu_concurrency_threshold", "On an NPU it begins at $ requests at a time.");
  if (file.is_mla === true) notExpressed.push("The model has latent attention (MLA): one cached row for all heads.");
  if (others.length > 0) notExpressed.push(`Blocks ${others.join(", ")} are always selected; only first and last ones can be.`);
  let rules: LayerRule[];
  if (rollback === undefined && skip === undefined) rules = byShares(where, file, layers);
  else {
    const k = wholeIn(`${where}: vllm_hash_attention_topk`, file.vllm_hash_attention_topk, 1);
    rules = byFlags(where, layers, rollback, perLayer(`${where}: vllm_hash_attention_skip_layers`, skip, layers), k);
    if (file.top_k_ratio_per_layer !== undefined) notExpressed.push("top_k_ratio_per_layer is not used beside the newer lists of layers.");
    if (file.top_k_index_reuse !== undefined) notExpressed.push("top_k_index_reuse is not used beside the newer lists of layers.");
  }
  const policy = checked(where, rules, { granularity: block, perHead: false, sink, recent, minContext });
  return { format: "ucm", policy, notExpressed, ...(typeof file.model_name === "string" ? { model: file.model_name } : {}) };
}

function byFlags(where: string, layers: number, rollback: unknown, skip: readonly unknown[], k: number): LayerRule[] {
  if (!Array.isArray(rollback))
    throw new FormatError({
      where: `${where}: vllm_hash_attention_rollback_layers`,
      expected: "a list of layers",
      received: describe(rollback),
    });
  const full = new Set(rollback.map((layer, i) => wholeIn(`${where}: vllm_hash_attention_rollback_layers[${i}]`, layer, 0, layers - 1)));
  let anchor = -1;
  return skip.map((flag, layer): LayerRule => {
    const place = `${where}: vllm_hash_attention_skip_layers[${layer}]`;
    if (typeof flag !== "boolean") throw new FormatError({ where: place, expected: "true or false", received: describe(flag) });
    if (full.has(layer)) return { kind: "full" };
    if (!flag) {
      anchor = layer;
      return { kind: "anchor", k, refreshEvery: 1, attends: "list" };
    }
    if (anchor < 0)
      throw new FormatError({
        where: place,
        expected: "a layer before it that selects blocks, whose selection it takes",
        received: "none",
      });
    return { kind: "reuse", source: anchor };
  });
}

function byShares(where: string, file: Record<string, unknown>, layers: number): LayerRule[] {
  const shares = perLayer(`${where}: top_k_ratio_per_layer`, file.top_k_ratio_per_layer, layers);
  const sources = perLayer(`${where}: top_k_index_reuse`, file.top_k_index_reuse ?? new Array(layers).fill(-1), layers);
  return shares.map((share, layer): LayerRule => {
    const place = `${where}: top_k_ratio_per_layer[${layer}]`;
    if (typeof share !== "number" || !(share > 0 && share <= 1))
      throw new FormatError({ where: place, expected: "a number above 0, at most 1", received: describe(share) });
    const source = wholeIn(`${where}: top_k_index_reuse[${layer}]`, sources[layer], -1, layer - 1);
    if (source >= 0) return { kind: "reuse", source };
    return share === 1 ? { kind: "full" } : { kind: "anchor", ratio: share, refreshEvery: 1, attends: "list" };
  });
}

/** Blocks that are always selected: 0, 1, ... from the front, -1, -2, ... from the back. */
function forcedBlocks(where: string, value: unknown, block: number) {
  if (!Array.isArray(value))
    throw new FormatError({ where: `${where}: must_select_blocks`, expected: "a list of blocks", received: describe(value) });
  const blocks = new Set(value.map((one, i) => wholeIn(`${where}: must_select_blocks[${i}]`, one, -65536, 65536)));
  let [first, last] = [0, 0];
  while (blocks.delete(first)) first++;
  while (blocks.delete(-1 - last)) last++;
  // Blocks are counted from the first token, so the last of them may be partly filled: one token less still reaches it.
  return { sink: first * block, recent: last === 0 ? 1 : (last - 1) * block + 1, others: [...blocks].sort((a, b) => a - b) };
}
