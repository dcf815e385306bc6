import { decode } from "../attention/decode/spec.js";
import { prefill } from "../attention/prefill/spec.js";
import type { Hotset } from "../hotset.js";
import type { Step } from "../step.js";
import type { Tensor } from "../tensor.js";
import type { SequenceCache } from "./cache.js";
import type { ModelConfig } from "./config.js";
import { Written } from "./written.js";

/** What attention is given once: where queries come from, where results go, and the cache. */
export interface AttentionContext {
  readonly hotset: Hotset;
  readonly backend: string;
  readonly config: ModelConfig;
  readonly cache: SequenceCache;
  /** [most, heads, headDim], turned by their positions. On a device, like everything here, out of the host's sight. */
  readonly queries: Tensor<"f32">;
  /** [most, heads, headDim]. */
  readonly out: Tensor<"f32">;
  /** Tokens of one call, at most. */
  readonly most: number;
}

/** How the layers of a model attend. This is the one place to put another method: see `reuseAttention`. */
export interface LayerAttention {
  /** Another text begins: nothing of the one before holds. */
  begin?(): void;
  /**
   * One layer, for the last `tokens` tokens of the cache, whose keys and values are in it: reads the first rows of
   * `queries`, writes those of `out`. `ofPrompt`: these tokens were given, not generated. On a device it is enough that
   * the work is queued.
   */
  attend(layer: number, tokens: number, ofPrompt: boolean): void | Promise<void>;
  dispose(): void;
}

/** The sizes of attention over the cache of one sequence: those of `attention/decode`. */
export const attentionAxes = ({ heads: queryHeads, kvHeads, headDim }: ModelConfig, pages: number, pageSize: number) =>
  ({ batch: 1, queryHeads, kvHeads, headDim, valueDim: headDim, pages, pageSize, maxPages: pages }) as const;

/** Attention to everything before: `attention/decode` for one token, `attention/prefill` for more. */
export async function denseAttention(context: AttentionContext): Promise<LayerAttention & { attend(...run: Attend): void }> {
  const { hotset, backend, config, cache, queries, out, most } = context;
  const { heads, headDim } = config;
  const axes = attentionAxes(config, cache.pages, cache.pageSize);
  const one = await hotset.plan(decode, axes, { keyPages: "f32" }, { backend });
  const many = await hotset.plan(prefill, { ...axes, tokens: most }, { keyPages: "f32" }, { backend });
  const held: { dispose(): void }[] = [];
  const keep = <T extends { dispose(): void }>(value: T): T => {
    held.push(value);
    return value;
  };
  const dispose = () => {
    for (const one of held.splice(0)) one.dispose();
  };
  try {
    const queryOffsets = keep(new Written(hotset, backend, "i32", [2]));
    const lse = keep(hotset.alloc("f32", [most, heads], backend));
    const first = (tensor: Tensor<"f32">) => tensor.view([1, heads, headDim]);
    const steps = cache.keys.map((keyPages, layer): [one: Step<typeof decode>, many: Step<typeof prefill>] => {
      const pages = { keyPages, valuePages: cache.values[layer] as Tensor<"f32">, pageTable: cache.pageTable, lengths: cache.lengths };
      return [
        keep(one.bind({ ...pages, queries: first(queries) }, { out: first(out), lse: lse.view([1, heads]) })),
        keep(many.bind({ ...pages, queries, queryOffsets: queryOffsets.tensor }, { out, lse })),
      ];
    });
    let set = most;
    return {
      attend(layer, tokens) {
        const [single, several] = steps[layer] as (typeof steps)[number];
        if (tokens === 1) {
          single.run();
          return;
        }
        if (set !== tokens) for (const [, step] of steps) step.set("tokens", tokens);
        set = tokens;
        if (queryOffsets.data[1] !== tokens) {
          queryOffsets.data[1] = tokens;
          queryOffsets.send();
        }
        several.run();
      },
      dispose,
    };
  } catch (error) {
    dispose();
    throw error;
  }
}

type Attend = Parameters<LayerAttention["attend"]>;
