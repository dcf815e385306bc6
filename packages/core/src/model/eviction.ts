/** A cache that forgets: StreamingLLM and SnapKV inside the sequence that a model decodes. */
import { describe, HotsetError } from "../errors.js";
import { compact } from "../kv-cache/compact/spec.js";
import type { KeptTokens } from "../kv-cache/evict/kept.js";
import { snapKv } from "../kv-cache/evict/snap-kv.js";
import { streamingLlm } from "../kv-cache/evict/streaming-llm.js";
import type { Step } from "../step.js";
import type { Tensor } from "../tensor.js";
import type { SequenceCache } from "./cache.js";
import type { ModelConfig } from "./config.js";
import type { AttentionContext } from "./layer-attention.js";
import { windowMasses } from "./window-masses.js";
import { Written } from "./written.js";

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
  /** So many tokens enter, the first of them at `position`. */
  enter(position: number, tokens: number): void;
  /** A layer has attended for them. */
  attended(layer: number): void;
  /** All layers have; `position` is that of the next token. A promise where something is to be waited for. */
  ran(position: number): Promise<void> | undefined;
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
      enter() {},
      attended() {},
      ran: () => undefined,
      dispose: () => kept.dispose(),
    };
  }
  const { budget, window = 32, kernel = 5 } = settings;
  const masses = await windowMasses(layers, window).catch((error) => {
    kept.dispose();
    throw error;
  });
  let promptTokens = 0;
  let watched = false;
  return {
    get counters() {
      return kept.counters;
    },
    begin(tokens) {
      promptTokens = tokens;
    },
    makeRoom() {},
    enter(position, tokens) {
      watched = promptTokens > budget && position < promptTokens;
      if (watched) masses.enter(position - (promptTokens - window), tokens);
    },
    attended(layer) {
      if (watched) masses.keep(layer);
    },
    ran(position) {
      if (position !== promptTokens || promptTokens <= budget) return undefined;
      const { length } = layers.cache;
      const { kvHeads } = layers.config;
      return masses.all().then((all) => kept.evict(all.map((of) => snapKv({ masses: of, length, kvHeads, budget, window, kernel }))));
    },
    dispose() {
      kept.dispose();
      masses.dispose();
    },
  };
}

/** `kv-cache/compact` over all layers of one cache, and what is counted. */
class Compaction {
  readonly #cache: SequenceCache;
  readonly #about: Pick<EvictionCounters, "method" | "budget" | "contextPages">;
  readonly #held: { dispose(): void }[] = [];
  #steps: readonly Step<typeof compact>[] = [];
  /** [1, kvHeads, maxKept] and [1, kvHeads]. */
  readonly #kept: Written<"i32">;
  readonly #keptCount: Written<"i32">;
  #evictions = 0;
  #tokensEvicted = 0;
  #pagesFreed = 0;

  private constructor({ hotset, backend, cache, config }: AttentionContext, { method, budget }: EvictionSettings, context: number) {
    const { kvHeads } = config;
    const { pages, pageSize } = cache;
    this.#cache = cache;
    this.#about = { method, budget, contextPages: Math.ceil(context / pageSize) };
    const written = (...shape: number[]) => {
      const made = new Written(hotset, backend, "i32", shape);
      this.#held.push(made);
      return made;
    };
    try {
      this.#kept = written(1, kvHeads, Math.min(budget, pages * pageSize));
      this.#keptCount = written(1, kvHeads);
    } catch (error) {
      this.dispose();
      throw error;
    }
  }

  static async create(layers: AttentionContext, settings: EvictionSettings, context: number): Promise<Compaction> {
    const { hotset, backend, cache, config } = layers;
    const plan = await hotset.plan(compact, compactAxes(config, cache, settings), { keyPages: "f32" }, { backend });
    const made = new Compaction(layers, settings, context);
    try {
      const { pageTable, lengths } = cache;
      const lists = { kept: made.#kept.tensor, keptCount: made.#keptCount.tensor };
      made.#steps = cache.keys.map((keyPages, layer) => {
        const step = plan.bind({ pageTable, lengths, ...lists, keyPages, valuePages: cache.values[layer] as Tensor<"f32"> });
        made.#held.push(step);
        return step;
      });
      return made;
    } catch (error) {
      made.dispose();
      throw error;
    }
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
    for (const [layer, plan] of plans.entries()) {
      const { kept, keptCount, maxKept } = plan;
      if (plan !== plans[layer - 1]) {
        for (let head = 0; head < keptCount.length; head++)
          this.#kept.data.set(kept.subarray(head * maxKept, (head + 1) * maxKept), head * stride);
        this.#keptCount.data.set(keptCount);
        this.#kept.send();
        this.#keptCount.send();
      }
      this.#steps[layer]?.run();
    }
    this.#evictions++;
    this.#tokensEvicted += this.#cache.length - first.maxKept;
    this.#pagesFreed += this.#cache.shrink(first);
  }

  dispose(): void {
    for (const one of this.#held.splice(0)) one.dispose();
  }
}

/** The sizes of `kv-cache/compact` for one sequence. */
export const compactAxes = (
  { kvHeads, headDim }: ModelConfig,
  { pages, pageSize }: Pick<SequenceCache, "pages" | "pageSize">,
  { budget }: EvictionSettings,
) => {
  const maxKept = Math.min(budget, pages * pageSize);
  return { batch: 1, kvHeads, headDim, valueDim: headDim, pages, pageSize, maxPages: pages, maxKept } as const;
};
