/** A cache that forgets: StreamingLLM and SnapKV inside the sequence that a model decodes. */
import { describe, HotsetError } from "../errors.js";
import { compact } from "../kv-cache/compact/spec.js";
import type { KeptTokens } from "../kv-cache/evict/kept.js";
import { snapKv } from "../kv-cache/evict/snap-kv.js";
import { streamingLlm } from "../kv-cache/evict/streaming-llm.js";
import type { Step } from "../step.js";
import type { Tensor } from "../tensor.js";
import type { SequenceCache } from "./cache.js";
import type { AttentionContext } from "./layer-attention.js";
import { type WindowMasses, windowMasses } from "./window-masses.js";

/** The first `sinks` tokens and the last `budget - sinks`, at every token (`kvCache.streamingLlm`). */
export interface StreamingLlmEviction {
  readonly method: "streaming-llm";
  /** Tokens that a generated token attends to, itself included: at least sinks + 2. */
  readonly budget: number;
  /** First tokens that stay. Default 4. */
  readonly sinks?: number | undefined;
}
/** Once, after the prompt: in each layer and KV head what the prompt's last tokens attend to (`kvCache.snapKv`). */
export interface SnapKvEviction {
  readonly method: "snapkv";
  /** Tokens of the prompt that stay, the window included. Generated tokens join them. */
  readonly budget: number;
  /** Last tokens of the prompt, which stay and choose the others. Default 32. */
  readonly window?: number | undefined;
  /** Neighbours that masses are averaged over, odd. Default 5. */
  readonly kernel?: number | undefined;
}
export type EvictionSettings = StreamingLlmEviction | SnapKvEviction;

/** What was done in the texts so far. */
export interface EvictionCounters {
  readonly method: EvictionSettings["method"];
  readonly budget: number;
  readonly evictions: number;
  /** Counted once for each eviction, not for each layer and head. */
  readonly tokensEvicted: number;
  readonly pagesFreed: number;
  /** Pages in use now and at most at a time, those of the cache, and those that a cache of the whole context has. */
  readonly pages: number;
  readonly peakPages: number;
  readonly cachePages: number;
  readonly contextPages: number;
  /** Of one page, over all layers. */
  readonly pageBytes: number;
}

/** What a model asks of a cache that forgets; in this order for each run. */
export interface Eviction {
  readonly counters: EvictionCounters;
  /** Another text begins. */
  begin(promptTokens: number): void;
  /** Before tokens enter the cache. */
  makeRoom(): void;
  /** A layer has attended for the last `tokens` tokens of the cache, the first of which is at `position`. */
  attended(layer: number, position: number, tokens: number): void;
  /** All layers have; `position` is that of the next token. */
  ran(position: number): void;
  dispose(): void;
}

/** Throws HotsetError where the budget has no room for what always stays. */
export function checkEviction(settings: EvictionSettings): void {
  const { method, budget } = settings;
  const must = (name: string, value: unknown, least: number, why = ""): void => {
    if (!Number.isSafeInteger(value) || (value as number) < least)
      throw new HotsetError("argument", {
        where: `openModel: ${method}`,
        expected: `${name} to be a whole number of at least ${least}${why}`,
        received: describe(value),
      });
  };
  if (method === "streaming-llm") {
    const { sinks = 4 } = settings;
    must("sinks", sinks, 0);
    must("budget", budget, sinks + 2, `: the ${sinks} sinks, a token behind them, and the newest`);
  } else if (method === "snapkv") {
    const { window = 32, kernel = 5 } = settings;
    must("window", window, 1);
    must("kernel", kernel, 1);
    if (kernel % 2 === 0)
      throw new HotsetError("argument", { where: "openModel: snapkv", expected: "kernel to be odd", received: `${kernel}` });
    must("budget", budget, window, `: the window, the last ${window} tokens of the prompt`);
  } else
    throw new HotsetError("argument", {
      where: "openModel: eviction",
      expected: 'method "streaming-llm" or "snapkv"',
      received: describe(method),
    });
}

/** Tokens that the cache needs, where up to `chunk` enter at a time. SnapKV needs the whole prompt once. */
export const tokensHeld = (settings: EvictionSettings | undefined, context: number, chunk: number): number =>
  settings?.method === "streaming-llm" ? Math.min(context, settings.budget - 1 + chunk) : context;

