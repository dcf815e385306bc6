import { describe, HotsetError } from "../errors.js";
import { ExpertCache, never, type RetentionPolicy } from "./expert-cache.js";
import type { MoeTrace } from "./trace/trace.js";

export interface ReplaySettings {
  readonly policy: RetentionPolicy;
  /** Slots of each layer; the experts of one token and layer must fit. */
  readonly capacity: number;
  /** Of `ema`; default 0.98. */
  readonly decay?: number;
  /** Bytes of one expert's weights. */
  readonly expertBytes: number;
  /** From where experts are loaded, in GB/s. */
  readonly bandwidth: number;
  /** What `belady` and `belady-bypass` need; made here where it is not given. */
  readonly nextUses?: Int32Array;
}

export interface ReplayResult {
  readonly policy: RetentionPolicy;
  readonly capacity: number;
  readonly hits: number;
  readonly references: number;
  readonly hitRatio: number;
  readonly bytesPerToken: number;
  /** Time that tokens wait for experts when each miss is loaded on demand and nothing overlaps. */
  readonly stallMsPerToken: number;
}

/**
 * Replays a trace against a cache of `capacity` slots a layer, which stays warm from sequence to sequence. One event is
 * one token in one layer; hits are counted over tokens * layers * topK references. Throws HotsetError where the slots are below topK.
 */
export function replayMoeTrace(trace: MoeTrace, settings: ReplaySettings): ReplayResult {
  const { policy, capacity, decay = 0.98, expertBytes, bandwidth } = settings;
  const { layers, experts, topK, tokens, ids } = trace;
  if (!(bandwidth > 0 && Number.isFinite(bandwidth)))
    throw new HotsetError("argument", { where: "replay", expected: "a bandwidth above 0, in GB/s", received: describe(bandwidth) });
  if (Number.isInteger(capacity) && capacity >= 1 && capacity < topK)
    throw new HotsetError("argument", {
      where: "replay",
      expected: `a capacity of at least ${topK} slots, the experts that a token uses in a layer`,
      received: `${capacity}`,
    });
  const cache = new ExpertCache({ layers, experts, slots: capacity, policy, decay, expertBytes });
  const next = policy.startsWith("belady") ? (settings.nextUses ?? nextUses(trace)) : undefined;
  for (let event = 0; event < tokens * layers; event++) {
    const at = event * topK;
    cache.event(event % layers, ids.subarray(at, at + topK), next?.subarray(at, at + topK));
  }
  const { hits, misses, bytes } = cache.counters;
  const references = hits + misses;
  return {
    policy,
    capacity,
    hits,
    references,
    hitRatio: references === 0 ? 0 : hits / references,
    bytesPerToken: tokens === 0 ? 0 : bytes / tokens,
    stallMsPerToken: tokens === 0 ? 0 : bytes / tokens / (bandwidth * 1e6),
  };
}

/** [tokens, layers, topK]: the token in which each expert is next used in the same layer; `never` where it is not. */
export function nextUses({ layers, experts, topK, tokens, ids }: MoeTrace): Int32Array {
  const next = new Int32Array(ids.length);
  const coming = new Int32Array(layers * experts).fill(never);
  for (let t = tokens - 1; t >= 0; t--)
    for (let layer = 0; layer < layers; layer++)
      for (let k = 0; k < topK; k++) {
        const at = (t * layers + layer) * topK + k;
        const of = layer * experts + (ids[at] as number);
        next[at] = coming[of] as number;
        coming[of] = t;
      }
  return next;
}
