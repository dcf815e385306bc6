import { type AttentionRecord, checkRecord } from "../attention/policy/record.js";
import type { Tensor } from "../tensor.js";
import { type AttentionContext, denseAttention, type LayerAttention } from "./layer-attention.js";

export interface RecordedAttention extends LayerAttention {
  /** What the layers attended with since the text began. Throws ShapeError before anything was read. */
  record(model?: string): AttentionRecord;
}

/**
 * Attention that keeps the queries, keys, values and outputs of every layer, for `attention.profileLayers`; on the host, and as
 * long as the text: 4 * layers * (2 * heads + 2 * kvHeads) * headDim bytes a token.
 *
 *   let recorded: RecordedAttention | undefined;
 *   const model = await openModel(loaded, { attention: async (context) => (recorded = await recordAttention(context)) });
 *   for await (const _ of model.tokens(text, { maxTokens: 0 }));
 *   const profile = await attention.profileLayers(recorded.record("my model"));
 *
 * Another text begins another record. `inner`: what attends; outputs that are not dense are kept as they are.
 */
export async function recordAttention(
  context: AttentionContext,
  inner: (context: AttentionContext) => Promise<LayerAttention> = denseAttention,
): Promise<RecordedAttention> {
  const { config, cache, queries, out } = context;
  const { heads: queryHeads, kvHeads, headDim, layers } = config;
  const attending = await inner(context);
  const width = queryHeads * headDim;
  const empty = () => Array.from({ length: layers }, () => ({ queries: [], keys: [], values: [], out: [] }) as Parts);
  let kept = empty();
  return {
    begin() {
      kept = empty();
      attending.begin?.();
    },
    attend(layer, tokens, ofPrompt) {
      attending.attend(layer, tokens, ofPrompt);
      const parts = kept[layer] as Parts;
      parts.queries.push(queries.data.slice(0, tokens * width));
      parts.out.push(out.data.slice(0, tokens * width));
      parts.keys.push(lastRows(context, cache.keys[layer] as Tensor<"f32">, tokens));
      parts.values.push(lastRows(context, cache.values[layer] as Tensor<"f32">, tokens));
    },
    record(model) {
      const whole = kept.map((parts) => ({
        queries: joined(parts.queries),
        keys: joined(parts.keys),
        values: joined(parts.values),
        out: joined(parts.out),
      }));
      const tokens = (whole[0]?.queries.length ?? 0) / width;
      const record = { ...(model === undefined ? {} : { model }), queryHeads, kvHeads, headDim, tokens, layers: whole };
      checkRecord("recordAttention", record);
      return record;
    },
    dispose() {
      attending.dispose();
    },
  };
}

type Parts = Record<"queries" | "keys" | "values" | "out", Float32Array[]>;

/** [tokens, kvHeads, headDim] of the last tokens of the cache. */
function lastRows({ cache, config: { kvHeads, headDim } }: AttentionContext, pages: Tensor<"f32">, tokens: number): Float32Array {
  const { pageSize, length } = cache;
  const rows = new Float32Array(tokens * kvHeads * headDim);
  for (let t = 0; t < tokens; t++) {
    const position = length - tokens + t;
    const page = cache.pageTable.data[Math.floor(position / pageSize)] as number;
    for (let head = 0; head < kvHeads; head++) {
      const from = ((page * kvHeads + head) * pageSize + (position % pageSize)) * headDim;
      rows.set(pages.data.subarray(from, from + headDim), (t * kvHeads + head) * headDim);
    }
  }
  return rows;
}

function joined(parts: readonly Float32Array[]): Float32Array {
  const all = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