/** Plans what the method needs over the cache of one sequence. */
export async function makeEviction(layers: AttentionContext, settings: EvictionSettings, context: number): Promise<Eviction> {
  const kept = await Compaction.create(layers, settings, context);
  if (settings.method === "streaming-llm") {
    const { budget, sinks = 4 } = settings;
    const { kvHeads } = layers.config;
    return {
      get counters() {
        return kept.counters;
      },
      begin() {},
      // The first token that enters completes the budget; of a longer part of a prompt, the others see each other too.
      makeRoom() {
        const { length } = layers.cache;
        if (length < budget) return;
        const plan = streamingLlm({ length, kvHeads, budget: budget - 1, sinks });
        kept.evict(layers.cache.keys.map(() => plan));
      },
      attended() {},
      ran() {},
      dispose: () => kept.dispose(),
    };
  }
  const { budget, window = 32, kernel = 5 } = settings;
  const masses = await windowMasses(layers, window);
  let promptTokens = 0;
  return {
    get counters() {
      return kept.counters;
    },
    begin(tokens) {
      promptTokens = tokens;
    },
    makeRoom() {},
    attended(layer, position, tokens) {
      if (promptTokens > budget && position < promptTokens) masses.keep(layer, position - (promptTokens - window), tokens);
    },
    ran(position) {
      if (position === promptTokens && promptTokens > budget) kept.evict(chosen(layers, masses, { budget, window, kernel }));
    },
    dispose() {
      kept.dispose();
      masses.dispose();
    },
  };
}

/** SnapKV's choice in each layer. */
function chosen(
  { cache, config: { kvHeads } }: AttentionContext,
  masses: WindowMasses,
  settings: { budget: number; window: number; kernel: number },
): KeptTokens[] {
  const { length } = cache;
  return cache.keys.map((_, layer) => snapKv({ ...settings, masses: masses.of(layer), length, kvHeads }));
}

/** `kv-cache/compact` over all layers of one cache, and what is counted. */
class Compaction {
  readonly #cache: SequenceCache;
  readonly #steps: readonly Step<typeof compact>[];
  /** [1, kvHeads, maxKept] and [1, kvHeads]. */
  readonly #kept: Tensor<"i32">;
  readonly #keptCount: Tensor<"i32">;
  readonly #about: Pick<EvictionCounters, "method" | "budget" | "contextPages">;
  #evictions = 0;
  #tokensEvicted = 0;
  #pagesFreed = 0;

  private constructor(
    cache: SequenceCache,
    steps: readonly Step<typeof compact>[],
    kept: Tensor<"i32">,
    keptCount: Tensor<"i32">,
    about: Pick<EvictionCounters, "method" | "budget" | "contextPages">,
  ) {
    this.#cache = cache;
    this.#steps = steps;
    this.#kept = kept;
    this.#keptCount = keptCount;
    this.#about = about;
  }

  static async create(layers: AttentionContext, { method, budget }: EvictionSettings, context: number): Promise<Compaction> {
    const { hotset, backend, cache } = layers;
    const { kvHeads, headDim } = layers.config;
    const { pages, pageSize } = cache;
    const maxKept = Math.min(budget, pages * pageSize);
    const sizes = { batch: 1, kvHeads, headDim, valueDim: headDim, pages, pageSize, maxPages: pages, maxKept };
    const plan = await hotset.plan(compact, sizes, { keyPages: "f32" }, { backend });
    const kept = hotset.alloc("i32", [1, kvHeads, maxKept], backend);
    const keptCount = hotset.alloc("i32", [1, kvHeads], backend);
    const { pageTable, lengths } = cache;
    const steps = cache.keys.map((keyPages, layer) =>
      plan.bind({ pageTable, lengths, kept, keptCount, keyPages, valuePages: cache.values[layer] as Tensor<"f32"> }),
    );
    return new Compaction(cache, steps, kept, keptCount, { method, budget, contextPages: Math.ceil(context / pageSize) });
  }

  get counters(): EvictionCounters {
    const { pagesInUse: pages, peakPages, pages: cachePages, pageBytes } = this.#cache;
    return {
      ...this.#about,
      evictions: this.#evictions,
      tokensEvicted: this.#tokensEvicted,
      pagesFreed: this.#pagesFreed,
      pages,
      peakPages,
      cachePages,
      pageBytes,
    };
  }

  /** Keeps these tokens, as many in each head of each layer. */
  evict(plans: readonly KeptTokens[]): void {
    const [first] = plans;
    if (!first) return;
    const stride = this.#kept.data.length / this.#keptCount.data.length;
    for (const [layer, { kept, keptCount, maxKept }] of plans.entries()) {
      for (let head = 0; head < keptCount.length; head++)
        this.#kept.data.set(kept.subarray(head * maxKept, (head + 1) * maxKept), head * stride);
      this.#keptCount.data.set(keptCount);
      this.#steps[layer]?.run();
    }
    this.#evictions++;
    this.#tokensEvicted += this.#cache.length - first.maxKept;
    this.#pagesFreed += this.#cache.shrink(first);
  }

  dispose(): void {
    for (const step of this.#steps) step.dispose();
    this.#kept.dispose();
    this.#keptCount.dispose();
  }
}
