/**
 * `node examples/dist/kv-cache.js [--data DIR]`: which blocks of a KV cache to keep. Replays Mooncake's conversation trace
 * (DIR/traces/mooncake, default ../shared/data) where it is there, else requests of made-up agents, and serves one
 * conversation from a pool of blocks.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { openTrace } from "@hotset/core/node";
import { kvCache } from "hotset";

const { values } = parseArgs({ options: { data: { type: "string", default: "../shared/data" } } });
const file = join(values.data, "traces/mooncake/conversation_trace.jsonl.gz");
const recorded = existsSync(file);
const trace = recorded ? await openTrace(file, "mooncake") : kvCache.agentSessions({ seed: 1, sessions: 1000 });
const capacity = Math.max(1, Math.floor(trace.unique / 100));

const share = (policy: "lru" | "hazard" | "belady"): { hits: number; ms: number } => {
  const start = performance.now();
  const { hits, references } = kvCache.replay(trace, { policy, capacity, semantics: "req" });
  return { hits: hits / references, ms: performance.now() - start };
};
const [lru, hazard, belady] = [share("lru"), share("hazard"), share("belady")];
const percent = (part: number): string => `${(100 * part).toFixed(1)} %`;
console.log(
  `kv-cache: ${trace.references} block references of ${recorded ? "Mooncake's conversations" : "made-up agents"} through room for 1 % of the blocks in ` +
    `${hazard.ms.toFixed(0)} ms (js): class hazard finds ${percent(hazard.hits)}, ${(hazard.hits / lru.hits).toFixed(2)}x the plain LRU's ` +
    `${percent(lru.hits)} (an oracle: ${percent(belady.hits)}).`,
);

// A pool of 64 blocks of 16 tokens: the second turn of a conversation finds the first.
const manager = new kvCache.KvBlockManager({ blocks: 64, blockSize: 16, policy: "hazard" });
const prompt = Array.from({ length: 200 }, (_, i) => i);
const first = manager.acquire(prompt);
manager.computed(first.id, prompt.length);
manager.release(first.id);
const second = manager.acquire([...prompt, 7, 7, 7]);
console.log(
  `A pool of blocks: of ${second.tokens} tokens ${second.cachedTokens} are in the cache, and ${manager.available} blocks are left.`,
);
manager.release(second.id);
manager.audit();

// Eviction inside a sequence: of 1000 tokens each head keeps 4 sinks and the last 60; pages behind them are free.
const kept = kvCache.streamingLlm({ length: 1000, kvHeads: 2, budget: 64 });
const pages = Array.from({ length: 63 }, (_, page) => page);
console.log(
  `StreamingLLM: ${kept.maxKept} of 1000 tokens stay, ${kvCache.freedPages(pages, kept, 16).length} of ${pages.length} pages are free.`,
);
